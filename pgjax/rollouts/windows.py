"""Continuing windows: the next steps of lanes whose episodes reset automatically. Axes: T time, B lanes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._checks import require_integer, require_kind
from pgjax._doors import readable
from pgjax._shards import over_episode_shards
from pgjax.contracts import require_environment
from pgjax.rollouts._steps import TRAJECTORY_AXES, act, require_keys, select
from pgjax.types import Environment, Policy, PyTree, Trajectory


class Lanes(NamedTuple):
    """Episodes that continue from window to window; every leaf has a leading axis `[B]`.

    Attributes:
        state, obs: the environment's state and the observation X_t.
        time: int32, the number of steps taken in the running episode.
        total_reward: the sum of the running episode's rewards so far.
        key: one typed key per lane.
        clock: int32, the number of steps that the lane has taken since it started; it gives each step its own random
            numbers.
        carry: what the policy remembers of the running episode, `()` for a policy without memory. Parts of it were
            computed with the θ of earlier windows.
    """

    state: PyTree
    obs: PyTree
    time: jax.Array
    total_reward: jax.Array
    key: jax.Array
    clock: jax.Array
    carry: PyTree


@readable
def start_lanes(
    environment: Environment, policy: Policy, params: PyTree, keys: jax.Array, *, env_params: PyTree | None = None
) -> Lanes:
    """B lanes, each at the beginning of an episode; a policy with memory starts its memory there.

    Args:
        keys: typed keys `[B]`, one per lane.
        env_params: the environment's parameters; None takes `environment.params`.

    Raises:
        ValueError: if the environment breaks its contract, or the keys are not typed keys `[B]`.
    """
    require_environment(environment, env_params)
    require_keys(keys)
    env_params = environment.params if env_params is None else env_params

    def start(key: jax.Array) -> Lanes:
        reset_key, lane_key = jax.random.split(key)
        state, obs = environment.reset(reset_key, env_params)
        zero = jnp.zeros((), jnp.int32)
        return Lanes(
            state=state,
            obs=obs,
            time=zero,
            total_reward=jnp.zeros(()),
            key=lane_key,
            clock=zero,
            carry=acting.start(policy, params, obs),
        )

    return jax.vmap(start)(keys)


class FinishedEpisodes(NamedTuple):
    """The episodes that ended inside a window: the sum of their total returns, the sum of their lengths, their number.

    In the first windows their mean is biased towards short episodes, because the long ones are still running. To report
    a mean return use `pgjax.evaluation.evaluate`, which waits for the end of every episode.
    """

    total_return: jax.Array
    length: jax.Array
    count: jax.Array


@readable
def window(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    lanes: Lanes,
    num_steps: int,
    *,
    env_params: PyTree | None = None,
    record_log_probs: bool = False,
) -> tuple[Lanes, Trajectory, FinishedEpisodes]:
    """The next `num_steps` steps of every lane, with a fresh reset whenever an episode ends.

    A window cuts episodes at both edges, so their returns are not complete, and only estimators that bootstrap can
    learn from a window. `next_obs` holds X_{t+1} before any reset, and every row is alive. A policy with memory starts
    its memory anew where an episode ended. `carry` is the memory at row 0. It was computed with the θ of earlier
    windows, which biases the gradient; this bias shrinks with the learning rate. Under a mesh with an axis `episodes`
    every device plays its share of the lanes.

    Args:
        lanes: what `start_lanes` or the last window returned.
        env_params: the environment's parameters; None takes `environment.params`.
        record_log_probs: whether `behaviour_log_probs` are recorded as the actions are drawn.

    Returns:
        The lanes for the next window, a `Trajectory` `[num_steps, B, ...]`, and the episodes that ended inside.

    Raises:
        ValueError: if the environment breaks its contract, `lanes` are no lanes, or `num_steps` is below one.
    """
    require_environment(environment, env_params)
    require_kind("lanes", lanes, Lanes, "rollouts.start_lanes(environment, policy, params, keys)")
    require_integer("num_steps", num_steps, 1, None)
    env_params = environment.params if env_params is None else env_params
    run = functools.partial(_window, environment, policy, num_steps=num_steps, record_log_probs=record_log_probs)
    continuing, trajectory, ended = over_episode_shards(
        run, (params, lanes, env_params), in_axes=(None, 0, None), out_axes=(0, _WINDOW_AXES, 1)
    )
    total_return, length, count = jax.tree.map(jnp.sum, ended)
    return continuing, trajectory, FinishedEpisodes(total_return=total_return, length=length, count=count)


_WINDOW_AXES = TRAJECTORY_AXES._replace(next_obs=1, carry=0)


def _window(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    lanes: Lanes,
    env_params: PyTree,
    *,
    num_steps: int,
    record_log_probs: bool,
) -> tuple[Lanes, Trajectory, tuple[jax.Array, jax.Array, jax.Array]]:
    """The lanes, the window, and `[T, B]` each: total return and length of an episode at its end, and where it ends."""

    def step_lane(lane: Lanes) -> tuple[Lanes, tuple]:
        step_keys = jax.random.fold_in(lane.key, lane.clock)
        action_key, step_key, reset_key = jax.random.split(step_keys, 3)
        action, carry, log_prob = act(policy, params, action_key, lane.carry, lane.obs, record_log_probs)
        state, step = environment.step(step_key, lane.state, action, env_params)
        time, total_reward = lane.time + 1, lane.total_reward + step.reward
        truncated = ~step.terminated & (time >= environment.horizon)
        ended = step.terminated | truncated
        row = {
            "obs": lane.obs,
            "actions": action,
            "rewards": step.reward,
            "alive": jnp.ones((), jnp.bool_),
            "terminated": step.terminated,
            "truncated": truncated,
            "next_obs": step.obs,
        }
        if log_prob is not None:
            row["behaviour_log_probs"] = log_prob
        finished = select(ended, (total_reward, time), (jnp.zeros_like(total_reward), jnp.zeros_like(time)))
        state, obs = select(ended, environment.reset(reset_key, env_params), (state, step.obs))
        if policy.memory is not None:
            carry = select(ended, acting.start(policy, params, obs), carry)
        continuing = Lanes(
            state=state,
            obs=obs,
            time=jnp.where(ended, 0, time),
            total_reward=jnp.where(ended, 0.0, total_reward),
            key=lane.key,
            clock=lane.clock + 1,
            carry=carry,
        )
        return continuing, (row, (*finished, ended))

    first_carry = lanes.carry if policy.memory is not None else None
    lanes, (rows, ended) = jax.lax.scan(lambda lanes, _: jax.vmap(step_lane)(lanes), lanes, length=num_steps)
    final_obs = jax.tree.map(lambda x: x[-1], rows["next_obs"])
    return lanes, Trajectory(**rows, final_obs=final_obs, carry=first_carry), ended
