"""The evaluation of many trained runs, all on the same starts."""

from collections.abc import Mapping

import jax

from pgjax import evaluation
from pgjax.types import Environment, Policy, PyTree


def evaluate_runs(
    environment: Environment,
    policy: Policy,
    params: PyTree,
    failures: Mapping[int, str],
    *,
    num_runs: int,
    seed: int,
    num_episodes: int,
) -> tuple[dict[int, evaluation.Evaluation], dict[int, str]]:
    """Evaluate every run that has not failed.

    Args:
        params: leaves `[S, ...]`.
        failures: run → the reason why it failed in training.
        num_runs: S.
        seed: the seed of the first run. The starts of the evaluation are of another seed than those of any run.

    Returns:
        (results, failures): run → its evaluation, and run → the reason why it failed, in training or here.
    """
    key, results, failures = jax.random.key(seed + 10_000), {}, dict(failures)
    for run in range(num_runs):
        if run in failures:
            continue
        of_run = jax.tree.map(lambda x: x[run], params)
        try:
            results[run] = evaluation.evaluate(environment, policy, of_run, key, num_episodes=num_episodes)
        except ValueError as error:  # θ is still finite, but its outputs are not
            failures[run] = str(error)
    return results, failures
