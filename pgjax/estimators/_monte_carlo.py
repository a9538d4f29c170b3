"""Checks and factors shared by the estimators that accept Monte-Carlo returns only. Axes: T time, B episodes."""

from typing import get_args

import jax
import jax.numpy as jnp

from pgjax import returns as return_functions
from pgjax._checks import require_kind, require_one_of
from pgjax.estimators.rules import ReturnRule
from pgjax.types import Baseline, TimeWeights


def require_monte_carlo(
    returns: ReturnRule, baseline: Baseline, time_weights: TimeWeights, *, from_start: bool = True
) -> None:
    """Refuse arguments that an estimator with Monte-Carlo returns cannot use.

    Args:
        returns: G; the rule must not bootstrap.
        baseline: b; it must not need scores.
        time_weights: `"discount"` multiplies row t by γᵗ. `total_return` already discounts from the start, so the two
            exclude each other.
        from_start: whether `total_return` is allowed.

    Raises:
        ValueError: if one of these conditions fails.
    """
    require_kind("returns", returns, ReturnRule, "estimators.reward_to_go()")
    require_kind("baseline", baseline, Baseline, "baselines.leave_one_out()")
    require_one_of("time_weights", time_weights, get_args(TimeWeights))
    if returns.bootstraps or (returns.from_start and not from_start):
        allowed = "total_return or reward_to_go" if from_start else "reward_to_go"
        raise ValueError(f"returns must be {allowed} in this estimator, got {returns!r}")
    if baseline.needs.scores != "none":
        raise ValueError(f"baseline must not need scores in this estimator, got {baseline!r}")
    if time_weights == "discount" and returns.from_start:
        raise ValueError("time_weights must be 'none' with total_return, which already discounts from the start")


def time_factors(returns: ReturnRule, time_weights: TimeWeights, like: jax.Array) -> jax.Array:
    """The factor of each row, γᵗ or 1: an array `[T, B]` with the dtype of `like [T, B]`."""
    if time_weights == "none":
        return jnp.ones_like(like)
    powers = return_functions.discount_weights(like.shape[0], returns.discount).astype(like.dtype)
    return jnp.broadcast_to(powers[:, None], like.shape)
