"""One baseline for each parameter: unbiased, and the least exact variance in every coordinate."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import close

from pgjax import baselines, environments, estimators, exact, training
from pgjax.distributions import categorical
from pgjax.types import Policy

APPLY = lambda params, obs: obs @ params["table"] + params["bias"]
POLICY = Policy(
    init=lambda key, obs: {"table": jnp.zeros((obs.shape[0], 2)), "bias": jnp.zeros(2)},
    apply=APPLY,
    distribution=categorical,
)


class Problem:
    """An MDP whose episodes end after one step or two, and the exact moments of its estimates."""

    def __init__(self):
        rng = np.random.default_rng(0)
        self.mdp = exact.make_tabular_mdp(
            initial=[0.4, 0.6, 0.0],
            successors=[[[0, 1], [1, 2]], [[1, 0], [0, 2]], [[2, 2], [2, 2]]],
            probabilities=np.broadcast_to(np.array([0.7, 0.3]), (3, 2, 2)),
            rewards=rng.normal(size=(3, 2, 2)),
            terminal=[False, False, True],
            horizon=2,
        )
        self.params = {"table": rng.normal(size=(3, 2)), "bias": np.array([0.2, -0.4])}
        self.enumeration = exact.enumerate_trajectories(self.mdp)
        self.batch = self.enumeration.trajectories
        probabilities = jax.jit(lambda theta: exact.trajectory_probabilities(APPLY, theta, self.enumeration))
        self.probabilities = np.asarray(probabilities(self.params))
        self.objective, self.gradient = jax.jit(
            jax.value_and_grad(lambda theta: exact.objective(APPLY, theta, self.mdp))
        )(self.params)
        # S of every episode: the plain estimate of a return that is 1.
        ones = estimators.per_parameter(POLICY, values=jax.tree.map(np.zeros_like, self.params))
        one = self.batch._replace(rewards=jnp.zeros_like(self.batch.rewards).at[0].set(1.0))
        self.scores = jax.tree.map(np.asarray, jax.jit(ones.episode_gradients)(self.params, (), one))
        self.total = np.asarray(self.batch.rewards).sum(axis=0)

    def expect(self, x, weights=1.0):
        return np.tensordot(self.probabilities * weights, x, 1)

    def optimum(self):
        """b_j = E[S_j² G_1] / E[S_j²] (0 for a logit that is never used) and E[S_j²] by hand."""
        squares = jax.tree.map(lambda s: self.expect(s**2), self.scores)
        weighted = jax.tree.map(lambda s: self.expect(s**2, self.total), self.scores)
        return jax.tree.map(lambda w, s: w / np.where(s > 0, s, 1.0), weighted, squares), squares


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        yield Problem()


def test_every_coordinate_has_its_least_variance(float64, problem):
    """Var_j(b) = Var_j(b_j) + (b − b_j)² E[S_j²]; below the best constant for all, which is below b = ρ here."""
    best, squares = problem.optimum()

    @jax.jit
    def moments(values):
        each = estimators.per_parameter(POLICY, values=values).episode_gradients(problem.params, (), problem.batch)
        return exact.moments_of(each, jnp.asarray(problem.probabilities))

    least = moments(best)
    close(least.mean, problem.gradient)
    for shift in (0.8, -1.5):
        off = moments(jax.tree.map(lambda b, shift=shift: b + shift, best))
        close(off.mean, problem.gradient)
        excess = jax.tree.map(np.subtract, off.variance, least.variance)
        close(excess, jax.tree.map(lambda s, shift=shift: shift**2 * s, squares))
    norm, weighted = (
        sum(np.sum(x) for x in jax.tree.leaves(tree)) for tree in (squares, jax.tree.map(np.multiply, best, squares))
    )
    everywhere = lambda value: moments(jax.tree.map(lambda b: np.full_like(b, value), best)).total_variance
    ladder = [least.total_variance, everywhere(weighted / norm), everywhere(problem.objective)]
    assert ladder[0] < 0.99 * ladder[1] and ladder[1] < ladder[2] - 1e-4
    # One number for all is what a constant baseline is.
    plain = estimators.make_estimator(POLICY, returns=estimators.total_return(), baseline=baselines.constant(0.4))
    mine = estimators.per_parameter(POLICY, values=jax.tree.map(lambda b: np.full_like(b, 0.4), best))
    both = jax.jit(lambda params: [e.gradient(params, (), problem.batch)[0] for e in (mine, plain)])
    close(*both(problem.params), atol=1e-12)


def test_learned_by_running_averages(float64, problem):
    """Two batches by hand, used before they are learned from; the mean of the summands is the gradient."""
    estimator = estimators.per_parameter(POLICY, decay=0.6)
    update = jax.jit(estimator.gradient)
    state = estimator.init(jax.random.key(0), problem.batch)
    first, state, metrics = update(problem.params, state, problem.batch)
    assert np.isfinite(metrics["entropy"])
    # b = 0 while nothing is known.
    over_batch = lambda x: np.mean(x, axis=0)
    returned = lambda s: np.tensordot(problem.total, s, 1) / problem.total.size
    close(first, jax.tree.map(returned, problem.scores))
    squares = jax.tree.map(lambda s: over_batch(s**2), problem.scores)
    weighted = jax.tree.map(lambda s: returned(s**2), problem.scores)
    close(state.squares, jax.tree.map(lambda x: 0.4 * x, squares))
    close(state.weighted, jax.tree.map(lambda x: 0.4 * x, weighted))
    second, new_state, _ = update(problem.params, state, problem.batch)
    b = jax.tree.map(lambda w, s: w / np.where(s > 0, s, 1.0), weighted, squares)
    close(second, jax.tree.map(lambda g, b, s: g - b * over_batch(s), first, b, problem.scores))
    close(new_state.squares, jax.tree.map(lambda x: (1 - 0.6**2) * x, squares))
    each = jax.tree.map(np.asarray, jax.jit(estimator.episode_gradients)(problem.params, state, problem.batch))
    close(jax.tree.map(over_batch, each), second)
    # Whatever was learned before, the expectation is the gradient.
    close(jax.tree.map(problem.expect, each), problem.gradient)


def test_refreshing_before_use_leaves_nothing(float64, problem):
    """The wrong twin: at decay 0 and one episode every b_j is G_1, and the estimate is 0."""
    estimator = estimators.per_parameter(POLICY, decay=0.0)
    start = estimator.init(jax.random.key(0), problem.batch)

    def refreshed_first(trajectory):
        state = estimator.gradient(problem.params, start, trajectory)[1]
        return estimator.gradient(problem.params, state, trajectory)[0]

    each = jax.jit(jax.vmap(lambda n: refreshed_first(exact.select_episodes(problem.batch, n))))
    got = each(np.arange(problem.total.size)[:, None])
    close(got, jax.tree.map(np.zeros_like, problem.scores))
    assert max(np.abs(x).max() for x in jax.tree.leaves(problem.gradient)) > 0.05


@pytest.mark.slow
def test_it_trains():
    corridor = environments.make("corridor", horizon=8)
    estimator = estimators.per_parameter(POLICY)
    trainer = training.make_trainer(corridor, POLICY, estimator, optax.sgd(0.01), num_episodes=4)
    state, metrics = jax.jit(lambda key: jax.lax.scan(lambda s, _: trainer.update(s), trainer.init(key), length=3))(
        jax.random.key(0)
    )
    assert np.isfinite(metrics["gradient_norm"]).all()
    ratio = state.estimator_state.weighted["bias"] / state.estimator_state.squares["bias"]
    assert ((ratio >= -8) & (ratio < -2)).all()


def test_refusals(float64, problem):
    with pytest.raises(ValueError, match=r"decay.*-0\.1"):
        estimators.per_parameter(POLICY, decay=-0.1)
    with pytest.raises(ValueError, match=r"discount.*1\.5"):
        estimators.per_parameter(POLICY, discount=1.5)
    with pytest.raises(ValueError, match="values must have the shapes of the parameters"):
        wrong = estimators.per_parameter(POLICY, values={"bias": 0.0})
        jax.eval_shape(wrong.gradient, problem.params, (), problem.batch)
    with pytest.raises(ValueError, match="window cuts episodes"):
        corridor = environments.make("corridor", horizon=8)
        estimator = estimators.per_parameter(POLICY)
        training.make_trainer(corridor, POLICY, estimator, optax.sgd(0.1), num_steps=4)
