"""Packages with names that load at their first use, by the `__getattr__` of a module (PEP 562).

Such a package imports the names under `if TYPE_CHECKING` too, where editors and type checkers find them.
"""

import importlib
import sys
from collections.abc import Callable, Sequence
from typing import Any


def at_first_use(package: str, module: str, names: Sequence[str] | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of a package with these names of a module; None stands for all names of the module."""

    def __getattr__(name: str) -> Any:
        if names is not None and name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            found = getattr(importlib.import_module(module), name)
        except AttributeError as error:
            raise AttributeError(f"module {package!r} has no attribute {name!r}") from error
        setattr(sys.modules[package], name, found)
        return found

    return __getattr__
