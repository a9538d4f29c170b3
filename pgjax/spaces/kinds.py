"""The four spaces. Their bounds are Python or NumPy constants, so spaces can be compared, hashed and printed."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer
from pgjax.spaces import _elements


@dataclasses.dataclass(frozen=True, repr=False)
class Discrete:
    """The integers 0, …, n − 1; an element is an integer `[]`.

    Raises:
        ValueError: if n is not an integer of at least 1, or `dtype` is not an integer type that can hold n − 1.
    """

    n: int
    dtype: Any = np.int32

    def __post_init__(self):
        n = _size("Discrete: n", self.n)
        _keep(self, n=n, dtype=_integer_type("Discrete: dtype", self.dtype, n - 1))

    @property
    def shape(self) -> tuple[int, ...]:
        return ()

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """0 and n − 1, `[]`."""
        return np.zeros((), self.dtype), np.asarray(self.n - 1, self.dtype)

    def sample(self, key: jax.Array) -> jax.Array:
        """A random element, uniform."""
        return _elements.integers(key, self)

    def contains(self, x: Any) -> jax.Array:
        return _elements.inside(self, x)

    def __repr__(self) -> str:
        return f"Discrete({self.n}{_type_text(self.dtype, np.int32)})"


@dataclasses.dataclass(frozen=True, repr=False)
class Box:
    """The arrays x of one shape with low ≤ x ≤ high for each entry.

    Attributes:
        low, high: numbers or arrays that broadcast to `shape`. They are stored as one number if all entries are equal,
            else as nested tuples. Bounds of a box of floats may be infinite; a number beyond the range of `dtype`
            becomes infinite. In a box of integers, −∞ and ∞ become the least and the greatest number of `dtype`.
        shape: the shape of an element.
        dtype: the type of an element: a float type, an integer type or bool.

    Raises:
        ValueError: if low is above high, a bound is NaN, is not a number of `dtype` or does not broadcast, low is ∞, or
            high is −∞.
    """

    low: Any
    high: Any
    shape: tuple[int, ...]
    dtype: Any = np.float32

    def __post_init__(self):
        shape = tuple(_size("Box: shape", n, 0) for n in self.shape)
        dtype = np.dtype(self.dtype)
        if not (_is_float(dtype) or _is_integer(dtype) or dtype.kind == "b"):
            raise ValueError(f"Box: dtype must be a float type, an integer type or bool, got {dtype}")
        low, high = (_bound(f"Box: {name}", getattr(self, name), shape, dtype) for name in ("low", "high"))
        if not (low <= high).all() or (low == np.inf).any() or (high == -np.inf).any():
            raise ValueError(
                f"Box: low must be at most high, with a number between them, got low={self.low}, high={self.high}"
            )
        _keep(self, low=_as_constant(low), high=_as_constant(high), shape=shape, dtype=dtype)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """low and high as arrays with `shape` and `dtype`."""
        low, high = (np.broadcast_to(np.asarray(bound, self.dtype), self.shape) for bound in (self.low, self.high))
        return low, high

    def sample(self, key: jax.Array) -> jax.Array:
        """A random element, with the convention of Gymnasium.

        Integers are uniform. Floats are uniform between two finite bounds; they are low + Exp(1) or high − Exp(1) with
        one finite bound, and N(0, 1) with none.
        """
        return _elements.floats(key, self) if _is_float(self.dtype) else _elements.integers(key, self)

    def contains(self, x: Any) -> jax.Array:
        return _elements.inside(self, x)

    def __repr__(self) -> str:
        low, high = (_bound_text(bound) for bound in (self.low, self.high))
        return f"Box({low}, {high}, shape={self.shape}{_type_text(self.dtype, np.float32)})"


@dataclasses.dataclass(frozen=True, repr=False)
class MultiDiscrete:
    """D integers that are chosen together; an element is an integer array `[D]` with entry i in 0, …, sizes[i] − 1.

    Raises:
        ValueError: if `sizes` is not a sequence of at least one integer, an integer is below 1, or `dtype` is not an
            integer type that can hold all entries.
    """

    sizes: tuple[int, ...]
    dtype: Any = np.int32

    def __post_init__(self):
        if np.ndim(self.sizes) != 1 or len(self.sizes) == 0:
            raise ValueError(f"MultiDiscrete: sizes must be a sequence of at least one integer, got {self.sizes!r}")
        sizes = tuple(_size("MultiDiscrete: sizes", n) for n in self.sizes)
        _keep(self, sizes=sizes, dtype=_integer_type("MultiDiscrete: dtype", self.dtype, max(sizes) - 1))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.sizes),)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """0 and sizes − 1, `[D]`."""
        return np.zeros(self.shape, self.dtype), (np.asarray(self.sizes, np.int64) - 1).astype(self.dtype)

    def sample(self, key: jax.Array) -> jax.Array:
        """A random element, uniform, with independent entries."""
        return _elements.integers(key, self)

    def contains(self, x: Any) -> jax.Array:
        return _elements.inside(self, x)

    def __repr__(self) -> str:
        return f"MultiDiscrete({self.sizes}{_type_text(self.dtype, np.int32)})"


@dataclasses.dataclass(frozen=True, repr=False)
class Slate:
    """Ordered selections of k different items out of n; an element is an integer array `[k]`.

    Raises:
        ValueError: if n is not an integer of at least 1, k is not an integer in [1, n], or `dtype` is not an integer
            type that can hold n − 1.
    """

    n: int
    k: int
    dtype: Any = np.int32

    def __post_init__(self):
        n = _size("Slate: n", self.n)
        require_integer("Slate: k", self.k, 1, n)
        _keep(self, n=n, k=int(self.k), dtype=_integer_type("Slate: dtype", self.dtype, n - 1))

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.k,)

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """0 and n − 1, `[k]`."""
        return np.zeros(self.shape, self.dtype), np.full(self.shape, self.n - 1, self.dtype)

    def sample(self, key: jax.Array) -> jax.Array:
        """A random element, uniform over the n! / (n − k)! slates."""
        return jax.random.permutation(key, self.n)[: self.k].astype(_elements.own_type(self))

    def contains(self, x: Any) -> jax.Array:
        inside = _elements.inside(self, x)
        return inside & _elements.all_different(jnp.asarray(x)) if jnp.shape(x) == self.shape else inside

    def __repr__(self) -> str:
        return f"Slate({self.n}, {self.k}{_type_text(self.dtype, np.int32)})"


def _keep(space: Any, **values: Any) -> None:
    """Set attributes of a frozen record in its `__post_init__`."""
    for name, value in values.items():
        object.__setattr__(space, name, value)


def _size(name: str, value: Any, low: int = 1) -> int:
    require_integer(name, value, low, None)
    return int(value)


def _is_integer(dtype: np.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.integer)


def _is_float(dtype: np.dtype) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def _integer_type(name: str, dtype: Any, largest: int) -> np.dtype:
    dtype = np.dtype(dtype)
    if not _is_integer(dtype) or largest > jnp.iinfo(dtype).max:
        raise ValueError(f"{name} must be an integer type that holds {largest}, got {dtype}")
    return dtype


def _range_of(dtype: np.dtype) -> tuple[int, int]:
    return (0, 1) if dtype.kind == "b" else (int(jnp.iinfo(dtype).min), int(jnp.iinfo(dtype).max))


def _bound(name: str, bound: Any, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """A bound as an array with `shape`: float64 for a box of floats, else an array of Python integers."""
    try:
        bound = np.broadcast_to(np.asarray(bound), shape)
        numbers = bound.astype(np.float64)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{name} must be numbers that broadcast to {shape}, got {bound!r}") from error
    if np.isnan(numbers).any():
        raise ValueError(f"{name} must not be NaN, got {bound}")
    if _is_float(dtype):
        with np.errstate(over="ignore"):
            beyond = np.isinf(numbers.astype(dtype))
        return np.where(beyond, np.copysign(np.inf, numbers), numbers)
    least, greatest = _range_of(dtype)
    whole = [greatest if n == np.inf else least if n == -np.inf else n.item() for n in bound.flat]
    if any(n != int(n) or not least <= n <= greatest for n in whole):
        raise ValueError(f"{name} must be whole numbers in [{least}, {greatest}] of {dtype}, got {bound}")
    return np.asarray([int(n) for n in whole], object).reshape(shape)


def _as_constant(bound: np.ndarray) -> Any:
    """One number if all entries are equal, else nested tuples."""
    as_tuple = lambda x: tuple(as_tuple(y) for y in x) if isinstance(x, list) else x
    entries = bound.ravel().tolist()
    return entries[0] if entries and all(n == entries[0] for n in entries) else as_tuple(bound.tolist())


def _bound_text(bound: Any) -> str:
    text = repr(bound)
    entries = np.asarray(bound)
    return text if len(text) <= 60 else f"{entries.min()} … {entries.max()}"


def _type_text(dtype: np.dtype, usual: Any) -> str:
    return "" if dtype == usual else f", dtype={dtype}"
