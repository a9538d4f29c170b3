"""The trainer of the loop: an estimator of the registry, which may need a predicted return, and the KL term."""

import dataclasses
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax

from experiments.rlhf.problem import Problem
from pgjax import baselines, estimators, losses, networks, preferences, registry, rewards, training
from pgjax.preferences import reward_models
from pgjax.types import Baseline, PyTree, Rewards, TrainState, Trajectory

KLPlacement = Literal["reward", "loss", "both"]


@dataclasses.dataclass(frozen=True)
class Settings:
    """The numbers of the optimisation that are fixed while it is compiled."""

    episodes: int
    group_size: int
    epochs: int
    estimator: str
    learning_rate: float
    value_learning_rate: float
    kl_kind: losses.KLKind
    kl_placement: KLPlacement
    kl_level: losses.KLLevel


def _optimizer(learning_rate: float) -> Any:
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(learning_rate))


def make_trainer(
    problem: Problem, settings: Settings, scored: preferences.RewardModel, reward_params: PyTree
) -> training.Trainer:
    """The trainer. Its reward stage holds the reward model, a meter of the proxy, and the penalty with β and θ_ref.

    With the KL term in the loss, its estimator is the sum of the estimator of the registry and of that term.

    Raises:
        ValueError: if the estimator is unknown, or needs more than a policy, groups and a predicted return.
    """
    entry = registry.find(settings.estimator)
    # Without a term in the reward the penalty has β = 0: it then only reports the KL.
    how: Any = {"kind": settings.kl_kind, "level": settings.kl_level}
    penalty = rewards.kl_penalty(problem.policy, kl_coef=0.0, **how)
    stages = rewards.in_turn(reward_models.stage(scored, reward_params), meter("proxy"), penalty)
    parts = registry.Parts(
        policy=problem.policy,
        value=make_value(problem, settings.value_learning_rate) if "value" in entry.needs else None,
        group_size=settings.group_size,
    )
    estimator = registry.make(entry, parts)
    if settings.kl_placement != "reward":
        # `started` replaces this β and this empty θ_ref.
        estimator = estimators.sum_of(estimator, estimators.kl_loss(problem.policy, 0.0, (), **how))
    return training.make_trainer(
        problem.train,
        problem.policy,
        estimator,
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


def started(key: jax.Array, train: TrainState, params: PyTree, kl_coef: jax.Array, settings: Settings) -> TrainState:
    """The state of the trainer that begins with θ = θ_ref = `params`, and whose value begins with their body.

    β and θ_ref go where `kl_placement` says: to the penalty in the reward, to the loss, or to both.

    Raises:
        ValueError: if the estimator needs a predicted return, but its state holds none that can start so.
    """
    model_state, meter_state, penalty = train.reward_state
    paid = jnp.zeros_like(kl_coef) if settings.kl_placement == "loss" else kl_coef
    penalty = penalty._replace(kl_coef=paid, reference=params)
    own = train.estimator_state
    lost: tuple = ()
    if settings.kl_placement != "reward":
        own, of_loss = own
        lost = (of_loss._replace(kl_coef=kl_coef, reference=params),)
    if "value" in registry.find(settings.estimator).needs:
        own = _with_started_value(key, own, params, settings.estimator)
    return train._replace(
        params=params, estimator_state=(own, *lost) if lost else own, reward_state=(model_state, meter_state, penalty)
    )


def _with_started_value(key: jax.Array, state: PyTree, params: PyTree, name: str) -> PyTree:
    """The state of an estimator whose predicted return begins with the body of `params`, wherever the state holds it.

    Raises:
        ValueError: if the state does not hold exactly one predicted return.
    """
    is_value = lambda x: isinstance(x, baselines.ValueFunctionState)
    found = sum(map(is_value, jax.tree.leaves(state, is_leaf=is_value)))
    if found != 1:
        raise ValueError(
            f"--estimator {name}: its state must hold one predicted return, which starts from the reference, "
            f"got {found} of them"
        )
    begin = lambda x: x._replace(params=networks.with_value_head(key, params)) if is_value(x) else x
    return jax.tree.map(begin, state, is_leaf=is_value)


def meter(name: str) -> Rewards:
    """A stage that changes nothing and reports the mean return at its place."""

    def read(params: PyTree, state: PyTree, trajectory: Trajectory):
        return trajectory, {name: jnp.mean(jnp.sum(trajectory.rewards, axis=0))}

    return rewards.transform(lambda trajectory: trajectory)._replace(relabel=read)
