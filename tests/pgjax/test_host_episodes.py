"""Episodes and training on the host: the same rows as Gymnasium gives, seeds, masks, ends, and learning."""

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import baselines, environments, estimators, evaluation, networks, rewards, rollouts, training
from pgjax.environments import from_gymnasium
from pgjax.spaces import Box, Discrete


class Count(gymnasium.Env):
    """The observation is the time. The problem ends after 3 steps if the seed is even; rewards are the actions."""

    observation_space = gymnasium.spaces.Dict(
        {"time": gymnasium.spaces.Discrete(50), "half": gymnasium.spaces.Box(-1.0, 99.0, (2,), np.float64)}
    )
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        self.ends = seed is not None and seed % 2 == 0
        return self.seen(), {}

    def seen(self):
        return {"time": self.time, "half": np.full(2, self.time / 2)}

    def step(self, action):
        assert self.action_space.contains(np.asarray(action, np.float64))
        self.time += 1
        return self.seen(), float(action[0]), self.ends and self.time >= 3, False, {}


gymnasium.register("Count-v0", entry_point=Count, max_episode_steps=5)
gymnasium.register("Endless-v0", entry_point=Count)


def constant(size):
    """A policy whose actions are all `size`, beside one normal number that records the key."""
    random = environments.random_policy(environments.make("corridor"))
    sample = lambda key, outputs: jnp.full((1,), size, jnp.float32)
    return random._replace(distribution=random.distribution._replace(sample=sample))


KEYS = jax.random.split(jax.random.key(3), 8)


@pytest.fixture(scope="module")
def count():
    return from_gymnasium("Count-v0")


@pytest.fixture(scope="module")
def episodes(count):
    return rollouts.host_episodes(count, constant(2.0), (), KEYS)


def test_the_record_has_gymnasiums_spaces_and_limit(count):
    assert count.horizon == 5
    assert count.observation_space["time"] == Discrete(50)
    assert count.observation_space["half"] == Box(low=-1.0, high=99.0, shape=(2,))
    assert from_gymnasium("Count-v0", horizon=4).horizon == 4


def test_rows_are_those_of_the_episodes_and_the_rest_is_padding(episodes):
    lengths = episodes.alive.sum(axis=0)
    assert set(lengths) == {3, 5}
    times = np.minimum(np.arange(5)[:, None], lengths)
    last = times == lengths - 1
    np.testing.assert_array_equal(episodes.alive, np.arange(5)[:, None] < lengths)
    written = np.arange(5)[:, None] <= lengths  # a lane that has ended shows its last observation
    np.testing.assert_array_equal(episodes.obs["time"][written], times[written])
    np.testing.assert_array_equal(episodes.obs["half"][..., 0], episodes.obs["time"] / 2)
    np.testing.assert_array_equal(episodes.terminated, last & (lengths == 3) & episodes.alive)
    np.testing.assert_array_equal(episodes.truncated, last & (lengths == 5) & episodes.alive)
    np.testing.assert_array_equal(episodes.final_obs["time"], lengths)
    # Actions of 2 are recorded as they were drawn, and clipped to 1 before Gymnasium gets them.
    assert (episodes.actions == 2).all()
    np.testing.assert_array_equal(episodes.rewards, episodes.alive.astype(np.float32))


def test_the_horizon_truncates_before_gymnasiums_limit():
    played = rollouts.host_episodes(from_gymnasium("Count-v0", horizon=4), constant(0.0), (), KEYS)
    assert played.alive.sum(axis=0).max() == 4 and played.truncated[3].sum() > 0


def test_the_same_keys_give_the_same_episodes_and_groups_share_a_start():
    env = from_gymnasium("Acrobot-v1", horizon=12)
    policy = environments.random_policy(env)
    play = lambda keys, **options: rollouts.host_episodes(env, policy, (), keys, **options)
    one, two, other = play(KEYS), play(KEYS), play(jax.random.split(jax.random.key(4), 8))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert (one.obs[0] != other.obs[0]).any() and (one.actions != other.actions).any()
    starts = play(KEYS, group_size=4).obs[0]
    assert (starts[:4] == starts[0]).all() and (starts[4:] == starts[4]).all() and (starts[0] != starts[4]).any()
    assert len(np.unique(one.obs[0], axis=0)) == 8


def test_actions_have_the_random_numbers_of_episodes_on_the_device():
    env = environments.make("CartPole-v1", horizon=6)
    host = from_gymnasium("CartPole-v1", horizon=6)
    policy = environments.random_policy(env)
    on_device = jax.jit(lambda: rollouts.episodes(env, policy, (), KEYS))()
    np.testing.assert_array_equal(rollouts.host_episodes(host, policy, (), KEYS).actions, on_device.actions)


def test_log_probabilities_are_recorded():
    env = from_gymnasium("CartPole-v1", horizon=8)
    policy = networks.make_policy(env, hidden=(4,))
    params = policy.init(jax.random.key(0), jnp.zeros(4))
    played = rollouts.host_episodes(env, policy, params, KEYS, record_log_probs=True)
    outputs = jax.vmap(jax.vmap(functools.partial(policy.apply, params)))(played.obs)
    expected = jax.vmap(jax.vmap(policy.distribution.log_prob))(outputs, played.actions)
    np.testing.assert_allclose(played.behaviour_log_probs, np.where(played.alive, expected, 0), atol=1e-6)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: from_gymnasium("NoSuch-v0"), "gymnasium:NoSuch-v0 cannot be made"),
        (lambda: from_gymnasium("Count-v0", no_such_option=1), "gymnasium:Count-v0 cannot be made with the options"),
        (lambda: from_gymnasium("Endless-v0"), "gymnasium:Endless-v0 has no limit of its own: give its horizon"),
        (lambda: from_gymnasium("Count-v0", horizon=0), "horizon must be at least 1, got 0"),
        (lambda: from_gymnasium("Count-v0", vectorization="threads"), "vectorization must be one of 'sync', 'async'"),
        (
            lambda: rollouts.host_episodes(environments.make("corridor"), constant(0.0), (), KEYS),
            "environment must be of type HostEnvironment",
        ),
        (
            lambda: rollouts.host_episodes(from_gymnasium("Count-v0"), constant(0.0), (), KEYS, group_size=3),
            "group_size must divide the number of episodes, 8, got 3",
        ),
    ],
)
def test_refusals(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_playing_it_in_jax_is_refused_with_what_to_call(count):
    state, _ = count.reset(jax.random.key(0), ())
    with pytest.raises(Exception, match=r"runs on the host and not in JAX: play it with rollouts\.host_episodes"):
        jax.block_until_ready(count.step(jax.random.key(0), state, jnp.zeros(1), ()))


@pytest.fixture(scope="module")
def cartpole():
    env = from_gymnasium("CartPole-v1", horizon=60)
    policy = networks.make_policy(env, hidden=(16,))
    estimator = estimators.make_estimator(policy, returns=estimators.reward_to_go())
    build = lambda rate: training.make_trainer(env, policy, estimator, optax.adam(rate), num_episodes=16)
    return env, policy, build


def test_training_learns_resumes_and_equals_a_loop_of_learn(cartpole):
    env, policy, build = cartpole
    keys, rates, heard = jax.random.split(jax.random.key(0), 2), jnp.array([0.03, 0.03]), []
    train = functools.partial(training.train_on_host, env, policy, build, keys, rates)
    run = train(num_updates=12, on_chunk=lambda done, metrics, states: heard.append((done, metrics["mean_return"])))
    returns = run.metrics["mean_return"]
    assert returns.shape == (2, 12) and [done for done, _ in heard] == list(range(1, 13))
    np.testing.assert_array_equal(np.concatenate([part for _, part in heard], axis=1), returns)
    assert returns[:, -2:].mean() > returns[:, :2].mean() + 10
    half = train(num_updates=5)
    rest = train(num_updates=7, states=half.states, chunk=3)
    np.testing.assert_array_equal(rest.metrics["mean_return"], returns[:, 5:])
    jax.tree.map(np.testing.assert_array_equal, rest.states.params, run.states.params)

    found = evaluation.evaluate(env, policy, jax.tree.map(lambda x: x[0], run.states.params), jax.random.key(1))
    chance = evaluation.evaluate(env, environments.random_policy(env), (), jax.random.key(1))
    assert found.low > chance.high and found.returns.shape == (100,)
    assert (found.returns == found.lengths).all()


def test_a_run_that_fails_stops_and_the_other_is_finished(cartpole):
    env, policy, build = cartpole
    rates = jnp.array([0.01, jnp.inf])
    with pytest.raises(training.NonFiniteError) as caught:
        training.train_on_host(
            env, policy, build, jax.random.split(jax.random.key(0), 2), rates, num_updates=3, chunk=2
        )
    assert list(caught.value.failures) == [1] and "at update 0" in caught.value.failures[1]
    metrics = caught.value.trained.metrics["mean_return"]
    assert np.isfinite(metrics[0]).all() and metrics.shape == (2, 3) and np.isnan(metrics[1, 1:]).all()


def test_a_kl_penalty_gets_the_log_probabilities_that_it_needs(cartpole):
    """With the reference θ_0 the first penalty is 0, and after a step θ has left θ_0."""
    env, policy, _ = cartpole
    estimator = estimators.make_estimator(policy, returns=estimators.reward_to_go())
    stage = rewards.kl_penalty(policy, kl_coef=0.1)
    build = lambda rate: training.make_trainer(env, policy, estimator, optax.adam(rate), num_episodes=4, rewards=stage)
    keys = jax.random.split(jax.random.key(0), 1)
    run = training.train_on_host(env, policy, build, keys, jnp.array([0.1]), num_updates=2)
    first, second = run.metrics["kl"][0]
    assert first == pytest.approx(0.0, abs=1e-5) and abs(second) > 1e-3


@pytest.mark.parametrize(
    ("estimator_options", "options", "message"),
    [
        ({}, {"microbatches": 2}, "microbatches=2"),
        ({"returns": estimators.lambda_return(0.9, 0.9), "over_time": "mean"}, {"num_steps": 8}, "num_steps=8"),
        ({"baseline": baselines.greedy_rollout()}, {}, "an estimator that needs greedy_returns"),
    ],
)
def test_what_only_update_can_do_is_refused_before_any_episode(
    cartpole, monkeypatch, estimator_options, options, message
):
    env, policy, _ = cartpole
    monkeypatch.setattr(rollouts, "host_episodes", lambda *args, **kwargs: pytest.fail("an episode was played"))
    value = baselines.value_function(*networks.make_value(env, hidden=(4,)), optax.sgd(0.1))
    given = {"returns": estimators.reward_to_go(), "baseline": value} | estimator_options
    estimator = estimators.make_estimator(policy, **given)
    build = lambda _: training.make_trainer(env, policy, estimator, optax.adam(0.1), num_episodes=4, **options)
    with pytest.raises(ValueError, match=f"train_on_host must have a trainer .* with {message}$"):
        training.train_on_host(
            env, policy, build, jax.random.split(jax.random.key(0), 1), jnp.array([0.1]), num_updates=1
        )


class Spoiled(Count):
    """The first reward is NaN."""

    def step(self, action):
        obs, reward, *ends = super().step(action)
        return obs, np.nan if self.time == 1 else reward, *ends


gymnasium.register("Spoiled-v0", entry_point=Spoiled, max_episode_steps=5)


@pytest.mark.filterwarnings("ignore:.*NaN value")
def test_nan_rewards_are_refused_in_an_evaluation():
    env = from_gymnasium("Spoiled-v0")
    with pytest.raises(ValueError, match=r"rewards of environment gymnasium:Spoiled-v0 must be finite"):
        evaluation.evaluate(env, constant(0.0), (), jax.random.key(0), num_episodes=4)
