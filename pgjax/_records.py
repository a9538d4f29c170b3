"""The type of the fields of records, and the text of a record in one line.

Python prints functions as addresses. Here each function of a record is shown by the name of the function that made it:
`make_estimator.<locals>.gradient` as `make_estimator`.
"""

import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import jax

# A tree of containers whose leaves are arrays, as `jax.tree.map` takes it. Functions check its structure where needed.
PyTree: TypeAlias = Any

_LONGEST = 160


def one_line(record: Any) -> str:
    """The text `Name(makers, field=value, …)` of a NamedTuple, for its `__repr__`.

    First come the makers of its functions, each once; private helpers are left out if there are other makers. Then come
    the other fields, except those that are None or have their default.
    """
    defaults = record._field_defaults
    makers, values = [], []
    # `init` comes last: the other functions say more about a record.
    for name in sorted(record._fields, key=lambda name: name == "init"):
        value = getattr(record, name)
        if value is None or (name in defaults and _is_plain(value) and value == defaults[name]):
            continue
        if _is_function(value):
            makers.append(_maker_of(value))
        else:
            values.append(f"{name}={brief(value)}")
    makers = [name for name in dict.fromkeys(makers) if not name.startswith("_")] or makers[:1]
    return f"{type(record).__name__}({', '.join([*makers, *values])})"


def brief(value: Any) -> str:
    """A short text of a field: an array by its dtype and shape, a large tree by the number of its arrays."""
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{value.dtype}{list(value.shape)}"
    if type(value).__repr__ not in (tuple.__repr__, dict.__repr__, list.__repr__):
        text = _maker_of(value) if _is_function(value) else " ".join(repr(value).split())
        return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
    leaves = jax.tree.leaves(value)
    if len(leaves) > 4:
        numbers = sum(getattr(leaf, "size", 1) for leaf in leaves)
        return f"<{len(leaves)} arrays of {numbers} numbers>"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name!r}: {brief(part)}' for name, part in value.items())}}}"
    return f"({', '.join(map(brief, value))}{',' if len(value) == 1 else ''})"


def print_as_made_by(maker: Callable, *functions: Any) -> None:
    """Let functions that a helper made print as if the maker of `maker`, an argument of the helper, had made them."""
    for function in functions:
        function.__qualname__ = f"{_maker_of(maker)}.<locals>.{function.__name__}"


def _is_plain(value: Any) -> bool:
    """Whether `==` gives one bool, because the value holds no array."""
    return (
        value is None
        or isinstance(value, bool | int | float | str)
        or (isinstance(value, tuple) and all(map(_is_plain, value)))
    )


def _is_function(value: Any) -> bool:
    return callable(value) and not isinstance(value, type) and not hasattr(value, "_fields")


def _maker_of(function: Any) -> str:
    """The name of the outermost function in which a function was defined.

    For a function that was defined at the top of a module it is `module.name`; for modules of pgjax it is the module
    alone, such as `categorical`.
    """
    while isinstance(function, functools.partial):
        function = function.func
    qualified = getattr(function, "__qualname__", type(function).__name__)
    if "<locals>" in qualified:
        return qualified.split(".<locals>")[0]
    modules = (getattr(function, "__module__", None) or "").split(".")
    return modules[-1] if modules[0] == "pgjax" else f"{modules[-1]}.{qualified}".removeprefix(".")
