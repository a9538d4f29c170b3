"""Evaluation over complete episodes: every lane runs to its end, so short episodes are not favoured."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import rollouts
from pgjax._checks import require_integer
from pgjax.types import Environment, Policy, Trajectory

PyTree = Any


class Evaluation(NamedTuple):
    """Undiscounted total returns and lengths of complete episodes, `[B]` each, with the mean's standard error."""

    returns: np.ndarray
    lengths: np.ndarray
    mean: float
    stderr: float


@cache
def greedy(policy: Policy) -> Policy:
    """The same policy acting by its mode instead of sampling; asked again, the same record, which compiles once."""
    mode = policy.distribution.mode
    return policy._replace(distribution=policy.distribution._replace(sample=lambda key, outputs: mode(outputs)))


def episode_returns(trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
    """G_1 undiscounted and the number of live steps of each episode, `[B]`."""
    return jnp.sum(trajectory.rewards, axis=0), jnp.sum(trajectory.alive, axis=0)


def with_greedy_returns(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    keys: jax.Array,
    trajectory: Trajectory,
    *,
    group_size: int = 1,
    record_log_probs: bool = False,
    relabel: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory,
) -> Trajectory:
    """`trajectory` with `greedy_returns`: G_1 of the greedy policy from the same start, `[T, B]`, alike in all rows.

    `keys` `[B]`, `group_size` and `record_log_probs` are those that the trajectory was rolled out with, so the problem
    draws the same numbers; actions were drawn with others, which keeps the baseline independent of them. `relabel` is
    the reward stage, if there is one: the greedy episodes are paid as the others are.
    """
    played = rollouts.episodes(
        environment, greedy(policy), params, keys, group_size=group_size, record_log_probs=record_log_probs
    )
    total, _ = episode_returns(relabel(played))
    return trajectory._replace(greedy_returns=jnp.broadcast_to(total, trajectory.rewards.shape))


@partial(jax.jit, static_argnums=(0, 1))
def _returns(environment: Environment, policy: Policy, params: PyTree, keys: jax.Array):
    return episode_returns(rollouts.episodes(environment, policy, params, keys))


def evaluate(
    environment: Environment, policy: Policy, params: PyTree, key: jax.Array, *, num_episodes: int = 100
) -> Evaluation:
    """The mean return of `num_episodes` complete episodes and its standard error.

    Args:
        policy: samples its actions; wrap it in `greedy` for the mode.
        key: consumed; the same key gives the same starts to every policy that is compared.

    Raises:
        ValueError: if `num_episodes` < 2 (no standard error).
    """
    require_integer("num_episodes", num_episodes, 2, None)
    returns, lengths = map(np.asarray, _returns(environment, policy, params, jax.random.split(key, num_episodes)))
    return Evaluation(
        returns=returns,
        lengths=lengths,
        mean=float(returns.mean()),
        stderr=float(returns.std(ddof=1) / np.sqrt(num_episodes)),
    )


def frames(environment: Environment, policy: Policy, params: PyTree, key: jax.Array) -> list[np.ndarray]:
    """One episode as pictures, uint8 `[H, W, 3]` each, its last observation included.

    Raises:
        ValueError: if the environment has no `render`.
    """
    if environment.render is None:
        raise ValueError(f"environment {environment.name} has no render: it can be trained but not drawn")
    run = jax.jit(lambda params, key: rollouts.episodes(environment, policy, params, key[None]))
    trajectory = jax.device_get(run(params, key))
    num_steps = int(trajectory.alive.sum())
    seen = [jax.tree.map(lambda x, t=t: x[t, 0], trajectory.obs) for t in range(num_steps)]
    seen.append(jax.tree.map(lambda x: x[0], trajectory.final_obs))
    return [environment.render(obs) for obs in seen]
