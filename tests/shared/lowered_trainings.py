"""Small trainings of every kind, for tests of what depends on the kind of device."""

import jax
import jax.numpy as jnp
import optax

from pgjax import automata, baselines, environments, estimators, networks, training
from pgjax.environments.text import make_text
from pgjax.networks.language_models import LlamaConfig
from pgjax.types import Environment, Estimator, Policy

CARTPOLE, CRITIC, BREAKOUT, GRU, TOKENS = "CartPole-v1", "value network", "Breakout-MinAtar", "GRU", "tokens"
WORDS = LlamaConfig(vocabulary=16, width=8, layers=1, heads=2, kv_heads=1, inner=16, context=16)


def value_of(environment: Environment, **options):
    return baselines.value_function(*networks.make_value(environment, **options), optax.adam(1e-2))


def _tokens() -> tuple[Environment, Policy, Estimator]:
    even = automata.count(range(0, 16, 2), 16)
    environment = make_text(jnp.arange(8).reshape(4, 2) % 16, score=even, max_new_tokens=4, vocabulary=16)
    params = networks.make_language_model(WORDS).init(jax.random.key(0))
    policy = networks.make_language_policy(environment, WORDS, params, recompute=True)
    rloo = baselines.leave_one_out(group_size=4)
    return environment, policy, estimators.make_estimator(policy, returns=estimators.total_return(), baseline=rloo)


def make(kind: str) -> tuple[Environment, Policy, training.Trainer]:
    """The environment, the policy and the trainer of a kind of training."""
    options = {"num_episodes": 64}
    if kind == TOKENS:
        environment, policy, estimator = _tokens()
    elif kind == GRU:
        environment = environments.make("recall", cues=2, delay=1)
        policy = networks.make_policy(environment, network="gru", hidden=(), network_options={"memory_size": 4})
        estimator = estimators.make_estimator(policy, baseline=baselines.leave_one_out())
    elif kind == BREAKOUT:
        environment = environments.make(kind)
        policy = networks.make_policy(environment, hidden=(8,))
        estimator = estimators.make_estimator(
            policy, returns=estimators.lambda_return(0.95, 0.99), baseline=value_of(environment, hidden=(8,))
        )
        options |= {"num_steps": 8, "num_episodes": 16}
    else:
        environment = environments.make(CARTPOLE, horizon=40)
        policy = networks.make_policy(environment, hidden=(8, 8))
        baseline = value_of(environment, hidden=(8,)) if kind == CRITIC else baselines.moving_average()
        estimator = estimators.make_estimator(
            policy, returns=estimators.reward_to_go(0.99), baseline=baseline, standardise="population"
        )
    return environment, policy, training.make_trainer(environment, policy, estimator, optax.adam(1e-2), **options)
