"""Environments of Jumanji, without its time limits. The package is imported at the first call.

Source: Bonnet et al. (2024), Jumanji: a diverse suite of scalable reinforcement learning environments in JAX.
"""

import copy
import dataclasses
from typing import Any

import jax
import numpy as np

from pgjax._doors import readable
from pgjax.environments.foreign import shared
from pgjax.spaces import Box, Discrete, MultiDiscrete
from pgjax.types import Environment, PyTree, Step


@readable
def from_jumanji(env_or_id: Any, *, horizon: int | None = None, **options: Any) -> Environment:
    """Turn an environment of Jumanji into an `Environment`.

    What differs from the package: many environments of Jumanji report the discount 0 at their time limit, as if the
    problem had ended there. Here the limit inside is moved beyond the horizon, so that an end (`LAST` with discount 0)
    is `terminated`, and only the rollout truncates. Observations are dicts instead of NamedTuples. Jumanji keeps a key
    in its state, with which every restart from this state would repeat itself; the key of the step replaces it.
    The field `action_mask` of an observation becomes `Environment.action_mask` if the actions are discrete.

    Args:
        env_or_id: an id in Jumanji's registry, such as "Game2048-v1", or an environment without wrappers.
        horizon: T; None takes the time limit of the environment, or 1000 if it has none.
        **options: the arguments of Jumanji's constructor if an id is given.

    Raises:
        MissingPackageError: if Jumanji is not installed.
        ValueError: for an unknown id or option, an environment that pays several agents, a wrapper, an action space of
            another kind, or a `horizon` below 1.

    Example:
        >>> from pgjax import environments
        >>> environments.from_jumanji("Game2048-v1").action_space  # doctest: +SKIP
        Discrete(4)
    """
    name = env_or_id if isinstance(env_or_id, str) else type(env_or_id).__name__
    how = {"package": "jumanji", "extra": "jumanji", "wanted_by": f"jumanji:{name}"}
    jumanji, wrappers = (shared.imported(module, **how) for module in ("jumanji", "jumanji.wrappers"))
    if isinstance(env_or_id, str):
        shared.require_known(name, jumanji.registered_environments(), "jumanji")
        env = shared.constructed(f"jumanji:{name}", lambda **options: jumanji.make(name, **options), options)
    else:
        shared.refuse_options(options)
        env = env_or_id
    if isinstance(env, wrappers.Wrapper):
        raise ValueError(f"env_or_id must have no wrapper, got {type(env).__name__}: pass env.unwrapped")
    limit = getattr(env, "time_limit", shared.DEFAULT_HORIZON)
    horizon = int(limit) if horizon is None else horizon
    env = _limited_to(env, horizon + 2)
    if env.reward_spec.shape != ():
        raise ValueError(f"jumanji:{name} pays rewards of shape {list(env.reward_spec.shape)}; pgjax has one agent")
    action_space = _space_of(env.action_spec)
    mask = jax.eval_shape(_raw(env).reset, jax.random.key(0), ())[1]
    has_mask = isinstance(action_space, Discrete) and isinstance(mask, dict) and "action_mask" in mask
    return shared.as_environment(
        f"jumanji:{name}",
        _raw(env),
        action_space=action_space,
        observation_space=_space_of(env.observation_spec),
        action_mask=(lambda obs: obs["action_mask"].astype(bool)) if has_mask else None,
        horizon=horizon,
    )


def _limited_to(env: Any, time_limit: int) -> Any:
    """A copy of the environment with another time limit, if it has one; its bounds of a step count follow."""
    if not hasattr(env, "time_limit"):
        return env
    env = copy.copy(env)
    env.time_limit = time_limit
    for name in ("observation_spec", "action_spec", "reward_spec"):  # cached when the environment was made
        env.__dict__.pop(name, None)
    return env


def _raw(env: Any) -> shared.Raw:
    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        state, seen = env.reset(key)
        return state, _as_dict(seen.observation)

    def step(key: jax.Array, state: Any, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        state, seen = env.step(state.replace(key=key), action)
        obs, terminated = _as_dict(seen.observation), seen.last() & (seen.discount == 0)
        return state, Step(obs=obs, reward=seen.reward, terminated=terminated)

    return shared.Raw(reset=reset, step=step)


def _as_dict(observation: Any) -> PyTree:
    """NamedTuples and dataclasses as dicts, whose fields have the same names."""
    if hasattr(observation, "_asdict"):
        return {name: _as_dict(part) for name, part in observation._asdict().items()}
    if dataclasses.is_dataclass(observation):
        fields = dataclasses.fields(observation)
        return {field.name: _as_dict(getattr(observation, field.name)) for field in fields}
    return observation


def _space_of(spec: Any) -> PyTree:
    """The space of a spec of Jumanji, which is an array with or without bounds, or a tree of specs with names."""
    kinds = {kind.__name__ for kind in type(spec).__mro__}
    if "DiscreteArray" in kinds:
        return Discrete(int(spec.num_values), dtype=spec.dtype)
    if "MultiDiscreteArray" in kinds and np.ndim(spec.num_values) == 1:
        return MultiDiscrete(tuple(int(n) for n in spec.num_values), dtype=spec.dtype)
    if "Array" in kinds:
        floating = np.issubdtype(spec.dtype, np.floating)
        dtype = np.float32 if floating else spec.dtype
        low, high = (getattr(spec, name, end) for name, end in (("minimum", -np.inf), ("maximum", np.inf)))
        return Box(low=np.asarray(low), high=np.asarray(high), shape=tuple(spec.shape), dtype=dtype)
    return {name: _space_of(part) for name, part in spec._specs.items()}
