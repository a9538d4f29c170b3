"""What the adapters share: lazy imports that refuse clearly, fixed dtypes, and the record that they fill."""

import difflib
import importlib
import math
from collections.abc import Callable, Iterable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import spaces
from pgjax._checks import is_typed_key, require_integer
from pgjax.spaces import Box
from pgjax.types import Environment, PyTree, Step

# The horizon where a package has no time limit of its own.
DEFAULT_HORIZON = 1000


class MissingPackageError(ImportError, ValueError):
    """The error for an environment whose package is not installed; the message gives the command that installs it."""


def install(extra: str) -> str:
    """The command that installs an extra of pgjax, which is in no index of packages."""
    return f'pip install -e ".[{extra}]" in the folder of pgjax'


def imported(module: str, *, package: str, extra: str, wanted_by: str) -> ModuleType:
    """Import a module of a package that pgjax does not require.

    Args:
        module: the name of the module.
        package: the name of the package, for the error.
        extra: the extra of pgjax that installs the package.
        wanted_by: what needs the package, for the error.

    Raises:
        MissingPackageError: if the package, or a package that it imports, is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingPackageError(
            f"{wanted_by} needs the package {package}, which cannot be imported ({error}): {install(extra)}"
        ) from error


def require_known(name: str, known: Iterable[str], prefix: str) -> None:
    """Require that a package has an environment of that name.

    Raises:
        ValueError: if it does not; the error lists the names that the package has.
    """
    known = sorted(known)
    if name not in known:
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.4)
        hint = f"did you mean {' or '.join(repr(f'{prefix}:{near}') for near in close)}? " if close else ""
        raise ValueError(f"{prefix} has no environment {name!r}; {hint}known are {', '.join(known)}")


def constructed(name: str, constructor: Callable[..., Any], options: Mapping[str, Any]) -> Any:
    """What a package makes with these options; a ValueError instead of a TypeError if it does not know an option."""
    try:
        return constructor(**options)
    except (TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{name} cannot be made with the options {dict(options)}: {error}") from error


def refuse_options(options: Mapping[str, Any]) -> None:
    """Raise a ValueError if options are given together with an environment that is already made."""
    if options:
        raise ValueError(f"options {sorted(options)} need a name, but the environment is already made")


class Raw(NamedTuple):
    """An environment of another package, as functions of one episode without a time limit.

    Attributes:
        reset: `(key, params) → (state, obs)`.
        step: `(key, state, action, params) → (state, Step)`; its dtypes may be weak or may change.
    """

    reset: Callable[[jax.Array, PyTree], tuple[PyTree, PyTree]]
    step: Callable[[jax.Array, PyTree, PyTree, PyTree], tuple[PyTree, Step]]


def as_environment(
    name: str,
    raw: Raw,
    *,
    action_space: PyTree,
    horizon: int,
    observation_space: PyTree = None,
    params: PyTree = (),
    metrics: Callable[[PyTree, PyTree, PyTree], dict[str, jax.Array]] | None = None,
    action_mask: Callable[[PyTree], jax.Array] | None = None,
) -> Environment:
    """The record of `raw` with fixed dtypes, so that its transition can be the body of a scan.

    State and observation keep the dtypes of `reset`, without weak types; rewards and floating observations are float32.
    Continuous actions are clipped into the action space. A step gets a copy of the containers of the state, because
    some packages change the dicts that they are given.

    Args:
        observation_space: None takes boxes without bounds, of the shapes and dtypes that `reset` returns.

    Raises:
        ValueError: if `horizon` is not an integer of at least 1.
    """
    require_integer("horizon", horizon, 1, None)
    like = jax.tree.map(observed_as, jax.eval_shape(raw.reset, jax.random.key(0), params)[1])

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        state, obs = raw.reset(key, params)
        return jax.tree.map(strong, state), jax.tree.map(cast_like, obs, like)

    def step(key: jax.Array, state: PyTree, action: PyTree, params: PyTree) -> tuple[PyTree, Step]:
        copied = jax.tree.map(lambda leaf: leaf, state)
        action = jax.tree.map(_fitted, action_space, action, is_leaf=spaces.is_space)
        new_state, seen = raw.step(key, copied, action, params)
        step = Step(
            obs=jax.tree.map(cast_like, seen.obs, like),
            reward=jnp.asarray(seen.reward, jnp.float32),
            terminated=jnp.asarray(seen.terminated, bool),
        )
        return jax.tree.map(cast_like, new_state, state), step

    return Environment(
        name=name,
        reset=reset,
        step=step,
        params=params,
        observation_space=unbounded(like) if observation_space is None else observation_space,
        action_space=action_space,
        horizon=horizon,
        action_mask=action_mask,
        metrics=metrics,
    )


def unbounded(like: PyTree) -> PyTree:
    """Boxes without bounds, of the shapes and dtypes of a tree."""
    return jax.tree.map(lambda leaf: Box(low=-math.inf, high=math.inf, shape=leaf.shape, dtype=leaf.dtype), like)


def strong(leaf: Any) -> jax.Array:
    """The leaf as an array without a weak type."""
    leaf = jnp.asarray(leaf)
    return cast_like(leaf, leaf)


def cast_like(leaf: Any, like: Any) -> jax.Array:
    """The leaf with the dtype of `like`, strongly typed."""
    return leaf if is_typed_key(like) else jnp.asarray(leaf, like.dtype)


def observed_as(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    """The shape and dtype in which an observation is shown: every float type becomes float32."""
    floating = jnp.issubdtype(leaf.dtype, jnp.floating)
    return jax.ShapeDtypeStruct(leaf.shape, jnp.float32 if floating else leaf.dtype)


def _fitted(space: Any, action: Any) -> jax.Array:
    """The action in its space's dtype, clipped to the bounds of a box."""
    action = jnp.asarray(action, space.dtype)
    return jnp.clip(action, *map(np.asarray, space.bounds)) if isinstance(space, Box) else action
