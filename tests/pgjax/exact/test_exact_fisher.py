"""Scores, Fisher information and the natural gradient: definitions by enumeration, invariances exactly."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import (
    exact_gradient,
    fisher_matrix,
    policy_probabilities,
    random_mdp,
    score_table,
    trajectory_probabilities,
)
from policies import tabular

from pgjax import exact

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

HORIZON, STATES, DISCOUNT = 3, 4, 0.8


def perceptron(params, obs):
    return jnp.tanh(obs @ params["in"]) @ params["out"]


@pytest.fixture(scope="module")
def problem():
    mdp = random_mdp(0, STATES, 2, 2, HORIZON)
    alike = jnp.eye(STATES)[jnp.array([0, 0, 2, 3])]
    draw = np.random.default_rng(2).standard_normal
    params = {"in": jnp.asarray(draw((STATES, 2))), "out": jnp.asarray(draw((2, 2)))}
    return dataclasses.replace(mdp, observations=alike), params


@pytest.fixture(scope="module")
def table(problem):
    return dataclasses.replace(problem[0], observations=jnp.eye(STATES)), jnp.asarray(
        np.random.default_rng(1).standard_normal((STATES, 2))
    )


def test_scores_have_no_mean_and_are_the_gradient_of_the_log_probability(problem):
    mdp, params = problem
    scores = score_table(perceptron, params, mdp)
    policy = policy_probabilities(perceptron, params, mdp)
    assert scores.shape == (STATES, 2, 12)
    np.testing.assert_allclose(jnp.einsum("sa,sap->sp", policy, scores), 0.0, atol=1e-15)
    assert np.max(np.abs(np.sum(scores, axis=1))) > 1e-2  # twin: not weighted with π
    np.testing.assert_array_equal(scores[0], scores[1])  # the states look alike
    log_probability = lambda theta: exact.policy_log_probabilities(perceptron, theta, mdp)[2, 1]
    gradient = jax.grad(log_probability)(params)
    np.testing.assert_allclose(scores[2, 1], np.concatenate([np.ravel(gradient["in"]), np.ravel(gradient["out"])]))


def test_fisher_matrix_is_the_covariance_of_the_score_and_the_mean_curvature(problem):
    mdp, params = problem
    enumeration = exact.enumerate_trajectories(mdp)
    probabilities = np.asarray(trajectory_probabilities(perceptron, params, enumeration))
    flat, unravel = jax.flatten_util.ravel_pytree(params)

    def log_probability(theta):
        return jnp.log(trajectory_probabilities(perceptron, unravel(theta), enumeration))

    scores, curvature = jax.jit(
        lambda theta: (jax.jacfwd(log_probability)(theta), jax.jacfwd(jax.jacfwd(log_probability))(theta))
    )(flat)
    fisher = np.asarray(fisher_matrix(perceptron, params, mdp))
    np.testing.assert_allclose(probabilities @ np.asarray(scores), 0.0, atol=1e-14)
    np.testing.assert_allclose(fisher, np.einsum("n,ni,nj->ij", probabilities, scores, scores), atol=1e-13)
    np.testing.assert_allclose(fisher, -np.einsum("n,nij->ij", probabilities, curvature), atol=1e-13)
    joint = exact.return_score_moments(perceptron, params, mdp, full=True)
    np.testing.assert_allclose(joint.squares[0], fisher, atol=1e-13)
    discounted = fisher_matrix(perceptron, params, mdp, discount=DISCOUNT)
    assert np.trace(discounted) < 0.95 * np.trace(fisher)


def test_natural_gradient_of_a_bandit_is_its_advantages():
    mdp = exact.make_bandit([1.0, 0.7, 0.0])
    params = jnp.array([0.0, 3.0, 5.0])
    found = exact.natural_gradient(lambda theta, obs: theta, params, mdp)
    rewards = np.array([1.0, 0.7, 0.0])
    np.testing.assert_allclose(found, rewards - rewards.mean(), rtol=1e-9)
    assert np.max(np.abs(exact_gradient(lambda theta, obs: theta, params, mdp) - found)) > 0.4  # twin: F left out


def test_natural_step_multiplies_the_policy_by_exponentials(table):
    """π ∝ π exp(α A), with A the advantage averaged over the steps with weights γᵗ d_t(s); α is not small."""
    mdp, params = table
    policy = policy_probabilities(tabular, params, mdp)
    weights = DISCOUNT ** np.arange(HORIZON)[:, None] * np.asarray(exact.visitation(mdp, policy))
    q = np.asarray(exact.action_values(mdp, policy, DISCOUNT))
    visited = weights.sum(0) > 0
    mean_q = np.einsum("ts,tsa->sa", weights, q) / np.where(visited, weights.sum(0), 1.0)[:, None]
    stepped = params + 2.0 * exact.natural_gradient(tabular, params, mdp, discount=DISCOUNT)
    expected = np.asarray(policy) * np.exp(2.0 * mean_q)
    expected /= expected.sum(1, keepdims=True)
    np.testing.assert_array_equal(visited, [True, True, True, False])
    np.testing.assert_allclose(policy_probabilities(tabular, stepped, mdp), expected, atol=1e-12)


def test_natural_direction_does_not_depend_on_the_parametrisation(problem):
    """With θ = M ϑ the policy changes at the same rate, dπ/dα, along either natural gradient."""
    mdp, params = problem
    flat, unravel = jax.flatten_util.ravel_pytree(params)
    mixing = jnp.asarray(np.eye(12) + 0.5 * np.random.default_rng(3).standard_normal((12, 12)))
    mixed = lambda theta, obs: perceptron(unravel(mixing @ theta), obs)
    start = jnp.linalg.solve(mixing, flat)

    def rate(apply, params, direction):
        policy = lambda theta: policy_probabilities(apply, theta, mdp)[jnp.array([0, 2])]
        return np.asarray(jax.jvp(policy, (params,), (direction,))[1])

    plain = rate(perceptron, params, exact.natural_gradient(perceptron, params, mdp))
    np.testing.assert_allclose(rate(mixed, start, exact.natural_gradient(mixed, start, mdp)), plain, atol=1e-9)
    vanilla = rate(mixed, start, exact_gradient(mixed, start, mdp))
    assert np.max(np.abs(vanilla - rate(perceptron, params, exact_gradient(perceptron, params, mdp)))) > 1e-2


@pytest.mark.parametrize("damping", [0.0, 0.1])
def test_a_policy_of_many_parameters_needs_no_matrix_of_them(problem, damping):
    """Fewer pairs of state and action, 8, than parameters, 12 or 3000: the same F⁺ ∇ρ from the scores alone."""
    mdp, params = problem
    fisher = fisher_matrix(perceptron, params, mdp)
    gradient = jax.flatten_util.ravel_pytree(exact_gradient(perceptron, params, mdp))[0]
    found = jax.flatten_util.ravel_pytree(exact.natural_gradient(perceptron, params, mdp, damping=damping))[0]
    np.testing.assert_allclose(found, exact.pseudo_inverse(fisher, damping) @ gradient, atol=1e-10)
    draw = np.random.default_rng(4).standard_normal
    wide = {"in": jnp.asarray(draw((STATES, 500))), "out": jnp.asarray(draw((500, 2)))}
    solve = jax.jit(lambda params: exact.natural_gradient(perceptron, params, mdp, damping=damping))
    assert solve.lower(wide).compile().memory_analysis().temp_size_in_bytes < 3000**2


def test_pseudo_inverse_and_damping(table):
    mdp, params = table
    fisher = fisher_matrix(tabular, params, mdp)
    np.testing.assert_allclose(
        exact.pseudo_inverse(fisher), np.linalg.pinv(np.asarray(fisher), hermitian=True), atol=1e-10
    )
    gradient = np.ravel(exact_gradient(tabular, params, mdp))
    damped = exact.natural_gradient(tabular, params, mdp, damping=0.1)
    np.testing.assert_allclose(np.ravel(damped), np.linalg.solve(fisher + 0.1 * np.eye(8), gradient), atol=1e-12)
    with pytest.raises(ValueError, match="damping must be at least 0"):
        exact.natural_gradient(tabular, params, mdp, damping=-0.1)
