"""Baselines that know more than the observation: the input that drives the problem, a greedy episode."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR

from pgjax import baselines, environments, estimators, evaluation, exact, rollouts, training
from pgjax.distributions import categorical
from pgjax.types import Policy, Trajectory

HORIZON = 4
PUSH = 2.0


def walk(time_row, actions, inputs, position):
    """x_{t+1} = x_t + a_t + 2 z_t and R_{t+1} = −(x_{t+1} − 1)²/4 from row `time_row` on; G, a scalar."""
    total = jnp.zeros_like(position)
    for k in range(HORIZON):
        position = position + jnp.where(k < time_row, 0.0, 2.0 * actions[k] - 1.0 + PUSH * inputs[k])
        total = total + jnp.where(k < time_row, 0.0, -((position - 1.0) ** 2) / 4)
    return total


class Walk:
    """All 2⁴ inputs × 2⁴ actions of a random walk; row t shows (x_t, z_t), and z is ±1 with equal probability."""

    def __init__(self, sees):
        self.sees = sees
        pairs = np.array(list(itertools.product((-1.0, 1.0), repeat=HORIZON)))
        self.inputs_table = pairs
        inputs = np.repeat(pairs, 16, axis=0).T
        actions = np.tile((pairs + 1) / 2, (16, 1)).T
        steps = 2 * actions - 1 + PUSH * inputs
        positions = np.concatenate([np.zeros((1, 256)), steps.cumsum(axis=0)])
        following = np.concatenate([inputs[1:], np.zeros((1, 256))])
        obs = np.stack([positions[:-1], inputs, following, np.indices(inputs.shape)[0]], axis=-1)
        alive = np.ones(inputs.shape, bool)
        last = np.indices(inputs.shape)[0] == HORIZON - 1
        self.batch = Trajectory(
            obs=jnp.asarray(obs),
            actions=jnp.asarray(actions, jnp.int32),
            rewards=jnp.asarray(-((positions[1:] - 1.0) ** 2) / 4),
            alive=jnp.asarray(alive),
            terminated=jnp.asarray(last),
            truncated=jnp.asarray(~alive),
            final_obs=jnp.asarray(np.stack([positions[-1], *np.zeros((3, 256))], axis=-1)),
        )
        self.policy = Policy(init=lambda key, obs: jnp.zeros(3), apply=self.apply, distribution=categorical)
        self.params = jnp.asarray([0.3, -0.4, 0.5])
        self.probabilities = jax.jit(self.distribution)(self.params)
        self.gradient = jax.jit(jax.grad(lambda theta: jnp.sum(self.distribution(theta) * self.batch.rewards.sum(0))))(
            self.params
        )

    def apply(self, theta, obs):
        """Sees x_t, or the coming input z_{t+1} besides."""
        logit = theta[0] + theta[1] * obs[0] + (theta[2] * obs[2] if self.sees == "next input" else 0.0)
        return jnp.stack([jnp.zeros(()), logit])

    def distribution(self, theta):
        log_probs = jax.vmap(jax.vmap(lambda obs, a: categorical.log_prob(self.apply(theta, obs), a)))
        return jnp.exp(jnp.sum(log_probs(self.batch.obs, self.batch.actions), axis=0)) / 16

    def expected_return(self, obs, inputs, time_row):
        """E[G_t | x_t, z_{1:T}] by summing over all ways to act on."""

        def weigh(actions):
            position, log_prob = obs[0], jnp.zeros(())
            following = jnp.concatenate([inputs[1:], jnp.zeros(1)])
            for k in range(HORIZON):
                row = jnp.stack([position, inputs[k], following[k], jnp.zeros(())])
                taken = categorical.log_prob(self.apply(self.params, row), actions[k].astype(jnp.int32))
                log_prob = log_prob + jnp.where(k < time_row, -jnp.log(2.0), taken)
                position = position + jnp.where(k < time_row, 0.0, 2.0 * actions[k] - 1.0 + PUSH * inputs[k])
            return jnp.exp(log_prob) * walk(time_row, actions, inputs, obs[0])

        return jnp.sum(jax.vmap(weigh)(jnp.asarray((self.inputs_table + 1) / 2)))

    def blind(self, obs, inputs, time_row):
        """E[G_t | x_t, z_t]: what a state baseline can know."""
        known = jnp.arange(HORIZON) <= time_row
        fill = lambda others: self.expected_return(obs, jnp.where(known, inputs, others), time_row)
        return jnp.mean(jax.vmap(fill)(jnp.asarray(self.inputs_table)))

    def moments(self, baseline):
        estimator = estimators.make_estimator(self.policy, baseline=baseline)
        measure = lambda batch: exact.moments_of(
            estimator.episode_gradients(self.params, (), batch), self.probabilities
        )
        return jax.jit(measure)(self.batch)


@pytest.fixture(scope="module")
def blind_walk():
    with jax.enable_x64(True):
        yield Walk("position")


INPUT = lambda obs: obs[1]


def test_a_baseline_may_know_the_whole_input(float64, blind_walk):
    """Unbiased, and far below the best that the state alone can do: the input makes most of the return."""
    walk = blind_walk
    knowing = walk.moments(baselines.input_dependent(INPUT, walk.expected_return))
    blind = walk.moments(baselines.input_dependent(INPUT, walk.blind))
    none = walk.moments(baselines.none())
    for moments in (knowing, blind, none):
        np.testing.assert_allclose(moments.mean, walk.gradient, atol=1e-10)
    assert none.total_variance > 1.2 * blind.total_variance > 1.2**2 * knowing.total_variance
    # Any function of the input is unbiased, and it is given its row's time and the whole episode's input.
    odd = baselines.input_dependent(INPUT, lambda obs, z, t: obs[0] * z[3] ** 3 - 7 * z[0] * z[2] + t.astype(float))
    np.testing.assert_allclose(walk.moments(odd).mean, walk.gradient, atol=1e-10)
    batch = walk.batch
    values = odd.predict((), batch)
    z = np.asarray(batch.obs)[..., 1]
    by_hand = np.asarray(batch.obs)[..., 0] * z[3] - 7 * z[0] * z[2] + np.arange(4.0)[:, None]
    np.testing.assert_allclose(values, by_hand, atol=1e-12)
    half = batch._replace(alive=batch.alive & (jnp.arange(4) < 2)[:, None])
    assert (np.asarray(odd.predict((), half))[2:] == 0).all()


def test_a_policy_that_sees_the_coming_input_is_no_harm(float64):
    """Given all that X_t shows, the action and the rest of the input are independent: still unbiased."""
    walk = Walk("next input")
    got = walk.moments(baselines.input_dependent(INPUT, lambda obs, z, t: z[1] * z[3] + 3 * z[2]))
    np.testing.assert_allclose(got.mean, walk.gradient, atol=1e-10)
    assert abs(walk.gradient[2]) > 0.01


def test_an_input_that_actions_move_is_the_misuse(float64, blind_walk):
    """The position taken for an input: b_t = x_{t+1} is moved by A_t, off by −Σ_t E[∇E(2A_t − 1 | x_t)] exactly."""
    walk = blind_walk
    position = lambda obs: obs[0]
    look_ahead = lambda obs, x, t: jnp.where(t < HORIZON - 1, x[jnp.minimum(t + 1, HORIZON - 1)], 0.0)
    bias = walk.moments(baselines.input_dependent(position, look_ahead)).mean - walk.gradient
    x = np.asarray(walk.batch.obs)[:-1, :, 0]
    p = 1 / (1 + np.exp(-(0.3 - 0.4 * x)))
    slope = 2 * p * (1 - p)
    wanted = -np.array([(slope * x**n * np.asarray(walk.probabilities)).sum() for n in (0, 1)])
    np.testing.assert_allclose(bias[:2], wanted, atol=1e-10)
    assert np.abs(wanted).max() > 0.5


# A policy that sees no input, played on a problem whose transitions are drawn at random.


def test_a_greedy_episode_from_the_same_start():
    """4·10⁵ episodes: unbiased, below no baseline; the wrong twin compares the episode with itself and learns nothing.

    The problem pays 3 in one start and −3 in the other, which the greedy episode knows.
    """
    mdp = exact.make_tabular_mdp(
        initial=[0.5, 0.5, 0.0],
        successors=np.broadcast_to(np.array([0, 1, 2]), (3, 2, 3)),
        probabilities=[[[0.6, 0.0, 0.4], [0.3, 0.0, 0.7]], [[0.0, 0.5, 0.5], [0.0, 0.2, 0.8]], [[0.3, 0.3, 0.4]] * 2],
        rewards=[[[3.0] * 3, [2.5] * 3], [[-3.0] * 3, [-2.0] * 3], [[0.0] * 3] * 2],
        terminal=[False, False, True],
        horizon=2,
    )
    environment = exact.to_environment(mdp)
    params = jnp.asarray([[0.5, 0.0], [0.2, -0.3], [0.0, 0.0]])
    number = 400_000
    estimator = estimators.make_estimator(
        TABULAR, returns=estimators.total_return(), baseline=baselines.greedy_rollout()
    )
    plain = estimators.make_estimator(TABULAR, returns=estimators.total_return())

    @jax.jit
    def measure(key):
        keys = jax.random.split(key, number)
        batch = rollouts.episodes(environment, TABULAR, params, keys, chunk=2)
        batch = evaluation.with_greedy_returns(environment, TABULAR, params, keys, batch)
        own = jnp.broadcast_to(batch.rewards.sum(axis=0), batch.rewards.shape)
        each = estimator.episode_gradients(params, (), batch)
        itself = estimator.episode_gradients(params, (), batch._replace(greedy_returns=own))
        summary = lambda x: (x.mean(axis=0), x.std(axis=0), jnp.sum(x.var(axis=0)))
        return summary(each), summary(itself), summary(plain.episode_gradients(params, (), batch))

    (mean, spread, variance), itself, (_, _, without) = measure(jax.random.key(1))
    truth = exact.exact_gradient(TABULAR.apply, params, mdp)
    z = (mean - truth)[:2] / (spread[:2] / np.sqrt(number))
    assert np.abs(z).max() < 4.5
    assert variance < 0.6 * without
    np.testing.assert_allclose(itself[0], np.zeros((3, 2)), atol=1e-6)
    assert np.abs(truth[:2] / (spread[:2] / np.sqrt(number))).max() > 20


def test_greedy_rollouts_in_training():
    corridor = environments.make("corridor", horizon=8)
    policy = TABULAR._replace(init=lambda key, obs: jnp.asarray([[0.3, 0.0]]))
    greedy = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=baselines.greedy_rollout())
    trainer = training.make_trainer(corridor, policy, greedy, optax.sgd(0.1), num_episodes=4)
    state = jax.jit(trainer.init)(jax.random.key(0))
    new, metrics = jax.jit(trainer.update)(state)
    # The greedy policy goes left for ever, G_1 = −8; every episode that arrives earlier is above it.
    keys = jax.random.split(jax.random.fold_in(state.key, 0), 4)
    batch = jax.jit(lambda params, keys: rollouts.episodes(corridor, policy, params, keys))(state.params, keys)
    fixed = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=baselines.constant(-8.0))
    wanted = 0.1 * np.asarray(jax.jit(fixed.gradient)(state.params, (), batch)[0])
    np.testing.assert_allclose(new.params - state.params, wanted, atol=1e-6)
    assert metrics["mean_return"] == batch.rewards.sum(axis=0).mean() and np.abs(wanted).max() > 1e-3

    with pytest.raises(ValueError, match=r"greedy_returns, got None"):
        greedy.gradient(state.params, (), batch)
    with pytest.raises(ValueError, match="num_steps must be None with an estimator that needs greedy"):
        training.make_trainer(corridor, policy, greedy, optax.sgd(0.1), num_steps=4)
