"""Baselines that need no network: numbers, given functions, running averages.

Axes: T time, B episodes.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_one_of
from pgjax._records import print_as_made_by
from pgjax.rows import map_over_rows
from pgjax.types import Baseline, PyTree, Trajectory


def stateless(predict: Callable[[Trajectory], jax.Array], **kwargs) -> Baseline:
    """A baseline that is a function of the trajectory alone and learns nothing."""
    baseline = Baseline(
        init=lambda key, sample: (),
        predict=lambda state, trajectory: predict(trajectory),
        update=lambda state, trajectory, returns: (state, {}),
        **kwargs,
    )
    print_as_made_by(predict, baseline.init, baseline.predict, baseline.update)
    return baseline


def returns_of(trajectory: Trajectory) -> jax.Array:
    """G `[T, B]`, which the estimator fills in.

    Raises:
        ValueError: if it did not.
    """
    if trajectory.returns is None:
        raise ValueError("this baseline needs trajectory.returns, got None: make_estimator fills them in")
    return trajectory.returns


def none() -> Baseline:
    """b = 0."""
    return constant(0.0)


def constant(value: float) -> Baseline:
    """b = `value`, a number fixed before any data. Unbiased."""
    return stateless(lambda trajectory: jnp.full_like(trajectory.rewards, value))


def state_values(function: Callable[[PyTree], jax.Array]) -> Baseline:
    """b = v(X_t) for a given function of one observation (an exact value function, a table). Unbiased.

    Args:
        function: obs → scalar.
    """

    def predict(trajectory: Trajectory) -> jax.Array:
        return map_over_rows(jax.vmap(function), trajectory.obs, trajectory.alive)

    return stateless(predict, of_observation=True)


Initial = Literal["zero", "first", "debiased"]


class MovingAverageState(NamedTuple):
    """`estimate` is ρ̂ before any correction, `num_updates` counts the batches seen; both scalars."""

    estimate: jax.Array
    num_updates: jax.Array


def moving_average(decay: float = 0.9, initial: Initial | float = "zero") -> Baseline:
    """b = ρ̂, a running estimate of ρ(θ); after use, ρ̂ ← β ρ̂ + (1 − β) mean over episodes of G_1. Unbiased.

    A batch of one episode is the update of REINFORCE (Williams 1992, with a moving-average baseline). Refreshing
    ρ̂ with the batch *before* using it would shrink the expected gradient by exactly β.

    Args:
        decay: β in [0, 1].
        initial: what ρ̂ starts at. A number; `"zero"`; `"first"` (b = 0 for the first batch, whose mean return then
            becomes ρ̂); `"debiased"` (start at zero and use ρ̂ / (1 − βⁿ) after n batches, b = 0 before the first,
            as Adam does; Kingma & Ba 2015).

    Raises:
        ValueError: if `decay` is outside [0, 1] or `initial` is an unknown word.
    """
    require_in_range("decay", decay, 0.0, 1.0)
    if isinstance(initial, str):
        require_one_of("initial", initial, get_args(Initial))

    def init(key: jax.Array, sample: Trajectory) -> MovingAverageState:
        del key
        start = 0.0 if isinstance(initial, str) else initial
        return MovingAverageState(
            estimate=jnp.asarray(start, sample.rewards.dtype), num_updates=jnp.zeros((), jnp.int32)
        )

    def predict(state: MovingAverageState, trajectory: Trajectory) -> jax.Array:
        estimate = state.estimate
        if initial == "debiased":
            weight = 1.0 - jnp.asarray(decay, estimate.dtype) ** state.num_updates.astype(estimate.dtype)
            estimate = jnp.where(weight > 0, estimate / jnp.where(weight > 0, weight, 1.0), 0.0)
        return jnp.broadcast_to(estimate, trajectory.rewards.shape)

    def update(state: MovingAverageState, trajectory: Trajectory, returns: jax.Array):
        del trajectory
        mean_return = jnp.mean(returns[0])
        estimate = decay * state.estimate + (1.0 - decay) * mean_return
        if initial == "first":
            estimate = jnp.where(state.num_updates == 0, mean_return, estimate)
        new = MovingAverageState(estimate=estimate.astype(state.estimate.dtype), num_updates=state.num_updates + 1)
        return new, {"moving_average": new.estimate}

    return Baseline(init=init, predict=predict, update=update)


class TimeDependentState(NamedTuple):
    """`estimates` is b_t, `[T]`; `seen` is bool `[T]`, whether any episode was ever alive at t."""

    estimates: jax.Array
    seen: jax.Array


def time_dependent(decay: float = 0.9) -> Baseline:
    """b_t, one moving average per time step of the mean of G_t over the episodes still running at t. Unbiased.

    b_t ← β b_t + (1 − β) mean G_t after use; a time step's first mean becomes its b_t, before which b_t = 0.

    Args:
        decay: β in [0, 1].
    """
    require_in_range("decay", decay, 0.0, 1.0)

    def init(key: jax.Array, sample: Trajectory) -> TimeDependentState:
        del key
        num_steps = sample.rewards.shape[0]
        return TimeDependentState(
            estimates=jnp.zeros(num_steps, sample.rewards.dtype), seen=jnp.zeros(num_steps, jnp.bool_)
        )

    def predict(state: TimeDependentState, trajectory: Trajectory) -> jax.Array:
        return jnp.broadcast_to(state.estimates[:, None], trajectory.rewards.shape)

    def update(state: TimeDependentState, trajectory: Trajectory, returns: jax.Array):
        num_alive = jnp.sum(trajectory.alive, axis=1)
        total = jnp.sum(jnp.where(trajectory.alive, returns, 0.0), axis=1)
        mean = total / jnp.maximum(num_alive, 1).astype(total.dtype)
        moved = jnp.where(state.seen, decay * state.estimates + (1.0 - decay) * mean, mean)
        estimates = jnp.where(num_alive > 0, moved, state.estimates)
        return TimeDependentState(estimates=estimates, seen=state.seen | (num_alive > 0)), {}

    return Baseline(init=init, predict=predict, update=update)
