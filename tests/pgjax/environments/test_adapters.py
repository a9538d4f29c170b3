"""gymnax in and out: every id conforms, classic control is Gymnasium's, there and back is the identity."""

import functools
from typing import NamedTuple

import gymnasium
import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment as gymnax_environment
from gymnax.wrappers.purerl import LogWrapper

from pgjax.environments import available, check, from_gymnax, make
from pgjax.environments.cartpole import make_cartpole
from pgjax.spaces import Box, Discrete

QUICK = ("Pendulum-v1", "MountainCar-v0", "FrozenLake-misc", "Breakout-MinAtar")

# The environments that pgjax ships have no prefix and are checked in their own files.
OWN = tuple(name for name in available() if name not in gymnax.registered_envs or name == "CartPole-v1")
SLOW = ("gymnax:CartPole-v1", *(name for name in available() if name not in (*QUICK, *OWN)))

KEY = jax.random.key(0)


@functools.cache
def made(name):
    return make(name)


@functools.cache
def compiled(name):
    env = made(name)
    return jax.jit(env.reset), jax.jit(env.step)


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_conforms(name):
    assert check(made(name)).name == name


def test_every_id_is_either_checked_or_downloads():
    ids = {name.removeprefix("gymnax:") for name in (*QUICK, *SLOW)}
    assert ids == set(gymnax.registered_envs) - {"MNISTBandit-bsuite"}


@pytest.mark.parametrize(
    ("name", "space"),
    [
        ("Catch-bsuite", Box(low=0.0, high=1.0, shape=(10, 5), dtype=np.dtype("float32"))),
        ("FourRooms-misc", Box(low=1.0, high=11.0, shape=(4,), dtype=np.dtype("int32"))),
        ("FrozenLake-misc", Discrete(16, dtype=np.dtype("int32"))),
        ("MemoryChain-bsuite", Box(low=-np.inf, high=np.inf, shape=(3,), dtype=np.dtype("float32"))),
        (
            "gymnax:CartPole-v1",
            Box(
                low=(-4.800000190734863, -np.inf, -0.41887903213500977, -np.inf),
                high=(4.800000190734863, np.inf, 0.41887903213500977, np.inf),
                shape=(4,),
                dtype=np.dtype("float32"),
            ),
        ),
    ],
)
def test_the_observation_space_is_that_of_the_observations(name, space):
    assert made(name).observation_space == space


class Pair(NamedTuple):
    """Gymnasium's version of an environment beside gymnax's: a state's fields, and where states are drawn.

    One float32 step misses the float64 one from the same state by a few ulp of the largest number in it,
    which `tolerance` (of observations) and `reward_tolerance` allow; `wrong` is a constant that they catch.
    """

    name: str
    fields: tuple[str, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]
    tolerance: float
    reward_tolerance: float
    wrong: dict[str, float]

    def draws(self):
        """States `[600, fields]` and actions `[600, ...]`."""
        rng, space = np.random.default_rng(1), gymnasium.make(self.name).action_space
        space.seed(2)
        states = rng.uniform(self.low, self.high, (600, len(self.fields))).astype(np.float32)
        return states, np.array([space.sample() for _ in states])

    def gymnasium(self):
        """(obs, reward, terminated) of one step from every state."""
        env = gymnasium.make(self.name).unwrapped
        env.reset(seed=0)
        results = []
        for state, action in zip(*self.draws()):
            env.state, env.steps_beyond_terminated = state.astype(float), None
            results.append(env.step(action)[:3])
        return tuple(np.array(column) for column in zip(*results))

    def gymnax(self, step):
        """params → the same of `step(key, state, action, params) → (obs, reward, terminated)`."""
        states, actions = self.draws()
        env = made(f"gymnax:{self.name}")
        template, _ = env.reset(KEY, env.params)

        def one(values, action, params):
            return step(KEY, template.replace(**dict(zip(self.fields, values))), action, params)

        run = jax.jit(jax.vmap(one, (0, 0, None)))
        return lambda params: [np.asarray(x) for x in run(states, actions, params)]


PAIRS = (
    Pair(
        name="CartPole-v1",
        fields=("x", "x_dot", "theta", "theta_dot"),
        low=(-2.4, -3.0, -0.209, -3.0),
        high=(2.4, 3.0, 0.209, 3.0),
        tolerance=2e-6,
        reward_tolerance=0.0,
        wrong={"gravity": 9.81},
    ),
    Pair(
        name="Acrobot-v1",
        fields=("joint_angle1", "joint_angle2", "velocity_1", "velocity_2"),
        low=(-3.1, -3.1, -4.0, -9.0),
        high=(3.1, 3.1, 4.0, 9.0),
        tolerance=5e-5,
        reward_tolerance=0.0,
        wrong={"link_com_pos_1": 0.501},
    ),
    Pair(
        name="MountainCar-v0",
        fields=("position", "velocity"),
        low=(-1.2, -0.07),
        high=(0.55, 0.07),
        tolerance=1e-6,
        reward_tolerance=0.0,
        wrong={"gravity": 0.00251},
    ),
    Pair(
        name="MountainCarContinuous-v0",
        fields=("position", "velocity"),
        low=(-1.2, -0.07),
        high=(0.44, 0.07),
        tolerance=1e-6,
        reward_tolerance=1e-5,
        wrong={"power": 0.00151},
    ),
    Pair(
        name="Pendulum-v1",
        fields=("theta", "theta_dot"),
        low=(-3.1, -8.0),
        high=(3.1, 8.0),
        tolerance=1e-5,
        reward_tolerance=1e-4,
        wrong={"g": 9.98},
    ),
)


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: pair.name)
def test_equals_gymnasium_step_by_step_and_a_wrong_constant_does_not(pair):
    env = made(f"gymnax:{pair.name}")
    obs, rewards, terminated = pair.gymnasium()
    run = pair.gymnax(lambda *arguments: env.step(*arguments)[1])
    seen_obs, seen_rewards, seen_terminated = run(env.params)
    np.testing.assert_allclose(seen_obs, obs, rtol=0, atol=pair.tolerance)
    np.testing.assert_allclose(seen_rewards, rewards, rtol=0, atol=pair.reward_tolerance)
    np.testing.assert_array_equal(seen_terminated, terminated)
    wrong_obs, _, _ = run(env.params.replace(**pair.wrong))
    assert np.abs(wrong_obs - obs).max() > 5 * pair.tolerance


def test_gymnaxs_own_continuous_mountain_car_does_not_stop_at_its_left_wall():
    pair = PAIRS[3]._replace(high=(-1.0, 0.0))
    env, params = gymnax.make(pair.name)
    obs, _, _ = pair.gymnasium()
    at_wall = obs[:, 0] == np.float32(params.min_position)
    raw_obs = pair.gymnax(lambda *arguments: env.step_env(*arguments)[:1])(params)[0]
    error = np.abs(raw_obs - obs).max(-1)
    assert at_wall.sum() > 50
    assert (error[~at_wall] < pair.tolerance).all() and error[at_wall].max() > 0.01
    mended = made(pair.name)
    mended_obs = pair.gymnax(lambda *arguments: mended.step(*arguments)[1])(params)[0]
    np.testing.assert_allclose(mended_obs, obs, rtol=0, atol=pair.tolerance)


def test_native_cartpole_is_gymnaxs_until_the_episode_ends():
    native, other = make_cartpole(), made("gymnax:CartPole-v1")
    actions = jax.random.randint(KEY, (30, 8), 0, 2)

    def trajectories(env):
        def step(state, action):
            state, seen = jax.vmap(env.step, (None, 0, 0, None))(KEY, state, action, env.params)
            return state, seen

        state, obs = jax.vmap(env.reset, (0, None))(jax.random.split(KEY, 8), env.params)
        return obs, jax.lax.scan(step, state, actions)[1]

    run = jax.jit(trajectories, static_argnums=0)
    (start, one), (other_start, two) = run(native), run(other)
    np.testing.assert_array_equal(start, other_start)
    alive = np.cumsum(one.terminated, 0) - one.terminated == 0
    assert np.asarray(one.terminated).any()
    np.testing.assert_array_equal(one.terminated, two.terminated)
    np.testing.assert_allclose(one.obs, two.obs, atol=2e-5)
    np.testing.assert_array_equal(np.where(alive, one.reward, 0), np.where(alive, two.reward, 0))


@pytest.mark.parametrize(("name", "bound"), [("Pendulum-v1", 2.0), ("Reacher-misc", 1.0)])
def test_continuous_actions_are_clipped_into_the_action_space(name, bound):
    env, (reset, step) = made(name), compiled(name)
    state, _ = reset(KEY, env.params)
    shape = env.action_space.shape
    take = lambda size: step(KEY, state, jnp.full(shape, size * bound), env.params)[1]
    np.testing.assert_array_equal(take(50.0).obs, take(1.0).obs)
    assert (np.asarray(take(0.5).obs) != take(1.0).obs).any()


def test_clipping_follows_the_parameters_of_the_lane():
    env, (reset, step) = made("Pendulum-v1"), compiled("Pendulum-v1")
    state, _ = reset(KEY, env.params)
    strong = env.params.replace(max_torque=4.0)
    take = lambda torque, params: step(KEY, state, jnp.full((1,), torque), params)[1].obs
    assert take(4.0, strong)[2] != take(2.0, strong)[2]
    np.testing.assert_array_equal(take(4.0, env.params), take(2.0, env.params))


def test_parameters_and_horizon_may_be_given():
    params = gymnax.make("Pendulum-v1")[1].replace(max_steps_in_episode=50, g=1.0)
    assert from_gymnax("Pendulum-v1", params).horizon == 50
    assert from_gymnax("Pendulum-v1", params, horizon=7).horizon == 7
    assert from_gymnax("Pendulum-v1", params).params.g == 1.0
    made_already = gymnax.make("Pendulum-v1")[0]
    assert from_gymnax(made_already).name == "Pendulum-v1"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: from_gymnax("Nothing-v0"), "env_or_id must be one of .*, got 'Nothing-v0'"),
        (lambda: from_gymnax("MNISTBandit-bsuite"), "MNISTBandit-bsuite downloads its images"),
        (lambda: from_gymnax("Catch-bsuite", horizon=0), "horizon must be positive, got 0"),
        (lambda: from_gymnax("Catch-bsuite", row=3), "Catch-bsuite has no option 'row'"),
        (lambda: from_gymnax(gymnax.make("Catch-bsuite")[0], rows=3), r"options \['rows'\] need an id"),
        (lambda: from_gymnax(LogWrapper(gymnax.make("Catch-bsuite")[0])), "got LogWrapper; a wrapper"),
    ],
)
def test_from_gymnax_refuses(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_from_gymnax_refuses_the_api_before_1_0(monkeypatch):
    monkeypatch.delattr(gymnax_environment.Environment, "is_truncated")
    with pytest.raises(ImportError, match=r"gymnax 1\.0 or later is needed"):
        from_gymnax("Catch-bsuite")


def test_minatar_and_cartpole_can_be_drawn_and_others_not():
    draw = lambda env, obs: env.render(None, obs, env.params)
    assert draw(made("Breakout-MinAtar"), np.zeros((10, 10, 4))).shape == (320, 320, 3)
    assert draw(made("gymnax:CartPole-v1"), np.zeros(4)).dtype == np.uint8
    assert made("Pendulum-v1").render is None
