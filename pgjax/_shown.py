"""Texts of values and of errors from outside, for errors of one line."""

import pathlib
import reprlib
import traceback
from types import ModuleType
from typing import Any


def shown(value: Any) -> str:
    """The text of a value from outside, such as a file, for an error: of limited length, without control characters."""
    text = value if isinstance(value, str) else reprlib.repr(value)
    text = text if text.isprintable() else ascii(text)
    return text if len(text) <= 300 else f"{text[:300]} …"


def described(error: Exception, module: ModuleType | None = None) -> str:
    """An exception in one line, with the file and line where it occurred, in `module` if its traceback passes there."""
    text = f"{type(error).__name__}: {' '.join(str(error).split())}"
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if module and frame.filename == getattr(module, "__file__", None)]
    if isinstance(error, SyntaxError | ImportError) or not frames:
        return text
    last = (own or frames)[-1]
    return f"{text} ({pathlib.Path(last.filename).name}, line {last.lineno})"
