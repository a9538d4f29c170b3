"""What estimators that need Monte-Carlo returns and their own targets have in common. Axes: T time, B episodes."""

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
    """Returns that do not bootstrap and count from the start only if `from_start`; b without scores; γᵗ once.

    Raises:
        ValueError: otherwise.
    """
    require_kind("returns", returns, ReturnRule, "estimators.reward_to_go()")
    require_kind("baseline", baseline, Baseline, "baselines.leave_one_out()")
    require_one_of("time_weights", time_weights, get_args(TimeWeights))
    if returns.bootstraps or (returns.from_start and not from_start):
        allowed = "total_return or reward_to_go" if from_start else "reward_to_go"
        raise ValueError(f"returns must be {allowed} here, got another rule")
    if baseline.needs.scores != "none":
        raise ValueError(f"baseline must not need scores here, got one with needs.scores={baseline.needs.scores!r}")
    if time_weights == "discount" and returns.from_start:
        raise ValueError("time_weights must be 'none' with total_return, which already discounts from the start")


def time_factors(returns: ReturnRule, time_weights: TimeWeights, like: jax.Array) -> jax.Array:
    """The factor of each row, γᵗ or 1, `[T, B]` and of the dtype of `like [T, B]`."""
    if time_weights == "none":
        return jnp.ones_like(like)
    powers = return_functions.discount_weights(like.shape[0], returns.discount).astype(like.dtype)
    return jnp.broadcast_to(powers[:, None], like.shape)
