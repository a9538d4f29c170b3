"""Evaluation over complete episodes: every lane runs to its end, so short episodes are not favoured.

Nothing of an episode is kept but sums, so a batch may be as large as its states. Axes: B episodes.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import acting, diagnostics, rollouts
from pgjax._checks import require_integer
from pgjax.contracts import require_environment
from pgjax.types import Environment, Policy, PyTree, Trajectory


class MetricSummary(NamedTuple):
    """One of the environment's metrics over complete episodes: means over episodes, with intervals.

    With m_t = metrics(S_{t+1}, X_{t+1}), what the t-th step led to, of an episode of T steps:

    Attributes:
        final: m_T, of the state in which the episode ended: success, a distance that is left.
        total: Σ_t m_t: clicks, violations.
        mean: Σ_t m_t / T: a temperature, a power usage effectiveness.
    """

    final: diagnostics.Estimate
    total: diagnostics.Estimate
    mean: diagnostics.Estimate


class Evaluation(NamedTuple):
    """Undiscounted total returns of complete episodes, and what else was seen of them.

    Attributes:
        returns, lengths: of each episode, `[B]`.
        mean: of the returns.
        stderr: the standard error of `mean`, the returns' standard deviation (divisor B − 1) over √B.
        low, high: the confidence interval of the expected return, see `diagnostics.mean_interval`.
        metrics: the environment's own, by their names; empty if it has none.
    """

    returns: np.ndarray
    lengths: np.ndarray
    mean: float
    stderr: float
    low: float
    high: float
    metrics: dict[str, MetricSummary]


class _Episode(NamedTuple):
    """One running episode, and what was summed up of it.

    Attributes:
        key: of its actions and steps.
        time: int32, steps taken.
        state, obs: the environment's.
        memory: the policy's, `()` without one.
        alive: whether it still runs.
        total_return: of the steps taken.
        metrics: name → (value after the last step, sum over the steps).
        fault: which of `_FAULTS` was met first, 0 for none.
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
    the reward stage, if there is one, and sees the greedy episodes as a batch of their own: a stage that looks at the
    statistics of a batch (`rewards.whiten`) would pay them in another unit, and does not fit this baseline.
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
    """X_1, with the keys of `rollouts.episodes`: the same key is the same episode."""
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
    """One step later; an episode that has ended stays as it is."""
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
    # A policy's memory may be large, and nobody asks it once the episode has ended: it alone is not held back.
    held = now._replace(memory=())
    return jax.tree.map(lambda new, old: jnp.where(now.alive, new, old), later, held)._replace(memory=memory)


def _fault(obs: PyTree, outputs: PyTree, reward: jax.Array) -> jax.Array:
    """The first of `_FAULTS`, in the order in which one leads to the next. Logits of −∞ are those of a mask."""
    found = jnp.where(jnp.isfinite(reward), 0, 3)
    found = jnp.where(_any(lambda x: jnp.isnan(x) | (x == jnp.inf), outputs), 2, found)
    return jnp.where(_any(jnp.isnan, obs), 1, found).astype(jnp.int32)


def _any(condition: Callable[[jax.Array], jax.Array], tree: PyTree) -> jax.Array:
    """Whether the condition holds anywhere in the floats of a tree."""
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(x), jnp.floating)]
    return functools.reduce(jnp.logical_or, [jnp.any(condition(x)) for x in floats], jnp.zeros((), jnp.bool_))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _play(environment: Environment, policy: Policy, params: PyTree, keys: jax.Array) -> _Episode:
    """Complete episodes, leaves `[B]`; what only a running one needs is left out."""
    start = jax.vmap(functools.partial(_start, environment, policy, params))(keys)
    advance = jax.vmap(functools.partial(_advance, environment, policy, params))
    ended = jax.lax.while_loop(lambda now: jnp.any(now.alive), advance, start)
    return ended._replace(key=(), state=(), obs=(), memory=())


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
        policy: samples its actions; wrap it in `greedy` for the mode, or use `environments.random_policy`.
        key: consumed; the same key gives the same starts to every policy that is compared.
        num_episodes: B ≥ 2; intervals from fewer than five episodes say little.
        confidence: of the intervals, in (0, 1). They cover as often as it says where returns are normal, and less where
            they are skewed; see `diagnostics.mean_interval`.

    Raises:
        ValueError: if `num_episodes` < 2 (no standard error), the environment breaks its contract, or NaN comes out of
            the environment or the policy: the error says from which of them it came first.
    """
    require_integer("num_episodes", num_episodes, 2, None)
    require_environment(environment)
    played = jax.device_get(_play(environment, policy, params, jax.random.split(key, num_episodes)))
    _refuse_faults(environment, played.fault)
    interval = lambda x: diagnostics.Estimate(*map(float, diagnostics.mean_interval(x, confidence=confidence)))
    summaries = {
        name: MetricSummary(final=interval(final), total=interval(total), mean=interval(total / played.time))
        for name, (final, total) in played.metrics.items()
    }
    found = interval(played.total_return)
    return Evaluation(
        returns=played.total_return,
        lengths=played.time,
        mean=float(found.value),
        stderr=float(found.stderr),
        low=float(found.low),
        high=float(found.high),
        metrics=summaries,
    )


def _refuse_faults(environment: Environment, faults: np.ndarray) -> None:
    if faults.any():
        first = faults[faults > 0][0]
        message = _FAULTS[int(first)].format(name=environment.name)
        raise ValueError(f"{message} (in {int((faults == first).sum())} of {len(faults)} episodes)")


def frames(environment: Environment, policy: Policy, params: PyTree, key: jax.Array) -> list[np.ndarray]:
    """One episode as pictures, uint8 `[H, W, 3]` each, its last state included.

    It is the episode that `rollouts.episodes` plays for this key.

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
