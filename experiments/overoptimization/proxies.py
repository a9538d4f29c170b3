"""Reward models fitted to synthetic preferences, and the exact frontier of each: no policy is trained here.

Axes: S seeds, C numbers of labels, N answers, K values of β or n, D distances √KL.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.overoptimization.task import ProxyModel, Task, buffers_of
from pgjax import exact
from pgjax.preferences import annotators, fitting, reward_models

DISTANCES = np.linspace(0.0, 3.0, 31)
KL_COEFS = np.geomspace(20.0, 0.02, 30)
NUM_DRAWS = np.array([1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024])
BATCH, PATIENCE, HELD_OUT = 50, 10, 0.2


class Recipe(NamedTuple):
    """How preferences are given and how reward models are fitted to them."""

    labels: tuple[int, ...]
    temperature: float
    learning_rate: float
    epochs: int
    test_pairs: int


class Fitted(NamedTuple):
    """The reward models of one size; leaves `[S, C, ...]`.

    Attributes:
        params: φ of the normalised model.
        rewards: r̂ of every answer, `[S, C, N]`, with mean 0 and standard deviation 1 under the reference.
        frontier: π*_β(r̂) for each β of `KL_COEFS`.
        best_of_n: best-of-n by r̂ for each n of `NUM_DRAWS`.
        test: `fitting.evaluate` on new pairs.
    """

    params: reward_models.Normalised
    rewards: jax.Array
    frontier: exact.Frontier
    best_of_n: exact.Frontier
    test: dict[str, jax.Array]


class Pairs(NamedTuple):
    """Numbers of two answers `[P, 2]`, the labels `[P]`, and the exact chances of the labels `[P, 3]`."""

    answers: jax.Array
    labels: jax.Array
    chances: jax.Array


def draw_pairs(key: jax.Array, task: Task, temperature: float, count: int) -> Pairs:
    """Pairs of answers of the reference, compared by an annotator that follows Bradley and Terry's model of gold."""
    pair_key, label_key = jax.random.split(key)
    pairs = jax.random.choice(pair_key, task.gold.shape[0], (count, 2), p=jnp.exp(task.log_probs))
    annotator = annotators.Annotator(temperature=temperature)
    return Pairs(
        answers=pairs,
        labels=annotators.compare(label_key, annotator, task.gold[pairs]),
        chances=annotators.probabilities(annotator, task.gold[pairs]),
    )


def comparisons(features: jax.Array, pairs: Pairs) -> fitting.Comparisons:
    first, second = (features[pairs.answers[:, place]] for place in range(2))
    return fitting.Comparisons(first=first, second=second, outcomes=pairs.labels, margins=jnp.zeros(len(pairs.labels)))


def fit_one(
    seed: jax.Array, count: jax.Array, task: Task, proxy: ProxyModel, features: jax.Array, recipe: Recipe
) -> tuple[reward_models.Normalised, dict[str, jax.Array]]:
    """φ fitted to the first `count` labels of a seed, and its test on new pairs.

    Seed and number alone decide which pairs are drawn, so all sizes of models see the same labels.
    """
    train_key, test_key, fit_key = jax.random.split(jax.random.key(seed), 3)
    labels = draw_pairs(train_key, task, recipe.temperature, max(recipe.labels))
    fit = fitting.fit(
        fit_key,
        proxy.model,
        comparisons(features, labels),
        optax.adam(recipe.learning_rate),
        num_epochs=recipe.epochs,
        batch_size=BATCH,
        weights=(jnp.arange(max(recipe.labels)) < count).astype(float),
        validation_fraction=HELD_OUT,
        patience=PATIENCE,
    )
    test = draw_pairs(test_key, task, recipe.temperature, recipe.test_pairs)
    found = fitting.evaluate(proxy.model, fit.params, comparisons(features, test), chances=test.chances)
    return reward_models.normalise(proxy.model, fit.params, features, jnp.exp(task.log_probs)), found


def rewards_of(proxy: ProxyModel, params: reward_models.Normalised, features: jax.Array) -> jax.Array:
    """r̂ of every answer, `[N]`."""
    return jax.vmap(reward_models.normalised(proxy.model).apply, (None, 0))(params, features)


def fit_all(task: Task, proxy: ProxyModel, recipe: Recipe, seeds: Sequence[int]) -> Fitted:
    """Fit to each number of labels with each seed, in one program, and compute the curves of each fit."""

    @jax.jit
    def run(task: Task, seeds: jax.Array, counts: jax.Array, kl_coefs: jax.Array, num_draws: jax.Array) -> Fitted:
        features = reward_models.features_of(proxy.features, buffers_of(task))
        one = lambda seed, count: fit_one(seed, count, task, proxy, features, recipe)
        params, test = jax.vmap(jax.vmap(one, (None, 0)), (0, None))(seeds, counts)

        def curves(params: reward_models.Normalised):
            rewards = rewards_of(proxy, params, features)
            return (
                rewards,
                exact.goodhart_frontier(task.log_probs, rewards, task.gold, kl_coefs),
                exact.best_of_n_frontier(task.log_probs, rewards, task.gold, num_draws),
            )

        rewards, frontier, best = jax.lax.map(lambda of_seed: jax.lax.map(curves, of_seed), params)
        return Fitted(params=params, rewards=rewards, frontier=frontier, best_of_n=best, test=test)

    numbers = (jnp.asarray(seeds), jnp.asarray(recipe.labels), jnp.asarray(KL_COEFS, float), jnp.asarray(NUM_DRAWS))
    return jax.block_until_ready(run(task, *numbers))


def fit_ensembles(
    task: Task, proxy: ProxyModel, recipe: Recipe, seeds: Sequence[int], *, members: int, penalty: float
) -> dict[str, exact.Frontier]:
    """The frontiers `[S, K]` of one member and of the combinations of M members, at the last number of labels.

    The members see the same labels, and differ in their start, their order and the labels that they hold out.
    """

    @jax.jit
    def run(task: Task, seeds: jax.Array, kl_coefs: jax.Array):
        features = reward_models.features_of(proxy.features, buffers_of(task))

        def member(seed: jax.Array, number: jax.Array) -> reward_models.Normalised:
            labels = draw_pairs(
                jax.random.split(jax.random.key(seed), 3)[0], task, recipe.temperature, recipe.labels[-1]
            )
            key = jax.random.fold_in(jax.random.key(seed), number)
            how = {"num_epochs": recipe.epochs, "batch_size": BATCH, "validation_fraction": HELD_OUT}
            optimizer = optax.adam(recipe.learning_rate)
            fit = fitting.fit(key, proxy.model, comparisons(features, labels), optimizer, patience=PATIENCE, **how)
            return reward_models.normalise(proxy.model, fit.params, features, jnp.exp(task.log_probs))

        params = jax.vmap(jax.vmap(member, (None, 0)), (0, None))(seeds, jnp.arange(members))

        def curves(params: reward_models.Normalised):
            rewards = jax.lax.map(lambda one: rewards_of(proxy, one, features), params)
            ways = {"one model": rewards[0], "mean": reward_models.combine(rewards)}
            ways |= {"worst": reward_models.combine(rewards, "worst")}
            ways |= {"penalised": reward_models.combine(rewards, "penalised", penalty)}
            of = lambda proxy: exact.goodhart_frontier(task.log_probs, proxy, task.gold, kl_coefs)
            return {name: of(combined) for name, combined in ways.items()}

        return jax.lax.map(curves, params)

    return jax.block_until_ready(run(task, jnp.asarray(seeds), jnp.asarray(KL_COEFS, float)))


def gold_frontier(task: Task) -> exact.Frontier:
    """The frontier of the gold score itself: the greatest gold that a policy of each KL can have."""
    of = jax.jit(lambda task, betas: exact.goodhart_frontier(task.log_probs, task.gold, task.gold, betas))
    return of(task, jnp.asarray(KL_COEFS, float))


# Curves against √KL, with NumPy.


def at_distances(curve: exact.Frontier, name: str, distances: np.ndarray = DISTANCES) -> np.ndarray:
    """A quantity of frontiers `[..., K]` at given √KL, `[..., D]`; the last value stands beyond the end of a curve."""
    kl, values = np.asarray(curve.kl), np.asarray(getattr(curve, name))
    leading, points = kl.shape[:-1], kl.shape[-1]
    rows = zip(np.sqrt(np.maximum(kl, 0.0)).reshape(-1, points), values.reshape(-1, points), strict=True)
    return np.array([np.interp(distances, *row) for row in rows]).reshape(*leading, len(distances))


class RiseAndFall(NamedTuple):
    """How far a curve rises from its start to the peak, and falls from there to its end; both `[S]`."""

    rise: np.ndarray
    fall: np.ndarray


def rise_and_fall(curves: np.ndarray) -> RiseAndFall:
    """The rise and the fall of each of S curves `[S, D]` about the peak of the mean of the *other* curves.

    A curve that chose its own peak would seem to rise and fall by noise alone.
    """
    others = curves.sum(axis=0) - curves
    rows, peaks = np.arange(len(curves)), others.argmax(axis=1)
    return RiseAndFall(rise=curves[rows, peaks] - curves[:, 0], fall=curves[rows, peaks] - curves[:, -1])


def peak_places(curves: np.ndarray, x: np.ndarray, resamples: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    """Where the mean over seeds of curves `[S, C, D]` is highest, `[C]`, and the same for bootstrap samples `[R, C]`.

    A bootstrap sample draws the seeds with replacement, the same for all C.
    """
    seeds = np.random.default_rng(0).integers(len(curves), size=(resamples, len(curves)))
    shares = np.stack([np.bincount(row, minlength=len(curves)) for row in seeds]) / len(curves)
    means = np.einsum("rs,scd->rcd", shares, curves)
    return x[curves.mean(axis=0).argmax(axis=-1)], x[means.argmax(axis=-1)]


def fit_form(distances: np.ndarray, gold: np.ndarray, logarithmic: bool) -> tuple[float, float, float]:
    """α, β and the share of the variance that d(α − β d), or d(α − β ln d), explains of the gold at √KL = d > 0.

    Source: Gao, Schulman & Hilton 2023 (arXiv 2210.10760), section 3; the first form is theirs for best-of-n, the
    second for policies that reinforcement learning trained.
    """
    d, gold = distances[distances > 0], gold[distances > 0]
    columns = np.stack([d, -d * (np.log(d) if logarithmic else d)], axis=1)
    found = np.linalg.lstsq(columns, gold, rcond=None)[0]
    left = np.sum(np.square(gold - columns @ found)) / np.sum(np.square(gold - gold.mean()))
    return float(found[0]), float(found[1]), float(1.0 - left)
