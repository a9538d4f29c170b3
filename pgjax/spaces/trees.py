"""Trees of spaces: one space, or a dict, tuple, list or NamedTuple whose parts are spaces or again such trees."""

from typing import Any

import jax
import jax.numpy as jnp

from pgjax._doors import readable
from pgjax._records import PyTree
from pgjax.spaces.kinds import Box, Discrete, MultiDiscrete, Slate

Space = Discrete | Box | MultiDiscrete | Slate


@readable
def is_space(node: Any) -> bool:
    """Whether a node is one of the four spaces, which are the leaves of trees of spaces."""
    return isinstance(node, Space)


@readable
def leaves(space: PyTree, name: str = "space") -> list[tuple[str, Space]]:
    """The leaves `(path, space)` of a tree of spaces, in the order of `jax.tree.leaves`; a lone space has the path "".

    Args:
        space: the tree.
        name: the name of the tree in an error.

    Raises:
        ValueError: if the tree has no leaves, or a leaf is not a space.
    """
    found = jax.tree_util.tree_leaves_with_path(space, is_leaf=is_space)
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in found]
    for path, leaf in named:
        if not is_space(leaf):
            raise ValueError(f"{name}{path} must be a Discrete, Box, MultiDiscrete or Slate of pgjax, got {leaf!r}")
    if not named:
        raise ValueError(f"{name} must hold at least one space, got {space!r}")
    return named


@readable
def sample(space: PyTree, key: jax.Array) -> PyTree:
    """A random element of a tree of spaces; its leaves are independent of each other."""
    if is_space(space):
        return space.sample(key)
    parts = [leaf for _, leaf in leaves(space)]
    drawn = [leaf.sample(leaf_key) for leaf, leaf_key in zip(parts, jax.random.split(key, len(parts)))]
    return jax.tree.unflatten(jax.tree.structure(space, is_leaf=is_space), drawn)


@readable
def contains(space: PyTree, x: PyTree) -> jax.Array:
    """Whether x is an element of a tree of spaces: bool `[]`; false for another structure, shape or kind of number."""
    structure = jax.tree.structure(space, is_leaf=is_space)
    if structure != jax.tree.structure(x):
        return jnp.zeros((), bool)
    inside = [leaf.contains(part) for (_, leaf), part in zip(leaves(space), jax.tree.leaves(x))]
    return jnp.all(jnp.stack(inside))
