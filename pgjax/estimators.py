"""Estimators of ∇ρ(θ): returns × baseline × loss, one hot path.

Every estimator here is the gradient of a weighted log-likelihood,

    ∇̂ρ = (1/B) Σ_b Σ_t w_t^b ∇ ln f(X_t^b, θ)_{A_t^b},    w_t = G_t − b(X_t),

with other weights. The weights come first (returns, baseline, masks); then the gradient, in one place. The defaults
give the exact gradient of the stated objective ρ(θ) = E[Σ_t R_{t+1}] in expectation: sum over time, mean over complete
episodes, nothing standardised. Axes: T time, B episodes.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax import baselines, losses
from pgjax import returns as return_functions
from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax.pieces import sum_over_rows
from pgjax.types import Baseline, Estimator, Policy, Trajectory

PyTree = Any


class Returns(NamedTuple):
    """What stands for the return in the weights.

    Attributes:
        compute: `(trajectory, values [T, B], next_values [T, B]) → G [T, B]`; Monte-Carlo rules ignore the values.
        bootstraps: whether it uses the values: only such a rule can learn from windows, which cut episodes.
        discount: γ.
        from_start: whether the rule counts γ from the episode's first step, and so needs no further factor γᵗ.
    """

    compute: Callable[[Trajectory, jax.Array | None, jax.Array | None], jax.Array]
    bootstraps: bool
    discount: float | jax.Array
    from_start: bool = False


_over_episodes = lambda function: jax.vmap(function, in_axes=1, out_axes=1)


def total_return(discount: float = 1.0) -> Returns:
    """G_1 = Σ_t γ^{t−1} R_{t+1} in every row: REINFORCE as first written (Williams 1992)."""
    require_in_range("discount", discount, 0.0, 1.0)

    def compute(trajectory: Trajectory, values, next_values) -> jax.Array:
        del values, next_values
        total = jax.vmap(
            lambda rewards: return_functions.discounted_return(rewards, discount=discount), in_axes=1
        )(trajectory.rewards)
        return jnp.broadcast_to(total, trajectory.rewards.shape)

    return Returns(compute=compute, bootstraps=False, discount=discount, from_start=True)


def reward_to_go(discount: float = 1.0) -> Returns:
    """G_t = Σ_k γ^k R_{t+k+1}: rewards that A_t cannot have caused are left out.

    The expectation of the gradient is that of `total_return` at γ = 1. With γ < 1 and no γᵗ factor
    (`time_weights="none"`) it is biased: a direction that favours early rewards and is the gradient of no objective
    (Nota & Thomas 2020), in exchange for less variance.
    """
    require_in_range("discount", discount, 0.0, 1.0)

    def compute(trajectory: Trajectory, values, next_values) -> jax.Array:
        del values, next_values
        return _over_episodes(lambda rewards: return_functions.reward_to_go(rewards, discount=discount))(
            trajectory.rewards
        )

    return Returns(compute=compute, bootstraps=False, discount=discount)


def n_step(n: int, discount: float = 1.0) -> Returns:
    """G_t^{(n)}, n rewards and then the baseline's v(X_{t+n}). Biased by the error of v."""
    require_integer("n", n, 1, None)
    require_in_range("discount", discount, 0.0, 1.0)

    def compute(trajectory: Trajectory, values, next_values) -> jax.Array:
        del values
        rule = lambda rewards, following, terminated, truncated: return_functions.n_step_returns(
            rewards, following, terminated, truncated, n=n, discount=discount
        )
        return _over_episodes(rule)(trajectory.rewards, next_values, trajectory.terminated, trajectory.truncated)

    return Returns(compute=compute, bootstraps=True, discount=discount)


def lambda_return(lambda_: float = 0.95, discount: float = 1.0) -> Returns:
    """G_t^λ; G_t^λ − v(X_t) is the generalised advantage estimate (Schulman et al. 2016). Biased by the error of v
    for λ < 1, and where the horizon truncates an episode."""
    require_in_range("lambda_", lambda_, 0.0, 1.0)
    require_in_range("discount", discount, 0.0, 1.0)

    def compute(trajectory: Trajectory, values, next_values) -> jax.Array:
        del values
        rule = lambda rewards, following, terminated, truncated: return_functions.lambda_returns(
            rewards, following, terminated, truncated, discount=discount, lambda_=lambda_
        )
        return _over_episodes(rule)(trajectory.rewards, next_values, trajectory.terminated, trajectory.truncated)

    return Returns(compute=compute, bootstraps=True, discount=discount)


def next_values(baseline: Baseline, state: PyTree, trajectory: Trajectory, values: jax.Array) -> jax.Array:
    """v(X_{t+1}) before any reset, `[T, B]`, of a baseline that is a function of the observation.

    In complete episodes X_{t+1} is the next row, except after the last live one, where it is `final_obs`.
    """
    if trajectory.next_obs is not None:
        return baseline.predict(state, trajectory._replace(obs=trajectory.next_obs))
    as_row = lambda x: x[None]
    last = Trajectory(
        obs=jax.tree.map(as_row, trajectory.final_obs),
        actions=trajectory.actions[:1],
        rewards=trajectory.rewards[:1],
        alive=jnp.ones_like(trajectory.alive[:1]),
        terminated=trajectory.terminated[:1],
        truncated=trajectory.truncated[:1],
        final_obs=trajectory.final_obs,
    )
    final = baseline.predict(state, last)
    alive_next = jnp.concatenate([trajectory.alive[1:], jnp.zeros_like(trajectory.alive[:1])])
    following = jnp.concatenate([values[1:], final])
    return jnp.where(alive_next, following, final)


def _count(alive: jax.Array, dtype: Any) -> jax.Array:
    """Live steps, at least one, as a number to divide by."""
    return jnp.maximum(jnp.sum(alive), 1).astype(dtype)


def _standardised(weights: jax.Array, alive: jax.Array, epsilon: float = 1e-8) -> jax.Array:
    count = _count(alive, weights.dtype)
    mean = jnp.sum(jnp.where(alive, weights, 0.0)) / count
    variance = jnp.sum(jnp.where(alive, jnp.square(weights - mean), 0.0)) / count
    return (weights - mean) / (jnp.sqrt(variance) + epsilon)


def make_estimator(
    policy: Policy,
    *,
    returns: Returns | None = None,
    baseline: Baseline | None = None,
    loss: Callable[[jax.Array, jax.Array], jax.Array] = losses.score_function_loss,
    entropy_coef: float = 0.0,
    over_time: str = "sum",
    standardise: str = "none",
    time_weights: str = "none",
    rows_per_piece: int | None = None,
) -> Estimator:
    """An estimator of ∇ρ(θ), declared once: the laboratory measures it and the training loop uses it.

    Args:
        policy: f(x, θ).
        returns: G; `reward_to_go()` if None.
        baseline: b; `baselines.none()` if None.
        loss: elementwise `(log_probs, weights) → [N]`, to be minimised.
        entropy_coef: c ≥ 0 in the bonus c · Σ_t H(f(X_t, θ)), which changes the objective.
        over_time: `"sum"` over the steps of an episode (the exact gradient), or `"mean"` over all live steps of the
            batch (a rescaling by the batch's mean length, random and so biased; the custom of actor-critics).
        standardise: `"none"`, or `"population"`: weights minus their mean over live steps, divided by their standard
            deviation (divisor n). Biased: the mean contains the own sample, and the scale is random.
        time_weights: `"none"`, or `"discount"`: the factor γᵗ on row t, which makes the expectation the exact
            gradient of the discounted objective E[Σ_t γᵗ R_{t+1}] (t from 0) when `returns` is `reward_to_go(γ)`.
        rows_per_piece: how many rows the hot path works on at a time.

    Raises:
        ValueError: for a coefficient out of range, an unknown convention, or bootstrapped returns with a baseline that
            is not a function of the observation.
    """
    returns = reward_to_go() if returns is None else returns
    baseline = baselines.none() if baseline is None else baseline
    require_in_range("entropy_coef", entropy_coef, 0.0, None)
    require_one_of("over_time", over_time, ("sum", "mean"))
    require_one_of("standardise", standardise, ("none", "population"))
    require_one_of("time_weights", time_weights, ("none", "discount"))
    if returns.bootstraps and not baseline.of_observation:
        raise ValueError(
            "baseline must be a function of the observation that predicts the return (value_function, state_values) "
            "when returns bootstrap (n_step, lambda_return), got one that is not: it has no v(X_{t+1})"
        )
    if time_weights == "discount" and returns.from_start:
        raise ValueError("time_weights must be 'none' with total_return, which already discounts from the start")

    def targets_and_values(state: PyTree, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        if returns.bootstraps:
            values = baseline.predict(state, trajectory)
            following = next_values(baseline, state, trajectory, values)
            return returns.compute(trajectory, values, following), values
        targets = returns.compute(trajectory, None, None)
        return targets, baseline.predict(state, trajectory._replace(returns=targets))

    def weights(state: PyTree, trajectory: Trajectory) -> tuple[jax.Array, jax.Array]:
        alive = trajectory.alive
        targets, values = targets_and_values(state, trajectory)
        weights = targets - values
        if standardise == "population":
            weights = _standardised(weights, alive)
        if time_weights == "discount":
            factors = return_functions.discount_weights(alive.shape[0], returns.discount).astype(weights.dtype)
            weights = factors[:, None] * weights
        return jnp.where(alive, scale(alive, weights.dtype) * weights, 0.0), targets

    def scale(alive: jax.Array, dtype) -> jax.Array:
        if over_time == "sum":
            return jnp.ones((), dtype)
        return alive.shape[1] / _count(alive, dtype)

    def surrogate(params: PyTree, rows: tuple, mask: jax.Array, bonus: jax.Array) -> tuple[jax.Array, jax.Array]:
        """−Σ w ln f − c Σ H over rows `[N]`, and Σ H."""
        obs, actions, weight = rows
        outputs = jax.vmap(policy.apply, (None, 0))(params, obs)
        elementwise = loss(jax.vmap(policy.distribution.log_prob)(outputs, actions), weight)
        entropies = jnp.where(mask, jax.vmap(policy.distribution.entropy)(outputs), 0.0)
        entropy = jnp.sum(entropies)
        return jnp.sum(jnp.where(mask, elementwise, 0.0)) - bonus * entropy, entropy

    def negative_gradient(params, rows, mask, bonus):
        return jax.grad(surrogate, has_aux=True)(params, rows, mask, bonus)

    def gradient(params: PyTree, state: PyTree, trajectory: Trajectory):
        alive = trajectory.alive
        weight, targets = weights(state, trajectory)
        bonus = entropy_coef * scale(alive, weight.dtype)
        rows = (trajectory.obs, trajectory.actions, weight)
        summed, entropy = sum_over_rows(
            lambda piece, mask: negative_gradient(params, piece, mask, bonus), rows, alive, rows_per_piece
        )
        estimate = jax.tree.map(lambda x: -x / alive.shape[1], summed)
        state, metrics = baseline.update(state, trajectory._replace(returns=targets), targets)
        return estimate, state, {"entropy": entropy / _count(alive, entropy.dtype), **metrics}

    def episode_gradients(params: PyTree, state: PyTree, trajectory: Trajectory) -> PyTree:
        alive = trajectory.alive
        weight, _ = weights(state, trajectory)
        bonus = entropy_coef * scale(alive, weight.dtype)
        rows = (trajectory.obs, trajectory.actions, weight)
        one = lambda episode, mask: negative_gradient(params, episode, mask, bonus)[0]
        return jax.tree.map(jnp.negative, jax.vmap(one, in_axes=1)(rows, alive))

    return Estimator(
        init=baseline.init,
        weights=weights,
        gradient=gradient,
        episode_gradients=episode_gradients,
        fits_windows=returns.bootstraps and time_weights == "none",
    )
