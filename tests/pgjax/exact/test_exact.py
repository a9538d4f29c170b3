"""The oracle against itself: dynamic programming, autodiff and enumeration know the same numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from oracle import exact_gradient, objective, policy_gradient_theorem, policy_probabilities, random_mdp
from policies import draw_params, perceptron, tabular

from pgjax import baselines, estimators, exact
from pgjax.distributions import categorical
from pgjax.types import Policy

pytestmark = pytest.mark.usefixtures("exact_arithmetic")


def distance(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected))
    return max(np.max(np.abs(np.asarray(a) - np.asarray(b))) for a, b in pairs)


@pytest.mark.parametrize("apply", [tabular, perceptron])
def test_policy_gradient_theorem_equals_differentiated_program(apply):
    for seed in range(4):
        mdp = random_mdp(seed, 4, 2, 2, 3)
        params = draw_params(apply, seed)
        differentiated = exact_gradient(apply, params, mdp, 0.9)
        theorem = policy_gradient_theorem(apply, params, mdp, 0.9)
        undiscounted = policy_gradient_theorem(apply, params, mdp, 1.0)
        close(theorem, differentiated, atol=1e-12)
        assert distance(undiscounted, differentiated) > 1e-3  # twin: the discount forgotten


def test_theorem_needs_time_dependent_values(small_problem):
    mdp, params = small_problem

    @jax.jit
    def theorem(params, frozen):
        probabilities, pull_back = jax.vjp(lambda theta: policy_probabilities(tabular, theta, mdp), params)
        d, q = exact.visitation(mdp, probabilities), exact.action_values(mdp, probabilities)
        q = jnp.where(frozen, q[:1], q)
        return pull_back(jnp.sum(d[:, :, None] * q, axis=0))[0]

    truth = exact_gradient(tabular, params, mdp, 1.0)
    assert distance(theorem(params, False), truth) < 1e-12
    assert distance(theorem(params, True), truth) > 1e-2  # twin: Q_0 at every step


def test_value_recursion_and_gradient_by_finite_differences(small_problem):
    mdp, params = small_problem
    probabilities = policy_probabilities(tabular, params, mdp)
    v, q = exact.state_values(mdp, probabilities, 0.9), exact.action_values(mdp, probabilities, 0.9)
    assert v.shape == (4, 4) and q.shape == (3, 4, 2)
    v, q, p, r = (np.asarray(x) for x in (v, q, mdp.probabilities, mdp.rewards))
    np.testing.assert_allclose(v[:-1], (np.asarray(probabilities) * q).sum(-1), atol=1e-14)
    assert np.all(v[:, 3] == 0) and np.all(v[3] == 0) and np.all(q[:, 3] == 0)
    np.testing.assert_allclose(q[2, :3], (p * r).sum(-1)[:3], atol=1e-14)

    rho = lambda nudge: objective(tabular, params + jnp.zeros((4, 2)).at[1, 0].set(nudge), mdp, 0.9)
    numeric = (rho(1e-5) - rho(-1e-5)) / 2e-5
    np.testing.assert_allclose(numeric, exact_gradient(tabular, params, mdp, 0.9)[1, 0], atol=1e-9)


def test_terminal_states_are_worth_nothing(small_problem):
    mdp, params = small_problem
    endless = dataclasses.replace(mdp, terminal=jnp.zeros_like(mdp.terminal))
    assert abs(objective(tabular, params, mdp, 0.9) - objective(tabular, params, endless, 0.9)) > 1e-2


def test_optimal_values_bound_every_policy_and_are_reached(small_problem):
    mdp, params = small_problem
    best = jnp.max(exact.optimal_action_values(mdp, 0.9), axis=-1)
    probabilities = policy_probabilities(tabular, params, mdp)
    assert np.all(best >= exact.state_values(mdp, probabilities, 0.9)[:-1])
    one_step = dataclasses.replace(mdp, horizon=1)
    greedy = jax.nn.one_hot(jnp.argmax(exact.optimal_action_values(one_step)[0], -1), 2, dtype=float)
    np.testing.assert_allclose(exact.state_values(one_step, greedy)[0], best[-1], atol=1e-14)


def test_discount_outside_unit_interval_is_refused(small_problem):
    mdp, params = small_problem
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got 1\.5"):
        exact.objective(tabular, params, mdp, 1.5)


@jax.jit
def of_all_programs(params, mdp, batch):
    """ρ, ∇ρ, the joint moments of return and score, and the reward-to-go estimate from one batch."""
    policy = Policy(init=None, apply=tabular, distribution=categorical)
    estimator = estimators.make_estimator(
        policy, returns=estimators.reward_to_go(0.9), baseline=baselines.constant(0.4)
    )
    return {
        "objective": exact.objective(tabular, params, mdp, 0.9),
        "gradient": exact_gradient(tabular, params, mdp, 0.9),
        "joint moments": exact.return_score_moments(tabular, params, mdp, discount=0.9)._asdict(),
        "estimate": estimator.gradient(params, (), batch)[0],
    }


def test_float32_stays_within_a_hundred_roundings_of_float64(small_problem, small_enumeration):
    """An entry is a sum of some ten products over T = 3 steps: 100 ε leaves room for all their roundings in a row.

    Twin: rewards rounded to half precision, each off by up to 4096 ε, are seen in every quantity.
    """
    mdp, params = small_problem
    batch = small_enumeration[0].trajectories
    half = lambda x: np.asarray(x, np.float16)
    rounded = dataclasses.replace(mdp, rewards=half(mdp.rewards)), batch._replace(rewards=half(batch.rewards))
    as_single = lambda x: np.asarray(x, np.float32 if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)
    double = jax.device_get(of_all_programs(params, mdp, batch))
    with jax.enable_x64(False):
        single = jax.device_get(of_all_programs(*jax.tree.map(as_single, (params, mdp, batch))))
        coarse = jax.device_get(of_all_programs(*jax.tree.map(as_single, (params, *rounded))))
    for name, wanted in double.items():
        assert {x.dtype for x in jax.tree.leaves(single[name])} == {np.dtype(np.float32)}
        scale = max(np.max(np.abs(x)) for x in jax.tree.leaves(wanted))
        bound = 100 * np.finfo(np.float32).eps * scale
        assert distance(single[name], wanted) < bound < distance(coarse[name], wanted), name
