"""The predicted return v(X_t), a network fitted to the returns it has weighed. Axes: T time, B episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_integer
from pgjax._spread import centre_and_spread
from pgjax.losses import value_loss
from pgjax.pieces import map_over_rows, sum_over_rows
from pgjax.types import Baseline, Trajectory

PyTree = Any


class ValueFunctionState(NamedTuple):
    """The network's `params` and `optimizer_state`; `mean` and `scale` of the targets, scalars; a batch counter."""

    params: PyTree
    optimizer_state: PyTree
    mean: jax.Array
    scale: jax.Array
    num_updates: jax.Array


def fitted(
    init_params: Callable[[jax.Array, PyTree], PyTree],
    rows_of: Callable[[Trajectory], PyTree],
    apply_row: Callable[[PyTree, PyTree], jax.Array],
    optimizer: Any,
    *,
    num_steps: int,
    decay: float,
    rows_per_piece: int | None,
) -> tuple[Callable, Callable]:
    """The `init` and `update` of m + s · network(row), fitted by ½ (m + s · network(row) − G_t)² over live steps.

    m and s are moving averages of the targets' mean and standard deviation: the network's output stays of order one
    whatever the rewards' unit. Both start at 0, where every value is 0; s begins with the first batch whose targets
    differ. So a factor c on all rewards is a factor c on all values, and nothing else changes.

    The metric `unexplained_variance` is E(v − G_t)² / Var(G_t) of the values v that weighed this batch: 1 for the best
    constant, above 1 for worse values, infinite for wrong values of targets that do not vary.

    Args:
        rows_of: what of the trajectory the network sees, leaves `[T, B, ...]`.
        apply_row: `(params, row) → scalar`.

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
            scale=jnp.zeros((), dtype),
            num_updates=jnp.zeros((), jnp.int32),
        )

    def update(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array):
        alive = trajectory.alive
        num_live = jnp.maximum(jnp.sum(alive), 1).astype(returns.dtype)
        batch_mean, _, spread = (jnp.squeeze(x) for x in centre_and_spread(returns, alive))
        averaged = lambda old, new, known: jnp.where(known, new + decay * (old - new), new)
        mean = averaged(state.mean, batch_mean, state.num_updates > 0)
        scale = averaged(state.scale, spread, state.scale > 0)
        unit = jnp.where(scale > 0, scale, 1.0)
        targets = jnp.where(scale > 0, (returns - mean) / unit, 0.0)

        def piece_loss(params: PyTree, rows: tuple[PyTree, jax.Array], mask: jax.Array):
            """The loss, and the mean squared error of the values before this update in the same unit."""
            inputs, target = rows
            outputs = jax.vmap(apply_row, (None, 0))(params, inputs)
            error = (state.mean - mean) / unit + state.scale / unit * outputs - target
            average = lambda x: jnp.sum(jnp.where(mask, x, 0.0)) / num_live
            return average(value_loss(outputs, target)), average(jnp.square(error))

        def step(carry, _):
            params, optimizer_state = carry
            (loss, error), gradient = sum_over_rows(
                lambda rows, mask: jax.value_and_grad(piece_loss, has_aux=True)(params, rows, mask),
                (rows_of(trajectory), targets),
                alive,
                rows_per_piece,
            )
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            return (jax.tree.map(jnp.add, params, updates), optimizer_state), (loss, error)

        (params, optimizer_state), (losses, errors) = jax.lax.scan(
            step, (state.params, state.optimizer_state), length=num_steps
        )
        new = ValueFunctionState(
            params=params,
            optimizer_state=optimizer_state,
            mean=mean.astype(state.mean.dtype),
            scale=scale.astype(state.scale.dtype),
            num_updates=state.num_updates + 1,
        )
        # The first step still has the parameters of the values which weighed this batch.
        ratio = errors[0] * jnp.square(unit / jnp.where(spread > 0, spread, 1.0))
        unexplained = jnp.where((spread > 0) | (errors[0] == 0), ratio, jnp.inf)
        return new, {"value_loss": losses[0], "unexplained_variance": unexplained}

    return init, update


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
    network's output stays of order one whatever the rewards' unit. v = 0 before the first update.

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
    init, update = fitted(
        init_params,
        lambda trajectory: trajectory.obs,
        apply,
        optimizer,
        num_steps=num_steps,
        decay=decay,
        rows_per_piece=rows_per_piece,
    )

    def predict(state: ValueFunctionState, trajectory: Trajectory) -> jax.Array:
        def values(obs: PyTree) -> jax.Array:
            return state.mean + state.scale * jax.vmap(apply, (None, 0))(state.params, obs)

        return map_over_rows(values, trajectory.obs, trajectory.alive, rows_per_piece)

    return Baseline(init=init, predict=predict, update=update, of_observation=True)
