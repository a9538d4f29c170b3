"""The problems: each a record of pure functions, made by its name.

`make("CartPole-v1")` and the other problems written here need jax alone. Every other id of gymnax goes
through `adapters.from_gymnax`, and gymnax is imported at that moment. `check` is the conformance suite that
any `Environment`, shipped or one's own, should pass.
"""

import dataclasses
import difflib
import importlib
import inspect
from typing import Any

from pgjax.contracts import ConformanceError
from pgjax.environments.adapters import from_gymnax, refuse_unknown, to_gymnax
from pgjax.environments.checking import CheckReport, check
from pgjax.environments.random_actions import random_policy, sample_action
from pgjax.types import Environment

__all__ = [
    "CheckReport",
    "ConformanceError",
    "available",
    "check",
    "from_gymnax",
    "make",
    "make_shipped",
    "random_policy",
    "sample_action",
    "to_gymnax",
]

_NATIVE = {
    "CartPole-v1": ("cartpole", "make_cartpole"),
    "corridor": ("corridor", "make_corridor"),
    "four_rooms": ("four_rooms", "make_four_rooms"),
    "maze": ("maze", "make_maze"),
    "lqg": ("linear_gaussian", "make_lqg"),
    "recall": ("recall", "make_recall"),
    "reverse": ("reverse", "make_reverse"),
}
_PREFIX = "gymnax:"
# Made only by downloading data.
_LEFT_OUT = ("MNISTBandit-bsuite",)


def available() -> tuple[str, ...]:
    """Return every name that `make` knows: the problems written here, then gymnax's.

    "gymnax:NAME" also asks for gymnax's version of a name that is written here, such as "gymnax:CartPole-v1".
    """
    import gymnax

    others = (name for name in gymnax.registered_envs if name not in _NATIVE and name not in _LEFT_OUT)
    return (*_NATIVE, *others)


def make(name: str, **options: Any) -> Environment:
    """Make the environment of that name.

    Args:
        name: one of `available()`; "gymnax:NAME" for gymnax's version of NAME; or "package.module:name" for an
            `Environment` of one's own, or a function that returns one: the module is imported and its code runs.
        **options: of the environment's own `make_*` function; for gymnax's, those of its constructor, and
            `params` and `horizon` as in `from_gymnax`.

    Raises:
        ValueError: on an unknown name, with those that are known, or an unknown option, with those allowed.
    """
    if ":" in name and not name.startswith(_PREFIX):
        return _imported(name, options)
    return make_shipped(name, **options)


def make_shipped(name: str, **options: Any) -> Environment:
    """Make an environment that pgjax or gymnax ships: `make` for names that come from a file, which imports no module.

    Raises:
        ValueError: on an unknown name, one of "package.module:name" among them, or an unknown option.
    """
    if name in _NATIVE:
        module, function = _NATIVE[name]
        factory = getattr(importlib.import_module(f"pgjax.environments.{module}"), function)
        refuse_unknown(name, options, list(inspect.signature(factory).parameters))
        return factory(**options)

    import gymnax

    if name.removeprefix(_PREFIX) not in gymnax.registered_envs:
        close = difflib.get_close_matches(name.removeprefix(_PREFIX), available(), n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(map(repr, close))}? " if close else ""
        raise ValueError(f"no environment is called {name!r}; {hint}known are {', '.join(available())}")
    return dataclasses.replace(from_gymnax(name.removeprefix(_PREFIX), **options), name=name)


def _imported(name: str, options: dict[str, Any]) -> Environment:
    module, _, attribute = name.partition(":")
    wanted = "must be 'package.module:name' of an Environment or of a function that returns one"
    if not module or not attribute:
        raise ValueError(f"environment {name!r} {wanted}")
    try:
        made = getattr(importlib.import_module(module), attribute)
        if isinstance(made, Environment):
            refuse_unknown(name, options, [])
        else:
            made = made(**options)
    except (ImportError, AttributeError, SyntaxError, TypeError) as error:
        raise ValueError(f"environment {name!r} {wanted}: {error}") from error
    if not isinstance(made, Environment):
        raise ValueError(f"environment {name!r} must return a pgjax.types.Environment, got {type(made).__name__}")
    return made
