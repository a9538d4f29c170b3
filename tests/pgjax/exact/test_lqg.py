"""Linear-quadratic-Gaussian problems: every closed form against Gauss–Hermite enumeration, and against samples.

All quantities are polynomials of Gaussians, so a grid of 4 nodes per number (3 where the degree is below 6) integrates
them exactly: an enumeration with weights, not an approximation.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_lqg import SHAPES, draw_problem

from pgjax import exact as lqg
from pgjax.exact.lqg import closed_forms as closed_forms_module
from pgjax.exact.lqg import quadratics


def nodes(covariance, count):
    """Points `[count**n, n]` and weights of N(0, covariance)."""
    x, weights = np.polynomial.hermite_e.hermegauss(count)
    grids = np.meshgrid(*[x] * len(covariance), indexing="ij")
    masses = np.meshgrid(*[weights / weights.sum()] * len(covariance), indexing="ij")
    points = np.stack([grid.ravel() for grid in grids], axis=-1)
    return points @ np.linalg.cholesky(covariance).T, np.prod([mass.ravel() for mass in masses], axis=0)


@dataclasses.dataclass
class Enumerated:
    """All episodes as one tensor: axes X_0, then A_0, W_0, A_1, W_1, …; the last noise is never seen."""

    states: list
    actions: list
    rewards: list
    scores: list
    weights: list

    def mean(self, x, given):
        """E[x | the first `given` axes], the others kept with length 1."""
        for axis in range(given, len(self.weights)):
            shape = [1] * len(self.weights)
            shape[axis] = -1
            extra = x.ndim - len(self.weights)
            x = np.sum(x * self.weights[axis].reshape(shape + [1] * extra), axis=axis, keepdims=True)
        return x


def enumerate_episodes(problem, policy, pays_next_state=False):
    get = lambda name: np.asarray(getattr(problem, name))
    a, b, q, r = (get(name) for name in ("transition", "control", "state_cost", "action_cost"))
    means, gains, covariance = map(np.asarray, policy)
    steps = problem.horizon
    kinds = [(get("initial_covariance"), 3)]
    kinds += [(covariance, 4) if i % 2 == 0 else (get("noise_covariance"), 3) for i in range(2 * steps - 1)]
    grids = [nodes(*kind) for kind in kinds]

    def along(axis):
        points = grids[axis][0]
        return points.reshape([1] * axis + [len(points)] + [1] * (len(grids) - axis - 1) + [points.shape[-1]])

    form = lambda x, matrix: np.einsum("...i,ij,...j->...", x, matrix, x)
    found = Enumerated(states=[], actions=[], rewards=[], scores=[], weights=[weights for _, weights in grids])
    x = get("initial_mean") + along(0)
    for t in range(steps):
        noise = along(2 * t + 1)
        action = x @ gains[t].T + means[t] + noise
        following = x @ a.T + action @ b.T + (along(2 * t + 2) if t + 1 < steps else 0.0)
        found.states.append(x)
        found.actions.append(action)
        found.rewards.append(-form(following if pays_next_state else x, q) - form(action, r))
        found.scores.append(noise @ np.linalg.inv(covariance).T)
        x = following
    return found


def enumerated_variances(found, discount, lambda_, t):
    """Σ_τ, Σ_a⁰, Σ_a^V, Σ_s, ‖E ψĜ‖² of step t, V_t and Q_t, by averaging the tensor and nothing else."""
    steps, at_state, at_action = len(found.rewards), 2 * t + 1, 2 * t + 2
    monte_carlo, estimate = 0.0, 0.0
    for i in reversed(range(t, steps)):
        value = found.mean(np.asarray(monte_carlo), 2 * i + 3) if i + 1 < steps else 0.0
        monte_carlo = found.rewards[i] + discount * monte_carlo
        estimate = found.rewards[i] + discount * ((1 - lambda_) * value + lambda_ * estimate)
    action_value, state_value = found.mean(monte_carlo, at_action), found.mean(monte_carlo, at_state)
    score = found.scores[t]
    square = np.sum(score**2, axis=-1)

    def action_part(q):
        mean = found.mean(score * q[..., None], at_state)
        return found.mean(square * q**2, 0) - found.mean(np.sum(mean**2, axis=-1), 0)

    per_state = found.mean(score * action_value[..., None], at_state)
    overall = found.mean(per_state, 0)
    return {
        "trajectory": found.mean(square * (estimate - action_value) ** 2, 0),
        "action": action_part(action_value),
        "action_with_values": action_part(action_value - state_value),
        "state": found.mean(np.sum((per_state - overall) ** 2, axis=-1), 0),
        "squared_mean": np.sum(overall**2, axis=-1),
        "state_value": state_value,
        "action_value": action_value,
    }


@functools.cache
def case(name):
    problem, policy = draw_problem(*SHAPES[name])
    return problem, policy, enumerate_episodes(problem, policy)


@jax.jit
def closed_forms(problem, policy, lambda_):
    of = problem, policy, lambda_
    return lqg.linear_gaussian_variances(*of), lqg.linear_gaussian_values(*of)


@jax.jit
def objective_and_gradient(problem, policy):
    return lqg.linear_gaussian_objective(problem, policy), lqg.linear_gaussian_gradient(problem, policy)


@pytest.mark.parametrize("lambda_", [1.0, 0.3])
@pytest.mark.parametrize("name", list(SHAPES))
def test_values_and_variances_are_those_of_enumeration(x64, name, lambda_):
    problem, policy, found = case(name)
    terms, known = closed_forms(problem, policy, lambda_)
    for t in range(problem.horizon):
        expected = enumerated_variances(found, 0.9, lambda_, t)
        for field in lqg.LinearGaussianVariances._fields:
            ours, theirs = float(getattr(terms, field)[t]), expected[field].item()
            assert ours == pytest.approx(theirs, rel=1e-10, abs=1e-11), (field, t)
        x = found.states[t]
        a = found.actions[t]
        z = np.concatenate([np.broadcast_to(x, (*a.shape[:-1], x.shape[-1])), a], axis=-1)
        at = lambda quadratic, t=t: jax.tree.map(lambda leaf: leaf[t], quadratic)
        np.testing.assert_allclose(at(known.state)(x), expected["state_value"], rtol=1e-10, atol=1e-10)
        np.testing.assert_allclose(at(known.action)(z), expected["action_value"], rtol=1e-10, atol=1e-10)


def test_wrong_twins_are_not_those_of_enumeration(x64, monkeypatch):
    """Paying for X_{t+1}; a triple moment without its third cumulant; a variance without 2 tr(MSMS)."""
    problem, policy, found = case("one action, three steps")
    paid_late = enumerated_variances(enumerate_episodes(problem, policy, pays_next_state=True), 0.9, 1.0, 1)
    right = enumerated_variances(found, 0.9, 1.0, 1)
    assert all(abs(paid_late[k].item() / right[k].item() - 1) > 0.05 for k in ("trajectory", "action", "state"))

    def no_third(mean, covariance, *q):
        if len(q) < 3:
            return quadratics.moment(mean, covariance, *q)
        one = [quadratics.moment(mean, covariance, x) for x in q]
        two = lambda i, j, k: quadratics.moment(mean, covariance, q[i], q[j]) * one[k]
        return two(0, 1, 2) + two(0, 2, 1) + two(1, 2, 0) - 2 * one[0] * one[1] * one[2]

    def first_order(q, covariance):
        return quadratics.variance(q, covariance)._replace(constant=q.vector @ covariance @ q.vector)

    monkeypatch.setattr(closed_forms_module, "moment", no_third)
    monkeypatch.setattr(closed_forms_module, "variance", first_order)
    wrong = jax.jit(lambda *of: lqg.linear_gaussian_variances(*of))(problem, policy)
    # Σ_a is a triple moment and uses no conditional variance; Σ_τ is a moment of two and uses it.
    assert abs(float(wrong.action_with_values[1]) / right["action_with_values"].item() - 1) > 0.05
    assert abs(float(wrong.trajectory[1]) / right["trajectory"].item() - 1) > 0.05


def test_gradient_is_the_slope_of_the_objective_and_the_mean_of_the_estimates(x64):
    problem, policy, _ = case("two actions, two steps")
    slope = objective_and_gradient(problem, policy)[1]
    draw = np.random.default_rng(2).standard_normal
    for _ in range(4):
        direction = jax.tree.map(lambda leaf: draw(leaf.shape), policy)
        direction = direction._replace(covariance=direction.covariance + direction.covariance.T)

        def moved(step, direction=direction):
            return objective_and_gradient(problem, jax.tree.map(lambda p, d: p + step * d, policy, direction))[0]

        finite = (8 * (moved(1e-3) - moved(-1e-3)) - (moved(2e-3) - moved(-2e-3))) / 12e-3
        along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: jnp.sum(g * d), slope, direction)))
        assert float(along) == pytest.approx(float(finite), rel=1e-8)

    squared_mean = np.asarray(closed_forms(problem, policy, 1.0)[0].squared_mean)
    np.testing.assert_allclose(np.sum(slope.means**2, axis=1), [1.0, 0.9**2] * squared_mean, rtol=1e-10)  # γ²ᵗ


def test_objective_is_that_of_the_forward_moments(x64):
    problem, policy, _ = case("two actions, two steps")
    means, covariances = map(np.asarray, lqg.linear_gaussian_states(problem, policy))
    total = 0.0
    for t in range(2):
        gain, mu = np.asarray(policy.gains[t]), np.asarray(policy.means[t])
        second = covariances[t] + np.outer(means[t], means[t])
        action_mean = gain @ means[t] + mu
        action_second = gain @ covariances[t] @ gain.T + policy.covariance + np.outer(action_mean, action_mean)
        total -= 0.9**t * (np.trace(problem.state_cost @ second) + np.trace(problem.action_cost @ action_second))
    assert float(objective_and_gradient(problem, policy)[0]) == pytest.approx(float(total), rel=1e-12)


def test_ordering_on_the_published_point_mass(x64):
    """Tucker et al. (2018): Σ_a⁰ ≫ Σ_τ ≫ Σ_a^V ≫ Σ_s, by nats of the trace, at every step that has a future."""
    problem = lqg.point_mass()
    for seed in range(3):
        means = 0.3**0.5 * jax.random.normal(jax.random.key(seed), (problem.horizon, 2), float)  # .3 is the variance
        policy = lqg.linear_gaussian_policy(problem, means, 1e-4 * jnp.eye(2))
        terms = closed_forms(problem, policy, 1.0)[0]
        ladder = np.array([terms.action, terms.trajectory, terms.action_with_values, terms.state])
        gaps = -np.diff(np.log(ladder[:, :-1]), axis=0)
        assert (gaps > 5.0).all(), gaps.min(axis=1)
        assert ladder[1, -1] == 0.0 and ladder[3, -1] == 0.0  # nothing varies after, or depends on x, at the last step
        bootstrapped = closed_forms(problem, policy, 0.0)[0].trajectory
        assert (bootstrapped[:-2] < terms.trajectory[:-2]).all()


def test_point_mass_is_the_published_one():
    problem = lqg.point_mass()
    x = np.array([1.0, 2.0, 3.0, 4.0])
    np.testing.assert_allclose(problem.transition @ x, [1.15, 2.2, 3.0, 4.0], rtol=1e-6)
    np.testing.assert_allclose(problem.control @ np.array([2.0, 4.0]), [0.0, 0.0, 0.1, 0.2], rtol=1e-6)
    assert (problem.horizon, float(problem.discount)) == (100, pytest.approx(0.99))
