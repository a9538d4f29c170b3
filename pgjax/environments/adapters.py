"""Convert gymnax environments to `Environment` records, and back. gymnax is imported at the first call.

Both directions use gymnax's raw functions, `reset_env` and `step_env`: they do not reset automatically, and their
`terminated` does not include the time limit.
"""

import functools
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import spaces
from pgjax._doors import readable
from pgjax.environments import rendering
from pgjax.environments.foreign.shared import cast_like, observed_as, strong, unbounded
from pgjax.environments.sticky import with_sticky_actions
from pgjax.spaces import Box, Discrete
from pgjax.types import Environment, PyTree, Step

# Observations of these environments leave the bounds that gymnax 1.0 declares for them.
_WRONG_BOUNDS = ("MemoryChain-bsuite", "MetaMaze-misc", "GaussianBandit-misc")


@readable
def from_gymnax(
    env_or_id: Any,
    params: PyTree = None,
    *,
    horizon: int | None = None,
    sticky_actions: float = 0.0,
    **options: Any,
) -> Environment:
    """Turn a gymnax environment into an `Environment`.

    The dtypes are made fixed, so that the transition can be the body of a scan: state and observation keep the dtypes
    of `reset`, without weak types, and rewards and floating observations are float32. The screens of MinAtar hold only
    0 and 1; they are uint8, which takes a quarter of the memory. The observation space has the shape that `reset`
    returns, whatever gymnax declares, and infinite bounds where the declared bounds are wrong. A continuous action is
    clipped into the action space before gymnax gets it; its log-probability is that of the action before clipping.
    MountainCarContinuous stops at its left wall, as in Gymnasium but not in gymnax.

    Args:
        env_or_id: a gymnax environment, or an id from `gymnax.registered_envs`.
        params: gymnax's `EnvParams`; None takes `env.default_params`.
        horizon: T; None takes `params.max_steps_in_episode`.
        sticky_actions: the probability that the last action is repeated instead of the chosen one; see
            `sticky.with_sticky_actions`. MinAtar's own default is 0.1, that of gymnax is 0.
        **options: the arguments of gymnax's constructor, if `env_or_id` is an id.

    Raises:
        ValueError: for an unknown id or option, an environment that downloads data, a gymnax wrapper, an
            action space that `spaces.as_space` refuses, a `horizon` that is not positive, or sticky actions that
            `with_sticky_actions` refuses.
        ImportError: if gymnax is older than 1.0, where `done` does not tell the end from the time limit.

    Example:
        >>> from pgjax import environments
        >>> environments.from_gymnax("Acrobot-v1", horizon=200)
        Environment(name='Acrobot-v1', horizon=200, observation_space=Box(...), action_space=Discrete(3))
    """
    env = _gymnax_environment(env_or_id, options)
    params = env.default_params if params is None else params
    horizon = int(params.max_steps_in_episode if horizon is None else horizon)
    if horizon < 1:
        raise ValueError(f"horizon must be positive, got {horizon}")
    seen_as = _in_bytes if env.name.endswith("-MinAtar") else observed_as
    like = jax.tree.map(seen_as, jax.eval_shape(env.reset_env, jax.random.key(0), params)[0])
    action_space = spaces.as_space(env.action_space(params))
    repair = _repair_of(env)

    def reset(key: jax.Array, params: PyTree) -> tuple[PyTree, PyTree]:
        obs, state = env.reset_env(key, params)
        return jax.tree.map(strong, state), jax.tree.map(cast_like, obs, like)

    def step(key: jax.Array, state: PyTree, action: jax.Array, params: PyTree) -> tuple[PyTree, Step]:
        action = _fitted(action, action_space, env.action_space(params))
        obs, new_state, reward, terminated, _ = env.step_env(key, state, action, params)
        obs, new_state = repair(obs, new_state, params)
        seen = Step(
            obs=jax.tree.map(cast_like, obs, like),
            reward=jnp.asarray(reward, jnp.float32),
            terminated=jnp.asarray(terminated, bool),
        )
        return jax.tree.map(cast_like, new_state, state), seen

    made = Environment(
        name=env_or_id if isinstance(env_or_id, str) else env.name,
        reset=reset,
        step=step,
        params=params,
        observation_space=_observation_space(env, params, like),
        action_space=action_space,
        horizon=horizon,
        render=_render_of(env.name),
    )
    return with_sticky_actions(made, sticky_actions)


@readable
def to_gymnax(environment: Environment) -> Any:
    """Turn an `Environment` into an instance of gymnax's `Environment`, for libraries that train on gymnax.

    Its `step` resets automatically and truncates at `max_steps_in_episode`, which is T by default. `EnvState` holds
    `time`, the `state` of `environment`, and the last `obs` and `terminated`, which gymnax's `observe` and
    `is_terminated` return; `EnvParams` holds `max_steps_in_episode` and the `params` of `environment`. `from_gymnax` of
    the result gives the same steps as `environment`. Build it once, because gymnax compiles for each instance.

    Raises:
        ValueError: if a space is not discrete, a box, or a dict or tuple of these, because gymnax has no other spaces.
    """
    gymnax_environment, params_class, state_class = _gymnax_classes()
    shown, chosen = (_to_gymnax_space(s) for s in (environment.observation_space, environment.action_space))

    class Adapted(gymnax_environment):
        name = environment.name
        num_actions = sum(map(_num_outputs, jax.tree.leaves(environment.action_space, is_leaf=spaces.is_space)))

        @property
        def default_params(self):
            return params_class(max_steps_in_episode=environment.horizon, params=environment.params)

        def reset_env(self, key, params):
            state, obs = environment.reset(key, params.params)
            start = {"time": jnp.zeros((), jnp.int32), "terminated": jnp.zeros((), bool)}
            return obs, state_class(state=state, obs=obs, **start)

        def step_env(self, key, state, action, params):
            inner, seen = environment.step(key, state.state, action, params.params)
            time = state.time + jnp.ones((), jnp.int32)
            state = state_class(time=time, state=inner, obs=seen.obs, terminated=seen.terminated)
            info = {"discount": self.discount(state, params)}
            return seen.obs, state, seen.reward, seen.terminated, info

        def get_obs(self, state, params=None, key=None):
            return state.obs

        def is_terminated(self, state, params):
            return state.terminated

        def observation_space(self, params=None):
            return shown

        def action_space(self, params=None):
            return chosen

    return Adapted()


@functools.cache
def _gymnax_classes() -> tuple[type, type, type]:
    """gymnax's `Environment`, and the classes of params and state of an adapted environment."""
    from flax import struct
    from gymnax.environments import environment

    @struct.dataclass
    class EnvParams(environment.EnvParams):
        params: Any = ()

    @struct.dataclass
    class EnvState(environment.EnvState):
        state: Any
        obs: Any
        terminated: jax.Array

    return environment.Environment, EnvParams, EnvState


def _gymnax_environment(env_or_id: Any, options: Mapping[str, Any]) -> Any:
    import gymnax
    from gymnax.environments.environment import Environment as GymnaxEnvironment

    if not hasattr(GymnaxEnvironment, "is_truncated"):
        raise ImportError("gymnax 1.0 or later is needed: in older versions `done` mixes the end with the time limit")
    if isinstance(env_or_id, str):
        if env_or_id not in gymnax.registered_envs:
            raise ValueError(f"env_or_id must be one of {sorted(gymnax.registered_envs)}, got {env_or_id!r}")
        if env_or_id == "MNISTBandit-bsuite":
            raise ValueError("MNISTBandit-bsuite downloads its images when it is made, and pgjax downloads nothing")
        if options:
            allowed = list(inspect.signature(type(gymnax.make(env_or_id)[0])).parameters)
            refuse_unknown(env_or_id, options, [*allowed, "params", "horizon", "sticky_actions"])
        return gymnax.make(env_or_id, **options)[0]
    if options:
        raise ValueError(f"options {sorted(options)} need an id in env_or_id, but the environment is already made")
    if not isinstance(env_or_id, GymnaxEnvironment):
        raise ValueError(
            f"env_or_id must be an id or a gymnax Environment, got {type(env_or_id).__name__}; a wrapper "
            "changes only the step that resets by itself: pass the environment inside it"
        )
    return env_or_id


def refuse_unknown(name: str, options: Mapping[str, Any], allowed: list[str]) -> None:
    """Raise a ValueError that names the first of `options` that `name` does not have, and those it has."""
    for option in options:
        if option not in allowed:
            raise ValueError(f"{name} has no option {option!r}; it has {sorted(allowed)}")


def _in_bytes(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jnp.uint8)


def _fitted(action: PyTree, space: PyTree, declared: Any) -> PyTree:
    """The action in its space's dtype; boxes are clipped to the bounds that gymnax declares for these parameters."""
    if isinstance(space, Box):
        return jnp.clip(jnp.asarray(action, space.dtype), declared.low, declared.high)
    if spaces.is_space(space):
        return jnp.asarray(action, space.dtype)
    parts = space if isinstance(space, dict) else range(len(space))
    fitted = {part: _fitted(action[part], space[part], declared.spaces[part]) for part in parts}
    return fitted if isinstance(space, dict) else tuple(fitted.values())


def _num_outputs(space: Discrete | Box) -> int:
    """The number of actions as gymnax counts it: for a box it is the number of its dimensions."""
    return space.n if isinstance(space, Discrete) else math.prod(space.shape)


def _observation_space(env: Any, params: PyTree, like: PyTree) -> PyTree:
    """The declared space with the shape and dtype of `like`; unbounded boxes for structured observations."""
    if not isinstance(like, jax.ShapeDtypeStruct) or env.name in _WRONG_BOUNDS:
        return unbounded(like)
    declared = spaces.as_space(env.observation_space(params))
    if isinstance(declared, Discrete) and like.shape == ():
        return Discrete(declared.n, dtype=like.dtype)
    if isinstance(declared, Box):
        return Box(low=declared.low, high=declared.high, shape=like.shape, dtype=like.dtype)
    return unbounded(like)


def _to_gymnax_space(space: Any) -> Any:
    from gymnax.environments import spaces as gymnax_spaces

    match space:
        case Discrete():
            return gymnax_spaces.Discrete(space.n, dtype=space.dtype)
        case Box():
            low, high = (jnp.asarray(bound) for bound in space.bounds)
            return gymnax_spaces.Box(low, high, space.shape, space.dtype)
        case dict():
            return gymnax_spaces.Dict({name: _to_gymnax_space(part) for name, part in space.items()})
        case tuple():
            return gymnax_spaces.Tuple([_to_gymnax_space(part) for part in space])
    raise ValueError(f"a space must be a Discrete, a Box, or a dict or tuple of them, got {space!r}")


def _repair_of(env: Any) -> Callable[[PyTree, PyTree, PyTree], tuple[PyTree, PyTree]]:
    """A function that corrects (obs, state) after a transition of gymnax that is known to be wrong."""
    from gymnax.environments.classic_control import ContinuousMountainCar

    def stop_at_the_left_wall(obs: PyTree, state: PyTree, params: PyTree) -> tuple[PyTree, PyTree]:
        stopped = (state.position <= params.min_position) & (state.velocity < 0)
        state = state.replace(velocity=jnp.where(stopped, 0.0, state.velocity))
        return env.get_obs(state), state

    if isinstance(env, ContinuousMountainCar):
        return stop_at_the_left_wall
    return lambda obs, state, params: (obs, state)


def _render_of(name: str) -> Callable[[PyTree, PyTree, PyTree], np.ndarray] | None:
    if name.endswith("-MinAtar"):
        return lambda state, obs, params: rendering.minatar(obs)
    return rendering.cartpole_of if name == "CartPole-v1" else None
