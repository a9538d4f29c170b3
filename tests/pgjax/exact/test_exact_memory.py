"""Policies with memory against the oracle: a GRU on the short corridor, whose states look alike, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from oracle import enumerated_gradient, exact_gradient, random_mdp, score_table, trajectory_probabilities
from policies import tabular

from pgjax import baselines, estimators, exact
from pgjax.distributions import categorical
from pgjax.environments.corridor import corridor_mdp
from pgjax.types import Memory, Policy

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

WIDTH = 2


def cell(params, carry, obs):
    """A gated recurrent unit (Cho et al. 2014) and the logits of two actions."""
    seen = jnp.concatenate([obs, carry])
    keep, reset = (jax.nn.sigmoid(seen @ params[name]) for name in ("keep", "reset"))
    candidate = jnp.tanh(jnp.concatenate([obs, reset * carry]) @ params["new"])
    carry = keep * carry + (1.0 - keep) * candidate
    return carry, carry @ params["out"]


MEMORY = Memory(start=lambda params, obs: jnp.zeros(WIDTH, obs.dtype), step=cell)
GRU = Policy(init=None, apply=None, distribution=categorical, memory=MEMORY)


@pytest.fixture(scope="module")
def problem(exact_arithmetic):
    enumeration = exact.enumerate_trajectories(corridor_mdp(horizon=4))
    draw = np.random.default_rng(0).standard_normal
    shapes = {"keep": (1 + WIDTH, WIDTH), "reset": (1 + WIDTH, WIDTH), "new": (1 + WIDTH, WIDTH), "out": (WIDTH, 2)}
    return enumeration, {name: jnp.asarray(draw(shape)) for name, shape in shapes.items()}


def test_probabilities_sum_to_one_and_need_the_memory(problem):
    enumeration, params = problem
    chances = trajectory_probabilities(GRU, params, enumeration)
    close(chances.sum(), 1.0, atol=1e-14)
    # Twin: every observation is the same, so that without memory time could not change the odds of an action.
    forgetful = Memory(start=MEMORY.start, step=lambda params, carry, obs: (carry, cell(params, carry, obs)[1]))
    others = trajectory_probabilities(GRU._replace(memory=forgetful), params, enumeration)
    close(others.sum(), 1.0, atol=1e-14)
    assert np.abs(chances - others).max() > 1e-2


def test_the_gradient_by_enumeration_is_that_of_finite_differences(problem):
    enumeration, params = problem
    objective = jax.jit(lambda params: exact.enumerated_objective(GRU, params, enumeration, 0.9))
    gradient = enumerated_gradient(GRU, params, enumeration, 0.9)
    for name, position in (("keep", (1, 0)), ("reset", (2, 1)), ("new", (0, 1)), ("out", (1, 1))):
        nudged = lambda h: {**params, name: params[name].at[position].add(h)}
        numeric = (objective(nudged(1e-5)) - objective(nudged(-1e-5))) / 2e-5
        np.testing.assert_allclose(numeric, gradient[name][position], atol=1e-8)
        assert abs(numeric) > 1e-5


def test_a_memory_that_repeats_apply_has_its_probabilities():
    mdp = random_mdp(0, 3, 2, 2, 3)
    enumeration, params = exact.enumerate_trajectories(mdp), jax.random.normal(jax.random.key(1), (3, 2))
    memory = Memory(start=lambda params, obs: (), step=lambda params, carry, obs: (carry, tabular(params, obs)))
    alone = Policy(init=None, apply=None, distribution=categorical, memory=memory)
    both = alone._replace(apply=tabular)
    wanted = trajectory_probabilities(tabular, params, enumeration)
    for policy in (alone, both):
        close(trajectory_probabilities(policy, params, enumeration), wanted, atol=1e-15)
    close(enumerated_gradient(alone, params, enumeration), exact_gradient(both, params, mdp), atol=1e-13)
    close(score_table(both, params, mdp), score_table(tabular, params, mdp), atol=1e-15)


def test_dynamic_programs_refuse_a_policy_that_must_remember(problem):
    enumeration, params = problem
    programs = (exact.objective, exact.exact_gradient, exact.score_table, exact.total_return_moments)
    for program in programs:
        with pytest.raises(ValueError, match=r"a dynamic program needs a policy .*\(Policy.apply is None\)"):
            program(GRU, params, enumeration.mdp)


def test_three_estimators_are_unbiased_with_memory(problem):
    enumeration, params = problem
    chances = trajectory_probabilities(GRU, params, enumeration)
    truth = enumerated_gradient(GRU, params, enumeration)
    make = lambda **options: estimators.make_estimator(GRU, **options)
    declared = {
        "total return": make(returns=estimators.total_return()),
        "reward-to-go": make(baseline=baselines.constant(-2.0)),
        "leave-one-out": make(returns=estimators.total_return(), baseline=baselines.leave_one_out()),
        "batch mean": make(returns=estimators.total_return(), baseline=baselines.batch_mean()),
    }
    function = lambda batch: {name: one.gradient(params, (), batch)[0] for name, one in declared.items()}
    found = exact.estimator_moments(function, enumeration, chances, 2).mean
    for name in ("total return", "reward-to-go", "leave-one-out"):
        jax.tree.map(lambda a, b: close(a, b, atol=1e-12), found[name], truth)
    # Twin: the mean that contains the episode itself halves the gradient.
    jax.tree.map(lambda a, b: close(a, b / 2, atol=1e-12), found["batch mean"], truth)
