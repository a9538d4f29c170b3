"""Complete episodes, one per lane, padded to the horizon. Axes: T time, B lanes."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax._shards import over_episode_shards
from pgjax.contracts import named_leaves, require_environment, require_rows_axis
from pgjax.rollouts import _tiles as tiles
from pgjax.rollouts._steps import TRAJECTORY_AXES, act, require_keys, select
from pgjax.rollouts._tiles import Running
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
    tile: int | None = None,
) -> Trajectory:
    """B complete episodes A_t ~ f(X_t, θ), (X_{t+1}, R_{t+1}) ~ p(X_t, A_t), one per lane, padded to the horizon T.

    All lanes step at once, in chunks of steps inside a `while_loop`, until at most half of them are alive. Then the
    live lanes move together after each chunk, and only the tiles of lanes that hold a live one step, so ended episodes
    cost little while long ones still run. Every episode is played to its end: no length is preferred, and an episode
    does not depend on the others, except that products with another number of lanes may round differently. The rows
    after the end of an episode are not `alive` and hold zeros. A step is `truncated` if it reaches the horizon and the
    problem does not end by itself there. Under a mesh with an axis `episodes` every device plays its share of the
    episodes.

    Args:
        params: the policy's θ.
        keys: typed keys `[B]`, one per episode: the episode is a function of its key, its group's first key and θ.
        env_params: the environment's parameters; None takes `environment.params`.
        env_params_axis: 0 if the leaves of `env_params` have a leading axis `[B]` (domain randomisation), None if all
            lanes share them. The episodes of a group share a start only if their parameters are equal.
        group_size: k. Every k consecutive lanes share the key of `reset`, and so the start X_1 (the same prompt or
            problem). After the start each lane draws its own random numbers.
        record_log_probs: whether `behaviour_log_probs` are recorded as the actions are drawn.
        chunk: the number of steps between two checks which lanes have ended; None takes `chunk_length(T)`.
        tile: the largest number of lanes in a tile, at least 2. A tile has w lanes, and w is the largest even divisor
            of B (on each device) that is at most `tile` and above a quarter of it. Without such a divisor, or if B is
            less than 2 `tile`, all lanes step until the last one has ended, and less is compiled. None takes 128 on a
            CPU and 2¹⁷ on an accelerator, and no tiles if B is less than four times this number.

    Returns:
        A `Trajectory` `[T, B, ...]`.

    Raises:
        ValueError: if the environment breaks its contract, the keys are not typed keys `[B]`, a size is below one,
            `group_size` does not divide the number of keys, or the environment's parameters have no row for each key
            although `env_params_axis` is 0.

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
    require_keys(keys)
    require_rows_axis("env_params_axis", env_params_axis)
    require_environment(environment, env_params, params_axis=env_params_axis)
    if env_params_axis is not None:
        _require_rows(environment.params if env_params is None else env_params, keys.shape[0])
    require_integer("group_size", group_size, 1, None)
    if keys.shape[0] % group_size:
        raise ValueError(f"group_size must divide the number of episodes, {keys.shape[0]}, got {group_size}")
    chunk = chunk_length(environment.horizon) if chunk is None else chunk
    require_integer("chunk", chunk, 1, None)
    if tile is not None:
        require_integer("tile", tile, 2, None)
    env_params = environment.params if env_params is None else env_params
    run = functools.partial(
        _episodes,
        environment,
        policy,
        env_params_axis=env_params_axis,
        group_size=group_size,
        record_log_probs=record_log_probs,
        chunk=chunk,
        tile=tile,
    )
    return over_episode_shards(
        run,
        (params, keys, env_params),
        in_axes=(None, 0, env_params_axis),
        out_axes=TRAJECTORY_AXES,
        multiple=group_size,
    )


def _require_rows(env_params: PyTree, num_episodes: int) -> None:
    for path, leaf in named_leaves(env_params):
        if jnp.shape(leaf)[:1] != (num_episodes,):
            raise ValueError(
                f"env_params{path} must have {num_episodes} rows, one for each episode, because env_params_axis is 0, "
                f"got the shape {list(jnp.shape(leaf))}"
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
    tile: int | None,
) -> Trajectory:
    horizon, num_lanes = environment.horizon, keys.shape[0]
    width = tiles.tile_width(num_lanes, tile)
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
    per_lane = env_params_axis is not None
    running = Running(
        lanes=jax.tree.map(lambda x: jnp.repeat(x, alike, axis=0), starts),
        keys=jax.vmap(lambda key: jax.random.split(key)[1])(keys),
        env_params=env_params if per_lane else (),
        columns=jnp.arange(num_lanes, dtype=jnp.int32),
    )
    step_lanes = _make_step(environment, policy, params, env_params_axis, record_log_probs)
    params_of = lambda tile: tile.env_params if per_lane else env_params

    def run_tile(k: jax.Array, i: jax.Array, width: int, running: Running, buffers: dict) -> tuple[Running, dict]:
        """The steps of chunk k for the lanes of tile i, `width` in number."""
        tile, times = tiles.cut(running, i, width), k * chunk + jnp.arange(chunk)

        def one(lanes: _Lane, at: tuple[jax.Array, jax.Array, jax.Array]):
            return step_lanes(*at, lanes, params_of(tile))

        lanes, rows = jax.lax.scan(one, tile.lanes, (times, *_step_keys(tile.keys, times)))
        zero = jnp.zeros_like(k)

        def write(buffer: jax.Array, row: jax.Array) -> jax.Array:
            at = (k * chunk, i * width, *(zero for _ in row.shape[2:]))
            return jax.lax.dynamic_update_slice(buffer, row, at)

        lanes = tiles.put(running.lanes, lanes, i, width)
        return running._replace(lanes=lanes), jax.tree.map(write, buffers, rows)

    first = lambda: step_lanes(jnp.zeros((), jnp.int32), running.keys, running.keys, running.lanes, env_params)
    _, row = jax.eval_shape(first)
    buffers = jax.tree.map(lambda x: jnp.zeros((num_chunks * chunk, *x.shape), x.dtype), row)
    buffers, final_obs = _play(running, buffers, run_tile, width, num_chunks, chunk)
    return Trajectory(**jax.tree.map(lambda x: x[:horizon], buffers), final_obs=final_obs)


def _play(
    running: Running, buffers: dict, run_tile: Callable, width: int | None, num_chunks: int, chunk: int
) -> tuple[dict, PyTree]:
    """Run chunks of steps until every lane has ended: for all lanes at once, and for tiles once few are alive.

    Args:
        running: all lanes.
        buffers: zeros `[T, B, ...]`.
        run_tile: `(k, i, width, running, buffers) → (running, buffers)`.
        width: the number of lanes of a tile; None for no tiles.

    Returns:
        The rows `[T, B, ...]`, and the last observations `[B, ...]`.
    """
    num_lanes, zero = running.columns.shape[0], jnp.zeros((), jnp.int32)
    num_alive = lambda running: largest_of_runs(jnp.sum(running.lanes.alive, dtype=jnp.int32))
    few = 0 if width is None else num_lanes // 2

    def wide_chunk(carry: tuple) -> tuple:
        k, running, buffers = carry
        return k + 1, *run_tile(k, zero, num_lanes, running, buffers)

    many_alive = lambda carry: (carry[0] < num_chunks) & (num_alive(carry[1]) > few)
    first, running, buffers = jax.lax.while_loop(many_alive, wide_chunk, (zero, running, buffers))
    if width is None:
        return buffers, running.lanes.obs

    def narrow_chunk(carry: tuple) -> tuple:
        k, count, columns, running, buffers = carry
        needed = (num_alive(running) + width - 1) // width
        running = jax.lax.cond(needed < count, tiles.compact, lambda running, _: running, running, running.lanes.alive)
        one = lambda i, carry: run_tile(k, i, width, *carry)
        running, buffers = jax.lax.fori_loop(zero, needed, one, (running, buffers))
        return k + 1, needed, columns.at[k].set(running.columns), running, buffers

    any_alive = lambda carry: (carry[0] < num_chunks) & (num_alive(carry[3]) > 0)
    columns = jnp.zeros((num_chunks, num_lanes), jnp.int32)
    start = (first, jnp.full((), num_lanes // width, jnp.int32), columns, running, buffers)
    last, _, columns, running, buffers = jax.lax.while_loop(any_alive, narrow_chunk, start)
    lane_of = jnp.argsort(running.columns)
    final_obs = jax.tree.map(lambda x: x[lane_of], running.lanes.obs)
    return tiles.in_columns(buffers, columns, (first, last), chunk), final_obs


def _make_step(
    environment: Environment, policy: Policy, params: PyTree, env_params_axis: int | None, record_log_probs: bool
):
    """`(t, action keys [w], step keys [w], lanes [w], env_params) → (lanes [w], row t [w, ...])`."""
    horizon = environment.horizon

    def step_lane(
        t: jax.Array, action_key: jax.Array, step_key: jax.Array, lane: _Lane, lane_params: PyTree
    ) -> tuple[_Lane, dict]:
        action, carry, log_prob = act(policy, params, action_key, lane.carry, lane.obs, record_log_probs)
        state, step = environment.step(step_key, lane.state, action, lane_params)
        terminated = lane.alive & step.terminated
        truncated = lane.alive & ~terminated & (t + 1 >= horizon)
        written = {"obs": lane.obs, "actions": action, "rewards": step.reward}
        if log_prob is not None:
            written["behaviour_log_probs"] = log_prob
        row = select(lane.alive, written, jax.tree.map(jnp.zeros_like, written))
        row |= {"alive": lane.alive, "terminated": terminated, "truncated": truncated}
        # A lane that has ended is frozen: a step past the end may overflow, and even a masked infinity makes gradients
        # NaN.
        state, obs = select(lane.alive, (state, step.obs), (lane.state, lane.obs))
        return _Lane(state=state, obs=obs, alive=lane.alive & ~(terminated | truncated), carry=carry), row

    # The function is traced once, for the shapes and for the loop; `inline` keeps it from being a call in the program.
    return jax.jit(jax.vmap(step_lane, (None, 0, 0, 0, env_params_axis)), inline=True)


def _step_keys(episode_keys: jax.Array, times: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The keys of the actions and of the transitions at these times, `[len(times), B]` each.

    They are made for many steps at once, because a hash consists of many small operations, and starting each one costs
    time.
    """
    fold_in = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))
    return fold_in(episode_keys, 2 * times), fold_in(episode_keys, 2 * times + 1)
