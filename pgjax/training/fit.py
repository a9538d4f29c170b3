"""Supervised fits: epochs of shuffled minibatches in one compiled loop, with a held-out split and early stopping.

A fit is a pure function of its key and arrays, so seeds, data sets and data-set sizes are batch axes of one program:
weights of 0 and 1 choose a subset, and the fit is then that of the subset alone. Axes: N rows, E epochs, n rows of a
minibatch.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax._checks import is_traced, require_in_range, require_integer
from pgjax.training.loop import NonFiniteError
from pgjax.types import PyTree

Loss = Callable[[PyTree, PyTree], jax.Array]


class Fit(NamedTuple):
    """What `fit` returns.

    Attributes:
        params: of the best epoch on held-out rows; of the last epoch if none is held out.
        best_epoch: int32, the epoch (from 0) after which they were taken.
        num_epochs: int32, epochs done, less than asked for where patience ended the fit.
        metrics: `train_loss` `[E]`, the weighted mean over the rows as the epoch met them, each before the step that it
            was used for, and `validation_loss` `[E]`, after the epoch. NaN in epochs not done, and in
            `validation_loss` if no row is held out.
        held_out: bool `[N]`, the rows that were never trained on; rows of weight 0 are on neither side.
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
    """A uint32 for each name, a function of key and name only: no row's rank depends on which others there are."""
    return jax.vmap(lambda name: jax.random.bits(jax.random.fold_in(key, name)))(names)


def _hold_out(key: jax.Array, groups: jax.Array, live: jax.Array, fraction: jax.Array) -> jax.Array:
    """bool `[N]`: all live rows of k groups drawn at random, k = round(fraction · G) kept within 1 … G − 1."""
    rank = _random_rank(key, groups)
    # Equal ranks of different groups are told apart by the group itself, rows that are not live come last.
    order = jnp.lexsort((groups, rank, ~live))
    ordered_groups, ordered_live = groups[order], live[order]
    is_new = jnp.concatenate([jnp.ones(1, bool), ordered_groups[1:] != ordered_groups[:-1]]) & ordered_live
    number = jnp.cumsum(is_new)
    wanted = jnp.round(fraction * number[-1].astype(float)).astype(number.dtype)
    count = jnp.clip(wanted, 1, jnp.maximum(number[-1] - 1, 0))
    return jnp.zeros_like(live).at[order].set(ordered_live & (number <= count))


def _minibatches(order: jax.Array, weights: jax.Array, batch_size: int) -> tuple[jax.Array, jax.Array]:
    """Rows in that order as `[M, n]` indices and weights; what fills the last minibatch up weighs 0."""
    padding = -order.shape[0] % batch_size
    indices = jnp.concatenate([order, jnp.zeros(padding, order.dtype)])
    ordered = jnp.concatenate([weights[order], jnp.zeros(padding, weights.dtype)])
    return indices.reshape(-1, batch_size), ordered.reshape(-1, batch_size)


def _loss_sum(loss: Loss, params: PyTree, data: PyTree, indices: jax.Array, weights: jax.Array) -> jax.Array:
    """Σ w · loss over a minibatch whose first row has a weight. Rows of weight 0 are replaced by it before the loss
    sees them: 0 · NaN is NaN, and so would be its gradient."""
    indices = jnp.where(weights > 0, indices, indices[0])
    rows = jax.tree.map(lambda x: x[indices], data)
    losses = loss(params, rows)
    if jnp.shape(losses) != weights.shape:
        raise ValueError(f"loss must return one number for each row, [{weights.shape[0]}], got {jnp.shape(losses)}")
    return jnp.sum(weights * losses)


def _mean_loss(loss: Loss, params: PyTree, data: PyTree, batches: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The weighted mean over all minibatches; NaN if there is no weight."""

    def add(total: jax.Array, batch: tuple[jax.Array, jax.Array]):
        indices, weights = batch
        evaluate = lambda: _loss_sum(loss, params, data, indices, weights).astype(total.dtype)
        return total + jax.lax.cond(jnp.any(weights > 0), evaluate, lambda: jnp.zeros_like(total)), None

    total, _ = jax.lax.scan(add, jnp.zeros((), batches[1].dtype), batches)
    return total / jnp.sum(batches[1])


def _epoch(loss: Loss, optimizer: optax.GradientTransformation, data: PyTree, carry, batches):
    """One pass over the minibatches; those without weight change nothing, not even the optimiser's moments."""

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
        # Rows with a weight come first, so that the minibatches are those of a data set that has no others.
        batches = _minibatches(jnp.lexsort((rank, training_weights <= 0)), training_weights, batch_size)
        carry = (progress.params, progress.optimizer_state)
        (params, optimizer_state), train_loss = _epoch(loss, optimizer, data, carry, batches)
        metrics = {"train_loss": train_loss, "validation_loss": jnp.full_like(train_loss, jnp.nan)}
        better, best_loss = jnp.ones((), bool), progress.best_loss
        if splits:
            validation_loss = _mean_loss(loss, params, data, validation_batches)
            metrics["validation_loss"] = validation_loss
            # Where no row could be held out every epoch is the best: the last one stays.
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


def _check_settings(num_epochs: int, batch_size: int, validation_fraction: float, patience: int | None) -> None:
    require_integer("num_epochs", num_epochs, 1, None)
    require_integer("batch_size", batch_size, 1, None)
    require_in_range("validation_fraction", validation_fraction, 0.0, 1.0)
    if validation_fraction == 1:
        raise ValueError("validation_fraction must be less than 1, got 1")
    if patience is not None:
        require_integer("patience", patience, 1, None)
        if validation_fraction == 0:
            raise ValueError(f"patience must be None without held-out rows (validation_fraction=0), got {patience}")


def _is_known(*arrays: jax.typing.ArrayLike) -> bool:
    return not any(map(is_traced, arrays))


def _num_rows(data: PyTree, **more: jax.Array | None) -> int:
    leaves = {f"data{jax.tree_util.keystr(path)}": x for path, x in jax.tree_util.tree_flatten_with_path(data)[0]}
    leaves |= {name: x for name, x in more.items() if x is not None}
    if not any(name.startswith("data") for name in leaves):
        raise ValueError(f"data must have at least one array, got {data!r}")
    shapes = {name: jnp.shape(x) for name, x in leaves.items()}
    for name, shape in shapes.items():
        if not shape or shape[0] == 0:
            raise ValueError(f"{name} must have at least one row, got shape {shape}")
        first, wanted = next(iter(shapes.items()))
        if shape[0] != wanted[0]:
            raise ValueError(f"{name} must have as many rows as {first}, {wanted[0]}, got {shape[0]}")
    return next(iter(shapes.values()))[0]


def _check_values(data: PyTree, weights: jax.Array, groups: jax.Array, validation_fraction: float) -> None:
    """What can be known of arrays that are not traced."""
    if not _is_known(weights):
        return
    # NaN compares false with everything.
    if not (np.isfinite(weights).all() and (np.asarray(weights) >= 0).all() and np.asarray(weights).sum() > 0):
        raise ValueError(f"weights must be finite, at least 0 and not all 0, got {np.asarray(weights)}")
    live = np.asarray(weights) > 0
    for path, x in jax.tree_util.tree_flatten_with_path(data)[0]:
        if _is_known(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating):
            finite = np.all(np.isfinite(np.asarray(x)).reshape(live.shape[0], -1), axis=1)
            if not finite[live].all():
                row, name = np.flatnonzero(live & ~finite)[0], f"data{jax.tree_util.keystr(path)}"
                raise ValueError(f"{name} must be finite, got {np.asarray(x)[row]} in row {row}")
    if validation_fraction > 0 and _is_known(groups):
        num_groups = np.unique(np.asarray(groups)[live]).size
        if num_groups < 2:
            raise ValueError(
                f"validation_fraction must be 0 with fewer than two groups of rows, one for each side, "
                f"got {validation_fraction} and {num_groups} group"
            )


def _refuse_non_finite(result: Fit, validation_fraction: float) -> None:
    if not _is_known(*jax.tree.leaves(result)):
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
    """Minimises Σ_i w_i loss(θ, x_i) / Σ_i w_i by epochs of shuffled minibatches.

        each epoch, for each minibatch M of a new order:  θ ← optimiser(θ, ∇ Σ_{i∈M} w_i loss_i / Σ_{i∈M} w_i)

    Every row with a weight is met once in every epoch; the last minibatch may be smaller, and its rows then count for
    more. A row of weight 0 has no influence whatever, on order and split neither, even if it holds NaN: weights of 0
    and 1 that keep the first rows give what those rows alone would give. The loop has ⌈N / `batch_size`⌉ minibatches
    whatever the weights; those left without any do nothing.

    Whole groups are held out, k = round(`validation_fraction` · G) of the G groups that have weight, at least 1 and at
    most G − 1: rows of one episode are alike, and with some on each side a held-out loss would measure memory.

    Compiles once for the same `loss` and `optimizer` objects, numbers and shapes. The arrays may be traced: vmap over
    key, params, data or weights. What depends on their values is then not checked, and a fit that has one group only
    holds nothing out.

    Args:
        key: typed; the fit is a function of it and the other arguments.
        params: θ at the start.
        loss: `(params, batch) → [n]`, elementwise, batch with leaves `[n, ...]`.
        data: leaves `[N, ...]`.
        optimizer: optax's.
        num_epochs: E ≥ 1, at most.
        batch_size: n ≥ 1; at least N for full batches.
        weights: w `[N]`, at least 0; 1 if None.
        groups: integers `[N]`, such as episode numbers; every row is its own group if None.
        validation_fraction: of the groups, in [0, 1); 0 holds none out.
        patience: ends the fit after so many epochs in a row without a new lowest held-out loss.

    Returns:
        A `Fit`.

    Raises:
        ValueError: if data are empty, of different lengths or not finite, weights negative or all 0, a number is
            outside its range, there is patience without held-out rows, or fewer than two groups to split.
        NonFiniteError: if the loss stopped being a number.
    """
    _check_settings(num_epochs, batch_size, validation_fraction, patience)
    num_rows = _num_rows(data, weights=weights, groups=groups)
    for name, x in (("weights", weights), ("groups", groups)):
        if x is not None and jnp.ndim(x) != 1:
            raise ValueError(f"{name} must have one number for each row, [{num_rows}], got shape {jnp.shape(x)}")
    weights = jnp.ones(num_rows) if weights is None else jnp.asarray(weights, float)
    groups = jnp.arange(num_rows) if groups is None else jnp.asarray(groups)
    if not jnp.issubdtype(groups.dtype, jnp.integer):
        raise ValueError(f"groups must be integers, got {groups.dtype}")
    _check_values(data, weights, groups, validation_fraction)
    data, params = jax.tree.map(jnp.asarray, (data, params))
    result = _run(
        key,
        params,
        data,
        weights,
        groups,
        jnp.asarray(validation_fraction, float),
        # Not to gain for as long as the whole fit stops nothing.
        jnp.int32(num_epochs if patience is None else patience),
        loss=loss,
        optimizer=optimizer,
        num_epochs=int(num_epochs),
        batch_size=min(int(batch_size), num_rows),
        splits=validation_fraction > 0,
    )
    _refuse_non_finite(result, validation_fraction)
    return result
