"""The baseline of least variance from the other episodes of a batch, and weights of equal returns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from oracle import random_mdp
from policies import TABULAR
from random_batches import random_batch

from pgjax import baselines, environments, estimators, exact, networks, training
from pgjax.types import Trajectory


class TestOptimalLeaveOneOut:
    """Over all batches of three or four episodes."""

    @pytest.fixture(autouse=True)
    def float64(self, x64):
        pass

    def moments(self, enumeration, params, num_episodes, **named):
        """name → exact moments of the estimate with that baseline, and ∇ρ(θ)."""
        probabilities = exact.trajectory_probabilities(TABULAR, params, enumeration)

        @jax.jit
        def measure(params, probabilities):
            found = {}
            for name, baseline in named.items():
                estimator = estimators.make_estimator(TABULAR, baseline=baseline, returns=estimators.total_return())
                gradient = lambda batch: estimator.gradient(params, (), batch)[0]
                found[name] = exact.estimator_moments(gradient, enumeration, probabilities, num_episodes)
            return found, exact.enumerated_gradient(TABULAR, params, enumeration)

        return jax.device_get(measure(params, probabilities))

    def test_no_episode_is_part_of_its_own_baseline(self):
        mdp = random_mdp(3, 3, 2, 1, 2)
        enumeration = exact.enumerate_trajectories(mdp)
        params = 0.7 * jax.random.normal(jax.random.key(1), (3, 2))
        optimal = baselines.optimal_leave_one_out()

        def own_included(state, trajectory):
            norms, returns = trajectory.score_norms, trajectory.returns
            value = jnp.sum(norms * returns[:1]) / jnp.sum(norms)
            return jnp.broadcast_to(value, returns.shape)

        twin = optimal._replace(predict=own_included)
        found, gradient = self.moments(enumeration, params, 3, optimal=optimal, twin=twin)
        np.testing.assert_allclose(found["optimal"].mean, gradient, rtol=0, atol=1e-12)
        assert np.abs(found["twin"].mean - gradient).max() > 1e-3

    def test_it_has_less_variance_where_scores_differ(self):
        """The rare arms have the long scores, which tells the constant of least variance from the mean."""
        enumeration = exact.enumerate_trajectories(exact.make_bandit([1.0, 0.0, 0.0]))
        params = jnp.log(jnp.asarray([[0.5, 0.25, 0.25]]))
        named = {"optimal": baselines.optimal_leave_one_out(), "mean": baselines.leave_one_out()}
        found, gradient = self.moments(enumeration, params, 4, **named)
        for moments in found.values():
            np.testing.assert_allclose(moments.mean, gradient, rtol=0, atol=1e-12)
        # Both computed by hand, in NumPy.
        np.testing.assert_allclose(found["optimal"].total_variance, 0.03162718054503384, rtol=1e-9)
        np.testing.assert_allclose(found["mean"].total_variance, 0.0364583333333333, rtol=1e-9)


SHAPES = [(100, 32), (3, 33), (1, 7)]


@pytest.mark.parametrize("standardise", ["population", "group_population"])
def test_equal_returns_weigh_nothing_whatever_they_are(standardise):
    twins = []
    for steps, lanes in SHAPES:
        batch = random_batch(np.float32, steps, lanes)._replace(alive=np.ones((steps, lanes), bool))
        weighting = estimators.make_weighting(returns=estimators.total_return(), standardise=standardise)
        estimator = estimators.make_estimator(TABULAR, returns=estimators.total_return(), standardise=standardise)

        @jax.jit
        def weigh(value):
            rewards = jnp.zeros((steps, lanes)).at[-1].set(value)
            equal = batch._replace(rewards=rewards)
            weights, returns = weighting.weigh((), equal)
            centred = returns - jnp.mean(returns)
            twin = centred / (jnp.std(returns) + 1e-8)
            return weights, estimator.gradient(jnp.zeros((4, 2)), (), equal)[0], twin

        for value in (1.1, -0.1, 0.6):
            weights, gradient, twin = weigh(value)
            assert not np.any(weights) and not np.any(gradient), (steps, lanes, value)
            twins.append(np.abs(twin).max())
    # An absolute ε under the rounding of the mean is the wrong twin.
    assert max(twins) > 0.01


def test_a_long_score_does_not_drown_those_of_the_other_episodes():
    """Twin: the sum of all minus an episode's own term, which float32 rounds to a multiple of 8 beside 1e8."""
    norms, returns = np.array([1e8, 3.0, 5.0, 2.0]), np.array([1.0, 1.1, 1.2, 1.3])
    row = lambda x: jnp.asarray(x, jnp.float32)[None]
    ends = jnp.ones((1, 4), bool)
    batch = Trajectory(
        obs=row(returns),
        actions=row(returns),
        rewards=row(returns),
        alive=ends,
        terminated=ends,
        truncated=~ends,
        final_obs=row(returns)[0],
        returns=row(returns),
        score_norms=row(norms),
    )
    others = [np.delete(norms, i) @ np.delete(returns, i) / np.delete(norms, i).sum() for i in range(4)]
    found = baselines.optimal_leave_one_out().predict((), batch)[0]
    np.testing.assert_allclose(found, others, rtol=1e-6)
    twin = (row(norms * returns).sum() - row(norms * returns)) / (row(norms).sum() - row(norms))
    assert abs(twin[0, 0] - others[0]) > 0.1


def test_scores_of_another_theta_are_refused():
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=())
    estimator = estimators.make_estimator(policy, baseline=baselines.optimal_constant())
    with pytest.raises(ValueError, match=r"epochs must be 1 with a baseline that needs scores.*got 2"):
        training.make_trainer(environments.make("CartPole-v1"), policy, estimator, optax.sgd(0.1), epochs=2)
