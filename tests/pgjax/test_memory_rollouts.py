"""A policy with memory through rollouts, windows, evaluation and every family of estimators."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import baselines, environments, estimators, evaluation, networks, rollouts, training
from pgjax.baselines import critics
from pgjax.types import Trajectory

RECALL = environments.make("recall", cues=2, delay=2)
GRU = networks.make_policy(RECALL, network="gru", hidden=(), network_options={"memory_size": 3})
LANES, STEPS = 6, 5


@pytest.fixture(scope="module")
def params():
    """θ as it may be after training: every gate moves, so that the memory counts."""
    like = jax.eval_shape(GRU.init, jax.random.key(0), jnp.zeros(3))
    draw = np.random.default_rng(0).standard_normal
    return jax.tree.map(lambda x: jnp.asarray(draw(x.shape), jnp.float32), like)


@pytest.fixture(scope="module")
def batch(params):
    play = lambda params, keys: rollouts.episodes(RECALL, GRU, params, keys, record_log_probs=True)
    return jax.jit(play)(params, jax.random.split(jax.random.key(1), LANES))


@pytest.fixture(scope="module")
def windows(params):
    """Two windows in a row; episodes of three steps end inside both, and go on from the first to the second."""

    @jax.jit
    def play(params, keys):
        lanes = rollouts.start_lanes(RECALL, GRU, params, keys)
        lanes, first, _ = rollouts.window(RECALL, GRU, params, lanes, STEPS, record_log_probs=True)
        return first, rollouts.window(RECALL, GRU, params, lanes, STEPS, record_log_probs=True)[1]

    return play(params, jax.random.split(jax.random.key(2), LANES))


recompute = jax.jit(lambda params, batch: estimators.record_behaviour(GRU, params, batch).behaviour_log_probs)


def test_what_is_recorded_in_episodes_is_what_all_rows_at_once_give(params, batch):
    again = recompute(params, batch._replace(behaviour_log_probs=None))
    np.testing.assert_allclose(again, batch.behaviour_log_probs, atol=1e-6)
    assert batch.carry is None and np.abs(again[-1]).max() > 0.1


def test_a_window_begins_with_the_memory_of_the_one_before_and_forgets_where_an_episode_ended(params, windows):
    for window in windows:
        assert window.terminated.any() and window.carry.shape == (LANES, 3)
        again = recompute(params, window)
        np.testing.assert_allclose(again, window.behaviour_log_probs, atol=1e-6)
    second = windows[1]
    # Twins: a window that begins with an empty memory, and one that does not forget at the end of an episode.
    empty = recompute(params, second._replace(carry=jnp.zeros_like(second.carry)))
    assert np.abs(empty - second.behaviour_log_probs).max() > 1e-3
    endless = recompute(params, second._replace(terminated=jnp.zeros_like(second.terminated)))
    assert np.abs(endless - second.behaviour_log_probs).max() > 1e-3


def test_a_window_without_its_memory_is_refused(params, windows):
    with pytest.raises(ValueError, match=r"trajectory.carry must hold the memory of the policy"):
        jax.eval_shape(recompute, params, windows[0]._replace(carry=None))


def test_evaluation_plays_the_same_episodes(params, batch):
    found = evaluation.evaluate(RECALL, GRU, params, jax.random.key(1), num_episodes=LANES)
    np.testing.assert_allclose(found.returns, batch.rewards.sum(axis=0))


ADAM = optax.adam(1e-2)
VALUE = baselines.value_function(*networks.make_value(RECALL, hidden=(4,)), ADAM)
CRITIC = critics.action_value_function(*networks.make_action_values(RECALL, hidden=(4,)), ADAM)
TOTAL = {"returns": estimators.total_return()}
PLAIN = estimators.make_estimator(GRU, **TOTAL)
FAMILIES = {
    "value": estimators.make_estimator(GRU, baseline=VALUE, entropy_coef=0.1),
    "optimal constant": estimators.make_estimator(GRU, baseline=baselines.optimal_constant(), **TOTAL),
    "optimal, left out, to go": estimators.make_estimator(GRU, baseline=baselines.optimal_leave_one_out()),
    "critic": estimators.make_critic_estimator(GRU, CRITIC, form="trajectory_wise"),
    "importance": estimators.importance_weighted(GRU, baseline=VALUE),
    "per parameter": estimators.per_parameter(GRU),
    "natural": estimators.natural(PLAIN, GRU, damping=0.1, iterations=40),
}


@pytest.mark.parametrize(
    "name",
    [name if name in ("value", "per parameter") else pytest.param(name, marks=pytest.mark.slow) for name in FAMILIES],
)
def test_every_family_takes_it_and_its_episodes_average_to_its_gradient(name, params, batch):
    estimator = FAMILIES[name]

    @jax.jit
    def both(params, batch: Trajectory):
        state = estimator.init(jax.random.key(0), batch)
        # The second batch meets a state that has learnt.
        _, state, _ = estimator.gradient(params, state, batch)
        return estimator.gradient(params, state, batch)[0], estimator.episode_gradients(params, state, batch)

    gradient, each = both(params, batch)
    close = lambda a, b: np.testing.assert_allclose(a, b.mean(axis=0), atol=1e-4 if name == "natural" else 1e-5)
    jax.tree.map(close, gradient, each)
    assert max(np.abs(x).max() for x in jax.tree.leaves(gradient)) > 1e-3


@pytest.mark.slow
def test_it_trains_in_windows():
    value = estimators.make_estimator(GRU, returns=estimators.lambda_return(0.9), baseline=VALUE, over_time="mean")
    trainer = training.make_trainer(RECALL, GRU, value, ADAM, num_episodes=LANES, num_steps=STEPS)

    @jax.jit
    def run(key):
        return jax.lax.scan(lambda state, _: trainer.update(state), trainer.init(key), length=3)

    state, metrics = run(jax.random.key(0))
    assert state.lanes.carry.shape == (LANES, 3) and np.isfinite(metrics["gradient_norm"]).all()
