"""Arrays of an npz file. What the file announces is checked before an array is made, and nothing is unpickled."""

import math
import pathlib
import zipfile
from collections.abc import Sequence
from typing import IO, Any

import numpy as np

from pgjax._limits import MOST_AXES, most_expanded
from pgjax.datasets.record import DatasetError

_MOST_ENTRIES = 64
_PIECE_BYTES = 1 << 20
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_KINDS = "biuf"


class _Wary:
    """A file from which nobody reads more than a megabyte at a time, so the list of entries cannot be larger."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.close, self.seekable = file.seek, file.tell, file.close, file.seekable

    def read(self, size: int = -1) -> bytes:
        found = self._file.read(_PIECE_BYTES + 1 if size < 0 or size > _PIECE_BYTES else size)
        if len(found) > _PIECE_BYTES:
            raise DatasetError("file", expected=f"a list of entries of at most {_PIECE_BYTES} bytes", found="more")
        return found


def read_arrays(path: pathlib.Path, most_bytes: int) -> dict[str, np.ndarray]:
    """The arrays of an npz file by their names, of bool, integers or floats.

    Raises:
        DatasetError: if the file is missing, cut short, damaged or encrypted, announces more than `most_bytes` of
            arrays or much more than its own size, or holds anything but plain arrays.
    """
    if not path.is_file():
        raise DatasetError("file", expected="an npz file", found="no such file")
    if not zipfile.is_zipfile(path):
        raise DatasetError("file", expected="a whole npz file", found="one cut short, or of another format")
    key = "file"
    try:
        with path.open("rb") as file, zipfile.ZipFile(_Wary(file)) as archive:  # pyright: ignore[reportArgumentType]
            entries = archive.infolist()
            _require_entries(entries, path.stat().st_size, most_bytes)
            found = {}
            for entry in entries:
                key = entry.filename.removesuffix(".npy")
                with archive.open(entry) as stream:
                    found[key] = _array(key, stream, entry.file_size)
            return found
    except DatasetError:
        raise
    except Exception as error:
        # Reading a damaged zip raises many kinds of errors (zlib, struct, encodings, memory, recursion).
        raise DatasetError(
            key, expected="plain arrays in a whole npz file", found=f"{type(error).__name__}: {error}"
        ) from error


def _require_entries(entries: Sequence[zipfile.ZipInfo], file_bytes: int, most_bytes: int) -> None:
    """Check what the list of entries announces: how many there are, their names, and their sizes before and after."""
    if len(entries) > _MOST_ENTRIES:
        raise DatasetError("file", expected=f"at most {_MOST_ENTRIES} arrays", found=len(entries))
    names = [entry.filename for entry in entries]
    for entry in entries:
        name = entry.filename
        if not name.endswith(".npy") or names.count(name) > 1:
            raise DatasetError(name, expected="arrays with different names that end in .npy", found=repr(name))
        if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            found = "encrypted" if entry.flag_bits & 1 else f"method {entry.compress_type}"
            raise DatasetError(name, expected="an entry that is stored or deflated", found=found)
    stored, announced = (sum(getattr(entry, of) for entry in entries) for of in ("compress_size", "file_size"))
    if stored > file_bytes:
        raise DatasetError("file", expected=f"entries of at most its {file_bytes} bytes", found=f"{stored} bytes")
    if announced > (most := most_expanded(file_bytes, most_bytes)):
        expected = f"arrays of at most {most} bytes in a file of {file_bytes} bytes (most_bytes={most_bytes})"
        raise DatasetError("file", expected=expected, found=f"{announced} bytes")


def _array(key: str, stream: Any, size: int) -> np.ndarray:
    """One array from a stream of `size` bytes, which has to hold exactly this array."""
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:
        raise DatasetError(key, expected="the npy format 1.0 or 2.0", found=version)
    shape, by_columns, dtype = _HEADERS[version](stream)
    if dtype.kind not in _KINDS or dtype.itemsize > 8:
        hint = " (pickled objects are never read: allow_pickle=False)" * dtype.hasobject
        raise DatasetError(key, expected="plain arrays of bool, integers or floats", found=f"{dtype}{hint}")
    length = size - stream.tell()
    if len(shape) > MOST_AXES or min(shape, default=0) < 0 or math.prod(shape) * dtype.itemsize != length:
        raise DatasetError(key, expected=f"an array of {length} bytes", found=f"{dtype}{list(shape)}")
    content, at = np.empty(length, np.uint8), 0
    while piece := stream.read(_PIECE_BYTES):  # the read behind the last byte checks the sum
        content[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    if at != length:
        raise DatasetError(key, expected=f"{length} bytes", found=f"{at}")
    if dtype.kind == "b" and content.max(initial=0) > 1:
        raise DatasetError(key, expected="truth values 0 and 1", found=int(content.max()))
    return content.view(dtype).reshape(shape, order="F" if by_columns else "C")
