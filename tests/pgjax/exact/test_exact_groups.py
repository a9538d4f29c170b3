"""Exact moments over groups that share a start, block by block, against NumPy sums over every batch, in float64."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from oracle import exact_gradient, random_mdp, trajectory_probabilities
from policies import TABULAR, tabular

from pgjax import baselines, estimators, exact

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

TOTAL = estimators.total_return()
ESTIMATORS = {
    "RLOO": {"baseline": baselines.leave_one_out(group_size=2)},
    "GRPO": {"standardise": "group_population", "group_size": 2},
}


class Problem:
    """Two starts and two steps: each trajectory's probability, start, G_1 and score in NumPy."""

    def __init__(self):
        self.mdp = random_mdp(5, 3, 2, 1, 2)
        self.params = jax.random.normal(jax.random.key(1), (3, 2))
        self.enumeration = exact.enumerate_trajectories(self.mdp)
        self.probabilities = trajectory_probabilities(tabular, self.params, self.enumeration)
        self.gradient = np.asarray(exact_gradient(tabular, self.params, self.mdp))
        batch = jax.device_get(self.enumeration.trajectories)
        self.starts = np.asarray(self.enumeration.states)[0]
        self.initial = np.asarray(self.mdp.initial)[self.starts]
        self.returns = batch.rewards.sum(axis=0)
        logits = batch.obs @ np.asarray(self.params)
        table = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
        taken = (np.eye(2)[batch.actions] - table) * batch.alive[..., None]
        self.scores = np.einsum("tns,tna->nsa", batch.obs, taken)
        self.p = np.asarray(self.environment_chances(batch, table))

    def environment_chances(self, batch, table):
        """d_0(S_0) Π_t π(A_t | S_t), all outcomes being certain."""
        chosen = np.take_along_axis(table, batch.actions[..., None], axis=-1)[..., 0]
        return self.initial * np.where(batch.alive, chosen, 1.0).prod(axis=0)

    def pairs(self, shared):
        """(probability, first, second) of every ordered pair of trajectories."""
        for i, j in itertools.product(range(self.p.size), repeat=2):
            if not shared:
                yield self.p[i] * self.p[j], i, j
            elif self.starts[i] == self.starts[j]:
                yield self.p[i] * self.p[j] / self.initial[i], i, j

    def by_hand(self, weight_of, shared):
        """Mean and variance of ½ Σ_b w_b ψ_b over all pairs, (w_1, w_2) = weight_of(G^1, G^2)."""
        found = [
            (p, sum(w * self.scores[n] for w, n in zip(weight_of(self.returns[i], self.returns[j]), (i, j))) / 2)
            for p, i, j in self.pairs(shared)
        ]
        mean = sum(p * x for p, x in found)
        return mean, sum(p * (x - mean) ** 2 for p, x in found)


@pytest.fixture(scope="module")
def problem(exact_arithmetic):
    return Problem()


def rloo(a, b):
    return a - b, b - a


def grpo(a, b):
    return (0.0, 0.0) if a == b else (np.sign(a - b), np.sign(b - a))


@pytest.fixture(scope="module")
def found(problem):
    """(name, B, k) → moments; both estimators in one compilation."""
    made = {name: estimators.make_estimator(TABULAR, returns=TOTAL, **how) for name, how in ESTIMATORS.items()}
    function = lambda batch: {name: one.gradient(problem.params, (), batch)[0] for name, one in made.items()}
    moments = {}
    for size, k in ((2, 1), (2, 2), (4, 2)):
        both = exact.estimator_moments(function, problem.enumeration, problem.probabilities, size, group_size=k)
        moments |= {(name, size, k): (both.mean[name], both.variance[name]) for name in made}
    return moments


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize(("name", "weight_of"), [("RLOO", rloo), ("GRPO", grpo)])
def test_moments_are_the_sums_over_all_pairs(problem, found, name, weight_of, k):
    mean, variance = found[name, 2, k]
    wanted_mean, wanted_variance = problem.by_hand(weight_of, shared=k == 2)
    close(mean, wanted_mean, atol=1e-12)
    close(variance, wanted_variance, atol=1e-12)


def test_leave_one_out_is_unbiased_with_and_without_a_shared_start(problem, found):
    for case in ((2, 1), (2, 2), (4, 2)):
        close(found["RLOO", *case][0], problem.gradient, atol=1e-12)


def test_independent_groups_halve_the_variance(found):
    for name in ESTIMATORS:
        close(found[name, 4, 2][0], found[name, 2, 2][0], atol=1e-12)
        close(found[name, 4, 2][1], found[name, 2, 2][1] / 2, atol=1e-12)


def test_a_shared_start_changes_the_bias_of_grpo(problem, found):
    apart, shared = (found["GRPO", 2, k][0] - problem.gradient for k in (1, 2))
    assert np.abs(apart).max() > 0.1 and np.abs(shared - apart).max() > 0.02


def second_moment(p, returns, scores):
    """E‖½ (G¹ − G²)(ψ¹ − ψ²)‖² of two independent episodes, from moments of one, since E ψ = 0."""
    square, norms = returns**2, (scores**2).sum(axis=(1, 2))
    mixed = np.tensordot(p * returns, scores, 1)
    expanded = 2 * p @ (square * norms) + 2 * (p @ square) * (p @ norms) - 4 * (p @ (returns * norms)) * (p @ returns)
    return (expanded + 4 * np.sum(mixed**2)) / 4


def test_groups_that_do_not_share_their_start_are_caught_by_the_predicted_amount(problem, found):
    """Pairs cut across starts: as unbiased, but the other episode says nothing about this start."""
    apart = second_moment(problem.p, problem.returns, problem.scores)
    shared = sum(
        initial * second_moment(problem.p[here] / initial, problem.returns[here], problem.scores[here])
        for initial, here in (
            (problem.initial[problem.starts == s][0], problem.starts == s) for s in np.unique(problem.starts)
        )
    )
    excess = np.sum(found["RLOO", 2, 1][1]) - np.sum(found["RLOO", 2, 2][1])
    np.testing.assert_allclose(excess, apart - shared, atol=1e-12)
    assert abs(excess) > 0.01 * np.sum(found["RLOO", 2, 2][1])


def test_an_unequal_number_of_trajectories_from_each_start():
    """Every group is drawn once, with its probability: indicators of all pairs come out as p_i p_j / d_0."""
    mdp = random_mdp(0, 3, 2, 2, 2)
    enumeration = exact.enumerate_trajectories(mdp)
    chances = np.asarray(trajectory_probabilities(tabular, jnp.zeros((3, 2)), enumeration))
    starts = np.asarray(enumeration.states)[0]
    count = chances.size
    assert len(set(np.unique(starts, return_counts=True)[1])) == 2
    labelled = enumeration._replace(
        trajectories=enumeration.trajectories._replace(returns=jnp.tile(jnp.arange(count), (2, 1)))
    )
    pair = lambda batch: jnp.zeros((count, count)).at[batch.returns[0, 0], batch.returns[0, 1]].set(1.0)
    got = exact.estimator_moments(pair, labelled, jnp.asarray(chances), 2, group_size=2, batch_size=100).mean
    wanted = np.outer(chances, chances) * (starts[:, None] == starts) / np.asarray(mdp.initial)[starts]
    np.testing.assert_allclose(got, wanted, atol=1e-16)


# --- block by block


def features(batch):
    """A joint function of a batch of two, without any estimator: cheap to compile."""
    returns, last = batch.rewards.sum(axis=0), batch.obs[-1]
    return {"x": returns[0] * last[1], "y": jnp.exp(returns[0] - returns[1])}


def all_estimates(problem):
    pairs = exact.groups(problem.p.size, 2)
    each = jax.vmap(lambda pair: features(exact.select_episodes(problem.enumeration.trajectories, pair)))(pairs)
    return each, pairs


@pytest.mark.parametrize("batch_size", [1, 7, 64, 10**4])
def test_blocks_of_any_size_give_the_moments_of_the_whole_table(problem, batch_size):
    each, pairs = all_estimates(problem)
    wanted = exact.moments_of(each, jnp.prod(problem.probabilities[pairs], axis=1))
    got = exact.estimator_moments(
        features, problem.enumeration, problem.probabilities, 2, batch_size=batch_size, covariance=True
    )
    for name in ("mean", "variance", "total_variance", "second_moment"):
        pair = getattr(got, name), getattr(wanted, name)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-13), *pair)
    rows = np.concatenate([np.asarray(each["x"]), np.asarray(each["y"])[:, None]], axis=1)
    weights = problem.p[np.asarray(pairs)].prod(axis=1)
    np.testing.assert_allclose(got.covariance, np.cov(rows.T, aweights=weights, bias=True), atol=1e-13)


def test_equal_estimates_have_no_variance_at_all(problem):
    tenth = lambda batch: jnp.full(3, 0.1) + 0.0 * batch.rewards[0, 0]
    got = exact.estimator_moments(tenth, problem.enumeration, problem.probabilities, 2, batch_size=5)
    np.testing.assert_array_equal(got.variance, 0.0)
    close(got.mean, 0.1, atol=1e-15)


def test_a_large_mean_does_not_drown_the_variance(problem):
    """κ = mean / σ is some 1e7: the error stays within a few κ ε of each of 7 blocks; that of E X² − (E X)² is κ² ε."""
    shift = 1e8
    plain, shifted = (
        exact.estimator_moments(
            lambda batch, c=c: batch.rewards.sum() + c, problem.enumeration, problem.probabilities, 2, batch_size=10
        )
        for c in (0.0, shift)
    )
    kappa = shift / float(plain.total_variance) ** 0.5
    error = abs(float(shifted.total_variance / plain.total_variance) - 1)
    eps = np.finfo(float).eps
    assert error < 7 * kappa * eps < 1e-6
    assert abs(kappa**2 * eps) > 1e-2  # what the difference of the two large numbers would lose


def test_moments_can_be_differentiated(problem):
    """In θ, which moves probabilities and estimates; twin: with the estimates held fixed the derivative is another."""

    def features_at(params, batch):
        return jnp.tanh(jnp.sum(batch.obs[0, 0] @ params)) * batch.rewards.sum() + batch.rewards[0, 1]

    def streamed(params, fixed):
        function = lambda batch: features_at(fixed, batch)
        chances = trajectory_probabilities(tabular, params, problem.enumeration)
        return exact.estimator_moments(function, problem.enumeration, chances, 2, batch_size=10).total_variance

    def whole(params):
        pairs = exact.groups(problem.p.size, 2)
        select = lambda pair: exact.select_episodes(problem.enumeration.trajectories, pair)
        each = jax.vmap(lambda pair: features_at(params, select(pair)))(pairs)
        chances = trajectory_probabilities(tabular, params, problem.enumeration)
        return exact.moments_of(each, jnp.prod(chances[pairs], axis=1)).total_variance

    wanted = jax.grad(whole)(problem.params)
    close(jax.grad(lambda params: streamed(params, params))(problem.params), wanted, atol=1e-12)
    assert np.abs(jax.grad(streamed)(problem.params, problem.params) - wanted).max() > 1e-3


def test_memory_is_bounded_by_the_block_and_not_by_the_number_of_batches(problem):
    wide = lambda batch: jnp.sin(batch.rewards.sum() * jnp.arange(1.0, 1001.0))
    plan = lambda size, at_once: exact.plan_moments(wide, problem.enumeration, size, batch_size=at_once)
    few, many, small = plan(3, 54), plan(4, 54), plan(4, 6)
    assert (few.num_batches, many.num_batches) == (216, 1296)
    block = 54 * 1000 * 8
    assert block <= few.num_bytes < 8 * block
    assert many.num_bytes < 1.1 * few.num_bytes and small.num_bytes < few.num_bytes / 4
    moments = few.run(problem.probabilities)
    direct = exact.estimator_moments(wide, problem.enumeration, problem.probabilities, 3)
    np.testing.assert_allclose(moments.total_variance, direct.total_variance, rtol=1e-12)


def test_the_number_of_batches_is_counted_before_any_work(problem):
    count = lambda *args, **kwargs: exact.count_batches(problem.enumeration, *args, **kwargs)
    assert (count(1), count(3), count(2, group_size=2), count(6, group_size=3)) == (6, 216, 18, 54**2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_episodes": 0}, "num_episodes must be at least 1, got 0"),
        ({"num_episodes": 2, "group_size": 0}, "group_size must be at least 1, got 0"),
        ({"num_episodes": 3, "group_size": 2}, "group_size must divide num_episodes=3, got 2"),
        ({"num_episodes": 2, "batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"num_episodes": 2, "limit": 2**31}, "limit must be in"),
        ({"num_episodes": 2, "limit": 35}, "there are 36 batches of 2 of 6 trajectories, the limit is 35"),
        ({"num_episodes": 2, "group_size": 2, "limit": 9}, "there are 18 batches .* in groups of 2 that share a start"),
        ({"num_episodes": 9000}, r"there are \d\.\d\de\+\d+ batches"),
        ({"num_episodes": 2, "memory_limit": 1000}, r"36 batches of 2 episodes take .* lower batch_size"),
    ],
)
def test_too_much_and_too_little_are_refused(problem, options, message):
    with pytest.raises(ValueError, match=message):
        exact.plan_moments(features, problem.enumeration, **options)
