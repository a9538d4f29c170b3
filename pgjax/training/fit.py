"""Supervised fits: epochs of shuffled minibatches in one compiled loop, with a held-out split and early stopping.

A fit is a pure function of its key and arrays, so seeds, data sets and sizes of data sets can be batch axes of one
program: weights of 0 and 1 choose a subset, and the result is that of a fit to the subset alone. Axes: N rows, E
epochs, n rows of a minibatch.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax._checks import nothing
from pgjax._doors import readable
from pgjax.training._fit_batches import hold_out, minibatches, random_rank
from pgjax.training._fit_checks import check_parts, check_settings, check_values, checked_rows, count_rows, is_known
from pgjax.training._fit_steps import Loss, NoisyLoss, mean_loss, part_of, steps
from pgjax.training.runs import NonFiniteError
from pgjax.types import PyTree


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


@functools.partial(jax.jit, static_argnames=("optimizer", "length"))
def _begin(params: PyTree, dtype_of: jax.Array, *, optimizer: optax.GradientTransformation, length: int) -> _Progress:
    empty = jnp.full(length, nothing(), dtype_of.dtype)
    return _Progress(
        params=params,
        optimizer_state=optimizer.init(params),
        best_params=params,
        best_loss=jnp.full((), jnp.inf, dtype_of.dtype),
        best_epoch=jnp.int32(-1),
        epoch=jnp.int32(0),
        metrics={"train_loss": empty, "validation_loss": empty},
    )


@functools.partial(jax.jit, static_argnames=("loss", "training_loss", "optimizer", "batch_size", "splits", "parts"))
def _advance(
    key,
    progress,
    data,
    weights,
    held_out,
    patience,
    until,
    *,
    loss,
    training_loss,
    optimizer,
    batch_size,
    splits,
    parts,
) -> _Progress:
    """The parts of epochs up to `until`, or fewer if patience ends the fit."""
    shuffle_key = jax.random.split(key)[1]
    # Epochs fold smaller numbers into the key.
    noise_key = jax.random.fold_in(shuffle_key, jnp.uint32(2**32 - 1))
    if splits:
        validation_batches = minibatches(
            jnp.argsort(~held_out, stable=True), jnp.where(held_out, weights, 0.0), batch_size
        )
    training_weights = jnp.where(held_out, 0.0, weights)
    rows = jnp.arange(weights.shape[0])

    def running(progress: _Progress) -> jax.Array:
        return (progress.epoch < until) & (progress.epoch - 1 - progress.best_epoch < patience)

    def one(progress: _Progress) -> _Progress:
        epoch = progress.epoch
        rank = random_rank(jax.random.fold_in(shuffle_key, epoch // parts), rows)
        # Rows with a positive weight come first, so the minibatches are those of a data set of these rows alone.
        batches = minibatches(jnp.lexsort((rank, training_weights <= 0)), training_weights, batch_size)
        batches = batches if parts == 1 else part_of(batches, epoch % parts, parts)
        keys = jax.random.split(jax.random.fold_in(noise_key, epoch), batches[0].shape[0])
        carry = (progress.params, progress.optimizer_state)
        (params, optimizer_state), train_loss = steps(training_loss, optimizer, data, carry, (keys, batches))
        metrics = {"train_loss": train_loss, "validation_loss": jnp.full_like(train_loss, nothing())}
        better, best_loss = jnp.ones((), bool), progress.best_loss
        if splits:
            validation_loss = mean_loss(loss, params, data, validation_batches)
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

    return jax.lax.while_loop(running, one, progress)


@jax.jit
def _chosen(key: jax.Array, groups: jax.Array, weights: jax.Array, fraction: jax.Array) -> jax.Array:
    return hold_out(jax.random.split(key)[0], groups, weights > 0, fraction)


def _with_nothing(metrics: dict[str, jax.Array], done: jax.Array, splits: bool) -> dict[str, Any]:
    """The metrics with NaN where there is no number. With `jax_debug_nans` no array of JAX may hold it: they are
    NumPy's then."""
    if not jax.config.jax_debug_nans or not is_known(done):  # pyright: ignore[reportAttributeAccessIssue]
        return metrics
    missing = {"train_loss": np.arange(len(metrics["train_loss"])) >= int(done)}
    missing["validation_loss"] = missing["train_loss"] | (not splits)
    return {name: np.where(missing[name], np.nan, x).astype(x.dtype) for name, x in metrics.items()}


def _refuse_non_finite(result: Fit, splits: bool) -> None:
    if not is_known(*jax.tree.leaves(result)):
        return
    for name, losses in result.metrics.items():
        done = np.asarray(losses)[: int(result.num_epochs)]
        if (name == "train_loss" or splits) and not np.isfinite(done).all():
            epoch = np.flatnonzero(~np.isfinite(done))[0]
            raise NonFiniteError(f"{name} must be finite, got {done[epoch]} in epoch {epoch}: too large a step?")


@readable
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
    held_out: jax.Array | None = None,
    evaluations_per_epoch: int = 1,
    training_loss: NoisyLoss | None = None,
    on_evaluation: Callable[[int, dict[str, np.ndarray], PyTree], None] | None = None,
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

    A learning rate that changes is an optax schedule in the optimiser; it counts minibatches.

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
        held_out: bool `[N]`, the rows that are held out if the caller chooses them; `validation_fraction` is then 0.
        evaluations_per_epoch: the number of parts, of equal numbers of minibatches, into which every epoch is cut, at
            most the number of minibatches. After each part the held-out loss is computed and θ may be kept. `patience`,
            `Fit.best_epoch`, `Fit.num_epochs` and the rows of `Fit.metrics` then count parts.
        training_loss: `(key, params, batch) → [n]`, which the steps minimise in place of `loss`, with a new key for
            each minibatch: for dropout, noise or random crops. Held-out rows are always judged by `loss`.
        on_evaluation: called on the host after each evaluation with the number of evaluations so far, the last
            `train_loss` and `validation_loss`, and θ. It changes no number of the fit, which then cannot be traced.

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
    splits = validation_fraction > 0 or held_out is not None
    check_settings(num_epochs, batch_size, validation_fraction, patience, evaluations_per_epoch, held_out)
    num_rows = count_rows(data, weights=weights, groups=groups, held_out=held_out)
    for name, x in (("weights", weights), ("groups", groups), ("held_out", held_out)):
        if x is not None and jnp.ndim(x) != 1:
            raise ValueError(f"{name} must have one number for each row, [{num_rows}], got shape {jnp.shape(x)}")
    weights = jnp.ones(num_rows) if weights is None else jnp.asarray(weights, float)
    groups = jnp.arange(num_rows) if groups is None else jnp.asarray(groups)
    if not jnp.issubdtype(groups.dtype, jnp.integer):
        raise ValueError(f"groups must be integers, got {groups.dtype}")
    check_values(data, weights, groups, validation_fraction)
    data, params = jax.tree.map(jnp.asarray, (data, params))
    if held_out is not None:
        judged = checked_rows(held_out, weights)
    elif splits:
        judged = _chosen(key, groups, weights, jnp.asarray(validation_fraction, float))
    else:
        judged = jnp.zeros(num_rows, bool)
    batch_size = min(int(batch_size), num_rows)
    check_parts(weights, judged, batch_size, evaluations_per_epoch)
    total = int(num_epochs) * int(evaluations_per_epoch)
    progress = _begin(params, weights, optimizer=optimizer, length=total)
    for until in range(1, total + 1) if on_evaluation is not None else (total,):
        progress = _advance(
            key,
            progress,
            data,
            weights,
            judged,
            # A patience of all epochs never ends the fit early.
            jnp.int32(total if patience is None else patience),
            jnp.int32(until),
            loss=loss,
            training_loss=training_loss or _without_key(loss),
            optimizer=optimizer,
            batch_size=batch_size,
            splits=splits,
            parts=int(evaluations_per_epoch),
        )
        if on_evaluation is not None:
            if progress.epoch < until:
                break
            last = {name: np.asarray(values)[until - 1] for name, values in progress.metrics.items()}
            on_evaluation(until, last, progress.params)
    result = Fit(
        params=progress.best_params,
        best_epoch=progress.best_epoch,
        num_epochs=progress.epoch,
        metrics=_with_nothing(progress.metrics, progress.epoch, splits),
        held_out=judged,
    )
    _refuse_non_finite(result, splits)
    return result


@functools.lru_cache(maxsize=64)
def _without_key(loss: Loss) -> NoisyLoss:
    """The same loss for the steps; one object for each `loss`, so that the program compiles once."""
    return lambda key, params, rows: loss(params, rows)
