"""Rollouts: complete episodes, one per lane, and continuing windows with auto-reset.

The gradient never differentiates through a rollout: it stores observations, actions and masks, and the estimator
recomputes the log-probabilities. Keys are per episode, so the trajectories do not depend on the number of devices.
Axes: T time, B lanes.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._checks import is_typed_key, require_integer
from pgjax._shards import EPISODES_AXIS, over_episode_shards
from pgjax.contracts import require_environment
from pgjax.rows import largest_of_runs
from pgjax.types import Environment, Policy, PyTree, Trajectory


class _Lane(NamedTuple):
    """One running episode: the environment's state, X_t, whether it still runs, and what the policy remembers."""

    state: PyTree
    obs: PyTree
    alive: jax.Array
    carry: PyTree


def _select(condition: jax.Array, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` where the scalar `condition` holds, leaf by leaf."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


class _Act(NamedTuple):
    """A_t, the memory after X_t, and ln f(X_t, θ)_{A_t} if it is recorded."""

    action: PyTree
    carry: PyTree
    log_prob: jax.Array | None


def _act(policy: Policy, params: PyTree, key: jax.Array, carry: PyTree, obs: PyTree, record: bool) -> _Act:
    carry, outputs = acting.step(policy, params, carry, obs)
    action = policy.distribution.sample(key, outputs)
    return _Act(action=action, carry=carry, log_prob=policy.distribution.log_prob(outputs, action) if record else None)


def _require_keys(keys: jax.Array) -> None:
    """Typed keys `[B]`, one for each episode; ValueError otherwise."""
    if not is_typed_key(keys) or keys.ndim != 1:
        found = f"{getattr(keys, 'dtype', type(keys).__name__)} of shape {list(jnp.shape(keys))}"
        raise ValueError(
            f"keys must be typed keys of shape [B], one for each episode, got {found}; "
            "jax.random.split(jax.random.key(0), B) makes them"
        )


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
    group_size: int = 1,
    record_log_probs: bool = False,
    chunk: int | None = None,
) -> Trajectory:
    """B complete episodes A_t ~ f(X_t, θ), (X_{t+1}, R_{t+1}) ~ p(X_t, A_t), one per lane, padded to the horizon T.

    Runs in chunks inside a `while_loop` that stops when every lane has ended. A lane that has ended is frozen; its
    rows are not `alive`. The horizon alone sets `truncated`, and only where the problem did not end by itself. Under a
    mesh with an axis `episodes` every device plays its share of the lanes.

    Args:
        params: the policy's θ.
        keys: typed keys `[B]`, one per episode: the episode is a function of its key, its group's first key and θ.
        env_params: the environment's parameters; its defaults if None.
        env_params_axis: 0 if their leaves have a leading `[B]` (domain randomisation), None if shared. The episodes of
            a group share a start only if their parameters are equal.
        group_size: k, so many consecutive lanes share the key of `reset`, and so the start X_1 (one prompt, one
            problem); what happens after it is each lane's own.
        record_log_probs: whether `behaviour_log_probs` are recorded as the actions are drawn.
        chunk: steps between two looks at `any(alive)`; `chunk_length(T)` if None.

    Returns:
        A `Trajectory` `[T, B, ...]`.

    Raises:
        ValueError: if the environment breaks its contract, the keys are not typed keys `[B]`, a size is below one, or
            `group_size` does not divide the number of keys.
    """
    require_environment(environment, env_params, params_axis=env_params_axis)
    _require_keys(keys)
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
        out_axes=_TRAJECTORY_AXES,
        multiple=group_size,
    )


# Where the episodes stand in each field of complete episodes.
_AXES: dict[str, Any] = {"final_obs": 0} | dict.fromkeys(
    ("obs", "actions", "rewards", "alive", "terminated", "truncated", "behaviour_log_probs"), 1
)
_TRAJECTORY_AXES = Trajectory(**_AXES)


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

    # The lanes of a group begin alike, so that a prompt is read once, unless each lane has parameters of its own.
    alike = group_size if env_params_axis is None else 1
    first_keys = jnp.repeat(keys[::group_size], group_size // alike)
    starts = jax.vmap(begin, (0, env_params_axis))(first_keys, env_params)
    lanes = jax.tree.map(lambda x: jnp.repeat(x, alike, axis=0), starts)
    episode_keys = jax.vmap(lambda key: jax.random.split(key)[1])(keys)

    def step_lane(
        t: jax.Array, action_key: jax.Array, step_key: jax.Array, lane: _Lane, lane_params: PyTree
    ) -> tuple[_Lane, dict]:
        action, carry, log_prob = _act(policy, params, action_key, lane.carry, lane.obs, record_log_probs)
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
        # Frozen, because a transition past the end may overflow, and masked infinities still poison gradients.
        state, obs = _select(lane.alive, (state, step.obs), (lane.state, lane.obs))
        return _Lane(state=state, obs=obs, alive=lane.alive & ~(terminated | truncated), carry=carry), row

    # Inlined, so that it is traced once for the shapes and the loop, and leaves no trace in the program.
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
    """Keys of the actions and of the transitions at these times, `[len(times), B]` each.

    They are made for many steps at once, since a hash is many small operations, each of which costs its start.
    """
    fold_in = jax.vmap(jax.vmap(jax.random.fold_in, (0, None)), (None, 0))
    return fold_in(episode_keys, 2 * times), fold_in(episode_keys, 2 * times + 1)


def _any_alive(lanes: _Lane) -> jax.Array:
    """Whether any lane still runs, on any device and in any run that shares the loop: padding is then alike on all."""
    return largest_of_runs(jnp.any(lanes.alive).astype(jnp.int32), EPISODES_AXIS) > 0


class Lanes(NamedTuple):
    """Episodes that continue from window to window; every leaf has a leading `[B]`.

    Attributes:
        state, obs: the environment's.
        time: int32, steps taken in the running episode.
        total_reward: of the running episode so far.
        key: typed, one per lane.
        clock: int32, steps taken by the lane since it started; makes every step's randomness its own.
        carry: what the policy remembers of the running episode, `()` for one without memory. Parts of it were computed
            with the θ of earlier windows.
    """

    state: PyTree
    obs: PyTree
    time: jax.Array
    total_reward: jax.Array
    key: jax.Array
    clock: jax.Array
    carry: PyTree


def start_lanes(
    environment: Environment, policy: Policy, params: PyTree, keys: jax.Array, *, env_params: PyTree | None = None
) -> Lanes:
    """Lanes at the beginning of an episode each; `keys` `[B]`, typed. The policy starts its memory there.

    Raises:
        ValueError: if the environment breaks its contract.
    """
    require_environment(environment, env_params)
    _require_keys(keys)
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
    record_log_probs: bool = False,
) -> tuple[Lanes, Trajectory, FinishedEpisodes]:
    """The next `num_steps` steps of every lane, with a fresh reset whenever an episode ends.

    Episodes are cut at both edges, so the returns inside are not complete: only estimators that bootstrap can learn
    from a window. `next_obs` holds X_{t+1} before any reset; every row is alive. A policy with memory starts it anew
    where an episode ended; `carry` is its memory at row 0, which the θ of earlier windows computed: a bias of the
    gradient, which shrinks with the learning rate. Under a mesh with an axis `episodes` every device plays its share of
    the lanes.

    Args:
        env_params: the environment's parameters; its defaults if None.
        record_log_probs: whether `behaviour_log_probs` are recorded as the actions are drawn.

    Returns:
        The lanes to go on with, a `Trajectory` `[num_steps, B, ...]`, and the episodes that ended inside.
    """
    env_params = environment.params if env_params is None else env_params
    run = functools.partial(_window, environment, policy, num_steps=num_steps, record_log_probs=record_log_probs)
    continuing, trajectory, ended = over_episode_shards(
        run, (params, lanes, env_params), in_axes=(None, 0, None), out_axes=(0, _WINDOW_AXES, 1)
    )
    total_return, length, count = jax.tree.map(jnp.sum, ended)
    return continuing, trajectory, FinishedEpisodes(total_return=total_return, length=length, count=count)


_WINDOW_AXES = _TRAJECTORY_AXES._replace(next_obs=1, carry=0)


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
    """The lanes, the window, and total return, length and end of the episodes at their last steps, `[T, B]` each."""

    def step_lane(lane: Lanes) -> tuple[Lanes, tuple]:
        step_keys = jax.random.fold_in(lane.key, lane.clock)
        action_key, step_key, reset_key = jax.random.split(step_keys, 3)
        action, carry, log_prob = _act(policy, params, action_key, lane.carry, lane.obs, record_log_probs)
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
        finished = _select(ended, (total_reward, time), (jnp.zeros_like(total_reward), jnp.zeros_like(time)))
        state, obs = _select(ended, environment.reset(reset_key, env_params), (state, step.obs))
        if policy.memory is not None:
            carry = _select(ended, acting.start(policy, params, obs), carry)
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
