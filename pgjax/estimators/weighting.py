"""The weights w_t = c_t (G_t − b(X_t)) of a weighted log-likelihood, without the policy.

An estimator of pgjax multiplies them by ∇ ln f of its policy. In your own training loop you can multiply them by your
own log-probabilities. Axes: T time, B episodes, k episodes of a group.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from pgjax import advantages, baselines
from pgjax import returns as return_functions
from pgjax._checks import require_integer, require_kind, require_one_of
from pgjax._doors import readable
from pgjax._records import one_line
from pgjax.advantages.steps import OverTime, time_factors
from pgjax.contracts import require_trajectory
from pgjax.estimators.rules import ReturnRule, next_values, reward_to_go
from pgjax.types import Baseline, Needs, PyTree, TimeWeights, Trajectory

Standardise = Literal["none", "population", "group_population", "group_sample"]


class Weighting(NamedTuple):
    """The rule that gives each row of a batch its weight. *Use, then update.*

    Attributes:
        init: `(key, sample) → state`, the state of the baseline.
        weigh: `(state, trajectory) → (w [T, B], G [T, B])`. w multiplies ∇ ln f(X_t, θ)_{A_t}; the sum over the rows of
            an episode, averaged over episodes, estimates ∇ρ(θ). The baseline is to be fitted to G.
        weigh_and_update: `(state, trajectory) → (w [T, B], state, metrics)`. The weights use the old state; the new
            state has seen the batch.
        returns, baseline: the rule and the baseline that the weights use.
        fits_windows: whether the rule can weigh windows, which cut episodes.
        needs: what the rule reads from the trajectory beyond what a rollout records.
    """

    init: Callable[[jax.Array, Trajectory], PyTree]
    weigh: Callable[[PyTree, Trajectory], tuple[jax.Array, jax.Array]]
    weigh_and_update: Callable[[PyTree, Trajectory], tuple[jax.Array, PyTree, dict[str, jax.Array]]]
    returns: ReturnRule
    baseline: Baseline
    fits_windows: bool
    needs: Needs

    def __repr__(self) -> str:
        return one_line(self)


@readable
def make_weighting(
    *,
    returns: ReturnRule | None = None,
    baseline: Baseline | None = None,
    over_time: OverTime = "sum",
    standardise: Standardise = "none",
    group_size: int | None = None,
    time_weights: TimeWeights = "none",
) -> Weighting:
    """The weights by which `make_estimator` with the same arguments multiplies ∇ ln f.

        ∇̂ρ = (1/B) Σ_b Σ_t w_t^b ∇ ln f(X_t^b, θ)_{A_t^b},    w_t = c_t (G_t − b(X_t))

    The arguments and the errors are those of `make_estimator`.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import Trajectory, baselines, estimators
        >>> rewards = jnp.array([[1.0, 2.0], [0.0, 3.0]])
        >>> alive = jnp.ones((2, 2), bool)
        >>> ends = jnp.array([[False, False], [True, True]])
        >>> batch = Trajectory(obs=rewards, actions=rewards, rewards=rewards, alive=alive, terminated=ends,
        ...                    truncated=jnp.zeros_like(ends), final_obs=rewards[0])
        >>> weighting = estimators.make_weighting(baseline=baselines.leave_one_out())
        >>> weights, returns = weighting.weigh((), batch)
        >>> print(returns[0], weights[0])
        [1. 5.] [-4.  4.]
    """
    returns = reward_to_go() if returns is None else returns
    baseline = baselines.none() if baseline is None else baseline
    require_kind("returns", returns, ReturnRule, "estimators.reward_to_go()")
    require_kind("baseline", baseline, Baseline, "baselines.leave_one_out()")
    require_one_of("over_time", over_time, get_args(OverTime))
    require_one_of("standardise", standardise, get_args(Standardise))
    require_one_of("time_weights", time_weights, get_args(TimeWeights))
    if returns.bootstraps and not baseline.of_observation:
        raise ValueError(
            "baseline must be a function of the observation that predicts the return (value_function, state_values) "
            f"when returns bootstrap (n_step, lambda_return), because they need v(X_{{t+1}}), got {baseline!r}"
        )
    if time_weights == "discount" and returns.from_start:
        raise ValueError("time_weights must be 'none' with total_return, which already discounts from the start")
    needs = baseline.needs._replace(group_size=_one_group_size(group_size, baseline.needs.group_size))

    def factors(trajectory: Trajectory) -> jax.Array:
        alive, dtype = trajectory.alive, trajectory.rewards.dtype
        scale = time_scale(over_time, alive, dtype)
        if time_weights == "discount":
            powers = return_functions.discount_weights(alive.shape[0], returns.discount).astype(dtype)
            scale = scale * powers[:, None]
        return jnp.where(alive, scale, 0.0)

    def weights_of(targets: jax.Array, values: jax.Array, trajectory: Trajectory) -> jax.Array:
        weights = targets - values
        if standardise == "population":
            weights = advantages.standardise(weights, trajectory.alive)
        elif standardise != "none":
            ddof = int(standardise == "group_sample")
            weights = advantages.standardise_groups(weights.T, group_size=needs.group_size, ddof=ddof).T
        # A row of padding may hold any number, even ∞, and 0 · ∞ is NaN.
        return factors(trajectory) * jnp.where(trajectory.alive, weights, 0.0)

    def weigh(state: PyTree, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        require_trajectory(trajectory)
        targets, values = targets_and_values(returns, baseline, state, trajectory)
        return weights_of(targets, values, trajectory), targets

    def weigh_and_update(state: PyTree, trajectory: Trajectory) -> tuple[jax.Array, PyTree, dict[str, jax.Array]]:
        require_trajectory(trajectory)
        if returns.bootstraps or baseline.predict_and_update is None:
            targets, values = targets_and_values(returns, baseline, state, trajectory)
            state, metrics = baseline.update(state, trajectory._replace(returns=targets), targets)
        else:
            targets = returns.compute(trajectory, None, None)
            values, state, metrics = baseline.predict_and_update(state, trajectory._replace(returns=targets), targets)
        return weights_of(targets, values, trajectory), state, metrics

    return Weighting(
        init=baseline.init,
        weigh=weigh,
        weigh_and_update=weigh_and_update,
        returns=returns,
        baseline=baseline,
        fits_windows=returns.bootstraps and time_weights == "none" and over_time != "episode_mean",
        needs=needs,
    )


def _one_group_size(wanted: int | None, of_baseline: int | None) -> int | None:
    if wanted is None:
        return of_baseline
    require_integer("group_size", wanted, 2, None)
    if of_baseline not in (None, wanted):
        raise ValueError(f"group_size must be the group size of the baseline, {of_baseline}, or None, got {wanted}")
    return wanted


def time_scale(over_time: OverTime, alive: jax.Array, dtype: Any) -> jax.Array:
    """The factor c_t of the rows, `[1, B]` or `[1, 1]`, for a way of adding up over time."""
    lengths = jnp.sum(alive, axis=0, keepdims=True)
    return jnp.atleast_2d(time_factors(lengths, alive.shape[0], alive.shape[1], over_time, dtype))


def targets_and_values(
    returns: ReturnRule, baseline: Baseline, state: PyTree, trajectory: Trajectory
) -> tuple[jax.Array, jax.Array]:
    """G and b, both `[T, B]`. The baseline sees G as `trajectory.returns`, unless G itself needs b (bootstrapping)."""
    if returns.bootstraps:
        values = baseline.predict(state, trajectory)
        following = next_values(baseline, state, trajectory, values)
        return returns.compute(trajectory, values, following), values
    targets = returns.compute(trajectory, None, None)
    return targets, baseline.predict(state, trajectory._replace(returns=targets))
