"""The exact measurements of the gradient laboratory: moments of estimates by enumeration and by dynamic programming.

Axes: B episodes of one estimate, k episodes of a group that share a start, P parameters.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.gradient_lab import laboratory
from experiments.harness.runner import usage_errors
from experiments.shared.problems import Problem, in_float64
from pgjax import estimators, exact
from pgjax.registry import Entry
from pgjax.types import PyTree, Trajectory

# Numbers of the estimates that are held at a time, 4 MiB in float64: what fits a core's cache is also the fastest.
NUMBERS_AT_ONCE = 2**19


class Exact(NamedTuple):
    """The estimate from a batch: its mean `[P]` and tr Var (None if only the mean is known).

    `rounding` is the length of the error that rounding may leave in the mean. `consistent` is false if enumeration
    contradicts dynamic programming or a stated factor.
    """

    mean: np.ndarray
    variance: float | None
    rounding: float
    consistent: bool = True


def exact_moments(
    problem: Problem,
    entries: Mapping[str, Entry],
    states: Mapping[str, PyTree],
    batch: int,
    limit: int,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Exact]:
    """Mean and tr Var of every entry's estimate from B episodes, in float64.

    They come from enumeration if all batches can be listed, from dynamic programming if the entry has a program, and
    from both if both are possible. If the groups of an entry do not depend on each other, one group of k episodes is
    enough: the variance falls as k/B. Before the enumeration `say` gets the number of batches and their memory.
    """
    found = _enumerate(problem, entries, states, batch, limit, say)
    for name, entry in entries.items():
        with jax.enable_x64(True):
            stated = _stated(problem, entry, batch)
        if stated is None:
            continue
        if name in found:
            allowed = found[name].rounding + stated.rounding
            agrees = np.linalg.norm(found[name].mean - stated.mean) <= allowed
            if stated.variance is not None:
                size = np.linalg.norm(found[name].mean) + found[name].variance ** 0.5
                agrees &= abs(found[name].variance - stated.variance) <= 2.0 * allowed * (size + allowed)
            found[name] = found[name]._replace(consistent=bool(agrees))
        else:
            found[name] = stated
    return found


def _stated(problem: Problem, entry: Entry, batch: int) -> Exact | None:
    mdp, group_size = problem.parts.oracle.mdp, problem.parts.group_size
    count = mdp.horizon * mdp.probabilities.size
    if entry.factor is not None:
        mean = entry.factor(_weighed_together(problem, entry, batch)) * problem.truth.gradient
        return Exact(mean=mean, variance=None, rounding=_rounding(problem, count, float(mean @ mean)))
    if entry.program is None:
        return None
    mean, variance = _by_program(problem, entry)
    rounding = _rounding(problem, count, float(mean @ mean) + variance)
    return Exact(mean=mean, variance=variance * group_size / batch, rounding=rounding)


def _rounding(problem: Problem, count: int, second_moment: float, dtype: Any = np.float64) -> float:
    """The error that arithmetic in `dtype` leaves in a mean: 16 ε √n (√E‖g‖² + T max|R| √tr F), n numbers being added.

    The second term is what G ψ is made of before anything is subtracted from G: with returns near 10⁶ and a baseline
    beside them the estimates are small, and their roundings are not. F is the Fisher information of an episode.
    """
    scale = second_moment**0.5 + problem.truth.largest_term
    return float(16.0 * np.finfo(dtype).eps * count**0.5 * scale)


def _by_program(problem: Problem, entry: Entry) -> tuple[np.ndarray, float]:
    """Mean and tr Var of the estimate from one group of k episodes that share a start s.

    tr Var = E[tr Var(ĝ_1 | s)] / k + tr Var(E[ĝ_1 | s]), ĝ_1 the estimate from one episode.
    """
    params, group_size = jax.tree.map(in_float64, problem.params), problem.parts.group_size
    parts = problem.parts._replace(settings=entry.resolve(problem.parts.settings))
    oracle = parts.oracle
    initial = np.asarray(oracle.mdp.initial)
    if group_size == 1:
        chances, starts = np.ones(1), initial[None]
    else:
        possible = np.flatnonzero(initial > 0)
        chances, starts = initial[possible], np.eye(initial.size)[possible]
    means, within = [], []
    for start in starts:
        mdp = dataclasses.replace(oracle.mdp, initial=jnp.asarray(start))
        moments = entry.program(parts._replace(oracle=oracle._replace(mdp=mdp)), params)
        means.append(np.asarray(ravel_pytree(moments.mean)[0]))
        within.append(float(moments.total_variance))
    mean = chances @ np.stack(means)
    between = chances @ np.sum(np.square(np.stack(means) - mean), axis=1)
    return mean, float(chances @ np.array(within) / group_size + between)


def _weighed_together(problem: Problem, entry: Entry, batch: int) -> int:
    """How many episodes make one independent part of the estimate."""
    return batch if laboratory.is_joint(problem, entry) else problem.parts.group_size


class _Part(NamedTuple):
    """Estimates that are enumerated together, from batches of `size` episodes of θ_old or of θ."""

    names: tuple[str, ...]
    size: int
    behaviour: bool


def _parts(problem: Problem, entries: Mapping[str, Entry], batch: int) -> list[_Part]:
    """Group the estimates that the trajectories determine. A greedy episode also depends on other random numbers."""
    places: dict[tuple[int, bool], list[str]] = {}
    for name, entry in entries.items():
        if not problem.estimator(entry).needs.greedy_returns:
            place = (_weighed_together(problem, entry, batch), entry.behaviour)
            places.setdefault(place, []).append(name)
    return [_Part(names=tuple(names), size=size, behaviour=behaviour) for (size, behaviour), names in places.items()]


def _enumerate(problem: Problem, entries, states, batch: int, limit: int, say) -> dict[str, Exact]:
    group_size = problem.parts.group_size
    with jax.enable_x64(True):
        try:
            enumeration = exact.enumerate_trajectories(problem.parts.oracle.mdp, limit=limit)
        except ValueError:
            return {}
        count = lambda part: exact.count_batches(enumeration, part.size, group_size=group_size)
        parts = [part for part in _parts(problem, entries, batch) if count(part) <= limit]
        planned = [_plan(problem, entries, states, enumeration, part, limit) for part in parts]
        if planned:
            num_batches = sum(plan.num_batches for plan, _ in planned)
            most = max(plan.num_bytes or 0 for plan, _ in planned)
            say(f"exact moments: {num_batches:,} batches, {most / 2**20:,.0f} MiB of memory at a time")
        found = {}
        for part, (plan, probabilities) in zip(parts, planned, strict=True):
            moments = plan.run(probabilities)
            for name in part.names:
                mean, variance = np.asarray(moments.mean[name]), float(jnp.sum(moments.variance[name]))
                second = float(mean @ mean) + variance
                rounding = _rounding(problem, plan.num_batches, second, moments.mean[name].dtype)
                found[name] = Exact(mean=mean, variance=variance * part.size / batch, rounding=rounding)
        return found


def _plan(
    problem: Problem, entries, states, enumeration: exact.Enumeration, part: _Part, limit: int
) -> tuple[exact.MomentsPlan, jax.Array]:
    """The compiled moments of a part, and the probabilities of the trajectories under the policy that acts."""
    double = lambda tree: jax.tree.map(in_float64, tree)
    policy, params = problem.policy, double(problem.params)
    acting = double(laboratory.old_params(problem)) if part.behaviour else params
    if part.behaviour:
        recorded = estimators.record_behaviour(policy, acting, enumeration.trajectories)
        enumeration = enumeration._replace(trajectories=recorded)
    made = {name: (problem.estimator(entries[name]), double(states[name])) for name in part.names}

    def together(trajectory: Trajectory) -> dict[str, jax.Array]:
        estimates = {name: made[name][0].gradient(params, made[name][1], trajectory)[0] for name in made}
        return {name: ravel_pytree(estimate)[0] for name, estimate in estimates.items()}

    numbers = len(made) * ravel_pytree(params)[0].size
    with usage_errors():
        plan = exact.plan_moments(
            together,
            enumeration,
            part.size,
            group_size=problem.parts.group_size,
            batch_size=int(np.clip(NUMBERS_AT_ONCE // numbers, 8, 1024)),
            limit=limit,
        )
    return plan, exact.trajectory_probabilities(policy, acting, enumeration)
