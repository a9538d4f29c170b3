"""Functions that build the estimators and the exact moments of the entries from `Parts`."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import baselines, estimators
from pgjax.exact.moments.summary import Moments
from pgjax.registry.entry import CompleteSettings, Oracle, ServedParts, Settings
from pgjax.types import Baseline, Estimator, PyTree, Trajectory

# The settings that every estimator of `make_estimator` has; these values give the exact gradient of ρ(θ).
PLAIN = Settings(discount=1.0, entropy_coef=0.0, over_time="sum", standardise="none")
# The same for an estimator that subtracts v(X_t); the decay is that of the scale of a fitted value.
WITH_VALUE = dataclasses.replace(PLAIN, decay=0.9)


def total_return(settings: CompleteSettings) -> estimators.ReturnRule:
    """G_1 with the discount of the settings."""
    return estimators.total_return(settings.discount)


def reward_to_go(settings: CompleteSettings) -> estimators.ReturnRule:
    """G_t with the discount of the settings."""
    return estimators.reward_to_go(settings.discount)


def lambda_return(settings: CompleteSettings) -> estimators.ReturnRule:
    """G_t^λ with λ and the discount of the settings."""
    return estimators.lambda_return(settings.lambda_, settings.discount)


def n_step(settings: CompleteSettings) -> estimators.ReturnRule:
    """The return of n rewards and a value, with n and the discount of the settings."""
    return estimators.n_step(settings.n, settings.discount)


def weighted(
    returns: Callable[[CompleteSettings], Any],
    baseline: Callable[[ServedParts], Baseline] | None = None,
    objective: Callable[[CompleteSettings], Any] | None = None,
) -> Callable[[ServedParts], Estimator]:
    """The field `build` of an entry whose estimator `estimators.make_estimator` makes.

    Args:
        returns: `settings → ReturnRule`.
        baseline: `parts → Baseline`; no baseline if None.
        objective: `settings → objective`; `estimators.score_function` if None.
    """

    def build(parts: ServedParts) -> Estimator:
        settings = parts.settings
        in_groups = settings.standardise.startswith("group")
        return estimators.make_estimator(
            parts.policy,
            returns=returns(settings),
            baseline=None if baseline is None else baseline(parts),
            objective=estimators.score_function if objective is None else objective(settings),
            entropy_coef=settings.entropy_coef,
            over_time=settings.over_time,
            standardise=settings.standardise,
            group_size=parts.group if in_groups else None,
        )

    return build


def value(parts: ServedParts) -> Baseline:
    """v(X_t), as the parts bring it."""
    return parts.value


def moving_average(parts: ServedParts) -> Baseline:
    """ρ̂ with the decay of the settings; it starts at the first return."""
    return baselines.moving_average(parts.settings.decay, "first")


def values_in_time(parts: ServedParts) -> Baseline:
    """b = V_t(X_t), the exact value of the oracle, which depends on the time left; a fitted v(X_t) does not see it."""

    def predict(trajectory: Trajectory) -> jax.Array:
        table = jnp.asarray(parts.oracle.values_in_time.astype(trajectory.rewards.dtype))
        states = jax.vmap(jax.vmap(parts.states.index_of))(trajectory.obs)
        return jnp.take_along_axis(table, states, axis=1)

    return baselines.stateless(predict)


def over_time(oracle: Oracle) -> np.ndarray:
    """q(s, a) of the oracle, repeated for each time, `[T, S, A]`."""
    return np.broadcast_to(oracle.action_values, (oracle.mdp.horizon, *oracle.action_values.shape))


def by_program(
    function: Callable[[], Callable[..., Moments]], *names: str, **options: Any
) -> Callable[[ServedParts, PyTree], Moments]:
    """The field `program` of an entry.

    Args:
        function: `() → function`, because `pgjax.exact` loads with the first use of it; the function is `(apply,
            params, mdp, **options) → Moments`.
        *names: the names of the settings that the function takes.
        **options: further options of the function. If an option is a function, it is called with the oracle.
    """

    def program(parts: ServedParts, params: PyTree) -> Moments:
        oracle = parts.oracle
        chosen = {name: option(oracle) if callable(option) else option for name, option in options.items()}
        chosen |= {name: getattr(parts.settings, name) for name in names}
        return function()(parts.policy.apply, params, oracle.mdp, **chosen)

    return program
