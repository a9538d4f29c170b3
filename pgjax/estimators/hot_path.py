"""The one hot path: the gradient of a sum over live rows of an objective of the policy's outputs.

    ∇̂ρ = (1/B) Σ_b Σ_t ∇ objective(outputs(X_t^b, θ), row_t^b)

The weights come first and are part of the rows; then this gradient, in pieces of rows that fit the cache, and only as
far as episodes live. Axes: T time, B episodes, N rows of one piece.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax.pieces import sum_over_rows
from pgjax.types import Estimator, Policy, Trajectory

PyTree = Any
RowObjective = Callable[[PyTree, PyTree], tuple[jax.Array, jax.Array]]


def count_live(alive: jax.Array, dtype: Any) -> jax.Array:
    """Live steps, at least one, as a number to divide by."""
    return jnp.maximum(jnp.sum(alive), 1).astype(dtype)


def batch_gradient(
    policy: Policy,
    row_objective: RowObjective,
    params: PyTree,
    obs: PyTree,
    rows: PyTree,
    alive: jax.Array,
    rows_per_piece: int | None = None,
) -> tuple[PyTree, jax.Array]:
    """(1/B) Σ_{b,t} ∇ objective over live rows, a pytree as `params`, and Σ_{b,t} of the second output.

    Args:
        row_objective: `(outputs of the policy [N, ...], rows [N, ...]) → (objective [N], a number to sum up [N])`.
        obs, rows: leaves `[T, B, ...]`.
        alive: bool `[T, B]`.
    """
    function = _masked_gradient(policy, row_objective, params)
    summed, extra = sum_over_rows(function, (obs, rows), alive, rows_per_piece)
    return jax.tree.map(lambda x: x / alive.shape[1], summed), extra


def each_episode(
    policy: Policy, row_objective: RowObjective, params: PyTree, obs: PyTree, rows: PyTree, alive: jax.Array
) -> PyTree:
    """Σ_t ∇ objective of every episode, leaves `[B, ...]`: their mean is `batch_gradient`'s."""
    function = _masked_gradient(policy, row_objective, params)
    return jax.vmap(lambda episode, mask: function(episode, mask)[0], in_axes=1)((obs, rows), alive)


def _masked_gradient(policy: Policy, row_objective: RowObjective, params: PyTree):
    def total(params: PyTree, piece: tuple[PyTree, PyTree], mask: jax.Array) -> tuple[jax.Array, jax.Array]:
        obs, rows = piece
        objective, extra = row_objective(jax.vmap(policy.apply, (None, 0))(params, obs), rows)
        return jnp.sum(jnp.where(mask, objective, 0.0)), jnp.sum(jnp.where(mask, extra, 0.0))

    return lambda piece, mask: jax.grad(total, has_aux=True)(params, piece, mask)


def assemble(
    policy: Policy,
    *,
    init: Callable[[jax.Array, Trajectory], PyTree],
    weights: Callable[[PyTree, Trajectory], tuple[jax.Array, jax.Array]],
    rows: Callable[[PyTree, Trajectory], tuple[PyTree, jax.Array]],
    row_objective: RowObjective,
    update: Callable[[PyTree, PyTree, Trajectory, jax.Array], tuple[PyTree, dict[str, jax.Array]]],
    fits_windows: bool,
    rows_per_piece: int | None = None,
) -> Estimator:
    """An `Estimator` whose gradient goes through the hot path.

    Args:
        init, weights, fits_windows: the `Estimator`'s own.
        rows: `(state, trajectory) → (rows [T, B, ...], targets [T, B])`, all that `row_objective` needs, and what the
            baseline is fitted to.
        row_objective: `(outputs [N, ...], rows [N, ...]) → (objective [N], entropy [N])`.
        update: `(params, state, trajectory, targets) → (state, metrics)`, after use.
    """

    return assemble_at(
        policy,
        init=init,
        weights=weights,
        rows=lambda params, state, trajectory: rows(state, trajectory),
        row_objective=row_objective,
        update=lambda params, state, trajectory, targets: update(
            params, state, trajectory._replace(returns=targets), targets
        ),
        fits_windows=fits_windows,
        rows_per_piece=rows_per_piece,
    )


def assemble_at(
    policy: Policy,
    *,
    init: Callable[[jax.Array, Trajectory], PyTree],
    weights: Callable[[PyTree, Trajectory], tuple[jax.Array, jax.Array]],
    rows: Callable[[PyTree, PyTree, Trajectory], tuple[PyTree, PyTree]],
    row_objective: RowObjective,
    update: Callable[[PyTree, PyTree, Trajectory, PyTree], tuple[PyTree, dict[str, jax.Array]]],
    fits_windows: bool,
    rows_per_piece: int | None = None,
) -> Estimator:
    """`assemble` where the weights depend on θ, which costs them a pass of their own over the rows.

    Args:
        rows: `(params, state, trajectory) → (rows [T, B, ...], targets)`; the rows are constants of the gradient, and
            the targets any pytree that `update` takes.
        init, weights, row_objective, update, fits_windows: as in `assemble`.
    """

    def gradient(params: PyTree, state: PyTree, trajectory: Trajectory):
        alive = trajectory.alive
        all_rows, targets = rows(params, state, trajectory)
        estimate, entropy = batch_gradient(
            policy, row_objective, params, trajectory.obs, all_rows, alive, rows_per_piece
        )
        state, metrics = update(params, state, trajectory, targets)
        return estimate, state, {"entropy": entropy / count_live(alive, entropy.dtype), **metrics}

    def episode_gradients(params: PyTree, state: PyTree, trajectory: Trajectory) -> PyTree:
        all_rows, _ = rows(params, state, trajectory)
        return each_episode(policy, row_objective, params, trajectory.obs, all_rows, trajectory.alive)

    return Estimator(
        init=init,
        weights=weights,
        gradient=gradient,
        episode_gradients=episode_gradients,
        fits_windows=fits_windows,
    )
