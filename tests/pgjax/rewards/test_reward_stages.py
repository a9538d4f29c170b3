"""The reward stage inside training: exact gradients, state between updates, refits without compiling."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR

from pgjax import baselines, environments, estimators, rewards, training
from pgjax.saving import checkpoints
from pgjax.types import Trajectory

KEY = jax.random.key(0)


def batch_of(values, log_probs=None):
    """Everything is alive, and the last row ends its episode."""
    values = jnp.asarray(values)
    shape = values.shape
    ends = jnp.broadcast_to(jnp.arange(shape[0])[:, None] == shape[0] - 1, shape)
    return Trajectory(
        obs=jnp.ones((*shape, 1)),
        actions=jnp.zeros(shape, jnp.int32),
        rewards=values,
        alive=jnp.ones(shape, bool),
        terminated=ends,
        truncated=jnp.zeros(shape, bool),
        final_obs=jnp.ones((shape[1], 1)),
        behaviour_log_probs=log_probs,
    )


def spied(estimator, look):
    """The estimator, which adds the numbers `look(trajectory)` to its metrics."""

    def gradient(params, state, trajectory):
        estimate, state, metrics = estimator.gradient(params, state, trajectory)
        return estimate, state, metrics | look(trajectory)

    return estimator._replace(gradient=gradient)


CORRIDOR = environments.make("corridor", horizon=6)


def preferences(estimator=None, kl_coef=0.1):
    """A reward model r(A_t) = φ A_t, and a KL penalty after it."""
    model = rewards.reward_model(lambda phi, trajectory: phi * trajectory.actions, jnp.ones(()))
    return training.make_trainer(
        CORRIDOR,
        TABULAR,
        estimators.make_estimator(TABULAR) if estimator is None else estimator,
        optax.adam(0.1),
        num_episodes=4,
        rewards=rewards.in_turn(model, rewards.kl_penalty(TABULAR, kl_coef)),
    )


def put(state, phi, kl_coef):
    model, penalty = state.reward_state
    filled = lambda old, new: jnp.full_like(old, new)
    penalty = penalty._replace(kl_coef=filled(penalty.kl_coef, kl_coef))
    return state._replace(reward_state=(model._replace(params=filled(model.params, phi)), penalty))


def test_six_rounds_of_refitting_are_one_trace():
    trainer = preferences()
    chex.clear_trace_counter()
    update = jax.jit(chex.assert_max_traces(trainer.update, n=1))
    start, norm, paid = trainer.init(KEY), {}, set()
    for phi in (0.0, 1.0, 2.0, -1.0):
        _, metrics = update(put(start, phi, 0.0))
        norm[phi] = float(metrics["gradient_norm"])
        paid.add(float(metrics["environment_return"]))
        assert metrics["kl"] == 0.0
    # θ, the episodes and what the environment paid are the same; the gradient is linear in φ.
    assert len(paid) == 1 and norm[0.0] == 0.0 and norm[1.0] > 0.01
    np.testing.assert_allclose([norm[2.0], norm[-1.0]], [2 * norm[1.0], norm[1.0]], rtol=1e-5)
    state, _ = update(put(start, 1.0, 0.0))
    # Away from the reference β counts, with episodes and model as they were.
    near, far = (update(put(state, 0.0, kl_coef))[1] for kl_coef in (1.0, 4.0))
    assert near["kl"] == far["kl"] != 0.0
    np.testing.assert_allclose(far["gradient_norm"], 4 * near["gradient_norm"], rtol=1e-5)


def test_chained_rounds_with_a_growing_coefficient_stay_nearer():
    trainer = preferences()
    update = jax.jit(trainer.update)

    def distance(kl_coef):
        state = trainer.init(KEY)
        for _ in range(30):
            state, _ = update(put(state, 1.0, kl_coef))
        return float(jnp.abs(state.params - state.reward_state[1].reference).max())

    free, held = distance(0.0), distance(20.0)
    assert free > 1.0 and held < 0.3 * free


def test_a_donated_state_gives_nothing_away_twice():
    trainer = preferences()
    update = jax.jit(trainer.update, donate_argnums=0)
    for init in (trainer.init, jax.jit(trainer.init)):
        state, wanted = init(KEY), init(KEY)
        for _ in range(2):
            state, _ = update(state)
        np.testing.assert_array_equal(state.reward_state[1].reference, wanted.params)
    # A wrong twin: θ itself as the reference.
    state = trainer.init(KEY)
    model, penalty = state.reward_state
    shared = state._replace(reward_state=(model, penalty._replace(reference=state.params)))
    with pytest.raises(ValueError, match="donate"):
        update(shared)


def test_the_state_is_saved_with_the_rest_and_training_goes_on_bit_for_bit(tmp_path):
    trainer = training.make_trainer(
        CORRIDOR,
        TABULAR,
        estimators.make_estimator(TABULAR, baseline=baselines.moving_average()),
        optax.adam(0.1),
        num_episodes=4,
        rewards=rewards.in_turn(rewards.kl_penalty(TABULAR, 0.5), rewards.running_scale(0.5)),
    )
    update = jax.jit(trainer.update)
    state, _ = update(trainer.init(KEY))
    checkpoints.save(tmp_path / "state", state)
    restored = checkpoints.restore(tmp_path / "state", jax.eval_shape(trainer.init, KEY))
    assert restored.reward_state[1].num_updates == 1 and restored.reward_state[1].mean_square > 0
    plain = lambda state: state._replace(key=jax.random.key_data(state.key))
    same = lambda a, b: jax.tree.map(np.testing.assert_array_equal, plain(a), plain(b))
    same(restored, state)
    same(update(restored)[0], update(state)[0])
    # A wrong twin: with the stage's state as it was at the start another θ is reached.
    forgetful = state._replace(reward_state=trainer.init(KEY).reward_state)
    assert np.any(update(forgetful)[0].params != update(state)[0].params)


def test_what_the_environment_pays_passes_unchanged():
    batch = batch_of([[1.0, 2.0], [3.0, 4.0]])
    stage = rewards.as_paid()
    relabelled, metrics = stage.relabel((), stage.init(KEY, ()), batch)
    assert relabelled is batch and metrics == {} and stage.update((), batch) == ()


def test_a_function_of_the_trajectory_is_a_stage():
    batch = batch_of([[1.0, 2.0], [3.0, 4.0]])
    stage = rewards.transform(lambda trajectory: rewards.scale(trajectory, -2.0))
    relabelled, metrics = stage.relabel((), stage.init(KEY, ()), batch)
    np.testing.assert_array_equal(relabelled.rewards, [[-2.0, -4.0], [-6.0, -8.0]])
    assert metrics == {} and not stage.needs_log_probs


def test_a_reward_model_stands_for_the_rewards_and_tells_what_was_paid():
    batch = batch_of([[1.0, 2.0], [3.0, 4.0]])._replace(alive=jnp.asarray([[True, True], [True, False]]))
    stage = rewards.reward_model(lambda phi, trajectory: phi + 0.0 * trajectory.rewards, jnp.asarray(5.0))
    state = stage.init(KEY, ())
    relabelled, metrics = stage.relabel((), state, batch)
    np.testing.assert_array_equal(relabelled.rewards, [[5.0, 5.0], [5.0, 0.0]])
    assert metrics["environment_return"] == 5.0
    assert stage.update(state, relabelled) is state


def test_a_running_scale_is_used_and_then_updated():
    """By hand: returns (3, 4), then (6, 0), then none; decay 1/2."""
    stage = rewards.running_scale(0.5)
    state = stage.init(KEY, ())
    scales = []
    for paid in ([[1.0, 4.0], [2.0, 0.0]], [[6.0, 0.0], [0.0, 0.0]], [[0.0, 0.0], [0.0, 0.0]]):
        relabelled, metrics = stage.relabel((), state, batch_of(paid))
        scales.append(float(metrics["reward_scale"]))
        np.testing.assert_allclose(relabelled.rewards, np.asarray(paid) / scales[-1], rtol=1e-6)
        state = stage.update(state, relabelled)
    squares = 12.5, (12.5 + 18.0) / 2
    # Updated before use, the first scale would be √12.5.
    np.testing.assert_allclose(scales, [1.0, *np.sqrt(squares)], rtol=1e-6)
    np.testing.assert_allclose(state.mean_square, squares[1] / 2, rtol=1e-6)
    assert state.num_updates == 3


def test_returns_of_zero_leave_the_scale_at_one():
    stage = rewards.running_scale(0.5)
    state = stage.init(KEY, ())
    relabelled, _ = stage.relabel((), state, batch_of([[0.0, 0.0]]))
    state = stage.update(state, relabelled)
    relabelled, metrics = stage.relabel((), state, batch_of([[2.0, 2.0]]))
    assert metrics["reward_scale"] == 1.0
    np.testing.assert_array_equal(relabelled.rewards, [[2.0, 2.0]])
    assert stage.update(state, relabelled).mean_square == 2.0


def test_stages_follow_one_another():
    """r = 10 A from the model, minus β ln f/f_ref, in units of the scale; each has its own state and metrics."""
    log_probs = jnp.log(jnp.asarray([[0.5, 0.25]]))
    batch = batch_of([[7.0, 9.0]], log_probs)._replace(actions=jnp.asarray([[0, 1]]))
    model = rewards.reward_model(lambda phi, trajectory: phi * trajectory.actions, jnp.asarray(10.0))
    stage = rewards.in_turn(model, rewards.kl_penalty(TABULAR, 2.0, jnp.zeros((1, 2))), rewards.running_scale())
    assert stage.needs_log_probs and not rewards.in_turn(model, rewards.as_paid()).needs_log_probs
    state = stage.init(KEY, jnp.ones((1, 2)))
    relabelled, metrics = stage.relabel((), state, batch)
    wanted = np.asarray([[0.0, 10.0 - 2.0 * np.log(0.25 / 0.5)]])
    np.testing.assert_allclose(relabelled.rewards, wanted, rtol=1e-6)
    assert set(metrics) == {"environment_return", "kl", "reward_scale"}
    np.testing.assert_allclose([metrics["environment_return"], metrics["kl"]], [8.0, np.log(0.5) / 2], rtol=1e-6)
    moved = stage.update(state, relabelled)
    np.testing.assert_allclose(moved[2].mean_square, np.mean(wanted**2), rtol=1e-6)
    again, _ = stage.relabel((), moved, batch)
    np.testing.assert_allclose(again.rewards, wanted / np.sqrt(np.mean(wanted**2)), rtol=1e-6)
    # In the other order the penalty would be lost, since a model replaces what it finds.
    other = rewards.in_turn(rewards.kl_penalty(TABULAR, 2.0, jnp.zeros((1, 2))), model)
    lost, _ = other.relabel((), other.init(KEY, ()), batch)
    np.testing.assert_array_equal(lost.rewards, [[0.0, 10.0]])


def test_the_greedy_episodes_are_paid_by_the_reward_model_too():
    look = lambda trajectory: {"greedy": trajectory.greedy_returns[0], "returns": jnp.sum(trajectory.rewards, axis=0)}
    greedy = spied(estimators.make_estimator(TABULAR, baseline=baselines.greedy_rollout()), look)
    model = lambda sign: rewards.reward_model(lambda phi, trajectory: phi * trajectory.rewards, jnp.asarray(sign))
    found = {}
    for sign in (1.0, -1.0):
        trainer = training.make_trainer(CORRIDOR, TABULAR, greedy, optax.sgd(0.1), num_episodes=4, rewards=model(sign))
        state = trainer.init(KEY)._replace(params=jnp.asarray([[0.0, 1.0]]))
        found[sign] = jax.jit(trainer.update)(state)[1]
    for name in ("greedy", "returns"):
        assert np.all(found[1.0][name] < 0)
        np.testing.assert_array_equal(found[-1.0][name], -found[1.0][name])
    # The weights change sign with the rewards: were the greedy ones not relabelled, this gradient would be another.
    np.testing.assert_allclose(found[-1.0]["gradient_norm"], found[1.0]["gradient_norm"], rtol=1e-6)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rewards.kl_penalty(TABULAR, -0.1), "kl_coef must be .*got -0.1"),
        (lambda: rewards.running_scale(1.5), "decay must be .*got 1.5"),
        (lambda: rewards.in_turn(), "in_turn needs at least one stage"),
    ],
)
def test_bad_stages_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_a_penalty_without_recorded_log_probabilities_is_refused():
    stage = rewards.kl_penalty(TABULAR, 0.1)
    with pytest.raises(ValueError, match=r"kl_penalty needs trajectory\.behaviour_log_probs"):
        stage.relabel((), stage.init(KEY, jnp.zeros((1, 2))), batch_of([[1.0]]))
