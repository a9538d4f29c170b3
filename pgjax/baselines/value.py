"""The predicted return v(X_t), a network fitted to the returns it has weighed. Axes: T time, B episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_integer
from pgjax.losses import value_loss
from pgjax.pieces import map_over_rows, sum_over_rows
from pgjax.types import Baseline, RowFit, Trajectory

PyTree = Any


class ValueFunctionState(NamedTuple):
    """The network's `params` and `optimizer_state`; `mean` and `scale` of the targets, scalars; a batch counter."""

    params: PyTree
    optimizer_state: PyTree
    mean: jax.Array
    scale: jax.Array
    num_updates: jax.Array


class _Fitted(NamedTuple):
    """What a network that is fitted to returns has in common, whatever it looks at."""

    init: Callable
    update: Callable
    begin: Callable
    loss: Callable
    finish: Callable


class _Moments(NamedTuple):
    """m and s as they will be after the batch, and the batch's own variance of the targets; scalars."""

    mean: jax.Array
    scale: jax.Array
    variance: jax.Array


def fitted(
    init_params: Callable[[jax.Array, PyTree], PyTree],
    rows_of: Callable[[Trajectory], PyTree],
    apply_row: Callable[[PyTree, PyTree], jax.Array],
    optimizer: Any,
    *,
    num_steps: int,
    decay: float,
    rows_per_piece: int | None,
) -> _Fitted:
    """A network m + s · network(row), fitted by ½ (m + s · network(row) − G_t)² / s² over live steps.

    m and s are moving averages of the targets' mean and standard deviation: the network's output stays of order one
    whatever the rewards' unit.

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
            scale=jnp.ones((), dtype),
            num_updates=jnp.zeros((), jnp.int32),
        )

    def begin(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array) -> tuple[_Moments, jax.Array]:
        """The moved m and s, and the normalised targets `[T, B]`."""
        alive = trajectory.alive
        num_live = jnp.maximum(jnp.sum(alive), 1).astype(returns.dtype)
        mean = jnp.sum(jnp.where(alive, returns, 0.0)) / num_live
        variance = jnp.sum(jnp.where(alive, jnp.square(returns - mean), 0.0)) / num_live
        weight = jnp.where(state.num_updates == 0, 0.0, decay)
        mean = weight * state.mean + (1.0 - weight) * mean
        # Constant returns have no spread; any positive scale serves then.
        scale = weight * state.scale + (1.0 - weight) * jnp.maximum(jnp.sqrt(variance), 1e-3)
        return _Moments(mean=mean, scale=scale, variance=variance), (returns - mean) / scale

    def step(state: ValueFunctionState, gradient: PyTree) -> ValueFunctionState:
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        return state._replace(
            params=jax.tree.map(jnp.add, state.params, updates), optimizer_state=optimizer_state
        )

    def finish(state: ValueFunctionState, moments: _Moments, loss: jax.Array, gradient: PyTree):
        """The last step of the fit; `loss` is that of the values which weighed this batch."""
        new = step(state, gradient)._replace(
            mean=moments.mean.astype(state.mean.dtype),
            scale=moments.scale.astype(state.scale.dtype),
            num_updates=state.num_updates + 1,
        )
        # Up to the moved normalisation.
        unexplained = 2.0 * loss * moments.scale**2 / jnp.maximum(moments.variance, 1e-12)
        return new, {"value_loss": loss, "unexplained_variance": unexplained}

    def update(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array):
        moments, targets = begin(state, trajectory, returns)
        alive = trajectory.alive
        num_live = jnp.maximum(jnp.sum(alive), 1).astype(returns.dtype)

        def loss_and_gradient(params: PyTree) -> tuple[jax.Array, PyTree]:
            def of_piece(params: PyTree, rows: tuple[PyTree, jax.Array], mask: jax.Array) -> jax.Array:
                inputs, target = rows
                losses = value_loss(jax.vmap(apply_row, (None, 0))(params, inputs), target)
                return jnp.sum(jnp.where(mask, losses, 0.0)) / num_live

            one = lambda rows, mask: jax.value_and_grad(of_piece)(params, rows, mask)
            return sum_over_rows(one, (rows_of(trajectory), targets), alive, rows_per_piece)

        first_loss, gradient = loss_and_gradient(state.params)

        def one_more(carry: tuple[ValueFunctionState, PyTree], _):
            state = step(*carry)
            return (state, loss_and_gradient(state.params)[1]), None

        if num_steps > 1:
            (state, gradient), _ = jax.lax.scan(one_more, (state, gradient), length=num_steps - 1)
        return finish(state, moments, first_loss, gradient)

    return _Fitted(init=init, update=update, begin=begin, loss=value_loss, finish=finish)


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
    parts = fitted(
        init_params,
        lambda trajectory: trajectory.obs,
        apply,
        optimizer,
        num_steps=num_steps,
        decay=decay,
        rows_per_piece=rows_per_piece,
    )
    values = lambda state, outputs: state.mean + state.scale * outputs

    def predict(state: ValueFunctionState, trajectory: Trajectory) -> jax.Array:
        of_rows = lambda obs: values(state, jax.vmap(apply, (None, 0))(state.params, obs))
        return map_over_rows(of_rows, trajectory.obs, trajectory.alive, rows_per_piece)

    fit = RowFit(
        params=lambda state: state.params,
        outputs=apply,
        values=values,
        begin=parts.begin,
        loss=parts.loss,
        finish=parts.finish,
    )
    return Baseline(
        init=parts.init,
        predict=predict,
        update=parts.update,
        of_observation=True,
        fit=fit if num_steps == 1 else None,
    )
