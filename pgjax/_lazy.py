"""A package whose names load at their first use, by the `__getattr__` of a module (PEP 562).

Such a package imports the names under `if TYPE_CHECKING` too, where editors and type checkers find them.
"""

import importlib
import sys
from collections.abc import Callable
from typing import Any


def at_first_use(package: str, module: str) -> Callable[[str], Any]:
    """The `__getattr__` of a package with all names of a module, which load together when the first one is used."""

    def __getattr__(name: str) -> Any:
        # The import system asks for such names, and they are no reason to load the module.
        if not name.startswith("__") or name == "__all__":
            found = importlib.import_module(module)
            names = {one: getattr(found, one) for one in (*found.__all__, "__all__")}
            vars(sys.modules[package]).update(names)
            if name in vars(sys.modules[package]):  # a name of the module, or a submodule that it has imported
                return vars(sys.modules[package])[name]
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return __getattr__
