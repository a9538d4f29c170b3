"""The memory of the laboratory, estimated before it starts."""

from typing import Any

import jax
import numpy as np

from experiments.gradient_lab import laboratory, selection
from experiments.shared import memory as shared
from experiments.shared import problems
from pgjax import environments, exact, networks, registry
from pgjax.training.memory import bytes_of

# What works on one batch of estimates beside the estimates themselves: copies of their sums, squares and products.
COPIES = 4


def memory(config: Any) -> dict[str, float]:
    """The bytes of the sampled measurement: all episodes, and every estimate of each estimator.

    Raises:
        ValueError: the problem is unknown.
    """
    if config.checkpoint is not None:
        return {}
    name = config.problem or "corridor"
    if name in problems.TABULAR:
        with jax.enable_x64(True):
            environment = exact.to_environment(problems.TABULAR[name]())
        of_params = 4.0 * environment.observation_space.shape[0] * environment.action_space.n
        samples, sets = 1, 2
    else:
        environment = environments.make(name)
        policy = networks.make_policy(environment, hidden=config.hidden)
        _, obs = jax.eval_shape(lambda: environment.reset(jax.random.key(0), environment.params))
        of_params = bytes_of(jax.eval_shape(policy.init, jax.eval_shape(lambda: jax.random.key(0)), obs))
        samples, sets = 4, 1
    count = config.episodes // samples
    episodes = sets * shared.of_episodes(environment, count + laboratory.WARM_BATCHES * config.batch)
    estimators = len(selection.wanted(config.estimator)) if config.estimator else len(registry.ENTRIES)
    estimates = np.float64(count // config.batch) * of_params
    return {
        f"{count} episodes": 2 * episodes,
        f"the estimates of {estimators} estimators": float(estimates * (estimators + COPIES)),
    }
