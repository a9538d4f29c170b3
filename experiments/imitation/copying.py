"""Copies of an expert: cloning, DAgger and DART for many seeds in one program each.

Axes: S seeds, K numbers of the expert's episodes.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner
from experiments.imitation.problems import Problem
from experiments.imitation.scoring import Score
from pgjax import evaluation, imitation
from pgjax.types import PyTree


class Curve(NamedTuple):
    """The copies of each seed against K numbers of the expert's episodes.

    Attributes:
        episodes: the numbers `[K]`.
        values: measure → its mean over the episodes of the evaluation, `[S, K]`.
        params: θ of the last copy of each seed, leaves `[S, ...]`.
    """

    episodes: np.ndarray
    values: dict[str, np.ndarray]
    params: PyTree


class Fitting(NamedTuple):
    """How the copies are fitted: Adam with the learning rate η, `epochs` passes in minibatches of `batch_size` rows."""

    learning_rate: float
    epochs: int
    batch_size: int

    def of(self, problem: Problem) -> imitation.Fitter:
        optimizer = optax.adam(self.learning_rate)
        return imitation.gradient_fit(
            problem.policy, optimizer, loss=problem.loss, num_epochs=self.epochs, batch_size=self.batch_size
        )


def each_seed(
    one: Callable[[jax.Array], PyTree], keys: jax.Array, score: Score, name: str, recorder: runner.Recorder
) -> tuple[dict[str, np.ndarray], PyTree]:
    """The scores `[S, K]` and the parameters `[S, K, ...]` of `one(key)`, a few seeds at a time to show the progress.

    One program serves all seeds.
    """
    chunk = max(size for size in range(1, 6) if len(keys) % size == 0)
    compiled, params, values = jax.jit(lambda keys: jax.lax.map(one, keys)), [], []
    with recorder.progress(len(keys), name, "seeds") as progress:
        for start in range(0, len(keys), chunk):
            params.append(jax.tree.map(np.asarray, compiled(keys[start : start + chunk])))
            values.append(score.copies(params[-1]))
            progress.advance(chunk, f"return {values[-1]['return'][:, -1].mean():.4g}")
    together = lambda *parts: np.concatenate(parts)
    return jax.tree.map(together, *values), jax.tree.map(together, *params)


def _curve(episodes: np.ndarray, found: tuple[dict[str, np.ndarray], PyTree]) -> Curve:
    values, params = found
    return Curve(episodes=episodes, values=values, params=jax.tree.map(lambda x: x[:, -1], params))


def clones(problem: Problem, fit: imitation.Fitter, sizes: tuple[int, ...]) -> Callable[[jax.Array], PyTree]:
    """`key → θ` of the copies of the first of the expert's episodes, as many as each of `sizes`, leaves `[K, ...]`.

    Every key has episodes of its own.
    """

    def one(key: jax.Array) -> PyTree:
        data_key, init_key, fit_key = jax.random.split(key, 3)
        data = problem.demonstrate(data_key, sizes[-1])
        start = problem.policy.init(init_key, jax.tree.map(lambda x: x[0], data.obs))

        def of_size(size: jax.Array) -> PyTree:
            chosen = data._replace(weights=jnp.where(data.groups < size, data.weights, 0.0))
            return fit(fit_key, start, chosen)

        return jax.lax.map(of_size, jnp.asarray(sizes))

    return one


def clone(
    problem: Problem,
    fit: imitation.Fitter,
    sizes: tuple[int, ...],
    keys: jax.Array,
    score: Score,
    recorder: runner.Recorder,
) -> Curve:
    """Clone the first 1, 2, 5, … of the expert's episodes."""
    found = each_seed(clones(problem, fit, sizes), keys, score, "cloning", recorder)
    return _curve(np.asarray(sizes), found)


def ask(
    problem: Problem,
    fit: imitation.Fitter,
    algorithm: str,
    rounds: int,
    episodes: int,
    keys: jax.Array,
    score: Score,
    recorder: runner.Recorder,
) -> Curve:
    """Run DAgger or DART with `episodes` episodes in all, and keep the copy of every round."""
    options = {"num_rounds": rounds, "num_episodes": episodes // rounds}
    if algorithm == "dart":
        options["level"] = problem.noise
    method = getattr(imitation, algorithm)
    greedy = evaluation.greedy(problem.policy)  # as the copies are judged

    def one(key: jax.Array) -> PyTree:
        return method(key, problem.environment, problem.expert, greedy, fit, **options).round_params

    found = each_seed(one, keys, score, algorithm, recorder)
    return _curve(episodes // rounds * (1 + np.arange(rounds)), found)
