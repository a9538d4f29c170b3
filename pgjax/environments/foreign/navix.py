"""Environments of NAVIX (MiniGrid in JAX), without its automatic reset. The package is imported at the first call.

Source: Pignatelli et al. (2024), NAVIX: scaling MiniGrid environments with JAX.
"""

from typing import Any

import jax
import numpy as np

from pgjax._doors import readable
from pgjax.environments.foreign import shared
from pgjax.spaces import Box, Discrete
from pgjax.types import Environment, PyTree, Step

_GREATEST_ENTITY = 10  # the player


@readable
def from_navix(env_or_name: Any, *, horizon: int | None = None, **options: Any) -> Environment:
    """Turn an environment of NAVIX into an `Environment`.

    What differs from the package: NAVIX resets an episode at the step after its end and ignores the action of this
    step; here each step is the plain transition. A step that both ends the problem and reaches the limit is
    `terminated`. NAVIX keeps a key in its state; the key of the step replaces it.
    The bounds of observations are those of MiniGrid where NAVIX declares too narrow ones.

    Args:
        env_or_name: a name in NAVIX's registry, such as "Navix-Empty-5x5-v0", or an environment without wrappers.
        horizon: T; None takes the `max_steps` of the environment, which is 100 for a name.
        **options: the arguments of `navix.make` if a name is given.

    Raises:
        MissingPackageError: if NAVIX is not installed.
        ValueError: for an unknown name or option, or a `horizon` below 1.

    Example:
        >>> from pgjax import environments
        >>> environments.from_navix("Navix-Empty-5x5-v0").horizon  # doctest: +SKIP
        100
    """
    name = env_or_name if isinstance(env_or_name, str) else type(env_or_name).__name__
    navix = shared.imported("navix", package="navix", extra="navix", wanted_by=f"navix:{name}")
    if isinstance(env_or_name, str):
        shared.require_known(name, navix.registry(), "navix")
        env = shared.constructed(f"navix:{name}", lambda **options: navix.make(name, **options), options)
    else:
        shared.refuse_options(options)
        env = env_or_name
    return shared.as_environment(
        f"navix:{name}",
        _raw(env, navix.StepType.TERMINATION),
        action_space=Discrete(len(env.action_set)),
        observation_space=_observation_space(env),
        horizon=int(env.max_steps) if horizon is None else horizon,
    )


def _raw(env: Any, termination: Any) -> shared.Raw:
    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        timestep = env.reset(key)
        return timestep, timestep.observation

    def step(key: jax.Array, timestep: Any, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        timestep = timestep.replace(state=timestep.state.replace(key=key))
        timestep = env._step(timestep, action)
        terminated = timestep.step_type == termination
        return timestep, Step(obs=timestep.observation, reward=timestep.reward, terminated=terminated)

    return shared.Raw(reset=reset, step=step)


def _observation_space(env: Any) -> Box:
    """All bytes for observations in uint8, as MiniGrid declares; NAVIX declares 0 … 8, but its player is the number 10.

    The other observations are numbers of entities, 0 … 10, or have the declared bounds.
    """
    like = jax.eval_shape(env.reset, jax.random.key(0)).observation
    low, high = np.asarray(env.observation_space.minimum), np.asarray(env.observation_space.maximum)
    if np.issubdtype(like.dtype, np.integer):
        high = np.asarray(255 if like.dtype == np.uint8 else np.maximum(high, _GREATEST_ENTITY))
    return Box(low=low, high=high, shape=like.shape, dtype=like.dtype)
