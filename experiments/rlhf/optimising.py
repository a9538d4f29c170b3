"""The trainer of the loop: an estimator of the registry, which may need a predicted return, and KL in the reward."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.rlhf.problem import Problem
from pgjax import baselines, networks, preferences, registry, rewards, training
from pgjax.preferences import reward_models
from pgjax.types import Baseline, PyTree, Rewards, TrainState, Trajectory


@dataclasses.dataclass(frozen=True)
class Settings:
    """The numbers of the optimisation that are fixed while it is compiled."""

    episodes: int
    group_size: int
    epochs: int
    estimator: str
    learning_rate: float
    value_learning_rate: float


def _optimizer(learning_rate: float) -> Any:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))


def make_trainer(
    problem: Problem, settings: Settings, scored: preferences.RewardModel, reward_params: PyTree
) -> training.Trainer:
    """The trainer. Its reward stage holds the reward model, a meter of the proxy, and the penalty with β and θ_ref.

    Raises:
        ValueError: if the estimator is unknown, or needs more than a policy, groups and a predicted return.
    """
    entry = registry.find(settings.estimator)
    stages = rewards.in_turn(
        reward_models.stage(scored, reward_params), meter("proxy"), rewards.kl_penalty(problem.policy, kl_coef=0.0)
    )
    parts = registry.Parts(
        policy=problem.policy,
        value=make_value(problem, settings.value_learning_rate) if "value" in entry.needs else None,
        group_size=settings.group_size,
    )
    return training.make_trainer(
        problem.train,
        problem.policy,
        registry.make(entry, parts),
        _optimizer(settings.learning_rate),
        num_episodes=settings.episodes,
        group_size=settings.group_size,
        epochs=settings.epochs,
        rewards=stages,
    )


def make_value(problem: Problem, learning_rate: float) -> Baseline:
    """v(X_t) of an answer so far: a language model of the policy's sizes with one output, and parameters of its own."""
    network = networks.make_language_value(problem.train, problem.model)
    return baselines.value_function(
        network.init, network.apply, _optimizer(learning_rate), memory=network.memory, decay=0.9
    )


def started(key: jax.Array, train: TrainState, params: PyTree, kl_coef: jax.Array) -> TrainState:
    """The state of the trainer that begins with θ = θ_ref = `params`, and whose value begins with their body."""
    model_state, meter_state, penalty = train.reward_state
    penalty = penalty._replace(kl_coef=kl_coef, reference=params)
    learnt = train.estimator_state
    if isinstance(learnt, baselines.ValueFunctionState):
        learnt = learnt._replace(params=networks.with_value_head(key, params))
    return train._replace(params=params, estimator_state=learnt, reward_state=(model_state, meter_state, penalty))


def meter(name: str) -> Rewards:
    """A stage that changes nothing and reports the mean return at its place."""

    def read(params: PyTree, state: PyTree, trajectory: Trajectory):
        return trajectory, {name: jnp.mean(jnp.sum(trajectory.rewards, axis=0))}

    return rewards.transform(lambda trajectory: trajectory)._replace(relabel=read)
