"""Complete episodes of environments that run on the host, such as those of Gymnasium. Axes: T time, B lanes."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import acting, spaces
from pgjax._checks import require_integer, require_kind
from pgjax._doors import readable
from pgjax.contracts import require_environment
from pgjax.environments.foreign import HostEnvironment
from pgjax.rollouts._steps import act, require_keys
from pgjax.spaces import Box
from pgjax.types import Policy, PyTree, Trajectory

_LANES = 50


@readable
def host_episodes(
    environment: HostEnvironment,
    policy: Policy,
    params: PyTree,
    keys: jax.Array,
    *,
    group_size: int = 1,
    record_log_probs: bool = False,
) -> Trajectory:
    """B complete episodes in a vector environment of the host, one per lane, padded to the horizon T.

    It is `episodes` for a `HostEnvironment`, with the same meaning of every row and key. The policy acts in one jitted
    call for all lanes, and the loop over time runs in Python until every lane has ended. The seed of each lane comes
    from its key, so the same keys give the same episodes, if the environment draws all its random numbers from its
    seed. A lane that has ended is reset by Gymnasium and goes on, but its rows are not `alive`. A step is `truncated`
    if Gymnasium or the horizon cuts the episode there and the problem does not end by itself.

    Args:
        environment: from `environments.from_gymnasium`.
        params: the policy's θ.
        keys: typed keys `[B]`, one per episode.
        group_size: k. Every k consecutive lanes share the seed of their start.
        record_log_probs: whether `behaviour_log_probs` are recorded as the actions are drawn.

    Returns:
        A `Trajectory` `[T, B, ...]` of NumPy arrays.

    Raises:
        ValueError: if the environment is not a `HostEnvironment` or breaks its contract, the keys are not typed keys
            `[B]`, or `group_size` does not divide their number.

    Example: two episodes of the acrobot, which has at most 500 steps.

        >>> import jax
        >>> from pgjax import environments, rollouts
        >>> environment = environments.from_gymnasium("Acrobot-v1", horizon=20)
        >>> policy = environments.random_policy(environment)
        >>> keys = jax.random.split(jax.random.key(0), 2)
        >>> rollouts.host_episodes(environment, policy, (), keys).rewards.sum(axis=0).tolist()
        [-20.0, -20.0]
    """
    require_kind("environment", environment, HostEnvironment, 'environments.from_gymnasium("Acrobot-v1")')
    require_environment(environment)
    require_keys(keys)
    require_integer("group_size", group_size, 1, None)
    if len(keys) % group_size:
        raise ValueError(f"group_size must divide the number of episodes, {len(keys)}, got {group_size}")
    seeds, episode_keys = _seeds_and_keys(keys)
    lanes = environment.lanes(len(keys))
    obs, _ = lanes.reset(seed=[int(seed) for seed in np.repeat(seeds[::group_size], group_size)])
    obs = _as_in_space(environment.observation_space, obs)
    carry = _start(policy, params, obs)
    alive, rows = np.ones(len(keys), bool), {}
    for time in range(environment.horizon):
        action, carry, log_prob = _act(policy, record_log_probs, params, episode_keys, np.int32(time), carry, obs)
        action = jax.device_get(action)
        new_obs, reward, terminated, truncated, _ = lanes.step(_for_host(environment.action_space, action))
        terminated = alive & terminated
        truncated = alive & ~terminated & (truncated | (time + 1 == environment.horizon))
        row = {
            "obs": obs,
            "actions": action,
            "rewards": np.where(alive, reward, 0.0).astype(np.float32),
            "alive": alive,
            "terminated": terminated,
            "truncated": truncated,
        }
        if log_prob is not None:
            row["behaviour_log_probs"] = np.where(alive, log_prob, 0.0).astype(np.float32)
        rows = rows or _padding(environment.horizon, row)
        jax.tree.map(functools.partial(_write, time), rows, row)
        obs = _where(alive, _as_in_space(environment.observation_space, new_obs), obs)
        alive = alive & ~(terminated | truncated)
        if not alive.any():
            break
    return Trajectory(**rows, final_obs=obs)


class HostReturns(NamedTuple):
    """What `host_returns` found in B complete episodes.

    Attributes:
        total_return, time: the total return and the number of steps of each episode, `[B]`.
        fault: 3 for an episode whose rewards are not finite, else 0, `[B]`, as `evaluation.evaluate` counts faults.
        metrics: none, because environments of the host have no metrics.
    """

    total_return: np.ndarray
    time: np.ndarray
    fault: np.ndarray
    metrics: dict[str, tuple[np.ndarray, np.ndarray]]


@readable
def host_returns(environment: HostEnvironment, policy: Policy, params: PyTree, keys: jax.Array) -> HostReturns:
    """The returns of the episodes of `host_episodes`, fifty lanes at a time, which bounds the memory."""
    parts = []
    for first in range(0, len(keys), _LANES):
        played = host_episodes(environment, policy, params, keys[first : first + _LANES])
        fault = np.where(np.isfinite(played.rewards).all(axis=0), 0, 3)
        parts.append((played.rewards.sum(axis=0), played.alive.sum(axis=0), fault))
    returns, lengths, faults = (np.concatenate(column) for column in zip(*parts))
    return HostReturns(total_return=returns, time=lengths, fault=faults, metrics={})


@jax.jit
def _seeds_and_keys(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The seeds and the keys of the actions; the keys are split as in `episodes`."""
    reset_keys, episode_keys = jax.vmap(jax.random.split, out_axes=1)(keys)
    seeds = jax.vmap(lambda key: jax.random.randint(key, (), 0, jnp.iinfo(jnp.int32).max))(reset_keys)
    return seeds, episode_keys


@functools.partial(jax.jit, static_argnums=0)
def _start(policy: Policy, params: PyTree, obs: PyTree) -> PyTree:
    return jax.vmap(functools.partial(acting.start, policy, params))(obs)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _act(
    policy: Policy, record: bool, params: PyTree, keys: jax.Array, time: jax.Array, carry: PyTree, obs: PyTree
) -> tuple[PyTree, PyTree, jax.Array | None]:
    """The actions of all lanes, with the same random numbers as in `episodes`."""

    def one(key: jax.Array, carry: PyTree, obs: PyTree):
        return act(policy, params, jax.random.fold_in(key, 2 * time), carry, obs, record)

    found = jax.vmap(one)(keys, carry, obs)
    return found.action, found.carry, found.log_prob


def _as_in_space(space: PyTree, obs: PyTree) -> PyTree:
    """A copy of the observations of all lanes, with the structure and dtypes of the space."""
    if isinstance(space, dict):
        return {name: _as_in_space(part, obs[name]) for name, part in space.items()}
    if isinstance(space, tuple | list):
        return type(space)(_as_in_space(part, x) for part, x in zip(space, obs))
    return np.array(obs, space.dtype)


def _for_host(space: PyTree, action: PyTree) -> PyTree:
    """The actions in the space's dtypes, clipped to the bounds of a box."""
    fit = lambda one, x: np.clip(x, *one.bounds) if isinstance(one, Box) else x
    return jax.tree.map(fit, space, action, is_leaf=spaces.is_space)


def _padding(horizon: int, row: dict[str, Any]) -> dict[str, Any]:
    return jax.tree.map(lambda x: np.zeros((horizon, *x.shape), x.dtype), row)


def _write(time: int, rows: np.ndarray, row: np.ndarray) -> None:
    rows[time] = row


def _where(lanes: np.ndarray, yes: PyTree, no: PyTree) -> PyTree:
    """`yes` in the lanes where the mask `[B]` holds and `no` in the others."""
    choose: Any = lambda a, b: np.where(lanes.reshape(-1, *[1] * (a.ndim - 1)), a, b)
    return jax.tree.map(choose, yes, no)
