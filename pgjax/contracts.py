"""Checks of environments and trajectories when they enter a function; one error names the first thing that is wrong.

The checks look at structures, shapes and dtypes only. They trace functions but compile and run nothing, and they accept
tracers. `environments.check` checks the values: finite numbers, bounds, and that the same key gives the same result.
"""

import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import spaces
from pgjax._doors import readable
from pgjax._layout import require_layout
from pgjax.types import Environment, PyTree, Step, Trajectory


class ConformanceError(ValueError):
    """The error for an environment that breaks its contract.

    The attribute `property` names the part that is wrong; the message says what the check saw and what it wanted.
    """

    def __init__(self, name: str, property: str, seen: str, wanted: str):
        super().__init__(f"environment {name}: {property}: saw {seen}, wanted {wanted}")
        self.property = property


@readable
def require_trajectory(trajectory: Trajectory) -> None:
    """Require that all fields of a trajectory have the axes and types of `Trajectory`.

    Rewards, returns, log-probabilities and norms of scores must be floats `[T, B]` (`score_norms` also `[1, B]`), and
    masks must be bool `[T, B]`. The leaves of `obs`, `actions` and `next_obs` must begin with the axes `[T, B]`, those
    of `final_obs` and `carry` with `[B]`. The shape of `final_obs` shows whether the fields are batch-major, unless
    T = B.

    Raises:
        ValueError: for the first field that is wrong; the message gives its shape and type and the right ones.
    """
    require_layout(trajectory._asdict())


@readable
def named_leaves(tree: PyTree) -> list[tuple[str, Any]]:
    """The leaves of a tree, each with its path, such as `['pixels']`."""
    return [(jax.tree_util.keystr(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)]


# For each environment, the types of its parameters and of floats (x64) for which it has passed the check.
_kept: weakref.WeakKeyDictionary[Environment, set[Any]] = weakref.WeakKeyDictionary()


@readable
def require_environment(environment: Environment, params: PyTree = None, *, params_axis: int | None = None) -> None:
    """Require that an environment keeps the contract of `Environment`, as far as tracing shows it.

    The horizon must be an integer of at least 1. The spaces must be spaces of pgjax, and observations and actions must
    have their shapes and dtypes. JAX must be able to trace `reset` and `step`. Both must return states and observations
    of the same structure, shapes and strong dtypes, so that a loop can carry them. The reward must be a float scalar
    and `terminated` a bool scalar. The action mask must be bool `[A]`, and the metrics must be a dict of scalars. A
    second check of the same record costs almost nothing.

    Args:
        environment: the environment.
        params: the parameters of the environment; `environment.params` if None.
        params_axis: 0 if the leaves of `params` have a first axis `[B]`, one row for each episode; else None.

    Raises:
        ConformanceError: a ValueError, for the first part that is wrong.
        ValueError: for another `params_axis`.
    """
    require_rows_axis("params_axis", params_axis)
    if not isinstance(environment, Environment):
        raise ValueError(
            "environment must be a pgjax.Environment (environments.from_gymnax converts those of gymnax), got "
            f"{type(environment).__name__}"
        )
    params = _shapes_of(environment, environment.params if params is None else params, params_axis)
    types = jnp.result_type(float), jax.tree.structure(params), tuple(jax.tree.leaves(params))
    if types in _kept.get(environment, ()):
        return
    _require_horizon(environment)
    _require_start_and_step(environment, params)
    _kept.setdefault(environment, set()).add(types)


@readable
def require_rows_axis(name: str, axis: int | None) -> None:
    """Require 0 or None: the leaves of parameters have one row for each episode, or all episodes share them.

    Raises:
        ValueError: for another value; the error names it.
    """
    if axis is not None and (not isinstance(axis, int | np.integer) or isinstance(axis, bool) or axis != 0):
        raise ValueError(f"{name} must be 0 (one row of parameters for each episode) or None (the same), got {axis!r}")


def _shapes_of(env: Environment, params: PyTree, axis: int | None) -> PyTree:
    """The shapes and dtypes of the parameters of one episode; Python's numbers keep their weak type."""
    for path, leaf in named_leaves(params):
        if not isinstance(leaf, jax.Array | np.ndarray | np.generic | bool | int | float | complex):
            raise ConformanceError(env.name, f"params{path}", _kind_of(leaf), "a number or an array")
        if axis is not None and not jnp.ndim(leaf):
            raise ConformanceError(
                env.name, f"params{path}", "a single number", "a first axis [B], as params_axis is 0"
            )

    def shape_of(leaf: Any) -> jax.ShapeDtypeStruct:
        aval = jax.typeof(leaf)
        shape = aval.shape if axis is None else aval.shape[1:]
        return jax.ShapeDtypeStruct(shape, aval.dtype, weak_type=aval.weak_type)

    return jax.tree.map(shape_of, params)


def _require_horizon(env: Environment) -> None:
    is_integer = isinstance(env.horizon, int | np.integer) and not isinstance(env.horizon, bool)
    if not is_integer or env.horizon < 1:
        raise ConformanceError(env.name, "horizon", repr(env.horizon), "an integer of at least 1")


def _require_start_and_step(env: Environment, params: PyTree) -> None:
    key = jax.eval_shape(lambda: jax.random.key(0))
    start = _traced(env, "reset", env.reset, key, params)
    if not isinstance(start, tuple) or len(start) != 2:
        raise ConformanceError(env.name, "reset", _kind_of(start), "a pair (state, obs)")
    state, obs = start
    _require_strong(env, "state of reset", state)
    _require_strong(env, "observation of reset", obs)
    _require_in_space(env, "observation space", env.observation_space, obs)

    action = _sampled(env, key)
    new_state, seen = _traced(env, "step", _checked_step(env), key, state, action, params)
    _require_same_types(env, "state as a scan carry", new_state, state)
    _require_same_types(env, "observation as a scan carry", seen.obs, obs)
    _require_scalar(env, "reward", seen.reward, jnp.floating, "a floating scalar")
    _require_scalar(env, "terminated", seen.terminated, jnp.bool_, "a boolean scalar")
    _require_mask(env, obs)
    _require_metrics(env, state, obs, params)


def _checked_step(env: Environment) -> Callable[..., tuple[PyTree, Step]]:
    """`step` with a check of its results, before tracing turns Python's numbers into arrays."""

    def step(*arguments: PyTree) -> tuple[PyTree, Step]:
        transition = env.step(*arguments)
        if not (isinstance(transition, tuple) and len(transition) == 2 and isinstance(transition[1], Step)):
            raise ConformanceError(env.name, "step", _kind_of(transition), "a pair (state, Step)")
        if isinstance(transition[1].terminated, bool):  # ~True is the number −2
            seen, wanted = f"Python's {transition[1].terminated}", "a boolean scalar, such as jnp.bool_(False)"
            raise ConformanceError(env.name, "terminated", seen, wanted)
        return transition

    return step


def _sampled(env: Environment, key: jax.ShapeDtypeStruct) -> PyTree:
    """The shapes and dtypes of a sampled action, after a check against the action space."""
    _require_spaces(env, "action space", env.action_space)
    action = _traced(env, "action space", lambda key: spaces.sample(env.action_space, key), key)
    _require_in_space(env, "action space", env.action_space, action)
    return action


def _require_mask(env: Environment, obs: PyTree) -> None:
    if env.action_mask is None:
        return
    if not isinstance(env.action_space, spaces.Discrete):
        raise ConformanceError(env.name, "action_mask", f"actions in {env.action_space!r}", "a Discrete action space")
    mask, size = _traced(env, "action_mask", env.action_mask, obs), env.action_space.n
    if not hasattr(mask, "dtype") or mask.shape != (size,) or mask.dtype != bool:
        raise ConformanceError(env.name, "action_mask", _type_of(mask), f"bool [A] = [{size}]")


def _require_metrics(env: Environment, state: PyTree, obs: PyTree, params: PyTree) -> None:
    if env.metrics is None:
        return
    metrics = _traced(env, "metrics", env.metrics, state, obs, params)
    if not isinstance(metrics, dict):
        raise ConformanceError(env.name, "metrics", _kind_of(metrics), "a dict of scalars by their names")
    for name, value in metrics.items():
        number = hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.number) | (value.dtype == bool)
        if not number or value.shape != ():
            raise ConformanceError(env.name, f"metrics[{name!r}]", _type_of(value), "a scalar")


def _traced(env: Environment, what: str, function: Callable[..., Any], *arguments: Any) -> Any:
    """The shapes and dtypes that a function returns; all its errors become a ConformanceError of the environment."""
    try:
        return jax.eval_shape(function, *arguments)
    except ConformanceError:
        raise
    except Exception as error:
        reason = next(iter(str(error).strip().splitlines()), "")
        seen, wanted = f"{type(error).__name__} ({reason})", "a function of arrays that jax can trace"
        if isinstance(error, jax.errors.JAXTypeError | jax.errors.JAXIndexError):
            wanted = "no Python branch on the value of an array"
        raise ConformanceError(env.name, f"{what} can be traced", seen, wanted) from error


def _require_strong(env: Environment, property: str, tree: PyTree) -> None:
    for path, leaf in named_leaves(tree):
        if leaf.weak_type:
            wanted = f"a strong {leaf.dtype}, made by jnp.asarray(x, jnp.{leaf.dtype})"
            raise ConformanceError(env.name, property + path, _type_of(leaf), wanted)


def _require_scalar(env: Environment, property: str, leaf: Any, kind: Any, wanted: str) -> None:
    if not hasattr(leaf, "dtype") or leaf.shape != () or not jnp.issubdtype(leaf.dtype, kind):
        raise ConformanceError(env.name, property, _type_of(leaf), wanted)


def _require_same_types(env: Environment, property: str, tree: PyTree, wanted: PyTree) -> None:
    seen, structure = jax.tree.structure(tree), jax.tree.structure(wanted)
    if seen != structure:
        raise ConformanceError(env.name, property, f"{seen} from step", f"{structure} as from reset")
    for (path, leaf), (_, like) in zip(named_leaves(tree), named_leaves(wanted)):
        if _type_of(leaf) != _type_of(like):
            wanted_type = f"{_type_of(like)} as from reset"
            raise ConformanceError(env.name, property + path, f"{_type_of(leaf)} from step", wanted_type)


def _require_spaces(env: Environment, property: str, space: PyTree) -> None:
    try:
        spaces.leaves(space)
    except ValueError as error:
        wanted = "a Discrete, Box, MultiDiscrete or Slate of pgjax, or a structure of them (see spaces.as_space)"
        raise ConformanceError(env.name, property, repr(space), wanted) from error


def _require_in_space(env: Environment, property: str, space: PyTree, tree: PyTree) -> None:
    """Require that each array has the shape and dtype that its space declares."""
    _require_spaces(env, property, space)
    declared, shown = jax.tree.structure(space, is_leaf=spaces.is_space), jax.tree.structure(tree)
    if declared != shown:
        raise ConformanceError(env.name, property, f"arrays {shown}", f"{declared} as declared")
    for (_, one), (path, leaf) in zip(spaces.leaves(space), named_leaves(tree)):
        wanted = f"{jax.dtypes.canonicalize_dtype(one.dtype)} {list(one.shape)}"
        if _type_of(leaf) != wanted:
            raise ConformanceError(env.name, property + path, _type_of(leaf), f"{wanted} as declared")


def _type_of(leaf: Any) -> str:
    """The dtype and shape of an array, or the name of the type of another object."""
    if not hasattr(leaf, "dtype"):
        return _kind_of(leaf)
    return f"{'weak ' if getattr(leaf, 'weak_type', False) else ''}{leaf.dtype} {list(leaf.shape)}"


def _kind_of(value: Any) -> str:
    """The name of the type; traced arrays are called arrays too."""
    return "array" if isinstance(value, jax.ShapeDtypeStruct | jax.Array) else type(value).__name__
