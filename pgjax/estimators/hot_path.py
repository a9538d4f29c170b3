"""The hot path of all estimators: the gradient of an objective of the policy's outputs, summed over live rows.

    ∇̂ρ = (1/B) Σ_b Σ_t ∇ objective(outputs(X_t^b, θ), row_t^b)

The weights are computed first and are part of the rows. The gradient is then computed for pieces of rows that fit into
the cache, without the padding behind the end of an episode. If the policy has memory, a piece holds whole episodes of
similar lengths. Axes: T time, B episodes, N rows of one piece.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._pieces import fill_with_live
from pgjax._records import print_as_made_by
from pgjax.contracts import require_trajectory
from pgjax.rows import sum_over_rows
from pgjax.types import Estimator, Needs, Policy, PyTree, Trajectory

RowObjective = Callable[[PyTree, PyTree], tuple[jax.Array, PyTree]]


def count_live(alive: jax.Array, dtype: Any) -> jax.Array:
    """The number of live steps, or 1 if there is none, so that it can be a divisor."""
    return jnp.maximum(jnp.sum(alive), 1).astype(dtype)


def mean_over_live(total: PyTree, alive: jax.Array) -> PyTree:
    """Sums over live rows, divided by the number of live rows."""
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
    """(1/B) Σ_{b,t} ∇ objective over live rows, and Σ_{b,t} of further numbers.

    Args:
        policy: f(x, θ).
        row_objective: `(outputs [N, ...], rows [N, ...]) → (objective [N], further numbers, leaves [N])`.
        params: θ.
        seen: the inputs of the policy, `acting.inputs(policy, trajectory)`.
        rows: leaves `[T, B, ...]`.
        alive: bool `[T, B]`.
        rows_per_piece: N at most; `rows.default_rows` if None.

    Returns:
        The gradient, a pytree like `params`, and the sums of the further numbers.
    """
    function = _masked_gradient(policy, row_objective)
    summed, extra = sum_over_rows(
        function, (seen, rows), alive, rows_per_piece, whole_episodes=policy.memory is not None, shared=(params,)
    )
    return jax.tree.map(lambda x: x / alive.shape[1], summed), extra


def each_episode(
    policy: Policy, row_objective: RowObjective, params: PyTree, seen: acting.Inputs, rows: PyTree, alive: jax.Array
) -> PyTree:
    """Σ_t ∇ objective of each episode, leaves `[B, ...]`; their mean is the gradient of `batch_gradient`."""
    function = _masked_gradient(policy, row_objective)
    alone = lambda tree: tree if policy.memory is None else jax.tree.map(lambda x: x[:, None], tree)
    one = lambda episode, mask: function(alone(episode), alone(mask), params)[0]
    return jax.vmap(one, in_axes=1)(fill_with_live((seen, rows), alive), alive)


def _masked_gradient(policy: Policy, row_objective: RowObjective):
    def total(params: PyTree, piece: tuple[acting.Inputs, PyTree], mask: jax.Array) -> tuple[jax.Array, PyTree]:
        seen, rows = piece
        rows, mask = acting.rows_of(policy, (rows, mask))
        objective, extra = row_objective(acting.outputs(policy, params, seen), rows)
        over_live = lambda x: jnp.sum(jnp.where(mask, x, 0.0))
        return over_live(objective), jax.tree.map(over_live, extra)

    return lambda piece, mask, params: jax.grad(total, has_aux=True)(params, piece, mask)


def entropies(policy: Policy, outputs: PyTree) -> dict[str, jax.Array]:
    """`{"entropy": H(f(X_t, θ)) [N]}` from outputs `[N, ...]`; empty if the distribution has no entropy function."""
    entropy = policy.distribution.entropy
    return {} if entropy is None else {"entropy": jax.vmap(entropy)(outputs)}


def weighted_log_likelihood(policy: Policy) -> RowObjective:
    """The row objective of the score function: `(outputs, (actions, w)) → (w ln f(X_t, θ)_{A_t}, entropies)`."""

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
    """An `Estimator` whose gradient is computed by the hot path; all estimators with weights are made here.

    Args:
        policy: f(x, θ).
        init, fits_windows, needs: the fields of the `Estimator`.
        weigh: `(params, state, trajectory) → (rows [T, B, ...], new state, metrics)`. The rows hold what
            `row_objective` needs; they are computed with the old state and are constants of the gradient. The new state
            has seen the batch.
        row_objective: `(outputs [N, ...], rows [N, ...]) → (objective [N], name → a metric of each row [N])`. If None:
            `weighted_log_likelihood(policy)`, whose rows are (actions, weights).
        rows_per_piece: N at most; `rows.default_rows` if None.
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

    def part_gradients(params: PyTree, state: PyTree, trajectory: Trajectory, num_parts: int) -> PyTree:
        require_trajectory(trajectory)
        rows, _, _ = weigh(params, state, trajectory)
        seen = acting.inputs(policy, trajectory)
        size = trajectory.alive.shape[1] // num_parts

        def one(k: jax.Array) -> PyTree:
            cut = lambda x: jax.lax.dynamic_slice_in_dim(x, k * size, size, axis=1)
            inputs, weighted, alive = jax.tree.map(cut, (seen, rows, trajectory.alive))
            return batch_gradient(policy, row_objective, params, inputs, weighted, alive, rows_per_piece)[0]

        return jax.lax.map(one, jnp.arange(num_parts))

    print_as_made_by(weigh, gradient, episode_gradients, part_gradients)
    return Estimator(
        init=init,
        gradient=gradient,
        episode_gradients=episode_gradients,
        fits_windows=fits_windows,
        needs=Needs() if needs is None else needs,
        part_gradients=part_gradients,
    )
