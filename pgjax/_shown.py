"""Texts of values from outside, for errors of one line."""

import reprlib
from typing import Any


def shown(value: Any) -> str:
    """The text of a value from outside, such as a file, for an error: of limited length, without control characters."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 300 else f"{text[:300]} …"
