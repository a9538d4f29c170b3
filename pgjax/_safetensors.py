"""The head of a safetensors file: eight bytes with the length of a JSON object, the object, and the data.

Source: the description of the format in the README of huggingface/safetensors.
"""

import contextlib
import pathlib
from collections.abc import Iterator
from typing import IO, Any, NamedTuple, TypeGuard

from pgjax import _json
from pgjax._checks import shown
from pgjax._limits import HEAD_BYTES, JSON_VALUES, MOST_AXES, MOST_TENSORS, NAME_BYTES, file_size
from pgjax._stored import Tensor, num_bytes, require_spans

_BYTES = {
    "F64": 8, "I64": 8, "U64": 8, "C64": 8, "F32": 4, "I32": 4, "U32": 4, "F16": 2, "BF16": 2, "I16": 2, "U16": 2,
    "I8": 1, "U8": 1, "BOOL": 1, "F8_E4M3": 1, "F8_E5M2": 1,
}  # fmt: skip


class Safetensors(NamedTuple):
    """The head of a file: where its tensors lie, by their names, and its metadata, strings by their names."""

    path: pathlib.Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[IO[bytes]]:
    """The open file; what the system cannot open or read becomes a ValueError that names the file."""
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise ValueError(f"path {path} cannot be read: {error.strerror or error}") from error


def read(path: pathlib.Path) -> Safetensors:
    """The head of a safetensors file.

    Raises:
        ValueError: if the file is missing, cut short or damaged, if its head is too large, or if a tensor has an
            unknown type or a shape that does not fit its bytes, lies outside of the file or overlaps another, or if the
            file has bytes that belong to no tensor.
    """
    size = file_size(path)
    with opened(path) as file:
        length = int.from_bytes(file.read(8), "little")
        if size < 8 or not 2 <= length <= min(size - 8, HEAD_BYTES):
            raise ValueError(
                f"path {path} is damaged, cut short or no safetensors file: its head must have 2 to "
                f"{min(max(size - 8, 2), HEAD_BYTES)} bytes, got {length}"
            )
        head = _object(path, file.read(length))
    metadata = head.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"path {path} is damaged: __metadata__ must be an object of strings, got {shown(metadata)}")
    tensors = {name: _tensor(path, name, described, 8 + length) for name, described in head.items()}
    require_spans(path, tensors, 8 + length, size)
    if (covered := 8 + length + sum(tensor.stop - tensor.start for tensor in tensors.values())) != size:
        raise ValueError(f"path {path} is damaged: its tensors must end at its end, byte {size}, got {covered}")
    return Safetensors(path=path, tensors=tensors, metadata=metadata)


def _object(path: pathlib.Path, content: bytes) -> dict[str, Any]:
    if (most := content.count(b'"dtype"')) > MOST_TENSORS:
        raise ValueError(f"path {path} must have at most {MOST_TENSORS} tensors, got up to {most}")
    try:
        # A text of JSON may stand in a text of the head, so its values are counted here, too.
        found = _json.loads(content, values=2 * JSON_VALUES)
    except _json.JsonError as error:
        raise ValueError(f"path {path} is damaged: its head is no readable JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"path {path} is damaged: its head must be an object, got {shown(found)}")
    return found


def _tensor(path: pathlib.Path, name: str, described: Any, first: int) -> Tensor:
    fields: dict[str, Any] = described if isinstance(described, dict) else {}
    kind, shape, offsets = fields.get("dtype"), fields.get("shape"), fields.get("data_offsets")
    if len(name) > NAME_BYTES:
        raise ValueError(f"path {path}: a name of a tensor must have at most {NAME_BYTES} bytes, got {len(name)}")
    if not isinstance(kind, str) or not _are_sizes(shape) or not _are_sizes(offsets) or len(offsets) != 2:
        raise ValueError(
            f"path {path} is damaged: {shown(name)} must have dtype, shape and two data_offsets, got {shown(described)}"
        )
    if kind not in _BYTES or len(shape) > MOST_AXES:
        raise ValueError(
            f"path {path} is damaged: {shown(name)} must have a type among {', '.join(_BYTES)} and at most {MOST_AXES} "
            f"axes, got {shown(kind)} and {len(shape)} axes"
        )
    length = num_bytes(kind, tuple(shape), (1, _BYTES[kind]))
    if length != offsets[1] - offsets[0]:
        raise ValueError(
            f"path {path} is damaged: {shown(name)} of {kind}{list(shape)} must have {length} bytes, got the offsets "
            f"{offsets[0]} to {offsets[1]}"
        )
    return Tensor(kind=kind, shape=tuple(shape), start=first + offsets[0], stop=first + offsets[1])


def _are_sizes(value: Any) -> TypeGuard[list[int]]:
    return isinstance(value, list) and all(type(x) is int and 0 <= x < 1 << 62 for x in value)
