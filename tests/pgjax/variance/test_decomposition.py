"""The decomposition by restarts against dynamic programming on a tabular MDP and the closed forms of LQG."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import random_mdp
from policies import TABULAR

from pgjax import exact
from pgjax.distributions import categorical
from pgjax.environments.linear_gaussian import make_lqg, make_lqg_policy
from pgjax.types import Box, Discrete, Environment, Policy, Step
from pgjax.variance import decomposition, restarts
from pgjax.variance.decomposition import variance_decomposition
from pgjax.variance.restarts import VisitedStates, restarted_return, visited_states

NAMES = ("trajectory", "action", "state", "squared_mean")
DISCOUNT = 0.9
PARAMS = np.random.default_rng(1).standard_normal((4, 2)).astype(np.float32)
BASELINE = jnp.array([0.3, -1.0, 2.0, 5.0])
STATES = 20_000


def baseline(obs):
    return obs @ BASELINE


@pytest.fixture(scope="module")
def tabular():
    """A random MDP (S 4, A 2, K 2, T 4) whose episodes differ in length, as an environment and with its policy."""
    mdp = random_mdp(3, 4, 2, 2, 4)
    return mdp, exact.to_environment(mdp), TABULAR


def exact_terms(mdp, subtracted):
    """Σ_τ, Σ_a, Σ_s and ‖E ψ w‖² by dynamic programming on the first two moments of the return, in float64."""
    probabilities, rewards, successors, terminal = (
        np.asarray(x) for x in (mdp.probabilities, mdp.rewards, mdp.successors, mdp.terminal)
    )
    logits = PARAMS.astype(np.float64)
    policy = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    # Row (s, a): the gradient with respect to the table, [S, A, S·A].
    scores = np.einsum("su,ab->saub", np.eye(4), np.eye(2)) - np.einsum("su,sb->sub", np.eye(4), policy)[:, None]
    scores = scores.reshape(4, 2, 8)
    first, second = np.zeros(4), np.zeros(4)
    moments = []
    for _ in range(mdp.horizon):
        ahead, ahead_square = first[successors], second[successors]
        q = np.sum(probabilities * (rewards + DISCOUNT * ahead), axis=-1)
        square = rewards**2 + 2 * DISCOUNT * rewards * ahead + DISCOUNT**2 * ahead_square
        u = np.sum(probabilities * square, axis=-1)
        moments.append((q, u - q**2))
        first = np.where(terminal, 0.0, np.sum(policy * q, axis=1))
        second = np.where(terminal, 0.0, np.sum(policy * u, axis=1))
    visits = np.asarray(exact.visitation(mdp, jnp.asarray(policy, jnp.float32)), np.float64)
    visits = visits / visits.sum()
    trajectory = action = 0.0
    means = []
    for (q, spread), visit in zip(moments[::-1], visits):
        joint, error = visit[:, None] * policy, q - subtracted[:, None]
        squares = np.sum(scores**2, axis=-1)
        mean = np.sum((policy * error)[..., None] * scores, axis=1)
        trajectory += np.sum(joint * squares * spread)
        action += np.sum(joint * squares * error**2) - np.sum(visit * np.sum(mean**2, axis=-1))
        means.append(mean)
    means = np.array(means)
    squared_mean = np.sum(np.einsum("ts,tsp->p", visits, means) ** 2)
    state = np.sum(visits * np.sum(means**2, axis=-1)) - squared_mean
    return dict(zip(NAMES, (trajectory, action, state, squared_mean))) | {"total": trajectory + action + state}


def z_score(estimate, truth):
    return abs(float((estimate.value - truth) / estimate.stderr))


@pytest.fixture(scope="module")
def exact_tables(tabular):
    mdp, *_ = tabular
    return {False: exact_terms(mdp, np.zeros(4)), True: exact_terms(mdp, np.asarray(BASELINE, np.float64))}


def decompose(tabular, environment=None, **options):
    _, own, policy = tabular
    options = {"discount": DISCOUNT, "baseline": baseline, "states_per_piece": 7000} | options
    return variance_decomposition(environment or own, policy, PARAMS, jax.random.key(0), STATES, **options)


@pytest.fixture(scope="module")
def found(tabular):
    return decompose(tabular)


def test_tabular_terms_are_those_of_dynamic_programming(found, exact_tables):
    for name, truth in exact_tables[True].items():
        estimate = getattr(found, name)
        assert z_score(estimate, truth) < 4.5, (name, estimate, truth)
        assert float(estimate.stderr) < 0.2 * abs(truth), name
        assert float(estimate.low) < float(estimate.value) < float(estimate.high)


def test_a_baseline_of_the_state_moves_the_action_term_alone(found, exact_tables):
    """What was measured with the baseline is what dynamic programming says without it, Σ_a apart."""
    for name in ("trajectory", "state", "squared_mean"):
        assert exact_tables[True][name] == pytest.approx(exact_tables[False][name], rel=1e-10)
        assert z_score(getattr(found, name), exact_tables[False][name]) < 4.5
    assert z_score(found.action, exact_tables[False]["action"]) > 10


def test_sharing_the_future_is_caught(tabular, exact_tables, monkeypatch):
    """Both futures of an action under one key: Σ_τ is 0 and Σ_a has swallowed it."""
    own = decomposition._future_keys
    monkeypatch.setattr(decomposition, "_future_keys", lambda key: own(key)[:, jnp.array([0, 0])])
    fresh = dataclasses.replace(tabular[1])  # a new record, so that nothing compiled before is used again
    shared = decompose(tabular, fresh)
    truth = exact_tables[True]
    assert float(shared.trajectory.value) == 0.0
    assert z_score(shared.action, truth["action"]) > 10
    assert z_score(shared.action, truth["action"] + truth["trajectory"]) < 4.5


def test_visited_states_have_the_normalised_visitation(tabular):
    """Weighted, the frequencies are d_t(s) / E[L]; one equal vote per episode would favour the short ones."""
    mdp, environment, policy = tabular
    visits = jax.jit(lambda key: visited_states(environment, policy, PARAMS, key, STATES))(jax.random.key(1))
    occupancy = np.asarray(exact.visitation(mdp, jax.nn.softmax(PARAMS)))
    cell = np.asarray(visits.time) * 4 + np.asarray(visits.state.index)

    def worst_z(weights):
        weights = np.asarray(weights, np.float64) / np.mean(weights)
        truth = (occupancy / occupancy.sum()).ravel()
        possible = np.flatnonzero(truth)
        assert np.isin(cell, possible).all()
        errors = weights[:, None] * ((cell[:, None] == possible) - truth[possible])
        return np.max(np.abs(errors.mean(axis=0) / (errors.std(axis=0) / len(cell) ** 0.5)))

    assert worst_z(visits.weight) < 4.5
    assert worst_z(np.ones(STATES)) > 10
    assert abs(float(jnp.mean(visits.weight)) / occupancy.sum() - 1) < 0.02


def counting_environment():
    """Pays 1 a step; ends by itself only after an action 1."""
    zero = jnp.zeros((), jnp.float32)

    def step(key, state, action, params):
        return state + 1.0, Step(obs=state[None] + 1.0, reward=jnp.ones(()), terminated=action == 1)

    return Environment(
        name="counting",
        reset=lambda key, params: (zero, zero[None]),
        step=step,
        params=(),
        observation_space=Box(low=0.0, high=9.0, shape=(1,)),
        action_space=Discrete(2),
        horizon=6,
    )


def test_a_restart_has_the_steps_that_were_left():
    """T − t of them, discounted from t; and one if the action ends it."""
    environment = counting_environment()
    policy = Policy(init=None, apply=lambda params, obs: params, distribution=categorical)
    keep_on, end = jnp.array([0.0, -jnp.inf]), jnp.array([-jnp.inf, 0.0])
    time = jnp.arange(6)
    state = time.astype(jnp.float32)
    starts = VisitedStates(state=state, obs=state[:, None], time=time, weight=jnp.ones(6))

    @jax.jit
    def future(params, action, discount):
        run = lambda start: restarted_return(
            environment, policy, params, jax.random.key(0), start, action, discount=discount
        )
        return jax.vmap(run)(starts)

    left = 6 - np.arange(6)
    np.testing.assert_array_equal(future(keep_on, 0, 1.0), left)
    np.testing.assert_allclose(future(keep_on, 0, 0.5), 2 - 2.0 ** (1 - left), rtol=1e-6)
    np.testing.assert_array_equal(future(keep_on, 1, 1.0), np.ones(6))
    np.testing.assert_array_equal(future(end, 0, 1.0), np.minimum(left, 2))

    visit = jax.jit(lambda params: visited_states(environment, policy, params, jax.random.key(0), 3, time=4))
    at_four = visit(keep_on)
    np.testing.assert_array_equal(at_four.time, [4, 4, 4])
    np.testing.assert_array_equal(at_four.weight, [1.0, 1.0, 1.0])
    np.testing.assert_array_equal(at_four.obs[:, 0], [4.0, 4.0, 4.0])
    np.testing.assert_array_equal(visit(end).weight, np.zeros(3))


@pytest.fixture(scope="module")
def linear():
    draw = np.random.default_rng(5).standard_normal
    problem = exact.make_linear_gaussian(
        transition=0.6 * draw((2, 2)),
        control=draw((2, 1)),
        state_cost=np.diag([1.0, 0.5]),
        action_cost=np.array([[0.3]]),
        initial_mean=draw((2,)),
        initial_covariance=0.3 * np.eye(2),
        noise_covariance=0.2 * np.eye(2),
        discount=DISCOUNT,
        horizon=5,
    )
    gains, means = 0.3 * draw((5, 1, 2)), draw((5, 1))
    policy = exact.linear_gaussian_policy(problem, means, 0.25 * np.eye(1), gains)
    full = make_lqg_policy(problem, 0.5, feedback=True)
    # The gradient with respect to the means alone, as in the closed forms.
    agent = full._replace(apply=lambda params, obs: full.apply({"means": params, "gains": policy.gains}, obs))
    return problem, policy, make_lqg(problem), agent


def test_linear_gaussian_terms_are_the_closed_forms(linear):
    """At single steps, under feedback, without a baseline; the closed form with one is a wrong twin of Σ_a."""
    problem, policy, environment, agent = linear
    truth = jax.jit(exact.linear_gaussian_variances)(problem, policy)
    for t in (1, 3):
        seen = variance_decomposition(
            environment,
            agent,
            policy.means,
            jax.random.key(t),
            STATES,
            discount=DISCOUNT,
            time=t,
            states_per_piece=STATES,
        )
        for name in NAMES:
            expected = float(getattr(truth, name)[t])
            assert z_score(getattr(seen, name), expected) < 4.5, (name, t)
        assert z_score(seen.action, float(truth.action_with_values[t])) > 5


@pytest.mark.slow
def test_pieces_do_not_change_the_result(tabular, found):
    """7 000 does not divide 20 000: the last piece is padded."""
    at_once = decompose(tabular, states_per_piece=STATES)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), at_once, found)


def test_estimates_are_u_statistics_and_their_errors_the_jackknifes(x64):
    """Against the definitions, one state left out at a time."""
    draw = np.random.default_rng(0)
    gradients, weights = draw.standard_normal((7, 3)) + 0.5, draw.integers(1, 5, 7).astype(float)
    terms = draw.standard_normal((3, 7))

    def direct(keep):
        g, w = gradients[keep], weights[keep]
        trajectory, same, other = (np.sum(w * x[keep]) / np.sum(w) for x in terms)
        products = np.outer(w, w) * (1 - np.eye(len(w)))
        norm = np.sum(products * (g @ g.T)) / np.sum(products)
        return np.array([trajectory, same - other, other - norm, trajectory + same - norm, norm])

    alignment = gradients @ (weights @ gradients)
    squared_norm = jnp.asarray(np.sum(gradients**2, axis=1))
    samples = decomposition._Samples(*map(jnp.asarray, terms), squared_norm=squared_norm)
    found = decomposition._estimates(samples, jnp.asarray(weights), jnp.asarray(alignment), 0.95)
    np.testing.assert_allclose([estimate.value for estimate in found], direct(np.arange(7)), rtol=1e-12)
    without = np.array([direct(np.delete(np.arange(7), i)) for i in range(7)])
    errors = np.sqrt(6 / 7 * np.sum((without - without.mean(axis=0)) ** 2, axis=0))
    np.testing.assert_allclose([estimate.stderr for estimate in found], errors, rtol=1e-10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_states": 2}, "num_states must be at least 3"),
        ({"discount": 1.1}, "discount must be in"),
        ({"time": 4}, r"time must be in \[0, 3\]"),
        ({"states_per_piece": 0}, "states_per_piece must be at least 1"),
        ({"confidence": 1.0}, "confidence must lie strictly between 0 and 1"),
    ],
)
def test_numbers_out_of_range_are_refused(tabular, options, message):
    _, environment, policy = tabular
    with pytest.raises(ValueError, match=message):
        variance_decomposition(environment, policy, PARAMS, jax.random.key(0), **{"num_states": 3} | options)
    assert restarts.check_time(environment, 3) is None
