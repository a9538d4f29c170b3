"""JSON lines from files that nobody checked: limits before memory is taken, and errors that name the line.

A file is UTF-8 text with one JSON object per line, or one JSON array of objects. Appended lines reach the disk before
the call returns.
"""

import contextlib
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from pgjax import _json
from pgjax.preferences.preference import RecordError

try:
    import fcntl
except ImportError:  # Windows has no such locks; two writers of one file are then not kept apart.
    fcntl = None

_OTHER_ENCODINGS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16", b"PK": "a zip file", b"\x1f\x8b": "a gzip file"}
_UTF8_MARK = b"\xef\xbb\xbf"


class Limits(NamedTuple):
    """What a file may hold at most. A file beyond a limit is refused before the memory for it is taken.

    Attributes:
        line_bytes: the bytes of a line.
        lines: the lines of a file, or the objects of an array.
        depth: how many lists and objects may stand inside each other.
        array_bytes: the bytes of a file that is one JSON array.
        file_bytes: the bytes of a file of lines.
    """

    line_bytes: int = 2**20
    lines: int = 1_000_000
    depth: int = 32
    array_bytes: int = 2**25
    file_bytes: int = 2**28


DEFAULT_LIMITS = Limits()


class Line(NamedTuple):
    """A line of a file: its number, counted from 1, its bytes, the offset of its first byte, and whether it ends."""

    number: int
    content: bytes
    offset: int
    ends: bool


def require_file(path: pathlib.Path) -> None:
    """Raise a `RecordError` if `path` is no regular file."""
    if not path.is_file():
        found = "a folder" if path.is_dir() else "something else" if path.exists() else "no such file"
        raise RecordError("path", expected="a file of JSON lines", found=found, file=path)


def is_array(path: pathlib.Path) -> bool:
    """Whether the first character of the file, apart from white space, opens a JSON array."""
    with path.open("rb") as file:
        return file.read(4096).removeprefix(_UTF8_MARK).lstrip().startswith(b"[")


def lines(path: pathlib.Path, limits: Limits) -> Iterator[Line]:
    """The lines that are not blank.

    Raises:
        RecordError: for a file, a line or a number of lines beyond the limits, or a file that is not UTF-8 text at all.
    """
    offset = 0
    with path.open("rb") as file:
        if (size := os.fstat(file.fileno()).st_size) > limits.file_bytes:
            raise RecordError("file", expected=f"at most {limits.file_bytes} bytes", found=f"{size}", file=path)
        if (most := sum(piece.count(b"\n") for piece in iter(lambda: file.read(2**20), b""))) > limits.lines:
            raise RecordError("file", expected=f"at most {limits.lines} lines", found=f"{most}", file=path)
        file.seek(0)
        for number in range(1, limits.lines + 2):
            content = file.readline(limits.line_bytes + 1)
            if not content:
                return
            if number == 1:
                _require_text_file(content, path)
            if number > limits.lines:
                raise RecordError("file", expected=f"at most {limits.lines} lines", found="more", file=path)
            if len(content) > limits.line_bytes:
                expected = f"at most {limits.line_bytes} bytes"
                raise RecordError("length", expected=expected, found="more", file=path, line=number)
            start, offset = offset, offset + len(content)
            ends = content.endswith(b"\n")
            content = content.removeprefix(_UTF8_MARK) if number == 1 else content
            if content.strip():
                yield Line(number=number, content=content, offset=start, ends=ends)


def _require_text_file(start: bytes, path: pathlib.Path) -> None:
    for mark, name in _OTHER_ENCODINGS.items():
        if start.startswith(mark):
            raise RecordError("encoding", expected="UTF-8", found=name, file=path)


def array(path: pathlib.Path, limits: Limits) -> list[dict[str, Any]]:
    """The objects of a file that is one JSON array.

    Raises:
        RecordError: for a file beyond the limits, for other JSON, and as `parse`.
    """
    with path.open("rb") as file:
        content = file.read(limits.array_bytes + 1)
    if len(content) > limits.array_bytes:
        raise RecordError("file", expected=f"at most {limits.array_bytes} bytes", found="more", file=path)
    try:
        found = _loads(content.removeprefix(_UTF8_MARK), limits.depth)
    except RecordError as error:
        raise error.at(path, None) from error
    if len(found) > limits.lines:
        raise RecordError("file", expected=f"at most {limits.lines} objects", found=f"{len(found)}", file=path)
    for i, one in enumerate(found):
        if not isinstance(one, dict):
            raise RecordError(f"[{i}]", expected="a JSON object", found=type(one).__name__, file=path)
    return found


def parse(content: bytes, depth: int) -> dict[str, Any]:
    """The JSON object of a line.

    Raises:
        RecordError: for bytes that are not UTF-8, other JSON, a name that occurs twice, NaN, an infinite number, or
            lists and objects nested deeper than `depth`.
    """
    found = _loads(content, depth)
    if not isinstance(found, dict):
        raise RecordError("JSON", expected="a JSON object", found=f"one of type {type(found).__name__}")
    return found


def _loads(content: bytes, depth: int) -> Any:
    try:
        # No field needs integers of more than 64 bits.
        return _json.loads(content, depth=depth, digits=20)
    except _json.JsonError as error:
        raise RecordError(error.key, expected=error.expected, found=error.found) from error


@contextlib.contextmanager
def _locked(path: pathlib.Path, flags: int) -> Iterator[int]:
    """A file descriptor that no other writer of this module uses at the same time."""
    descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644)
    try:
        if fcntl is not None:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, content: bytes) -> None:
    while content:
        content = content[os.write(descriptor, content) :]
    os.fsync(descriptor)


def _sync_folder(path: pathlib.Path) -> None:
    """Let the disk know the name of a new file; systems that cannot open a folder do without."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_line(path: pathlib.Path, content: bytes, check: Callable[[bytes], Any], limits: Limits) -> None:
    """Append one line, and return when it is on the disk. If the disk is full, the file is left as it was.

    Args:
        path: the file, which is made if it is missing.
        content: the line without its end.
        check: reads a last line that has no end; it raises `RecordError` if that line is not whole.
        limits: the file's limits.

    Raises:
        RecordError: if `check` does, because a line behind half a line would be lost with it.
        OSError: if the file cannot be written.
    """
    is_new = not path.exists()
    with _locked(path, os.O_RDWR | os.O_CREAT | os.O_APPEND) as descriptor:
        size = os.fstat(descriptor).st_size
        tail = _unended(descriptor, size, limits)
        if tail:
            check(tail)
        try:
            _write_all(descriptor, (b"\n" if tail else b"") + content + b"\n")
        except BaseException:
            os.ftruncate(descriptor, size)
            raise
    if is_new:
        _sync_folder(path)


def _unended(descriptor: int, size: int, limits: Limits) -> bytes:
    """What stands behind the last end of a line, without white space; empty for a file that is whole."""
    start = max(0, size - limits.line_bytes - 1)
    os.lseek(descriptor, start, os.SEEK_SET)
    tail = b""
    while piece := os.read(descriptor, 2**20):
        tail += piece
    return tail[tail.rfind(b"\n") + 1 :].strip()


def set_aside(path: pathlib.Path, offset: int) -> pathlib.Path:
    """Move everything from `offset` on to the end of a file `NAME.cut` beside `path`; return the path of that file."""
    beside = path.with_name(path.name + ".cut")
    with _locked(path, os.O_RDWR) as descriptor:
        os.lseek(descriptor, offset, os.SEEK_SET)
        tail = b""
        while piece := os.read(descriptor, 2**20):
            tail += piece
        with _locked(beside, os.O_WRONLY | os.O_CREAT | os.O_APPEND) as other:
            _write_all(other, tail + b"\n")
        _sync_folder(path)
        os.ftruncate(descriptor, offset)
        os.fsync(descriptor)
    return beside
