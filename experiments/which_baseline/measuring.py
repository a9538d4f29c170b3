"""The estimates of one problem, all from the same episodes, and three numbers about its returns.

Axes: M estimates, B episodes of one estimate, T time, P parameters.
"""

import functools
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared import measure
from experiments.shared.problems import Problem, make_network_problem
from pgjax import diagnostics, registry, returns, rollouts
from pgjax.types import Estimator, PyTree

# What people call the problem → the name of its environment. Recommendation has two: slates and ads.
PROBLEMS: Mapping[str, str] = {
    "maze": "maze",
    "navigation": "navigation",
    "swimmer": "swimmer",
    "slates": "slates",
    "ads": "ads",
    "Breakout": "Breakout-MinAtar",
    "cooling": "cooling",
    "text": "reverse",
}
# The ladder: names in the registry, all with the same mean. The first is what the others are divided by.
LADDER = (
    "reinforce",
    "reinforce_moving_average",
    "rloo",
    "gpomdp",
    "gpomdp_moving_average",
    "gpomdp_time_average",
    "gpomdp_value",
)
WARM_BATCHES, PART = 20, 20
MEASURING = 1_000_000


class Sizes(NamedTuple):
    """B; M; the number of updates before the measurement; the widths of the layers."""

    batch: int
    estimates: int
    updates: int
    hidden: tuple[int, ...]


class Measured(NamedTuple):
    """What was measured on one problem.

    Attributes:
        ratios: estimator → tr Var over that of the first one of `LADDER`, paired.
        length: the mean number of steps of an episode.
        constant_share: E[G_1]² / E[G_1²].
        explained: 1 − E(v − G_t)² / Var G_t over all live steps.
    """

    ratios: dict[str, diagnostics.Estimate]
    length: float
    constant_share: float
    explained: float


class _Sums(NamedTuple):
    """Sums over episodes or over live steps, scalars."""

    steps: jax.Array
    first: jax.Array
    first_squared: jax.Array
    to_go: jax.Array
    to_go_squared: jax.Array
    error_squared: jax.Array


def measure_problem(environment: str, sizes: Sizes, seed: int) -> Measured:
    """Measure the ladder at θ after `sizes.updates` updates."""
    problem = make_network_problem(environment, seed, sizes.hidden, sizes.updates)
    # The training has split the key of the seed; the first children of a split are fold_in of small numbers.
    measuring_key = jax.random.fold_in(jax.random.key(seed), MEASURING)
    state_key, warm_key, own_key = jax.random.split(measuring_key, 3)
    made = {name: registry.make(name, problem.parts) for name in LADDER}
    states = _warmed(problem, made, state_key, jax.random.split(warm_key, (WARM_BATCHES, sizes.batch)))
    # A part of the episodes at a time bounds the memory.
    part = next(n for n in range(min(PART, sizes.estimates), 0, -1) if sizes.estimates % n == 0)
    look = jax.jit(functools.partial(_look, problem, made, sizes.batch))
    parts = [look(states, keys) for keys in jax.random.split(own_key, (sizes.estimates // part, part * sizes.batch))]
    estimates = {name: np.concatenate([found[name] for found, _ in parts]) for name in LADDER}
    totals = _Sums(*(float(np.sum(x)) for x in zip(*(sums for _, sums in parts), strict=True)))
    return _summary(estimates, totals, sizes.batch * sizes.estimates)


def _warmed(
    problem: Problem, made: Mapping[str, Estimator], state_key: jax.Array, keys: jax.Array
) -> dict[str, PyTree]:
    """The states of the estimators, made with `state_key`, after batches of this policy; `keys` `[batches, B]`."""

    place = (problem.environment, problem.policy)

    @jax.jit
    def warmed(keys: jax.Array) -> dict[str, PyTree]:
        one = rollouts.episodes(*place, problem.params, keys[0])
        start = {name: estimator.init(state_key, one) for name, estimator in made.items()}
        see = lambda name: measure.warmed_state(*place, made[name], problem.params, start[name], keys)
        return {name: see(name) for name in made}

    return warmed(keys)


def _look(
    problem: Problem, made: Mapping[str, Estimator], batch: int, states: dict[str, PyTree], keys: jax.Array
) -> tuple[dict[str, jax.Array], _Sums]:
    """The estimates `[m, P]` of every estimator from the episodes of these keys, and the sums."""
    episodes = rollouts.episodes(problem.environment, problem.policy, problem.params, keys)
    estimate = lambda name: measure.batch_estimates(made[name], problem.params, states[name], episodes, batch)
    alive, to_go = episodes.alive, jax.vmap(returns.reward_to_go, 1, 1)(episodes.rewards)
    values = problem.parts.value.predict(states["gpomdp_value"], episodes)
    sum_of = lambda x: jnp.sum(jnp.where(alive, x, 0.0))
    sums = _Sums(
        steps=jnp.sum(alive),
        first=jnp.sum(to_go[0]),
        first_squared=jnp.sum(jnp.square(to_go[0])),
        to_go=sum_of(to_go),
        to_go_squared=sum_of(jnp.square(to_go)),
        error_squared=sum_of(jnp.square(to_go - values)),
    )
    return {name: estimate(name) for name in made}, sums


def _summary(estimates: dict[str, np.ndarray], totals: _Sums, num_episodes: int) -> Measured:
    """The ratios of the variances, and the numbers about the returns; these are NaN if no return differs from 0."""
    share = lambda part, whole: part / whole if whole > 0 else np.nan
    ratio = lambda name: diagnostics.paired_variance_ratio(estimates[name], estimates[LADDER[0]], resamples=200)
    variance = totals.to_go_squared / totals.steps - (totals.to_go / totals.steps) ** 2
    return Measured(
        ratios={name: ratio(name) for name in LADDER},
        length=totals.steps / num_episodes,
        constant_share=share(totals.first**2 / num_episodes, totals.first_squared),
        explained=1.0 - share(totals.error_squared / totals.steps, variance),
    )
