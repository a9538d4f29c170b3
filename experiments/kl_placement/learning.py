"""Training with every form of the penalty in one program: the coefficient of each term is a hyper-parameter of a run.

Axes: F forms, S seeds, R = F S runs, C evaluations, M prefixes, V tokens of the vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.progress import Progress
from experiments.kl_placement.answers import Problem, log_probs, regularised
from experiments.kl_placement.forms import FORMS
from pgjax import baselines, estimators, exact, rewards, training
from pgjax.types import Environment, Policy, TrainState

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


class Start(NamedTuple):
    """Where training starts: the problem as an environment, the policy, and θ_ref, which is also the first θ."""

    environment: Environment
    policy: Policy
    reference: jax.Array


def make_builder(start: Start, recipe: Recipe, names: Sequence[str] = TRAINED):
    """Return `coefficients of all terms → Trainer`, and form → its coefficients. Training starts at θ_ref."""
    parts = list(dict.fromkeys(part for name in names for part in FORMS[name].parts))
    paid = [part for part in parts if part.placement == "reward"]
    lost = [part for part in parts if part.placement == "loss"]
    coefficients = {
        name: np.array([recipe.kl_coef * (part in FORMS[name].parts) for part in (*paid, *lost)], np.float32)
        for name in names
    }
    reference = start.reference
    policy = start.policy._replace(init=lambda key, obs: reference)
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
            start.environment,
            policy,
            estimators.sum_of(rloo, *losses),
            optax.adam(schedule),
            num_episodes=recipe.episodes,
            rewards=rewards.in_turn(*stages),
        )

    return build, coefficients


class Runs(NamedTuple):
    """What training leaves: `updates [C]`, from 0; every θ, `tables [F, S, C, …]`; and the seconds of training."""

    updates: np.ndarray
    tables: np.ndarray
    seconds: float


def train_forms(start: Start, recipe: Recipe, names: Sequence[str], seeds: range, progress: Progress) -> Runs:
    """Train with every form of `names` and every seed in one program, and keep θ after each `recipe.every` updates."""
    build, coefficients = make_builder(start, recipe, names)
    keys = jax.vmap(jax.random.key)(jnp.asarray(np.tile(seeds, len(names))))
    hyperparams = jnp.asarray(np.repeat(list(coefficients.values()), len(seeds), axis=0))
    first = np.asarray(start.reference)
    kept, updates = [np.broadcast_to(first, (len(keys), *first.shape))], [0]

    def heard(done: int, metrics: dict, states: TrainState) -> None:
        kept.append(np.array(states.params))
        updates.append(done)
        progress.advance(metrics["mean_return"].shape[1], f"{done} updates of {len(keys)} runs")

    trained = training.train(
        build, keys, hyperparams, num_updates=recipe.updates, chunk=recipe.every, mapping="vmap", on_chunk=heard
    )
    tables = np.stack(kept, axis=1).reshape(len(names), len(seeds), len(updates), *first.shape)
    return Runs(updates=np.array(updates), tables=tables, seconds=trained.seconds)


def learn(problem: Problem, reference: np.ndarray, recipe: Recipe, seeds: range, progress: Progress) -> Learned:
    """Train every form of `TRAINED` with every seed, and evaluate θ exactly, in float64."""
    start = Start(
        environment=exact.to_environment(problem.every.mdp),
        policy=problem.policy,
        reference=jnp.asarray(reference, jnp.float32),
    )
    return evaluated(problem, start.reference, recipe.kl_coef, train_forms(start, recipe, TRAINED, seeds, progress))


def evaluated(problem: Problem, reference: jax.Array, kl_coef: float, runs: Runs) -> Learned:
    """Return the exact J* − J and divergence of every θ that training left."""
    with jax.enable_x64(True):
        reference = jnp.asarray(reference, jnp.float64)

        def of(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            found = regularised(problem, params, reference, kl_coef)
            return found.regret, found.kl, jnp.abs(found.regret - kl_coef * found.kl_to_optimum)

        of_reference = log_probs(problem, reference)
        best = exact.tilted_log_probs(of_reference, problem.scores, kl_coef)
        return summarised(
            runs,
            TRAINED,
            of,
            best=float(kl_coef * exact.log_partition(of_reference, problem.scores, kl_coef)),
            best_divergence=float(exact.kl_divergence(best, of_reference)),
        )


def summarised(runs: Runs, names: Sequence[str], of: Callable, *, best: float, best_divergence: float) -> Learned:
    """Evaluate every θ by `of`: θ → (J* − J, KL(π ‖ π_ref), |J* − J − β KL(π ‖ π*)|). Call it with 64-bit numbers."""
    shape = runs.tables.shape[3:]
    flat = jnp.asarray(runs.tables.reshape(-1, *shape), jnp.float64)
    gaps, divergences, apart = jax.jit(lambda x: jax.lax.map(of, x, batch_size=64))(flat)
    by_form = lambda x: dict(zip(names, np.asarray(x).reshape(runs.tables.shape[:3]), strict=True))
    return Learned(
        updates=runs.updates,
        regrets=by_form(gaps),
        divergences=by_form(divergences),
        best=best,
        best_divergence=best_divergence,
        identity=float(apart.max()),
        seconds=runs.seconds,
    )
