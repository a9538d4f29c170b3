"""The steps of a fit over minibatches, and the mean loss of all minibatches. Axes: N rows, n rows of a minibatch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from pgjax.types import PyTree

Loss = Callable[[PyTree, PyTree], jax.Array]
NoisyLoss = Callable[[jax.Array, PyTree, PyTree], jax.Array]


def loss_sum(loss: Loss, params: PyTree, data: PyTree, indices: jax.Array, weights: jax.Array) -> jax.Array:
    """Σ w · loss over a minibatch whose first row has a positive weight.

    The first row replaces rows of weight 0 before the loss sees them, because 0 · NaN and its gradient would be NaN.
    """
    indices = jnp.where(weights > 0, indices, indices[0])
    rows = jax.tree.map(lambda x: x[indices], data)
    losses = loss(params, rows)
    if jnp.shape(losses) != weights.shape:
        raise ValueError(f"loss must return one number for each row, [{weights.shape[0]}], got {jnp.shape(losses)}")
    return jnp.sum(weights * losses)


def mean_loss(loss: Loss, params: PyTree, data: PyTree, batches: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The weighted mean loss over all minibatches; NaN if all weights are 0."""

    def add(total: jax.Array, batch: tuple[jax.Array, jax.Array]):
        indices, weights = batch
        evaluate = lambda: loss_sum(loss, params, data, indices, weights).astype(total.dtype)
        return total + jax.lax.cond(jnp.any(weights > 0), evaluate, lambda: jnp.zeros_like(total)), None

    total, _ = jax.lax.scan(add, jnp.zeros((), batches[1].dtype), batches)
    return total / jnp.sum(batches[1])


def steps(
    loss: NoisyLoss,
    optimizer: optax.GradientTransformation,
    data: PyTree,
    carry: tuple[PyTree, PyTree],
    batches: PyTree,
) -> tuple[tuple[PyTree, PyTree], jax.Array]:
    """One step for each minibatch, and the mean loss; minibatches whose weights are all 0 change nothing, not even the
    optimiser's moments."""

    def step(carry, batch):
        key, (indices, weights) = batch
        total_weight = jnp.sum(weights)

        def descend(params: PyTree, optimizer_state: PyTree):
            of_rows = lambda params, rows: loss(key, params, rows)
            mean = lambda params: loss_sum(of_rows, params, data, indices, weights) / total_weight
            value, gradient = jax.value_and_grad(mean)(params)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state, value.astype(weights.dtype)

        skip = lambda params, optimizer_state: (params, optimizer_state, jnp.zeros_like(total_weight))
        params, optimizer_state, value = jax.lax.cond(total_weight > 0, descend, skip, *carry)
        return (params, optimizer_state), value * total_weight

    carry, sums = jax.lax.scan(step, carry, batches)
    return carry, jnp.sum(sums) / jnp.sum(batches[1][1])


def part_of(batches: PyTree, part: jax.Array, parts: int) -> PyTree:
    """The minibatches part, part + parts, part + 2 parts, … of `[M, ...]`; those without weight fill up the last parts.

    Minibatches without weight come last, so all parts have the same number of minibatches with weight, give or take 1.
    """

    def of(x: jax.Array) -> jax.Array:
        filled = jnp.concatenate([x, jnp.zeros((-x.shape[0] % parts, *x.shape[1:]), x.dtype)])
        return filled.reshape(-1, parts, *x.shape[1:])[:, part]

    return jax.tree.map(of, batches)
