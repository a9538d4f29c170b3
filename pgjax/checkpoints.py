"""Policies and whole training states as safetensors files: plain arrays and a JSON header, no code, no pickle.

Arrays and metadata are covered by a digest, so a flipped bit is refused on reading, as is another dtype, shape or
structure.
Files are written beside their place and renamed, so that a crash leaves the old one whole.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from typing import Any

import jax
import numpy as np

PyTree = Any

_HEADER = "pgjax"


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _named_arrays(tree: PyTree) -> dict[str, np.ndarray]:
    """Leaves by their path; typed keys as their raw words."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    as_array = lambda leaf: np.asarray(jax.random.key_data(leaf) if _is_key(leaf) else leaf, order="C")
    return {jax.tree_util.keystr(path): as_array(leaf) for path, leaf in leaves}


def digest(arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> str:
    """SHA-256 of named arrays and JSON `metadata`, as hexadecimal digits; the order of the names does not matter.

    Names, dtypes, shapes and bytes count; the bytes are those in row-major order, in the array's own byte order.
    """
    found = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name in sorted(arrays):
        found.update(f"{name} {arrays[name].dtype} {arrays[name].shape}".encode())
        found.update(arrays[name].tobytes())
    return found.hexdigest()


def replace_file(path: pathlib.Path, content: bytes | memoryview) -> None:
    """Writes a file beside its place, `path` with `.partial`, and renames it: a crash leaves an older one whole.

    Raises:
        OSError: if the file cannot be written; an older one at `path` is then untouched, and nothing is left beside it.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def save(path: str | os.PathLike, tree: PyTree, metadata: dict[str, Any] | None = None) -> None:
    """Writes a pytree of arrays (typed keys included) and JSON `metadata` to one file, atomically.

    Raises:
        OSError: if the file cannot be written; an older one at `path` is then untouched.
    """
    from safetensors.numpy import save as serialise

    arrays = _named_arrays(tree)
    metadata = metadata or {}
    header = {"metadata": metadata, "sha256": digest(arrays, metadata)}
    replace_file(pathlib.Path(path), serialise(arrays, {_HEADER: json.dumps(header)}))


def _read(path: str | os.PathLike) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    from safetensors import SafetensorError, safe_open

    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"path {path} is not a file")
    try:
        with safe_open(path, framework="numpy") as file:
            header = (file.metadata() or {}).get(_HEADER)
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"path {path} is not a whole safetensors file: {error}") from error
    if header is None:
        raise ValueError(f"path {path} was not written by pgjax.checkpoints")
    try:
        header = json.loads(header)
        whole = digest(arrays, header["metadata"]) == header["sha256"]
    except (ValueError, KeyError):
        whole = False
    if not whole:
        raise ValueError(f"path {path} is damaged: its digest does not match what it holds")
    return arrays, header["metadata"]


def metadata(path: str | os.PathLike) -> dict[str, Any]:
    """The JSON metadata of a file, its arrays checked.

    Raises:
        ValueError: if the file is missing, cut short, damaged, or not ours.
    """
    return _read(path)[1]


def restore(path: str | os.PathLike, like: PyTree) -> PyTree:
    """The pytree of a file, in the structure of `like` (arrays, or `jax.ShapeDtypeStruct` from `jax.eval_shape`).

    Raises:
        ValueError: if the file is missing, cut short or damaged, or a leaf is missing, left over, or of another shape
            or dtype, naming the first such leaf.
    """
    arrays, _ = _read(path)
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)
    wanted = {jax.tree_util.keystr(name): leaf for name, leaf in leaves}
    if arrays.keys() != wanted.keys():
        odd = sorted(arrays.keys() ^ wanted.keys())[0]
        where = "the file lacks" if odd in wanted else "the file has, unasked,"
        raise ValueError(f"path {path} holds another structure: {where} {odd}")
    found = []
    for name, leaf in wanted.items():
        is_key = jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = jax.random.wrap_key_data(arrays[name]) if is_key else jax.numpy.asarray(arrays[name])
        if (array.shape, array.dtype) != (leaf.shape, leaf.dtype):
            raise ValueError(
                f"path {path} was written with {name} of {array.dtype}{list(array.shape)}, "
                f"wanted {leaf.dtype}{list(leaf.shape)}"
            )
        found.append(array)
    return jax.tree.unflatten(structure, found)
