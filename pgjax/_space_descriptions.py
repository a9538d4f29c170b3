"""Spaces as JSON values and back, for the headers of files.

`describe(Box(0.0, 1.0, (2,)))` is `{"type": "Box", "low": 0.0, "high": 1.0, "shape": [2], "dtype": "float32"}`. A
dictionary, tuple or list of spaces is described part by part; a NamedTuple counts as a tuple.
"""

import dataclasses
import math
import operator
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from pgjax._checks import shown
from pgjax.checkpoints import DTYPES
from pgjax.types import Box, Discrete

_DTYPES = {dtype.name: dtype for dtype in DTYPES.values()}
_WIDE = {np.dtype(f"{kind}32"): np.dtype(f"{kind}64") for kind in ("int", "uint", "float")}
_INFINITIES = {"inf": math.inf, "-inf": -math.inf}


class _Field(NamedTuple):
    """One attribute of a space: as a JSON value, back from one, and in words what is allowed."""

    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    allowed: str


def _whole_number(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError
    return operator.index(value)


def _whole_numbers(value: Any) -> tuple[int, ...]:
    return tuple(_whole_number(number) for number in value)


def _encode_bound(bound: Any) -> Any:
    """One number where all are equal, else nested lists; JSON has no infinity, so that its name stands for it."""
    array = np.asarray(bound)
    if array.size and (array == array.flat[0]).all():
        array = array.flat[0]
    named = lambda x: [named(y) for y in x] if isinstance(x, list) else x if math.isfinite(x) else str(x)
    return named(array.tolist())


def _decode_bound(bound: Any) -> Any:
    if isinstance(bound, list):
        return tuple(_decode_bound(part) for part in bound)
    if isinstance(bound, bool) or not isinstance(bound, int | float | str):
        raise TypeError
    return _INFINITIES[bound] if isinstance(bound, str) else bound


_NUMBER = _Field(_whole_number, _whole_number, "an integer")
_NUMBERS = _Field(lambda x: list(_whole_numbers(x)), _whole_numbers, "a list of integers")
_BOUND = _Field(_encode_bound, _decode_bound, "a number, 'inf', '-inf', or nested lists of these")
_DTYPE = _Field(lambda dtype: np.dtype(dtype).name, _DTYPES.__getitem__, f"one of {', '.join(_DTYPES)}")

# Another space is one line here: its class, and its attributes by the names of its arguments.
_SPACES = {
    Discrete: {"n": _NUMBER, "dtype": _DTYPE},
    Box: {"low": _BOUND, "high": _BOUND, "shape": _NUMBERS, "dtype": _DTYPE},
}
_TYPES = {space.__name__: space for space in _SPACES}
_FAILURES = (TypeError, ValueError, KeyError, OverflowError)


def describe(space: Any, name: str = "space") -> Any:
    """A space, or a dictionary, tuple or list of spaces, as a JSON value.

    Raises:
        ValueError: naming `name`, for a space that pgjax does not know.
    """
    if isinstance(space, dict) and all(isinstance(key, str) for key in space):
        return {"type": "dict", "parts": {key: describe(part, f"{name}[{key!r}]") for key, part in space.items()}}
    if isinstance(space, list | tuple):
        kind = "list" if isinstance(space, list) else "tuple"
        return {"type": kind, "parts": [describe(part, f"{name}[{i}]") for i, part in enumerate(space)]}
    if type(space) not in _SPACES:
        known = ", ".join(_TYPES)
        raise ValueError(f"{name} must be {known}, or a dict, tuple or list of these, got {shown(space)}")
    found: dict[str, Any] = {"type": type(space).__name__}
    for field, (encode, _, allowed) in _SPACES[type(space)].items():
        try:
            found[field] = encode(getattr(space, field))
        except _FAILURES as error:
            raise ValueError(f"{name}.{field} must be {allowed}, got {shown(getattr(space, field))}") from error
    return found


def from_description(description: Any, name: str = "space") -> Any:
    """The space, or dictionary, tuple or list of spaces, of a JSON value that `describe` made.

    Raises:
        ValueError: naming the entry, if the value describes no space.
    """
    kind = description.get("type") if isinstance(description, dict) else None
    if kind in ("dict", "tuple", "list"):
        return _parts(kind, description.get("parts"), name)
    if not isinstance(kind, str) or kind not in _TYPES:
        known = ", ".join([*_TYPES, "dict", "tuple", "list"])
        raise ValueError(f"{name} must be an object whose type is one of {known}, got {shown(description)}")
    fields = _SPACES[_TYPES[kind]]
    if odd := sorted((description.keys() - {"type"}) ^ fields.keys()):
        raise ValueError(f"{name} must have {', '.join(fields)} and no more; wrong is {shown(odd[0])}")
    arguments = {}
    for field, (_, decode, allowed) in fields.items():
        try:
            arguments[field] = decode(description[field])
        except _FAILURES as error:
            raise ValueError(f"{name}.{field} must be {allowed}, got {shown(description[field])}") from error
    return _TYPES[kind](**arguments)


def _parts(kind: str, parts: Any, name: str) -> Any:
    wanted = dict if kind == "dict" else list
    if not isinstance(parts, wanted):
        raise ValueError(f"{name}.parts must be a JSON {'object' if wanted is dict else 'list'}, got {shown(parts)}")
    if wanted is dict:
        return {key: from_description(part, f"{name}[{shown(key)!r}]") for key, part in parts.items()}
    found = [from_description(part, f"{name}[{i}]") for i, part in enumerate(parts)]
    return found if kind == "list" else tuple(found)


def same(space: Any, other: Any) -> bool:
    """Whether two spaces are alike; 32 or 64 bits do not count, because JAX's setting alone decides between them."""
    return _canonical(space) == _canonical(other)


def _canonical(space: Any) -> Any:
    wide = lambda part: dataclasses.replace(part, dtype=_WIDE.get(np.dtype(part.dtype), np.dtype(part.dtype)))
    return jax.tree.map(wide, from_description(describe(space)), is_leaf=lambda part: type(part) in _SPACES)
