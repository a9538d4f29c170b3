"""Exact moments by dynamic programming against enumeration with the estimators that train, on ten random MDPs."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from joint_moments import (
    DISCOUNT,
    HORIZON,
    STATES,
    by_dynamic_programming,
    by_estimators,
    by_formula,
)
from oracle import random_mdp
from policies import draw_params, perceptron, tabular

from pgjax import exact
from pgjax.exact.moments import step_sums

pytestmark = pytest.mark.usefixtures("exact_arithmetic")


def stack(trees):
    return jax.tree.map(lambda *leaves: jnp.asarray(np.stack(leaves)), *trees)


def padded(enumeration, size):
    """The same distribution with `size` trajectories: the first one is repeated, with probability zero."""
    missing = size - enumeration.environment_probabilities.size

    def repeat(x, axis):
        x = np.asarray(x)
        return np.concatenate([x, np.repeat(np.take(x, [0], axis), missing, axis)], axis)

    batch = enumeration.trajectories
    rows = jax.tree.map(lambda x: repeat(x, 1), batch._replace(final_obs=None))
    return enumeration._replace(
        trajectories=rows._replace(final_obs=repeat(batch.final_obs, 0)),
        states=repeat(enumeration.states, 1),
        environment_probabilities=np.pad(np.asarray(enumeration.environment_probabilities), (0, missing)),
    )


@pytest.fixture(scope="module")
def mdps():
    """Ten random MDPs of one shape; in the last five, states 0 and 1 look alike."""
    drawn = [random_mdp(seed, STATES, 2, 2, HORIZON) for seed in range(10)]
    alike = jnp.eye(STATES)[jnp.array([0, 0, 2, 3])]
    return drawn[:5] + [dataclasses.replace(mdp, observations=alike) for mdp in drawn[5:]]


@pytest.fixture(scope="module")
def enumerations(mdps):
    each = [exact.enumerate_trajectories(mdp) for mdp in mdps]
    size = max(one.environment_probabilities.size for one in each)
    return stack([padded(one, size) for one in each])


@pytest.fixture(scope="module")
def ends(mdps, enumerations):
    """The state in which each trajectory ends, `[10, N]`: which one, observations that look alike do not tell."""
    size = enumerations.states.shape[-1]
    told_apart = [dataclasses.replace(mdp, observations=jnp.eye(STATES)) for mdp in mdps]
    rows = [padded(exact.enumerate_trajectories(mdp), size).trajectories.final_obs for mdp in told_apart]
    return jnp.asarray(np.argmax(np.stack(rows), axis=-1), jnp.int32)


def flattened(tree):
    return np.concatenate([np.asarray(x).reshape(x.shape[0], -1) for x in jax.tree.leaves(tree)], axis=1)


def assert_relative(found, expected, what):
    scale = np.max(np.abs(expected), axis=tuple(range(1, expected.ndim)), keepdims=True)
    assert np.all(np.abs(found - expected) <= 1e-10 * scale + 1e-14), what
    assert np.all(scale > 1e-5), what


TABLE = pytest.param(tabular, id="softmax table")

PERCEPTRON = pytest.param(perceptron, id="perceptron", marks=pytest.mark.slow)


@pytest.fixture(scope="module", params=[TABLE, PERCEPTRON])
def found(request, mdps, enumerations, ends):
    apply = request.param
    params = stack([draw_params(apply, seed) for seed in range(10)])
    batched = lambda function: jax.jit(jax.vmap(lambda theta, given: function(apply, theta, given)))
    return (
        jax.tree.map(np.asarray, batched(by_dynamic_programming)(params, stack(mdps))),
        batched(by_estimators)(params, enumerations),
        batched(by_formula)(params, (enumerations, ends)),
        batched(lambda f, theta, mdp: exact.exact_gradient(f, theta, mdp, DISCOUNT))(params, stack(mdps)),
    )


def test_dynamic_programs_equal_enumeration(found):
    programmed, estimated, formulas, _ = found
    for name, (mean, variance) in estimated.items():
        assert_relative(flattened(programmed[name].mean), flattened(mean), name)
        assert_relative(flattened(programmed[name].variance), flattened(variance), name)
    for name, (mean, covariance) in formulas.items():
        assert_relative(flattened(programmed[name].mean), np.asarray(mean), name)
        assert_relative(programmed[name].covariance, np.asarray(covariance), name)
    assert estimated.keys() | formulas.keys() == programmed.keys()


def test_traces_and_diagonals_are_consistent(found):
    for name, one in found[0].items():
        variance = flattened(one.variance)
        if one.covariance is not None:
            diagonal = np.diagonal(one.covariance, axis1=1, axis2=2)
            np.testing.assert_allclose(variance, diagonal, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(one.total_variance, variance.sum(1), rtol=1e-10, atol=1e-12)
        excess = one.second_moment - one.total_variance
        np.testing.assert_allclose(excess, np.sum(flattened(one.mean) ** 2, axis=1), rtol=1e-9)


def test_biased_and_unbiased_members(found):
    """The corrected baseline, exact Q and all actions are unbiased; three named departures are not."""
    programmed, _, _, gradient = found
    truth = flattened(gradient)
    errors = {name: np.max(np.abs(flattened(one.mean) - truth), axis=1) for name, one in programmed.items()}
    unbiased = {"total, discounted", "to go, b(s), weighted", "to go, b(s, t)", "to go, b(s, a) corrected"}
    for name in (unbiased | {"exact Q", "all actions"}) & errors.keys():
        assert np.all(errors[name] < 1e-12), name
    # The action's baseline left uncorrected, γᵗ left out, and a wrong v.
    for name in {"to go, b(s, a) uncorrected", "to go, b(s)", "lambda"} & errors.keys():
        assert np.all(errors[name] > 1e-4) and np.any(errors[name] > 1e-2), name


def test_a_terminal_state_adds_nothing(mdps):
    """Twin: with no terminal state the same problem has other moments; the rows of a terminal one are not read."""
    params, mdp = draw_params(tabular, 0), mdps[0]
    variance = jax.jit(lambda problem: exact.reward_to_go_moments(tabular, params, problem).total_variance)
    changed = dataclasses.replace(mdp, rewards=mdp.rewards.at[-1].set(50.0))
    np.testing.assert_allclose(variance(changed), variance(mdp), rtol=1e-14)
    endless = dataclasses.replace(mdp, terminal=jnp.zeros_like(mdp.terminal))
    assert abs(variance(endless) / variance(mdp) - 1) > 1e-2


def test_problems_too_long_to_enumerate():
    """20 states, 4 actions, 50 steps: more than 10⁴⁰ trajectories."""
    mdp = random_mdp(1, 20, 4, 2, 50)
    params = jnp.asarray(np.random.default_rng(0).standard_normal((20, 4)))
    total, to_go = jax.jit(
        lambda theta: (
            exact.total_return_moments(tabular, theta, mdp, baseline=0.3),
            exact.reward_to_go_moments(tabular, theta, mdp, baseline=0.3),
        )
    )(params)
    spreads = np.array([total.total_variance, to_go.total_variance])
    assert np.all(np.isfinite(spreads)) and np.all(spreads > 0) and np.all(total.variance[:-1] > 0)
    np.testing.assert_allclose(total.mean, to_go.mean, atol=1e-12)
    np.testing.assert_allclose(total.mean, exact.exact_gradient(tabular, params, mdp), atol=1e-12)


def test_baselines_of_fewer_axes_are_repeated(mdps):
    numbers = np.arange(HORIZON * STATES * 2.0).reshape(HORIZON, STATES, 2)
    for given in (2.5, numbers[0, :, 0], numbers[:, :, 0], numbers):
        found = step_sums.per_step("baseline", given, mdps[0])
        missing = 3 - np.ndim(given) if np.ndim(given) != 1 else 1
        by_hand = np.expand_dims(given, tuple(range(np.ndim(given), np.ndim(given) + missing)))
        np.testing.assert_array_equal(found, np.broadcast_to(by_hand, numbers.shape))
    np.testing.assert_array_equal(step_sums.per_step("baseline", None, mdps[0]), np.zeros_like(numbers))


@pytest.mark.parametrize("constant", [1e6, 1e9])
@pytest.mark.parametrize("covariance", [False, True])
def test_a_constant_on_rewards_and_baseline_does_not_drown_the_variance(constant, covariance):
    """(G + c − (b + c)) ψ is (G − b) ψ. From E[G²], E[G] and b, the wrong twin, 10⁶ costs three digits and 10⁹ all."""
    params = jnp.asarray([[0.0, 1.0, 2.0]])
    arms = np.array([1.0, 0.7, 0.0])
    probabilities = np.exp(params[0]) / np.exp(params[0]).sum()
    each = (arms - 0.4)[:, None] * (np.eye(3) - probabilities)
    wanted = probabilities @ (each - probabilities @ each) ** 2
    for moments in (exact.total_return_moments, exact.reward_to_go_moments):
        mdp = exact.make_bandit(arms + constant)
        found = moments(tabular, params, mdp, baseline=0.4 + constant, covariance=covariance)
        # The constant itself takes its digits from the rewards.
        np.testing.assert_allclose(found.variance[0], wanted, rtol=10 * constant * np.finfo(float).eps)


def test_a_baseline_that_is_the_return_leaves_no_variance():
    """Squares of deviations vanish with them; κ² E[H²] − 2 κ b h + b², the wrong twin, leaves roundings of b²."""
    arms = np.array([1.0, 0.7, 0.1]) / 3
    given = np.broadcast_to(arms, (1, 2, 3))
    params = jnp.asarray([[0.3, 1.0, 2.0]])
    found = exact.reward_to_go_moments(tabular, params, exact.make_bandit(arms), baseline=given)
    assert found.total_variance < 1e-30


@pytest.mark.slow
def test_differentiable_in_the_parameters(mdps):
    """The variance is smooth in θ: its derivative equals finite differences."""
    params = draw_params(tabular, 0)
    spread = jax.jit(lambda theta: exact.total_return_moments(tabular, theta, mdps[0]).total_variance)
    step = jnp.zeros_like(params).at[1, 0].set(1e-5)
    numeric = (spread(params + step) - spread(params - step)) / 2e-5
    np.testing.assert_allclose(jax.grad(spread)(params)[1, 0], numeric, rtol=1e-6)


def test_impossible_arguments_are_refused(mdps):
    params, mdp = draw_params(tabular, 0), mdps[0]
    with pytest.raises(ValueError, match=r"baseline has shape \(3,\), must be a number, \[S\], \[T, S\] or"):
        exact.reward_to_go_moments(tabular, params, mdp, baseline=np.zeros(3))
    with pytest.raises(ValueError, match="correction must be one of 'none', 'expected'"):
        exact.reward_to_go_moments(tabular, params, mdp, correction="yes")
    with pytest.raises(ValueError, match="time_weights must be one of"):
        exact.all_action_moments(tabular, params, mdp, time_weights="yes")
    with pytest.raises(ValueError, match=r"values has shape \(3, 4\), must be \[S\] = \(4,\) or"):
        exact.lambda_return_moments(tabular, params, mdp, np.zeros((3, 4)))
    with pytest.raises(ValueError, match=r"lambda_ must be in \[0, 1\], got 1.5"):
        exact.lambda_return_moments(tabular, params, mdp, np.zeros(4), lambda_=1.5)
    with pytest.raises(ValueError, match="baseline must be a number or shaped as params"):
        exact.total_return_moments(tabular, params, mdp, baseline=np.zeros(4))
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got -1"):
        exact.total_return_moments(tabular, params, mdp, discount=-1)
