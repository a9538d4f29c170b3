"""Baselines without a network: constants, given functions and running averages.

Axes: T time, B episodes.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_one_of
from pgjax._doors import readable
from pgjax._records import print_as_made_by
from pgjax.rows import map_over_rows
from pgjax.types import Baseline, PyTree, Trajectory


@readable
def stateless(predict: Callable[[Trajectory], jax.Array], **kwargs) -> Baseline:
    """A baseline that is a function of the trajectory alone and learns nothing.

    Args:
        predict: `trajectory → b [T, B]`.
        **kwargs: further fields of `Baseline`, such as `needs`.

    Example: the number of steps left before the horizon, for a problem that pays 1 at every step.

        >>> import jax.numpy as jnp
        >>> from pgjax import baselines
        >>> def steps_left():
        ...     ones = lambda trajectory: jnp.ones_like(trajectory.rewards)
        ...     return baselines.stateless(lambda trajectory: jnp.cumsum(ones(trajectory), axis=0)[::-1])
        >>> steps_left()
        Baseline(steps_left)
    """
    baseline = Baseline(
        init=lambda key, sample: (),
        predict=lambda state, trajectory: predict(trajectory),
        update=lambda state, trajectory, returns: (state, {}),
        **kwargs,
    )
    print_as_made_by(predict, baseline.init, baseline.predict, baseline.update)
    return baseline


def returns_of(trajectory: Trajectory) -> jax.Array:
    """G `[T, B]`, which the estimator has filled in.

    Raises:
        ValueError: if `trajectory.returns` is None.
    """
    if trajectory.returns is None:
        raise ValueError("this baseline needs trajectory.returns, got None: make_estimator fills them in")
    return trajectory.returns


@readable
def none() -> Baseline:
    """b = 0.

    Example:
        >>> from pgjax import baselines
        >>> baselines.none()
        Baseline(constant)
    """
    return constant(0.0)


@readable
def constant(value: float) -> Baseline:
    """b = `value`, a number that does not depend on the data. Unbiased.

    Example:
        >>> from pgjax import baselines
        >>> baselines.constant(-8.0)
        Baseline(constant)
    """
    return stateless(lambda trajectory: jnp.full_like(trajectory.rewards, value))


@readable
def state_values(function: Callable[[PyTree], jax.Array]) -> Baseline:
    """b = v(X_t) for a given function of one observation, such as an exact value function. Unbiased.

    Args:
        function: `obs → scalar`.

    Example: minus the distance to 0 as the value. Returns that bootstrap accept it, because it sees X_t alone.

        >>> import jax.numpy as jnp
        >>> from pgjax import baselines
        >>> baselines.state_values(lambda obs: -jnp.abs(obs[0]))
        Baseline(state_values, of_observation=True)
    """

    def predict(trajectory: Trajectory) -> jax.Array:
        return map_over_rows(jax.vmap(function), trajectory.obs, trajectory.alive)

    return stateless(predict, of_observation=True)


Initial = Literal["zero", "first", "debiased"]


class MovingAverageState(NamedTuple):
    """`estimate` is ρ̂ before any correction, `num_updates` the number of batches seen; both are scalars."""

    estimate: jax.Array
    num_updates: jax.Array


@readable
def moving_average(decay: float = 0.9, initial: Initial | float = "zero") -> Baseline:
    """b = ρ̂, a running estimate of ρ(θ); after use, ρ̂ ← β ρ̂ + (1 − β) (mean of G_1 over the batch). Unbiased.

    With one episode in a batch this is the update of REINFORCE with a moving-average baseline (Williams 1992). If such
    a batch updated ρ̂ *before* its use, the expected gradient would be exactly β times the true one.

    Args:
        decay: β in [0, 1].
        initial: the value at which ρ̂ starts. It is a number, or `"zero"`, or `"first"`: b = 0 for the first batch,
            whose mean return then becomes ρ̂. With `"debiased"` ρ̂ starts at 0 and b = ρ̂ / (1 − βⁿ) after n batches, as
            in Adam (Kingma & Ba 2015); b = 0 before the first batch.

    Raises:
        ValueError: if `decay` is outside [0, 1] or `initial` is an unknown word.

    Example:
        >>> from pgjax import baselines
        >>> baselines.moving_average(decay=0.9, initial="first")
        Baseline(moving_average)
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
    """`estimates` is b_t, `[T]`; `seen` is bool `[T]`, true if any episode has been alive at t."""

    estimates: jax.Array
    seen: jax.Array


@readable
def time_dependent(decay: float = 0.9) -> Baseline:
    """b_t, a moving average for each time step of the mean of G_t over the episodes that still run at t. Unbiased.

    After use, b_t ← β b_t + (1 − β) (mean of G_t). The first mean of a time step becomes its b_t; before that, b_t = 0.

    Args:
        decay: β in [0, 1].

    Raises:
        ValueError: if `decay` is outside [0, 1].

    Example:
        >>> from pgjax import baselines
        >>> baselines.time_dependent(decay=0.9)
        Baseline(time_dependent)
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
