"""Baselines of least variance: the learned number is the argmin of the exact variance, and using it biases nothing.

Batches in which every trajectory appears as often as it is probable make one update an exact expectation.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR, tabular

from pgjax import baselines, environments, estimators, exact, training
from pgjax.distributions import categorical
from pgjax.types import Policy

BANDIT = Policy(init=lambda key, obs: jnp.zeros(3), apply=lambda params, obs: params, distribution=categorical)


class Problem:
    """Two states and an end that one action reaches early; action probabilities are multiples of 1/8."""

    def __init__(self, horizon):
        self.mdp = exact.make_tabular_mdp(
            initial=[0.5, 0.5, 0.0],
            successors=[[[1], [0]], [[0], [2]], [[2], [2]]],
            probabilities=np.ones((3, 2, 1)),
            rewards=[[[1.0], [-2.0]], [[0.5], [4.0]], [[0.0], [0.0]]],
            terminal=[False, False, True],
            horizon=horizon,
        )
        self.params = np.array([[np.log(3.0), 0.0], [0.0, np.log(7.0)], [0.0, 0.0]])
        self.enumeration = exact.enumerate_trajectories(self.mdp)
        self.batch = self.enumeration.trajectories
        probabilities = jax.jit(lambda theta: exact.trajectory_probabilities(tabular, theta, self.enumeration))
        self.probabilities = probabilities(self.params)
        counts = np.asarray(self.probabilities) * 2 * 8**horizon
        np.testing.assert_allclose(counts, counts.round(), atol=1e-9)
        indices = np.repeat(np.arange(counts.size), counts.round().astype(int))
        self.fair = jax.jit(exact.select_episodes)(self.batch, indices)
        self.objective, self.gradient = jax.jit(
            jax.value_and_grad(lambda theta: exact.objective(tabular, theta, self.mdp))
        )(self.params)

    def moments(self, rule, baseline, state=None):
        estimator = estimators.make_estimator(TABULAR, returns=rule(), baseline=baseline)
        state = estimator.init(jax.random.key(0), self.batch) if state is None else state

        @jax.jit
        def measure(state):
            return exact.moments_of(estimator.episode_gradients(self.params, state, self.batch), self.probabilities)

        return jax.tree.map(np.asarray, measure(state))

    def variance_of(self, rule, baseline_of):
        """tr Var as a compiled function of the numbers in a baseline."""

        @jax.jit
        def variance(numbers):
            estimator = estimators.make_estimator(TABULAR, returns=rule(), baseline=baseline_of(numbers))
            each = estimator.episode_gradients(self.params, (), self.batch)
            return exact.moments_of(each, self.probabilities).total_variance

        return variance

    def learned(self, rule, baseline):
        """The state after one look at the exact distribution."""
        estimator = estimators.make_estimator(TABULAR, returns=rule(), baseline=baseline)
        state = estimator.init(jax.random.key(0), self.fair)
        return jax.tree.map(np.asarray, jax.jit(estimator.gradient)(self.params, state, self.fair)[1])


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        yield Problem(2)


@pytest.fixture(scope="module")
def one_step():
    with jax.enable_x64(True):
        yield Problem(1)


STATE = lambda obs: jnp.argmax(obs)
OPTIMAL = {
    "constant": baselines.optimal_constant,
    "time": baselines.optimal_time_dependent,
    "state": lambda decay=0.9, norm="vanilla": baselines.optimal_state(STATE, 3, decay, norm),
}
RULES = {"G_1": estimators.total_return, "G_t": estimators.reward_to_go}


@pytest.mark.parametrize(("name", "rule"), [("constant", "G_1"), ("time", "G_t"), ("state", "G_t")])
def test_unbiased_whatever_was_learned(float64, problem, name, rule):
    baseline = OPTIMAL[name](0.3)
    state = problem.learned(RULES[rule], baseline)
    assert all((np.asarray(x) != 0).any() for x in state)
    got = problem.moments(RULES[rule], baseline, state).mean
    np.testing.assert_allclose(got, problem.gradient, atol=1e-10)


def test_the_constant_is_the_argmin_of_the_exact_variance(float64, problem):
    """With G_1: tr Var(b) = tr Var(b*) + (b − b*)² E‖S‖²; the mean return, the usual baseline, is not b*."""
    rule = estimators.total_return
    state = problem.learned(rule, baselines.optimal_constant(0.0))
    best = state.weighted / state.norms
    variance = problem.variance_of(rule, baselines.constant)
    least = variance(best)
    for shift in (-1.0, 0.7):
        np.testing.assert_allclose(variance(best + shift) - least, shift**2 * state.norms, atol=1e-10)
    objective = problem.objective
    assert abs(best - objective) > 0.3 and variance(objective) > 1.02 * least
    got = problem.moments(rule, baselines.optimal_constant(0.0), state)
    np.testing.assert_allclose(got.total_variance, least, atol=1e-10)


def test_long_episodes_do_not_count_twice(float64, problem):
    """The wrong twin sums ‖S‖² over the rows of an episode: off, because episodes have two lengths here."""
    scores = exact_scores(problem)
    total = np.asarray(problem.fair.rewards.sum(axis=0))
    norms = (scores**2).sum(axis=(0, 1))
    wanted = (norms * total).mean() / norms.mean()
    state = problem.learned(estimators.total_return, baselines.optimal_constant(0.0))
    np.testing.assert_allclose(state.weighted / state.norms, wanted, atol=1e-10)
    lengths = np.asarray(problem.fair.alive.sum(axis=0))
    wrong = (lengths * norms * total).mean() / (lengths * norms).mean()
    assert abs(wrong - wanted) > 0.05


def exact_scores(problem):
    """S = Σ_t ψ_t of every episode of the fair batch by hand, `[states, actions, B]`."""
    obs, actions, alive = (np.asarray(x) for x in (problem.fair.obs, problem.fair.actions, problem.fair.alive))
    p = np.asarray(jax.nn.softmax(problem.fair.obs @ problem.params))
    psi = obs[..., :, None] * (np.eye(2)[actions] - p)[..., None, :] * alive[..., None, None]
    return psi.sum(axis=0).transpose(1, 2, 0)


@pytest.mark.parametrize("name", OPTIMAL)
def test_the_one_step_rule_minimises_each_term(float64, problem, name):
    """Σ_t E‖ψ_t (G_t − b)‖² has gradient 0 in every number of the learned table, and 2 E‖ψ‖² ε at distance ε."""
    rule = estimators.reward_to_go
    state = jax.tree.map(np.atleast_1d, problem.learned(rule, OPTIMAL[name](0.0)))
    table = np.where(state.norms > 0, state.weighted / np.where(state.norms > 0, state.norms, 1), 0)
    fair = jax.tree.map(np.asarray, problem.fair)
    obs, actions, alive, rewards = fair.obs, fair.actions, fair.alive, fair.rewards
    p = np.asarray(jax.nn.softmax(problem.fair.obs @ problem.params))
    norm = ((np.eye(2)[actions] - p) ** 2).sum(axis=-1) * alive
    to_go = rewards[::-1].cumsum(axis=0)[::-1]
    index = {"state": obs.argmax(-1), "time": np.indices(actions.shape)[0], "constant": np.zeros_like(actions)}[name]

    def slope(table):
        """∂/∂table of Σ_t E‖ψ_t (G_t − b)‖²."""
        return np.bincount(index.ravel(), (-2 * norm * (to_go - table[index])).ravel(), table.size) / alive.shape[1]

    np.testing.assert_allclose(slope(table), np.zeros_like(table), atol=1e-10)
    np.testing.assert_allclose(slope(table + 0.5), state.norms, atol=1e-10)


def test_with_one_step_the_table_minimises_the_variance_itself(float64, one_step):
    """Weaver & Tao's number in every state, and each rung of the ladder is below the one before."""
    rule = estimators.reward_to_go
    constant, state = (one_step.learned(rule, OPTIMAL[name](0.0)) for name in ("constant", "state"))
    table = jnp.asarray([*(state.weighted[:2] / state.norms[:2]), 0.0])
    of_table = one_step.variance_of(rule, lambda table: baselines.state_values(lambda obs: obs @ table))
    least, slope = jax.jit(jax.value_and_grad(of_table))(table)
    np.testing.assert_allclose(slope, np.zeros(3), atol=1e-10)
    everywhere = [float(of_table(jnp.full(3, b))) for b in (0.0, constant.weighted / constant.norms)]
    assert everywhere[0] > 1.1 * everywhere[1] > 1.5 * least


def test_refreshing_before_use_leaves_nothing(float64, problem):
    """The wrong twin updates first: at decay 0 and one episode b = G_1, and the estimate is 0 whatever the truth is."""
    estimator = estimators.make_estimator(
        TABULAR, returns=estimators.total_return(), baseline=baselines.optimal_constant(0.0)
    )
    start = estimator.init(jax.random.key(0), problem.batch)

    def refreshed_first(trajectory):
        state = estimator.gradient(problem.params, start, trajectory)[1]
        return estimator.gradient(problem.params, state, trajectory)[0]

    each = jax.jit(jax.vmap(lambda n: refreshed_first(exact.select_episodes(problem.batch, n))))
    np.testing.assert_allclose(each(np.arange(problem.probabilities.size)[:, None]), 0.0, atol=1e-10)
    assert np.linalg.norm(problem.gradient) > 0.1


def test_running_averages_and_zero_denominators(float64, problem):
    baseline = baselines.optimal_state(STATE, 3, 0.75)
    estimator = estimators.make_estimator(TABULAR, baseline=baseline)
    state = estimator.init(jax.random.key(0), problem.fair)
    assert (baseline.predict(state, problem.fair) == 0).all()
    learn = jax.jit(lambda state, batch: estimator.gradient(problem.params, state, batch)[1])
    once = learn(state, problem.fair)
    twice = learn(once, problem.fair)
    # 1 − βⁿ of the expectation, in both: the ratio does not lag.
    np.testing.assert_allclose(twice.norms, once.norms * (1 - 0.75**2) / 0.25, rtol=1e-12)
    np.testing.assert_allclose(baseline.predict(once, problem.fair), baseline.predict(twice, problem.fair), rtol=1e-12)
    assert twice.norms[2] == 0 and twice.weighted[2] == 0
    # No episode of this batch sees state 0: its averages stay.
    elsewhere = problem.fair._replace(obs=jnp.zeros_like(problem.fair.obs).at[..., 1].set(1.0))
    kept = learn(twice, elsewhere)
    assert kept.norms[0] == twice.norms[0] and kept.norms[1] != twice.norms[1]
    # A policy that no parameter moves has no score; b stays 0 and finite.
    update = jax.jit(lambda start, norms: baseline.update(start, problem.fair._replace(score_norms=norms), norms)[0])
    stuck = update(state, jnp.zeros_like(problem.fair.rewards))
    np.testing.assert_array_equal(baseline.predict(stuck, problem.fair), np.zeros_like(problem.fair.rewards))
    # An index outside the table predicts 0 and teaches nothing, negative ones included.
    outside = baselines.optimal_state(lambda obs: jnp.argmax(obs) - 1, 1)
    sees = problem.fair._replace(score_norms=jnp.ones_like(problem.fair.rewards))
    seen, _ = outside.update(outside.init(jax.random.key(0), sees), sees, 3.0 * sees.score_norms)
    in_one = np.asarray(sees.alive) & (np.asarray(sees.obs)[..., 1] == 1)
    np.testing.assert_allclose(outside.predict(seen, sees), np.where(in_one, 3.0, 0.0), rtol=1e-12)
    np.testing.assert_allclose(seen.norms[0], 0.1 * in_one.sum() / in_one.shape[1], rtol=1e-12)


def bandit(counts):
    """Three arms pay 1, 0.7, 0 (Chung et al. 2021); a batch with the arms as often as `counts` says."""
    mdp = exact.make_tabular_mdp(
        initial=[1.0, 0.0],
        successors=np.ones((2, 3, 1), int),
        probabilities=np.ones((2, 3, 1)),
        rewards=np.broadcast_to(np.array([1.0, 0.7, 0.0])[None, :, None], (2, 3, 1)),
        terminal=[False, True],
        horizon=1,
    )
    batch = exact.enumerate_trajectories(mdp).trajectories
    return batch, exact.select_episodes(batch, jnp.asarray(np.repeat(np.arange(3), counts)))


@pytest.mark.parametrize("norm", ["vanilla", "natural"])
def test_the_three_armed_bandit_in_both_norms(float64, norm):
    """w_a = π_a ‖e_a − π‖² (vanilla) or 1/π_a (natural: ‖F⁺ψ_a‖² ∝ 1/π_a²); the released code had them swapped."""
    p = np.array([1.0, 3.0, 12.0]) / 16
    _, fair = bandit([1, 3, 12])
    baseline = baselines.optimal_constant(0.0, norm)
    estimator = estimators.make_estimator(BANDIT, returns=estimators.total_return(), baseline=baseline)
    state = jax.jit(estimator.gradient)(jnp.log(p), estimator.init(jax.random.key(0), fair), fair)[1]
    vanilla, natural = p * ((np.eye(3) - p) ** 2).sum(axis=1), 1 / p
    right, swapped = (vanilla, natural) if norm == "vanilla" else (natural, vanilla)
    mean = lambda w: (w * np.array([1.0, 0.7, 0.0])).sum() / w.sum()
    np.testing.assert_allclose(state.weighted / state.norms, mean(right), atol=1e-10)
    assert abs(mean(swapped) - mean(right)) > 0.1


def test_two_baselines_of_equal_variance(float64):
    """Chung et al. 2021 at θ = (0, 3, 5): tr Var of b = 0, v, b*, b* ± ½, by enumeration."""
    theta = jnp.asarray([0.0, 3.0, 5.0])
    p, rewards = jax.nn.softmax(theta), jnp.asarray([1.0, 0.7, 0.0])
    batch, _ = bandit([1, 1, 1])
    weights = p * jnp.sum((jnp.eye(3) - p[None]) ** 2, axis=1)
    best, value = jnp.sum(weights * rewards) / jnp.sum(weights), jnp.sum(p * rewards)
    np.testing.assert_allclose([value, best], [0.08885, 0.63166], atol=5e-6)
    # Episodes are enumerated in the order of the arms.
    np.testing.assert_array_equal(batch.actions[0], [0, 1, 2])

    @jax.jit
    def variance(b, epsilon):
        baseline = baselines.shifted(baselines.constant(b), epsilon)
        estimator = estimators.make_estimator(BANDIT, returns=estimators.total_return(), baseline=baseline)
        return exact.moments_of(estimator.episode_gradients(theta, (), batch), p).total_variance

    above, below = (variance(best, epsilon) for epsilon in (0.5, -0.5))
    np.testing.assert_allclose(above, below, atol=1e-14)
    got = [variance(0.0, 0.0), variance(value, 0.0), variance(best, 0.0), above]
    np.testing.assert_allclose(got, [0.08875, 0.06587, 0.00127, 0.05608], atol=6e-6)
    np.testing.assert_allclose(above - got[2], 0.25 * jnp.sum(weights), atol=1e-14)
    # Around another number the sign of ε decides.
    wrong = [variance(value, epsilon) for epsilon in (0.5, -0.5)]
    assert wrong[1] > 5 * wrong[0]


@pytest.mark.slow
def test_it_trains():
    """In the loop of training: the state keeps its shape and type, and b becomes a number of the corridor's size."""
    corridor = environments.make("corridor", horizon=8)
    policy = TABULAR._replace(init=lambda key, obs: jnp.zeros((1, 2)))
    estimator = estimators.make_estimator(
        policy, returns=estimators.total_return(), baseline=baselines.optimal_constant(0.5, "natural")
    )
    trainer = training.make_trainer(corridor, policy, estimator, optax.sgd(0.01), num_episodes=8)
    state, metrics = jax.jit(lambda key: jax.lax.scan(lambda s, _: trainer.update(s), trainer.init(key), length=3))(
        jax.random.key(0)
    )
    b = state.estimator_state.weighted / state.estimator_state.norms
    assert -8 <= b < -2 and np.isfinite(metrics["gradient_norm"]).all()


def test_refusals():
    with pytest.raises(ValueError, match=r"decay.*1\.5"):
        baselines.optimal_constant(1.5)
    with pytest.raises(ValueError, match=r"norm.*fisher"):
        baselines.optimal_time_dependent(0.9, "fisher")
    with pytest.raises(ValueError, match=r"num_states.*0"):
        baselines.optimal_state(STATE, 0)
    with pytest.raises(ValueError, match="score_norms, got None"):
        _, batch = bandit([1, 1, 1])
        baseline = baselines.optimal_constant()
        baseline.update(baseline.init(jax.random.key(0), batch), batch, batch.rewards)
