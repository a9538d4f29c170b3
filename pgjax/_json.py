"""JSON from files that nobody checked: its size, depth and number of values are limited before Python reads it."""

import json
import pathlib
import re
from typing import Any

import numpy as np

from pgjax._limits import JSON_BYTES, JSON_DEPTH, JSON_VALUES, read_whole
from pgjax._shown import shown

# Possessive, and an open string ends with the text: no content makes this search go back.
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+(?:"|\\?\Z)', re.DOTALL)
_MOST_DIGITS = 4300  # Python reads no longer integers


class JsonError(ValueError):
    """The error for a text that is no JSON, or JSON beyond the limits.

    Attributes:
        key: the name of the entry that is wrong, or "JSON".
        expected, found: what was expected and what was found, in words.
    """

    def __init__(self, expected: str, found: str, key: str = "JSON"):
        self.key, self.expected, self.found = key, expected, found
        super().__init__(f"{key}: expected {expected}, found {found}")


def loads(
    content: bytes | str,
    *,
    depth: int = JSON_DEPTH,
    values: int = JSON_VALUES,
    digits: int = _MOST_DIGITS,
    infinite: bool = False,
) -> Any:
    """The value of a text of JSON.

    A text is refused that is not UTF-8, has two entries of one name in an object, NaN or a number that no float can
    hold, an integer of more than `digits` digits, more than `values` values, or lists and objects that stand deeper
    inside each other than `depth`.

    Args:
        content: the text.
        depth, values, digits: the limits.
        infinite: whether NaN and infinite numbers are allowed, which some programs write as `NaN` and `Infinity`.

    Raises:
        JsonError: if the text is refused.
    """
    text, content = (content, content.encode(errors="replace")) if isinstance(content, str) else (None, content)
    _require_small(content, depth, values)
    try:
        text = content.decode() if text is None else text
    except UnicodeDecodeError as error:
        found = f"the byte 0x{content[error.start]:02x} at byte {error.start} ({error.reason})"
        raise JsonError("UTF-8", found, "encoding") from error
    hooks: dict[str, Any] = {} if infinite else {"parse_float": _finite, "parse_constant": _no_constant}
    if digits < _MOST_DIGITS:
        hooks["parse_int"] = lambda text: _integer(text, digits)
    try:
        return json.loads(text, object_pairs_hook=_once, **hooks)
    except json.JSONDecodeError as error:
        raise JsonError("valid syntax", f"{error.msg} at character {error.pos}") from error
    except JsonError:
        raise
    except ValueError as error:
        raise JsonError(f"integers of at most {_MOST_DIGITS} digits", "a longer one") from error
    except RecursionError as error:
        raise JsonError(f"at most {depth} nested lists and objects", "more") from error


def read_object(
    path: pathlib.Path, *, most_bytes: int = JSON_BYTES, digits: int = _MOST_DIGITS, infinite: bool = False
) -> dict[str, Any]:
    """The object of a file that is one text of JSON.

    Raises:
        ValueError: names the file: if it is missing, larger than `most_bytes`, or holds no such object, as `loads`.
    """
    content = read_whole(path, most_bytes)
    try:
        found = loads(content, digits=digits, infinite=infinite)
    except JsonError as error:
        raise ValueError(f"path {path} must hold JSON that can be read: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"path {path} must hold a JSON object, got {shown(found)}")
    return found


def _require_small(content: bytes, depth: int, values: int) -> None:
    """Look at the signs of a text before it is parsed. Signs inside of strings count as values too."""
    most = sum(content.count(sign) for sign in (b",", b":", b"[", b"{")) + content.count(b'"') // 2
    if most > values:
        raise JsonError(f"at most {values} values", f"up to {most}")
    if content.count(b"[") + content.count(b"{") <= depth:
        return
    signs = np.frombuffer(_STRING.sub(b"", content), np.uint8)
    opened = np.isin(signs, np.frombuffer(b"[{", np.uint8))
    changes = opened.astype(np.int32) - np.isin(signs, np.frombuffer(b"]}", np.uint8))
    if np.cumsum(changes).max(initial=0) > depth:
        raise JsonError(f"at most {depth} nested lists and objects", "more")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise JsonError("one entry of this name", "several", shown(twice))
    return found


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise JsonError("numbers that a float can hold", shown(text))
    return value


def _integer(text: str, digits: int) -> int:
    if len(text) > digits:
        raise JsonError(f"integers of at most {digits} digits", f"one of {len(text)}")
    return int(text)


def _no_constant(text: str) -> Any:
    raise JsonError("finite numbers", text)
