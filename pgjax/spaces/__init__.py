"""Spaces: the sets of possible observations and actions.

A space is a `Discrete`, `Box`, `MultiDiscrete` or `Slate`, or a tree of spaces: a dict, tuple, list or NamedTuple whose
parts are spaces or again such trees. An element of a tree of spaces is a tree of the same structure. The four spaces
have `shape`, `dtype`, `bounds`, `sample(key)` and `contains(x)`. The functions `sample`, `contains` and `leaves` take
any tree of spaces.
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
