"""Files of preferences: one JSON object per line, appended safely, and read from the layouts of other tools, too."""

import json
import os
import pathlib
import warnings
from collections.abc import Iterable

from pgjax import writing
from pgjax._doors import readable
from pgjax.preferences import json_files, layouts
from pgjax.preferences.json_files import DEFAULT_LIMITS, Limits
from pgjax.preferences.layouts import Chat, plain_chat
from pgjax.preferences.preference import Preference, RecordError

__all__ = ["DEFAULT_LIMITS", "CutLineWarning", "Limits", "Preference", "RecordError", "append", "read", "write"]


class CutLineWarning(UserWarning):
    """The last line of a file was cut short, for example because the computer lost its power while it was written."""


def _encoded(record: Preference, limits: Limits) -> bytes:
    content = json.dumps(record.as_json(), ensure_ascii=False, allow_nan=False).encode()
    if len(content) >= limits.line_bytes:
        raise RecordError("record", expected=f"fewer than {limits.line_bytes} bytes", found=f"{len(content)}")
    # What `read` refuses, such as deep nesting in `extra`, must not enter a file.
    json_files.parse(content, limits.depth)
    return content


def _parsed(content: bytes, chat: Chat, limits: Limits) -> list[Preference]:
    return layouts.preferences_of(json_files.parse(content, limits.depth), chat)


@readable
def append(path: str | os.PathLike, record: Preference, *, limits: Limits = DEFAULT_LIMITS) -> None:
    """Append one record to a file, which is made if it is missing. The record is on the disk when the call returns.

    Raises:
        RecordError: if the folder is missing or `path` is no file; if the record is longer or nested deeper than
            `limits`; or if the last line of the file was cut short, which `read(path, repair=True)` mends. The file is
            then unchanged.
        OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir():
        raise RecordError("path", expected=f"a place in a folder, {path.parent}", found="no such folder", file=path)
    if path.exists():
        json_files.require_file(path)
    check = lambda tail: _whole(path, tail, limits)
    json_files.append_line(path, _encoded(record, limits), check, limits)


def _whole(path: pathlib.Path, tail: bytes, limits: Limits) -> None:
    try:
        json_files.parse(tail, limits.depth)
    except RecordError as error:
        raise _cut(path, None, tail) from error


def _cut(path: pathlib.Path, line: int | None, content: bytes) -> RecordError:
    found = f"one cut short after {len(content)} bytes; `read(path, repair=True)` sets it aside"
    return RecordError("last line", expected="a whole line", found=found, file=path, line=line)


@readable
def write(path: str | os.PathLike, records: Iterable[Preference], *, limits: Limits = DEFAULT_LIMITS) -> None:
    """Write a new file of records. A crash while writing never damages an older file.

    Raises:
        RecordError: if the folder is missing, `path` is a folder, or a record is longer or nested deeper than `limits`.
        OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    if not path.parent.is_dir() or path.is_dir():
        found = "a folder" if path.is_dir() else "no such folder"
        raise RecordError("path", expected="a file in a folder", found=found, file=path)
    writing.replace_file(path, b"".join(_encoded(record, limits) + b"\n" for record in records))


@readable
def read(
    path: str | os.PathLike, *, repair: bool = False, chat: Chat = plain_chat, limits: Limits = DEFAULT_LIMITS
) -> list[Preference]:
    """The preferences of a file of JSON lines, or of one JSON array, in any layout of `layouts`.

    A process that is killed while it writes leaves a last line without its end. With `repair` the bytes of this line
    are moved to a file beside `path` whose name ends in `.cut`, a `CutLineWarning` names it, and `path` can be
    appended to again. Without `repair` such a line is an error, and the file is not changed. Wrong lines elsewhere are
    always errors.

    Args:
        path: the file.
        repair: whether a last line that was cut short is set aside.
        chat: turns a list of messages with roles into a text.
        limits: what the file may hold at most.

    Raises:
        RecordError: names the file, the line, the entry, what was expected and what was found.

    Example:
        >>> import pathlib, tempfile
        >>> from pgjax.preferences import Preference, records
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = pathlib.Path(folder) / "labels.jsonl"
        ...     records.append(path, Preference(prompt="The sky is", chosen=" blue.", rejected=" green."))
        ...     [record.chosen for record in records.read(path)]
        [' blue.']
    """
    path = pathlib.Path(path)
    json_files.require_file(path)
    if json_files.is_array(path):
        return _of_array(path, chat, limits)
    found = []
    for line in json_files.lines(path, limits):
        try:
            found += _parsed(line.content, chat, limits)
        except RecordError as error:
            if line.ends or _is_json(line.content, limits):
                raise error.at(path, line.number) from error
            if not repair:
                raise _cut(path, line.number, line.content) from error
            beside = json_files.set_aside(path, line.offset)
            message = f"{path}: line {line.number} was cut short; its {len(line.content)} bytes were moved to {beside}"
            warnings.warn(message, CutLineWarning, stacklevel=2)
    return found


def _is_json(content: bytes, limits: Limits) -> bool:
    """Whether a line is a whole JSON object; half an object never is."""
    try:
        json_files.parse(content, limits.depth)
    except RecordError:
        return False
    return True


def _of_array(path: pathlib.Path, chat: Chat, limits: Limits) -> list[Preference]:
    found = []
    for i, one in enumerate(json_files.array(path, limits)):
        try:
            found += layouts.preferences_of(one, chat)
        except RecordError as error:
            key = f"[{i}].{error.key}"
            raise RecordError(key, expected=error.expected, found=error.found, file=path) from error
    return found
