"""Groups of episodes: RLOO, GRPO and Dr. GRPO by enumeration of all groups, and the algebra between them.

All N^k groups are laid side by side as one batch of N^k groups of k episodes, so every test also goes through
`group_size`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import baselines, estimators, exact
from pgjax.distributions import categorical
from pgjax.types import Policy, Trajectory

pytestmark = pytest.mark.usefixtures("float64")
select = jax.jit(exact.select_episodes)


def one_step_episodes(rewards):
    """One episode of one step for each action."""
    rewards = np.asarray(rewards, float)[None]
    end = np.ones_like(rewards, bool)
    return Trajectory(
        obs=np.ones((*rewards.shape, 1)),
        actions=np.arange(rewards.shape[1], dtype=np.int32)[None],
        rewards=rewards,
        alive=end,
        terminated=end,
        truncated=~end,
        final_obs=np.ones((rewards.shape[1], 1)),
    )


def of_one_logit(features):
    """p_a ∝ exp(θ · feature_a)."""
    features = np.asarray(features, np.float64)
    apply = lambda theta, obs: theta * features
    return Policy(init=lambda key, obs: jnp.zeros(()), apply=apply, distribution=categorical)


def all_groups(batch, size):
    return select(batch, exact.groups(batch.actions.shape[1], size).reshape(-1))


def moments_of_groups(estimator, policy, theta, batch, size):
    """Exact moments of the estimate from one group."""
    num_actions = batch.actions.shape[1]
    each = estimator.episode_gradients(theta, (), all_groups(batch, size))
    p = jax.nn.softmax(policy.apply(theta, None))
    return exact.moments_of(each.reshape(-1, size).mean(axis=1), jnp.prod(p[exact.groups(num_actions, size)], axis=1))


COIN = of_one_logit([1.0, 0.0])


def make(policy=COIN, **kwargs):
    return estimators.make_estimator(policy, returns=estimators.total_return(), **kwargs)


def weights_of(batch, **kwargs):
    """The weights of the first row, `[B]`, of estimators made by `make`."""
    weighting = estimators.make_weighting(returns=estimators.total_return(), **kwargs)
    return np.asarray(jax.jit(weighting.weigh)((), batch)[0][0])


@pytest.mark.parametrize(
    ("size", "wanted"),
    [
        (2, {0.05: 1.0, 0.2: 1.0, 0.37: 1.0, 0.5: 1.0, 0.95: 1.0}),
        (4, {0.05: 1.710, 0.2: 1.658, 0.5: 1.616, 0.8: 1.658}),
        (8, {0.05: 2.473, 0.2: 2.107, 0.5: 1.856, 0.95: 2.473}),
    ],
)
def test_grpo_reweighs_prompts(size, wanted):
    """E[GRPO] / ∇p with rewards 1, 0: exactly 1 for pairs, towards 1/√(p(1−p)) for large groups; p ↔ 1 − p."""
    batch = one_step_episodes([1.0, 0.0])
    p = jnp.asarray(list(wanted))

    def ratios(standardise):
        estimator = make(standardise=standardise, group_size=size)
        one = lambda p: moments_of_groups(estimator, COIN, jnp.log(p / (1 - p)), batch, size).mean / (p * (1 - p))
        return jax.jit(jax.vmap(one))(p)

    population = ratios("group_population")
    np.testing.assert_allclose(population, list(wanted.values()), atol=1e-10 if size == 2 else 5.01e-4)
    # The divisor k − 1, the other convention, is √((k−1)/k) of it.
    np.testing.assert_allclose(ratios("group_sample"), np.sqrt((size - 1) / size) * population, atol=1e-10)


def test_group_standardisation_by_hand():
    """Shift and positive scale of the rewards change nothing; a group whose members agree weighs exactly 0."""
    rewards = np.array([0.1, 0.1, 0.1, 1.0, 2.0, 6.0, 0.0, 0.0, 1.0])
    for word, ddof in (("group_population", 0), ("group_sample", 1)):
        weigh = lambda rewards: weights_of(one_step_episodes(rewards), standardise=word, group_size=3)
        weights = weigh(rewards)
        groups = rewards.reshape(3, 3)
        spread = groups.std(axis=1, ddof=ddof)[1:, None]
        by_hand = (groups[1:] - groups[1:].mean(axis=1, keepdims=True)) / spread
        np.testing.assert_allclose(weights.reshape(3, 3)[1:], by_hand, atol=1e-12)
        assert (weights[:3] == 0).all()
        moved = weigh(3.0 * rewards - 7.0)
        np.testing.assert_allclose(moved, weights, atol=1e-12)
        flipped = weigh(-rewards)
        np.testing.assert_allclose(flipped, -weights, atol=1e-12)
    # Without the division only shifts go unnoticed.
    weigh = lambda rewards: weights_of(one_step_episodes(rewards), baseline=baselines.batch_mean(group_size=3))
    np.testing.assert_allclose(weigh(rewards - 7.0), weigh(rewards), atol=1e-12)
    np.testing.assert_allclose(weigh(3.0 * rewards), 3.0 * weigh(rewards), atol=1e-12)


REWARDS = np.array([0.3, -1.0, 2.0, 0.5, 4.0, 3.1])
FEATURES = np.array([1.3, 0.0, 2.0, 0.5, -1.0, 0.3])
SIX = of_one_logit(FEATURES)


@pytest.mark.parametrize("size", [2, 3, 6])
def test_the_algebra_of_leaving_one_out(size):
    batch, theta = one_step_episodes(REWARDS), jnp.asarray(0.4)
    loo, dr_grpo = (
        make(SIX, baseline=baseline(group_size=size)) for baseline in (baselines.leave_one_out, baselines.batch_mean)
    )
    advantages = weights_of(batch, baseline=baselines.leave_one_out(group_size=size)).reshape(-1, size)
    np.testing.assert_allclose(advantages.sum(axis=1), np.zeros(6 // size), atol=1e-12)
    groups = REWARDS.reshape(-1, size)
    by_hand = (groups - groups.mean(axis=1, keepdims=True)) * size / (size - 1)
    np.testing.assert_allclose(advantages, by_hand, atol=1e-12)
    # Dr. GRPO is (k − 1)/k of RLOO on every batch, not in expectation only.
    gradient = lambda estimator, batch: jax.jit(estimator.gradient)(theta, (), batch)[0]
    np.testing.assert_allclose(gradient(dr_grpo, batch), gradient(loo, batch) * (size - 1) / size, atol=1e-12)
    # A constant added to the rewards of one group is not noticed; added to one of its episodes it is.
    shifted = batch._replace(rewards=batch.rewards + 11.0 * (np.arange(6) < size))
    np.testing.assert_allclose(gradient(loo, shifted), gradient(loo, batch), atol=1e-12)
    one_more = batch._replace(rewards=batch.rewards + 11.0 * (np.arange(6) == 0))
    assert abs(gradient(loo, one_more) - gradient(loo, batch)) > 0.1
    # The order within a group does not matter, who is in it does.
    order = np.concatenate([np.roll(np.arange(size), 1), np.arange(size, 6)])
    within = select(batch, order)
    np.testing.assert_allclose(gradient(loo, within), gradient(loo, batch), atol=1e-12)
    if size < 6:
        across = select(batch, np.roll(np.arange(6), 1))
        assert abs(gradient(loo, across) - gradient(loo, batch)) > 0.01
    if size == 2:
        scores = FEATURES - (np.asarray(jax.nn.softmax(theta * FEATURES)) * FEATURES).sum()
        pairs, r = scores.reshape(3, 2), REWARDS.reshape(3, 2)
        half = 0.5 * (r[:, 0] - r[:, 1]) * (pairs[:, 0] - pairs[:, 1])
        np.testing.assert_allclose(gradient(loo, batch), half.mean(), atol=1e-12)


BITS = np.array(list(np.ndindex(2, 2, 2)), float)
LOSS = ((BITS - np.array([0.6, 0.51, 0.48])) ** 2).sum(axis=1)
TOY = of_one_logit(BITS.sum(axis=1))
TABLE = {
    0.0: {
        "gradient": -0.045000,
        "mean": 0.76050,
        "none": [0.43842, 0.21921, 0.14614, 0.10961],
        "loo": {2: 0.007275, 3: 0.003200, 4: 0.0019875},
        "best": 0.76050,
        "of mean": 0.00465,
        "of best": 0.00465,
    },
    -4.0: {
        "gradient": -0.003179,
        "mean": 0.84726,
        "none": [0.033557, 0.016778, 0.011186, 0.008389],
        "loo": {2: 3.8103e-4, 3: 2.4578e-4, 4: 1.8228e-4},
        "best": 0.78942,
        "of mean": 7.126e-4,
        "of best": 5.353e-4,
    },
}


def to_the_digits(got, wanted, digits):
    np.testing.assert_allclose(np.asarray(got), wanted, rtol=0.51 * 10.0 ** (1 - digits))


def test_three_bits_that_share_a_logit():
    """The toy of Kool et al. 2019: gradient, variance without baseline, with leave-one-out, with a number."""
    batch = one_step_episodes(LOSS)

    @jax.jit
    def measure(eta):
        p = jax.nn.softmax(TOY.apply(eta, None))
        score = jnp.asarray(BITS.sum(axis=1)) - 3 * jax.nn.sigmoid(eta)
        mean = jnp.sum(p * LOSS)
        best = jnp.sum(p * score**2 * LOSS) / jnp.sum(p * score**2)
        number = lambda b: moments_of_groups(make(TOY, baseline=baselines.constant(b)), TOY, eta, batch, 1)
        groups = lambda make_baseline, size: moments_of_groups(
            make(TOY, baseline=make_baseline(group_size=size)), TOY, eta, batch, size
        )
        return {
            "gradient": jnp.sum(p * score * LOSS),
            "mean": mean,
            "best": best,
            "none": number(0.0),
            "of mean": number(mean),
            "of best": number(best),
            "loo": {k: groups(baselines.leave_one_out, k) for k in (2, 3, 4)},
            "with self": {k: groups(baselines.batch_mean, k).mean for k in (2, 3, 4)},
            "norm": jnp.sum(p * score**2),
            "spread": jnp.sum(p * (LOSS - mean) ** 2),
        }

    for eta, wanted in TABLE.items():
        got = jax.tree.map(np.asarray, measure(eta))
        to_the_digits(got["gradient"], wanted["gradient"], 4)
        to_the_digits([got["mean"], got["best"]], [wanted["mean"], wanted["best"]], 5)
        to_the_digits(got["none"].total_variance / np.arange(1, 5), wanted["none"], 4)
        to_the_digits(got["of mean"].total_variance, wanted["of mean"], 3)
        to_the_digits(got["of best"].total_variance, wanted["of best"], 3)
        for k, variance in wanted["loo"].items():
            np.testing.assert_allclose(got["loo"][k].mean, got["gradient"], atol=1e-12)
            np.testing.assert_allclose(got["with self"][k], got["gradient"] * (k - 1) / k, atol=1e-12)
            to_the_digits(got["loo"][k].total_variance, variance, 4)
            # k Var = Var(b = E f) + (E S² Var f + (∇E f)²)/(k − 1), which tends to Var(b = E f).
            excess = (got["norm"] * got["spread"] + got["gradient"] ** 2) / (k - 1)
            limit = got["of mean"].total_variance
            np.testing.assert_allclose(k * got["loo"][k].total_variance, limit + excess, rtol=1e-12)
    assert TABLE[0.0]["none"][1] / TABLE[0.0]["loo"][2] > 30


def two_lengths(short_reward, long_reward):
    """Action 0 ends at once, action 1 after a second step, which alone pays."""
    return exact.make_tabular_mdp(
        initial=[1.0, 0.0, 0.0],
        successors=[[[2], [1]], [[2], [2]], [[2], [2]]],
        probabilities=np.ones((3, 2, 1)),
        rewards=[[[short_reward], [0.0]], [[long_reward], [long_reward]], [[0.0], [0.0]]],
        terminal=[False, False, True],
        horizon=2,
    )


def test_dividing_by_the_own_length_favours_short_successes_and_long_failures():
    """E = p(1−p)(r_short/1 − r_long/2) in the first state's logit, where the truth is p(1−p)(r_short − r_long)."""
    apply = lambda theta, obs: jnp.stack([obs @ theta, jnp.zeros(())])
    policy = Policy(init=lambda key, obs: jnp.zeros(3), apply=apply, distribution=categorical)
    theta = jnp.asarray([0.6, -0.3, 0.0])
    p = float(jax.nn.sigmoid(theta[0]))

    def mean_of(size, **kwargs):
        estimator = make(policy, **kwargs)

        @jax.jit
        def mean(trajectories, probabilities):
            groups = exact.groups(probabilities.shape[0], size)
            each = estimator.episode_gradients(theta, (), exact.select_episodes(trajectories, groups.reshape(-1)))
            weight = jnp.repeat(jnp.prod(probabilities[groups], axis=1) / size, size)
            return jnp.sum(weight[:, None] * each, axis=0)

        return mean

    whole = mean_of(1)
    alone = mean_of(1, over_time="episode_mean")
    pairs = mean_of(2, over_time="episode_mean", baseline=baselines.leave_one_out(group_size=2))
    for short_reward, long_reward in ((1.0, 1.0), (-1.0, -1.0), (0.0, 2.0)):
        enumeration = exact.enumerate_trajectories(two_lengths(short_reward, long_reward))
        probabilities = exact.trajectory_probabilities(apply, theta, enumeration)
        truth, got, of_pairs = (f(enumeration.trajectories, probabilities) for f in (whole, alone, pairs))
        spread = p * (1 - p)
        np.testing.assert_allclose(truth[0], spread * (short_reward - long_reward), atol=1e-12)
        np.testing.assert_allclose(got[0], spread * (short_reward - long_reward / 2), atol=1e-12)
        # In groups each length divides the whole advantage, the other's return with it.
        mean = p * short_reward + (1 - p) * long_reward
        advantages = short_reward - mean, long_reward - mean
        np.testing.assert_allclose(of_pairs[0], spread * (advantages[0] - advantages[1] / 2), atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda batch: baselines.leave_one_out(group_size=1), r"group_size.*1"),
        (lambda batch: weights_of(batch, baseline=baselines.leave_one_out(group_size=4)), r"divide.* 6, got 4"),
        (lambda batch: weights_of(batch, baseline=baselines.batch_mean(group_size=4)), r"divide.* 6, got 4"),
        (lambda batch: make(standardise="group_sample", group_size=1), r"group_size.*1"),
        (lambda batch: weights_of(batch, standardise="group_sample", group_size=4), r"divide.* 6, got 4"),
        (
            lambda batch: weights_of(exact.select_episodes(batch, jnp.asarray([0])), standardise="group_sample"),
            r"at least 2 episodes",
        ),
        (lambda batch: baselines.leave_one_out("rows"), r"over.*rows"),
        (lambda batch: baselines.batch_mean(group_size=2.0), r"group_size.*2\.0"),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call(one_step_episodes(REWARDS))
