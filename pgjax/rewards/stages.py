"""The reward stage as a record: transforms of a collected trajectory that have parameters, a state, and may learn.

    R ← relabel(θ, state, trajectory),  then the estimator weighs,  then  state ← update(state, trajectory)

`update` sees the trajectory that the estimator saw, with the relabelled rewards.
The state is part of `TrainState`: it is saved with it, and another state of the same shapes (a larger β, a reward model
that was fitted again) takes its place without compiling anything. Rewards are data: no gradient flows through them.
Axes: T time, B episodes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax import acting
from pgjax._checks import require_in_range
from pgjax.rewards.transforms import kl_regularised, relabel
from pgjax.types import Policy, PyTree, Rewards, Trajectory


def _unchanged(state: PyTree, trajectory: Trajectory) -> PyTree:
    del trajectory
    return state


def as_paid() -> Rewards:
    """The environment's own rewards, unchanged."""
    return Rewards(
        init=lambda key, params: (), relabel=lambda params, state, trajectory: (trajectory, {}), update=_unchanged
    )


def transform(function: Callable[[Trajectory], Trajectory]) -> Rewards:
    """A stage without parameters: `function` of the trajectory, such as `rewards.whiten`.

    One that looks at the statistics of the batch does not fit `baselines.greedy_rollout`, whose greedy episodes are a
    batch of their own.
    """
    return Rewards(
        init=lambda key, params: (),
        relabel=lambda params, state, trajectory: (function(trajectory), {}),
        update=_unchanged,
    )


class KLPenaltyState(NamedTuple):
    """β in `kl_coef`, a scalar, and the reference policy's parameters."""

    kl_coef: jax.Array
    reference: PyTree


def kl_penalty(
    policy: Policy, kl_coef: jax.typing.ArrayLike, reference: PyTree | None = None, *, rows_per_piece: int | None = None
) -> Rewards:
    """Each step pays for leaving the reference policy, measured with the θ that acted.

        R_{t+1} ← R_{t+1} − β [ln f(X_t, θ)_{A_t} − ln f(X_t, θ_ref)_{A_t}]

    The objective becomes E[Σ R] − β KL(f(θ) ‖ f(θ_ref)) over trajectories, and the score function with these rewards
    has its exact gradient (`kl_regularised`). The rollout records ln f(X_t, θ)_{A_t} as it draws the actions. The
    metric `kl` is the mean over episodes (in windows: over lanes) of Σ_t ln f(θ)/f(θ_ref): it estimates the divergence.

    Args:
        policy: f(x, θ), also of the reference.
        kl_coef: β ≥ 0, in units of reward per nat; `KLPenaltyState.kl_coef` may be changed at any time.
        reference: θ_ref; the θ at the start of training if None.
        rows_per_piece: how many rows are worked on at a time.

    Raises:
        ValueError: if `kl_coef` is negative.

    Source: Ziegler et al. 2019, eq. 2.
    """
    require_in_range("kl_coef", kl_coef, 0.0, None)

    def init(key: jax.Array, params: PyTree) -> KLPenaltyState:
        del key
        chosen = params if reference is None else reference
        # A copy: the training state is donated, and θ itself may not be given away twice.
        return KLPenaltyState(kl_coef=jnp.asarray(kl_coef, float), reference=jax.tree.map(jnp.copy, chosen))

    def penalise(params: PyTree, state: KLPenaltyState, trajectory: Trajectory):
        del params
        log_probs = trajectory.behaviour_log_probs
        if log_probs is None:
            raise ValueError("kl_penalty needs trajectory.behaviour_log_probs, got None: pass record_log_probs=True")
        of_reference = acting.log_probs(policy, state.reference, trajectory, rows_per_piece)
        kl = jnp.mean(jnp.sum(jnp.where(trajectory.alive, log_probs - of_reference, 0.0), axis=0))
        return kl_regularised(trajectory, log_probs, of_reference, kl_coef=state.kl_coef), {"kl": kl}

    return Rewards(init=init, relabel=penalise, update=_unchanged, needs_log_probs=True)


class RewardModelState(NamedTuple):
    """The reward model's parameters."""

    params: PyTree


def reward_model(function: Callable[[PyTree, Trajectory], jax.Array], params: PyTree) -> Rewards:
    """A learned reward in the place of the environment's.

        R_{t+1} ← r(trajectory; φ)_t

    `RewardModelState.params` is φ: put another φ there after every fit of the preferences. The metric
    `environment_return` is the mean return that the environment itself paid, which the policy no longer sees.

    Args:
        function: `(φ, trajectory) → R [T, B]`.
        params: φ at the start.
    """

    def score(theta: PyTree, state: RewardModelState, trajectory: Trajectory):
        del theta
        paid = jnp.mean(jnp.sum(trajectory.rewards, axis=0))
        return relabel(trajectory, function(state.params, trajectory)), {"environment_return": paid}

    init = lambda key, theta: RewardModelState(params=jax.tree.map(jnp.copy, params))
    return Rewards(init=init, relabel=score, update=_unchanged)


class RunningScaleState(NamedTuple):
    """A running mean of squared returns, and the number of batches seen; scalars."""

    mean_square: jax.Array
    num_updates: jax.Array


def running_scale(decay: jax.typing.ArrayLike = 0.99) -> Rewards:
    """Rewards in units of a running root mean square of the return: R ← R / s, s² ← β s² + (1 − β) mean G_1².

    In windows G_1 is the sum of a lane's rewards inside the window.

    *Use, then update*: s does not depend on the batch that it scales, so the expected gradient is that of ρ/s. s = 1
    before the first batch, and for as long as every return was 0. After other stages (`in_turn`) it must be the last.

    Args:
        decay: β in [0, 1].

    Raises:
        ValueError: if `decay` is outside [0, 1].
    """
    require_in_range("decay", decay, 0.0, 1.0)

    def init(key: jax.Array, params: PyTree) -> RunningScaleState:
        return RunningScaleState(mean_square=jnp.zeros((), float), num_updates=jnp.zeros((), jnp.int32))

    scale_of = lambda state: jnp.where(state.mean_square > 0, jnp.sqrt(state.mean_square), 1.0)

    def divide(params: PyTree, state: RunningScaleState, trajectory: Trajectory):
        scale = scale_of(state)
        return relabel(trajectory, trajectory.rewards / scale.astype(trajectory.rewards.dtype)), {"reward_scale": scale}

    def update(state: RunningScaleState, trajectory: Trajectory) -> RunningScaleState:
        # The estimator saw R / s.
        square = jnp.mean(jnp.square(jnp.sum(trajectory.rewards, axis=0) * scale_of(state)))
        weight = jnp.where(state.num_updates == 0, 0.0, decay)
        mean_square = (weight * state.mean_square + (1.0 - weight) * square).astype(state.mean_square.dtype)
        return RunningScaleState(mean_square=mean_square, num_updates=state.num_updates + 1)

    return Rewards(init=init, relabel=divide, update=update)


def in_turn(*stages: Rewards) -> Rewards:
    """Several stages, one after another; the state is the tuple of theirs, and each updates on the final rewards.

    A reward model first and a KL penalty after it is the objective of learning from preferences.

    Raises:
        ValueError: if there is no stage.
    """
    if not stages:
        raise ValueError("in_turn needs at least one stage, got none")

    def init(key: jax.Array, params: PyTree) -> tuple[PyTree, ...]:
        keys = jax.random.split(key, len(stages))
        return tuple(stage.init(one, params) for stage, one in zip(stages, keys))

    def relabel_all(params: PyTree, state: Sequence[PyTree], trajectory: Trajectory):
        metrics = {}
        for stage, own in zip(stages, state):
            trajectory, more = stage.relabel(params, own, trajectory)
            metrics |= more
        return trajectory, metrics

    def update(state: Sequence[PyTree], trajectory: Trajectory) -> tuple[PyTree, ...]:
        return tuple(stage.update(own, trajectory) for stage, own in zip(stages, state))

    return Rewards(
        init=init,
        relabel=relabel_all,
        update=update,
        needs_log_probs=any(stage.needs_log_probs for stage in stages),
    )
