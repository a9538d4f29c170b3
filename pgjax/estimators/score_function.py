"""Estimators that are the gradient of a weighted log-likelihood: returns × baseline × loss.

    ∇̂ρ = (1/B) Σ_b Σ_t w_t^b ∇ ln f(X_t^b, θ)_{A_t^b},    w_t = G_t − b(X_t)

Axes: T time, B episodes, k episodes of a group.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from pgjax import baselines, losses
from pgjax import returns as return_functions
from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax.baselines.groups import split_groups
from pgjax.estimators.hot_path import assemble, count_live
from pgjax.estimators.rules import Returns, next_values, reward_to_go
from pgjax.estimators.scores import squared_score_norms
from pgjax.pieces import map_over_rows
from pgjax.types import Baseline, Estimator, Policy, Trajectory

PyTree = Any
Loss = Callable[[jax.Array, jax.Array, jax.Array], jax.Array]


def score_function(log_probs: jax.Array, behaviour_log_probs: jax.Array, weights: jax.Array) -> jax.Array:
    """−w ln f: on-policy, whatever the behaviour. `losses.score_function_loss` in an estimator's signature."""
    del behaviour_log_probs
    return losses.score_function_loss(log_probs, weights)


def clipped_surrogate(clip: float = 0.2) -> Loss:
    """PPO's clipped surrogate (Schulman et al. 2017) with ε = `clip`, as a `loss` for `make_estimator`.

    At θ = θ_old the ratios are 1 and the gradient is the score function's. After a step it is biased twice: the ratio
    of one action does not correct how often X_t is visited, and clipped rows give no gradient.
    """
    require_in_range("clip", clip, 0.0, None)
    return lambda log_probs, behaviour, weights: losses.clipped_surrogate_loss(
        log_probs, behaviour, weights, clip=clip
    )


def record_behaviour(
    policy: Policy, params: PyTree, trajectory: Trajectory, rows_per_piece: int | None = None
) -> Trajectory:
    """`trajectory` with `behaviour_log_probs` ln f(X_t, θ_old)_{A_t}, for steps that leave the θ_old that acted."""

    def log_probs(rows: tuple[PyTree, jax.Array]) -> jax.Array:
        obs, actions = rows
        return jax.vmap(policy.distribution.log_prob)(jax.vmap(policy.apply, (None, 0))(params, obs), actions)

    recorded = map_over_rows(log_probs, (trajectory.obs, trajectory.actions), trajectory.alive, rows_per_piece)
    return trajectory._replace(behaviour_log_probs=recorded)


def _population_standardised(weights: jax.Array, alive: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    count = count_live(alive, weights.dtype)
    mean = jnp.sum(jnp.where(alive, weights, 0.0)) / count
    variance = jnp.sum(jnp.where(alive, jnp.square(weights - mean), 0.0)) / count
    return (weights - mean) / (jnp.sqrt(variance) + epsilon)


def _group_standardised(weights: jax.Array, group_size: int | None, ddof: int) -> jax.Array:
    """(w − group mean) / group standard deviation, row by row; exactly 0 where all of a group agree."""
    groups = split_groups(weights, group_size)
    if groups.shape[2] < 2:
        raise ValueError(f"group_size must be at least 2 to standardise within groups, got {groups.shape[2]}")
    mean = jnp.mean(groups, axis=2, keepdims=True)
    spread = jnp.std(groups, axis=2, keepdims=True, ddof=ddof)
    # Equality is asked of the weights: rounding in the mean gives equal ones a tiny spread.
    agree = jnp.max(groups, axis=2, keepdims=True) == jnp.min(groups, axis=2, keepdims=True)
    return jnp.where(agree, 0.0, (groups - mean) / jnp.where(agree, 1.0, spread)).reshape(weights.shape)


OVER_TIME = ("sum", "mean", "episode_mean")
STANDARDISE = ("none", "population", "group_population", "group_sample")


def _time_scale(over_time: str, alive: jax.Array, dtype: Any) -> jax.Array:
    """What every row is multiplied by, `[1, B]` or `[1, 1]`."""
    if over_time == "sum":
        return jnp.ones((1, 1), dtype)
    if over_time == "mean":
        return (alive.shape[1] / count_live(alive, dtype))[None, None]
    return 1.0 / jnp.maximum(jnp.sum(alive, axis=0, keepdims=True), 1).astype(dtype)


def targets_and_values(
    returns: Returns, baseline: Baseline, state: PyTree, trajectory: Trajectory
) -> tuple[jax.Array, jax.Array]:
    """G and b, `[T, B]`; the baseline sees G as `trajectory.returns` where G does not need the baseline first."""
    if returns.bootstraps:
        values = baseline.predict(state, trajectory)
        following = next_values(baseline, state, trajectory, values)
        return returns.compute(trajectory, values, following), values
    targets = returns.compute(trajectory, None, None)
    return targets, baseline.predict(state, trajectory._replace(returns=targets))


def make_estimator(
    policy: Policy,
    *,
    returns: Returns | None = None,
    baseline: Baseline | None = None,
    loss: Loss = score_function,
    entropy_coef: float = 0.0,
    over_time: str = "sum",
    standardise: str = "none",
    group_size: int | None = None,
    time_weights: str = "none",
    rows_per_piece: int | None = None,
) -> Estimator:
    """An estimator of ∇ρ(θ), declared once: the laboratory measures it and the training loop uses it.

    Args:
        policy: f(x, θ).
        returns: G; `reward_to_go()` if None.
        baseline: b; `baselines.none()` if None.
        loss: elementwise `(log_probs, behaviour_log_probs, weights) → [N]`, to be minimised: `score_function`,
            `losses.importance_weighted_loss`, `clipped_surrogate(ε)`. The behaviour is what
            `trajectory.behaviour_log_probs` recorded, or θ itself where nothing was.
        entropy_coef: c ≥ 0 in the bonus c · Σ_t H(f(X_t, θ)), which changes the objective.
        over_time: `"sum"` over the steps of an episode (the exact gradient); `"mean"` over all live steps of the
            batch (a rescaling by the batch's mean length, random and so biased; the custom of actor-critics); or
            `"episode_mean"`, each episode divided by its own length (GRPO's 1/|o|; biased towards short successes and
            long failures).
        standardise: `"none"`; `"population"`: weights minus their mean over live steps, divided by their standard
            deviation (divisor n); `"group_population"`, `"group_sample"`: minus the group's mean, divided by the
            group's standard deviation with divisor k or k − 1, row by row (GRPO with `total_return`; Shao et al. 2024).
            All biased: the mean contains the own sample, and the scale is random.
        group_size: k consecutive episodes form a group, for `standardise`; the whole batch if None.
        time_weights: `"none"`, or `"discount"`: the factor γᵗ on row t, which makes the expectation the exact
            gradient of the discounted objective E[Σ_t γᵗ R_{t+1}] (t from 0) when `returns` is `reward_to_go(γ)`.
        rows_per_piece: how many rows the hot path works on at a time.

    Raises:
        ValueError: for a coefficient out of range, an unknown convention, or bootstrapped returns with a baseline that
            is not a function of the observation.

    Source: Williams 1992 (REINFORCE); Sutton et al. 2000; Schulman et al. 2016 (the family of weights).
    """
    returns = reward_to_go() if returns is None else returns
    baseline = baselines.none() if baseline is None else baseline
    require_in_range("entropy_coef", entropy_coef, 0.0, None)
    require_one_of("over_time", over_time, OVER_TIME)
    require_one_of("standardise", standardise, STANDARDISE)
    require_one_of("time_weights", time_weights, ("none", "discount"))
    if group_size is not None:
        require_integer("group_size", group_size, 2, None)
    if returns.bootstraps and not baseline.of_observation:
        raise ValueError(
            "baseline must be a function of the observation that predicts the return (value_function, state_values) "
            "when returns bootstrap (n_step, lambda_return), got one that is not: it has no v(X_{t+1})"
        )
    if time_weights == "discount" and returns.from_start:
        raise ValueError("time_weights must be 'none' with total_return, which already discounts from the start")

    def weights(state: PyTree, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        alive = trajectory.alive
        targets, values = targets_and_values(returns, baseline, state, trajectory)
        weights = targets - values
        if standardise == "population":
            weights = _population_standardised(weights, alive)
        elif standardise != "none":
            weights = _group_standardised(weights, group_size, ddof=int(standardise == "group_sample"))
        if time_weights == "discount":
            factors = return_functions.discount_weights(alive.shape[0], returns.discount).astype(weights.dtype)
            weights = factors[:, None] * weights
        return jnp.where(alive, _time_scale(over_time, alive, weights.dtype) * weights, 0.0), targets

    no_bonus = isinstance(entropy_coef, int | float) and entropy_coef == 0

    def rows(state: PyTree, trajectory: Trajectory):
        weight, targets = weights(state, trajectory)
        scale = _time_scale(over_time, trajectory.alive, weight.dtype)
        bonus = None if no_bonus else jnp.broadcast_to(entropy_coef * scale, weight.shape)
        return (trajectory.actions, weight, trajectory.behaviour_log_probs, bonus), targets

    def row_objective(outputs: PyTree, rows: tuple) -> tuple[jax.Array, jax.Array]:
        """w ln f + c H (with `score_function`), and H."""
        actions, weight, behaviour, bonus = rows
        log_probs = jax.vmap(policy.distribution.log_prob)(outputs, actions)
        behaviour = jax.lax.stop_gradient(log_probs) if behaviour is None else behaviour
        entropy = jax.vmap(policy.distribution.entropy)(outputs)
        objective = -loss(log_probs, behaviour, weight)
        return (objective if bonus is None else objective + bonus * entropy), entropy

    def update(params: PyTree, state: PyTree, trajectory: Trajectory, targets: jax.Array):
        if baseline.score_norm != "none":
            norms = squared_score_norms(
                policy, params, trajectory, whole_episode=returns.from_start, norm=baseline.score_norm
            )
            trajectory = trajectory._replace(score_norms=norms)
        return baseline.update(state, trajectory, targets)

    return assemble(
        policy,
        init=baseline.init,
        weights=weights,
        rows=rows,
        row_objective=row_objective,
        update=update,
        fits_windows=returns.bootstraps and time_weights == "none" and over_time != "episode_mean",
        rows_per_piece=rows_per_piece,
    )
