"""The leaves of a pytree by their paths, with checks of their dtypes, their shapes and their finite values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_typed_key, shown
from pgjax._records import PyTree


def named_leaves(tree: PyTree) -> tuple[dict[str, Any], Any]:
    """The leaves by their paths, and the structure of the tree; a Python number becomes a JAX number.

    Raises:
        ValueError: if the paths of two leaves are written in the same way, or a Python integer is too large for JAX.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(tree)
    named = [(jax.tree_util.keystr(path), leaf) for path, leaf in leaves]
    found = {name: _with_dtype(name, leaf) for name, leaf in named}
    if len(found) < len(named):
        raise ValueError("tree must have a different path for each leaf, got two leaves whose paths read alike")
    return found, structure


def _with_dtype(name: str, leaf: Any) -> Any:
    if type(leaf) not in (bool, int, float, complex):
        return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)
    try:
        return jnp.asarray(leaf)
    except OverflowError as error:
        raise ValueError(f"tree {name} must be a number that fits JAX's integers, got {leaf}") from error


def named_words(tree: PyTree) -> dict[str, jax.Array]:
    """The leaves by their paths; typed keys become their raw words, which are integers."""
    named = named_leaves(tree)[0]
    return {name: jax.random.key_data(leaf) if is_typed_key(leaf) else leaf for name, leaf in named.items()}


def generator(name: str, key: jax.Array) -> str:
    """The name of the random-number generator of typed keys.

    Raises:
        ValueError: if JAX does not know it by a name.
    """
    found = jax.random.key_impl(key)
    if not isinstance(found, str):
        raise ValueError(f"tree {name} must be keys of a generator that JAX knows by name, got {found}")
    return found


def layout(leaf: Any) -> tuple[Any, tuple[int, ...]]:
    """`(dtype, shape)` of a leaf, without the byte order; the dtype of typed keys names their generator."""
    dtype = leaf.dtype if is_typed_key(leaf) else np.dtype(leaf.dtype).newbyteorder("=")
    return dtype, tuple(leaf.shape)


def require_same_layout(what: str, found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """Check that named leaves have the same names, dtypes and shapes; their values do not matter.

    Raises:
        ValueError: if they differ; the error names `what` and the first leaf that differs.
    """
    if odd := sorted(found.keys() ^ wanted.keys()):
        how = "lacks" if odd[0] in wanted else "has, unasked,"
        raise ValueError(f"{what} holds another structure: it {how} {shown(odd[0]) or 'a single array'}")
    described = lambda leaf: f"{layout(leaf)[0]}{list(layout(leaf)[1])}"
    for name, leaf in wanted.items():
        if layout(found[name]) != layout(leaf):
            of = f"{name} of " if name else ""
            raise ValueError(f"{what} holds {of}{described(found[name])}, wanted {described(leaf)}")


def require_finite(what: str, tree: PyTree) -> None:
    """Check that no number of a pytree is NaN or infinite.

    Raises:
        ValueError: if one is; the error names `what`, the first leaf that has such numbers, and how many it has.
    """
    for name, leaf in named_leaves(tree)[0].items():
        if not is_typed_key(leaf) and (bad := ~np.isfinite(np.asarray(leaf))).any():
            raise ValueError(f"{what} must be finite, got {bad.sum()} NaN or infinite numbers of {bad.size} in {name}")
