"""Environments of Gymnasium, which run on the host in NumPy. The package is imported at the first call.

A `HostEnvironment` has what a policy, a trainer and a saved file need: spaces, a horizon and the shapes of the
transition. `rollouts.host_episodes` plays its episodes in a vector environment of Gymnasium, `training.train_on_host`
learns from them by `Trainer.learn`, and `evaluation.evaluate` evaluates a policy on them.

Source: Towers et al. (2024), Gymnasium: a standard interface for reinforcement learning environments.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import spaces
from pgjax._checks import require_integer, require_one_of
from pgjax._doors import readable
from pgjax._records import brief
from pgjax.environments.foreign import shared
from pgjax.types import Environment, PyTree, Step


def _no_lanes(count: int) -> Any:
    raise ValueError("a HostEnvironment needs lanes, a function that makes a vector environment of Gymnasium")


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class HostEnvironment(Environment):
    """An environment whose transition runs on the host, outside of JAX.

    `reset` returns an observation of zeros, for its shape. `step` can be traced, as a trainer does for the shapes of a
    batch, but running it raises an error that names `rollouts.host_episodes`.

    Attributes:
        lanes: `B → gymnasium.vector.VectorEnv` with B environments side by side; the same B gives the same object. It
            must take a list of seeds in `reset`.
    """

    lanes: Callable[[int], Any] = _no_lanes


@readable
def from_gymnasium(
    name: str, *, horizon: int | None = None, vectorization: str = "sync", **options: Any
) -> HostEnvironment:
    """An environment of Gymnasium, by its id.

    What differs from Gymnasium: observations of float64 become float32, and continuous actions are clipped into the
    action space. `truncated` comes from Gymnasium's own limit or from the horizon, whichever is first.

    Args:
        name: an id such as "LunarLander-v3". "module:ID" imports that module first, which runs its code.
        horizon: T; None takes Gymnasium's own limit of this environment.
        vectorization: "sync" steps the environments one after another in this process, "async" each in a process of
            its own.
        **options: the arguments of `gymnasium.make`.

    Raises:
        MissingPackageError: if Gymnasium, or a package that this environment needs, is not installed.
        ValueError: for an unknown id or option, a space that `spaces.as_space` refuses, an environment without a limit
            if `horizon` is None, or another word for `vectorization`.

    Example:
        >>> from pgjax import environments
        >>> environments.from_gymnasium("Acrobot-v1").action_space
        Discrete(3)
    """
    if not isinstance(name, str):
        raise ValueError(f"name must be a text such as 'LunarLander-v3', got {brief(name)}")
    require_one_of("vectorization", vectorization, ("sync", "async"))
    gymnasium = shared.imported("gymnasium", package="gymnasium", extra="gymnasium", wanted_by=f"gymnasium:{name}")
    example = _made(gymnasium, name, options)
    limit = example.spec.max_episode_steps if horizon is None else horizon
    if limit is None:
        raise ValueError(f"gymnasium:{name} has no limit of its own: give its horizon, such as horizon=1000")
    require_integer("horizon", limit, 1, None)
    observation_space, action_space = map(spaces.as_space, (example.observation_space, example.action_space))
    example.close()

    @functools.cache
    def lanes(count: int) -> Any:
        return gymnasium.make_vec(name, num_envs=count, vectorization_mode=vectorization, **options)

    reset, step = _outline(f"gymnasium:{name}", observation_space)
    return HostEnvironment(
        name=f"gymnasium:{name}",
        reset=reset,
        step=step,
        params=(),
        observation_space=observation_space,
        action_space=action_space,
        horizon=int(limit),
        lanes=lanes,
    )


def _made(gymnasium: Any, name: str, options: dict[str, Any]) -> Any:
    try:
        return gymnasium.make(name, **options)
    except gymnasium.error.DependencyNotInstalled as error:
        raise shared.MissingPackageError(
            f"gymnasium:{name} needs a package that is not installed ({error}): {shared.install('gymnasium')}"
        ) from error
    except (gymnasium.error.Error, ImportError, TypeError) as error:
        raise ValueError(f"gymnasium:{name} cannot be made with the options {options}: {error}") from error


def _outline(name: str, space: PyTree) -> tuple[Callable, Callable]:
    """`reset` and `step` that have the right shapes; running `step` raises an error."""

    def nothing() -> PyTree:
        return jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), space, is_leaf=spaces.is_space)

    def refuse(_: Any) -> np.ndarray:
        raise ValueError(
            f"{name} runs on the host and not in JAX: play it with rollouts.host_episodes, and train with "
            "training.train_on_host"
        )

    def reset(key: jax.Array, params: PyTree) -> tuple[jax.Array, PyTree]:
        return jnp.zeros((), jnp.int32), nothing()

    def step(key: jax.Array, state: jax.Array, action: PyTree, params: PyTree) -> tuple[jax.Array, Step]:
        scalar = jax.ShapeDtypeStruct((), jnp.float32)
        reward = jax.pure_callback(refuse, scalar, state, vmap_method="broadcast_all")
        return state, Step(obs=nothing(), reward=reward, terminated=reward > 0)

    return reset, step
