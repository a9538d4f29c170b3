"""Measuring estimates of a gradient: exactly by enumeration, and on sampled episodes that all of them share."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp

from experiments.harness import verdicts
from experiments.harness.runner import Recorder
from pgjax import baselines, diagnostics, estimators, exact, rollouts
from pgjax.distributions import categorical
from pgjax.environments.corridor import corridor_mdp
from pgjax.types import Baseline, Environment, Estimator, Policy, PyTree, Trajectory

MakeEstimator = Callable[[Policy, Baseline], Estimator]


def exact_moments(variants: Mapping[str, tuple[MakeEstimator, int]], recorder: Recorder) -> dict[str, float | None]:
    """Bias and tr Var of estimates on the short corridor, by enumeration in float64: no sampling error.

    The walker sees its state, takes the right way with probability 3/4 in every state, and has 8 steps. Two wrong
    estimates stand beside the variants: a batch mean that contains the episode itself, and ρ̂ refreshed before its use.

    Args:
        variants: name → (policy and v(X_t) → estimator, episodes in a batch); v is the exact value at the first step.
            Because of the horizon the values of later steps differ a little from it.

    Returns:
        name → tr Var of the estimate, None where the estimator learns what it subtracts. Rows go to the recorder.
    """
    with jax.enable_x64(True):
        mdp = corridor_mdp(horizon=8, observe_state=True)
        apply = lambda params, obs: obs @ params
        policy = Policy(init=lambda key, obs: jnp.zeros((4, 2)), apply=apply, distribution=categorical)
        params = jnp.log(jnp.asarray([[1.0, 3.0], [3.0, 1.0], [1.0, 3.0], [1.0, 1.0]]))
        enumeration = exact.enumerate_trajectories(mdp)
        probabilities = exact.trajectory_probabilities(apply, params, enumeration)
        gradient = exact.exact_gradient(apply, params, mdp)
        objective = exact.objective(apply, params, mdp)
        values = exact.state_values(mdp, exact.policy_probabilities(apply, params, mdp))[0]
        value = baselines.state_values(lambda obs: obs @ values)

        def estimate(estimator: Estimator) -> Callable[[Trajectory], jax.Array]:
            state = estimator.init(jax.random.key(0), enumeration.trajectories)
            if isinstance(state, baselines.MovingAverageState):
                # At a fixed θ, ρ̂ varies around ρ(θ). Its noise is left out.
                state = state._replace(estimate=objective, num_updates=state.num_updates + 1)
            return lambda batch: estimator.gradient(params, state, batch)[0]

        def stands(estimator: Estimator) -> bool:
            """Whether the estimator learns nothing but ρ̂, whose value at a fixed θ is known: ρ(θ)."""
            state = estimator.init(jax.random.key(0), enumeration.trajectories)
            return isinstance(state, baselines.MovingAverageState) or not jax.tree.leaves(state)

        total = estimators.total_return()
        biased = estimators.make_estimator(policy, returns=total, baseline=baselines.batch_mean())
        average = estimators.make_estimator(policy, returns=total, baseline=baselines.moving_average(0.9, -3.0))
        start = average.init(jax.random.key(0), enumeration.trajectories)
        refreshed = lambda batch: average.gradient(params, average.gradient(params, start, batch)[1], batch)[0]
        wrong = {
            "wrong: batch mean that contains the episode": (estimate(biased), 2, 0.5),
            "wrong: ρ̂ refreshed before use": (refreshed, 1, 0.9),
        }
        made = {name: (make(policy, value), size) for name, (make, size) in variants.items()}
        right = {
            name: (estimate(estimator), size, 1.0) for name, (estimator, size) in made.items() if stands(estimator)
        }
        found = {}
        for size in (1, 2):
            functions = {name: function for name, (function, wanted, _) in (right | wrong).items() if wanted == size}
            together = lambda batch, functions=functions: {name: f(batch) for name, f in functions.items()}
            moments = exact.estimator_moments(together, enumeration, probabilities, size)
            found |= {name: (moments.mean[name], float(jnp.sum(moments.variance[name]))) for name in functions}
        for name, (_, _, factor) in (right | wrong).items():
            mean, _ = found[name]
            error = jnp.max(jnp.abs(mean - factor * gradient))
            recorder.row(
                quantity="(a) E[estimate] / ∇ρ",
                variant=name,
                ours=float(jnp.vdot(mean, gradient) / jnp.vdot(gradient, gradient)),
                exact=factor,
                verdict=verdicts.against_exact(float(error), 0.0, 0.0, tolerance=1e-10),
            )
        variances = {name: found[name][1] if name in right else None for name in made}
        for name, variance in variances.items():
            recorder.row(quantity="(a) tr Var of the estimate", variant=name, exact=variance)
    return variances


def batch_estimates(
    estimator: Estimator, params: PyTree, state: PyTree, trajectory: Trajectory, batch: int, at_once: int | None = None
) -> jax.Array:
    """The estimate from each `batch` of consecutive episodes of N, `[N / batch, P]`, one at a time or `at_once`."""
    rows = jnp.arange(trajectory.rewards.shape[1]).reshape(-1, batch)
    estimate = lambda indices: estimator.gradient(params, state, exact.select_episodes(trajectory, indices))[0]
    return diagnostics.flatten_gradients(jax.lax.map(estimate, rows, batch_size=at_once))


def warmed_state(
    environment: Environment, policy: Policy, estimator: Estimator, params: PyTree, state: PyTree, keys: jax.Array
) -> PyTree:
    """The state of the baseline after new batches of this policy; `keys` `[batches, B]`."""

    def see(state: PyTree, batch_keys: jax.Array):
        batch = rollouts.episodes(environment, policy, params, batch_keys)
        return estimator.gradient(params, state, batch)[1], None

    return jax.lax.scan(see, state, keys)[0]
