"""Training with every form of the penalty in one program: the coefficient of each term is a hyper-parameter of a run.

Axes: R runs (forms × seeds), C evaluations, M prefixes, V tokens of the vocabulary.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.progress import Progress
from experiments.kl_placement.answers import Problem, log_probs, regularised
from experiments.kl_placement.forms import FORMS
from pgjax import baselines, estimators, exact, rewards, training
from pgjax.types import TrainState

TRAINED = (
    "k1 in the reward",
    "full in reward and loss",
    "k2 in the loss, sequence",
    "k3 in reward and loss",
    "k2 in the loss",
    "k3 in the loss",
    "k3 in the reward",
    "k1 in the loss",
)


class Recipe(NamedTuple):
    """β; answers in a batch; updates, and updates between two evaluations; η of Adam at the start, which falls to 0."""

    kl_coef: float
    episodes: int
    updates: int
    every: int
    learning_rate: float


class Learned(NamedTuple):
    """The results of training.

    Attributes:
        updates: `[C + 1]`, the updates after which θ was evaluated, from 0.
        regrets: form → J* − J(π), `[seeds, C + 1]`.
        divergences: form → KL(π ‖ π_ref), `[seeds, C + 1]`.
        best: J*.
        best_divergence: KL(π* ‖ π_ref).
        identity: the largest |J* − J(π) − β KL(π ‖ π*)| of all evaluated policies.
        seconds: seconds of training without compilation.
    """

    updates: np.ndarray
    regrets: dict[str, np.ndarray]
    divergences: dict[str, np.ndarray]
    best: float
    best_divergence: float
    identity: float
    seconds: float


def make_builder(problem: Problem, reference: jax.Array, recipe: Recipe):
    """Return `coefficients of all terms → Trainer`, and form → its coefficients. Training starts at θ_ref."""
    parts = list(dict.fromkeys(part for name in TRAINED for part in FORMS[name].parts))
    paid = [part for part in parts if part.placement == "reward"]
    lost = [part for part in parts if part.placement == "loss"]
    coefficients = {
        name: np.array([recipe.kl_coef * (part in FORMS[name].parts) for part in (*paid, *lost)], np.float32)
        for name in TRAINED
    }
    policy = problem.policy._replace(init=lambda key, obs: reference)
    environment = exact.to_environment(problem.every.mdp)
    schedule = optax.linear_schedule(recipe.learning_rate, 0.0, recipe.updates)

    def build(coefficients: jax.Array) -> training.Trainer:
        stages = [
            rewards.kl_penalty(policy, coefficients[i], reference, kind=part.kind, level=part.level)
            for i, part in enumerate(paid)
        ]
        losses = [
            estimators.kl_loss(policy, coefficients[i], reference, kind=part.kind, level=part.level, ratio=part.ratio)
            for i, part in enumerate(lost, len(paid))
        ]
        rloo = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=baselines.leave_one_out())
        return training.make_trainer(
            environment,
            policy,
            estimators.sum_of(rloo, *losses),
            optax.adam(schedule),
            num_episodes=recipe.episodes,
            rewards=rewards.in_turn(*stages),
        )

    return build, coefficients


def learn(problem: Problem, reference: np.ndarray, recipe: Recipe, seeds: range, progress: Progress) -> Learned:
    """Train every form of `TRAINED` with every seed, and evaluate θ exactly, in float64."""
    build, coefficients = make_builder(problem, jnp.asarray(reference, jnp.float32), recipe)
    keys = jax.vmap(jax.random.key)(jnp.asarray(np.tile(seeds, len(TRAINED))))
    hyperparams = jnp.asarray(np.repeat(list(coefficients.values()), len(seeds), axis=0))
    start = np.asarray(reference, np.float32)
    kept, updates = [np.broadcast_to(start, (len(keys), *start.shape))], [0]

    def heard(done: int, metrics: dict, states: TrainState) -> None:
        kept.append(np.array(states.params))
        updates.append(done)
        progress.advance(metrics["mean_return"].shape[1], f"{done} updates of {len(keys)} runs")

    trained = training.train(
        build, keys, hyperparams, num_updates=recipe.updates, chunk=recipe.every, mapping="vmap", on_chunk=heard
    )
    tables = np.stack(kept, axis=1).reshape(len(TRAINED), len(seeds), len(updates), *start.shape)
    return evaluated(problem, start, recipe.kl_coef, tables, np.array(updates), trained.seconds)


def evaluated(
    problem: Problem, reference: np.ndarray, kl_coef: float, tables: np.ndarray, updates: np.ndarray, seconds: float
) -> Learned:
    """Return the exact J* − J and divergence of every θ of `tables [form, seed, evaluation, M, V]`."""
    with jax.enable_x64(True):
        reference = jnp.asarray(reference, jnp.float64)

        def of(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            found = regularised(problem, params, reference, kl_coef)
            return found.regret, found.kl, jnp.abs(found.regret - kl_coef * found.kl_to_optimum)

        flat = jnp.asarray(tables.reshape(-1, *reference.shape), jnp.float64)
        gaps, divergences, apart = jax.jit(lambda x: jax.lax.map(of, x, batch_size=64))(flat)
        by_form = lambda x: dict(zip(TRAINED, np.asarray(x).reshape(tables.shape[:3]), strict=True))
        of_reference = log_probs(problem, reference)
        best = exact.tilted_log_probs(of_reference, problem.scores, kl_coef)
        return Learned(
            updates=updates,
            regrets=by_form(gaps),
            divergences=by_form(divergences),
            best=float(kl_coef * exact.log_partition(of_reference, problem.scores, kl_coef)),
            best_divergence=float(exact.kl_divergence(best, of_reference)),
            identity=float(apart.max()),
            seconds=seconds,
        )
