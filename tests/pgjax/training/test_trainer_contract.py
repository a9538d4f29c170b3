"""What a trainer promises: groups that share a start, learning as the half of an update, one pass for two fits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR

from pgjax import baselines, environments, estimators, networks, rollouts, training
from pgjax.types import Estimator, Needs

KEY = jax.random.key(0)

CARTPOLE = environments.make("CartPole-v1")

REVERSE = environments.make("reverse", length=3, vocabulary=9)


def watching(needs, parts=1):
    """Learns nothing; its state is X_1 of the last `parts` batches, leaves `[parts, B, ...]`."""

    def init(key, sample):
        return jax.tree.map(lambda x: jnp.zeros((parts, *x.shape[1:]), x.dtype), sample.obs)

    def gradient(params, state, trajectory):
        seen = jax.tree.map(lambda old, obs: jnp.concatenate([old[1:], obs[:1]]), state, trajectory.obs)
        return jax.tree.map(jnp.zeros_like, params), seen, {}

    return Estimator(init=init, gradient=gradient, episode_gradients=None, fits_windows=False, needs=needs)


def starts(environment, estimator, **options):
    """X_1 of every episode of one update, laid flat, `[B, ...]`."""
    policy = networks.make_policy(environment, hidden=())
    trainer = training.make_trainer(environment, policy, estimator, optax.sgd(0.1), num_episodes=8, **options)
    state, _ = jax.jit(trainer.update)(trainer.init(KEY))
    first = jax.tree.leaves(state.estimator_state)[0]
    return np.asarray(first).reshape(8, -1)


def num_different(rows):
    return len(np.unique(rows, axis=0))


GROUPS = baselines.leave_one_out(group_size=4).needs


@pytest.mark.parametrize(
    ("environment", "options", "parts"),
    [(CARTPOLE, {}, 1), (REVERSE, {}, 1), (CARTPOLE, {"microbatches": 2}, 2), (CARTPOLE, {"group_size": 4}, 1)],
    ids=["CartPole", "reverse", "microbatches", "group_size said again"],
)
def test_a_groups_episodes_share_their_start(environment, options, parts):
    assert Needs(group_size=4) == GROUPS
    found = starts(environment, watching(GROUPS, parts), **options)
    groups = found.reshape(2, 4, -1)
    np.testing.assert_array_equal(groups, np.broadcast_to(groups[:, :1], groups.shape))
    assert num_different(found) == 2


@pytest.mark.parametrize(
    ("needs", "options"), [(GROUPS, {"group_size": 1}), (Needs(), {})], ids=["group_size=1", "no groups needed"]
)
def test_without_groups_every_episode_starts_anew(needs, options):
    assert num_different(starts(CARTPOLE, watching(needs), **options)) == 8


def test_groups_may_be_asked_for_by_the_trainer_alone():
    assert num_different(starts(CARTPOLE, watching(Needs()), group_size=2)) == 4


CORRIDOR = environments.make("corridor", horizon=6, observe_state=True)

OF_FOUR = estimators.make_estimator(TABULAR, baseline=baselines.leave_one_out(group_size=4))

VALUES = {
    "returns": estimators.lambda_return(0.9),
    "baseline": baselines.value_function(lambda key, obs: jnp.zeros(4), lambda phi, obs: obs @ phi, optax.sgd(0.1)),
}


@pytest.mark.parametrize(
    ("estimator", "options", "message"),
    [
        (OF_FOUR, {"num_episodes": 10}, r"group_size must divide num_episodes=10, got 4"),
        (OF_FOUR, {"num_episodes": 8, "group_size": 2}, r"group_size must be the estimator's, 4, or 1 .*got 2"),
        (OF_FOUR, {"num_episodes": 8, "group_size": 0}, r"group_size must be .*got 0"),
        (OF_FOUR, {"num_episodes": 8, "group_size": 4.0}, r"group_size must be .*got 4.0"),
        (OF_FOUR, {"num_episodes": 12, "microbatches": 2}, r"group_size must divide .* of a part, 6, got 4"),
        (OF_FOUR, {"num_episodes": 2}, r"group_size must be .*got 4"),
        (
            estimators.make_estimator(TABULAR, **VALUES),
            {"num_episodes": 8, "num_steps": 3, "group_size": 2},
            r"group_size must be 1 with continuing windows \(num_steps\).*got 2",
        ),
        (
            estimators.make_estimator(TABULAR, **VALUES, standardise="group_population", group_size=4),
            {"num_episodes": 8, "num_steps": 3},
            r"group_size must be 1 with continuing windows \(num_steps\).*got 4",
        ),
        (
            estimators.make_estimator(TABULAR, baseline=baselines.greedy_rollout()),
            {"num_episodes": 8, "num_steps": 3},
            r"num_steps must be None with an estimator that needs greedy episodes",
        ),
        (estimators.make_estimator(TABULAR), {"num_episodes": 8, "num_steps": 3}, r"num_steps must be None"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(estimator, options, message):
    with pytest.raises(ValueError, match=message):
        training.make_trainer(CORRIDOR, TABULAR, estimator, optax.sgd(0.1), **options)


def test_learning_from_the_episodes_that_an_update_collects_is_that_update():
    trainer = training.make_trainer(CORRIDOR, TABULAR, OF_FOUR, optax.sgd(0.1), num_episodes=8)
    state, metrics = jax.jit(trainer.update)(trainer.init(KEY))

    @jax.jit
    def in_two_halves(state, key):
        keys = jax.random.split(key, trainer.num_episodes)
        trajectory = rollouts.episodes(CORRIDOR, TABULAR, state.params, keys, group_size=trainer.group_size)
        return trainer.learn(state, trajectory)

    start = trainer.init(KEY)
    learnt, more = in_two_halves(start, jax.random.fold_in(start.key, 0))
    plain = lambda state: state._replace(key=jax.random.key_data(state.key))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain(learnt), plain(state))
    assert learnt.update == 1 and set(more) < set(metrics)
    np.testing.assert_allclose(more["gradient_norm"], metrics["gradient_norm"], rtol=1e-6)
    # A wrong twin: the episodes of another key.
    other, _ = in_two_halves(start, jax.random.fold_in(start.key, 1))
    assert np.abs(other.params - state.params).max() > 1e-3
