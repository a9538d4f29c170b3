"""Spaces: what lies in them, what they draw, and what becomes of other libraries' spaces."""

from typing import NamedTuple

import gymnasium.spaces
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import spaces as gymnax_spaces

from pgjax import spaces, types
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate

INF = float("inf")
COUNT = 4000


def draw(space, count=COUNT, seed=0):
    def one(key):
        x = spaces.sample(space, key)
        return x, spaces.contains(space, x)

    keys = jax.random.split(jax.random.key(seed), count)
    return jax.jit(jax.vmap(one))(keys)


# Bounds whose draws left the box, or never reached its ends: (space, what must be seen of the draws).
BOXES = {
    "above": (Box(5.0, INF, (2,)), lambda x: (x > 5).all() and x.max() > 8),
    "below": (Box(-INF, 3.0, (2,)), lambda x: (x < 3).all() and x.min() < 0),
    "unbounded": (Box(-INF, INF, (2,)), lambda x: abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05),
    "huge": (Box(-3.4e38, 3.4e38, (2,)), lambda x: np.isfinite(x).all() and np.abs(x).max() > 3.3e38),
    "each its own": (Box((5.0, -INF, 0.0), (INF, INF, 1.0), (3,)), lambda x: (x[:, 0] > 5).all() and x[:, 1].min() < 0),
    "one point": (Box(0.1, 0.1, (1,)), lambda x: (x == np.float32(0.1)).all()),
    "integers": (Box(1, 3, (2,), np.int32), lambda x: set(x.ravel()) == {1, 2, 3}),
    "integers, each its own": (Box((0, -2), (1, -2), (2,), np.int32), lambda x: set(x[:, 0]) == {0, 1}),
    "uint8": (Box(0, 255, (2,), np.uint8), lambda x: set(x.ravel()) == set(range(256))),
    "every int32": (Box(-(2**31), 2**31 - 1, (2,), np.int32), lambda x: x.min() < -2e9 and x.max() > 2e9),
    "half of int32": (Box(0, INF, (2,), np.int32), lambda x: x.min() < 1e6 and x.max() > 2.1e9),
    "bool": (Box(0, 1, (2,), bool), lambda x: set(x.ravel()) == {False, True}),
    "half precision": (Box(0.1, 0.2, (2,), np.float16), lambda x: len(set(x.ravel())) > 500),
}


@pytest.mark.parametrize("name", BOXES)
def test_a_box_draws_inside_its_bounds_and_reaches_them(name):
    space, seen = BOXES[name]
    x, inside = map(np.asarray, draw(space))
    assert inside.all() and x.shape == (COUNT, *space.shape) and x.dtype == space.dtype
    assert seen(x)


def test_the_draws_follow_their_distributions():
    """Means of COUNT draws: uniform ½ and exponential 1; each bound is |z| < 4.5, and the other's mean is beyond it."""
    x = np.asarray(draw(Box((0.0, 5.0), (1.0, INF), (2,)))[0], np.float64) - [0.0, 5.0]
    z = (x.mean(axis=0) - [0.5, 1.0]) / (np.array([12**-0.5, 1.0]) / COUNT**0.5)
    assert np.abs(z).max() < 4.5
    assert abs(x[:, 1].mean() - 0.5) * COUNT**0.5 > 4.5


def test_x64_draws_what_64_bits_hold():
    with jax.enable_x64(True):
        x, inside = draw(Box(-(2**63), 2**63 - 1, (2,), np.int64))
        assert x.dtype == jnp.int64 and inside.all() and np.asarray(x).max() > 2**62
        y, inside = draw(Box(0.0, 1.0, (2,), np.float64))
        assert y.dtype == jnp.float64 and inside.all()


def test_a_slate_is_uniform_over_ordered_selections():
    """χ² with 11 degrees of freedom exceeds 37 with probability 10⁻⁴; drawing with replacement repeats items."""
    space = Slate(4, 2)
    x, inside = draw(space, 12_000)
    assert inside.all()
    counts = np.bincount(np.asarray(x) @ [4, 1], minlength=16).reshape(4, 4)
    off = counts[~np.eye(4, dtype=bool)]
    assert np.diag(counts).sum() == 0 and np.sum((off - 1000) ** 2 / 1000) < 37
    with_replacement = draw(MultiDiscrete((4, 4)))[0]
    assert not jax.vmap(space.contains)(with_replacement).all()


def test_choices_of_several_sizes():
    x = np.asarray(draw(MultiDiscrete((2, 3, 5)))[0])
    assert [set(column) for column in x.T] == [{0, 1}, {0, 1, 2}, {0, 1, 2, 3, 4}]


@pytest.mark.parametrize(
    ("space", "element", "others"),
    [
        (Discrete(3), 2, [3, -1, 1.0, [1]]),
        (Box(-1.0, 0.1, (2,)), [0.1, -1.0], [[0.2, 0.0], [0.0], 0.0]),
        (Box(0, 3, (2,), np.int32), [0, 3], [[0, 4], [0.0, 1.0]]),
        (MultiDiscrete((2, 3)), [1, 2], [[2, 1], [1, 2, 0]]),
        (Slate(4, 2), [3, 0], [[1, 1], [0, 4], [0]]),
        ({"a": Discrete(2), "b": (Slate(3, 2),)}, {"a": 1, "b": ([2, 0],)}, [{"a": 1}, {"a": 1, "b": ([2, 2],)}]),
    ],
)
def test_membership(space, element, others):
    arrays = lambda x: jax.tree.map(jnp.asarray, x, is_leaf=lambda y: isinstance(y, list))
    assert spaces.contains(space, arrays(element))
    assert not any(spaces.contains(space, arrays(other)) for other in others)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Discrete(0), "Discrete: n must be at least 1, got 0"),
        (lambda: Discrete(2.0), "Discrete: n must be an integer at least 1, got 2.0"),
        (lambda: Discrete(300, np.uint8), "Discrete: dtype must be an integer type that holds 299, got uint8"),
        (lambda: Box(1.0, -1.0, (1,)), r"low must be at most high.*got low=1.0, high=-1.0"),
        (lambda: Box(float("nan"), 1.0, (1,)), "Box: low must not be NaN"),
        (lambda: Box(INF, INF, (1,)), "with a number between them"),
        (lambda: Box(0, 300, (1,), np.uint8), r"Box: high must be whole numbers in \[0, 255\] of uint8, got \[300\]"),
        (lambda: Box(0.5, 3, (1,), np.int32), "Box: low must be whole numbers"),
        (lambda: Box((0.0, 1.0), 3.0, (3,)), r"Box: low must be numbers that broadcast to \(3,\)"),
        (lambda: Box(0.0, 1.0, (-1,)), "Box: shape must be at least 0, got -1"),
        (lambda: Box(0.0, 1.0, (1,), "complex64"), "Box: dtype must be a float type"),
        (lambda: MultiDiscrete(3), "MultiDiscrete: sizes must be a sequence of at least one integer, got 3"),
        (lambda: MultiDiscrete(()), r"MultiDiscrete: sizes must be a sequence of at least one integer, got \(\)"),
        (lambda: MultiDiscrete((2, 0)), "MultiDiscrete: sizes must be at least 1, got 0"),
        (lambda: Slate(3, 4), r"Slate: k must be in \[1, 3\], got 4"),
        (lambda: Slate(3, 0), r"Slate: k must be in \[1, 3\], got 0"),
        (lambda: spaces.leaves({"a": Discrete(2), "b": "x"}), r"space\['b'\] must be a Discrete.*got 'x'"),
        (lambda: spaces.leaves({}, "action_space"), "action_space must hold at least one space"),
    ],
)
def test_what_is_no_space_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_spaces_are_compared_hashed_and_printed():
    assert Box(np.zeros(2), (1.0, 1.0), (2,)) == Box(0.0, 1.0, (2,)) and len({Discrete(2), Discrete(2)}) == 1
    assert types.Discrete is Discrete and types.Box is Box
    texts = {
        "Discrete(3)": Discrete(3),
        "Discrete(3, dtype=uint8)": Discrete(3, np.uint8),
        "Box(-1.0, 1.0, shape=(2,))": Box(-1.0, 1.0, (2,)),
        "Box((0, 1), 255, shape=(2,), dtype=uint8)": Box((0, 1), 255, (2,), np.uint8),
        "Box(0.0 … 99.0, inf, shape=(100,))": Box(np.arange(100.0), INF, (100,)),
        "MultiDiscrete((2, 3))": MultiDiscrete((2, 3)),
        "Slate(10, 3)": Slate(10, 3),
    }
    assert {repr(space): space for space in texts.values()} == texts


class Pair(NamedTuple):
    left: object
    right: object


FOREIGN = {
    "gymnasium Discrete": (gymnasium.spaces.Discrete(3), Discrete(3)),
    "gymnasium Box": (gymnasium.spaces.Box(-INF, 1.0, (2,)), Box(-INF, 1.0, (2,))),
    "pixels": (gymnasium.spaces.Box(0, 255, (4, 4, 3), np.uint8), Box(0, 255, (4, 4, 3), np.uint8)),
    "integers": (gymnasium.spaces.Box(1, 9, (2,), np.int64), Box(1, 9, (2,), np.int32)),
    "gymnasium MultiDiscrete": (gymnasium.spaces.MultiDiscrete([2, 3]), MultiDiscrete((2, 3))),
    "bits": (gymnasium.spaces.MultiBinary(2), MultiDiscrete((2, 2), np.int8)),
    "gymnasium Dict": (
        gymnasium.spaces.Dict(a=gymnasium.spaces.Discrete(2), b=gymnasium.spaces.Tuple([gymnasium.spaces.Discrete(4)])),
        {"a": Discrete(2), "b": (Discrete(4),)},
    ),
    "gymnax Discrete": (gymnax_spaces.Discrete(4), Discrete(4)),
    "gymnax's infinity": (gymnax_spaces.Box(-np.finfo(np.float32).max, 1.0, (2,)), Box(-INF, 1.0, (2,))),
    "gymnax Tuple": (gymnax_spaces.Tuple([gymnax_spaces.Discrete(2)]), (Discrete(2),)),
    "ours": (Pair(Slate(3, 2), [Discrete(2)]), Pair(Slate(3, 2), [Discrete(2)])),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_a_foreign_space_becomes_ours(name):
    foreign, ours = FOREIGN[name]
    assert spaces.as_space(foreign) == ours


@pytest.mark.parametrize(
    ("foreign", "message"),
    [
        (gymnasium.spaces.Discrete(2, start=1), r"must start at 0, got Discrete\(2, start=1\)"),
        (gymnasium.spaces.MultiDiscrete([2, 3], start=[0, 1]), "must start at 0"),
        (gymnasium.spaces.MultiBinary((2, 2)), "must have one axis"),
        (gymnasium.spaces.Text(3), "must be one of Discrete, Box, .*, got Text"),
        (None, "got NoneType: None"),
    ],
)
def test_a_foreign_space_without_equal_is_refused_by_name(foreign, message):
    with pytest.raises(ValueError, match=message):
        spaces.as_space(foreign)
