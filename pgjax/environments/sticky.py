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
        environment: an environment with a `Discrete` action space and without an `action_mask`, because the action of
            the step before may be forbidden now. A tabular environment is refused: `pgjax.exact` reads its
            `TabularMDP`, so every exact number would be that of the problem without sticky actions.
        probability: ς in [0, 1]; 0 returns the environment itself.

    Raises:
        ValueError: for a probability outside [0, 1], another action space, an `action_mask`, or a `TabularMDP`.

    Source: Machado et al. (2018), "Revisiting the Arcade Learning Environment", section 5.

    Example: with probability 1 every step executes action 0, which pushes the cart to the left, whatever is chosen.

        >>> import jax
        >>> from pgjax import environments
        >>> from pgjax.environments.sticky import with_sticky_actions
        >>> cart = with_sticky_actions(environments.make("CartPole-v1"), probability=1.0)
        >>> state, _ = cart.reset(jax.random.key(0), cart.params)
        >>> _, seen = cart.step(jax.random.key(1), state, 1, cart.params)
        >>> bool(seen.obs[1] < 0)  # the velocity of the cart
        True
    """
    require_in_range("sticky_actions", probability, 0.0, 1.0)
    if probability == 0.0:
        return environment
    # `pgjax.exact` takes longer to import than all environments, and most of them need none of it.
    from pgjax.exact.mdp.tabular import TabularMDP

    if not isinstance(environment.action_space, Discrete):
        raise ValueError(f"sticky_actions needs a Discrete action space, got {environment.action_space!r}")
    if environment.action_mask is not None:
        raise ValueError(
            f"sticky_actions must be 0 with {environment.name}, got {probability}: its action_mask may forbid the "
            "action that a step repeats"
        )
    if isinstance(environment.params, TabularMDP):
        raise ValueError(
            f"sticky_actions must be 0 with {environment.name}, got {probability}: its params are a TabularMDP, whose "
            "exact values and gradients are those of the problem without sticky actions"
        )
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
