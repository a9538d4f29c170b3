"""The ladder of baselines b(X_t) behind one signature: init, predict, update.

*Use, then update*: `predict` is asked about a batch before `update` has seen it, so b is independent of the
actions that it weighs and E[b Σ_t ∇ ln f(X_t, θ)_{A_t}] = 0: the gradient stays unbiased whatever b is. The
baselines for which this fails (`batch_mean`) say so, with the factor.

Axes: T time, B episodes. `trajectory.returns` is the estimator's G: G_1 in every row for the total return, G_t in
row t for the reward-to-go; row 0 is G_1 either way.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax.losses import value_loss
from pgjax.pieces import map_over_rows, sum_over_rows
from pgjax.types import Baseline, Trajectory

PyTree = Any


def _stateless(predict: Callable[[Trajectory], jax.Array], **kwargs) -> Baseline:
    return Baseline(
        init=lambda key, sample: (),
        predict=lambda state, trajectory: predict(trajectory),
        update=lambda state, trajectory, returns: (state, {}),
        **kwargs,
    )


def none() -> Baseline:
    """b = 0."""
    return constant(0.0)


def constant(value: float) -> Baseline:
    """b = `value`, a number fixed before any data. Unbiased."""
    return _stateless(lambda trajectory: jnp.full_like(trajectory.rewards, value))


def state_values(function: Callable[[PyTree], jax.Array]) -> Baseline:
    """b = v(X_t) for a given function of one observation (an exact value function, a table). Unbiased.

    Args:
        function: obs → scalar.
    """

    def predict(trajectory: Trajectory) -> jax.Array:
        return map_over_rows(jax.vmap(function), trajectory.obs, trajectory.alive)

    return _stateless(predict, of_observation=True)


class MovingAverageState(NamedTuple):
    """`estimate` is ρ̂ before any correction, `num_updates` counts the batches seen; both scalars."""

    estimate: jax.Array
    num_updates: jax.Array


def moving_average(decay: float = 0.9, initial: str | float = "zero") -> Baseline:
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
        require_one_of("initial", initial, ("zero", "first", "debiased"))

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


def _group_totals(trajectory: Trajectory, over: str) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Each row's own share `[T, B]` and weight `[T, B]` in the group mean, and the weights' sum `[T, 1]`."""
    weights = trajectory.alive if over == "live" else jnp.ones_like(trajectory.alive)
    weights = weights.astype(trajectory.rewards.dtype)
    return weights * trajectory.returns, weights, jnp.sum(weights, axis=1, keepdims=True)


def batch_mean(over: str = "episodes") -> Baseline:
    """b_t = the batch's mean of G_t, the episode's own included.

    Biased: the episode's own return pulls b towards itself, and over all episodes the expected gradient is exactly
    (B − 1)/B of the true one. `leave_one_out` is the cure.

    Args:
        over: `"episodes"` averages over all B episodes (a finished one counts its G_t, zero for reward-to-go);
            `"live"` over the episodes still running at t (no exact factor then).
    """
    require_one_of("over", over, ("episodes", "live"))

    def predict(trajectory: Trajectory) -> jax.Array:
        shares, _, total = _group_totals(trajectory, over)
        mean = jnp.sum(shares, axis=1, keepdims=True) / jnp.maximum(total, 1.0)
        return jnp.broadcast_to(mean, shares.shape)

    return _stateless(predict)


def leave_one_out(over: str = "episodes") -> Baseline:
    """b_t = the mean of G_t over the *other* episodes of the batch. Unbiased.

    G^i − b^i = B/(B − 1) (G^i − mean G): RLOO (Kool, van Hoof & Welling 2019). Needs B ≥ 2.

    Args:
        over: `"episodes"` averages over all B − 1 others (a finished one counts its G_t, zero for reward-to-go);
            `"live"` over the others still running at t, and b = 0 when there is none.

    Raises:
        ValueError: when a batch has a single episode.
    """
    require_one_of("over", over, ("episodes", "live"))

    def predict(trajectory: Trajectory) -> jax.Array:
        num_episodes = trajectory.rewards.shape[1]
        if num_episodes < 2:
            raise ValueError(
                "leave_one_out needs at least 2 episodes in a batch, got num_episodes=1: no other is left to average"
            )
        shares, weights, total = _group_totals(trajectory, over)
        others = jnp.sum(shares, axis=1, keepdims=True) - shares
        return others / jnp.maximum(total - weights, 1.0)

    return _stateless(predict)


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


class ValueFunctionState(NamedTuple):
    """The network's `params` and `optimizer_state`; `mean` and `scale` of the targets, scalars; a batch counter."""

    params: PyTree
    optimizer_state: PyTree
    mean: jax.Array
    scale: jax.Array
    num_updates: jax.Array


def value_function(
    init_params: Callable[[jax.Array, PyTree], PyTree],
    apply: Callable[[PyTree, PyTree], jax.Array],
    optimizer: Any,
    *,
    num_steps: int = 1,
    decay: float = 0.9,
    rows_per_piece: int | None = None,
) -> Baseline:
    """b = v(X_t), a network fitted to the returns by ½ (v(X_t) − G_t)², averaged over live steps. Unbiased.

    v(x) = m + s · network(x), where m and s are moving averages of the targets' mean and standard deviation: the
    network's output stays of order one whatever the rewards' unit.

    Args:
        init_params: `(key, obs) → params`, for one observation.
        apply: `(params, obs) → scalar`, for one observation.
        optimizer: an optax gradient transformation (anything with its `init` and `update`).
        num_steps: gradient steps over the whole batch per update.
        decay: of the moving averages m and s, in [0, 1].
        rows_per_piece: how many rows are worked on at a time.

    Raises:
        ValueError: if `num_steps` < 1 or `decay` is outside [0, 1].
    """
    require_integer("num_steps", num_steps, 1, None)
    require_in_range("decay", decay, 0.0, 1.0)

    def init(key: jax.Array, sample: Trajectory) -> ValueFunctionState:
        params = init_params(key, jax.tree.map(lambda x: x[0, 0], sample.obs))
        dtype = sample.rewards.dtype
        return ValueFunctionState(
            params=params,
            optimizer_state=optimizer.init(params),
            mean=jnp.zeros((), dtype),
            scale=jnp.ones((), dtype),
            num_updates=jnp.zeros((), jnp.int32),
        )

    def predict(state: ValueFunctionState, trajectory: Trajectory) -> jax.Array:
        def values(obs: PyTree) -> jax.Array:
            return state.mean + state.scale * jax.vmap(apply, (None, 0))(state.params, obs)

        return map_over_rows(values, trajectory.obs, trajectory.alive, rows_per_piece)

    def update(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array):
        alive = trajectory.alive
        num_live = jnp.maximum(jnp.sum(alive), 1).astype(returns.dtype)
        mean = jnp.sum(jnp.where(alive, returns, 0.0)) / num_live
        variance = jnp.sum(jnp.where(alive, jnp.square(returns - mean), 0.0)) / num_live
        weight = jnp.where(state.num_updates == 0, 0.0, decay)
        mean = weight * state.mean + (1.0 - weight) * mean
        # Constant returns have no spread; any positive scale serves then.
        scale = weight * state.scale + (1.0 - weight) * jnp.maximum(jnp.sqrt(variance), 1e-3)
        targets = (returns - mean) / scale

        def piece_loss(params: PyTree, rows: tuple[PyTree, jax.Array], mask: jax.Array) -> jax.Array:
            obs, target = rows
            return jnp.sum(jnp.where(mask, value_loss(jax.vmap(apply, (None, 0))(params, obs), target), 0.0)) / num_live

        def step(carry, _):
            params, optimizer_state = carry
            loss, gradient = sum_over_rows(
                lambda rows, mask: jax.value_and_grad(piece_loss)(params, rows, mask),
                (trajectory.obs, targets),
                alive,
                rows_per_piece,
            )
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            return (jax.tree.map(jnp.add, params, updates), optimizer_state), loss

        (params, optimizer_state), losses = jax.lax.scan(
            step, (state.params, state.optimizer_state), length=num_steps
        )
        new = ValueFunctionState(
            params=params,
            optimizer_state=optimizer_state,
            mean=mean.astype(state.mean.dtype),
            scale=scale.astype(state.scale.dtype),
            num_updates=state.num_updates + 1,
        )
        # The first step's loss is that of the values which weighed this batch, up to the moved normalisation.
        unexplained = 2.0 * losses[0] * scale**2 / jnp.maximum(variance, 1e-12)
        return new, {"value_loss": losses[0], "unexplained_variance": unexplained}

    return Baseline(init=init, predict=predict, update=update, of_observation=True)
