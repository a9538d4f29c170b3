"""Evaluation over complete episodes: every episode runs to its end, so short episodes do not count too much.

Only sums over an episode are kept, so the memory holds one state for each episode of a batch. Axes: B episodes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import acting, diagnostics, rollouts
from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.contracts import require_environment
from pgjax.environments.foreign import HostEnvironment
from pgjax.types import Environment, Policy, PyTree, Trajectory


class MetricSummary(NamedTuple):
    """One of the environment's metrics over complete episodes: means over episodes, with intervals.

    The metric after step t is m_t = metrics(S_{t+1}, X_{t+1}), and the episode has T steps.

    Attributes:
        final: m_T, the metric of the state in which the episode ended, such as success or a remaining distance.
        total: Σ_t m_t, such as the number of clicks or violations.
        mean: Σ_t m_t / T, such as the mean temperature.
    """

    final: diagnostics.Estimate
    total: diagnostics.Estimate
    mean: diagnostics.Estimate


class EpisodeMetric(NamedTuple):
    """One of the environment's metrics in each of B episodes, `[B]` each, with the fields of `MetricSummary`."""

    final: np.ndarray
    total: np.ndarray
    mean: np.ndarray


class Evaluation(NamedTuple):
    """Undiscounted total returns of complete episodes, with their lengths and the environment's metrics.

    Attributes:
        returns, lengths: the total return and the number of steps of each episode, `[B]`.
        mean: the mean of the returns.
        stderr: the standard error of `mean`: the returns' standard deviation (divisor B − 1) divided by √B.
        low, high: the confidence interval of the expected return, see `diagnostics.mean_interval`.
        metrics: a summary of each of the environment's metrics, by name; empty if the environment has none.
        by_episode: the metrics of each episode, by name, for comparisons of two policies on the same starts.
    """

    returns: np.ndarray
    lengths: np.ndarray
    mean: float
    stderr: float
    low: float
    high: float
    metrics: dict[str, MetricSummary]
    by_episode: dict[str, EpisodeMetric]

    @property
    def estimate(self) -> diagnostics.Estimate:
        """`mean`, `stderr`, `low` and `high`."""
        return diagnostics.Estimate(value=self.mean, stderr=self.stderr, low=self.low, high=self.high)


class _Episode(NamedTuple):
    """One running episode, with the sums over its steps.

    Attributes:
        key: the key of its actions and steps.
        time: int32, the number of steps taken.
        state, obs: the environment's state and the observation X_t.
        memory: the policy's memory, `()` for a policy without one.
        alive: whether the episode still runs.
        total_return: the sum of the rewards so far.
        metrics: name → (value after the last step, sum over the steps).
        fault: the number in `_FAULTS` of what went wrong first, 0 if nothing did.
    """

    key: jax.Array
    time: jax.Array
    state: PyTree
    obs: PyTree
    memory: PyTree
    alive: jax.Array
    total_return: jax.Array
    metrics: dict[str, tuple[jax.Array, jax.Array]]
    fault: jax.Array


_FAULTS = {
    1: "observations of environment {name} must be numbers, got NaN",
    2: "outputs of the policy must be numbers below infinity, got NaN or infinity: its parameters have diverged",
    3: "rewards of environment {name} must be finite, got NaN or infinity",
}


@functools.lru_cache(maxsize=64)
def greedy(policy: Policy) -> Policy:
    """The policy that takes the mode of its distribution instead of a sample.

    The same policy always gives the same record, so programs that use it are compiled once.

    Example: the greedy action is the one with the largest logit, for every key.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import environments, evaluation, networks
        >>> policy = networks.make_policy(environments.make("CartPole-v1"))
        >>> greedy = evaluation.greedy(policy)
        >>> int(greedy.distribution.sample(jax.random.key(0), jnp.array([0.2, 0.7])))
        1
    """
    mode = policy.distribution.mode
    return policy._replace(distribution=policy.distribution._replace(sample=lambda key, outputs: mode(outputs)))


@readable
def episode_returns(trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
    """The undiscounted total return G_1 and the number of live steps of each episode, `[B]` each."""
    return jnp.sum(trajectory.rewards, axis=0), jnp.sum(trajectory.alive, axis=0)


@readable
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
    """Add `greedy_returns` to `trajectory`: G_1 of the greedy policy from the same start, `[T, B]`, equal in all rows.

    The problem draws the same random numbers as in `trajectory`, and the actions were drawn with other ones, so the
    baseline is independent of the actions.

    Args:
        keys, group_size, record_log_probs: the arguments with which `trajectory` was rolled out; keys `[B]`.
        relabel: the reward stage, if there is one. It sees the greedy episodes as a separate batch, so a stage that
            uses statistics of a batch (`rewards.whiten`) would scale them differently and does not fit this baseline.
    """
    played = rollouts.episodes(
        environment, greedy(policy), params, keys, group_size=group_size, record_log_probs=record_log_probs
    )
    total, _ = episode_returns(relabel(played))
    return trajectory._replace(greedy_returns=jnp.broadcast_to(total, trajectory.rewards.shape))


def _metrics(environment: Environment, state: PyTree, obs: PyTree) -> dict[str, jax.Array]:
    if environment.metrics is None:
        return {}
    values = environment.metrics(state, obs, environment.params)
    return {name: jnp.asarray(value).astype(float) for name, value in values.items()}


def _start(environment: Environment, policy: Policy, params: PyTree, key: jax.Array) -> _Episode:
    """An episode at X_1. The keys are split as in `rollouts.episodes`, so the same key gives the same episode."""
    reset_key, episode_key = jax.random.split(key)
    state, obs = environment.reset(reset_key, environment.params)
    zero = jnp.zeros((), float)
    return _Episode(
        key=episode_key,
        time=jnp.zeros((), jnp.int32),
        state=state,
        obs=obs,
        memory=acting.start(policy, params, obs),
        alive=jnp.ones((), jnp.bool_),
        total_return=zero,
        metrics=dict.fromkeys(_metrics(environment, state, obs), (zero, zero)),
        fault=jnp.zeros((), jnp.int32),
    )


def _advance(environment: Environment, policy: Policy, params: PyTree, now: _Episode) -> _Episode:
    """The episode one step later; an episode that has ended does not change."""
    memory, outputs = acting.step(policy, params, now.memory, now.obs)
    action = policy.distribution.sample(jax.random.fold_in(now.key, 2 * now.time), outputs)
    step_key = jax.random.fold_in(now.key, 2 * now.time + 1)
    state, step = environment.step(step_key, now.state, action, environment.params)
    metrics = _metrics(environment, state, step.obs)
    later = _Episode(
        key=now.key,
        time=now.time + 1,
        state=state,
        obs=step.obs,
        memory=(),
        alive=~step.terminated & (now.time + 1 < environment.horizon),
        total_return=now.total_return + jnp.asarray(step.reward).astype(float),
        metrics={name: (value, now.metrics[name][1] + value) for name, value in metrics.items()},
        fault=jnp.where(now.fault > 0, now.fault, _fault(now.obs, outputs, step.reward)),
    )
    # The memory may be large, and it is not used after the end of the episode, so it alone needs no selection.
    held = now._replace(memory=())
    return jax.tree.map(lambda new, old: jnp.where(now.alive, new, old), later, held)._replace(memory=memory)


def _fault(obs: PyTree, outputs: PyTree, reward: jax.Array) -> jax.Array:
    """The number in `_FAULTS` of what is wrong, the cause first: bad observations make bad outputs, and so on.

    Logits of −∞ are allowed, since masks make them.
    """
    found = jnp.where(jnp.isfinite(reward), 0, 3)
    found = jnp.where(_any(lambda x: jnp.isnan(x) | (x == jnp.inf), outputs), 2, found)
    return jnp.where(_any(jnp.isnan, obs), 1, found).astype(jnp.int32)


def _any(condition: Callable[[jax.Array], jax.Array], tree: PyTree) -> jax.Array:
    """Whether the condition holds anywhere in the floats of a tree."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return functools.reduce(jnp.logical_or, [jnp.any(condition(x)) for x in floats], jnp.zeros((), jnp.bool_))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _play(environment: Environment, policy: Policy, params: PyTree, keys: jax.Array) -> _Episode:
    """Play complete episodes, leaves `[B]`; fields that only a running episode needs are empty in the result."""
    start = jax.vmap(functools.partial(_start, environment, policy, params))(keys)
    advance = jax.vmap(functools.partial(_advance, environment, policy, params))
    ended = jax.lax.while_loop(lambda now: jnp.any(now.alive), advance, start)
    return ended._replace(key=(), state=(), obs=(), memory=())


@readable
def evaluate(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    key: jax.Array,
    *,
    num_episodes: int = 100,
    confidence: float = 0.95,
) -> Evaluation:
    """The mean return of B complete episodes with its interval, and the environment's metrics.

    Args:
        policy: it samples its actions; `greedy(policy)` takes their mode, and `environments.random_policy` acts at
            random, for a comparison.
        key: consumed; the same key gives every policy the same starts.
        num_episodes: B ≥ 2; intervals from fewer than five episodes say little.
        confidence: the coverage of the intervals, in (0, 1). They cover this often where returns are normal, and less
            often where returns are skewed; see `diagnostics.mean_interval`.

    Raises:
        ValueError: if `num_episodes` < 2, from which there is no standard error; if the environment breaks its
            contract; or if the environment or the policy returns NaN. The error says which of the two did so first.

    Example: every step of the corridor costs 1, and no episode has fewer than three steps, so all returns are −3.

        >>> import jax
        >>> from pgjax import environments, evaluation
        >>> environment = environments.make("corridor", horizon=3)
        >>> policy = environments.random_policy(environment)
        >>> found = evaluation.evaluate(environment, policy, (), jax.random.key(0), num_episodes=20)
        >>> found.mean, found.stderr, len(found.returns)
        (-3.0, 0.0, 20)
    """
    require_integer("num_episodes", num_episodes, 2, None)
    require_environment(environment)
    keys = jax.random.split(key, num_episodes)
    if isinstance(environment, HostEnvironment):
        played = rollouts.host_returns(environment, policy, params, keys)
    else:
        played = jax.device_get(_play(environment, policy, params, keys))
    _refuse_faults(environment, played.fault)
    interval = lambda x: diagnostics.Estimate(*map(float, diagnostics.mean_interval(x, confidence=confidence)))
    of_each = lambda final, total: EpisodeMetric(final=final, total=total, mean=total / played.time)
    by_episode = {name: of_each(*pair) for name, pair in played.metrics.items()}
    found = interval(played.total_return)
    return Evaluation(
        returns=played.total_return,
        lengths=played.time,
        mean=float(found.value),
        stderr=float(found.stderr),
        low=float(found.low),
        high=float(found.high),
        metrics={name: MetricSummary(*map(interval, metric)) for name, metric in by_episode.items()},
        by_episode=by_episode,
    )


def _refuse_faults(environment: Environment, faults: np.ndarray) -> None:
    if faults.any():
        first = faults[faults > 0][0]
        message = _FAULTS[int(first)].format(name=environment.name)
        raise ValueError(f"{message} (in {int((faults == first).sum())} of {len(faults)} episodes)")


@readable
def frames(environment: Environment, policy: Policy, params: PyTree, key: jax.Array) -> list[np.ndarray]:
    """The pictures of one episode, uint8 `[H, W, 3]` each, from its first state to its last.

    The episode is the one that `rollouts.episodes` plays for this key.

    Raises:
        ValueError: if the environment has no `render`, or breaks its contract.
    """
    if environment.render is None:
        raise ValueError(f"environment {environment.name} has no render: it can be trained but not drawn")
    require_environment(environment)
    start, advance = (jax.jit(functools.partial(function, environment, policy)) for function in (_start, _advance))
    now = start(params, key)
    pictures = [environment.render(now.state, now.obs, environment.params)]
    while now.alive:
        now = advance(params, now)
        pictures.append(environment.render(now.state, now.obs, environment.params))
    return pictures
