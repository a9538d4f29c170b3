"""Checks of arguments: a ValueError names the argument, what is allowed, and the value that was given.

A traced value has no number yet, so the checks on values let tracers pass: the same function then serves one
hyper-parameter and a batch of them under `jit` and `vmap`.
"""

import operator
import reprlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer


def is_traced(value: Any) -> bool:
    """Whether a value has no number yet, because it belongs to a function that JAX is tracing."""
    return isinstance(value, Tracer)


def is_typed_key(value: Any) -> bool:
    """Whether an array holds typed keys, as `jax.random.key` makes them."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jax.dtypes.prng_key)


def _allowed(low: float | None, high: float | None) -> str:
    number = lambda bound: f"{bound:g}" if isinstance(bound, float) else str(bound)
    if low is not None and high is not None:
        return f"in [{number(low)}, {number(high)}]"
    return f"at least {number(low)}" if high is None else f"at most {number(high)}"


def require_in_range(name: str, value: Any, low: float | None, high: float | None) -> None:
    """low ≤ value ≤ high for a number or every entry of an array; None leaves that side open.

    Raises:
        ValueError: if a value is out of range or NaN ("discount must be in [0, 1], got -0.5"), or is not a
            number.
    """
    if is_traced(value):
        return
    numbers = np.asarray(value)
    if not jnp.issubdtype(numbers.dtype, jnp.number):
        raise ValueError(f"{name} must be a number {_allowed(low, high)}, got {value!r}")
    # Written so that NaN, which compares false with everything, is outside.
    inside = np.ones(numbers.shape, bool)
    if low is not None:
        inside &= numbers >= low
    if high is not None:
        inside &= numbers <= high
    if not inside.all():
        raise ValueError(f"{name} must be {_allowed(low, high)}, got {numbers[~inside][0]}")


def require_integer(name: str, value: Any, low: int | None, high: int | None) -> None:
    """One whole number with low ≤ value ≤ high; a float is refused even if it is whole, and so is a bool.

    Raises:
        ValueError: if the value is not an integer, or is out of range.
    """
    if is_traced(value):
        return
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be an integer {_allowed(low, high)}, got {value!r}")
    require_in_range(name, number, low, high)


def require_float(name: str, value: Any) -> None:
    """A number or an array, traced or not, of a float type: a coefficient cast to integers would be cut to 0.

    Raises:
        ValueError: for another type, such as integers or bool.
    """
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} must have a float type, got {dtype}")


def require_one_of(name: str, value: Any, options: Sequence[str]) -> None:
    """value ∈ options, for conventions that are chosen by a word.

    Raises:
        ValueError: if it is none of them.
    """
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")


def require_kind(name: str, value: Any, kind: type, example: str) -> None:
    """value is such a record, for arguments in whose place a word or a function that makes one is easily given.

    Raises:
        ValueError: if it is none, with an example of how one is made.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of type {kind.__name__} (such as {example}), got {value!r}")


def shown(value: Any) -> str:
    """A value from outside, such as a file's, as an error shows it: of bounded length, without control characters."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 300 else f"{text[:300]} …"
