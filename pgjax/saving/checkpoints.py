"""Policies and whole training states as safetensors files: plain arrays and a JSON header, no code, no pickle.

Reading a file gives back exactly what was saved, or raises an error. A digest covers the arrays and the header, so a
flipped bit is found; a leaf of another dtype, shape or random-number generator is refused by its name, and so is
another structure. What a file cannot give back is refused when it is saved.
`pgjax.writing` writes the files, so a crash never damages an older file.
"""

import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_typed_key, shown
from pgjax._doors import readable
from pgjax._leaves import generator, named_leaves, require_same_layout
from pgjax._sealed import DTYPES, read_checked, write
from pgjax.types import PyTree

# Files of format 1 do not name the generators of their typed keys; they used JAX's default generator.
_GENERATOR_OF_FORMAT_1 = "threefry2x32"


class Checkpoint(NamedTuple):
    """A file that was read whole and is undamaged.

    Attributes:
        arrays: the leaves by their paths in the tree; a typed key as its raw words.
        metadata: the JSON metadata.
        generators: for each typed key, by its path, the random-number generator that it belongs to; None in a file of
            format 1, which does not name it.
        path: where the file was.
    """

    arrays: dict[str, np.ndarray]
    metadata: dict[str, Any]
    generators: dict[str, str] | None
    path: pathlib.Path

    def restore(self, like: PyTree) -> PyTree:
        """The pytree, in the structure of `like`: see `pgjax.saving.checkpoints.restore`."""
        wanted, structure = named_leaves(like)
        generators = self.generators
        if generators is None:
            generators = {name: _GENERATOR_OF_FORMAT_1 for name, leaf in wanted.items() if is_typed_key(leaf)}
        keys = {name: _keys(self, name, generators[name]) for name in self.arrays if name in generators}
        found = self.arrays | keys
        require_same_layout(f"path {self.path}", found, wanted)
        return jax.tree.unflatten(structure, [_on_device(self, name, found[name]) for name in wanted])


def _as_array(name: str, leaf: Any) -> np.ndarray:
    """A leaf as a file holds it: row-major, in the byte order of this machine; a typed key as its raw words."""
    array = np.asarray(jax.random.key_data(leaf) if is_typed_key(leaf) else leaf, order="C")
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype not in DTYPES.values():
        allowed = ", ".join(str(dtype) for dtype in DTYPES.values())
        raise ValueError(f"tree {name} must be an array of {allowed}, got {array.dtype}, which a file cannot give back")
    return array


def _keys(checkpoint: Checkpoint, name: str, generator: str) -> np.ndarray | jax.Array:
    """The typed keys of these raw words; words of another dtype stay arrays, which `restore` then refuses."""
    words = checkpoint.arrays[name]
    if words.dtype != np.uint32:
        return words
    try:
        return jax.random.wrap_key_data(jnp.asarray(words), impl=str(generator))
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"path {checkpoint.path} holds {name} of {words.dtype}{list(words.shape)}, which are no keys of the "
            f"generator {shown(generator)}"
        ) from error


def _on_device(checkpoint: Checkpoint, name: str, leaf: np.ndarray | jax.Array) -> jax.Array:
    if isinstance(leaf, jax.Array) and is_typed_key(leaf):
        return leaf
    if (narrow := jax.dtypes.canonicalize_dtype(leaf.dtype)) != leaf.dtype:
        raise ValueError(
            f"path {checkpoint.path} holds {name} of {leaf.dtype}, which JAX narrows to {narrow} while its 64-bit "
            "numbers are off: turn them on with JAX_ENABLE_X64=1 or jax.config.update('jax_enable_x64', True)"
        )
    return jnp.asarray(leaf)


@readable
def save(path: str | os.PathLike, tree: PyTree, metadata: dict[str, Any] | None = None) -> None:
    """Write a pytree of arrays (typed keys included) and JSON `metadata` to one file, atomically.

    A Python number is saved as the array that JAX makes of it, and an array in a foreign byte order is saved in this
    machine's byte order.

    Raises:
        ValueError: if a leaf has a dtype that a file cannot give back (float8, complex128, objects), a typed key
            belongs to a generator that JAX does not know by name, or the metadata are not JSON; nothing is written.
        OSError: if the file cannot be written; an older file at `path` is then untouched.

    Example:
        >>> import pathlib, tempfile
        >>> import jax, numpy as np
        >>> from pgjax.saving import checkpoints
        >>> state = {"theta": np.array([1.0, 2.0], np.float32), "key": jax.random.key(7)}
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "state.safetensors"
        ...     checkpoints.save(path, state, {"update": 3})
        ...     found, metadata = checkpoints.restore(path, like=state), checkpoints.metadata(path)
        >>> found["theta"].tolist(), metadata
        ([1.0, 2.0], {'update': 3})
    """
    leaves, _ = named_leaves(tree)
    arrays = {name: _as_array(name, leaf) for name, leaf in leaves.items()}
    generators = {name: generator(name, leaf) for name, leaf in leaves.items() if is_typed_key(leaf)}
    write(path, arrays, generators=generators, metadata=metadata or {})


@readable
def read(path: str | os.PathLike) -> Checkpoint:
    """Read a file and check that it is whole and that the digest matches its arrays and its header.

    Raises:
        ValueError: if the file is missing, cut short, damaged, of a newer format, or was not written by pgjax.
    """
    path = pathlib.Path(path)
    arrays, header = read_checked(path)
    return Checkpoint(arrays=arrays, metadata=header["metadata"], generators=header.get("generators"), path=path)


@readable
def metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The JSON metadata of a file, which is checked as a whole.

    Raises:
        ValueError: if the file is missing, cut short, damaged, or was not written by pgjax.
    """
    return read(path).metadata


@readable
def restore(path: str | os.PathLike, like: PyTree) -> PyTree:
    """The pytree of a file, in the structure of `like` (arrays, or `jax.ShapeDtypeStruct` from `jax.eval_shape`).

    Nothing is cast: each leaf in the file must have the dtype of the leaf in `like`, and its typed keys must belong to
    the same random-number generator.

    Raises:
        ValueError: if the file is missing, cut short or damaged; if a leaf is missing, left over, or of another shape
            or dtype, where the error names the first such leaf; or if a leaf has 64 bits while JAX's 64-bit numbers are
            off.
    """
    return read(path).restore(like)
