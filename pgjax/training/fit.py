"""Supervised fits: epochs of shuffled minibatches in one compiled loop, with a held-out split and early stopping.

A fit is a pure function of its key and arrays, so seeds, data sets and sizes of data sets can be batch axes of one
program: weights of 0 and 1 choose a subset, and the result is that of a fit to the subset alone. Axes: N rows, E
epochs, n rows of a minibatch.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax.training._fit_checks import check_settings, check_values, count_rows, is_known
from pgjax.training.loop import NonFiniteError
from pgjax.types import PyTree

Loss = Callable[[PyTree, PyTree], jax.Array]


class Fit(NamedTuple):
    """What `fit` returns.

    Attributes:
        params: θ after the epoch with the lowest held-out loss, or after the last epoch if no row is held out.
        best_epoch: int32, the number (from 0) of the epoch after which `params` were taken.
        num_epochs: int32, the number of epochs done; it is smaller than asked for if patience ended the fit.
        metrics: `train_loss` `[E]`, the weighted mean loss of the rows, each computed just before the step that used
            the row; and `validation_loss` `[E]`, computed after each epoch. Both are NaN in epochs that were not done,
            and `validation_loss` is NaN if no row is held out.
        held_out: bool `[N]`, true for the rows that are never trained on; rows of weight 0 are in neither set.
    """

    params: PyTree
    best_epoch: jax.Array
    num_epochs: jax.Array
    metrics: dict[str, jax.Array]
    held_out: jax.Array


class _Progress(NamedTuple):
    params: PyTree
    optimizer_state: PyTree
    best_params: PyTree
    best_loss: jax.Array
    best_epoch: jax.Array
    epoch: jax.Array
    metrics: dict[str, jax.Array]


def _random_rank(key: jax.Array, names: jax.Array) -> jax.Array:
    """A uint32 for each name. It depends on the key and the name alone, and not on which other rows there are."""
    return jax.vmap(lambda name: jax.random.bits(jax.random.fold_in(key, name)))(names)


def _hold_out(key: jax.Array, groups: jax.Array, live: jax.Array, fraction: jax.Array) -> jax.Array:
    """Bool `[N]`: all live rows of k randomly drawn groups, where k = round(fraction · G), clipped to 1 … G − 1."""
    rank = _random_rank(key, groups)
    # The group itself orders different groups of equal rank; rows that are not live come last.
    order = jnp.lexsort((groups, rank, ~live))
    ordered_groups, ordered_live = groups[order], live[order]
    is_new = jnp.concatenate([jnp.ones(1, bool), ordered_groups[1:] != ordered_groups[:-1]]) & ordered_live
    number = jnp.cumsum(is_new)
    wanted = jnp.round(fraction * number[-1].astype(float)).astype(number.dtype)
    count = jnp.clip(wanted, 1, jnp.maximum(number[-1] - 1, 0))
    return jnp.zeros_like(live).at[order].set(ordered_live & (number <= count))


def _minibatches(order: jax.Array, weights: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """The rows in the given order as `[M, n]` indices and weights; weights of 0 fill up the last minibatch."""
    padding = -order.shape[0] % batch_size
    indices = jnp.concatenate([order, jnp.zeros(padding, order.dtype)])
    ordered = jnp.concatenate([weights[order], jnp.zeros(padding, weights.dtype)])
    return indices.reshape(-1, batch_size), ordered.reshape(-1, batch_size)


def _loss_sum(loss: Loss, params: PyTree, data: PyTree, indices: jax.Array, weights: jax.Array) -> jax.Array:
    """Σ w · loss over a minibatch whose first row has a positive weight.

    The first row replaces rows of weight 0 before the loss sees them, because 0 · NaN and its gradient would be NaN.
    """
    indices = jnp.where(weights > 0, indices, indices[0])
    rows = jax.tree.map(lambda x: x[indices], data)
    losses = loss(params, rows)
    if jnp.shape(losses) != weights.shape:
        raise ValueError(f"loss must return one number for each row, [{weights.shape[0]}], got {jnp.shape(losses)}")
    return jnp.sum(weights * losses)


def _mean_loss(loss: Loss, params: PyTree, data: PyTree, batches: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The weighted mean loss over all minibatches; NaN if all weights are 0."""

    def add(total: jax.Array, batch: tuple[jax.Array, jax.Array]):
        indices, weights = batch
        evaluate = lambda: _loss_sum(loss, params, data, indices, weights).astype(total.dtype)
        return total + jax.lax.cond(jnp.any(weights > 0), evaluate, lambda: jnp.zeros_like(total)), None

    total, _ = jax.lax.scan(add, jnp.zeros((), batches[1].dtype), batches)
    return total / jnp.sum(batches[1])


def _epoch(loss: Loss, optimizer: optax.GradientTransformation, data: PyTree, carry, batches):
    """One pass over the minibatches; those whose weights are all 0 change nothing, not even the optimiser's moments."""

    def step(carry, batch):
        indices, weights = batch
        total_weight = jnp.sum(weights)

        def descend(params: PyTree, optimizer_state: PyTree):
            mean = lambda params: _loss_sum(loss, params, data, indices, weights) / total_weight
            value, gradient = jax.value_and_grad(mean)(params)
            updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
            return optax.apply_updates(params, updates), optimizer_state, value.astype(weights.dtype)

        skip = lambda params, optimizer_state: (params, optimizer_state, jnp.zeros_like(total_weight))
        params, optimizer_state, value = jax.lax.cond(total_weight > 0, descend, skip, *carry)
        return (params, optimizer_state), value * total_weight

    carry, sums = jax.lax.scan(step, carry, batches)
    return carry, jnp.sum(sums) / jnp.sum(batches[1])


@functools.partial(jax.jit, static_argnames=("loss", "optimizer", "num_epochs", "batch_size", "splits"))
def _run(
    key, params, data, weights, groups, fraction, patience, *, loss, optimizer, num_epochs, batch_size, splits
) -> Fit:
    split_key, shuffle_key = jax.random.split(key)
    live = weights > 0
    held_out = jnp.zeros_like(live)
    if splits:
        held_out = _hold_out(split_key, groups, live, fraction)
        validation_batches = _minibatches(
            jnp.argsort(~held_out, stable=True), jnp.where(held_out, weights, 0.0), batch_size
        )
    training_weights = jnp.where(held_out, 0.0, weights)
    rows = jnp.arange(weights.shape[0])

    def running(progress: _Progress) -> jax.Array:
        return (progress.epoch < num_epochs) & (progress.epoch - 1 - progress.best_epoch < patience)

    def one(progress: _Progress) -> _Progress:
        epoch = progress.epoch
        rank = _random_rank(jax.random.fold_in(shuffle_key, epoch), rows)
        # Rows with a positive weight come first, so the minibatches are those of a data set of these rows alone.
        batches = _minibatches(jnp.lexsort((rank, training_weights <= 0)), training_weights, batch_size)
        carry = (progress.params, progress.optimizer_state)
        (params, optimizer_state), train_loss = _epoch(loss, optimizer, data, carry, batches)
        metrics = {"train_loss": train_loss, "validation_loss": jnp.full_like(train_loss, jnp.nan)}
        better, best_loss = jnp.ones((), bool), progress.best_loss
        if splits:
            validation_loss = _mean_loss(loss, params, data, validation_batches)
            metrics["validation_loss"] = validation_loss
            # If no row could be held out, every epoch counts as the best so far, and the last one is kept.
            better = (validation_loss < best_loss) | ~jnp.any(held_out)
            best_loss = jnp.where(better, validation_loss, best_loss)
        return _Progress(
            params=params,
            optimizer_state=optimizer_state,
            best_params=jax.tree.map(lambda new, old: jnp.where(better, new, old), params, progress.best_params),
            best_loss=best_loss,
            best_epoch=jnp.where(better, epoch, progress.best_epoch),
            epoch=epoch + 1,
            metrics=jax.tree.map(lambda all_, new: all_.at[epoch].set(new), progress.metrics, metrics),
        )

    empty = jnp.full(num_epochs, jnp.nan, weights.dtype)
    start = _Progress(
        params=params,
        optimizer_state=optimizer.init(params),
        best_params=params,
        best_loss=jnp.full((), jnp.inf, weights.dtype),
        best_epoch=jnp.int32(-1),
        epoch=jnp.int32(0),
        metrics={"train_loss": empty, "validation_loss": empty},
    )
    end = jax.lax.while_loop(running, one, start)
    return Fit(
        params=end.best_params,
        best_epoch=end.best_epoch,
        num_epochs=end.epoch,
        metrics=end.metrics,
        held_out=held_out,
    )


def _refuse_non_finite(result: Fit, validation_fraction: float) -> None:
    if not is_known(*jax.tree.leaves(result)):
        return
    for name, losses in result.metrics.items():
        done = np.asarray(losses)[: int(result.num_epochs)]
        if (name == "train_loss" or validation_fraction > 0) and not np.isfinite(done).all():
            epoch = np.flatnonzero(~np.isfinite(done))[0]
            raise NonFiniteError(f"{name} must be finite, got {done[epoch]} in epoch {epoch}: too large a step?")


def fit(
    key: jax.Array,
    params: PyTree,
    loss: Loss,
    data: PyTree,
    optimizer: optax.GradientTransformation,
    *,
    num_epochs: int,
    batch_size: int,
    weights: jax.Array | None = None,
    groups: jax.Array | None = None,
    validation_fraction: float = 0.0,
    patience: int | None = None,
) -> Fit:
    """Minimise Σ_i w_i loss(θ, x_i) / Σ_i w_i by epochs of shuffled minibatches.

        each epoch, for each minibatch M of a new order:  θ ← optimiser(θ, ∇ Σ_{i∈M} w_i loss_i / Σ_{i∈M} w_i)

    Each epoch uses every row of positive weight once. The last minibatch may be smaller, and each of its rows then
    counts for more. A row of weight 0 has no influence on anything, order and split included, even if it holds NaN:
    weights of 1 for the first rows and 0 for the others give the fit to the first rows alone. The loop always has
    ⌈N / `batch_size`⌉ minibatches; those whose weights are all 0 do nothing.

    Whole groups are held out: k = round(`validation_fraction` · G) of the G groups that have positive weight, at least
    1 and at most G − 1. Rows of one episode are similar, so if an episode were split, the held-out loss would measure
    what the fit memorised.

    The program compiles once for the same `loss` and `optimizer` objects, numbers and shapes. The arrays may be traced:
    vmap over key, params, data or weights. Values of traced arrays are not checked, and a traced fit that has only one
    group holds nothing out.

    Args:
        key: a typed key; the fit is a function of it and the other arguments.
        params: θ at the start.
        loss: `(params, batch) → [n]`, one number for each row; the batch has leaves `[n, ...]`.
        data: leaves `[N, ...]`.
        optimizer: an optax optimiser.
        num_epochs: E ≥ 1, the greatest number of epochs.
        batch_size: n ≥ 1; every n ≥ N gives full batches.
        weights: w `[N]`, at least 0; None gives every row the weight 1.
        groups: integers `[N]`, such as episode numbers; None makes every row its own group.
        validation_fraction: the share of the groups that is held out, in [0, 1).
        patience: the number of epochs in a row without a new lowest held-out loss after which the fit ends; None never
            ends it early.

    Returns:
        A `Fit`.

    Raises:
        ValueError: if the data are empty, have different lengths or are not finite; if a weight is negative or all are
            0; if a number is outside its range; if there is patience without held-out rows; or if there are fewer than
            two groups to split.
        NonFiniteError: if the loss became NaN or infinite.

    Example: a line through two points; the loss has one number for each row.

        >>> import jax, jax.numpy as jnp, optax
        >>> from pgjax import training
        >>> data = {"x": jnp.array([0.0, 1.0]), "y": jnp.array([1.0, 3.0])}
        >>> loss = lambda params, rows: (params["slope"] * rows["x"] + params["start"] - rows["y"]) ** 2
        >>> params = {"slope": jnp.zeros(()), "start": jnp.zeros(())}
        >>> found = training.fit(jax.random.key(0), params, loss, data, optax.sgd(0.5), num_epochs=200, batch_size=2)
        >>> round(float(found.params["slope"]), 2), round(float(found.params["start"]), 2)
        (2.0, 1.0)
    """
    check_settings(num_epochs, batch_size, validation_fraction, patience)
    num_rows = count_rows(data, weights=weights, groups=groups)
    for name, x in (("weights", weights), ("groups", groups)):
        if x is not None and jnp.ndim(x) != 1:
            raise ValueError(f"{name} must have one number for each row, [{num_rows}], got shape {jnp.shape(x)}")
    weights = jnp.ones(num_rows) if weights is None else jnp.asarray(weights, float)
    groups = jnp.arange(num_rows) if groups is None else jnp.asarray(groups)
    if not jnp.issubdtype(groups.dtype, jnp.integer):
        raise ValueError(f"groups must be integers, got {groups.dtype}")
    check_values(data, weights, groups, validation_fraction)
    data, params = jax.tree.map(jnp.asarray, (data, params))
    result = _run(
        key,
        params,
        data,
        weights,
        groups,
        jnp.asarray(validation_fraction, float),
        # A patience of all epochs never ends the fit early.
        jnp.int32(num_epochs if patience is None else patience),
        loss=loss,
        optimizer=optimizer,
        num_epochs=int(num_epochs),
        batch_size=min(int(batch_size), num_rows),
        splits=validation_fraction > 0,
    )
    _refuse_non_finite(result, validation_fraction)
    return result
