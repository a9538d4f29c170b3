"""Products of the values of a kernel: a vector of each lane with a matrix that all lanes share. Axes: n lanes."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.rollouts._lane_values import (
    SMALL,
    Large,
    Shared,
    Small,
    Unsupported,
    Value,
    column_numbers,
    lanes_of,
    numbers_of,
    padded,
    places,
    row,
    size_of,
)


def product(params: dict[str, Any], left: Value, right: Value, out: Any, lanes: int) -> Value:
    """Σ_k of two values: term by term where both are small, else of a vector of the lane with a shared matrix."""
    (on_left, on_right), batch = params["dimension_numbers"]
    if batch != ((), ()) or len(on_left) != 1:
        raise Unsupported("a product with batch axes, or over more than one axis")
    (axis_left,), (axis_right,) = on_left, on_right
    depth, width = left.shape[axis_left], size_of(out.shape)
    if max(depth, width, size_of(left.shape) // depth, size_of(right.shape) // depth) <= SMALL:
        return _small_product(left, axis_left, right, axis_right, out.shape)
    x, w, axis = (right, left, axis_left) if isinstance(left, Shared) else (left, right, axis_right)
    if len(x.shape) != 1 or isinstance(x, Shared):
        raise Unsupported(f"a product of arrays of the shapes {list(left.shape)} and {list(right.shape)}")
    if len(w.shape) == 1 and not isinstance(w, Shared):
        data = lanes_of(x, lanes, depth) * lanes_of(w, lanes, depth)
        real = column_numbers(data.shape[1]) < depth
        return Small([jnp.sum(jnp.where(real, data, jnp.zeros_like(data)), axis=1)], ())
    if not isinstance(w, Shared) or len(w.shape) > 2:
        raise Unsupported("a product with a matrix that each lane has of its own")
    # The place of W_{k m} is `step` times k and `across` times m behind the first.
    step, across = (1, depth) if axis == len(w.shape) - 1 else (width, 1)
    if depth <= SMALL:
        rows = [row(w, k * step, width, across) for k in range(depth)]
        columns = [jnp.broadcast_to(number, (lanes,))[:, None] for number in numbers_of(x)]
        return Large(functools.reduce(jnp.add, [c * r for c, r in zip(columns, rows)]), out.shape)
    data = lanes_of(x, lanes, depth)
    real = column_numbers(data.shape[1]) < depth
    if width <= SMALL:
        weighted = lambda m: jnp.where(real, data * row(w, m * across, depth, step), 0)
        return Small([jnp.sum(weighted(m), axis=1) for m in range(width)], out.shape)
    data = jnp.where(real, data, jnp.zeros_like(data))
    return Large(_matrix_product(params, data, w, (depth, width), (step, across)).astype(out.dtype), out.shape)


def _small_product(left: Value, axis_left: int, right: Value, axis_right: int, shape: tuple[int, ...]) -> Value:
    ours, theirs = numbers_of(left), numbers_of(right)
    rows, columns = (
        np.moveaxis(places(value.shape), axis, -1).reshape(-1, value.shape[axis])
        for value, axis in ((left, axis_left), (right, axis_right))
    )
    terms = lambda row, column: [ours[i] * theirs[j] for i, j in zip(row, column)]
    return Small([functools.reduce(jnp.add, terms(a, b)) for a in rows for b in columns], shape)


def _matrix_product(
    params: dict[str, Any], data: jax.Array, w: Shared, size: tuple[int, int], strides: tuple[int, int]
) -> jax.Array:
    """`[n, P] × [P, Q]`; the padding of the second matrix repeats its last row and column."""
    inner = jnp.minimum(jax.lax.iota(jnp.int32, data.shape[1]), size[0] - 1)
    outer = jnp.minimum(column_numbers(padded(size[1])), size[1] - 1)
    matrix = w.ref[inner[:, None] * strides[0] + outer * strides[1]]
    # A GPU would multiply float32 in TF32 unless told otherwise, and the actions would differ from those of the scan.
    precision = jax.lax.Precision.HIGHEST if params["precision"] is None else params["precision"]
    return jax.lax.dot(data, matrix, precision=precision, preferred_element_type=jnp.float32)
