"""Spaces come back from JSON equal, and what describes no space is refused by name."""

import json
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from pgjax._space_descriptions import describe, from_description, same
from pgjax.types import Box, Discrete


class Pair(NamedTuple):
    first: object
    second: object


SPACES = [
    Discrete(5),
    Discrete(3, dtype=jnp.uint8),
    Box(0.0, 1.0, (10, 10, 4)),
    Box(-math.inf, math.inf, ()),
    Box((-1.0, -math.inf), (1.0, math.inf), (2,)),
    Box(0, 255, (3,), dtype=jnp.uint8),
    Box(0.0, 1.0, (2,), dtype=jnp.bfloat16),
    {"position": Box(0.0, 1.0, (2,)), "type": Discrete(2)},
    (Discrete(2), [Discrete(3), Box(0.0, 1.0, (2,))], {}),
]


@pytest.mark.parametrize("space", SPACES, ids=str)
def test_a_space_comes_back(space):
    written = json.dumps(describe(space), allow_nan=False)
    found = from_description(json.loads(written))
    assert same(found, space) and describe(found) == describe(space)
    assert [same(space, other) for other in SPACES].count(True) == 1
    if not isinstance(space, dict | tuple):
        assert type(found) is type(space) and found.shape == space.shape and found.dtype == np.dtype(space.dtype)


def test_bounds_are_what_they_say_however_they_are_written():
    one = Box(np.zeros(2, np.float32), jnp.ones(2), (2,))
    assert describe(one) == describe(Box(0.0, 1.0, (2,)))
    assert from_description(describe(Box([[1, 2]], 3, (1, 2)))).low == ((1, 2),)


def test_a_named_tuple_counts_as_a_tuple():
    assert same(Pair(first=Discrete(2), second=Discrete(3)), (Discrete(2), Discrete(3)))
    assert not same(Pair(first=Discrete(2), second=Discrete(3)), (Discrete(3), Discrete(2)))


def test_32_and_64_bits_are_alike_and_other_dtypes_are_not():
    assert same(Discrete(2), Discrete(2, dtype=jnp.int64)) and same(Box(0, 1, (2,)), Box(0, 1, (2,), jnp.float64))
    assert not same(Discrete(2), Discrete(2, dtype=jnp.uint8)) and not same(Box(0, 1, (2,)), Box(0, 1, (2,), jnp.int32))


class Foreign:
    n, start, dtype, shape = 2, 1, np.dtype(np.int64), ()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Foreign(), "space must be Discrete, Box, or a dict, tuple or list of these, got <"),
        ({"x": 5}, r"space\['x'\] must be Discrete, Box"),
        ({1: Discrete(2)}, "space must be Discrete, Box"),
        ((Discrete(2), None), r"space\[1\] must be Discrete, Box"),
        (Discrete(2.5), r"space\.n must be an integer, got 2\.5"),
        (Box(0.0, 1.0, (2.5,)), r"space\.shape must be a list of integers"),
        (Box("low", 1.0, (2,)), r"space\.low must be a number, 'inf'"),
    ],
)
def test_what_is_no_space_is_not_described(space, message):
    with pytest.raises(ValueError, match=message):
        describe(space)


BOX = {"type": "Box", "low": 0, "high": 1, "shape": [2], "dtype": "float32"}


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (None, "space must be an object whose type is one of Discrete, Box, dict, tuple, list, got None"),
        ({"type": "os:system"}, "space must be an object whose type is one of"),
        ({"type": {}}, "space must be an object whose type is one of"),
        ({"type": "dict", "parts": []}, r"space\.parts must be a JSON object, got \[\]"),
        ({"type": "tuple", "parts": {}}, r"space\.parts must be a JSON list, got \{\}"),
        ({"type": "tuple"}, r"space\.parts must be a JSON list, got None"),
        ({"type": "dict", "parts": {"x": 1}}, r"space\['x'\] must be an object"),
        ({"type": "tuple", "parts": [BOX, 1]}, r"space\[1\] must be an object"),
        (BOX | {"extra": 1}, "space must have low, high, shape, dtype and no more; wrong is extra"),
        (BOX | {"dtype": "object"}, r"space\.dtype must be one of bool, int8"),
        (BOX | {"dtype": []}, r"space\.dtype must be one of bool, int8"),
        (BOX | {"shape": [True]}, r"space\.shape must be a list of integers, got \[True\]"),
        (BOX | {"shape": 2}, r"space\.shape must be a list of integers, got 2"),
        (BOX | {"low": "nan"}, r"space\.low must be a number, 'inf', '-inf'"),
        (BOX | {"high": [0, None]}, r"space\.high must be a number"),
        ({"type": "Discrete", "n": True, "dtype": "int32"}, r"space\.n must be an integer, got True"),
        ({"type": "Discrete", "n": math.inf, "dtype": "int32"}, r"space\.n must be an integer, got inf"),
    ],
)
def test_what_describes_no_space_is_refused(description, message):
    with pytest.raises(ValueError, match=message):
        from_description(description)
