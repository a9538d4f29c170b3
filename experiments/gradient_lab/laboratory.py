"""The sampled measurements of the gradient laboratory: statistics of estimates, and what one step gains.

The baseline of every estimator first sees twenty batches of the same policy. Then all estimators are measured on the
same episodes. Axes: M estimates, B episodes of one estimate, P parameters.
"""

import functools
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.shared import measure
from experiments.shared.problems import Problem, in_float64
from pgjax import diagnostics, estimators, evaluation, exact, rollouts
from pgjax.registry import Entry
from pgjax.types import Estimator, PyTree, Trajectory

WARM_BATCHES = 20
STEPS = np.geomspace(1e-3, 30.0, 24)


class Episodes(NamedTuple):
    """θ's own episodes and, for estimators that learn from another policy, those of θ_old, `[T, N]` each."""

    own: Trajectory
    other: Trajectory

    def of(self, entry: Entry) -> Trajectory:
        return self.other if entry.behaviour else self.own


class Measured(NamedTuple):
    """The measurements of one estimator: statistics, cosine with the target, and the estimates `[M, P]`."""

    statistics: diagnostics.GradientStatistics
    cosine: diagnostics.Estimate
    estimates: np.ndarray


def old_params(problem: Problem) -> PyTree:
    """θ_old = θ − 0.3 ∇ρ / ‖∇ρ‖: the policy before a step, for the off-policy estimators."""
    flat, unravel = ravel_pytree(problem.params)
    if problem.truth is None:
        return problem.params
    gradient = problem.truth.gradient / max(np.linalg.norm(problem.truth.gradient), 1e-12)
    return unravel(flat - jnp.asarray(0.3 * gradient, flat.dtype))


def is_joint(problem: Problem, entry: Entry) -> bool:
    """Whether the weight of an episode depends on all episodes of the batch, and not only on those of its group."""
    return entry.joint and not (entry.compares and problem.parts.group_size > 1)


def needs_greedy(problem: Problem, entries: Mapping[str, Entry]) -> bool:
    """Whether any entry's estimator needs a greedy episode from each start."""
    return any(problem.estimator(entry).needs.greedy_returns for entry in entries.values())


def sample(problem: Problem, key: jax.Array, num_episodes: int, *, greedy: bool = False) -> Episodes:
    """`num_episodes` episodes of θ, and as many of θ_old; those of a group share a start.

    Args:
        greedy: whether the episodes of θ come with the greedy returns of their starts.
    """
    environment, policy, group_size = problem.environment, problem.policy, problem.parts.group_size
    play = functools.partial(rollouts.episodes, environment, policy, group_size=group_size)

    @jax.jit
    def collect(key: jax.Array) -> Episodes:
        own_keys, other_keys = jax.random.split(key, (2, num_episodes))
        own = play(problem.params, own_keys)
        if greedy:
            own = evaluation.with_greedy_returns(
                environment, policy, problem.params, own_keys, own, group_size=group_size
            )
        if problem.truth is None:
            return Episodes(own=own, other=own)
        old = old_params(problem)
        other = play(old, other_keys)
        return Episodes(own=own, other=estimators.record_behaviour(policy, old, other))

    return collect(key)


def in_parallel(function: Callable, items: Mapping[str, Any], advance: Callable[[str], None]) -> dict[str, Any]:
    """Name → function(name, item), two at a time, because compiling uses only one core."""
    found = {}
    with ThreadPoolExecutor(2) as pool:
        futures = {name: pool.submit(function, name, item) for name, item in items.items()}
        for name, future in futures.items():
            found[name] = future.result()
            advance(name)
    return found


def warmed(problem: Problem, estimator: Estimator, episodes: Trajectory, batch: int) -> PyTree:
    """The estimator's state after `WARM_BATCHES` of the episodes, cut into batches."""
    state = estimator.init(jax.random.key(1), exact.select_episodes(episodes, jnp.arange(batch)))
    if not jax.tree.leaves(state):
        return state
    rows = jnp.arange(WARM_BATCHES * batch).reshape(WARM_BATCHES, batch) % episodes.rewards.shape[1]

    def see(state: PyTree, indices: jax.Array) -> tuple[PyTree, None]:
        chosen = exact.select_episodes(episodes, indices)
        return estimator.gradient(problem.params, state, chosen)[1], None

    return jax.lax.scan(see, state, rows)[0]


@jax.jit
def _statistics(estimates: jax.Array, target: jax.Array):
    cosine = diagnostics.batch_cosine(estimates, target, batch_size=1)
    return diagnostics.gradient_statistics(estimates, target), cosine


@jax.jit
def _variance(estimates: jax.Array) -> diagnostics.Estimate:
    return diagnostics.gradient_statistics(estimates).variance


def large_sample(
    problem: Problem,
    entry: Entry,
    warm: Episodes,
    key: jax.Array,
    batch: int,
    num_episodes: int,
    repeats: int,
) -> tuple[jax.Array, np.ndarray]:
    """The mean of an entry's estimates over `repeats` samples of N episodes, and its squared errors, `[P]` each."""
    estimator = problem.estimator(entry)
    state = jax.jit(lambda warm: warmed(problem, estimator, warm, batch))(warm.of(entry))
    look = jax.jit(
        lambda episodes: measure.batch_estimates(estimator, problem.params, state, episodes, batch, at_once=256)
    )
    collect = jax.jit(
        lambda key: rollouts.episodes(
            problem.environment,
            problem.policy,
            problem.params,
            jax.random.split(key, num_episodes),
            group_size=problem.parts.group_size,
        )
    )
    estimates = np.concatenate([look(collect(key)) for key in jax.random.split(key, repeats)])
    return jnp.asarray(estimates.mean(axis=0)), estimates.var(axis=0, ddof=1) / len(estimates)


def measured(
    problem: Problem,
    entries: Mapping[str, Entry],
    episodes: Episodes,
    warm: Episodes,
    batch: int,
    target: Callable[[Entry], jax.Array],
    advance: Callable[[str], None],
) -> tuple[dict[str, Measured], dict[str, PyTree]]:
    """The statistics of every entry's estimate from B = `batch` episodes, and the states they were made with."""

    def one(name: str, entry: Entry) -> tuple[Measured, PyTree]:
        estimator = problem.estimator(entry)

        @jax.jit
        def look(warm: Trajectory, episodes: Trajectory):
            state = warmed(problem, estimator, warm, batch)
            estimates = measure.batch_estimates(estimator, problem.params, state, episodes, batch, at_once=256)
            return estimates, state

        estimates, state = look(warm.of(entry), episodes.of(entry))
        statistics, cosine = _statistics(estimates, target(entry))
        return Measured(statistics=statistics, cosine=cosine, estimates=np.asarray(estimates)), state

    found = in_parallel(one, entries, advance)
    return {name: one[0] for name, one in found.items()}, {name: one[1] for name, one in found.items()}


def paired_ratios(
    entries: Mapping[str, Entry], found: Mapping[str, Measured]
) -> tuple[str, dict[str, diagnostics.Estimate]]:
    """The first entry's name, and name → tr Var over the first one's, estimate by estimate on the same episodes.

    The ratio is known far better than either variance. Estimators that use other episodes, or that estimate another
    quantity, have no ratio.
    """
    alike = [name for name, entry in entries.items() if not (entry.behaviour or entry.natural)]
    if not alike:
        return "", {}
    first = found[alike[0]].estimates
    ratio = lambda name: diagnostics.paired_variance_ratio(found[name].estimates, first, resamples=200)
    return alike[0], {name: ratio(name) for name in alike}


def against_batch(
    problem: Problem,
    entries: Mapping[str, Entry],
    episodes: Episodes,
    warm: Episodes,
    found: Mapping[str, Measured],
    batch: int,
) -> dict[str, list[tuple[int, float, float, float]]]:
    """name → (B, tr Var, low, high) for B, 4 B and 16 B episodes an estimate.

    If episodes do not depend on each other, the estimate of a larger batch is the mean of those of smaller batches.
    """
    curves = {}
    for name, entry in entries.items():
        curves[name] = []
        for factor in (1, 4, 16):
            estimates = found[name].estimates
            if len(estimates) // factor < 8:
                break
            zeros = lambda _, size=estimates.shape[1]: jnp.zeros(size)
            if factor > 1 and is_joint(problem, entry):
                larger, _ = measured(problem, {name: entry}, episodes, warm, batch * factor, zeros, lambda _: None)
                estimates = larger[name].estimates
            elif factor > 1:
                usable = len(estimates) // factor * factor
                estimates = estimates[:usable].reshape(-1, factor, estimates.shape[1]).mean(axis=1)
            variance = _variance(estimates)
            curves[name].append((batch * factor, *map(float, (variance.value, variance.low, variance.high))))
    return curves


def gains(problem: Problem, found: Mapping[str, Measured], most: int = 512) -> dict[str, tuple[float, float]]:
    """The gain of one step of the best fixed size, E[ρ(θ + η ∇̂ρ)] − ρ(θ), and its standard error.

    ρ is exact. η is the best one for half of the estimates, and the gain is the mean over the other half, so that the
    choice of η does not bias it. The key "∇ρ" holds the gain of the exact gradient.
    """
    with jax.enable_x64(True):
        flat, unravel = ravel_pytree(jax.tree.map(in_float64, problem.params))
        truth, mdp, apply = problem.truth, problem.parts.oracle.mdp, problem.policy.apply

        @jax.jit
        def after(estimates: jax.Array) -> jax.Array:
            """ρ(θ + η g) − ρ(θ) for every η and g, `[24, M]`."""
            one = lambda step, estimate: exact.objective(apply, unravel(flat + step * estimate), mdp)
            each = jax.vmap(one, (None, 0))
            return jax.lax.map(lambda step: each(step, estimates), jnp.asarray(STEPS)) - truth.objective

        gained = {"∇ρ": (float(jnp.max(after(jnp.asarray(truth.gradient)[None]))), 0.0)}
        for name, one in found.items():
            rows = np.asarray(after(jnp.asarray(one.estimates[:most].astype(np.float64))))
            half = rows.shape[1] // 2
            kept = rows[np.argmax(rows[:, :half].mean(axis=1)), half:]
            gained[name] = float(kept.mean()), float(kept.std(ddof=1) / len(kept) ** 0.5)
    return gained
