"""What each operation of JAX does to the values of a kernel (`_lane_values`)."""

import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from pgjax.rollouts._lane_indexing import dynamic_slice, gather
from pgjax.rollouts._lane_products import product
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
    numbers_of,
    places,
    size_of,
)

# The operations on single numbers that Triton has.
# fmt: off
_ELEMENTWISE = frozenset(
    {
        "abs", "acos", "acosh", "add", "and", "asin", "asinh", "atan", "atan2", "atanh", "bitcast_convert_type",
        "cbrt", "ceil", "clamp", "clz", "convert_element_type", "cos", "cosh", "div", "eq", "erf_inv", "exp", "exp2",
        "expm1", "floor", "ge", "gt", "integer_pow", "is_finite", "le", "log", "log1p", "logistic", "lt", "max",
        "min", "mul", "ne", "neg", "nextafter", "not", "or", "population_count", "pow", "rem", "rsqrt", "select_n",
        "shift_left", "shift_right_arithmetic", "shift_right_logical", "sign", "sin", "sinh", "sqrt", "square",
        "sub", "tan", "tanh", "xor",
    }
)
# fmt: on
_SAME = ("stop_gradient", "copy", "copy_p", "optimization_barrier", "reduce_precision")
# The operations that only choose and order numbers.
# fmt: off
_LAYOUT = frozenset(
    {
        "broadcast_in_dim", "concatenate", "expand_dims", "pad", "reshape", "rev", "slice", "split", "squeeze",
        "stack", "transpose", "unstack",
    }
)
# fmt: on
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
        return [product(params, values[0], values[1], shapes[0], lanes)]
    if name == "dynamic_slice":
        return [dynamic_slice(params["slice_sizes"], values[0], values[1:], shape, lanes)]
    if name == "gather":
        return [gather(params, values[0], values[1], shapes[0], lanes)]
    raise Unsupported(f"the operation {name!r}")


def literal(atom: Literal) -> Small:
    """The value of a literal of a program."""
    aval: Any = atom.aval
    return Small([np.asarray(atom.val, aval.dtype)[()]], ())


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
    at = [start + places(value.shape) for start, value in zip(starts, values)]
    with jax.ensure_compile_time_eval():
        found = operation.primitive.bind(*map(jnp.asarray, at), **operation.params)
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
    if isinstance(value, Large) and whole is not None and size_of(shape) == 1:
        real = column_numbers(value.data.shape[1]) < size_of(value.shape)
        data = jnp.where(real, value.data, jnp.full((), neutral(value.data.dtype), value.data.dtype))
        return Small([whole(data, axis=1)], shape)
    numbers = numbers_of(value)
    moved = np.moveaxis(places(value.shape), axes, range(len(axes))).reshape((-1, size_of(shape)))
    found = [functools.reduce(pair, [numbers[i] for i in column]) for column in moved.T]
    return held(Small(found, shape), lanes, shape)


def _running(name: str, params: dict[str, Any], value: Value, lanes: int) -> Value:
    pair, axis = _RUNNING[name], params["axis"]
    if isinstance(value, Large) and name == "cumsum" and len(value.shape) == 1 and not params["reverse"]:
        return Large(jax.lax.cumsum(value.data, axis=1), value.shape)
    along = np.moveaxis(places(value.shape), axis, 0).reshape(value.shape[axis], -1)
    found = list(numbers_of(value))
    for column in along[:: -1 if params["reverse"] else 1].T:
        for before, place in itertools.pairwise(column):
            found[place] = pair(found[before], found[place])
    return held(Small(found, value.shape), lanes, value.shape)


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
