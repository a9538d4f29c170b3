"""The variance of a one-step estimate by its causes, against enumeration of every visit of every trajectory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import exact_gradient, policy_probabilities, score_table, trajectory_probabilities
from policies import tabular

from pgjax import exact

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

HORIZON, STATES, DISCOUNT = 3, 4, 0.8
BASELINE = np.random.default_rng(5).standard_normal((HORIZON, STATES))


@pytest.fixture(scope="module")
def visits(small_problem):
    """Every visit of every trajectory, [T, N]: its weight, its score, G_t, the state and the action."""
    mdp, params = small_problem
    enumeration = exact.enumerate_trajectories(mdp)
    batch, states = enumeration.trajectories, np.asarray(enumeration.states)
    probabilities = np.asarray(trajectory_probabilities(tabular, params, enumeration))
    actions, alive, rewards = (np.asarray(x) for x in (batch.actions, batch.alive, batch.rewards))
    g = np.zeros_like(rewards)
    following = np.zeros_like(rewards[0])
    for t in reversed(range(HORIZON)):
        g[t] = following = rewards[t] + DISCOUNT * following
    scores = np.asarray(score_table(tabular, params, mdp))[states, actions]
    return np.where(alive, probabilities[None], 0.0), scores, g, states, actions


@pytest.fixture(scope="module")
def decompose(small_problem):
    mdp, params = small_problem
    program = jax.jit(
        lambda baseline, **options: exact.variance_decomposition(
            tabular, params, mdp, baseline=baseline, discount=DISCOUNT, **options
        ),
        static_argnames=("estimate", "time_weights", "matrices"),
    )

    def decompose(baseline=BASELINE[:, :, None], matrices=True, **options):
        wide = jnp.asarray(np.broadcast_to(baseline, (HORIZON, STATES, 2)))
        return program(wide, matrices=matrices, **options)

    return decompose


def moments(weights, values):
    """Mean [P] and covariance [P, P] of rows drawn with `weights`."""
    weights = weights / weights.sum()
    mean = np.einsum("tn,tnp->p", weights, values)
    return mean, np.einsum("tn,tni,tnj->ij", weights, values - mean, values - mean)


@pytest.mark.parametrize("time_weights", ["none", "discount"])
def test_parts_sum_to_the_enumerated_variance(visits, decompose, time_weights):
    weights, scores, g, states, _ = visits
    weights = weights * (DISCOUNT ** np.arange(HORIZON) if time_weights == "discount" else np.ones(HORIZON))[:, None]
    mean, covariance = moments(weights, scores * (g - BASELINE[np.arange(HORIZON)[:, None], states])[..., None])
    found = decompose(time_weights=time_weights)
    np.testing.assert_allclose(found.mean, mean, atol=1e-13)
    np.testing.assert_allclose(found.total, covariance, atol=1e-13)
    for name in ("state", "action", "trajectory", "total"):
        matrix = np.asarray(getattr(found, name))
        assert np.min(np.linalg.eigvalsh(matrix)) > -1e-14 and np.trace(matrix) > 1e-3, name


def test_each_part_is_the_variance_it_names(small_problem, visits, decompose):
    """Σ_τ from the spread of G_t given (t, s, a), Σ_a and Σ_s from the means given (t, s, a) and given (t, s)."""
    weights, scores, g, states, actions = visits
    values = scores * (g - BASELINE[np.arange(HORIZON)[:, None], states])[..., None]

    def conditional_means(*keys):
        _, group = np.unique(np.stack([np.ravel(key) for key in keys]), axis=1, return_inverse=True)
        group = group.ravel()
        flat, mass = values.reshape(-1, values.shape[-1]), np.bincount(group, weights.ravel())
        sums = np.stack([np.bincount(group, weights.ravel() * column) for column in flat.T], axis=-1)
        return (sums / np.where(mass > 0, mass, 1.0)[:, None])[group].reshape(values.shape)

    steps = np.broadcast_to(np.arange(HORIZON)[:, None], states.shape)
    by_action, by_state = conditional_means(steps, states, actions), conditional_means(steps, states)
    found = decompose()
    np.testing.assert_allclose(found.trajectory, moments(weights, values - by_action)[1], atol=1e-13)
    np.testing.assert_allclose(found.action, moments(weights, by_action - by_state)[1], atol=1e-13)
    np.testing.assert_allclose(found.state, moments(weights, by_state)[1], atol=1e-13)


def test_traces_are_those_of_the_matrices(decompose):
    for trace, matrix in zip(decompose(matrices=False)[:4], decompose()[:4]):
        np.testing.assert_allclose(trace, np.trace(matrix), rtol=1e-12)


def test_a_state_baseline_changes_the_part_of_the_action_alone(small_problem, decompose):
    with_one, without = decompose(), decompose(0.0)
    np.testing.assert_allclose(with_one.state, without.state, atol=1e-14)
    np.testing.assert_allclose(with_one.trajectory, without.trajectory, atol=1e-14)
    assert abs(np.trace(with_one.action) / np.trace(without.action) - 1) > 0.1
    mdp, params = small_problem
    q = exact.action_values(mdp, policy_probabilities(tabular, params, mdp), DISCOUNT)
    dependent = decompose(0.5 * q)  # twin: one of the action, uncorrected, moves the state's part
    np.testing.assert_allclose(dependent.state, without.state / 4, atol=1e-14)


def test_better_estimates_leave_parts_out(decompose):
    usual, valued, summed = decompose(), decompose(estimate="action_value"), decompose(estimate="all_action")
    for left_out in (valued.trajectory, summed.trajectory, summed.action):
        np.testing.assert_array_equal(left_out, 0.0)
    for found in (valued, summed):
        np.testing.assert_allclose(found.state, usual.state, atol=1e-14)
        np.testing.assert_allclose(found.mean, usual.mean, atol=1e-14)
    np.testing.assert_allclose(valued.action, usual.action, atol=1e-14)
    np.testing.assert_allclose(summed.total, usual.state, atol=1e-14)


def test_mean_is_the_gradient_over_the_expected_length(small_problem, decompose):
    mdp, params = small_problem
    d = exact.visitation(mdp, policy_probabilities(tabular, params, mdp))
    length = np.sum(DISCOUNT ** np.arange(HORIZON) * np.sum(d, axis=1))
    gradient = np.ravel(exact_gradient(tabular, params, mdp, DISCOUNT))
    np.testing.assert_allclose(decompose(time_weights="discount").mean, gradient / length, atol=1e-14)
    assert np.max(np.abs(decompose().mean - gradient / length)) > 1e-3  # twin: no γᵗ


def test_variance_of_the_return(small_problem, visits):
    """Var(G_t | s, a) of a first step from E[G²] − Q²; twin: the spread of what follows is not forgotten."""
    mdp, params = small_problem
    weights, _, g, states, actions = visits
    policy = policy_probabilities(tabular, params, mdp)
    found = np.asarray(exact.return_variances(mdp, policy, DISCOUNT))
    here = (states[0] == 2) & (actions[0] == 1)
    chances = weights[0][here] / weights[0][here].sum()
    expected = chances @ g[0][here] ** 2 - (chances @ g[0][here]) ** 2
    np.testing.assert_allclose(found[0, 2, 1], expected, rtol=1e-12)
    assert found[-1, 2, 1] < 0.9 * expected
    assert np.all(found[:, -1] == 0) and np.all(found[:, :-1] > 0)


def test_unknown_conventions_are_refused(small_problem):
    mdp, params = small_problem
    with pytest.raises(ValueError, match="estimate must be one of 'return', 'action_value', 'all_action'"):
        exact.variance_decomposition(tabular, params, mdp, estimate="advantage")
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\]"):
        exact.variance_decomposition(tabular, params, mdp, discount=1.1)
