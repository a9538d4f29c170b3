"""Estimators that are the gradient of a weighted log-likelihood: returns × baseline × objective.

    ∇̂ρ = (1/B) Σ_b Σ_t w_t^b ∇ ln f(X_t^b, θ)_{A_t^b},    w_t = c_t (G_t − b(X_t))

Axes: T time, B episodes, k episodes of a group.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax import _shards, acting, distributions, losses
from pgjax._checks import require_in_range
from pgjax._doors import readable
from pgjax.advantages.steps import OverTime
from pgjax.contracts import require_trajectory
from pgjax.estimators.hot_path import assemble, entropies
from pgjax.estimators.rules import ReturnRule
from pgjax.estimators.scores import squared_score_norms
from pgjax.estimators.weighting import Standardise, make_weighting, time_scale
from pgjax.types import Baseline, Estimator, Policy, PyTree, TimeWeights, Trajectory

Objective = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


@readable
def score_function(log_probs: jax.Array, behaviour_log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """w ln f, as an `objective` for `make_estimator`: `losses.score_function_objective`.

    It ignores `behaviour_log_probs`, so it is right on-policy only.
    """
    del behaviour_log_probs
    return losses.score_function_objective(log_probs, weights)


@readable
def clipped_surrogate(clip: float = 0.2) -> Objective:
    """PPO's clipped surrogate (Schulman et al. 2017) with ε = `clip`, as an `objective` for `make_estimator`.

    At θ = θ_old the ratios are 1 and the gradient is that of the score function. After a step it has two biases: the
    ratio of one action does not correct how often X_t is visited, and clipped rows have no gradient.
    """
    require_in_range("clip", clip, 0.0, None)
    return lambda log_probs, behaviour, weights: losses.clipped_surrogate_objective(
        log_probs, behaviour, weights, clip=clip
    )


@readable
def record_behaviour(
    policy: Policy, params: PyTree, trajectory: Trajectory, rows_per_piece: int | None = None
) -> Trajectory:
    """The trajectory with ln f(X_t, θ)_{A_t} of the given `params` as `behaviour_log_probs`.

    Record the θ_old that acted before you take several steps on the same episodes, because θ then leaves θ_old.
    """
    require_trajectory(trajectory)
    recorded = acting.log_probs(policy, params, trajectory, rows_per_piece)
    return trajectory._replace(behaviour_log_probs=recorded)


@readable
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
    """An estimator of ∇ρ(θ); the diagnostics measure this object and training uses the same one.

    Args:
        policy: f(x, θ), with memory or without.
        returns: G; `reward_to_go()` if None.
        baseline: b; `baselines.none()` if None.
        objective: an elementwise function `(log_probs, behaviour_log_probs, weights) → [N]` to be maximised, such as
            `score_function`, `losses.importance_weighted_objective` or `clipped_surrogate(ε)`. It receives
            `trajectory.behaviour_log_probs`, or the log-probabilities of θ itself if the trajectory has none.
        entropy_coef: c ≥ 0 in the bonus c · Σ_t H(f(X_t, θ)), which changes the objective.
        over_time: how the steps are added up. `"sum"` adds the steps of an episode, which gives the exact gradient.
            `"mean"` averages over all live steps of the batch, as actor-critic programs usually do; the divisor is the
            mean length in the batch, which is random, so the estimate is biased. `"episode_mean"` divides each episode
            by its own length (1/|o| in GRPO); it is biased towards short successes and long failures. `"horizon"`
            divides the sum by the constant T, the rows of the batch (Dr. GRPO as released); a larger learning rate
            compensates for it.
        standardise: how the weights are standardised. `"none"` leaves them as they are. `"population"` subtracts their
            mean over live steps and divides by their standard deviation (divisor n). `"group_population"` and
            `"group_sample"` subtract the mean of the group and divide by its standard deviation with the divisor k or
            k − 1, row by row (with `total_return` this is GRPO; Shao et al. 2024). Equal weights become 0. All but
            `"none"` are biased, because the mean contains the episode's own return and the scale is random.
        group_size: k, the number of consecutive episodes that form a group for `standardise`. If None, the groups are
            those of the baseline, or the whole batch if the baseline has no groups. Training and the diagnostics let
            the episodes of a group share a start.
        time_weights: `"none"`, or `"discount"` for the factor γᵗ on row t. With `reward_to_go(γ)` the factor makes the
            expectation the exact gradient of the discounted objective E[Σ_t γᵗ R_{t+1}] (t from 0).
        rows_per_piece: the number of rows that the gradient is computed for at a time; chosen by the device if None.

    Raises:
        ValueError: if a coefficient is out of range, a word is unknown, the group size differs from that of the
            baseline, or `returns` bootstraps and `baseline` is not a function of the observation.

    Source: Williams 1992 (REINFORCE); Sutton et al. 2000; Schulman et al. 2016 (the family of weights).

    Example: RLOO, whose groups are four episodes from one start.

        >>> from pgjax import baselines, environments, estimators, networks
        >>> policy = networks.make_policy(environments.make("corridor"))
        >>> estimators.make_estimator(policy, returns=estimators.total_return(),
        ...                           baseline=baselines.leave_one_out(group_size=4))
        Estimator(make_estimator, leave_one_out, fits_windows=False, needs=Needs(group_size=4))
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
        """w ln f + c H (with `score_function`), and H if the distribution has it."""
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
