"""Spaces: which observations and which actions there are.

A space is a `Discrete`, `Box`, `MultiDiscrete` or `Slate`, or a dict, tuple, list or NamedTuple of spaces, nested at
will; an element of such a tree is a tree of the same structure. Every one of the four has `shape`, `dtype`, `bounds`,
`sample(key)` and `contains(x)`; the functions `sample`, `contains` and `leaves` take any tree of them.
"""

from pgjax.spaces._elements import all_different
from pgjax.spaces.foreign import as_space
from pgjax.spaces.kinds import Box, Discrete, MultiDiscrete, Slate
from pgjax.spaces.trees import Space, contains, is_space, leaves, sample

__all__ = [
    "Box",
    "Discrete",
    "MultiDiscrete",
    "Slate",
    "Space",
    "all_different",
    "as_space",
    "contains",
    "is_space",
    "leaves",
    "sample",
]
