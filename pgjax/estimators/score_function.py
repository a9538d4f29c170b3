"""Estimators that are the gradient of a weighted log-likelihood: returns × baseline × objective.

    ∇̂ρ = (1/B) Σ_b Σ_t w_t^b ∇ ln f(X_t^b, θ)_{A_t^b},    w_t = c_t (G_t − b(X_t))

Axes: T time, B episodes, k episodes of a group.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax import _shards, acting, distributions, losses
from pgjax._checks import require_in_range
from pgjax.advantages.steps import OverTime
from pgjax.contracts import require_trajectory
from pgjax.estimators.hot_path import assemble, entropies
from pgjax.estimators.rules import ReturnRule
from pgjax.estimators.scores import squared_score_norms
from pgjax.estimators.weighting import Standardise, make_weighting, time_scale
from pgjax.types import Baseline, Estimator, Policy, PyTree, TimeWeights, Trajectory

Objective = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def score_function(log_probs: jax.Array, behaviour_log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """w ln f: on-policy, whatever the behaviour. `losses.score_function_objective` in an estimator's signature."""
    del behaviour_log_probs
    return losses.score_function_objective(log_probs, weights)


def clipped_surrogate(clip: float = 0.2) -> Objective:
    """PPO's clipped surrogate (Schulman et al. 2017) with ε = `clip`, as an `objective` for `make_estimator`.

    At θ = θ_old the ratios are 1 and the gradient is the score function's. After a step it is biased twice: the ratio
    of one action does not correct how often X_t is visited, and clipped rows give no gradient.
    """
    require_in_range("clip", clip, 0.0, None)
    return lambda log_probs, behaviour, weights: losses.clipped_surrogate_objective(
        log_probs, behaviour, weights, clip=clip
    )


def record_behaviour(
    policy: Policy, params: PyTree, trajectory: Trajectory, rows_per_piece: int | None = None
) -> Trajectory:
    """`trajectory` with `behaviour_log_probs` ln f(X_t, θ_old)_{A_t}, for steps that leave the θ_old that acted."""
    require_trajectory(trajectory)
    recorded = acting.log_probs(policy, params, trajectory, rows_per_piece)
    return trajectory._replace(behaviour_log_probs=recorded)


def make_estimator(
    policy: Policy,
    *,
    returns: ReturnRule | None = None,
    baseline: Baseline | None = None,
    objective: Objective = score_function,
    entropy_coef: float = 0.0,
    over_time: OverTime = "sum",
    standardise: Standardise = "none",
    group_size: int | None = None,
    time_weights: TimeWeights = "none",
    rows_per_piece: int | None = None,
) -> Estimator:
    """An estimator of ∇ρ(θ), declared once: the laboratory measures it and the training loop uses it.

    Args:
        policy: f(x, θ), with memory or without.
        returns: G; `reward_to_go()` if None.
        baseline: b; `baselines.none()` if None.
        objective: elementwise `(log_probs, behaviour_log_probs, weights) → [N]`, to be maximised: `score_function`,
            `losses.importance_weighted_objective`, `clipped_surrogate(ε)`. The behaviour is what
            `trajectory.behaviour_log_probs` recorded, or θ itself where nothing was.
        entropy_coef: c ≥ 0 in the bonus c · Σ_t H(f(X_t, θ)), which changes the objective.
        over_time: `"sum"` over the steps of an episode (the exact gradient); `"mean"` over all live steps of the
            batch (a rescaling by the batch's mean length, random and so biased; the custom of actor-critics); or
            `"episode_mean"`, each episode divided by its own length (GRPO's 1/|o|; biased towards short successes and
            long failures).
        standardise: `"none"`; `"population"`: weights minus their mean over live steps, divided by their standard
            deviation (divisor n); `"group_population"`, `"group_sample"`: minus the group's mean, divided by the
            group's standard deviation with divisor k or k − 1, row by row (GRPO with `total_return`; Shao et al. 2024).
            Equal weights become 0. All biased: an episode's return is part of the mean, and the scale is random.
        group_size: k consecutive episodes form a group, for `standardise`; the baseline's groups if None, and the whole
            batch where the baseline has none. Training and the laboratory let the episodes of a group share a start.
        time_weights: `"none"`, or `"discount"`: the factor γᵗ on row t, which makes the expectation the exact
            gradient of the discounted objective E[Σ_t γᵗ R_{t+1}] (t from 0) when `returns` is `reward_to_go(γ)`.
        rows_per_piece: how many rows the hot path works on at a time.

    Raises:
        ValueError: for a coefficient out of range, an unknown convention, group sizes that differ, or bootstrapped
            returns with a baseline that is not a function of the observation.

    Source: Williams 1992 (REINFORCE); Sutton et al. 2000; Schulman et al. 2016 (the family of weights).
    """
    require_in_range("entropy_coef", entropy_coef, 0.0, None)
    if not callable(objective):
        raise ValueError(f"objective must be a function, such as estimators.score_function, got {objective!r}")
    weighting = make_weighting(
        returns=returns,
        baseline=baseline,
        over_time=over_time,
        standardise=standardise,
        group_size=group_size,
        time_weights=time_weights,
    )
    no_bonus = isinstance(entropy_coef, int | float) and entropy_coef == 0
    if not no_bonus:
        distributions.require(policy.distribution, "entropy", "an entropy bonus (entropy_coef)")

    def with_scores(params: PyTree, trajectory: Trajectory) -> Trajectory:
        if weighting.needs.scores == "none":
            return trajectory
        norms = squared_score_norms(
            policy,
            params,
            trajectory,
            whole_episode=weighting.returns.from_start,
            norm=weighting.needs.scores,
        )
        return trajectory._replace(score_norms=_shards.everywhere(norms))

    def weigh(params: PyTree, state: PyTree, trajectory: Trajectory):
        trajectory = with_scores(params, trajectory)
        weight, state, metrics = weighting.weigh_and_update(state, trajectory)
        scale = time_scale(over_time, trajectory.alive, trajectory.rewards.dtype)
        bonus = None if no_bonus else jnp.broadcast_to(entropy_coef * scale, trajectory.alive.shape)
        return (trajectory.actions, weight, trajectory.behaviour_log_probs, bonus), state, metrics

    def row_objective(outputs: PyTree, rows: tuple) -> tuple[jax.Array, dict[str, jax.Array]]:
        """w ln f + c H (with `score_function`), and H where it is known."""
        actions, weight, behaviour, bonus = rows
        log_probs = jax.vmap(policy.distribution.log_prob)(outputs, actions)
        behaviour = jax.lax.stop_gradient(log_probs) if behaviour is None else behaviour
        known = entropies(policy, outputs)
        value = objective(log_probs, behaviour, weight)
        return (value if bonus is None else value + bonus * known["entropy"]), known

    return assemble(
        policy,
        init=weighting.init,
        weigh=weigh,
        row_objective=row_objective,
        fits_windows=weighting.fits_windows,
        needs=weighting.needs,
        rows_per_piece=rows_per_piece,
    )
