"""The penalty on the distance from a reference policy is the gradient of the penalised objective."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from enumerated import Problem
from policies import TABULAR, tabular

from pgjax import estimators, exact, rewards
from pgjax.distributions import categorical
from pgjax.estimators.natural import softmax_inverse_fisher
from pgjax.types import Policy

KEY = jax.random.key(0)


class TestKLPenalty:
    """On a random MDP, all its trajectories enumerated."""

    @pytest.fixture(autouse=True)
    def float64(self, x64):
        pass

    def test_the_expected_gradient_is_that_of_the_penalised_objective(self):
        problem, coef = Problem(), 0.7
        reference = 0.5 * jax.random.normal(jax.random.key(9), problem.params.shape)

        def divergence(params):
            of = lambda params: exact.trajectory_probabilities(tabular, params, problem.enumeration)
            p = of(params)
            return jnp.sum(p * (jnp.log(p) - jnp.log(of(reference))))

        stage = rewards.kl_penalty(TABULAR, coef, reference)

        @jax.jit
        def expected(params, kl_coef):
            state = stage.init(KEY, params)._replace(kl_coef=kl_coef)
            batch = estimators.record_behaviour(TABULAR, params, problem.batch)
            batch, metrics = stage.relabel(params, state, batch)
            found = {}
            for name, rule in (("total", estimators.total_return()), ("to go", estimators.reward_to_go())):
                summands = estimators.make_estimator(TABULAR, returns=rule).episode_gradients(params, (), batch)
                found[name] = jnp.tensordot(problem.probabilities, summands, 1)
            return found, metrics["kl"]

        of_kl = np.asarray(jax.jit(jax.grad(divergence))(problem.params))
        assert np.abs(of_kl).max() > 0.1
        found, kl = expected(problem.params, jnp.asarray(coef))
        # The other sign is a wrong twin, off by exactly what is predicted.
        twin, _ = expected(problem.params, jnp.asarray(-coef))
        for name in ("total", "to go"):
            close(found[name], problem.gradient - coef * of_kl)
            close(twin[name] - (problem.gradient - coef * of_kl), 2 * coef * of_kl)
        ratio = jnp.log(exact.trajectory_probabilities(tabular, problem.params, problem.enumeration)) - jnp.log(
            exact.trajectory_probabilities(tabular, reference, problem.enumeration)
        )
        close(kl, jnp.mean(ratio))

    def test_a_larger_coefficient_keeps_the_optimum_of_a_bandit_nearer_to_the_reference(self):
        """π* ∝ π_ref exp(r/β), found by natural gradients of the expected estimate, one program for every β."""
        arms = jnp.asarray([1.0, 0.5, 0.0, 0.9])
        enumeration = exact.enumerate_trajectories(exact.make_bandit(arms))
        policy = Policy(init=lambda key, obs: jnp.zeros((1, 4)), apply=tabular, distribution=categorical)
        reference = jnp.log(jnp.asarray([[0.1, 0.2, 0.4, 0.3]]))
        stage = rewards.kl_penalty(policy, 1.0, reference)
        estimator = estimators.make_estimator(policy, returns=estimators.total_return())

        @jax.jit
        def optimum(kl_coef):
            state = stage.init(KEY, reference)._replace(kl_coef=kl_coef)

            def ascend(_, params):
                batch = estimators.record_behaviour(policy, params, enumeration.trajectories)
                batch, _ = stage.relabel(params, state, batch)
                summands = estimator.episode_gradients(params, (), batch)
                probabilities = exact.trajectory_probabilities(tabular, params, enumeration)
                step = softmax_inverse_fisher(params, jnp.tensordot(probabilities, summands, 1))
                return params + 0.5 / kl_coef * step

            return jax.nn.softmax(jax.lax.fori_loop(0, 80, ascend, reference))[0]

        found, start = [], np.exp(np.asarray(reference[0]))
        for kl_coef in (0.05, 0.3, 1.0):
            best = np.asarray(optimum(jnp.asarray(kl_coef)))
            wanted = start * np.exp(np.asarray(arms) / kl_coef)
            close(best, wanted / wanted.sum())
            found.append(np.sum(best * np.log(best / start)))
            # A wrong twin: the optimum without the reference.
            assert np.abs(best - np.asarray(jax.nn.softmax(arms / kl_coef))).max() > 0.02
        assert found[0] > 2 * found[1] > 4 * found[2] > 0
