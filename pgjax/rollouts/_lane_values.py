"""How a kernel holds the values of n lanes, and the operations on them that a GPU can run.

Triton's arrays have powers of two as sizes, no slices and no concatenation. So a value of at most `SMALL` numbers per
lane is held as one array `[n]` for each number, and slices and stacks only choose among them; a larger value is one
array `[n, P]`, where P is the next power of two. Axes: n lanes of a block, P numbers of a lane with padding.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

SMALL = 16
# To put a large value together from single numbers, or to take it apart, costs one selection for each of them.
MOST_SELECTIONS = 64


class Small(NamedTuple):
    """One value per lane: its numbers in row-major order, each an array `[n]`, or a scalar that all lanes share."""

    numbers: list[Any]
    shape: tuple[int, ...]


class Large(NamedTuple):
    """One value per lane with more than `SMALL` numbers: `[n, P]`. The padding holds any numbers."""

    data: jax.Array
    shape: tuple[int, ...]


class Shared(NamedTuple):
    """A value that all lanes share: a reference to its numbers in one axis `[size]`."""

    ref: Any
    shape: tuple[int, ...]
    dtype: Any


Value = Small | Large | Shared


class Unsupported(Exception):
    """An operation that has no form in the kernel; the text says what it is."""


def size_of(shape: tuple[int, ...]) -> int:
    """The number of numbers in a value of this shape."""
    return math.prod(shape)


def padded(size: int) -> int:
    """The next power of two."""
    return 1 << (size - 1).bit_length()


def places(shape: tuple[int, ...]) -> np.ndarray:
    """The number of each place of a value, in row-major order."""
    return np.arange(size_of(shape), dtype=np.int32).reshape(shape)


def column_numbers(count: int) -> jax.Array:
    """0, …, P − 1 as `[1, P]`."""
    return jax.lax.broadcasted_iota(jnp.int32, (1, count), 1)


def row(shared: Shared, start: int = 0, count: int | None = None, stride: int = 1) -> jax.Array:
    """`count` numbers of a shared value as `[1, P]`. The padding repeats the last of them."""
    count = size_of(shared.shape) if count is None else count
    at = jnp.minimum(jax.lax.iota(jnp.int32, padded(count)), count - 1)
    return shared.ref[start + at * stride][None, :]


def numbers_of(value: Value) -> list[Any]:
    """All numbers of a value in row-major order, each an array `[n]` or a scalar."""
    size = size_of(value.shape)
    if size > MOST_SELECTIONS:
        raise Unsupported(f"an operation on the single numbers of a value of {size}, more than {MOST_SELECTIONS}")
    match value:
        case Small():
            return value.numbers
        case Shared():
            return [value.ref[i] for i in range(size)]
        case Large():
            return [one_of(value, column_numbers(value.data.shape[1]) == i) for i in range(size)]


def one_of(value: Large, chosen: jax.Array) -> jax.Array:
    """The number of each lane at the one place where `chosen`, bool `[1 or n, P]`, is true."""
    is_bool = value.data.dtype == jnp.bool_
    data = value.data.astype(jnp.int32) if is_bool else value.data
    found = jnp.sum(jnp.where(chosen, data, jnp.zeros_like(data)), axis=1, dtype=data.dtype)
    return found != 0 if is_bool else found


def lanes_of(value: Value, lanes: int, count: int) -> jax.Array:
    """A value of `count` numbers, or of one that all of them share, as `[n, P]`."""
    shape = (lanes, padded(count))
    if isinstance(value, Large):
        return value.data
    if isinstance(value, Shared) and size_of(value.shape) > 1:
        return jnp.broadcast_to(row(value), shape)
    numbers = numbers_of(value)
    if len(numbers) == 1:
        only = numbers[0]
        return jnp.broadcast_to(only[:, None] if np.ndim(only) else only, shape)
    dtype = jnp.result_type(*numbers)
    data = jnp.zeros(shape, dtype)
    for i, number in enumerate(numbers):
        number = number[:, None] if np.ndim(number) else number
        data = jnp.where(column_numbers(shape[1]) == i, number, data)
    return data


def held(value: Value, lanes: int, shape: tuple[int, ...]) -> Small | Large:
    """The value in the form that its size asks for, with this shape."""
    size = size_of(shape)
    if size > SMALL:
        return Large(lanes_of(value, lanes, size), shape)
    return Small(numbers_of(value), shape)


def arrays_of(value: Value, lanes: int, shape: tuple[int, ...], dtype: Any) -> list[jax.Array]:
    """The arrays of a value, for the state of a loop: one `[n]` for each number, or one `[n, P]`."""
    value = held(value, lanes, shape)
    if isinstance(value, Large):
        return [value.data.astype(dtype)]
    return [jnp.broadcast_to(jnp.asarray(x, dtype), (lanes,)) for x in numbers_of(value)]


def from_arrays(arrays: list[jax.Array], shape: tuple[int, ...]) -> Small | Large:
    """The value whose arrays `arrays_of` gave."""
    return Large(arrays[0], shape) if size_of(shape) > SMALL else Small(arrays, shape)


def _broadcast(value: Value, lanes: int, shape: tuple[int, ...]) -> Value:
    """The value with as many numbers as the shape, unless it has one number."""
    if size_of(value.shape) in (1, size_of(shape)):
        return value
    chosen, numbers = np.broadcast_to(places(value.shape), shape), numbers_of(value)
    return held(Small([numbers[i] for i in chosen.ravel()], shape), lanes, shape)


def elementwise(function: Callable, values: list[Value], lanes: int, shape: tuple[int, ...]) -> Small | Large:
    """`function` of each place of the values, whose shapes are broadcast as NumPy does it."""
    size = size_of(shape)
    values = [_broadcast(value, lanes, shape) for value in values]
    if size > SMALL:
        return Large(function(*(lanes_of(value, lanes, size) for value in values)), shape)
    numbers = [numbers_of(value) for value in values]
    operands = [[one[0 if len(one) == 1 else i] for one in numbers] for i in range(size)]
    # All operands of an operation have one shape.
    alike = lambda place: (lanes,) if any(np.ndim(x) for x in place) else ()
    return Small([function(*(jnp.broadcast_to(x, alike(place)) for x in place)) for place in operands], shape)


def picked(value: Value, at: jax.Array, offsets: np.ndarray, lanes: int, shape: tuple[int, ...]) -> Small | Large:
    """The numbers of a value at the places `at [n]` + `offsets`, in row-major order, as a value of this shape."""
    offsets = offsets.ravel()
    if len(offsets) <= SMALL:
        return Small([_pick(value, at + int(offset)) for offset in offsets], shape)
    if not isinstance(value, Shared) or not (np.diff(offsets) == 1).all():
        raise Unsupported(f"an index that chooses {len(offsets)} numbers from a value that each lane has of its own")
    columns = jnp.minimum(column_numbers(padded(len(offsets))), len(offsets) - 1)
    return Large(value.ref[at[:, None] + int(offsets[0]) + columns], shape)


def _pick(value: Value, at: jax.Array) -> jax.Array:
    match value:
        case Shared():
            return value.ref[at]
        case Large():
            return one_of(value, column_numbers(value.data.shape[1]) == at[:, None])
        case Small():
            first, *others = numbers_of(value)
            found = jnp.broadcast_to(first, at.shape)
            for i, number in enumerate(others, 1):
                found = jnp.where(at == i, number, found)
            return found
