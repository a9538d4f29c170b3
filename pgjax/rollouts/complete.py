"""Complete episodes, one per lane, padded to the horizon. Axes: T time, B lanes."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax._shards import EPISODES_AXIS, over_episode_shards
from pgjax.contracts import require_environment
from pgjax.rollouts._steps import TRAJECTORY_AXES, act, require_keys, select
from pgjax.rows import largest_of_runs
from pgjax.types import Environment, Policy, PyTree, Trajectory


class _Lane(NamedTuple):
    """One running episode: the environment's state, X_t, whether it still runs, and what the policy remembers."""

    state: PyTree
    obs: PyTree
    alive: jax.Array
    carry: PyTree


@readable
def chunk_length(horizon: int) -> int:
    """The number of steps between two checks whether every lane has ended.

    It is the divisor of T in 16 … 64 that is nearest to 32, or min(32, T) if there is none. A check costs a
    synchronisation on an accelerator; long chunks cost padded steps.

    Example:
        >>> from pgjax import rollouts
        >>> rollouts.chunk_length(horizon=500), rollouts.chunk_length(horizon=10)
        (25, 10)
    """
    divisors = [n for n in range(16, 65) if horizon % n == 0]
    return min(divisors, key=lambda n: abs(n - 32)) if divisors else min(32, horizon)


@readable
def episodes(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    keys: jax.Array,
    *,
    env_params: PyTree | None = None,
    env_params_axis: int | None = None,
    group_size: int = 1,
    record_log_probs: bool = False,
    chunk: int | None = None,
) -> Trajectory:
    """B complete episodes A_t ~ f(X_t, θ), (X_{t+1}, R_{t+1}) ~ p(X_t, A_t), one per lane, padded to the horizon T.

    The lanes run in chunks inside a `while_loop`, which stops when every lane has ended. A lane that has ended is
    frozen, and its rows are not `alive`. A step is `truncated` if it reaches the horizon and the problem does not end
    by itself there. Under a mesh with an axis `episodes` every device plays its share of the lanes.

    Args:
        params: the policy's θ.
        keys: typed keys `[B]`, one per episode: the episode is a function of its key, its group's first key and θ.
        env_params: the environment's parameters; None takes `environment.params`.
        env_params_axis: 0 if the leaves of `env_params` have a leading axis `[B]` (domain randomisation), None if all
            lanes share them. The episodes of a group share a start only if their parameters are equal.
        group_size: k. Every k consecutive lanes share the key of `reset`, and so the start X_1 (the same prompt or
            problem). After the start each lane draws its own random numbers.
        record_log_probs: whether `behaviour_log_probs` are recorded as the actions are drawn.
        chunk: the number of steps between two checks whether every lane has ended; None takes `chunk_length(T)`.

    Returns:
        A `Trajectory` `[T, B, ...]`.

    Raises:
        ValueError: if the environment breaks its contract, the keys are not typed keys `[B]`, a size is below one, or
            `group_size` does not divide the number of keys.

    Example: four episodes of at most ten steps; the lane is the second axis of every array.

        >>> import jax
        >>> from pgjax import environments, rollouts
        >>> environment = environments.make("corridor", horizon=10)
        >>> policy = environments.random_policy(environment)
        >>> keys = jax.random.split(jax.random.key(0), 4)
        >>> play = lambda: rollouts.episodes(environment, policy, (), keys)  # a random policy has no parameters
        >>> jax.eval_shape(play).rewards
        ShapeDtypeStruct(shape=(10, 4), dtype=float32)
    """
    require_environment(environment, env_params, params_axis=env_params_axis)
    require_keys(keys)
    require_integer("group_size", group_size, 1, None)
    if keys.shape[0] % group_size:
        raise ValueError(f"group_size must divide the number of episodes, {keys.shape[0]}, got {group_size}")
    chunk = chunk_length(environment.horizon) if chunk is None else chunk
    require_integer("chunk", chunk, 1, None)
    env_params = environment.params if env_params is None else env_params
    run = functools.partial(
        _episodes,
        environment,
        policy,
        env_params_axis=env_params_axis,
        group_size=group_size,
        record_log_probs=record_log_probs,
        chunk=chunk,
    )
    return over_episode_shards(
        run,
        (params, keys, env_params),
        in_axes=(None, 0, env_params_axis),
        out_axes=TRAJECTORY_AXES,
        multiple=group_size,
    )


def _episodes(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    keys: jax.Array,
    env_params: PyTree,
    *,
    env_params_axis: int | None,
    group_size: int,
    record_log_probs: bool,
    chunk: int,
) -> Trajectory:
    horizon = environment.horizon
    num_chunks = -(-horizon // chunk)

    def begin(first_key: jax.Array, lane_params: PyTree) -> _Lane:
        reset_key, _ = jax.random.split(first_key)
        state, obs = environment.reset(reset_key, lane_params)
        carry = acting.start(policy, params, obs)
        return _Lane(state=state, obs=obs, alive=jnp.ones((), jnp.bool_), carry=carry)

    # The lanes of a group have equal starts, so each prompt is read once, unless each lane has parameters of its own.
    alike = group_size if env_params_axis is None else 1
    first_keys = jnp.repeat(keys[::group_size], group_size // alike)
    starts = jax.vmap(begin, (0, env_params_axis))(first_keys, env_params)
    lanes = jax.tree.map(lambda x: jnp.repeat(x, alike, axis=0), starts)
    episode_keys = jax.vmap(lambda key: jax.random.split(key)[1])(keys)

    def step_lane(
        t: jax.Array, action_key: jax.Array, step_key: jax.Array, lane: _Lane, lane_params: PyTree
    ) -> tuple[_Lane, dict]:
        action, carry, log_prob = act(policy, params, action_key, lane.carry, lane.obs, record_log_probs)
        state, step = environment.step(step_key, lane.state, action, lane_params)
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
        if log_prob is not None:
            row["behaviour_log_probs"] = jnp.where(lane.alive, log_prob, jnp.zeros_like(log_prob))
        # A lane that has ended is frozen: a step past the end may overflow, and even a masked infinity makes gradients
        # NaN.
        state, obs = select(lane.alive, (state, step.obs), (lane.state, lane.obs))
        return _Lane(state=state, obs=obs, alive=lane.alive & ~(terminated | truncated), carry=carry), row

    # The function is traced once, for the shapes and for the loop; `inline` keeps it from being a call in the program.
    step_lanes = jax.jit(jax.vmap(step_lane, (None, 0, 0, 0, env_params_axis)), inline=True)

    def run_chunk(carry):
        k, _, lanes, buffers = carry

        def one(lanes: _Lane, at: tuple[jax.Array, jax.Array, jax.Array]):
            return step_lanes(*at, lanes, env_params)

        times = k * chunk + jnp.arange(chunk)
        lanes, rows = jax.lax.scan(one, lanes, (times, *_step_keys(episode_keys, times)))
        write = lambda buffer, row: jax.lax.dynamic_update_slice_in_dim(buffer, row, k * chunk, axis=0)
        return k + 1, _any_alive(lanes), lanes, jax.tree.map(write, buffers, rows)

    _, row = jax.eval_shape(lambda: step_lanes(jnp.zeros((), jnp.int32), episode_keys, episode_keys, lanes, env_params))
    buffers = jax.tree.map(lambda x: jnp.zeros((num_chunks * chunk, *x.shape), x.dtype), row)
    running = lambda carry: (carry[0] < num_chunks) & carry[1]
    start = (jnp.zeros((), jnp.int32), jnp.ones((), jnp.bool_), lanes, buffers)
    _, _, lanes, buffers = jax.lax.while_loop(running, run_chunk, start)
    return Trajectory(**jax.tree.map(lambda x: x[:horizon], buffers), final_obs=lanes.obs)


def _step_keys(episode_keys: jax.Array, times: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of the actions and of the transitions at these times, `[len(times), B]` each.

    They are made for many steps at once, because a hash consists of many small operations, and starting each one costs
    time.
    """
    fold_in = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))
    return fold_in(episode_keys, 2 * times), fold_in(episode_keys, 2 * times + 1)


def _any_alive(lanes: _Lane) -> jax.Array:
    """Whether any lane still runs, on any device and in any run that shares the loop: all then have equal padding."""
    return largest_of_runs(jnp.any(lanes.alive).astype(jnp.int32), EPISODES_AXIS) > 0
