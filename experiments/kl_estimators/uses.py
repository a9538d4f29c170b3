"""The estimates k1, k2 and k3: moments for two normal distributions, and gradients for four actions.

Axes: 3 estimators, M means, N samples, A actions.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import diagnostics, estimators, exact, losses, rewards
from pgjax.distributions import GaussianParameters, categorical, diagonal_gaussian
from pgjax.types import Policy, Trajectory

ESTIMATORS = {"k1": losses.kl_k1, "k2": losses.kl_k2, "k3": losses.kl_k3}
LOGITS, REFERENCE_LOGITS = (0.5, -0.3, 0.1, -0.8), (-0.7, 0.4, 1.1, -0.5)
KL_COEF = 0.1


def gaussian(mean: jax.Array) -> GaussianParameters:
    return GaussianParameters(mean=jnp.atleast_1d(mean), log_std=jnp.zeros(1))


def estimates(x: jax.Array, mean: jax.Array) -> jax.Array:
    """Return k1, k2, k3 `[3, N]` at x `[N]` ~ q = N(0, 1), for p = N(mean, 1)."""
    log_prob = jax.vmap(diagonal_gaussian.log_prob, (None, 0))
    log_q, log_p = log_prob(gaussian(0.0 * mean), x[:, None]), log_prob(gaussian(mean), x[:, None])
    return jnp.stack([estimate(log_q, log_p) for estimate in ESTIMATORS.values()])


def divergence(mean: jax.Array) -> jax.Array:
    return diagonal_gaussian.kl(gaussian(0.0 * mean), gaussian(mean))


def by_quadrature(means: np.ndarray, num_nodes: int) -> np.ndarray:
    """Return (bias, standard deviation) / KL, `[2, 3, M]`, by quadrature, exact except for the exponential of k3."""
    x, weights = np.polynomial.hermite_e.hermegauss(num_nodes)
    weights = jnp.asarray(weights / weights.sum())

    def at(mean: jax.Array) -> jax.Array:
        found, kl = exact.moments_of(estimates(jnp.asarray(x), mean).T, weights), divergence(mean)
        return jnp.stack([found.mean - kl, jnp.sqrt(found.variance)]) / kl

    return np.asarray(jax.jit(jax.vmap(at, out_axes=2))(jnp.asarray(means)))


def in_closed_form(means: np.ndarray) -> np.ndarray:
    """Return the same in closed form, `[2, 3, M]`: r is log-normal with E_q r = 1 and E_q r² = exp μ²."""
    means = np.asarray(means)
    zero, square = np.zeros_like(means), means**2
    spreads = [2 / means, np.sqrt(2 + square), 2 * np.sqrt(np.expm1(square) - square) / square]
    return np.stack([np.stack([zero, square / 4, zero]), np.stack(spreads)])


def by_sampling(means: tuple[float, ...], num_draws: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sampled (bias, standard deviation) / KL and their standard errors, `[2, 3, M]` each."""

    @jax.jit
    def at(key: jax.Array, mean: jax.Array) -> tuple[jax.Array, jax.Array]:
        values, kl = estimates(jax.random.normal(key, (num_draws,)), mean), divergence(mean)
        found = jax.vmap(mean_and_deviation)(values)
        return jnp.stack([found[0] - kl, found[2]]) / kl, jnp.stack([found[1], found[3]]) / kl

    keys = jax.random.split(jax.random.key(seed), len(means))
    found = [at(key, jnp.asarray(mean)) for key, mean in zip(keys, means, strict=True)]
    return tuple(np.stack([np.asarray(each[i]) for each in found], axis=2) for i in (0, 1))


def mean_and_deviation(values: jax.Array) -> tuple[jax.Array, ...]:
    """Return the mean and the standard deviation of `values [N]`, each followed by its standard error."""
    found = diagnostics.gradient_statistics(values[:, None])
    deviation = jnp.sqrt(found.variance.value)
    return found.mean[0], found.mean_stderr[0], deviation, found.variance.stderr / (2 * deviation)


POLICY = Policy(
    init=lambda key, obs: jnp.zeros(len(LOGITS)), apply=lambda logits, obs: obs[0] * logits, distribution=categorical
)


def as_a_loss(estimate: Callable, logits: jax.Array, reference: jax.Array) -> jax.Array:
    """E∇k `[A]`, a ~ π, samples held fixed: Σ_a π(a) ∇k(a)."""
    actions = jnp.arange(len(LOGITS))
    log_prob = jax.vmap(categorical.log_prob, (None, 0))
    held = jnp.exp(log_prob(logits, actions))
    each = lambda theta: estimate(log_prob(theta, actions), log_prob(reference, actions))
    return jax.grad(lambda theta: jnp.sum(held * each(theta)))(logits)


def as_rewards(logits: jax.Array, reference: jax.Array) -> dict[str, jax.Array]:
    """Return name → the mean `[A]` of the score-function estimate whose only reward is −β k, divided by −β."""
    every = exact.enumerate_trajectories(exact.make_bandit(np.zeros(len(LOGITS)), name="four actions"))
    estimator = estimators.make_estimator(POLICY, returns=estimators.total_return())

    def each(batch: Trajectory) -> dict[str, jax.Array]:
        log_probs, reference_log_probs = (
            estimators.record_behaviour(POLICY, theta, batch).behaviour_log_probs for theta in (logits, reference)
        )
        paid = {
            name: rewards.relabel(batch, -KL_COEF * estimate(log_probs, reference_log_probs))
            for name, estimate in ESTIMATORS.items()
        }
        paid["k1"] = rewards.kl_regularised(batch, log_probs, reference_log_probs, kl_coef=KL_COEF)
        return {name: estimator.gradient(logits, (), episodes)[0] for name, episodes in paid.items()}

    probabilities = exact.trajectory_probabilities(POLICY.apply, logits, every)
    found = exact.estimator_moments(each, every, probabilities, 1).mean
    return {name: gradient / -KL_COEF for name, gradient in found.items()}


def gradients() -> dict[str, np.ndarray]:
    """Return E∇k of each use, and the gradients of both divergences, `[A]` each."""
    logits, reference = jnp.asarray(LOGITS), jnp.asarray(REFERENCE_LOGITS)

    @jax.jit
    def all_of_them(logits: jax.Array, reference: jax.Array) -> dict[str, jax.Array]:
        found = {f"{name} loss": as_a_loss(k, logits, reference) for name, k in ESTIMATORS.items()}
        found["forward"] = jax.grad(categorical.kl)(logits, reference)
        found["backward"] = jax.grad(categorical.kl, argnums=1)(reference, logits)
        return found

    found = all_of_them(logits, reference)
    found |= {f"{name} reward": gradient for name, gradient in as_rewards(logits, reference).items()}
    return {name: np.asarray(value) for name, value in found.items()}
