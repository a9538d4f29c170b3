"""The baseline of a greedy episode, against exact gradients and in training."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import baselines, environments, estimators, evaluation, exact, rollouts, training
from pgjax.distributions import categorical
from pgjax.types import Policy

LOGITS = lambda params, obs: obs @ params
TABLE = Policy(init=lambda key, obs: jnp.zeros((3, 2)), apply=LOGITS, distribution=categorical)


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
    estimator = estimators.make_estimator(TABLE, returns=estimators.total_return(), baseline=baselines.greedy_rollout())
    plain = estimators.make_estimator(TABLE, returns=estimators.total_return())

    @jax.jit
    def measure(key):
        keys = jax.random.split(key, number)
        batch = rollouts.episodes(environment, TABLE, params, keys, chunk=2)
        batch = evaluation.with_greedy_returns(environment, TABLE, params, keys, batch)
        own = jnp.broadcast_to(batch.rewards.sum(axis=0), batch.rewards.shape)
        each = estimator.episode_gradients(params, (), batch)
        itself = estimator.episode_gradients(params, (), batch._replace(greedy_returns=own))
        summary = lambda x: (x.mean(axis=0), x.std(axis=0), jnp.sum(x.var(axis=0)))
        return summary(each), summary(itself), summary(plain.episode_gradients(params, (), batch))

    (mean, spread, variance), itself, (_, _, without) = measure(jax.random.key(1))
    truth = exact.exact_gradient(TABLE.apply, params, mdp)
    z = (mean - truth)[:2] / (spread[:2] / np.sqrt(number))
    assert np.abs(z).max() < 4.5
    assert variance < 0.6 * without
    np.testing.assert_allclose(itself[0], np.zeros((3, 2)), atol=1e-6)
    assert np.abs(truth[:2] / (spread[:2] / np.sqrt(number))).max() > 20


def test_greedy_rollouts_in_training():
    corridor = environments.make("corridor", horizon=8)
    policy = TABLE._replace(init=lambda key, obs: jnp.asarray([[0.3, 0.0]]))
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
