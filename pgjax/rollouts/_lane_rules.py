"""What each operation of JAX does to the values of a kernel (`_lane_values`)."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from pgjax.rollouts._lane_program import SELECT_BRANCH, Operation
from pgjax.rollouts._lane_values import (
    SMALL,
    Large,
    Shared,
    Small,
    Unsupported,
    Value,
    column_numbers,
    elementwise,
    held,
    lanes_of,
    numbers_of,
    picked,
    row,
    size_of,
)

# The operations on single numbers that Triton has.
_ELEMENTWISE = frozenset(
    "abs acos acosh add and asin asinh atan atan2 atanh bitcast_convert_type cbrt ceil clamp clz convert_element_type "
    "cos cosh div eq erf_inv exp exp2 expm1 floor ge gt integer_pow is_finite le log log1p logistic lt max min mul ne "
    "neg nextafter not or population_count pow rem rsqrt select_n shift_left shift_right_arithmetic "
    "shift_right_logical sign sin sinh sqrt square sub tan tanh xor".split()
)
_SAME = ("stop_gradient", "copy", "copy_p", "optimization_barrier", "reduce_precision")
# The operations that only choose and order numbers.
_LAYOUT = frozenset(
    "broadcast_in_dim concatenate expand_dims pad reshape rev slice split squeeze stack transpose unstack".split()
)
_REDUCTIONS: dict[str, tuple[Callable, Callable | None, Any]] = {
    "reduce_sum": (jnp.add, jnp.sum, lambda dtype: 0),
    "reduce_max": (jnp.maximum, jnp.max, lambda dtype: _least(dtype)),
    "reduce_min": (jnp.minimum, jnp.min, lambda dtype: _greatest(dtype)),
    "reduce_prod": (jnp.multiply, None, None),
    "reduce_and": (jnp.bitwise_and, None, None),
    "reduce_or": (jnp.bitwise_or, None, None),
}
_RUNNING = {"cumsum": jnp.add, "cumprod": jnp.multiply, "cummax": jnp.maximum, "cummin": jnp.minimum}


def _least(dtype: Any) -> Any:
    return -np.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).min


def _greatest(dtype: Any) -> Any:
    return np.inf if jnp.issubdtype(dtype, jnp.floating) else np.iinfo(dtype).max


def apply(operation: Operation, values: list[Value], shapes: list[Any], lanes: int) -> list[Value]:
    """The outputs of an operation on `values`; `shapes` are the shapes and dtypes of its outputs.

    Raises:
        Unsupported: if the operation has no form in the kernel.
    """
    name, params, shape = operation.name, operation.params, shapes[0].shape
    if name in _ELEMENTWISE:
        return [elementwise(functools.partial(operation.primitive.bind, **params), values, lanes, shape)]
    if name == SELECT_BRANCH:
        return [elementwise(_select_branch, values, lanes, shape)]
    if name in _SAME:
        return list(values)
    if name in _LAYOUT:
        return _layout(operation, values, [one.shape for one in shapes], lanes)
    if name in _REDUCTIONS:
        return [_reduce(name, params["axes"], values[0], shape, lanes)]
    if name in _RUNNING:
        return [_running(name, params, values[0], lanes)]
    if name in ("argmax", "argmin"):
        return [_best(name, params, values[0], shape)]
    if name == "dot_general":
        return [_product(params, values[0], values[1], shapes[0], lanes)]
    if name == "dynamic_slice":
        return [_dynamic_slice(params["slice_sizes"], values[0], values[1:], shape, lanes)]
    if name == "gather":
        return [_gather(params, values[0], values[1], shapes[0], lanes)]
    raise Unsupported(f"the operation {name!r}")


def literal(atom: Literal) -> Small:
    """The value of a literal of a program."""
    return Small([np.asarray(atom.val, atom.aval.dtype)[()]], ())


def _places(shape: tuple[int, ...]) -> np.ndarray:
    """The number of each place of a value, in row-major order."""
    return np.arange(size_of(shape), dtype=np.int32).reshape(shape)


def _select_branch(index: jax.Array, first: jax.Array, *others: jax.Array) -> jax.Array:
    found = first
    for number, other in enumerate(others, 1):
        found = jnp.where(index >= number, other, found)
    return found


def _layout(operation: Operation, values: list[Value], shapes: list[tuple[int, ...]], lanes: int) -> list[Value]:
    """The operation is done to the places of the numbers, so that it needs no form of its own."""
    if operation.name in ("reshape", "squeeze", "expand_dims", "broadcast_in_dim"):
        (value, *_), (shape,) = values, shapes
        if size_of(value.shape) == size_of(shape) or (size_of(value.shape) == 1 and size_of(shape) > SMALL):
            return [held(value, lanes, shape)]
    starts = np.cumsum([0, *(size_of(value.shape) for value in values)], dtype=np.int32)
    places = [start + _places(value.shape) for start, value in zip(starts, values)]
    with jax.ensure_compile_time_eval():
        found = operation.primitive.bind(*map(jnp.asarray, places), **operation.params)
    found = found if operation.primitive.multiple_results else [found]
    if max(map(size_of, shapes)) > SMALL and len(values) == 1 and isinstance(values[0], Large):
        at = np.asarray(found[0]).ravel()
        if len(found) == 1 and len(at) == starts[-1] and (np.diff(at) == 1).all():
            return [Large(values[0].data, shapes[0])]
    numbers = [number for value in values for number in numbers_of(value)]
    chosen = [[numbers[i] for i in np.asarray(at).ravel()] for at in found]
    return [held(Small(one, shape), lanes, shape) for one, shape in zip(chosen, shapes)]


def _reduce(name: str, axes: tuple[int, ...], value: Value, shape: tuple[int, ...], lanes: int) -> Value:
    pair, whole, neutral = _REDUCTIONS[name]
    if isinstance(value, Large):
        if whole is None or size_of(shape) != 1 or value.data.dtype == jnp.bool_:
            raise Unsupported(f"the operation {name!r} over a part of more than {SMALL} numbers")
        real = column_numbers(value.data.shape[1]) < size_of(value.shape)
        data = jnp.where(real, value.data, jnp.full((), neutral(value.data.dtype), value.data.dtype))
        return Small([whole(data, axis=1)], shape)
    assert isinstance(value, Small)
    moved = np.moveaxis(_places(value.shape), axes, range(len(axes))).reshape((-1, size_of(shape)))
    return Small([functools.reduce(pair, [value.numbers[i] for i in places]) for places in moved.T], shape)


def _running(name: str, params: dict[str, Any], value: Value, lanes: int) -> Value:
    pair, axis = _RUNNING[name], params["axis"]
    if isinstance(value, Large):
        if name != "cumsum" or len(value.shape) != 1 or params["reverse"]:
            raise Unsupported(f"the operation {name!r} over more than {SMALL} numbers")
        return Large(jax.lax.cumsum(value.data, axis=1), value.shape)
    assert isinstance(value, Small)
    along = np.moveaxis(_places(value.shape), axis, 0).reshape(value.shape[axis], -1)
    found = list(value.numbers)
    for places in along[:: -1 if params["reverse"] else 1].T:
        for before, place in zip(places, places[1:]):
            found[place] = pair(found[before], found[place])
    return Small(found, value.shape)


def _best(name: str, params: dict[str, Any], value: Value, shape: tuple[int, ...]) -> Value:
    """The first place of the greatest (least) number; a NaN counts as the greatest (least)."""
    dtype = params["index_dtype"]
    if size_of(shape) != 1 or isinstance(value, Shared):
        raise Unsupported(f"the operation {name!r} along one axis of several")
    if isinstance(value, Large):
        data = value.data.astype(jnp.int32) if value.data.dtype == jnp.bool_ else value.data
        real = column_numbers(data.shape[1]) < size_of(value.shape)
        worst = (_least if name == "argmax" else _greatest)(data.dtype)
        data = jnp.where(real, data, jnp.full((), worst, data.dtype))
        return Small([(jnp.argmax if name == "argmax" else jnp.argmin)(data, axis=1).astype(dtype)], shape)
    best, *others = numbers_of(value)
    place = jnp.zeros(np.shape(best), dtype)
    for i, number in enumerate(others, 1):
        better = _better(name, number, best)
        best, place = jnp.where(better, number, best), jnp.where(better, jnp.asarray(i, dtype), place)
    return Small([place], shape)


def _better(name: str, new: jax.Array, old: jax.Array) -> jax.Array:
    if jnp.result_type(new) == jnp.bool_:
        return new & ~old if name == "argmax" else old & ~new
    better = new > old if name == "argmax" else new < old
    is_float = jnp.issubdtype(jnp.result_type(new), jnp.floating)
    return better | (jnp.isnan(new) & ~jnp.isnan(old)) if is_float else better


def _product(params: dict[str, Any], left: Value, right: Value, out: Any, lanes: int) -> Value:
    """Σ_k x_k W_{k m}, x of each lane, with W shared or another vector of the lane."""
    (on_left, on_right), batch = params["dimension_numbers"]
    x, w, on_w = (right, left, on_left) if isinstance(left, Shared) else (left, right, on_right)
    if batch != ((), ()) or len(x.shape) != 1 or len(w.shape) > 2 or isinstance(x, Shared):
        raise Unsupported(f"a product of arrays of the shapes {list(left.shape)} and {list(right.shape)}")
    if not isinstance(w, Shared):
        if len(w.shape) != 1:
            raise Unsupported("a product with a matrix that each lane has of its own")
        products = elementwise(jnp.multiply, [x, w], lanes, x.shape)
        return _reduce("reduce_sum", (0,), products, (), lanes)
    depth, width = x.shape[0], size_of(out.shape)
    step, across = (1, depth) if on_w == (len(w.shape) - 1,) else (width, 1)
    at = lambda k: k * step  # the place of W_{k 0}; W_{k m} is `across` times m behind it
    if depth <= SMALL and width <= SMALL:
        columns = numbers_of(x)
        terms = lambda m: [columns[k] * w.ref[at(k) + m * across] for k in range(depth)]
        return Small([functools.reduce(jnp.add, terms(m)) for m in range(width)], out.shape)
    if depth <= SMALL:
        rows = [row(w, at(k), width, across) for k in range(depth)]
        columns = [jnp.broadcast_to(number, (lanes,))[:, None] for number in numbers_of(x)]
        return Large(functools.reduce(jnp.add, [c * r for c, r in zip(columns, rows)]), out.shape)
    data = lanes_of(x, lanes, depth)
    real = column_numbers(data.shape[1]) < depth
    if width <= SMALL:
        weighted = lambda m: jnp.where(real, data * row(w, m * across, depth, step), 0)
        return Small([jnp.sum(weighted(m), axis=1) for m in range(width)], out.shape)
    data = jnp.where(real, data, jnp.zeros_like(data))
    return Large(_matrix_product(params, data, w, (depth, width), (step, across)).astype(out.dtype), out.shape)


def _matrix_product(
    params: dict[str, Any], data: jax.Array, w: Shared, size: tuple[int, int], strides: tuple[int, int]
) -> jax.Array:
    """`[n, P] × [P, Q]`; the padding of the second matrix repeats its last row and column."""
    inner = jnp.minimum(jax.lax.iota(jnp.int32, data.shape[1]), size[0] - 1)
    outer = jnp.minimum(column_numbers(1 << (size[1] - 1).bit_length()), size[1] - 1)
    matrix = w.ref[inner[:, None] * strides[0] + outer * strides[1]]
    # A GPU would multiply float32 in TF32 unless told otherwise, and the actions would differ from those of the scan.
    precision = jax.lax.Precision.HIGHEST if params["precision"] is None else params["precision"]
    return jax.lax.dot(data, matrix, precision=precision, preferred_element_type=jnp.float32)


def _flat_start(shape: tuple[int, ...], starts: list[tuple[int, jax.Array]], lanes: int) -> jax.Array:
    strides = [size_of(shape[axis + 1 :]) for axis in range(len(shape))]
    total = sum((start.astype(jnp.int32) * strides[axis] for axis, start in starts), jnp.zeros((), jnp.int32))
    return jnp.broadcast_to(total, (lanes,))


def _offsets(shape: tuple[int, ...], sizes: tuple[int, ...]) -> np.ndarray:
    return _places(shape)[tuple(slice(0, size) for size in sizes)]


def _dynamic_slice(
    sizes: tuple[int, ...], value: Value, starts: list[Value], shape: tuple[int, ...], lanes: int
) -> Value:
    limits = [n - size for n, size in zip(value.shape, sizes)]
    # A slice of a whole axis starts at 0, and so no index of it has to be computed.
    numbers = [(axis, numbers_of(start)[0]) for axis, start in enumerate(starts) if limits[axis] > 0]
    clipped = [(axis, jnp.clip(jnp.asarray(x).astype(jnp.int32), 0, limits[axis])) for axis, x in numbers]
    at = _flat_start(value.shape, clipped, lanes)
    return picked(value, at, _offsets(value.shape, sizes), lanes, shape)


def _gather(params: dict[str, Any], value: Value, indices: Value, out: Any, lanes: int) -> Value:
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
