"""Rollouts: complete episodes, one per lane, and continuing windows with auto-reset.

The gradient never differentiates through a rollout: it stores observations, actions and masks, and the estimator
recomputes the log-probabilities. Keys are per episode, so the trajectories do not depend on the number of devices.
Axes: T time, B lanes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_integer
from pgjax.pieces import largest_of_runs
from pgjax.types import Environment, Policy, Trajectory

PyTree = Any


class _Lane(NamedTuple):
    """One running episode: the environment's state, X_t, and whether it still runs."""

    state: PyTree
    obs: PyTree
    alive: jax.Array


def _select(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` where the scalar `condition` holds, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


def _act(policy: Policy, params: PyTree, key: jax.Array, obs: PyTree) -> jax.Array:
    return policy.distribution.sample(key, policy.apply(params, obs))


def chunk_length(horizon: int) -> int:
    """Steps between two looks at whether every lane has ended: the divisor of T nearest to 32 within 16 … 64, else 32.

    Looking costs a synchronisation on an accelerator; not looking costs padded steps.
    """
    divisors = [n for n in range(16, 65) if horizon % n == 0]
    return min(divisors, key=lambda n: abs(n - 32)) if divisors else min(32, horizon)


def episodes(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    keys: jax.Array,
    *,
    env_params: PyTree | None = None,
    env_params_axis: int | None = None,
    chunk: int | None = None,
) -> Trajectory:
    """B complete episodes A_t ~ f(X_t, θ), (X_{t+1}, R_{t+1}) ~ p(X_t, A_t), one per lane, padded to the horizon T.

    Runs in chunks inside a `while_loop` that stops when every lane has ended. A lane that has ended is frozen; its
    rows are not `alive`. The horizon alone sets `truncated`, and only where the problem did not end by itself.

    Args:
        params: the policy's θ.
        keys: typed keys `[B]`, one per episode: the episode is a function of its key and θ.
        env_params: the environment's parameters; its defaults if None.
        env_params_axis: 0 if their leaves have a leading `[B]` (domain randomisation), None if shared.
        chunk: steps between two looks at `any(alive)`; `chunk_length(T)` if None.

    Returns:
        A `Trajectory` `[T, B, ...]`.
    """
    horizon = environment.horizon
    chunk = chunk_length(horizon) if chunk is None else chunk
    require_integer("chunk", chunk, 1, None)
    num_chunks = -(-horizon // chunk)
    env_params = environment.params if env_params is None else env_params

    def reset(key: jax.Array, lane_params: PyTree) -> tuple[_Lane, jax.Array]:
        reset_key, episode_key = jax.random.split(key)
        state, obs = environment.reset(reset_key, lane_params)
        return _Lane(state=state, obs=obs, alive=jnp.ones((), jnp.bool_)), episode_key

    lanes, episode_keys = jax.vmap(reset, (0, env_params_axis))(keys, env_params)

    def step_lane(t: jax.Array, key: jax.Array, lane: _Lane, lane_params: PyTree) -> tuple[_Lane, dict]:
        action = _act(policy, params, jax.random.fold_in(key, 2 * t), lane.obs)
        state, step = environment.step(jax.random.fold_in(key, 2 * t + 1), lane.state, action, lane_params)
        terminated = lane.alive & step.terminated
        truncated = lane.alive & ~terminated & (t + 1 >= horizon)
        row = {
            "obs": lane.obs,
            "actions": action,
            "rewards": jnp.where(lane.alive, step.reward, jnp.zeros_like(step.reward)),
            "alive": lane.alive,
            "terminated": terminated,
            "truncated": truncated,
        }
        # Frozen, because a transition past the end may overflow, and masked infinities still poison gradients.
        state, obs = _select(lane.alive, (state, step.obs), (lane.state, lane.obs))
        return _Lane(state=state, obs=obs, alive=lane.alive & ~(terminated | truncated)), row

    step_lanes = jax.vmap(step_lane, (None, 0, 0, env_params_axis))

    def run_chunk(carry):
        k, lanes, buffers = carry

        def one(lanes: _Lane, t: jax.Array):
            return step_lanes(t, episode_keys, lanes, env_params)

        lanes, rows = jax.lax.scan(one, lanes, k * chunk + jnp.arange(chunk))
        write = lambda buffer, row: jax.lax.dynamic_update_slice_in_dim(buffer, row, k * chunk, axis=0)
        return k + 1, lanes, jax.tree.map(write, buffers, rows)

    _, row = jax.eval_shape(lambda: step_lanes(jnp.zeros((), jnp.int32), episode_keys, lanes, env_params))
    buffers = jax.tree.map(lambda x: jnp.zeros((num_chunks * chunk, *x.shape), x.dtype), row)
    running = lambda carry: (carry[0] < num_chunks) & (largest_of_runs(jnp.any(carry[1].alive).astype(jnp.int32)) > 0)
    _, lanes, buffers = jax.lax.while_loop(running, run_chunk, (jnp.zeros((), jnp.int32), lanes, buffers))
    return Trajectory(**jax.tree.map(lambda x: x[:horizon], buffers), final_obs=lanes.obs)


class Lanes(NamedTuple):
    """Episodes that continue from window to window; every leaf has a leading `[B]`.

    Attributes:
        state, obs: the environment's.
        time: int32, steps taken in the running episode.
        total_reward: of the running episode so far.
        key: typed, one per lane.
        clock: int32, steps taken by the lane since it started; makes every step's randomness its own.
    """

    state: PyTree
    obs: PyTree
    time: jax.Array
    total_reward: jax.Array
    key: jax.Array
    clock: jax.Array


def start_lanes(environment: Environment, keys: jax.Array, *, env_params: PyTree | None = None) -> Lanes:
    """Lanes at the beginning of an episode each; `keys` `[B]`, typed."""
    env_params = environment.params if env_params is None else env_params

    def start(key: jax.Array) -> Lanes:
        reset_key, lane_key = jax.random.split(key)
        state, obs = environment.reset(reset_key, env_params)
        zero = jnp.zeros((), jnp.int32)
        return Lanes(state=state, obs=obs, time=zero, total_reward=jnp.zeros(()), key=lane_key, clock=zero)

    return jax.vmap(start)(keys)


class FinishedEpisodes(NamedTuple):
    """The episodes that ended inside a window: the sum of their total returns, of their lengths, and their number.

    Their mean is biased towards short episodes while the lanes are young: the long ones are still running. Use
    `pgjax.evaluation.evaluate`, which waits for every episode, for a number to report.
    """

    total_return: jax.Array
    length: jax.Array
    count: jax.Array


def window(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    lanes: Lanes,
    num_steps: int,
    *,
    env_params: PyTree | None = None,
) -> tuple[Lanes, Trajectory, FinishedEpisodes]:
    """The next `num_steps` steps of every lane, with a fresh reset whenever an episode ends.

    Episodes are cut at both edges, so the returns inside are not complete: only estimators that bootstrap can learn
    from a window. `next_obs` holds X_{t+1} before any reset; every row is alive.

    Returns:
        The lanes to go on with, a `Trajectory` `[num_steps, B, ...]`, and the episodes that ended inside.
    """
    env_params = environment.params if env_params is None else env_params

    def step_lane(lane: Lanes) -> tuple[Lanes, tuple]:
        step_keys = jax.random.fold_in(lane.key, lane.clock)
        action_key, step_key, reset_key = jax.random.split(step_keys, 3)
        action = _act(policy, params, action_key, lane.obs)
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
        finished = _select(ended, (total_reward, time), (jnp.zeros_like(total_reward), jnp.zeros_like(time)))
        state, obs = _select(ended, environment.reset(reset_key, env_params), (state, step.obs))
        continuing = Lanes(
            state=state,
            obs=obs,
            time=jnp.where(ended, 0, time),
            total_reward=jnp.where(ended, 0.0, total_reward),
            key=lane.key,
            clock=lane.clock + 1,
        )
        return continuing, (row, (*finished, ended))

    lanes, (rows, (total_return, length, ended)) = jax.lax.scan(
        lambda lanes, _: jax.vmap(step_lane)(lanes), lanes, length=num_steps
    )
    final_obs = jax.tree.map(lambda x: x[-1], rows["next_obs"])
    finished = FinishedEpisodes(total_return=jnp.sum(total_return), length=jnp.sum(length), count=jnp.sum(ended))
    return lanes, Trajectory(**rows, final_obs=final_obs), finished
