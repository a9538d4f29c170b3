"""Safetensors files that pgjax writes and reads itself: arrays, a JSON header, and a digest that covers both.

A reader checks the header and the digest before it makes any array. Nothing in a file is imported or called here.
"""

import hashlib
import json
import os
import pathlib
from typing import IO, Any

import jax.numpy as jnp
import numpy as np

from pgjax import _json, _safetensors, writing
from pgjax._checks import shown
from pgjax._limits import HEAD_BYTES, MOST_AXES, MOST_TENSORS, NAME_BYTES
from pgjax._stored import Tensor

HEADER = "pgjax"
"""The name under which the metadata of a safetensors file hold the header of pgjax."""
FORMAT = 2
_PIECE_BYTES = 1 << 20

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


def as_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Metadata as a reader of the file gets them: tuples become lists.

    Raises:
        ValueError: if they are not a JSON object, or hold NaN or an infinite number.
    """
    try:
        # The reader of the file refuses what this reader refuses, such as values that stand too deep.
        found = _json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"metadata must be JSON with finite numbers, got {shown(metadata)}: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"metadata must be a JSON object, got {shown(metadata)}")
    return found


def write(
    path: str | os.PathLike, arrays: dict[str, np.ndarray], *, generators: dict[str, str], metadata: dict[str, Any]
) -> None:
    """Write named arrays and JSON `metadata` to one file, atomically.

    Args:
        generators: the names of the arrays that are the raw words of typed keys, each with its random-number generator.

    Raises:
        ValueError: if the metadata are not JSON, or the file would be beyond a limit of the reader; nothing is written.
        OSError: if the file cannot be written; an older file at `path` is then untouched.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save as serialise

    covered = {"format": FORMAT, "generators": generators, "metadata": as_json(metadata)}
    header = json.dumps(covered | {"sha256": digest(arrays, covered)})
    _require_readable(arrays, header)
    try:
        content = serialise(arrays, {HEADER: header})
    except SafetensorError as error:
        raise ValueError(f"tree cannot be written as a safetensors file: {error}") from error
    writing.replace_file(path, content)


def _require_readable(arrays: dict[str, np.ndarray], header: str) -> None:
    """Refuse what `read` would refuse because of its limits."""
    if len(arrays) > MOST_TENSORS:
        raise ValueError(f"tree must have at most {MOST_TENSORS} leaves, got {len(arrays)}")
    for name, array in arrays.items():
        if len(name) > NAME_BYTES or array.ndim > MOST_AXES:
            raise ValueError(
                f"tree must have leaves of at most {MOST_AXES} axes and paths of at most {NAME_BYTES} characters, got "
                f"{array.ndim} axes and {len(name)} characters in {shown(name)}"
            )
    # Half of the head is left for the descriptions of the leaves, and for the signs that JSON puts before quotes.
    if len(header) > HEAD_BYTES // 2:
        raise ValueError(f"metadata must have at most {HEAD_BYTES // 2} bytes as JSON, got {len(header)}")


def digest(arrays: dict[str, np.ndarray], metadata: dict[str, Any]) -> str:
    """SHA-256 of named arrays and JSON `metadata`, as hexadecimal digits; the order of the names does not matter.

    It covers names, dtypes, shapes and bytes; the bytes are those in row-major order, in the array's own byte order.
    """
    found = _begun(metadata)
    for name in sorted(arrays):
        found.update(_described(name, arrays[name].dtype, arrays[name].shape))
        found.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8))
    return found.hexdigest()


def _begun(metadata: dict[str, Any]) -> Any:
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())


def _described(name: str, dtype: np.dtype | str, shape: tuple[int, ...]) -> bytes:
    return f"{name} {dtype} {shape}".encode(errors="surrogatepass")


def read_checked(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The arrays by their names, and the header with its types checked.

    Raises:
        ValueError: if the file is missing, cut short, damaged, of a newer format, or was not written by pgjax.
    """
    stored = _safetensors.read(path)
    header = _parsed(path, _header_text(stored))
    covered = {key: value for key, value in header.items() if key != "sha256"}
    covered = covered if "format" in header else header["metadata"]
    with _safetensors.opened(path) as file:
        if stored_digest(file, stored.tensors, covered) != header["sha256"]:
            raise ValueError(f"path {path} is damaged: its digest does not match what it holds")
        return {name: _array(file, path, name, tensor) for name, tensor in stored.tensors.items()}, header


def _header_text(stored: _safetensors.Safetensors) -> str:
    """The text of pgjax's header; the kinds of all tensors are checked."""
    if HEADER not in stored.metadata:
        raise ValueError(f"path {stored.path} was not written by pgjax.saving")
    for name, tensor in stored.tensors.items():
        if tensor.kind not in DTYPES:
            raise ValueError(f"path {stored.path} holds {shown(name)} of {tensor.kind}, which pgjax does not read")
    return stored.metadata[HEADER]


def stored_digest(file: IO[bytes], tensors: dict[str, Tensor], metadata: dict[str, Any]) -> str:
    """The `digest` of the arrays of a file, which are read piece by piece: a damaged file takes no memory."""
    found = _begun(metadata)
    for name in sorted(tensors):
        kind, shape, start, stop = tensors[name]
        found.update(_described(name, DTYPES.get(kind, kind), shape))
        file.seek(start)
        while start < stop and (piece := file.read(min(stop - start, _PIECE_BYTES))):
            found.update(piece)
            start += len(piece)
    return found.hexdigest()


def _array(file: IO[bytes], path: pathlib.Path, name: str, tensor: Tensor) -> np.ndarray:
    file.seek(tensor.start)
    found = np.empty(tensor.shape, DTYPES[tensor.kind])
    as_bytes = found.reshape(-1).view(np.uint8)
    if file.readinto(as_bytes) != as_bytes.size:  # pyright: ignore[reportAttributeAccessIssue]
        raise ValueError(f"path {path} was cut short while it was read: {shown(name)} is not whole")
    if tensor.kind == "BOOL" and as_bytes.max(initial=0) > 1:
        raise ValueError(f"path {path} is damaged: {shown(name)} must hold truth values 0 and 1, got {as_bytes.max()}")
    return found


def _parsed(path: pathlib.Path, text: str) -> dict[str, Any]:
    """The header with its types checked; format 1 has neither `format` nor `generators`."""
    try:
        header = _json.loads(text)
    except _json.JsonError as error:
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
    if header.get("format", 1) not in (1, FORMAT):
        raise ValueError(f"path {path} is of format {header['format']}, and this pgjax reads formats 1 and {FORMAT}")
    return header
