"""The head of a GGUF file: its metadata, and where its tensors lie. Reading it runs nothing and imports nothing.

A GGUF file is little-endian: "GGUF", a version, the numbers of tensors and of metadata, the metadata as pairs of a name
and a typed value, the descriptions of the tensors, and their data from the next multiple of the alignment on. Version 2
and version 3 have the same form.

Source: the specification of the GGUF format, docs/gguf.md of ggml.
"""

import os
import pathlib
import struct
from typing import Any, NamedTuple

import numpy as np

from pgjax._checks import shown
from pgjax._limits import HEAD_BYTES, MOST_TENSORS, NAME_BYTES, file_size
from pgjax._stored import Tensor, num_bytes, require_spans

MAGIC = b"GGUF"
KINDS = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 8: "Q8_0", 30: "BF16"}
"""The kinds of tensors that pgjax reads, by their numbers in the file."""
BLOCKS = {"F32": (1, 4), "F16": (1, 2), "BF16": (1, 2), "Q4_0": (32, 18), "Q4_1": (32, 20), "Q8_0": (32, 34)}
"""Kind → how many numbers a block holds, and in how many bytes."""

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_MOST_METADATA = 10_000
_MOST_HEAD_BYTES = 2 * HEAD_BYTES
# All pieces and joins of the largest tokenisers in use are fewer.
_MOST_STRINGS = 1 << 20


class Gguf(NamedTuple):
    """The head of a file.

    Attributes:
        path: the file.
        metadata: the values by their names: numbers, strings, arrays of numbers and lists of bytes. Strings of arrays
            stay bytes, since a tokeniser may hold pieces that are not UTF-8.
        tensors: where the tensors lie, by their names; shapes are in the order of NumPy, outermost axis first.
    """

    path: pathlib.Path
    metadata: dict[str, Any]
    tensors: dict[str, Tensor]

    def require(self, name: str, kind: type) -> Any:
        """The metadata of this name.

        Raises:
            ValueError: if the file has none, or one of another type.
        """
        value = self.metadata.get(name)
        if isinstance(value, bool) is not (kind is bool) or not isinstance(value, kind):
            raise ValueError(f"path {self.path} must have {name} of type {kind.__name__}, got {shown(value)}")
        return value


class _Cursor:
    """Reads one value after another, and never behind the end of the file or of what a head may hold."""

    def __init__(self, path: pathlib.Path, data: memoryview) -> None:
        self.path, self.data, self.at = path, data, 0
        self.end = len(data)
        self.strings = _MOST_STRINGS

    def take(self, size: int, what: str) -> memoryview:
        if size > self.end - self.at:
            raise ValueError(
                f"path {self.path} is damaged or cut short: {what} at byte {self.at} has {size} bytes, and "
                f"{self.end - self.at} are left"
            )
        self.at += size
        return self.data[self.at - size : self.at]

    def number(self, code: str, what: str) -> Any:
        return struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}"), what))[0]

    def string(self, what: str) -> bytes:
        return bytes(self.take(self.number("Q", what), what))

    def name(self, what: str) -> str:
        found = self.string(what)
        if len(found) > NAME_BYTES:
            raise ValueError(f"path {self.path}: {what} must have at most {NAME_BYTES} bytes, got {len(found)}")
        try:
            return found.decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"path {self.path} is damaged: {what} must be UTF-8, got {shown(found[:40])}") from error

    def value(self, kind: int, what: str) -> Any:
        if kind in _SCALARS:
            return self.number(_SCALARS[kind], what)
        if kind == _STRING:
            return self.string(what).decode(errors="replace")
        if kind != _ARRAY:
            raise ValueError(f"path {self.path} is damaged: {what} has the unknown type {kind}")
        inner, count = self.number("I", what), self.number("Q", what)
        if inner == _STRING:
            # Every string has at least its length, so the file bounds the list before it grows.
            self.require_room(8 * count, what)
            self.strings -= count
            if self.strings < 0:
                raise ValueError(
                    f"path {self.path} must have at most {_MOST_STRINGS} strings in lists, got {count} more in {what}"
                )
            return [self.string(what) for _ in range(count)]
        if inner not in _SCALARS:
            raise ValueError(f"path {self.path}: {what} is an array of the type {inner}, which pgjax does not read")
        dtype = np.dtype(_SCALARS[inner]).newbyteorder("<")
        return np.frombuffer(self.take(count * dtype.itemsize, what), dtype).copy()

    def require_room(self, size: int, what: str) -> None:
        at = self.at
        self.take(size, what)
        self.at = at


def is_gguf(path: pathlib.Path) -> bool:
    """Whether a file begins as a GGUF file does."""
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def read(path: str | os.PathLike) -> Gguf:
    """The head of a GGUF file.

    Raises:
        ValueError: if the file is missing, cut short, damaged, of another version or byte order, too large in its head,
            or if a tensor is of a kind that pgjax does not read, lies outside of the file or overlaps another.
    """
    path = pathlib.Path(path)
    size = file_size(path)
    if size < 24 or not is_gguf(path):
        raise ValueError(f"path {path} must begin with {MAGIC!r} and have at least 24 bytes, as GGUF files do")
    content = memoryview(np.memmap(path, np.uint8, "r", shape=(min(size, _MOST_HEAD_BYTES),)))  # pyright: ignore
    return _parsed(path, _Cursor(path, content), size)


def _parsed(path: pathlib.Path, cursor: _Cursor, size: int) -> Gguf:
    cursor.take(4, "magic")
    version = cursor.number("I", "version")
    if version not in (2, 3):
        raise ValueError(f"path {path} must be a little-endian GGUF file of version 2 or 3, got version {version}")
    num_tensors, num_metadata = cursor.number("Q", "number of tensors"), cursor.number("Q", "number of metadata")
    for what, found, most in (("tensors", num_tensors, MOST_TENSORS), ("metadata", num_metadata, _MOST_METADATA)):
        if found > most:
            raise ValueError(f"path {path} must have at most {most} {what}, got {found}")
    metadata: dict[str, Any] = {}
    for _ in range(num_metadata):
        name = cursor.name("a name of metadata")
        if name in metadata:
            raise ValueError(f"path {path} is damaged: it holds the metadata {shown(name)} twice")
        metadata[name] = cursor.value(cursor.number("I", shown(name)), shown(name))
    described = [_described(path, cursor) for _ in range(num_tensors)]
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 8 <= alignment <= 65536 or alignment % 8:
        raise ValueError(f"path {path}: general.alignment must be a multiple of 8 up to 65536, got {shown(alignment)}")
    first = -(-cursor.at // alignment) * alignment
    tensors: dict[str, Tensor] = {}
    for name, kind, shape, offset in described:
        if name in tensors:
            raise ValueError(f"path {path} is damaged: it holds the tensor {shown(name)} twice")
        length = num_bytes(kind, shape, BLOCKS[kind])
        if length is None:
            raise ValueError(
                f"path {path}: {shown(name)} of {kind} must have rows of a multiple of {BLOCKS[kind][0]} numbers, got "
                f"the shape {list(shape)}"
            )
        tensors[name] = Tensor(kind=kind, shape=shape, start=first + offset, stop=first + offset + length)
    require_spans(path, tensors, first, size)
    return Gguf(path=path, metadata=metadata, tensors=tensors)


def _described(path: pathlib.Path, cursor: _Cursor) -> tuple[str, str, tuple[int, ...], int]:
    """Name, kind, shape and offset of the next tensor."""
    name = cursor.name("a name of a tensor")
    axes = cursor.number("I", shown(name))
    if not 1 <= axes <= 4:
        raise ValueError(f"path {path}: {shown(name)} must have 1 to 4 axes, got {axes}")
    # The file writes the axis that varies fastest first.
    shape = tuple(cursor.number("Q", shown(name)) for _ in range(axes))[::-1]
    kind = cursor.number("I", shown(name))
    if kind not in KINDS:
        allowed = ", ".join(KINDS.values())
        raise ValueError(f"path {path}: {shown(name)} must be of a kind among {allowed}, got the kind number {kind}")
    return name, KINDS[kind], shape, cursor.number("Q", shown(name))
