"""One update: collect, weigh, ascend, and only then let the baseline see the batch."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax import estimators, evaluation, rollouts
from pgjax._checks import require_integer
from pgjax.types import Environment, Estimator, Policy, TrainState, Trajectory

PyTree = Any
Metrics = dict[str, jax.Array]


class Trainer(NamedTuple):
    """`init(key) → TrainState` and `update(state) → (state, metrics)`, both pure; jit, scan and vmap outside."""

    init: Callable[[jax.Array], TrainState]
    update: Callable[[TrainState], tuple[TrainState, Metrics]]


def _counts(trajectory: Trajectory) -> Metrics:
    return {
        "num_steps": jnp.sum(trajectory.alive),
        "nonfinite_rewards": jnp.sum(~jnp.isfinite(trajectory.rewards)),
    }


def _episode_metrics(trajectory: Trajectory) -> Metrics:
    returns, lengths = evaluation.episode_returns(trajectory)
    mean = {"mean_return": jnp.mean(returns), "mean_length": jnp.mean(lengths)}
    return {**mean, "num_finished": jnp.int32(returns.shape[0]), **_counts(trajectory)}


def _window_metrics(trajectory: Trajectory, finished: rollouts.FinishedEpisodes) -> Metrics:
    """Of the episodes that ended inside, NaN if none did: biased towards short ones while the lanes are young."""
    mean = lambda total: jnp.where(finished.count > 0, total / jnp.maximum(finished.count, 1), jnp.nan)
    return {
        "mean_return": mean(finished.total_return),
        "mean_length": mean(finished.length),
        "num_finished": finished.count,
        **_counts(trajectory),
    }


def make_trainer(
    environment: Environment,
    policy: Policy,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    *,
    num_episodes: int = 64,
    num_steps: int | None = None,
    microbatches: int = 1,
    epochs: int = 1,
    greedy_rollouts: bool = False,
    relabel: Callable[[Trajectory], Trajectory] = lambda trajectory: trajectory,
) -> Trainer:
    """The training of one policy by one estimator.

    Args:
        optimizer: optax's; it is given −∇̂ρ, so that it descends.
        num_episodes: B, episodes (or lanes) an update.
        num_steps: None collects complete episodes; a number collects continuing windows of that many steps, for
            estimators whose returns bootstrap.
        microbatches: collects the episodes in that many parts, one after another, and adds up their gradients, for
            batches that do not fit in memory. Statistics of the batch (leave-one-out, standardisation) are then those
            of a part, and the baseline sees each part after its use.
        epochs: optimiser steps on each batch. From the second on θ has left the θ_old that acted, whose
            log-probabilities are recorded for a `loss` that uses them (importance-weighted, clipped); the weights stay.
        greedy_rollouts: whether each episode's start is also played greedily, for `baselines.greedy_rollout`.
        relabel: the reward stage, a pure transform of the collected trajectory (`pgjax.rewards`). Metrics report the
            environment's own rewards.

    Raises:
        ValueError: if `microbatches` does not divide `num_episodes`, or a size is below one.
    """
    require_integer("num_episodes", num_episodes, 1, None)
    require_integer("microbatches", microbatches, 1, num_episodes)
    require_integer("epochs", epochs, 1, None)
    if epochs > 1 and microbatches > 1:
        raise ValueError(f"epochs must be 1 with microbatches={microbatches}, which keep no batch, got {epochs}")
    if num_episodes % microbatches:
        raise ValueError(f"microbatches must divide num_episodes={num_episodes}, got {microbatches}")
    if num_steps is not None:
        require_integer("num_steps", num_steps, 1, None)
        if microbatches != 1:
            raise ValueError(f"microbatches must be 1 with continuing windows (num_steps), got {microbatches}")
        if greedy_rollouts:
            raise ValueError("greedy_rollouts must be False with continuing windows (num_steps), which have no start")
        if not estimator.fits_windows:
            raise ValueError(
                f"num_steps must be None (complete episodes) unless the estimator's returns bootstrap and no factor "
                f"depends on the time in the episode, got {num_steps}: a window cuts episodes"
            )
    part = num_episodes // microbatches

    def collect(params: PyTree, lanes: PyTree, key: jax.Array):
        if num_steps is None:
            keys = jax.random.split(key, part)
            trajectory = rollouts.episodes(environment, policy, params, keys)
            if greedy_rollouts:
                trajectory = evaluation.with_greedy_returns(environment, policy, params, keys, trajectory)
            return lanes, trajectory, _episode_metrics(trajectory)
        lanes, trajectory, finished = rollouts.window(environment, policy, params, lanes, num_steps)
        return lanes, trajectory, _window_metrics(trajectory, finished)

    def init(key: jax.Array) -> TrainState:
        params_key, baseline_key, lanes_key, run_key = jax.random.split(key, 4)
        _, obs = environment.reset(jax.random.key(0), environment.params)
        params = policy.init(params_key, obs)
        lane_keys = jax.random.split(lanes_key, num_episodes)
        lanes = () if num_steps is None else rollouts.start_lanes(environment, lane_keys)
        shapes = jax.eval_shape(lambda: collect(params, lanes, run_key)[1])
        sample = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return TrainState(
            params=params,
            optimizer_state=optimizer.init(params),
            estimator_state=estimator.init(baseline_key, sample),
            lanes=lanes,
            key=run_key,
            update=jnp.zeros((), jnp.int32),
        )

    def one_part(params: PyTree, estimator_state: PyTree, lanes: PyTree, key: jax.Array):
        lanes, trajectory, metrics = collect(params, lanes, key)
        trajectory = relabel(trajectory)
        gradient, estimator_state, more = estimator.gradient(params, estimator_state, trajectory)
        return gradient, estimator_state, lanes, {**metrics, **more}, trajectory

    def all_parts(params: PyTree, estimator_state: PyTree, lanes: PyTree, key: jax.Array):
        if microbatches == 1:
            return one_part(params, estimator_state, lanes, key)

        def add(carry, part_key):
            total, estimator_state = carry
            gradient, estimator_state, _, metrics, _ = one_part(params, estimator_state, lanes, part_key)
            return (jax.tree.map(jnp.add, total, gradient), estimator_state), metrics

        zeros = jax.tree.map(jnp.zeros_like, params)
        (total, estimator_state), metrics = jax.lax.scan(
            add, (zeros, estimator_state), jax.random.split(key, microbatches)
        )
        counts = {name: jnp.sum(metrics.pop(name)) for name in ("num_finished", "num_steps", "nonfinite_rewards")}
        averaged = jax.tree.map(jnp.mean, metrics)
        return jax.tree.map(lambda x: x / microbatches, total), estimator_state, lanes, {**averaged, **counts}, None

    def descend(params: PyTree, optimizer_state: PyTree, gradient: PyTree) -> tuple[PyTree, PyTree]:
        updates, optimizer_state = optimizer.update(jax.tree.map(jnp.negative, gradient), optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state

    def more_epochs(old: TrainState, params: PyTree, optimizer_state: PyTree, trajectory: Trajectory):
        recorded = estimators.record_behaviour(policy, old.params, trajectory)

        def epoch(carry: tuple[PyTree, PyTree], _):
            gradient = estimator.gradient(carry[0], old.estimator_state, recorded)[0]
            return descend(*carry, gradient), None

        return jax.lax.scan(epoch, (params, optimizer_state), length=epochs - 1)[0]

    def update(state: TrainState) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.update)
        gradient, estimator_state, lanes, metrics, trajectory = all_parts(
            state.params, state.estimator_state, state.lanes, key
        )
        params, optimizer_state = descend(state.params, state.optimizer_state, gradient)
        if epochs > 1:
            params, optimizer_state = more_epochs(state, params, optimizer_state, trajectory)
        new = TrainState(
            params=params,
            optimizer_state=optimizer_state,
            estimator_state=estimator_state,
            lanes=lanes,
            key=state.key,
            update=state.update + 1,
        )
        return new, {**metrics, "gradient_norm": optax.tree.norm(gradient)}

    return Trainer(init=init, update=update)
