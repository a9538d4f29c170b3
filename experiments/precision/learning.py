"""(d) Trainings of CartPole-v1 whose policy and value compute in one precision."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pgjax import baselines, environments, evaluation, networks, registry, training
from pgjax.networks import PrecisionWord

PRECISIONS = networks.PRECISIONS
EPISODES, EVALUATED, RATE = 32, 100, 0.01


class Learned(NamedTuple):
    """The evaluated mean return of every seed `[S]`, and the seconds of training without the compilation."""

    returns: np.ndarray
    seconds: float


def train(word: PrecisionWord, seeds: int, updates: int, hidden: tuple[int, ...], seed: int) -> Learned:
    """Train with G_t − v(X_t) and Adam, as `experiments.train` does on CartPole-v1, and evaluate each policy."""
    environment = environments.make("CartPole-v1")
    policy = networks.with_precision(networks.make_policy(environment, hidden=hidden), word)
    init, apply = networks.make_value(environment, hidden=hidden)
    value = baselines.value_function(init, networks.with_precision(apply, word), optax.adam(RATE), num_steps=4)
    estimator = registry.make("gpomdp_value", registry.Parts(policy=policy, value=value))
    falling = optax.linear_schedule(RATE, 0.1 * RATE, updates)

    def build(_) -> training.Trainer:
        return training.make_trainer(environment, policy, estimator, optax.adam(falling), num_episodes=EPISODES)

    keys = jax.vmap(jax.random.key)(seed + jnp.arange(seeds))
    trained = training.train(build, keys, num_updates=updates, keep_metrics=False)
    found = []
    for run in range(seeds):
        params = jax.tree.map(lambda x, run=run: x[run], trained.states.params)
        played = evaluation.evaluate(environment, policy, params, jax.random.key(seed + 10_000), num_episodes=EVALUATED)
        found.append(float(played.mean))
    return Learned(returns=np.array(found), seconds=float(trained.seconds))
