"""The one hot path: the gradient of a sum over live rows of an objective of the policy's outputs.

    ∇̂ρ = (1/B) Σ_b Σ_t ∇ objective(outputs(X_t^b, θ), row_t^b)

The weights come first and are part of the rows; then this gradient, in pieces of rows that fit the cache, and only as
far as episodes live. The pieces are whole episodes where the policy has memory. Axes: T time, B episodes, N rows of one
piece.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._records import print_as_made_by
from pgjax.contracts import require_trajectory
from pgjax.rows import sum_over_rows
from pgjax.types import Estimator, Needs, Policy, PyTree, Trajectory

RowObjective = Callable[[PyTree, PyTree], tuple[jax.Array, PyTree]]


def count_live(alive: jax.Array, dtype: Any) -> jax.Array:
    """Live steps, at least one, as a number to divide by."""
    return jnp.maximum(jnp.sum(alive), 1).astype(dtype)


def mean_over_live(total: PyTree, alive: jax.Array) -> PyTree:
    """Sums over live rows as means."""
    return jax.tree.map(lambda x: x / count_live(alive, x.dtype), total)


def batch_gradient(
    policy: Policy,
    row_objective: RowObjective,
    params: PyTree,
    seen: acting.Inputs,
    rows: PyTree,
    alive: jax.Array,
    rows_per_piece: int | None = None,
) -> tuple[PyTree, PyTree]:
    """(1/B) Σ_{b,t} ∇ objective over live rows, a pytree as `params`, and Σ_{b,t} of the second output.

    Args:
        row_objective: `(outputs [N, ...], rows [N, ...]) → (objective [N], numbers to sum up, leaves [N])`.
        seen: what the policy looks at, `acting.inputs(policy, trajectory)`.
        rows: leaves `[T, B, ...]`.
        alive: bool `[T, B]`.
    """
    function = _masked_gradient(policy, row_objective)
    summed, extra = sum_over_rows(
        function, (seen, rows), alive, rows_per_piece, whole_episodes=policy.memory is not None, shared=(params,)
    )
    return jax.tree.map(lambda x: x / alive.shape[1], summed), extra


def each_episode(
    policy: Policy, row_objective: RowObjective, params: PyTree, seen: acting.Inputs, rows: PyTree, alive: jax.Array
) -> PyTree:
    """Σ_t ∇ objective of every episode, leaves `[B, ...]`: their mean is `batch_gradient`'s."""
    function = _masked_gradient(policy, row_objective)
    alone = lambda tree: tree if policy.memory is None else jax.tree.map(lambda x: x[:, None], tree)
    one = lambda episode, mask: function(alone(episode), alone(mask), params)[0]
    return jax.vmap(one, in_axes=1)((seen, rows), alive)


def _masked_gradient(policy: Policy, row_objective: RowObjective):
    def total(params: PyTree, piece: tuple[acting.Inputs, PyTree], mask: jax.Array) -> tuple[jax.Array, PyTree]:
        seen, rows = piece
        rows, mask = acting.rows_of(policy, (rows, mask))
        objective, extra = row_objective(acting.outputs(policy, params, seen), rows)
        over_live = lambda x: jnp.sum(jnp.where(mask, x, 0.0))
        return over_live(objective), jax.tree.map(over_live, extra)

    return lambda piece, mask, params: jax.grad(total, has_aux=True)(params, piece, mask)


def entropies(policy: Policy, outputs: PyTree) -> dict[str, jax.Array]:
    """`{"entropy": H(f(X_t, θ)) [N]}` of outputs `[N, ...]`; empty for families without a closed form."""
    entropy = policy.distribution.entropy
    return {} if entropy is None else {"entropy": jax.vmap(entropy)(outputs)}


def weighted_log_likelihood(policy: Policy) -> RowObjective:
    """`(outputs, (actions, w)) → (w ln f(X_t, θ)_{A_t}, entropies)`, the row objective of a score function."""

    def row_objective(outputs: PyTree, rows: tuple[PyTree, jax.Array]) -> tuple[jax.Array, dict[str, jax.Array]]:
        actions, weight = rows
        log_probs = jax.vmap(policy.distribution.log_prob)(outputs, actions)
        return weight * log_probs, entropies(policy, outputs)

    return row_objective


def assemble(
    policy: Policy,
    *,
    init: Callable[[jax.Array, Trajectory], PyTree],
    weigh: Callable[[PyTree, PyTree, Trajectory], tuple[PyTree, PyTree, dict[str, jax.Array]]],
    row_objective: RowObjective | None = None,
    fits_windows: bool = False,
    needs: Needs | None = None,
    rows_per_piece: int | None = None,
) -> Estimator:
    """An `Estimator` whose gradient goes through the hot path: where every estimator of weights ends.

    Args:
        init, fits_windows, needs: the `Estimator`'s own.
        weigh: `(params, state, trajectory) → (rows [T, B, ...], new state, metrics)`: all that `row_objective` needs,
            made with the old state and constant for the gradient; the new state has seen the batch.
        row_objective: `(outputs [N, ...], rows [N, ...]) → (objective [N], name → a metric of each row [N])`;
            `weighted_log_likelihood(policy)`, of rows (actions, weights), if None.
    """
    row_objective = weighted_log_likelihood(policy) if row_objective is None else row_objective

    def gradient(params: PyTree, state: PyTree, trajectory: Trajectory):
        require_trajectory(trajectory)
        rows, state, metrics = weigh(params, state, trajectory)
        seen = acting.inputs(policy, trajectory)
        estimate, sums = batch_gradient(policy, row_objective, params, seen, rows, trajectory.alive, rows_per_piece)
        return estimate, state, {**mean_over_live(sums, trajectory.alive), **metrics}

    def episode_gradients(params: PyTree, state: PyTree, trajectory: Trajectory) -> PyTree:
        require_trajectory(trajectory)
        rows, _, _ = weigh(params, state, trajectory)
        seen = acting.inputs(policy, trajectory)
        return each_episode(policy, row_objective, params, seen, rows, trajectory.alive)

    print_as_made_by(weigh, gradient, episode_gradients)
    return Estimator(
        init=init,
        gradient=gradient,
        episode_gradients=episode_gradients,
        fits_windows=fits_windows,
        needs=Needs() if needs is None else needs,
    )
