"""Sticky actions: an environment that sometimes repeats the last action instead of the chosen one."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range
from pgjax.types import Discrete, Environment, PyTree, Step


class StickyState(NamedTuple):
    """The state of the environment, and the action that it executed last (0 before the first step)."""

    state: PyTree
    action: jax.Array


def with_sticky_actions(environment: Environment, probability: float) -> Environment:
    """The environment in which, with the given probability, each step executes the action of the step before.

    A_t is replaced by Ã_{t−1}, the action that was executed last, with Ã_0 = 0; the choice is independent in each step.
    A policy then cannot learn a fixed sequence of actions by heart. Policies and estimators still see the chosen A_t,
    and the randomness counts as part of the transition.

    Args:
        environment: an environment with a `Discrete` action space.
        probability: ς in [0, 1]; 0 returns the environment itself.

    Raises:
        ValueError: for a probability outside [0, 1], or another action space.

    Source: Machado et al. (2018), "Revisiting the Arcade Learning Environment", section 5.

    Example: with probability 1 every step executes action 0, which moves up in the maze, whatever is chosen.

        >>> import jax
        >>> from pgjax import environments
        >>> from pgjax.environments.sticky import with_sticky_actions
        >>> maze = with_sticky_actions(environments.make("maze", layout="G\\nS"), probability=1.0)
        >>> state, _ = maze.reset(jax.random.key(0), maze.params)
        >>> bool(maze.step(jax.random.key(1), state, 2, maze.params)[1].terminated)
        True
    """
    require_in_range("sticky_actions", probability, 0.0, 1.0)
    if probability == 0.0:
        return environment
    if not isinstance(environment.action_space, Discrete):
        raise ValueError(f"sticky_actions needs a Discrete action space, got {environment.action_space!r}")
    dtype = environment.action_space.dtype

    def reset(key: jax.Array, params: PyTree) -> tuple[StickyState, PyTree]:
        state, obs = environment.reset(key, params)
        return StickyState(state=state, action=jnp.zeros((), dtype)), obs

    def step(key: jax.Array, sticky: StickyState, action: jax.Array, params: PyTree) -> tuple[StickyState, Step]:
        repeat_key, step_key = jax.random.split(key)
        repeats = jax.random.uniform(repeat_key, (), jnp.float32) < probability
        executed = jnp.where(repeats, sticky.action, jnp.asarray(action, dtype))
        state, seen = environment.step(step_key, sticky.state, executed, params)
        return StickyState(state=state, action=executed), seen

    render, metrics = environment.render, environment.metrics
    return dataclasses.replace(
        environment,
        reset=reset,
        step=step,
        render=render and (lambda sticky, obs, params: render(sticky.state, obs, params)),
        metrics=metrics and (lambda sticky, obs, params: metrics(sticky.state, obs, params)),
    )
