"""Policies and whole training states as safetensors files: plain arrays and a JSON header, no code, no pickle.

Reading a file gives back exactly what was saved, or raises an error. A digest covers the arrays and the header, so a
flipped bit is found; a leaf of another dtype, shape or random-number generator is refused by its name, and so is
another structure. What a file cannot give back is refused when it is saved.
`pgjax.writing` writes the files, so a crash never damages an older file.
"""

import hashlib
import json
import os
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import writing
from pgjax._checks import is_typed_key, shown
from pgjax.saving._leaves import named_leaves, require_same_layout
from pgjax.types import PyTree

_HEADER = "pgjax"
_FORMAT = 2
# Files of format 1 do not name the generators of their typed keys; they used JAX's default generator.
_GENERATOR_OF_FORMAT_1 = "threefry2x32"

# The dtypes that a file gives back exactly, by the names that safetensors uses.
DTYPES = {
    "BOOL": np.dtype(bool),
    "I8": np.dtype(np.int8),
    "I16": np.dtype(np.int16),
    "I32": np.dtype(np.int32),
    "I64": np.dtype(np.int64),
    "U8": np.dtype(np.uint8),
    "U16": np.dtype(np.uint16),
    "U32": np.dtype(np.uint32),
    "U64": np.dtype(np.uint64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(jnp.bfloat16),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
}


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


def _generator(name: str, key: jax.Array) -> str:
    found = jax.random.key_impl(key)
    if not isinstance(found, str):
        raise ValueError(f"tree {name} must be keys of a generator that JAX knows by name, got {found}")
    return found


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


def digest(arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> str:
    """SHA-256 of named arrays and JSON `metadata`, as hexadecimal digits; the order of the names does not matter.

    It covers names, dtypes, shapes and bytes; the bytes are those in row-major order, in the array's own byte order.
    """
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        found.update(arrays[name].tobytes())
    return found.hexdigest()


def as_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as a reader of the file gets them: tuples become lists.

    Raises:
        ValueError: if they are not a JSON object, or hold NaN or an infinite number.
    """
    try:
        found = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata must be JSON with finite numbers, got {shown(metadata)}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"metadata must be a JSON object, got {shown(metadata)}")
    return found


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
    from safetensors import SafetensorError
    from safetensors.numpy import save as serialise

    leaves, _ = named_leaves(tree)
    arrays = {name: _as_array(name, leaf) for name, leaf in leaves.items()}
    covered = {
        "format": _FORMAT,
        "generators": {name: _generator(name, leaf) for name, leaf in leaves.items() if is_typed_key(leaf)},
        "metadata": as_json(metadata or {}),
    }
    header = covered | {"sha256": digest(arrays, covered)}
    try:
        content = serialise(arrays, {_HEADER: json.dumps(header)})
    except SafetensorError as error:
        raise ValueError(f"tree cannot be written as a safetensors file: {error}") from error
    writing.replace_file(path, content)


def _opened(path: pathlib.Path) -> tuple[dict[str, np.ndarray], str]:
    """The arrays of a safetensors file, and the text of pgjax's header in it."""
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise ValueError(f"path {path} is not a file")
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_HEADER)
            if header is None:
                raise ValueError(f"path {path} was not written by pgjax.saving")
            arrays = {}
            for name in file.keys():  # noqa: SIM118
                if (dtype := file.get_slice(name).get_dtype()) not in DTYPES:
                    raise ValueError(f"path {path} holds {shown(name)} of {shown(dtype)}, which pgjax does not read")
                arrays[name] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise ValueError(f"path {path} is not a whole safetensors file: {shown(str(error))}") from error
    return arrays, header


def _parsed(path: pathlib.Path, text: str) -> dict[str, Any]:
    """The header with its types checked; format 1 has neither `format` nor `generators`."""
    try:
        header = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"path {path} is damaged: its header is not JSON that can be read: {error}") from error
    if not isinstance(header, dict):
        raise ValueError(f"path {path} is damaged: its header must be an object, got {shown(header)}")
    kinds = {"metadata": (dict, "an object"), "sha256": (str, "a string")}
    if "format" in header:
        kinds = {"format": (int, "an integer"), "generators": (dict, "an object")} | kinds
    for key, (kind, name) in kinds.items():
        if not isinstance(header.get(key), kind):
            found = shown(header.get(key))
            raise ValueError(f"path {path} is damaged: {key!r} in its header must be {name}, got {found}")
    if header.get("format", 1) not in (1, _FORMAT):
        raise ValueError(f"path {path} is of format {header['format']}, and this pgjax reads formats 1 and {_FORMAT}")
    return header


def read(path: str | os.PathLike) -> Checkpoint:
    """Read a file and check that it is whole and that the digest matches its arrays and its header.

    Raises:
        ValueError: if the file is missing, cut short, damaged, of a newer format, or was not written by pgjax.
    """
    path = pathlib.Path(path)
    arrays, text = _opened(path)
    header = _parsed(path, text)
    covered = {key: value for key, value in header.items() if key != "sha256"}
    if digest(arrays, covered if "format" in header else header["metadata"]) != header["sha256"]:
        raise ValueError(f"path {path} is damaged: its digest does not match what it holds")
    return Checkpoint(arrays=arrays, metadata=header["metadata"], generators=header.get("generators"), path=path)


def metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The JSON metadata of a file, which is checked as a whole.

    Raises:
        ValueError: if the file is missing, cut short, damaged, or was not written by pgjax.
    """
    return read(path).metadata


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
