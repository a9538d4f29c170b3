"""Spaces as JSON values, for the headers of files.

`describe(Box(0.0, 1.0, (2,)))` is `{"type": "Box", "low": 0.0, "high": 1.0, "shape": [2], "dtype": "float32"}`: the
attributes of the space by their names. A dictionary, tuple or list of spaces is described part by part; a NamedTuple
counts as a tuple. Descriptions are only compared and never turned into spaces again, so a file cannot make the reader
allocate arrays.
"""

import dataclasses
import json
import math
import re
from typing import Any

import numpy as np

from pgjax._checks import shown
from pgjax.spaces import is_space

_OF_32_BITS = re.compile(r'"(u?int|float)32"')


def describe(space: Any, name: str = "space") -> Any:
    """A space, or a dictionary, tuple or list of spaces, as a JSON value.

    Raises:
        ValueError: for a value that is not a space of `pgjax.spaces`, or a key that is not a string; the error names
            `name`.
    """
    if is_space(space):
        fields = {field.name: _as_json(getattr(space, field.name)) for field in dataclasses.fields(space)}
        return {"type": type(space).__name__, **fields}
    if isinstance(space, dict) and all(isinstance(key, str) for key in space):
        return {"type": "dict", "parts": {key: describe(part, f"{name}[{key!r}]") for key, part in space.items()}}
    if isinstance(space, list | tuple):
        kind = "list" if isinstance(space, list) else "tuple"
        return {"type": kind, "parts": [describe(part, f"{name}[{i}]") for i, part in enumerate(space)]}
    raise ValueError(
        f"{name} must be a space of pgjax.spaces, or a dict with strings as keys, a tuple or a list of spaces, "
        f"got {shown(space)}"
    )


def _as_json(value: Any) -> Any:
    """An attribute of a space as JSON; JSON has no infinite numbers, so a string represents them."""
    if isinstance(value, np.dtype):
        return value.name
    if isinstance(value, tuple):
        return [_as_json(part) for part in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def alike(description: Any, other: Any) -> bool:
    """Whether two descriptions are equal, apart from 32 or 64 bits, which depend on a setting of JAX."""
    text = lambda value: _OF_32_BITS.sub(r'"\g<1>64"', json.dumps(value, sort_keys=True))
    return text(description) == text(other)
