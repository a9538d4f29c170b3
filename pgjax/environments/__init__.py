"""The environments: each is a record of pure functions, made by its name.

`make("CartPole-v1")` and the other environments written here need jax alone. Every other id of gymnax goes
through `adapters.from_gymnax`, which imports gymnax when it is called. `foreign` holds the adapters of packages that
pgjax does not require; their names have a prefix, such as "brax:ant". `check` is the conformance suite that
every `Environment` should pass, shipped or written by a user.
"""

import dataclasses
import difflib
import importlib
import inspect
from typing import Any

from pgjax._doors import readable
from pgjax._shown import described
from pgjax.contracts import ConformanceError
from pgjax.environments.adapters import from_gymnax, refuse_unknown, to_gymnax
from pgjax.environments.checking import CheckReport, check
from pgjax.environments.foreign import (
    ADAPTERS,
    HostEnvironment,
    MissingPackageError,
    from_brax,
    from_gymnasium,
    from_jumanji,
    from_navix,
    from_pgx,
    from_playground,
)
from pgjax.environments.random_actions import random_policy, sample_action
from pgjax.types import Environment

__all__ = [
    "CheckReport",
    "ConformanceError",
    "HostEnvironment",
    "MissingPackageError",
    "available",
    "check",
    "from_brax",
    "from_gymnasium",
    "from_gymnax",
    "from_jumanji",
    "from_navix",
    "from_pgx",
    "from_playground",
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
    "random_maze": ("random_maze", "make_random_maze"),
    "lqg": ("linear_gaussian", "make_lqg"),
    "navigation": ("navigation", "make_navigation"),
    "recall": ("recall", "make_recall"),
    "reverse": ("reverse", "make_reverse"),
    "spell_backward": ("spell_backward", "make_spell_backward"),
    "addition": ("addition", "make_addition"),
    "swimmer": ("swimmer", "make_swimmer"),
    "slates": ("slates", "make_slates"),
    "ads": ("ads", "make_ads"),
    "cooling": ("cooling", "make_cooling"),
}
_PREFIX = "gymnax:"
# gymnax downloads data to make these.
_LEFT_OUT = ("MNISTBandit-bsuite",)


@readable
def available() -> tuple[str, ...]:
    """Return every name that `make` knows: the environments written here, then gymnax's.

    If both have an environment of one name, "gymnax:NAME" is gymnax's version, such as "gymnax:CartPole-v1".

    Example:
        >>> from pgjax import environments
        >>> environments.available()[:4]
        ('CartPole-v1', 'corridor', 'four_rooms', 'maze')
    """
    import gymnax

    others = (name for name in gymnax.registered_envs if name not in _NATIVE and name not in _LEFT_OUT)
    return (*_NATIVE, *others)


@readable
def make(name: str, **options: Any) -> Environment:
    """Make the environment of that name.

    Args:
        name: one of `available()`; "gymnax:NAME" for gymnax's version of NAME; "brax:NAME", "gymnasium:NAME",
            "jumanji:NAME", "mjx:NAME", "navix:NAME", "pgx:NAME" or "playground:NAME" for an environment of another
            package, which must be installed; or "package.module:name" for your own `Environment`, or a function that
            returns one: the module is imported and its code runs.
        **options: the arguments of the environment's `make_*` or `from_*` function. For an environment of gymnax they
            are the arguments of its constructor, and `params`, `horizon` and `sticky_actions` as in `from_gymnax`.

    Raises:
        ValueError: for an unknown name or option; the error lists those that are known.
        MissingPackageError: a ValueError, if the package of the environment is not installed; the error gives the
            command that installs it.

    Example:
        >>> from pgjax import environments
        >>> environments.make("maze", slip=0.1, horizon=50)
        Environment(name='maze', horizon=50, observation_space=Box(0.0, 1.0, shape=(33,)), action_space=Discrete(4))
    """
    package, colon, rest = name.partition(":")
    if colon and package in ADAPTERS:
        return ADAPTERS[package](rest, **options)
    if colon and not name.startswith(_PREFIX):
        return _imported(name, options)
    return make_shipped(name, **options)


@readable
def make_shipped(name: str, **options: Any) -> Environment:
    """Make an environment that pgjax or gymnax ships, without importing other modules.

    It is the `make` for names that come from a file, which may not be trusted. It refuses the environments of other
    packages too: making them runs code that pgjax does not ship, and some of them download data.

    Raises:
        ValueError: for an unknown name or option; names such as "package.module:name" and "brax:ant" count as unknown.

    Example:
        >>> from pgjax import environments
        >>> environments.make_shipped("recall", cues=4, delay=2)
        Environment(name='recall', horizon=3, observation_space=Box(0.0, 1.0, shape=(5,)), action_space=Discrete(4))
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
    imported = None
    try:
        imported = importlib.import_module(module)
        made = getattr(imported, attribute)
        if isinstance(made, Environment):
            refuse_unknown(name, options, [])
        else:
            made = made(**options)
    except Exception as error:  # the user's module and function may raise anything
        raise ValueError(f"environment {name!r} {wanted}: {described(error, imported)}") from error
    if not isinstance(made, Environment):
        raise ValueError(f"environment {name!r} must return a pgjax.types.Environment, got {type(made).__name__}")
    return made
