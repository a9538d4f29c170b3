"""Checks of arguments: a ValueError names the argument, the allowed values and the given value.

A traced value has no number yet, so checks of values accept tracers. The same function then works for one
hyper-parameter and, under `jit` and `vmap`, for a batch of them.
"""

import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from pgjax._shown import shown as shown


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
    """Require low ≤ value ≤ high for a number or for each entry of an array; None means that there is no bound.

    Raises:
        ValueError: if a value is out of range, NaN or not a number ("discount must be in [0, 1], got -0.5").
    """
    if is_traced(value):
        return
    numbers = np.asarray(value)
    if not jnp.issubdtype(numbers.dtype, jnp.number):
        raise ValueError(f"{name} must be a number {_allowed(low, high)}, got {value!r}")
    # All comparisons with NaN are false, so NaN counts as outside.
    inside = np.ones(numbers.shape, bool)
    if low is not None:
        inside &= numbers >= low
    if high is not None:
        inside &= numbers <= high
    if not inside.all():
        raise ValueError(f"{name} must be {_allowed(low, high)}, got {numbers[~inside][0]}")


def require_integer(name: str, value: Any, low: int | None, high: int | None) -> None:
    """Require an integer with low ≤ value ≤ high; floats, even whole ones, and bools are errors.

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
    """Require a number or an array of a float type, traced or not; a cast to integers would turn coefficients into 0.

    Raises:
        ValueError: if the type is another one, such as an integer type or bool.
    """
    dtype = jnp.result_type(value)
    if not jnp.issubdtype(dtype, jnp.floating):
        raise ValueError(f"{name} must have a float type, got {dtype}")


def require_one_of(name: str, value: Any, options: Sequence[str]) -> None:
    """Require one of the words in `options`.

    Raises:
        ValueError: if the value is another one.
    """
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")


def require_kind(name: str, value: Any, kind: type, example: str) -> None:
    """Require a record of type `kind`; users easily pass a word, or the function that makes the record, instead.

    Raises:
        ValueError: if the value has another type; the message shows an `example` of how to make the record.
    """
    if not isinstance(value, kind):
        raise ValueError(f"{name} must be of type {kind.__name__} (such as {example}), got {value!r}")


def nothing() -> float:
    """What stands for a number that there is none of, such as the mean of no episode: NaN.

    It is 0 while `jax_debug_nans` is on, because JAX then stops at every NaN. The host puts NaN back where it knows
    that there is no number.
    """
    return 0.0 if jax.config.jax_debug_nans else float("nan")  # pyright: ignore[reportAttributeAccessIssue]
