"""Unbiased gradients at θ from the episodes of an older θ_old, by importance ratios; the price is a larger variance.

    ratio_t = f(X_t, θ)_{A_t} / f(X_t, θ_old)_{A_t},    E_{θ_old}[Π_{i≤k} ratio_i h(X_1, A_1, …, X_k, A_k)] = E_θ[h]

Axes: T time, B episodes.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp

from pgjax import acting, baselines
from pgjax._checks import require_one_of
from pgjax._doors import readable
from pgjax.estimators._monte_carlo import require_monte_carlo, time_factors
from pgjax.estimators.hot_path import assemble
from pgjax.estimators.rules import ReturnRule, reward_to_go, total_return
from pgjax.types import Baseline, Estimator, Policy, PyTree, TimeWeights, Trajectory

RatioWeighting = Literal["per_decision", "trajectory"]


def log_ratios(policy: Policy, params: PyTree, trajectory: Trajectory, rows_per_piece: int | None = None) -> jax.Array:
    """ln ratio_t, `[T, B]`, 0 where not alive.

    It is 0 everywhere if the trajectory has no `behaviour_log_probs`, because then θ itself acted.
    """
    behaviour = trajectory.behaviour_log_probs
    if behaviour is None:
        return jnp.zeros_like(trajectory.rewards)
    current = acting.log_probs(policy, params, trajectory, rows_per_piece)
    return jnp.where(trajectory.alive, current - behaviour, 0.0)


def weighted_reward_to_go(rewards: jax.Array, ratios: jax.Array, discount: jax.typing.ArrayLike) -> jax.Array:
    """Y_t = ratio_t (R_{t+1} + γ Y_{t+1}) = Σ_{k≥t} γ^{k−t} (Π_{t≤i≤k} ratio_i) R_{k+1} of one episode, all `[T]`.

    Given X_t, the mean of Y_t under θ_old is the value of X_t under θ. Source: Precup, Sutton & Singh 2000.
    """
    discount = jnp.asarray(discount, rewards.dtype)

    def step(following: jax.Array, row: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        reward, ratio = row
        current = ratio * (reward + discount * following)
        return current, current

    return jax.lax.scan(step, jnp.zeros((), rewards.dtype), (rewards, ratios), reverse=True)[1]


@readable
def importance_weighted(
    policy: Policy,
    *,
    returns: ReturnRule | None = None,
    baseline: Baseline | None = None,
    weighting: RatioWeighting = "per_decision",
    time_weights: TimeWeights = "none",
    rows_per_piece: int | None = None,
) -> Estimator:
    """An estimator of ∇ρ(θ) from episodes that θ_old played.

    It is unbiased if every action that is possible under θ is possible under θ_old.

        trajectory     Σ_t ψ_t (Π_i ratio_i) (G_t − b(X_t))
        per_decision   Σ_t ψ_t [Σ_{k≥t} γ^{k−t} (Π_{i≤k} ratio_i) R_{k+1} − (Π_{i≤t} ratio_i) b(X_t)]

    Here ψ_t = ∇ ln f(X_t, θ)_{A_t}, and the ratios are constants of the gradient. A reward needs the ratios up to the
    action that caused it; later ratios only add variance. b(X_t) needs the ratios up to and *including* ratio_t:
    without ratio_t, E[ψ_t | X_t] is not 0, and without the earlier ratios the states have the distribution of θ_old.
    (`losses.importance_weighted_loss`, the surrogate of PPO, multiplies the whole row by ratio_t alone. Its states and
    later actions remain those of θ_old, so it is biased off-policy.) At θ = θ_old both forms are the score function.

    The variance can grow exponentially with T. The metric `effective_sample_size`, in [1/B, 1], is
    (Σ_b W_b)² / (B Σ_b W_b²), where W_b = Π_t ratio_t is the ratio of episode b. The estimator costs a second pass of
    the policy over the rows. The trajectory must hold `behaviour_log_probs` (see `record_behaviour`), unless θ itself
    acted.

    Args:
        policy: f(x, θ).
        returns: G, a Monte-Carlo rule. `"per_decision"` accepts `reward_to_go(γ)`, by default with γ = 1.
            `"trajectory"` accepts `total_return(γ)` too, its default with γ = 1.
        baseline: b, predicted before the batch is seen; `baselines.none()` if None. It is fitted to
            `weighted_reward_to_go` with `"per_decision"`, and to (Π_i ratio_i) G_t with `"trajectory"`.
        weighting: `"per_decision"` or `"trajectory"`.
        time_weights: `"none"`, or `"discount"` for the factor γᵗ on row t, as in `make_estimator`.
        rows_per_piece: the number of rows that the gradient is computed for at a time; chosen by the device if None.

    Raises:
        ValueError: if a word is unknown, `returns` bootstraps, `total_return` is used with `"per_decision"` (past
            rewards would need other ratios), `baseline` needs scores, or `time_weights="discount"` is combined with
            `total_return`.

    Source: Precup, Sutton & Singh 2000 (per decision); Jie & Abbeel 2010 (the policy gradient).

    Example:
        >>> from pgjax import baselines, environments, estimators, networks
        >>> policy = networks.make_policy(environments.make("corridor"))
        >>> estimators.importance_weighted(policy, weighting="trajectory", baseline=baselines.moving_average())
        Estimator(importance_weighted, moving_average, fits_windows=False)
    """
    require_one_of("weighting", weighting, get_args(RatioWeighting))
    whole = weighting == "trajectory"
    returns = (total_return() if whole else reward_to_go()) if returns is None else returns
    baseline = baselines.none() if baseline is None else baseline
    require_monte_carlo(returns, baseline, time_weights, from_start=whole)

    def weigh(state: PyTree, log_ratio: jax.Array, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        """The factor of ψ_t, and the targets of b; both `[T, B]`."""
        up_to = jnp.cumsum(log_ratio, axis=0)
        if whole:
            episode = jnp.exp(up_to[-1:])
            plain = returns.compute(trajectory, None, None)
            targets = episode * plain
            values = baseline.predict(state, trajectory._replace(returns=targets))
            return episode * (plain - values), targets
        ratios = jnp.exp(log_ratio)
        to_go = lambda rewards, ratios: weighted_reward_to_go(rewards, ratios, returns.discount)
        targets = jax.vmap(to_go, in_axes=1, out_axes=1)(trajectory.rewards, ratios)
        values = baseline.predict(state, trajectory._replace(returns=targets))
        return jnp.exp(up_to - log_ratio) * (targets - ratios * values), targets

    def rows_and_update(params: PyTree, state: PyTree, trajectory: Trajectory):
        log_ratio = log_ratios(policy, params, trajectory, rows_per_piece)
        weight, targets = weigh(state, log_ratio, trajectory)
        weight = jnp.where(trajectory.alive, time_factors(returns, time_weights, weight) * weight, 0.0)
        state, metrics = baseline.update(state, trajectory._replace(returns=targets), targets)
        # A common factor cancels. After division by the largest ratio, exp cannot overflow.
        total = jnp.sum(log_ratio, axis=0)
        relative = jnp.exp(total - jnp.max(total))
        effective = jnp.square(jnp.mean(relative)) / jnp.mean(jnp.square(relative))
        return (trajectory.actions, weight), state, {"effective_sample_size": effective, **metrics}

    return assemble(
        policy,
        init=baseline.init,
        weigh=rows_and_update,
        needs=baseline.needs,
        rows_per_piece=rows_per_piece,
    )
