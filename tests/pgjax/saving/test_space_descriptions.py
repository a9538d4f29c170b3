"""Every space has a JSON description of its own, and what is no space has none."""

import json
import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.saving._space_descriptions import alike, describe
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate


class Pair(NamedTuple):
    first: object
    second: object


DESCRIBED = [
    (Discrete(5), {"type": "Discrete", "n": 5, "dtype": "int32"}),
    (Discrete(5, dtype=jnp.uint8), {"type": "Discrete", "n": 5, "dtype": "uint8"}),
    (MultiDiscrete((2, 3)), {"type": "MultiDiscrete", "sizes": [2, 3], "dtype": "int32"}),
    (Slate(5, 2), {"type": "Slate", "n": 5, "k": 2, "dtype": "int32"}),
    (Box(0.0, 1.0, (2, 3)), {"type": "Box", "low": 0.0, "high": 1.0, "shape": [2, 3], "dtype": "float32"}),
    (Box(-math.inf, 1.0, ()), {"type": "Box", "low": "-inf", "high": 1.0, "shape": [], "dtype": "float32"}),
    (
        Box((-1.0, 0.0), (1.0, math.inf), (2,), dtype=jnp.bfloat16),
        {"type": "Box", "low": [-1.0, 0.0], "high": [1.0, "inf"], "shape": [2], "dtype": "bfloat16"},
    ),
    (Box(0, 255, (3,), dtype=jnp.uint8), {"type": "Box", "low": 0, "high": 255, "shape": [3], "dtype": "uint8"}),
    (
        {"type": Discrete(2), "dtype": [Discrete(3)]},
        {
            "type": "dict",
            "parts": {
                "type": {"type": "Discrete", "n": 2, "dtype": "int32"},
                "dtype": {"type": "list", "parts": [{"type": "Discrete", "n": 3, "dtype": "int32"}]},
            },
        },
    ),
    ((Discrete(2),), {"type": "tuple", "parts": [{"type": "Discrete", "n": 2, "dtype": "int32"}]}),
]


@pytest.mark.parametrize(("space", "description"), DESCRIBED, ids=str)
def test_the_attributes_of_a_space_are_its_description(space, description):
    found = json.loads(json.dumps(describe(space), allow_nan=False))
    assert found == description and alike(found, description)
    assert [alike(found, other) for _, other in DESCRIBED].count(True) == 1


def test_bounds_are_what_they_say_however_they_are_written():
    assert describe(Box(np.zeros(2, np.float32), jnp.ones(2), (2,))) == describe(Box(0.0, 1.0, (2,)))


def test_a_named_tuple_counts_as_a_tuple():
    assert describe(Pair(first=Discrete(2), second=Discrete(3))) == describe((Discrete(2), Discrete(3)))


def test_32_and_64_bits_are_alike_and_other_dtypes_are_not():
    of = lambda dtype: describe((Discrete(2, dtype=dtype), Box(0, 1, (2,), dtype)))
    assert alike(of(jnp.int32), of(jnp.int64)) and not alike(of(jnp.int32), of(jnp.uint32))
    assert not alike(of(jnp.int32), of(jnp.int16))
    box = lambda dtype: describe(Box(0, 1, (2,), dtype))
    assert alike(box(jnp.float32), box(jnp.float64)) and not alike(box(jnp.float32), box(jnp.float16))


class Foreign:
    n, start, dtype, shape = 2, 1, np.dtype(np.int64), ()


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (Foreign(), r"space must be a space of pgjax\.spaces, or a dict .*, got <"),
        (None, "space must be .*, got None"),
        ({"x": 5}, r"space\['x'\] must be .*, got 5"),
        ({1: Discrete(2)}, r"space must be .* strings as keys, .*, got \{1: "),
        ((Discrete(2), None), r"space\[1\] must be .*, got None"),
    ],
)
def test_what_is_no_space_is_not_described(space, message):
    with pytest.raises(ValueError, match=message):
        describe(space)


@pytest.mark.parametrize("hostile", [None, 5, "int32", {"type": {}}, [[]], {"type": "Discrete", "n": math.inf}])
def test_nothing_else_is_alike(hostile):
    assert alike(hostile, hostile) and not any(alike(hostile, description) for _, description in DESCRIBED)


def test_a_deep_description_is_compared_without_recursion_of_our_own():
    deep = json.loads("[" * 900 + "]" * 900)
    assert alike(deep, deep) and not alike(deep, describe(Discrete(2)))
