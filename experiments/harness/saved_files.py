"""JSON that earlier runs wrote. Its size is limited, and what is wrong becomes one line that names the file."""

import contextlib
import pathlib
import types
import typing
from collections.abc import Iterator
from typing import Any

from pgjax import _json
from pgjax._shown import shown

LOG_BYTES = 1 << 26
"""The largest log that is read: 64 MiB."""
_Options = typing.TypeVar("_Options")
_LINE_BYTES = 1 << 22
_DIGITS = 300  # a longer integer is no float


def read_object(path: pathlib.Path) -> dict[str, Any]:
    """The object in a file, such as `summary.json` or `config.json`.

    Raises:
        ValueError: names the file: if it is missing, too large, or holds no JSON object.
    """
    return _json.read_object(path, digits=_DIGITS)


def entries(found: Any, path: pathlib.Path, **kinds: type | tuple[type, ...]) -> list[Any]:
    """The entries of an object by their names, in the order of `kinds`.

    Raises:
        ValueError: names the file and the entry: if it is missing or has another type.
    """
    for name, kind in kinds.items():
        if not isinstance(found, dict) or not isinstance(found.get(name), kind):
            allowed = " or ".join(one.__name__ for one in (kind if isinstance(kind, tuple) else (kind,)))
            value = shown(found.get(name) if isinstance(found, dict) else found)
            raise ValueError(f"path {path} must have an entry {name} of type {allowed}, got {value}")
    return [found[name] for name in kinds]


def read_lines(path: pathlib.Path) -> Iterator[dict[str, Any]]:
    """The objects in the lines of a log. Lines that are cut short or damaged are left out, as after a kill.

    Raises:
        ValueError: if the log is larger than `LOG_BYTES`.
    """
    if path.is_file() and path.stat().st_size > LOG_BYTES:
        raise ValueError(f"path {path} must have at most {LOG_BYTES} bytes, got {path.stat().st_size}")
    if not path.is_file():
        return
    with path.open("rb") as file:
        while line := file.readline(_LINE_BYTES):
            try:
                value = _json.loads(line, digits=_DIGITS)
            except _json.JsonError:
                continue
            if isinstance(value, dict):
                yield value


def record_of(kind: type[_Options], found: dict[str, Any], path: pathlib.Path) -> _Options:
    """A dataclass of options from the object that `reports.plain` made of it; missing options keep their default.

    Raises:
        ValueError: names the file and the option: if it is unknown, or its value has not the type of the option.
    """
    hints = typing.get_type_hints(kind)
    if unknown := sorted(found.keys() - hints.keys()):
        raise ValueError(
            f"path {path} must hold options of this experiment, got the unknown option {shown(unknown[0])}"
        )
    values = {}
    for name, value in found.items():
        try:
            values[name] = _typed(value, hints[name])
        except TypeError:
            allowed = getattr(hints[name], "__name__", str(hints[name]))
            raise ValueError(
                f"path {path} must have an option {name} of the form {allowed}, got {shown(value)}"
            ) from None
    return kind(**values)


def _typed(value: Any, hint: Any) -> Any:
    """The value as its type hint wants it: lists become tuples, and names of files become paths."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        for part in parts:
            with contextlib.suppress(TypeError):
                return _typed(value, part)
    elif origin is typing.Literal and isinstance(value, str) and value in parts:
        return value
    elif origin is tuple and isinstance(value, list):
        return tuple(_typed(one, parts[0]) for one in value)
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif hint is pathlib.Path and isinstance(value, str):
        return pathlib.Path(value)
    elif hint in (int, bool, str, type(None)) and type(value) is hint:
        return value
    raise TypeError
