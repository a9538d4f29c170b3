"""Rollouts: alignment, masks, early exit, auto-reset, and the bias of averaging what happens to finish."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import acting, environments, evaluation, networks, rollouts
from pgjax.types import Box, Discrete, Environment, Step


def countdown(horizon=10):
    """Starts at n ~ U{1, …, 6} and counts down; pays the state it leaves; ends at zero. After its end it overflows."""

    def reset(key, params):
        state = jax.random.randint(key, (), 1, 7).astype(jnp.float32)
        return state, state[None]

    def step(key, state, action, params):
        after = jnp.where(state <= 0.0, jnp.inf, state - 1.0)
        return after, Step(obs=after[None], reward=state, terminated=after <= 0.0)

    return Environment(
        name="countdown",
        reset=reset,
        step=step,
        params=(),
        observation_space=Box(low=0.0, high=6.0, shape=(1,)),
        action_space=Discrete(2),
        horizon=horizon,
    )


@pytest.fixture(scope="module")
def policy():
    return networks.make_policy(countdown(), hidden=())


@pytest.fixture(scope="module")
def params(policy):
    return policy.init(jax.random.key(0), jnp.zeros(1))


@pytest.fixture(scope="module")
def batch(policy, params):
    return jax.jit(lambda keys: rollouts.episodes(countdown(), policy, params, keys, chunk=4))(
        jax.random.split(jax.random.key(1), 64)
    )


def test_row_t_holds_obs_action_and_the_reward_it_caused(batch):
    alive = np.asarray(batch.alive)
    np.testing.assert_array_equal(np.asarray(batch.rewards)[alive], np.asarray(batch.obs)[..., 0][alive])
    np.testing.assert_array_equal(np.diff(np.asarray(batch.obs)[..., 0], axis=0)[alive[1:]], -1.0)


def test_an_episode_lives_exactly_until_its_end(batch):
    start = np.asarray(batch.obs)[0, :, 0]
    np.testing.assert_array_equal(batch.alive.sum(axis=0), start)
    np.testing.assert_array_equal(batch.terminated.sum(axis=0), np.ones(64))
    np.testing.assert_array_equal(batch.rewards.sum(axis=0), start * (start + 1) / 2)
    assert not batch.truncated.any()
    np.testing.assert_array_equal(batch.final_obs, np.zeros((64, 1)))


def test_padding_is_finite_although_the_environment_overflows(batch):
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(batch._asdict()))


def test_the_horizon_alone_truncates(policy, params):
    batch = rollouts.episodes(countdown(horizon=3), policy, params, jax.random.split(jax.random.key(1), 64))
    start = np.asarray(batch.obs)[0, :, 0]
    assert batch.rewards.shape == (3, 64)
    np.testing.assert_array_equal(batch.alive.sum(axis=0), np.minimum(start, 3))
    # An episode that ends by itself on the last step is terminated, not truncated.
    np.testing.assert_array_equal(batch.terminated.any(axis=0), start <= 3)
    np.testing.assert_array_equal(batch.truncated[-1], start > 3)
    np.testing.assert_array_equal(batch.final_obs[:, 0], np.maximum(start - 3, 0))


def test_the_chunk_changes_nothing(policy, params, batch):
    keys = jax.random.split(jax.random.key(1), 64)
    other = rollouts.episodes(countdown(), policy, params, keys, chunk=7)
    live = np.asarray(batch.alive)
    np.testing.assert_array_equal(live, other.alive)
    np.testing.assert_array_equal(np.asarray(batch.actions)[live], np.asarray(other.actions)[live])


def test_an_episode_depends_on_its_key_alone(policy, params, batch):
    keys = jax.random.split(jax.random.key(1), 64)
    some = rollouts.episodes(countdown(), policy, params, keys[10:20], chunk=4)
    np.testing.assert_array_equal(some.rewards, batch.rewards[:, 10:20])
    live = np.asarray(some.alive)
    np.testing.assert_array_equal(np.asarray(some.actions)[live], np.asarray(batch.actions)[:, 10:20][live])


def test_environment_parameters_may_differ_between_lanes():
    environment = environments.make("CartPole-v1")
    policy = networks.make_policy(environment, hidden=())
    params = policy.init(jax.random.key(0), jnp.zeros(4))
    lanes = jax.tree.map(lambda x: jnp.full(2, x, jnp.float32), environment.params)
    lanes = lanes._replace(force_mag=jnp.asarray([10.0, 0.0]))
    key = jnp.stack([jax.random.key(3)] * 2)
    batch = rollouts.episodes(environment, policy, params, key, env_params=lanes, env_params_axis=0)
    assert batch.alive[:, 0].sum() != batch.alive[:, 1].sum()


@pytest.fixture(scope="module")
def reading():
    """A transformer that reports whenever it reads a prompt: environment, policy, θ, and the list of its reports."""
    environment, read = environments.make("reverse", length=2, vocabulary=3), []
    policy = networks.make_policy(environment, network="transformer", hidden=(4,), network_options={"heads": 2})

    def start(params, obs):
        jax.debug.callback(lambda tokens: read.append(tokens.tolist()), obs.tokens)
        return policy.memory.start(params, obs)

    _, obs = environment.reset(jax.random.key(0), ())
    like = policy.init(jax.random.key(0), obs)
    draw = np.random.default_rng(0).standard_normal
    params = jax.tree.map(lambda x: jnp.asarray(draw(x.shape), jnp.float32), like)
    return environment, policy._replace(memory=policy.memory._replace(start=start)), params, read


@pytest.mark.parametrize(("group_size", "count"), [(1, 6), (3, 2)])
def test_a_prompt_is_read_once_for_its_group_and_remembered_by_each_of_its_episodes(reading, group_size, count):
    environment, policy, params, read = reading
    keys = jax.random.split(jax.random.key(1), 6)
    read.clear()
    how = {"group_size": group_size, "record_log_probs": True}
    batch = jax.jit(lambda params: rollouts.episodes(environment, policy, params, keys, **how))(params)
    jax.effects_barrier()
    prompts = np.asarray(batch.obs.tokens[0])
    assert sorted(read) == sorted(prompts[::group_size].tolist()) and len(read) == count
    np.testing.assert_array_equal(prompts, prompts[::group_size].repeat(group_size, 0))
    # A memory of another prompt would have drawn the actions with other probabilities.
    np.testing.assert_allclose(batch.behaviour_log_probs, acting.log_probs(policy, params, batch), atol=1e-5)
    assert np.ptp(batch.behaviour_log_probs) > 0.1


@pytest.fixture(scope="module")
def continuing(policy, params):
    environment = countdown(horizon=4)
    lanes = rollouts.start_lanes(environment, policy, params, jax.random.split(jax.random.key(1), 16))
    return jax.jit(lambda lanes: rollouts.window(environment, policy, params, lanes, 12))(lanes)


def test_a_window_resets_inside_and_keeps_the_observation_before(continuing):
    _, batch, finished = continuing
    cut = np.asarray(batch.terminated | batch.truncated)
    obs, following = np.asarray(batch.obs)[..., 0], np.asarray(batch.next_obs)[..., 0]
    np.testing.assert_array_equal(following, obs - 1.0)
    np.testing.assert_array_equal(obs[1:][~cut[:-1]], following[:-1][~cut[:-1]])
    assert (obs[1:][cut[:-1]] >= 1).all() and batch.alive.all()
    assert finished.count == cut.sum() and batch.truncated.any() and batch.terminated.any()
    np.testing.assert_array_equal(batch.final_obs[:, 0], following[-1])


def test_finished_episodes_count_rewards_from_earlier_windows(policy, params, continuing):
    environment = countdown(horizon=4)
    lanes = rollouts.start_lanes(environment, policy, params, jax.random.split(jax.random.key(1), 16))
    total = 0.0
    for _ in range(4):
        lanes, _, finished = rollouts.window(environment, policy, params, lanes, 3)
        total += finished.total_return
    np.testing.assert_allclose(total, continuing[2].total_return)


def test_averaging_what_finishes_inside_a_window_is_biased_short():
    """Random CartPole lasts 22 steps on average; in a window of 32 the long episodes have not finished."""
    environment = environments.make("CartPole-v1")
    policy = networks.make_policy(environment, hidden=())
    params = jax.tree.map(jnp.zeros_like, policy.init(jax.random.key(0), jnp.zeros(4)))
    keys = jax.random.split(jax.random.key(1), 4096)
    exact = evaluation.evaluate(environment, policy, params, jax.random.key(2), num_episodes=4096)
    lanes = rollouts.start_lanes(environment, policy, params, keys)
    _, _, finished = jax.jit(lambda lanes: rollouts.window(environment, policy, params, lanes, 32))(lanes)
    biased = finished.total_return / finished.count
    assert 21.5 < exact.mean < 23.0
    assert biased < exact.mean - 20 * exact.stderr and 16.0 < biased < 18.5


@pytest.mark.parametrize("keys", [jax.random.key(1), jnp.zeros((4, 2), jnp.uint32)], ids=["one key", "raw keys"])
def test_keys_that_are_not_one_for_each_episode_are_refused(policy, params, keys):
    with pytest.raises(ValueError, match=r"keys must be typed keys of shape \[B\], one for each episode, got"):
        rollouts.episodes(countdown(horizon=4), policy, params, keys)
    with pytest.raises(ValueError, match=r"keys must be typed keys of shape \[B\]"):
        rollouts.start_lanes(countdown(horizon=4), policy, params, keys)


@pytest.mark.parametrize("axis", [1, -1, True, 0.0, (0,)])
def test_an_axis_of_parameters_that_is_not_0_or_none_is_refused(policy, params, axis):
    environment, keys = countdown(horizon=4), jax.random.split(jax.random.key(0), 3)
    with pytest.raises(ValueError, match=rf"^env_params_axis must be 0 .* or None .*, got {re.escape(repr(axis))}$"):
        rollouts.episodes(environment, policy, params, keys, env_params=jnp.ones((3, 3)), env_params_axis=axis)


@pytest.mark.parametrize("wrong", [jnp.ones(2), jnp.ones((1, 3)), 1.0], ids=["two rows", "one row", "a number"])
def test_parameters_without_a_row_for_each_episode_are_refused_by_name(policy, params, wrong):
    environment, keys = countdown(horizon=4), jax.random.split(jax.random.key(0), 3)
    shape = re.escape(str(list(jnp.shape(wrong))))
    message = rf"env_params\['odd'\] must have 3 rows, .*, got the shape {shape}$"
    message = message if jnp.ndim(wrong) else r"params\['odd'\]: saw a single number, wanted a first axis \[B\]"
    with pytest.raises(ValueError, match=message):
        parameters = {"good": jnp.ones(3), "odd": wrong}
        rollouts.episodes(environment, policy, params, keys, env_params=parameters, env_params_axis=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_steps": 0}, "^num_steps must be at least 1, got 0$"),
        ({"num_steps": "3"}, "^num_steps must be an integer at least 1, got '3'$"),
        ({"lanes": ()}, r"^lanes must be of type Lanes \(such as rollouts.start_lanes"),
        ({"env_params": "heavy"}, "^environment countdown: params: saw str, wanted a number or an array$"),
    ],
)
def test_arguments_of_a_window_that_do_not_fit_are_refused_by_name(policy, params, wrong, message):
    environment = countdown(horizon=4)
    lanes = rollouts.start_lanes(environment, policy, params, jax.random.split(jax.random.key(0), 3))
    with pytest.raises(ValueError, match=message):
        rollouts.window(environment, policy, params, **({"lanes": lanes, "num_steps": 2} | wrong))
