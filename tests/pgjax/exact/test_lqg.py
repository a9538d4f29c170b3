"""Linear-quadratic-Gaussian problems: every closed form against Gauss–Hermite enumeration, and against samples.

All quantities are polynomials of Gaussians, so a grid of 4 nodes per number (3 where the degree is below 6) integrates
them exactly: an enumeration with weights, not an approximation.
"""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments, rollouts
from pgjax import exact as lqg
from pgjax.environments.linear_gaussian import make_lqg, make_lqg_policy, time_step
from pgjax.exact.lqg import closed_forms as closed_forms_module
from pgjax.exact.lqg import quadratics

SHAPES = {"one action, three steps": (2, 1, 3), "two actions, two steps": (2, 2, 2)}


def symmetric(draw, size, scale):
    root = draw((size, size)) * scale
    return root @ root.T


def draw_problem(states, actions, horizon, feedback=True, seed=0):
    """A dense random problem with correlated noise everywhere, and a policy for it."""
    draw = np.random.default_rng(seed).standard_normal
    problem = lqg.make_linear_gaussian(
        transition=0.6 * draw((states, states)),
        control=draw((states, actions)),
        state_cost=symmetric(draw, states, 0.6),
        action_cost=symmetric(draw, actions, 0.6),
        initial_mean=draw((states,)),
        initial_covariance=symmetric(draw, states, 0.5),
        noise_covariance=symmetric(draw, states, 0.4),
        discount=0.9,
        horizon=horizon,
    )
    gains = 0.4 * draw((horizon, actions, states)) if feedback else 0.0
    covariance = symmetric(draw, actions, 0.5) + 0.1 * np.eye(actions)
    return problem, lqg.linear_gaussian_policy(problem, draw((horizon, actions)), covariance, gains)


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


@jax.jit
def closed_forms(problem, policy, lambda_):
    of = problem, policy, lambda_
    return lqg.linear_gaussian_variances(*of), lqg.linear_gaussian_values(*of)


@jax.jit
def objective_and_gradient(problem, policy):
    return lqg.linear_gaussian_objective(problem, policy), lqg.linear_gaussian_gradient(problem, policy)


@functools.cache
def case(name):
    problem, policy = draw_problem(*SHAPES[name])
    return problem, policy, enumerate_episodes(problem, policy)


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


def test_environment_conforms_and_shows_the_time():
    env = environments.make("lqg")
    report = environments.check(env, num_steps=20, num_lanes=4)
    assert report.terminations == 0 and report.random_reset and report.random_step
    state, obs = env.reset(jax.random.key(0), env.params)
    step = jax.jit(env.step)
    for t in range(100):
        assert int(time_step(obs, 100)) == t == int(state.time)
        state, seen = step(jax.random.key(t), state, jnp.zeros(2), env.params)
        obs = seen.obs
    assert not bool(seen.terminated)


def test_sampled_episodes_have_the_closed_form_mean():
    with jax.enable_x64(True):
        problem, policy, _ = case("one action, three steps")
        truth = float(lqg.linear_gaussian_objective(problem, policy))
        environment = make_lqg(problem)
        agent = make_lqg_policy(problem, float(policy.covariance[0, 0]) ** 0.5, feedback=True)
        params = {"means": np.asarray(policy.means, np.float32), "gains": np.asarray(policy.gains, np.float32)}
    run = jax.jit(lambda keys: rollouts.episodes(environment, agent, params, keys))
    trajectory = run(jax.random.split(jax.random.key(0), 20_000))
    assert bool(trajectory.truncated[-1].all()) and not bool(trajectory.terminated.any())

    def z_score(rewards):
        returns = (0.9 ** np.arange(3.0)[:, None] * np.asarray(rewards, np.float64)).sum(axis=0)
        return (returns.mean() - truth) / (returns.std() / math.sqrt(len(returns)))

    assert abs(z_score(trajectory.rewards)) < 4.5
    paid_late = jnp.concatenate([trajectory.rewards[1:], trajectory.rewards[:1]])
    assert abs(z_score(paid_late)) > 10


def test_open_loop_policy_starts_at_zero_and_reads_its_step():
    problem, _ = draw_problem(2, 2, 3)
    policy = make_lqg_policy(problem, 0.5)
    params = policy.init(jax.random.key(0), jnp.zeros(3))
    assert params.keys() == {"means"} and params["means"].shape == (3, 2)
    outputs = policy.apply({"means": jnp.arange(6.0).reshape(3, 2)}, jnp.array([9.0, 9.0, 2 / 3]))
    np.testing.assert_allclose(outputs.mean, [4.0, 5.0])
    np.testing.assert_allclose(outputs.log_std, np.log([0.5, 0.5]), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.5}, "discount must be in"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"state_cost": np.ones((3, 3))}, r"state_cost has shape \(3, 3\), must be \(4, 4\)"),
        ({"noise_covariance": -np.eye(4)}, "noise_covariance has the eigenvalue -1"),
        ({"action_cost": np.array([[1.0, 2.0], [0.0, 1.0]])}, "action_cost must be finite and symmetric"),
        ({"unknown": 1.0}, "missing or unknown: unknown"),
    ],
)
def test_a_wrong_problem_is_refused(change, message):
    fields = {field.name: getattr(lqg.point_mass(), field.name) for field in dataclasses.fields(lqg.LinearGaussian)}
    with pytest.raises(ValueError, match=message):
        lqg.make_linear_gaussian(**fields | change)


def test_wrong_policies_are_refused():
    problem = lqg.point_mass(5)
    with pytest.raises(ValueError, match="covariance has shape"):
        lqg.linear_gaussian_policy(problem, 0.0, 1.0)
    with pytest.raises(ValueError, match="scale must be positive"):
        make_lqg_policy(problem, 0.0)
    with pytest.raises(ValueError, match="lambda_ must be in"):
        lqg.linear_gaussian_values(problem, lqg.linear_gaussian_policy(problem, 0.0, np.eye(2)), 2.0)
