"""From preferences to policies: reward models of four features, their exact optima, and trained policies.

Axes: S seeds, R runs, F features.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.runner import Recorder
from experiments.reward_hacking.task import (
    GOLD,
    LENGTH,
    VOCABULARY,
    Quality,
    Task,
    buffers_of,
    environment_of,
    features_of,
    quality,
    weighted,
)
from pgjax import baselines, estimators, exact, rewards, training
from pgjax.distributions import categorical
from pgjax.preferences import annotators, fitting, reward_models
from pgjax.types import Policy, PyTree

STEPS, STEP_SIZE, NORMALISING_ANSWERS, NUM_TEXTS = 400, 0.1, 4096, 3


def reference_table(task: Task) -> jax.Array:
    """ln π_ref as a policy of the state space, `[C, 1, V]`."""
    return task.reference.reference.log_probs[:, None, :]


def fit_reward_models(task: Task, seeds: jax.Array, *, labels: int, tastes: jax.Array) -> reward_models.Normalised:
    """Linear reward models of the features for each seed and taste, and one that is length alone: `[S, tastes + 1]`.

    The pairs of answers are those of a seed, whatever the taste is. φ is the maximum of the likelihood: the same full
    batch is used in each of 400 steps.
    """
    model, features = reward_models.linear(), features_of(task)

    @jax.jit
    def run(task: exact.MarkovTask, seeds: jax.Array, tastes: jax.Array, reference: jax.Array):
        def seen(key: jax.Array, count: int) -> jax.Array:
            """The features `[count, F]` of answers of the reference."""
            return reward_models.features_of(features, buffers_of(exact.sample_answers(key, task, reference, count)))

        def one(seed: jax.Array, taste: jax.Array) -> reward_models.Normalised:
            pair_key, label_key, norm_key, fit_key = jax.random.split(jax.random.key(seed), 4)
            pairs = seen(pair_key, 2 * labels).reshape(labels, 2, -1)
            annotator = annotators.Annotator(length_taste=taste)
            gold = pairs @ jnp.asarray(GOLD, pairs.dtype)
            outcomes = annotators.compare(label_key, annotator, gold, pairs[..., LENGTH])
            compared = fitting.Comparisons(
                first=pairs[:, 0], second=pairs[:, 1], outcomes=outcomes, margins=jnp.zeros(labels)
            )
            optimizer = optax.adam(optax.linear_schedule(STEP_SIZE, 0.0, STEPS))
            fit = fitting.fit(fit_key, model, compared, optimizer, num_epochs=STEPS, batch_size=labels)
            return reward_models.normalise(model, fit.params, seen(norm_key, NORMALISING_ANSWERS))

        def length_alone(seed: jax.Array) -> reward_models.Normalised:
            params = jax.nn.one_hot(LENGTH, len(GOLD))
            return reward_models.normalise(model, params, seen(jax.random.key(seed), NORMALISING_ANSWERS))

        fitted = jax.vmap(lambda seed: jax.vmap(lambda taste: one(seed, taste))(tastes))(seeds)
        alone = jax.vmap(length_alone)(seeds)
        return jax.tree.map(lambda x, y: jnp.concatenate([x, y[:, None]], axis=1), fitted, alone)

    return run(task.reference, seeds, tastes, reference_table(task))


def proxy_task(task: Task, params: reward_models.Normalised) -> exact.MarkovTask:
    """The task whose score is a reward model, as an automaton with the same states."""
    score = weighted(task.features, params.gain * params.params, params.bias)
    return dataclasses.replace(task.reference, score=score)


def frontiers(task: Task, params: reward_models.Normalised, kl_coefs: jax.Array, recorder: Recorder) -> Quality:
    """The exact optima of R reward models for each of K penalties β > 0, leaves `[R, K]`."""

    @jax.jit
    def run(params: reward_models.Normalised) -> Quality:
        own = proxy_task(task, params)

        def one(kl_coef: jax.Array) -> Quality:
            best = exact.soft_optimum(own, kl_coef)
            return quality(task.reference, best, best.expected_reward)

        return jax.lax.map(one, kl_coefs)

    found, count = [], params.gain.shape[0]
    with recorder.progress(count, "exact frontiers", "reward models") as progress:
        for row in range(count):
            found.append(jax.device_get(run(jax.tree.map(lambda x, row=row: x[row], params))))
            progress.advance(1)
    return jax.tree.map(lambda *rows: np.stack(rows), *found)


def word_policy(task: Task) -> tuple[Policy, Callable[[PyTree], jax.Array]]:
    """A policy that begins at the reference, and the table `[C, S, V]` of its log-probabilities for given parameters.

        logits(c, q, ·) = ln π_ref(· | c) + u(what has been read of the word) + w(q)

    u is shared by all states q of the automaton in which the same has been read, so a word that was learnt in one place
    is known in the others.
    """
    base, reference, read = exact.table_policy(task.reference), reference_table(task), jnp.asarray(task.reading)

    def logits(params: PyTree) -> jax.Array:
        return reference + (params["word"][read] + params["state"])[None]

    def init(key: jax.Array, obs: PyTree) -> PyTree:
        del key, obs
        return {"word": jnp.zeros((task.reading.max() + 1, VOCABULARY)), "state": jnp.zeros((len(read), VOCABULARY))}

    apply = lambda params, obs: base.apply(logits(params), obs)
    table = lambda params: jax.nn.log_softmax(logits(params))
    return Policy(init=init, apply=apply, distribution=categorical), table


class Recipe(NamedTuple):
    """The training of a policy: RLOO over all answers of an update, and Adam."""

    updates: int
    episodes: int
    learning_rate: float


class Trained(NamedTuple):
    """The trained policies.

    Attributes:
        values: exact values, `[R]`.
        optimum: ρ(π*), `[R]`; of no meaning for β = 0, as is the next one.
        kl_to_optimum: KL(π ‖ π*), `[R]`.
        texts: some answers of each run.
    """

    values: Quality
    optimum: np.ndarray
    kl_to_optimum: np.ndarray
    texts: exact.SampledAnswers


def train(
    task: Task,
    params: reward_models.Normalised,
    kl_coefs: jax.Array,
    keys: jax.Array,
    recipe: Recipe,
    recorder: Recorder,
) -> Trained:
    """Train R policies in one program, and evaluate them exactly."""
    environment, (policy, table_of) = environment_of(task), word_policy(task)
    model = reward_models.on_features(reward_models.normalised(reward_models.linear()), features_of(task))

    def build(run: tuple[PyTree, jax.Array]) -> training.Trainer:
        stages = rewards.in_turn(reward_models.stage(model, run[0]), rewards.kl_penalty(policy, run[1]))
        estimator = estimators.make_estimator(
            policy, returns=estimators.total_return(), baseline=baselines.leave_one_out()
        )
        optimizer = optax.adam(recipe.learning_rate)
        return training.make_trainer(
            environment, policy, estimator, optimizer, num_episodes=recipe.episodes, rewards=stages
        )

    with recorder.progress(recipe.updates, f"{len(keys)} policies", "updates") as progress:

        def on_chunk(done: int, metrics: dict, states) -> None:
            heard = f"mean length {metrics['mean_length'][:, -1].mean():.1f}"
            progress.advance(metrics["mean_length"].shape[1], heard)

        trained = training.train(build, keys, (params, kl_coefs), num_updates=recipe.updates, on_chunk=on_chunk)

    @jax.jit
    def evaluate(tables: PyTree, params: reward_models.Normalised, kl_coefs: jax.Array, keys: jax.Array):
        def one(run: tuple) -> tuple:
            table, params, kl_coef, key = run
            log_probs, own = table_of(table), proxy_task(task, params)
            best = exact.soft_optimum(own, jnp.where(kl_coef > 0, kl_coef, 1.0))
            texts = exact.sample_answers(key, task.reference, log_probs, NUM_TEXTS)
            proxy = exact.table_policy_values(own, log_probs).expected_reward
            return (
                quality(task.reference, log_probs, proxy),
                best.objective,
                exact.table_kl(own, log_probs, best),
                texts,
            )

        return jax.lax.map(one, (tables, params, kl_coefs, keys))

    found = evaluate(trained.states.params, params, kl_coefs, keys)
    return Trained(*jax.device_get(found))
