"""Indices that differ from lane to lane: slices of a table that all lanes share, or of a lane's own value."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.rollouts._lane_values import Small, Unsupported, Value, elementwise, numbers_of, picked, places, size_of


def _flat_start(shape: tuple[int, ...], starts: list[tuple[int, jax.Array]], lanes: int) -> jax.Array:
    strides = [size_of(shape[axis + 1 :]) for axis in range(len(shape))]
    total = sum((start.astype(jnp.int32) * strides[axis] for axis, start in starts), jnp.zeros((), jnp.int32))
    return jnp.broadcast_to(total, (lanes,))


def _offsets(shape: tuple[int, ...], sizes: tuple[int, ...]) -> np.ndarray:
    return places(shape)[tuple(slice(0, size) for size in sizes)]


def dynamic_slice(
    sizes: tuple[int, ...], value: Value, starts: list[Value], shape: tuple[int, ...], lanes: int
) -> Value:
    """The slice of `sizes` that starts at one number per axis, clipped so that it lies inside the value."""
    limits = [n - size for n, size in zip(value.shape, sizes)]
    # A slice of a whole axis starts at 0, and so no index of it has to be computed.
    numbers = [(axis, numbers_of(start)[0]) for axis, start in enumerate(starts) if limits[axis] > 0]
    clipped = [(axis, jnp.clip(jnp.asarray(x).astype(jnp.int32), 0, limits[axis])) for axis, x in numbers]
    at = _flat_start(value.shape, clipped, lanes)
    return picked(value, at, _offsets(value.shape, sizes), lanes, shape)


def gather(params: dict[str, Any], value: Value, indices: Value, out: Any, lanes: int) -> Value:
    """The slice of a value that starts at one index per axis; each lane has one index."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    collapsed = set(numbers.collapsed_slice_dims)
    kept = [size for axis, size in enumerate(sizes) if axis not in collapsed]
    if len(indices.shape) != 1 or numbers.operand_batching_dims or size_of(out.shape) != size_of(tuple(kept)):
        raise Unsupported("an index that is an array of more than one place")
    limits = [n - size for n, size in zip(value.shape, sizes)]
    starts = [(axis, jnp.asarray(x).astype(jnp.int32)) for axis, x in zip(numbers.start_index_map, numbers_of(indices))]
    inside = functools.reduce(jnp.logical_and, [(x >= 0) & (x <= limits[axis]) for axis, x in starts])
    at = _flat_start(value.shape, [(axis, jnp.clip(x, 0, limits[axis])) for axis, x in starts], lanes)
    found = picked(value, at, _offsets(value.shape, sizes), lanes, out.shape)
    if params["mode"] != jax.lax.GatherScatterMode.FILL_OR_DROP:
        return found
    fill = params["fill_value"]
    if fill is None:
        fill = np.nan if jnp.issubdtype(out.dtype, jnp.inexact) else _fill_of_integers(out.dtype)
    empty = Small([np.asarray(fill, out.dtype)[()]], ())
    return elementwise(jnp.where, [Small([inside], ()), found, empty], lanes, out.shape)


def _fill_of_integers(dtype: Any) -> Any:
    if dtype == jnp.bool_:
        return True
    return np.iinfo(dtype).min if jnp.issubdtype(dtype, jnp.signedinteger) else np.iinfo(dtype).max
