"""Values without a horizon: a closed form, the limit of long horizons, and two gradients that agree."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import random_mdp
from policies import tabular

from pgjax import exact

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

STATES, DISCOUNT = 4, 0.8


def one_chance(params, obs):
    """One logit for all states: P(action 1) = σ(θ)."""
    return jnp.stack([jnp.zeros_like(params), params])


@pytest.fixture(scope="module")
def problem():
    mdp = random_mdp(0, STATES, 2, 2, 1)
    return mdp, jnp.asarray(np.random.default_rng(1).standard_normal((STATES, 2)))


@pytest.fixture(scope="module")
def corridor():
    """The short corridor with switched actions of Sutton & Barto (2018), example 13.1, at a horizon of one step."""
    successors = np.array([[0, 1], [2, 0], [1, 3], [3, 3]])[:, :, None]
    return exact.make_tabular_mdp(
        initial=[1.0, 0.0, 0.0, 0.0],
        successors=successors,
        probabilities=np.ones(successors.shape),
        rewards=np.full(successors.shape, -1.0),
        terminal=[False, False, False, True],
        observations=np.ones((4, 1)),
        horizon=1,
    )


def test_corridor_has_its_closed_form(corridor):
    """v(p) = (2p − 4) / (p (1 − p)), dJ/dlogit = v'(p) p (1 − p), and −v is the expected length."""

    def solve(logit):
        policy = exact.policy_probabilities(one_chance, logit, corridor)
        return (
            exact.stationary_objective(one_chance, logit, corridor),
            -jnp.sum(exact.stationary_visitation(corridor, policy)),
            exact.stationary_gradient(one_chance, logit, corridor),
            exact.stationary_policy_gradient_theorem(one_chance, logit, corridor),
        )

    chance = np.array([0.05, 0.5, 2 - np.sqrt(2)])
    product = chance * (1 - chance)
    value = (2 * chance - 4) / product
    slope = 2 / product - value * (1 - 2 * chance) / product
    found, length, differentiated, theorem = jax.jit(jax.vmap(solve))(jnp.log(chance / (1 - chance)))
    np.testing.assert_allclose(found, value, rtol=1e-12)
    np.testing.assert_allclose(length, value, rtol=1e-12)
    np.testing.assert_allclose(differentiated, slope * product, rtol=1e-10, atol=1e-11)
    np.testing.assert_allclose(theorem, slope * product, rtol=1e-10, atol=1e-11)


def test_best_corridor_policy(corridor):
    best = 2 - np.sqrt(2)
    logit = jnp.log(best / (1 - best))
    found = exact.stationary_objective(one_chance, logit, corridor)
    np.testing.assert_allclose(found, -(6 + 4 * np.sqrt(2)), rtol=1e-13)
    np.testing.assert_allclose(exact.stationary_gradient(one_chance, logit, corridor), 0.0, atol=1e-12)
    np.testing.assert_allclose(
        exact.stationary_state_values(corridor, exact.policy_probabilities(one_chance, logit, corridor)),
        [-11.65685, -9.94975, -5.12132, 0.0],
        atol=1e-5,
    )


@pytest.mark.parametrize("discount", [DISCOUNT, 1.0])
def test_limit_of_long_horizons(problem, discount):
    mdp, params = problem
    policy = exact.policy_probabilities(tabular, params, mdp)
    v, q = exact.stationary_state_values(mdp, policy, discount), exact.stationary_action_values(mdp, policy, discount)
    d = exact.stationary_visitation(mdp, policy, discount)
    long, short = (dataclasses.replace(mdp, horizon=horizon) for horizon in (600, 2))
    np.testing.assert_allclose(v, exact.state_values(long, policy, discount)[0], atol=1e-11)
    np.testing.assert_allclose(q, exact.action_values(long, policy, discount)[0], atol=1e-11)
    powers = discount ** np.arange(600)
    np.testing.assert_allclose(d, powers @ np.asarray(exact.visitation(long, policy)), atol=1e-11)
    assert v[-1] == d[-1] == 0 and np.all(q[-1] == 0)
    assert np.max(np.abs(v - exact.state_values(short, policy, discount)[0])) > 1e-2  # twin: the horizon obeyed
    truth = exact.exact_gradient(tabular, params, long, discount)
    np.testing.assert_allclose(exact.stationary_gradient(tabular, params, mdp, discount), truth, atol=1e-10)


@pytest.mark.parametrize("discount", [DISCOUNT, 1.0])
def test_the_two_gradients_agree(problem, discount):
    differentiated, theorem = (
        jax.jit(gradient, static_argnums=0)
        for gradient in (exact.stationary_gradient, exact.stationary_policy_gradient_theorem)
    )
    for seed in range(5):
        mdp = random_mdp(seed, STATES, 2, 2, 1)
        params = jnp.asarray(np.random.default_rng(seed).standard_normal((STATES, 2)))
        found = theorem(tabular, params, mdp, discount)
        np.testing.assert_allclose(found, differentiated(tabular, params, mdp, discount), rtol=1e-12, atol=1e-12)
    mdp, params = problem
    policy, pull_back = jax.vjp(lambda theta: exact.policy_probabilities(tabular, theta, mdp), params)
    undiscounted = exact.stationary_visitation(mdp, policy, 1.0)[:, None]
    twin = pull_back(undiscounted * exact.stationary_action_values(mdp, policy, discount))[0]
    np.testing.assert_allclose(theorem(tabular, params, mdp, discount, 1.0), twin, rtol=1e-12, atol=1e-12)
    wrong = np.max(np.abs(twin - theorem(tabular, params, mdp, discount)))
    assert (wrong > 1e-2) == (discount < 1)  # twin: visits counted without γᵗ


def test_improper_policies_are_refused(problem):
    """State 1 holds the policy for ever once it is entered, from a start in state 0, with probability ½."""
    trap = exact.make_tabular_mdp(
        initial=[1.0, 0.0, 0.0, 0.0],
        successors=np.array([[1, 2], [1, 1], [2, 2], [0, 2]])[:, :, None],
        probabilities=np.ones((4, 2, 1)),
        rewards=np.ones((4, 2, 1)),
        terminal=[False, False, True, False],
        horizon=1,
    )
    params = jnp.zeros((4, 2))
    policy = exact.policy_probabilities(tabular, params, trap)
    np.testing.assert_array_equal(exact.proper_states(trap, policy), [False, False, True, False])
    message = "the policy is improper: from state 0, where episodes start, it does not reach a terminal state"
    for solve in (exact.stationary_state_values, exact.stationary_action_values, exact.stationary_visitation):
        with pytest.raises(ValueError, match=message):
            solve(trap, policy)
        assert np.all(np.isfinite(solve(trap, policy, 0.9)))
    for solve in (exact.stationary_objective, exact.stationary_gradient, exact.stationary_policy_gradient_theorem):
        with pytest.raises(ValueError, match=message):
            solve(tabular, params, trap)
    assert np.isnan(jax.jit(exact.stationary_objective, static_argnums=0)(tabular, params, trap))

    # A policy that never enters the trap is proper where it starts; the trap itself has no value.
    avoiding = jnp.array([[0.0, 1.0], [0.5, 0.5], [0.5, 0.5], [0.5, 0.5]])
    np.testing.assert_array_equal(exact.stationary_state_values(trap, avoiding), [1.0, np.nan, 0.0, 1.5])
    np.testing.assert_array_equal(exact.stationary_action_values(trap, avoiding)[0], [np.nan, 1.0])
    np.testing.assert_allclose(exact.stationary_visitation(trap, avoiding), [1.0, 0.0, 0.0, 0.0])


def test_discounts_are_checked(problem):
    mdp, params = problem
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got 1.5"):
        exact.stationary_objective(tabular, params, mdp, 1.5)
