"""Surrogate losses in an estimator, with and without the log-probabilities of the policy that acted; epochs."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR, tabular

from pgjax import baselines, environments, estimators, exact, losses, rollouts, training

OBJECTIVES = {
    "score function": estimators.score_function,
    "importance": losses.importance_weighted_objective,
    "clipped": estimators.clipped_surrogate(0.2),
    "widely clipped": estimators.clipped_surrogate(1e6),
}


class Problem:
    """Two steps at most, two actions, random transitions; θ_old acted, θ learns."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.numbers = {
            "initial": [0.4, 0.6, 0.0],
            "successors": [[[0, 1], [1, 2]], [[1, 0], [0, 2]], [[2, 2], [2, 2]]],
            "probabilities": np.broadcast_to(np.array([0.7, 0.3]), (3, 2, 2)),
            "rewards": rng.normal(size=(3, 2, 2)),
            "terminal": [False, False, True],
        }
        self.mdp = exact.make_tabular_mdp(**self.numbers, horizon=2)
        self.old = rng.normal(size=(3, 2))
        self.new = self.old + 0.6 * rng.normal(size=(3, 2))
        self.enumeration = exact.enumerate_trajectories(self.mdp)
        self.batch = self.enumeration.trajectories
        self.recorded = jax.jit(estimators.record_behaviour, static_argnums=0)(TABULAR, self.old, self.batch)
        self.alive, obs, actions, rewards = (
            np.asarray(getattr(self.batch, name)) for name in ("alive", "obs", "actions", "rewards")
        )
        chosen = np.eye(2)[actions]
        softmax = lambda x: np.exp(x) / np.exp(x).sum(-1, keepdims=True)
        old, new = softmax(obs @ self.old), softmax(obs @ self.new)
        self.old_log_probs = np.log((old * chosen).sum(-1))
        self.ratios = ((new / old) * chosen).sum(-1)
        self.scores = obs[..., :, None] * (chosen - new)[..., None, :]
        self.weights = np.where(self.alive, rewards[::-1].cumsum(axis=0)[::-1] - 0.3, 0.0)
        acted = np.where(self.alive, (old * chosen).sum(-1), 1.0).prod(axis=0)
        self.probabilities = np.asarray(self.enumeration.environment_probabilities) * acted
        self.each = jax.jit(
            lambda params, batch: {name: make(name).episode_gradients(params, (), batch) for name in OBJECTIVES}
        )

    def gradients(self, params, batch):
        return {name: np.asarray(each).mean(axis=0) for name, each in self.each(params, batch).items()}

    def by_hand(self, rows):
        """(1/B) Σ rows ψ."""
        return (rows[..., None, None] * self.scores).sum(axis=(0, 1)) / rows.shape[1]

    def mean(self, each):
        return np.tensordot(self.probabilities, each, 1)


def make(name):
    return estimators.make_estimator(TABULAR, objective=OBJECTIVES[name], baseline=baselines.constant(0.3))


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        yield Problem()


def test_without_a_record_every_surrogate_is_the_score_function(float64, problem):
    for got in problem.gradients(problem.new, problem.batch).values():
        np.testing.assert_allclose(got, problem.by_hand(problem.weights), atol=1e-12)


def test_with_a_record_of_another_policy(float64, problem):
    """Ratios to θ_old by hand: on each row in the importance-weighted one, and 0 where the clip holds."""
    ratios, w = problem.ratios, problem.weights
    clipped = ((w > 0) & (ratios > 1.2)) | ((w < 0) & (ratios < 0.8))
    assert clipped[problem.alive].any() and (~clipped)[problem.alive & (abs(ratios - 1) > 0.2)].any()
    wanted = {
        "score function": w,
        "importance": w * ratios,
        "clipped": np.where(clipped, 0.0, w * ratios),
        "widely clipped": w * ratios,
    }
    got = problem.gradients(problem.new, problem.recorded)
    for name in OBJECTIVES:
        np.testing.assert_allclose(got[name], problem.by_hand(wanted[name]), atol=1e-12)
    assert np.abs(got["importance"] - got["clipped"]).max() > 0.01
    assert np.abs(got["importance"] - got["score function"]).max() > 0.01
    # At θ_old itself the ratios are 1 and all agree.
    at_old = problem.gradients(problem.old, problem.recorded)
    for name in OBJECTIVES:
        np.testing.assert_allclose(at_old[name], at_old["score function"], atol=1e-12)
    assert np.abs(at_old["clipped"]).max() > 0.01


def test_one_ratio_corrects_the_choice_and_not_the_visit(float64, problem):
    """Episodes of θ_old: with one step E = ∇ρ(θ); with two it is off by what the visits would have needed."""
    got = problem.mean(problem.each(problem.new, problem.recorded)["importance"])
    gradient = jax.jit(lambda mdp: exact.exact_gradient(tabular, problem.new, mdp))
    truth = gradient(problem.mdp)
    # With the ratios of the whole episode the expectation is exact: the difference is the predicted bias.
    total = np.where(problem.alive, problem.ratios, 1.0).prod(axis=0)
    rows = problem.probabilities[:, None, None]
    sums = lambda weight: np.sum(rows * (weight[..., None, None] * problem.scores).sum(axis=0), axis=0)
    np.testing.assert_allclose(sums(total * problem.weights), truth, atol=1e-10)
    np.testing.assert_allclose(got, sums(problem.ratios * problem.weights), atol=1e-12)
    assert np.abs(got - truth).max() > 0.01

    first = np.arange(2)[:, None] == 0
    bandit = problem.recorded._replace(
        rewards=jnp.where(first, problem.batch.rewards, 0.0), alive=problem.batch.alive & first
    )
    each = problem.each(problem.new, bandit)
    truth = gradient(exact.make_tabular_mdp(**problem.numbers, horizon=1))
    np.testing.assert_allclose(problem.mean(each["importance"]), truth, atol=1e-10)
    # The plain score function of θ on these episodes is not.
    assert np.abs(problem.mean(each["score function"]) - truth).max() > 0.01


def test_the_record_is_the_log_probability_of_what_was_done(float64, problem):
    wanted = np.where(problem.alive, problem.old_log_probs, 0.0)
    np.testing.assert_allclose(problem.recorded.behaviour_log_probs, wanted, atol=1e-12)
    in_pieces = jax.jit(lambda theta: estimators.record_behaviour(TABULAR, theta, problem.batch, rows_per_piece=7))
    np.testing.assert_allclose(in_pieces(problem.old).behaviour_log_probs, wanted, atol=1e-12)


def test_three_epochs_are_three_steps_on_one_batch():
    """θ_old, the weights and the baseline's old state stay; the optimiser's state goes on; b learns once."""
    corridor = environments.make("corridor", horizon=8)
    policy = TABULAR
    baseline = baselines.moving_average(0.9, -3.0)
    estimator = estimators.make_estimator(policy, objective=OBJECTIVES["clipped"], baseline=baseline)
    optimizer = optax.adam(0.3)
    trainer = training.make_trainer(corridor, policy, estimator, optimizer, num_episodes=4, epochs=3)
    state = jax.jit(trainer.init)(jax.random.key(5))

    @jax.jit
    def collect(state):
        keys = jax.random.split(jax.random.fold_in(state.key, state.update), 4)
        batch = rollouts.episodes(corridor, policy, state.params, keys)
        return estimators.record_behaviour(policy, state.params, batch)

    @jax.jit
    def step(params, optimizer_state, batch):
        gradient, learned, _ = estimator.gradient(params, state.estimator_state, batch)
        updates, optimizer_state = optimizer.update(-gradient, optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state, learned

    batch, path = collect(state), [state.params]
    optimizer_state = state.optimizer_state
    for _ in range(3):
        params, optimizer_state, learned = step(path[-1], optimizer_state, batch)
        path.append(params)
    new, _ = jax.jit(trainer.update)(state)
    for got, wanted in (
        (new.params, path[3]),
        (new.optimizer_state, optimizer_state),
        (new.estimator_state, learned),
    ):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6), got, wanted)
    assert all(np.abs(a - b).max() > 1e-3 for a, b in itertools.pairwise(path))


def test_refusals():
    corridor = environments.make("corridor", horizon=8)
    make_trainer = lambda **kwargs: training.make_trainer(
        corridor, TABULAR, estimators.make_estimator(TABULAR), optax.sgd(0.1), num_episodes=4, **kwargs
    )
    with pytest.raises(ValueError, match="epochs must be 1 with microbatches=2"):
        make_trainer(epochs=2, microbatches=2)
    with pytest.raises(ValueError, match=r"epochs.*0"):
        make_trainer(epochs=0)
    with pytest.raises(ValueError, match=r"clip.*-0\.1"):
        estimators.clipped_surrogate(-0.1)
