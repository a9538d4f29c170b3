"""Reward stages as records: they replace the rewards of a collected trajectory, have a state, and may learn.

    R ← relabel(θ, state, trajectory),  then the estimator weighs,  then  state ← update(state, trajectory)

`update` sees the trajectory that the estimator saw, with the new rewards. The state is part of `TrainState` and is
saved with it. You may replace it by another state of the same shapes, for example with a larger β or with a reward
model that was fitted again; nothing is compiled again. Rewards are data: no gradient flows through them. Axes: T time,
B episodes.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp

from pgjax import acting, losses
from pgjax._checks import require_in_range, require_one_of
from pgjax._doors import readable
from pgjax.rewards.transforms import at_last_step, kl_regularised, minus_penalty, over_episode, relabel
from pgjax.types import Policy, PyTree, Rewards, Trajectory


@readable
def as_paid() -> Rewards:
    """The stage that keeps the rewards of the environment.

    Example:
        >>> from pgjax import rewards
        >>> rewards.as_paid()
        Rewards(as_paid)
    """
    return Rewards(
        init=lambda key, params: (),
        relabel=lambda params, state, trajectory: (trajectory, {}),
        update=lambda state, trajectory: state,
    )


@readable
def transform(function: Callable[[Trajectory], Trajectory]) -> Rewards:
    """A stage without parameters and without a state, made from a function.

    A function that uses statistics of the batch does not fit `baselines.greedy_rollout`, because the greedy episodes
    form a separate batch with other statistics.

    Args:
        function: `trajectory → trajectory` with the new rewards, such as `rewards.whiten`.

    Example: rewards in units of 100.

        >>> from pgjax import rewards
        >>> rewards.transform(lambda trajectory: rewards.scale(trajectory, 0.01))
        Rewards(transform)
    """
    return Rewards(
        init=lambda key, params: (),
        relabel=lambda params, state, trajectory: (function(trajectory), {}),
        update=lambda state, trajectory: state,
    )


class KLPenaltyState(NamedTuple):
    """`kl_coef` is β, a scalar; `reference` is θ_ref, the parameters of the reference policy."""

    kl_coef: jax.Array
    reference: PyTree


@readable
def kl_penalty(
    policy: Policy,
    kl_coef: jax.typing.ArrayLike,
    reference: PyTree | None = None,
    *,
    kind: losses.KLKind = "k1",
    level: losses.KLLevel = "token",
    rows_per_piece: int | None = None,
) -> Rewards:
    """A stage that subtracts a penalty for leaving a reference policy from each reward.

        R_{t+1} ← R_{t+1} − β [ln f(X_t, θ)_{A_t} − ln f(X_t, θ_ref)_{A_t}]

    The objective becomes E[Σ R] − β KL(f(θ) ‖ f(θ_ref)) over trajectories, and the score function with these rewards
    estimates its exact gradient (`kl_regularised`). θ is the policy that acted; the rollout records ln f(X_t, θ)_{A_t}
    when it draws the actions. The metric `kl` estimates the divergence: it is the mean of Σ_t ln f(θ)/f(θ_ref) over
    episodes, or over the streams of windows; with `"full"`, the mean of Σ_t KL(f(X_t, θ) ‖ f(X_t, θ_ref)).

    Only `"k1"` gives the exact gradient by itself. Each other kind needs `estimators.kl_loss` of the same kind beside
    it. With `"full"` the two give the exact gradient of the objective above, usually with a smaller variance than k1:
    the penalty charges for the divergences at later steps, and the loss follows the gradient of the one at this step.

    Args:
        policy: f(x, θ), which is also the reference policy with θ_ref.
        kl_coef: β ≥ 0, in units of reward per nat; you may change `KLPenaltyState.kl_coef` at any time.
        reference: θ_ref; the θ at the start of training if None.
        kind: `"k1"`, `"k2"` or `"k3"`, an estimate from the action (`losses.kl_estimate`); or `"full"`, the divergence
            over all actions at X_t. For `"full"` the `params` of `relabel` must be the θ that acted, as in training.
        level: `"token"` pays at each step. `"sequence"` pays once, at the last step: the estimate from the ratio of the
            whole episode, or the sum of the divergences with `"full"`.
        rows_per_piece: the number of rows that are computed at a time; chosen by the device if None.

    Raises:
        ValueError: if `kl_coef` is negative, or a word is unknown.

    Source: Ziegler et al. 2019, eq. 2; Schulman 2020 (k2, k3).

    Example:
        >>> from pgjax import environments, networks, rewards
        >>> policy = networks.make_policy(environments.make("corridor"))
        >>> rewards.kl_penalty(policy, kl_coef=0.1)
        Rewards(kl_penalty, needs_log_probs=True)
    """
    require_in_range("kl_coef", kl_coef, 0.0, None)
    require_one_of("kind", kind, get_args(losses.KLKind))
    require_one_of("level", level, get_args(losses.KLLevel))

    def init(key: jax.Array, params: PyTree) -> KLPenaltyState:
        del key
        chosen = params if reference is None else reference
        # The reference is a copy: the training state is donated, and no array may be donated twice.
        return KLPenaltyState(kl_coef=jnp.asarray(kl_coef, float), reference=jax.tree.map(jnp.copy, chosen))

    def of_actions(state: KLPenaltyState, trajectory: Trajectory) -> tuple[Trajectory, jax.Array]:
        log_probs = trajectory.behaviour_log_probs
        if log_probs is None:
            raise ValueError("kl_penalty needs trajectory.behaviour_log_probs, got None: pass record_log_probs=True")
        of_reference = acting.log_probs(policy, state.reference, trajectory, rows_per_piece)
        how = {"kl_coef": state.kl_coef, "kind": kind, "level": level}
        return kl_regularised(trajectory, log_probs, of_reference, **how), log_probs - of_reference

    def of_states(params: PyTree, state: KLPenaltyState, trajectory: Trajectory) -> tuple[Trajectory, jax.Array]:
        found = acting.divergences(policy, params, state.reference, trajectory, rows_per_piece)
        paid = found if level == "token" else at_last_step(trajectory, over_episode(trajectory, found))
        return minus_penalty(trajectory, paid, state.kl_coef), found

    def penalise(params: PyTree, state: KLPenaltyState, trajectory: Trajectory):
        if kind == "full":
            penalised, found = of_states(params, state, trajectory)
        else:
            penalised, found = of_actions(state, trajectory)
        return penalised, {"kl": jnp.mean(jnp.sum(jnp.where(trajectory.alive, found, 0.0), axis=0))}

    update = lambda state, trajectory: state
    return Rewards(init=init, relabel=penalise, update=update, needs_log_probs=kind != "full")


class RewardModelState(NamedTuple):
    """`params` is φ, the parameters of the reward model."""

    params: PyTree


@readable
def reward_model(function: Callable[[PyTree, Trajectory], jax.Array], params: PyTree) -> Rewards:
    """A stage that replaces the rewards of the environment by those of a reward model.

        R_{t+1} ← r(trajectory; φ)_t

    φ is `RewardModelState.params`; put another φ there after each fit to preferences. The metric `environment_return`
    is the mean return of the environment, from which the policy no longer learns.

    Args:
        function: `(φ, trajectory) → R [T, B]`.
        params: φ at the start.

    Example: a linear reward of observations with four features.

        >>> import jax.numpy as jnp
        >>> from pgjax import rewards
        >>> rewards.reward_model(lambda phi, trajectory: trajectory.obs @ phi, params=jnp.zeros(4))
        Rewards(reward_model)
    """

    def score(theta: PyTree, state: RewardModelState, trajectory: Trajectory):
        del theta
        paid = jnp.mean(jnp.sum(trajectory.rewards, axis=0))
        return relabel(trajectory, function(state.params, trajectory)), {"environment_return": paid}

    init = lambda key, theta: RewardModelState(params=jax.tree.map(jnp.copy, params))
    return Rewards(init=init, relabel=score, update=lambda state, trajectory: state)


class RunningScaleState(NamedTuple):
    """`mean_square` is a running mean of squared returns, `num_updates` the number of batches seen; both scalars."""

    mean_square: jax.Array
    num_updates: jax.Array


@readable
def running_scale(decay: jax.typing.ArrayLike = 0.99) -> Rewards:
    """A stage that divides the rewards by a running root mean square of the return: R ← R / s.

        s² ← β s² + (1 − β) (mean of G_1² over the batch)

    In windows G_1 is the sum of the rewards of a stream inside the window. *Use, then update*: s does not depend on the
    batch that it scales, so the expected gradient is that of ρ/s. s = 1 before the first batch and while all returns
    have been 0. If several stages are combined with `in_turn`, this one must be the last.

    Args:
        decay: β in [0, 1].

    Raises:
        ValueError: if `decay` is outside [0, 1].

    Example:
        >>> from pgjax import rewards
        >>> rewards.running_scale(decay=0.99)
        Rewards(running_scale)
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


@readable
def in_turn(*stages: Rewards) -> Rewards:
    """Several stages, one after the other. The state is the tuple of their states; each updates on the final rewards.

    A reward model and then a KL penalty give the objective of learning from preferences.

    Args:
        *stages: the stages in their order.

    Raises:
        ValueError: if there is no stage.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import environments, networks, rewards
        >>> policy = networks.make_policy(environments.make("corridor"))
        >>> model = rewards.reward_model(lambda phi, trajectory: phi * trajectory.rewards, params=jnp.ones(()))
        >>> rewards.in_turn(model, rewards.kl_penalty(policy, kl_coef=0.1))
        Rewards(in_turn, needs_log_probs=True)
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
