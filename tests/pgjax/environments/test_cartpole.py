"""CartPole-v1 is Gymnasium's, step by step, and keeps the contract."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.environments import check, make
from pgjax.environments.cartpole import CartPoleParams, make_cartpole

# Gymnasium computes in float64. One float32 step loses a few ulp of the largest number, 3, that is 5e-7.
TOLERANCE = 2e-6
NUM_STATES = 400


@pytest.fixture(scope="module")
def env():
    return make_cartpole()


@pytest.fixture(scope="module")
def step(env):
    batched = jax.jit(jax.vmap(env.step, (None, 0, 0, None)))
    return lambda states, actions, params=env.params: batched(jax.random.key(0), states, actions, params)


@pytest.fixture(scope="module")
def transitions():
    """States on both sides of every threshold, actions, and what Gymnasium makes of them."""
    rng = np.random.default_rng(0)
    states = rng.uniform(-1, 1, (NUM_STATES, 4)) * [2.5, 3.0, 0.22, 3.0]
    states = states.astype(np.float32)
    actions = rng.integers(0, 2, NUM_STATES)
    reference = gymnasium.make("CartPole-v1").unwrapped
    reference.reset(seed=0)
    results = []
    for state, action in zip(states, actions):
        reference.state, reference.steps_beyond_terminated = state.astype(float), None
        results.append(reference.step(int(action))[:3])
    obs, rewards, terminated = (np.array(column) for column in zip(*results))
    return states, actions, obs, rewards, terminated


def largest_error(step, transitions, params):
    states, actions, obs, _, _ = transitions
    return np.abs(np.asarray(step(states, actions, params)[0]) - obs).max()


def test_equals_gymnasium_step_by_step(env, step, transitions):
    states, actions, _, rewards, terminated = transitions
    new_states, seen = step(states, actions)
    assert largest_error(step, transitions, env.params) < TOLERANCE
    np.testing.assert_array_equal(seen.obs, new_states)
    np.testing.assert_array_equal(seen.reward, rewards)
    np.testing.assert_array_equal(seen.terminated, terminated)
    assert 0 < terminated.sum() < NUM_STATES


@pytest.mark.parametrize("wrong", [{"gravity": 9.81}, {"tau": 0.0201}, {"length": 0.51}, {"masspole": 0.101}])
def test_a_wrong_constant_is_seen(step, transitions, wrong):
    assert largest_error(step, transitions, CartPoleParams(**wrong)) > 5 * TOLERANCE


def test_the_mirror_image_of_a_step_is_a_step(step, transitions):
    states, actions, *_ = transitions
    np.testing.assert_array_equal(step(-states, 1 - actions)[0], -step(states, actions)[0])


def test_starts_within_five_hundredths_and_goes_on_for_500_steps(env):
    state, obs = jax.vmap(env.reset, (0, None))(jax.random.split(jax.random.key(1), 64), env.params)
    np.testing.assert_array_equal(state, obs)
    assert 0.04 < np.abs(obs).max() <= 0.05
    assert env.horizon == 500
    assert make("CartPole-v1", horizon=200).horizon == 200


@pytest.mark.parametrize("horizon", [0, -1, 2.5, "500"])
def test_refuses_a_horizon_that_is_not_a_positive_integer(horizon):
    with pytest.raises(ValueError, match="horizon must be a positive integer, got"):
        make_cartpole(horizon=horizon)


def test_conforms_and_only_its_reset_is_random(env):
    report = check(env)
    assert report.random_reset and not report.random_step
    assert report.terminations > 0


def test_parameters_may_differ_between_lanes(env, transitions):
    states, actions, *_ = transitions
    lengths = jnp.linspace(0.3, 0.8, 5)
    lanes = jax.vmap(lambda length, s, a: env.step(jax.random.key(0), s, a, CartPoleParams(length=length))[0])
    moved = jax.jit(lanes)(lengths, states[:5], actions[:5])
    one = jax.jit(env.step)
    for lane, length in enumerate(lengths):
        alone, _ = one(jax.random.key(0), states[lane], actions[lane], CartPoleParams(length=length))
        np.testing.assert_allclose(moved[lane], alone, atol=TOLERANCE)


def test_stays_float32_under_strict_promotion_and_x64(env):
    key = jax.random.key(0)
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        state, _ = jax.eval_shape(env.reset, key, env.params)
        jax.eval_shape(env.step, key, state, jnp.int32(1), env.params)
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.float64, env.params)
        new_state, seen = jax.eval_shape(env.step, key, state, jnp.int64(1), params)
    assert new_state.dtype == seen.obs.dtype == seen.reward.dtype == jnp.float32


def test_the_picture_mirrors_with_the_state(env):
    draw = lambda obs: env.render(obs, obs, env.params)
    picture, mirrored = draw([0.9, 0.0, 0.12, 0.0]), draw([-0.9, 0.0, -0.12, 0.0])
    assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[-1] == 3
    difference = np.abs(picture[:, ::-1].astype(float) - mirrored)
    assert difference.mean() < 0.5 < np.abs(picture.astype(float) - mirrored).mean()
    with pytest.raises(ValueError, match=r"obs must have shape \[4\], got \[3\]"):
        draw(np.zeros(3))


def test_the_picture_shows_the_limits_of_the_parameters(env):
    obs = [0.0, 0.0, 0.3, 0.0]
    wide = env.params._replace(theta_threshold_radians=0.4)
    assert np.any(env.render(obs, obs, env.params) != env.render(obs, obs, wide))
