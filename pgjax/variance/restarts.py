"""Restarts: states that a policy visits, and new futures of each of them.

An environment's state is a pytree and its transition is a pure function, so an episode can be continued from any state
any number of times. Axes: N visited states.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax.acting import require_memoryless
from pgjax.contracts import require_environment
from pgjax.types import Environment, Policy, PyTree


class VisitedStates(NamedTuple):
    """States of independent episodes, leaves `[N, ...]`, or one of them without that axis.

    Attributes:
        state, obs: the environment's state and X_t.
        time: t, int32, the number of steps before the state.
        weight: the weights with which a mean over the states is an average over the visitation.
    """

    state: PyTree
    obs: PyTree
    time: jax.Array
    weight: jax.Array


@readable
def visited_states(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    key: jax.Array,
    num_states: int,
    *,
    time: ArrayLike | None = None,
    env_params: PyTree | None = None,
) -> VisitedStates:
    """One state of each of N independent episodes, weighted so that the weighted mean is that of the visitation.

    From an episode of L steps one live step is taken, each with probability 1/L, and its weight is L; with equal
    weights the states of short episodes would count too much. Then

        Σ_i w_i f(t_i, S_i) / Σ_i w_i → Σ_t E[f(t, S_t); alive at t] / E[L],

    and the terms are independent, which a standard error needs. If `time` is given, all states are those at t = `time`,
    with weight 1 if the episode still ran then and 0 if not.

    Args:
        key: consumed.
        num_states: N.
        time: one step t in 0, …, T − 1, or None for all steps.
        env_params: the environment's parameters; None takes `environment.params`.

    Raises:
        ValueError: for N < 1, a time outside 0, …, T − 1, an environment that breaks its contract, or a policy that
            needs its memory, which is not part of the state.
    """
    require_environment(environment, env_params)
    require_memoryless(policy, "visited_states")
    require_integer("num_states", num_states, 1, None)
    check_time(environment, time)
    env_params = environment.params if env_params is None else env_params
    visit = lambda key: visit_one(environment, policy, params, key, time, env_params)
    return jax.vmap(visit)(jax.random.split(key, num_states))


@readable
def check_time(environment: Environment, time: ArrayLike | None) -> None:
    """Require None, or a step t in 0, …, T − 1; raise a ValueError otherwise."""
    if time is not None:
        require_integer("time", time, 0, environment.horizon - 1)


@readable
def visit_one(
    environment: Environment, policy: Policy, params: PyTree, key: jax.Array, time: ArrayLike | None, env_params: PyTree
) -> VisitedStates:
    """Play one episode and choose one of its states by reservoir sampling, which stores no other states."""
    apply = require_memoryless(policy, "visited_states")
    reset_key, episode_key = jax.random.split(key)
    state, obs = environment.reset(reset_key, env_params)
    zero = jnp.zeros((), jnp.int32)
    held = VisitedStates(state=state, obs=obs, time=zero, weight=jnp.zeros(()))
    last = environment.horizon if time is None else jnp.asarray(time, jnp.int32) + 1

    def one(carry):
        t, _, state, obs, held = carry
        hold_key, action_key, step_key = jax.random.split(jax.random.fold_in(episode_key, t), 3)
        if time is None:
            taken, weight = jax.random.uniform(hold_key) * (t + 1) < 1.0, held.weight + 1.0
        else:
            taken = t + 1 == last
            weight = taken.astype(held.weight.dtype)
        seen = VisitedStates(state=state, obs=obs, time=t, weight=weight)
        held = jax.tree.map(lambda new, old: jnp.where(taken, new, old), seen, held)._replace(weight=weight)
        action = policy.distribution.sample(action_key, apply(params, obs))
        state, step = environment.step(step_key, state, action, env_params)
        return t + 1, ~step.terminated, state, step.obs, held

    running = lambda carry: carry[1] & (carry[0] < last)
    return jax.lax.while_loop(running, one, (zero, jnp.ones((), jnp.bool_), state, obs, held))[-1]


@readable
def restarted_return(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    key: jax.Array,
    start: VisitedStates,
    action: jax.Array,
    *,
    discount: ArrayLike = 1.0,
    env_params: PyTree | None = None,
) -> jax.Array:
    """G_t = Σ_{i ≥ t} γ^{i−t} R_{i+1} of one new future of (X_t, A_t), `[]`; use `jax.vmap` for many.

    The episode continues from `start` with `action`, then with actions of the policy, to its end or to the horizon: at
    step t it has T − t steps left. The return does not bootstrap at the horizon.

    The future is new only if the environment draws its random numbers from the key of `step`. An environment that keeps
    a key in its state repeats the same future.

    Args:
        key: consumed; another key gives another future.
        start: one visited state (without a leading axis).
        action: A_t.
        discount: γ.
        env_params: the environment's parameters; None takes `environment.params`.

    Raises:
        ValueError: for a discount outside [0, 1], an environment that breaks its contract, or a policy that needs its
            memory.
    """
    require_environment(environment, env_params)
    apply = require_memoryless(policy, "restarted_return")
    require_in_range("discount", discount, 0.0, 1.0)
    env_params = environment.params if env_params is None else env_params
    reward = jax.eval_shape(environment.step, key, start.state, action, env_params)[1].reward
    gamma = jnp.asarray(discount, reward.dtype)

    def one(carry):
        t, _, state, action, total, factor = carry
        step_key, action_key = jax.random.split(jax.random.fold_in(key, t))
        state, step = environment.step(step_key, state, action, env_params)
        following = policy.distribution.sample(action_key, apply(params, step.obs))
        return t + 1, ~step.terminated, state, following, total + factor * step.reward, factor * gamma

    running = lambda carry: carry[1] & (carry[0] < environment.horizon)
    zero, one_factor = jnp.zeros((), reward.dtype), jnp.ones((), reward.dtype)
    carry = (start.time, jnp.ones((), jnp.bool_), start.state, action, zero, one_factor)
    return jax.lax.while_loop(running, one, carry)[4]
