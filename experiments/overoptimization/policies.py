"""Policies that the trainer optimises against a fitted reward model, followed exactly.

Axes: R runs, E evaluations, N answers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness.runner import Recorder
from experiments.overoptimization.corrections import corrected_reference
from experiments.overoptimization.task import (
    VOCABULARY,
    ProxyModel,
    Task,
    environment_of,
    letters_of,
    observe,
    prefix_number,
)
from pgjax import baselines, estimators, exact, rewards, training
from pgjax.preferences import reward_models
from pgjax.types import PyTree


class Recipe(NamedTuple):
    """The training of a policy: RLOO over all answers of an update, and Adam."""

    updates: int
    evaluations: int
    episodes: int
    learning_rate: float
    width: int


class Runs(NamedTuple):
    """What is optimised: R reward models with the rewards of all answers, and R penalties."""

    params: reward_models.Normalised
    rewards: jax.Array
    kl_coefs: jax.Array


class Paths(NamedTuple):
    """Exact numbers along the training, before the first update and after each chunk of updates, all `[R, E]`."""

    kl: np.ndarray
    proxy: np.ndarray
    gold: np.ndarray
    entropy: np.ndarray


def train(task: Task, proxy: ProxyModel, runs: Runs, keys: jax.Array, recipe: Recipe, recorder: Recorder) -> Paths:
    """Train R policies in one program, and compute their KL, proxy, gold and entropy over all N answers."""
    environment, length = environment_of(task), task.answers.max_new_tokens
    policy = corrected_reference(
        lambda obs: task.reference[prefix_number(obs)], VOCABULARY, letters_of(length), (recipe.width,)
    )
    model = proxy.of_buffers()

    def build(run: tuple[PyTree, jax.Array]) -> training.Trainer:
        params, kl_coef = run
        stages = rewards.in_turn(reward_models.stage(model, params), rewards.kl_penalty(policy, kl_coef))
        estimator = estimators.make_estimator(
            policy, returns=estimators.total_return(), baseline=baselines.leave_one_out()
        )
        optimizer = optax.adam(recipe.learning_rate)
        return training.make_trainer(
            environment, policy, estimator, optimizer, num_episodes=recipe.episodes, rewards=stages
        )

    @jax.jit
    def values(task: Task, params: PyTree, proxies: jax.Array) -> Paths:
        def of_run(run: tuple[PyTree, jax.Array]) -> Paths:
            params, proxy = run
            table = exact.prefix_log_probs(
                policy, params, task.answers, observe(task), batch_size=task.answers.num_prefixes
            )
            log_probs = exact.answer_log_probs(task.answers, table)
            return Paths(
                kl=exact.kl_divergence(log_probs, task.log_probs),
                proxy=exact.expected(log_probs, proxy),
                gold=exact.expected(log_probs, task.gold),
                entropy=exact.entropy(log_probs),
            )

        return jax.lax.map(of_run, (params, proxies))

    nothing = jnp.zeros(len(keys))
    found = [
        Paths(nothing, exact.expected(task.log_probs, runs.rewards), nothing, nothing + exact.entropy(task.log_probs))
    ]
    chunk = max(1, recipe.updates // recipe.evaluations)
    with recorder.progress(recipe.updates, f"{len(keys)} policies", "updates") as progress:

        def on_chunk(done: int, metrics: dict, states) -> None:
            found.append(jax.device_get(values(task, states.params, runs.rewards)))
            progress.advance(metrics["mean_return"].shape[1], f"mean gold {np.mean(found[-1].gold):.2f}")

        training.train(
            build, keys, (runs.params, runs.kl_coefs), num_updates=recipe.updates, chunk=chunk, on_chunk=on_chunk
        )
    return Paths(*(np.stack(column, axis=1) for column in zip(*jax.device_get(found), strict=True)))


def beyond_the_optimum(paths: Paths, frontier: exact.Frontier) -> float:
    """The greatest E_π[r̂] − β KL(π) − (E_π*[r̂] − β KL(π*)) over all β, runs and evaluations, which cannot exceed 0.

    Args:
        paths: `[R, E]`.
        frontier: that of the reward model of each run, `[R, K]`.
    """
    beta = np.asarray(frontier.strength)
    best = np.asarray(frontier.proxy) - beta * np.asarray(frontier.kl)
    reached = paths.proxy[..., None] - beta[:, None] * paths.kl[..., None]
    return float(np.max(reached - best[:, None]))


def gold_on_the_way(paths: Paths, kl: np.ndarray) -> np.ndarray:
    """The gold of each path where it first has a given KL, `[R]`; its last value where it never has.

    Args:
        paths: `[R, E]`.
        kl: `[R]`.
    """
    found = []
    for run, wanted in enumerate(kl):
        way = paths.kl[run]
        after = int(np.argmax(way >= wanted)) if np.any(way >= wanted) else len(way) - 1
        before = max(after - 1, 0)
        found.append(np.interp(wanted, way[[before, after]], paths.gold[run][[before, after]]))
    return np.array(found)
