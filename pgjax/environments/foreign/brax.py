"""Environments of Brax, without its wrappers. The package is imported at the first call.

Source: Freeman et al. (2021), Brax: a differentiable physics engine for large scale rigid body simulation. Since
version 0.13 its authors maintain its training code only, and Brax warns of this whenever an environment is made.
"""

from typing import Any

import jax

from pgjax._doors import readable
from pgjax.environments.foreign import shared
from pgjax.spaces import Box
from pgjax.types import Environment, PyTree, Step


@readable
def from_brax(env_or_name: Any, *, horizon: int = shared.DEFAULT_HORIZON, **options: Any) -> Environment:
    """Turn an environment of Brax into an `Environment`.

    What differs from `brax.envs.create`: there is no automatic reset and no time limit, so `done` is `terminated`.
    Actions are clipped to the range of the actuators, as in Brax's own wrapper for Gym.

    Args:
        env_or_name: a name in Brax's registry, such as "ant", or an environment without wrappers.
        horizon: T; 1000 as in `brax.envs.create`.
        **options: the arguments of Brax's constructor if a name is given, such as `backend="spring"`.

    Raises:
        MissingPackageError: if Brax is not installed.
        ValueError: for an unknown name or option, a wrapper, or a `horizon` below 1.

    Example:
        >>> from pgjax import environments
        >>> environments.from_brax("inverted_pendulum", backend="generalized")  # doctest: +SKIP
        Environment(name='brax:inverted_pendulum', horizon=1000, observation_space=Box(...), action_space=Box(...))
    """
    envs = shared.imported("brax.envs", package="brax", extra="brax", wanted_by=f"brax:{_named(env_or_name)}")
    if isinstance(env_or_name, str):
        shared.require_known(env_or_name, envs._envs, "brax")
        env = shared.constructed(f"brax:{env_or_name}", envs._envs[env_or_name], options)
    else:
        shared.refuse_options(options)
        env = env_or_name
    if isinstance(env, envs.Wrapper):
        raise ValueError(f"env_or_name must have no wrapper, got {type(env).__name__}: pass env.unwrapped")
    limits = env.sys.actuator.ctrl_range
    return shared.as_environment(
        f"brax:{_named(env_or_name)}",
        raw_of(env),
        action_space=Box(low=limits[:, 0], high=limits[:, 1], shape=(env.action_size,)),
        horizon=horizon,
    )


def _named(env_or_name: Any) -> str:
    return env_or_name if isinstance(env_or_name, str) else type(env_or_name).__name__


def raw_of(env: Any) -> shared.Raw:
    """The functions of an environment whose state holds `obs`, `reward`, `done` and `info`, as in Brax and Playground.

    Some environments keep a key in `info["rng"]`. The key of the step replaces it, so that the same state with another
    key has another future.
    """

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        state = env.reset(key)
        return state, state.obs

    def step(key: jax.Array, state: Any, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        if "rng" in state.info:
            state = state.replace(info={**state.info, "rng": key})
        state = env.step(state, action)
        return state, Step(obs=state.obs, reward=state.reward, terminated=state.done > 0.5)

    return shared.Raw(reset=reset, step=step)
