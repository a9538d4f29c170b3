"""The Bernoulli toy of `leave_one_out`: three bits that share one logit, and the moments of its estimates.

Axes: k samples of a group, N = 8 outcomes, η logits.
"""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared.multisets import group_means, multiset_moments
from pgjax import baselines, diagnostics, estimators, exact
from pgjax.distributions import categorical, categorical_quantile
from pgjax.types import Baseline, Policy, Trajectory

LOGITS = (0.0, -4.0)
CENTRES = (0.6, 0.51, 0.48)
OUTCOMES = np.indices((2, 2, 2)).reshape(3, 8).T  # x, one row for each
LOSSES = ((OUTCOMES - np.array(CENTRES)) ** 2).sum(axis=1)


def apply(logit: jax.Array, obs: jax.Array) -> jax.Array:
    """Return the logits of the eight outcomes x: three independent bits of logit η have P(x) ∝ exp(η Σ_i x_i)."""
    return logit * obs[0] * jnp.asarray(OUTCOMES.sum(axis=1))


POLICY = Policy(init=lambda key, obs: jnp.zeros(()), apply=apply, distribution=categorical)


def problem() -> exact.Enumeration:
    """Return all eight outcomes; the reward is the loss f(x), so that ρ(η) = E f."""
    return exact.enumerate_trajectories(exact.make_bandit(LOSSES, name="three bits"))


def truth(every: exact.Enumeration) -> dict[str, np.ndarray]:
    """Return ∇E f, E f, b*, and tr Var of one sample with constant baselines, by dynamic programming, arrays `[η]`.

    `vertex` is the b at which the parabola through the variances at b = 0, ½ and 1 is least.
    """

    def at(logit: jax.Array) -> dict[str, jax.Array]:
        mdp = every.mdp
        loss, best = exact.objective(apply, logit, mdp), exact.optimal_constant_baseline(apply, logit, mdp)
        variance = lambda b: exact.total_return_moments(apply, logit, mdp, baseline=b).total_variance
        constants = jnp.concatenate([jnp.asarray([0.0, 0.5, 1.0]), jnp.stack([loss, best])])
        none, half, one, mean, least = jax.vmap(variance)(constants)
        curvature = 2 * (none + one - 2 * half)
        return {
            "gradient": exact.exact_gradient(apply, logit, mdp),
            "loss": loss,
            "b": best,
            "vertex": (none + curvature - one) / (2 * curvature),
            "var none": none,
            "var mean": mean,
            "var best": least,
        }

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(at))(jnp.asarray(LOGITS)))


def summands(logit: jax.Array, named: dict[str, Baseline], batch: Trajectory) -> dict[str, jax.Array]:
    """Return what each episode of a batch adds to the estimate with each baseline, leaves `[B]`."""
    make = lambda baseline: estimators.make_estimator(POLICY, returns=estimators.total_return(), baseline=baseline)
    return {name: make(baseline).episode_gradients(logit, (), batch) for name, baseline in named.items()}


def of_groups(k: int, *, own: bool = False) -> dict[str, Baseline]:
    """Return the baselines that need only the k samples; `own` adds the mean that contains the sample itself."""
    named = {"none": baselines.none()}
    if k > 1:
        named["leave_one_out"] = baselines.leave_one_out(group_size=k)
    if own:
        named["group"] = baselines.batch_mean(group_size=k)
    return named


def enumerated(every: exact.Enumeration, k: int, known: dict[str, np.ndarray]) -> dict[str, dict[str, np.ndarray]]:
    """Return the exact mean and variance of each estimate with k samples, arrays `[η]`, over every group."""

    def at(logit: jax.Array, loss: jax.Array, best: jax.Array) -> exact.Moments:
        named = of_groups(k, own=1 < k <= 4)
        if k == 1:
            named |= {"mean": baselines.constant(loss), "best": baselines.constant(best)}
        probabilities = exact.trajectory_probabilities(apply, logit, every)
        return multiset_moments(lambda batch: summands(logit, named, batch), every, probabilities, k)

    found = jax.jit(jax.vmap(at))(jnp.asarray(LOGITS), known["loss"], known["b"])
    both = lambda name: {"mean": np.asarray(found.mean[name]), "var": np.asarray(found.variance[name])}
    return {name: both(name) for name in found.mean}


def kernel_parts(every: exact.Enumeration) -> np.ndarray:
    """Return (ζ₁, ζ₂) `[2, η]` of leave-one-out as a U-statistic; its kernel h(x, y) is the estimate with k = 2.

    ζ₁ = Var E[h(x, y) | x], ζ₂ = Var h(x, y).
    """
    num_outcomes = len(LOSSES)
    pairs = exact.groups(num_outcomes, 2)

    def at(logit: jax.Array) -> jax.Array:
        probabilities = exact.trajectory_probabilities(apply, logit, every)
        batch = exact.select_episodes(every.trajectories, pairs.ravel())
        kernel = group_means(summands(logit, of_groups(2), batch)["leave_one_out"], 2)
        given_first = exact.moments_of(kernel.reshape(num_outcomes, num_outcomes) @ probabilities, probabilities)
        return jnp.stack(
            [given_first.variance, exact.moments_of(kernel, jnp.prod(probabilities[pairs], axis=1)).variance]
        )

    return np.asarray(jax.jit(jax.vmap(at, out_axes=1))(jnp.asarray(LOGITS)))


def u_statistic_variance(parts: np.ndarray, k: int) -> np.ndarray:
    """(4 (k − 2) ζ₁ + 2 ζ₂) / (k (k − 1)), Hoeffding 1948."""
    return (4 * (k - 2) * parts[0] + 2 * parts[1]) / (k * (k - 1))


def sampled(
    every: exact.Enumeration, sizes: range, num_draws: int, seed: int
) -> dict[int, dict[str, diagnostics.GradientStatistics]]:
    """Sample `num_draws` estimates; return k → baseline → their mean and variance, leaves `[η, ...]`."""

    def at(logit: jax.Array, key: jax.Array) -> diagnostics.GradientStatistics:
        log_probabilities = jnp.log(exact.trajectory_probabilities(apply, logit, every))
        uniform = jax.random.uniform(key, (sum(sizes) * num_draws,))
        drawn = jax.vmap(categorical_quantile, (None, 0))(log_probabilities, uniform).reshape(-1, num_draws)
        estimates, start = [], 0
        for k in sizes:
            batch = exact.select_episodes(every.trajectories, drawn[start : start + k].T.ravel())
            found = group_means(summands(logit, of_groups(k), batch), k)
            estimates.extend(found[name] for name in of_groups(k))
            start += k
        return jax.vmap(lambda values: diagnostics.gradient_statistics(values[:, None]))(jnp.stack(estimates))

    keys = jax.random.split(jax.random.key(seed), len(LOGITS))
    every_one = jax.tree.map(np.asarray, jax.jit(jax.vmap(at))(jnp.asarray(LOGITS), keys))
    places = iter(range(every_one.mean.shape[1]))
    take = lambda place: jax.tree.map(lambda x: x[:, place], every_one)
    return {k: {name: take(next(places)) for name in of_groups(k)} for k in sizes}
