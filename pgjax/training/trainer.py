"""One update: collect, weigh, ascend, and only then let the baseline see the batch."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax import estimators, evaluation, rollouts
from pgjax import rewards as reward_stages
from pgjax._checks import nothing, require_kind
from pgjax._doors import readable
from pgjax._records import one_line
from pgjax._shards import everywhere
from pgjax.contracts import require_environment
from pgjax.training._meter import Meter, make_meter
from pgjax.training._sizes import checked_sizes, only_update, require_fitting_logits
from pgjax.types import Environment, Estimator, Policy, PyTree, Rewards, TrainState, Trajectory

Metrics = dict[str, jax.Array]


class Trainer(NamedTuple):
    """The pure functions of one run, to be jitted, scanned and vmapped. An update collects episodes, then learns.

    Attributes:
        init: `key → TrainState`.
        update: `TrainState → (TrainState, metrics)`.
        learn: `(TrainState, trajectory) → (TrainState, metrics)`: the second half of `update`, for episodes that were
            collected elsewhere with `state.params`.
        num_episodes: the number of episodes (or lanes) that are collected at once; devices may share them.
        group_size: the number of consecutive episodes that must stay on one device.
        record_log_probs: whether the episodes of `learn` need `behaviour_log_probs`, for the reward stage.
        only_update: the settings that `update` follows and `learn` cannot, such as `"microbatches=2"`.
    """

    init: Callable[[jax.Array], TrainState]
    update: Callable[[TrainState], tuple[TrainState, Metrics]]
    learn: Callable[[TrainState, Trajectory], tuple[TrainState, Metrics]]
    num_episodes: int = 1
    group_size: int = 1
    record_log_probs: bool = False
    only_update: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return one_line(self)


def _counts(trajectory: Trajectory) -> Metrics:
    return {
        "num_steps": jnp.sum(trajectory.alive),
        "nonfinite_observations": _num_nan(trajectory.obs, trajectory.alive),
        "nonfinite_rewards": jnp.sum(~jnp.isfinite(trajectory.rewards)),
    }


_COUNTS = ("num_finished", "num_steps", "nonfinite_observations", "nonfinite_rewards")


def _num_nan(obs: PyTree, alive: jax.Array) -> jax.Array:
    """The number of NaNs in the observations of live steps."""
    in_rows = lambda x: jnp.sum(jnp.isnan(x), axis=tuple(range(2, x.ndim)))
    floats = [x for x in jax.tree.leaves(obs) if jnp.issubdtype(x.dtype, jnp.floating)]
    return sum((jnp.sum(jnp.where(alive, in_rows(x), 0)) for x in floats), jnp.zeros((), jnp.int32))


def episode_metrics(trajectory: Trajectory) -> Metrics:
    """The mean return and length of complete episodes, as the environment paid them, and counts."""
    returns, lengths = evaluation.episode_returns(trajectory)
    mean = {"mean_return": jnp.mean(returns), "mean_length": jnp.mean(lengths)}
    return {**mean, "num_finished": jnp.int32(returns.shape[0]), **_counts(trajectory)}


def _window_metrics(trajectory: Trajectory, finished: rollouts.FinishedEpisodes) -> Metrics:
    """The metrics of the episodes that ended inside the window; the means are NaN if none ended.

    In the first windows they are biased towards short episodes, see `rollouts.FinishedEpisodes`.
    """
    mean = lambda total: jnp.where(finished.count > 0, total / jnp.maximum(finished.count, 1), nothing())
    return {
        "mean_return": mean(finished.total_return),
        "mean_length": mean(finished.length),
        "num_finished": finished.count,
        **_counts(trajectory),
    }


@readable
def make_trainer(
    environment: Environment,
    policy: Policy,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    *,
    num_episodes: int = 64,
    num_steps: int | None = None,
    group_size: int | None = None,
    microbatches: int = 1,
    epochs: int = 1,
    rewards: Rewards | None = None,
    meter: int | None = None,
) -> Trainer:
    """A `Trainer`, which trains one policy with one estimator.

    It provides what the estimator declares in `Estimator.needs` (greedy episodes, groups that share a start).

    Args:
        optimizer: an optax optimiser. It descends, so it is given −∇̂ρ.
        num_episodes: B, the number of episodes (or lanes) of an update.
        num_steps: None collects complete episodes; a number collects continuing windows of that many steps, for
            estimators whose returns bootstrap.
        group_size: k: every k consecutive episodes share a start. None takes the estimator's group size, and 1 gives
            every episode its own start even if the estimator has groups.
        microbatches: the number of parts in which the episodes are collected, one after another; their gradients are
            added up, for batches that do not fit in memory. Statistics of the batch (leave-one-out, standardisation)
            are then those of a part, and the baseline sees each part after its use.
        epochs: the number of optimiser steps on each batch. From the second step on θ differs from the θ_old that
            acted; the log-probabilities of θ_old are recorded for an `objective` that uses them (importance-weighted,
            clipped). The weights of `make_estimator` stay fixed; those of critics and of `importance_weighted` are
            computed anew with θ.
        rewards: the reward stage (`pgjax.rewards`); None takes the environment's own rewards. The metrics
            `mean_return` and `mean_length` report what the environment paid.
        meter: N measures the noise of the gradient that trains at every Nth update, beginning with the first: the
            metrics `meter_variance`, `meter_squared_norm` and `meter_half_cosine` are those of `diagnostics.BatchNoise`
            for 2 to 8 parts of the batch, and NaN in all other updates (0 with `jax_debug_nans`). The number of parts
            depends on the number of devices that share the episodes, so these metrics do too. It costs one more
            gradient in N updates; between runs that are vmapped together, in every update. None measures nothing.

    Raises:
        ValueError: if the environment breaks its contract, `microbatches` or `group_size` does not divide the number
            of episodes, groups differ from those that the estimator needs, or a size is below one; with `meter`, if the
            batch has no two parts of whole groups, or `microbatches` is above 1.

    Example: a trainer holds functions only; `training.train` runs it.

        >>> import optax
        >>> from pgjax import environments, estimators, networks, training
        >>> environment = environments.make("CartPole-v1")
        >>> policy = networks.make_policy(environment)
        >>> estimator = estimators.make_estimator(policy, returns=estimators.reward_to_go())
        >>> training.make_trainer(environment, policy, estimator, optimizer=optax.adam(0.01), num_episodes=16)
        Trainer(make_trainer, num_episodes=16)
    """
    require_environment(environment)
    require_kind("policy", policy, Policy, "networks.make_policy(environment)")
    require_kind("estimator", estimator, Estimator, "estimators.make_estimator(policy)")
    require_kind("optimizer", optimizer, optax.GradientTransformation, "optax.adam(0.01)")
    group_size = checked_sizes(estimator, num_episodes, num_steps, group_size, microbatches, epochs)
    rewards = reward_stages.as_paid() if rewards is None else rewards
    require_kind("rewards", rewards, Rewards, "rewards.transform(rewards.whiten)")
    part = num_episodes // microbatches
    collect = _make_collect(environment, policy, estimator, rewards, part, num_steps, group_size)
    look = None if meter is None else make_meter(estimator, meter, num_episodes, group_size, microbatches)
    learner = _make_learner(policy, estimator, optimizer, rewards, epochs, look)

    def init(key: jax.Array) -> TrainState:
        params_key, baseline_key, lanes_key, run_key, rewards_key = jax.random.split(key, 5)
        _, obs = environment.reset(jax.random.key(0), environment.params)
        params = policy.init(params_key, obs)
        require_fitting_logits(environment, policy, params, obs)
        lane_keys = jax.random.split(lanes_key, num_episodes)
        state = TrainState(
            params=params,
            optimizer_state=optimizer.init(params),
            estimator_state=(),
            lanes=() if num_steps is None else rollouts.start_lanes(environment, policy, params, lane_keys),
            key=run_key,
            update=jnp.zeros((), jnp.int32),
            reward_state=rewards.init(rewards_key, params),
        )
        shapes = jax.eval_shape(lambda: collect(state, run_key)[1])
        sample = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        return state._replace(estimator_state=estimator.init(baseline_key, sample))

    def update(state: TrainState) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.key, state.update)
        if microbatches > 1:
            return _learn_in_parts(collect, learner, state, jax.random.split(key, microbatches))
        lanes, trajectory, metrics = collect(state, key)
        state, more = learner.learn(state, trajectory)
        return state._replace(lanes=lanes), {**metrics, **more}

    return Trainer(
        init=init,
        update=update,
        learn=learner.learn,
        num_episodes=part,
        group_size=group_size,
        record_log_probs=rewards.needs_log_probs,
        only_update=only_update(estimator, num_steps, microbatches),
    )


Collect = Callable[[TrainState, jax.Array], tuple[PyTree, Trajectory, Metrics]]


def _make_collect(
    environment: Environment,
    policy: Policy,
    estimator: Estimator,
    rewards: Rewards,
    num_episodes: int,
    num_steps: int | None,
    group_size: int,
) -> Collect:
    """`(state, key) → (lanes, trajectory, metrics)`: episodes with all that the estimator and the reward stage need.

    The rewards are those that the environment paid.
    """
    record = rewards.needs_log_probs

    def episodes(state: TrainState, key: jax.Array) -> tuple[PyTree, Trajectory, Metrics]:
        keys = jax.random.split(key, num_episodes)
        how = {"group_size": group_size, "record_log_probs": record}
        trajectory = rollouts.episodes(environment, policy, state.params, keys, **how)
        if estimator.needs.greedy_returns:
            relabel = lambda played: rewards.relabel(state.params, state.reward_state, played)[0]
            trajectory = evaluation.with_greedy_returns(
                environment, policy, state.params, keys, trajectory, relabel=relabel, **how
            )
        return state.lanes, trajectory, episode_metrics(trajectory)

    if num_steps is None:
        return episodes

    def window(state: TrainState, key: jax.Array) -> tuple[PyTree, Trajectory, Metrics]:
        del key
        lanes, trajectory, finished = rollouts.window(
            environment, policy, state.params, state.lanes, num_steps, record_log_probs=record
        )
        return lanes, trajectory, _window_metrics(trajectory, finished)

    return window


class _Learner(NamedTuple):
    """The functions that learn from a collected trajectory.

    Attributes:
        weigh: `(state, trajectory) → (∇̂ρ, state, metrics, trajectory)`: the state holds the new states of the reward
            stage and of the estimator, and the trajectory has the rewards that were used.
        ascend: `(state, ∇̂ρ) → state`, one step of the optimiser.
        learn: `Trainer.learn`.
    """

    weigh: Callable[[TrainState, Trajectory], tuple[PyTree, TrainState, Metrics, Trajectory]]
    ascend: Callable[[TrainState, PyTree], TrainState]
    learn: Callable[[TrainState, Trajectory], tuple[TrainState, Metrics]]


def _make_learner(
    policy: Policy,
    estimator: Estimator,
    optimizer: optax.GradientTransformation,
    rewards: Rewards,
    epochs: int,
    look: Meter | None,
) -> _Learner:
    def weigh(state: TrainState, trajectory: Trajectory) -> tuple[PyTree, TrainState, Metrics, Trajectory]:
        trajectory, found = rewards.relabel(state.params, state.reward_state, _statistics_everywhere(trajectory))
        gradient, estimator_state, more = estimator.gradient(state.params, state.estimator_state, trajectory)
        reward_state = rewards.update(state.reward_state, trajectory)
        state = state._replace(estimator_state=estimator_state, reward_state=reward_state)
        return gradient, state, {**found, **more}, trajectory

    def ascend(state: TrainState, gradient: PyTree) -> TrainState:
        # This is the only place where maximising becomes minimising.
        descent = jax.tree.map(jnp.negative, gradient)
        updates, optimizer_state = optimizer.update(descent, state.optimizer_state, state.params)
        return state._replace(params=optax.apply_updates(state.params, updates), optimizer_state=optimizer_state)

    def more_epochs(old: TrainState, state: TrainState, trajectory: Trajectory) -> TrainState:
        if trajectory.behaviour_log_probs is None:
            trajectory = estimators.record_behaviour(policy, old.params, trajectory)

        def epoch(state: TrainState, _):
            gradient = estimator.gradient(state.params, old.estimator_state, trajectory)[0]
            return ascend(state, gradient), None

        return jax.lax.scan(epoch, state, length=epochs - 1)[0]

    def learn(old: TrainState, trajectory: Trajectory) -> tuple[TrainState, Metrics]:
        gradient, state, metrics, trajectory = weigh(old, trajectory)
        if look is not None:
            metrics = {**metrics, **look(old, trajectory)}
        state = ascend(state, gradient)
        if epochs > 1:
            state = more_epochs(old, state, trajectory)
        return state._replace(update=old.update + 1), {**metrics, "gradient_norm": optax.tree.norm(gradient)}

    return _Learner(weigh=weigh, ascend=ascend, learn=learn)


def _learn_in_parts(
    collect: Collect, learner: _Learner, old: TrainState, part_keys: jax.Array
) -> tuple[TrainState, Metrics]:
    """Collect the parts one after another, and take one optimiser step along their mean gradient."""

    def add(carry: tuple[PyTree, TrainState], part_key: jax.Array):
        total, state = carry
        _, trajectory, metrics = collect(state, part_key)
        gradient, state, more, _ = learner.weigh(state, trajectory)
        return (jax.tree.map(jnp.add, total, gradient), state), {**metrics, **more}

    zeros = jax.tree.map(jnp.zeros_like, old.params)
    (total, state), metrics = jax.lax.scan(add, (zeros, old), part_keys)
    counts = {name: jnp.sum(metrics.pop(name)) for name in _COUNTS}
    gradient = jax.tree.map(lambda x: x / part_keys.shape[0], total)
    metrics = {**jax.tree.map(jnp.mean, metrics), **counts, "gradient_norm": optax.tree.norm(gradient)}
    return learner.ascend(state, gradient)._replace(update=old.update + 1), metrics


def _statistics_everywhere(trajectory: Trajectory) -> Trajectory:
    """The trajectory with its arrays `[T, B]` complete on every device, because weights use statistics of the batch."""
    names = ("rewards", "alive", "terminated", "truncated", "behaviour_log_probs", "greedy_returns")
    numbers = {name: getattr(trajectory, name) for name in names}
    return trajectory._replace(**everywhere(numbers))
