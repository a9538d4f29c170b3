"""Checks of the arguments of `fit`: numbers, rows of arrays, and the values of arrays that are not traced."""

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_traced, require_in_range, require_integer
from pgjax.types import PyTree


def check_settings(
    num_epochs: int,
    batch_size: int,
    validation_fraction: float,
    patience: int | None,
    evaluations_per_epoch: int,
    held_out: jax.Array | None,
) -> None:
    """Refuse, with a ValueError, numbers out of range, two choices of held-out rows, and patience without any."""
    require_integer("evaluations_per_epoch", evaluations_per_epoch, 1, None)
    if held_out is not None and validation_fraction > 0:
        raise ValueError(f"validation_fraction must be 0 if held_out is given, got {validation_fraction}")
    require_integer("num_epochs", num_epochs, 1, None)
    require_integer("batch_size", batch_size, 1, None)
    require_in_range("validation_fraction", validation_fraction, 0.0, 1.0)
    if validation_fraction == 1:
        raise ValueError("validation_fraction must be less than 1, got 1")
    if patience is not None:
        require_integer("patience", patience, 1, None)
        if validation_fraction == 0 and held_out is None:
            raise ValueError(f"patience must be None without held-out rows (validation_fraction=0), got {patience}")


def is_known(*arrays: jax.typing.ArrayLike) -> bool:
    """Whether all arrays have values now, so that they can be checked; traced arrays have none."""
    return not any(map(is_traced, arrays))


def count_rows(data: PyTree, **more: jax.Array | None) -> int:
    """N, the rows that all arrays have. Raises ValueError for no array, an array without rows, or unequal numbers."""
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


def checked_rows(held_out: jax.Array, weights: jax.Array) -> jax.Array:
    """The held-out rows that have a weight; a ValueError if no row is left on one of the two sides."""
    held_out = jnp.asarray(held_out)
    if held_out.dtype != bool:
        raise ValueError(f"held_out must be bool, got {held_out.dtype}")
    live = weights > 0
    if is_known(held_out, weights) and not (np.any(held_out & live) and np.any(~held_out & live)):
        raise ValueError("held_out must leave rows with a weight on both sides, got none on one side")
    return held_out & live


def check_parts(weights: jax.Array, held_out: jax.Array, batch_size: int, parts: int) -> None:
    """Refuse, with a ValueError, more parts of an epoch than it has minibatches."""
    if parts > 1 and is_known(weights, held_out):
        minibatches = -(-int(np.sum((np.asarray(weights) > 0) & ~np.asarray(held_out))) // batch_size)
        if parts > minibatches:
            raise ValueError(f"evaluations_per_epoch must be at most the {minibatches} minibatches, got {parts}")


def check_values(data: PyTree, weights: jax.Array, groups: jax.Array, validation_fraction: float) -> None:
    """Check the values of those arrays that are not traced."""
    if not is_known(weights):
        return
    # NaN compares false with everything.
    if not (np.isfinite(weights).all() and (np.asarray(weights) >= 0).all() and np.asarray(weights).sum() > 0):
        raise ValueError(f"weights must be finite, at least 0 and not all 0, got {np.asarray(weights)}")
    live = np.asarray(weights) > 0
    for path, x in jax.tree_util.tree_flatten_with_path(data)[0]:
        if is_known(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating):
            finite = np.all(np.isfinite(np.asarray(x)).reshape(live.shape[0], -1), axis=1)
            if not finite[live].all():
                row, name = np.flatnonzero(live & ~finite)[0], f"data{jax.tree_util.keystr(path)}"
                raise ValueError(f"{name} must be finite, got {np.asarray(x)[row]} in row {row}")
    if validation_fraction > 0 and is_known(groups):
        num_groups = np.unique(np.asarray(groups)[live]).size
        if num_groups < 2:
            raise ValueError(
                f"validation_fraction must be 0 with fewer than two groups of rows, one for each side, "
                f"got {validation_fraction} and {num_groups} group"
            )
