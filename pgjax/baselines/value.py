"""The predicted return v(X_t), a network fitted to the returns it has weighed. Axes: T time, B episodes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_integer
from pgjax._spread import centre_and_spread
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
    losses: Callable
    finish: Callable


class _Moments(NamedTuple):
    """m and s as they will be after the batch, the unit of the targets, and the spread of this batch's; scalars."""

    mean: jax.Array
    scale: jax.Array
    unit: jax.Array
    spread: jax.Array


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

    def begin(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array) -> tuple[_Moments, jax.Array]:
        """The moved m and s, and the normalised targets `[T, B]`."""
        batch_mean, _, spread = (jnp.squeeze(x) for x in centre_and_spread(returns, trajectory.alive))
        averaged = lambda old, new, known: jnp.where(known, new + decay * (old - new), new)
        mean = averaged(state.mean, batch_mean, state.num_updates > 0)
        scale = averaged(state.scale, spread, state.scale > 0)
        unit = jnp.where(scale > 0, scale, 1.0)
        moments = _Moments(mean=mean, scale=scale, unit=unit, spread=spread)
        return moments, jnp.where(scale > 0, (returns - mean) / unit, 0.0)

    def losses(state: ValueFunctionState, moments: _Moments, outputs: jax.Array, targets: jax.Array):
        """The loss of each row, and the squared error of the values before this update in the same unit."""
        error = (state.mean - moments.mean) / moments.unit + state.scale / moments.unit * outputs - targets
        return value_loss(outputs, targets), jax.lax.stop_gradient(jnp.square(error))

    def step(state: ValueFunctionState, gradient: PyTree) -> ValueFunctionState:
        updates, optimizer_state = optimizer.update(gradient, state.optimizer_state, state.params)
        return state._replace(
            params=jax.tree.map(jnp.add, state.params, updates), optimizer_state=optimizer_state
        )

    def finish(state: ValueFunctionState, moments: _Moments, means: tuple[jax.Array, jax.Array], gradient: PyTree):
        loss, error = means
        new = step(state, gradient)._replace(
            mean=moments.mean.astype(state.mean.dtype),
            scale=moments.scale.astype(state.scale.dtype),
            num_updates=state.num_updates + 1,
        )
        ratio = error * jnp.square(moments.unit / jnp.where(moments.spread > 0, moments.spread, 1.0))
        unexplained = jnp.where((moments.spread > 0) | (error == 0), ratio, jnp.inf)
        return new, {"value_loss": loss, "unexplained_variance": unexplained}

    def update(state: ValueFunctionState, trajectory: Trajectory, returns: jax.Array):
        moments, targets = begin(state, trajectory, returns)
        alive = trajectory.alive
        num_live = jnp.maximum(jnp.sum(alive), 1).astype(returns.dtype)

        def means_and_gradient(params: PyTree) -> tuple[tuple[jax.Array, jax.Array], PyTree]:
            def of_piece(params: PyTree, rows: tuple[PyTree, jax.Array], mask: jax.Array):
                inputs, target = rows
                each = losses(state, moments, jax.vmap(apply_row, (None, 0))(params, inputs), target)
                loss, error = (jnp.sum(jnp.where(mask, x, 0.0)) / num_live for x in each)
                return loss, error

            def one(rows: tuple[PyTree, jax.Array], mask: jax.Array):
                (loss, error), gradient = jax.value_and_grad(of_piece, has_aux=True)(params, rows, mask)
                return (loss, error), gradient

            return sum_over_rows(one, (rows_of(trajectory), targets), alive, rows_per_piece)

        # The first pass still has the parameters of the values which weighed this batch.
        first, gradient = means_and_gradient(state.params)

        def one_more(carry: tuple[ValueFunctionState, PyTree], _):
            moved = step(*carry)
            return (moved, means_and_gradient(moved.params)[1]), None

        moved = state
        if num_steps > 1:
            (moved, gradient), _ = jax.lax.scan(one_more, (state, gradient), length=num_steps - 1)
        return finish(moved, moments, first, gradient)

    return _Fitted(init=init, update=update, begin=begin, losses=losses, finish=finish)


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
        losses=parts.losses,
        finish=parts.finish,
    )
    return Baseline(
        init=parts.init,
        predict=predict,
        update=parts.update,
        of_observation=True,
        fit=fit if num_steps == 1 else None,
    )
