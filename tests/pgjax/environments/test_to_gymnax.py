"""Environments for learners that were written for gymnax: its step, its resets, there and back the identity."""

import dataclasses

import gymnax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnax.environments import environment as gymnax_environment
from gymnax.environments import spaces as gymnax_spaces
from gymnax.wrappers.purerl import LogWrapper

from pgjax.environments import from_gymnax, make, to_gymnax
from pgjax.environments.cartpole import make_cartpole
from pgjax.spaces import Box, Discrete, Slate
from pgjax.types import Step

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def short_cartpole():
    """CartPole of at most 6 steps for gymnax's learners."""
    return to_gymnax(make_cartpole(horizon=6))


def test_to_gymnax_runs_in_gymnaxs_step_with_its_resets(short_cartpole):
    env, params = LogWrapper(short_cartpole), short_cartpole.default_params

    @jax.jit
    def run(key):
        def body(state, key):
            obs, state, reward, terminated, truncated, info = env.step(key, state, 1, params)
            return state, (obs, state.env_state.time, reward, terminated, truncated, info)

        return jax.lax.scan(body, env.reset(key, params)[1], jax.random.split(key, 20))[1]

    obs, time, reward, terminated, truncated, info = run(KEY)
    assert truncated.tolist() == [(t + 1) % 6 == 0 for t in range(20)] and not terminated.any()
    assert time.tolist() == [(t + 1) % 6 for t in range(20)]
    assert (reward == 1.0).all() and (info["discount"] == 1.0).all()
    assert (np.abs(obs[truncated]) <= 0.05).all()
    assert (info["final_observation"][truncated][:, 1] > 0.5).all()
    np.testing.assert_array_equal(obs[~truncated], info["final_observation"][~truncated])
    assert (info["returned_episode_returns"][6:] == 6.0).all()


def test_to_gymnax_is_a_whole_gymnax_environment(short_cartpole):
    env, params = short_cartpole, short_cartpole.default_params
    assert isinstance(env, gymnax_environment.Environment)
    assert (env.name, env.num_actions, params.max_steps_in_episode) == ("CartPole-v1", 2, 6)
    assert isinstance(env.action_space(params), gymnax_spaces.Discrete)
    space = env.observation_space(params)
    assert isinstance(space, gymnax_spaces.Box) and space.shape == (4,)
    obs, state = env.reset(KEY, params)
    assert isinstance(state, gymnax_environment.EnvState) and space.contains(obs)
    np.testing.assert_array_equal(env.observe(KEY, state, None, params), obs)
    assert not env.is_terminated(state, params) and env.discount(state, params) == 1.0


def test_to_gymnax_equals_gymnaxs_own_cartpole_under_its_step():
    ours, theirs = to_gymnax(make_cartpole()), gymnax.make("CartPole-v1")[0]

    def run(env):
        def body(state, key):
            obs, state, _, terminated, *_ = env.step(key, state, 1, env.default_params)
            return state, (obs, terminated)

        return jax.lax.scan(body, env.reset(KEY, env.default_params)[1], jax.random.split(KEY, 25))[1]

    compiled_run = jax.jit(run, static_argnums=0)
    (obs, terminated), (their_obs, their_terminated) = compiled_run(ours), compiled_run(theirs)
    assert 1 < terminated.sum() < 25
    np.testing.assert_array_equal(terminated, their_terminated)
    np.testing.assert_allclose(obs, their_obs, atol=2e-5)


@pytest.mark.parametrize("name", ["Pendulum-v1", "FrozenLake-misc"])
def test_there_and_back_is_the_identity(name):
    env = make(name)
    back = from_gymnax(to_gymnax(env))
    assert (back.name, back.horizon) == (env.name, env.horizon)
    assert back.action_space.shape == env.action_space.shape
    assert back.observation_space.shape == env.observation_space.shape

    def run(env):
        def body(state, key):
            return env.step(key, state, env.action_space.sample(key), env.params)

        state, obs = env.reset(KEY, env.params)
        return obs, jax.lax.scan(body, state, jax.random.split(KEY, 20))[1]

    for one, two in zip(*(jax.tree.leaves(jax.jit(run, static_argnums=0)(e)) for e in (env, back))):
        np.testing.assert_array_equal(one, two)


def test_actions_of_many_parts_go_there_and_back():
    """The boxes among them are clipped into their bounds, the others reach the environment as they are."""
    zero = jnp.zeros(())
    env = dataclasses.replace(
        make_cartpole(),
        reset=lambda key, params: (zero, zero[None]),
        step=lambda key, state, action, params: (
            state,
            Step(obs=jnp.full((1,), action["push"] + 10.0 * action["turn"][0]), reward=zero, terminated=zero > 0),
        ),
        observation_space=Box(-np.inf, np.inf, (1,)),
        action_space={"push": Box(-1.0, 1.0, ()), "turn": (Discrete(3),)},
    )
    adapted = to_gymnax(env)
    back = from_gymnax(adapted)
    assert adapted.num_actions == 4 and back.action_space == env.action_space
    state, _ = back.reset(KEY, back.params)
    _, seen = back.step(KEY, state, {"push": 7.0, "turn": (2,)}, back.params)
    assert seen.obs == 21.0
    with pytest.raises(ValueError, match=r"a space must be a Discrete, a Box.*got Slate\(3, 2\)"):
        to_gymnax(dataclasses.replace(env, action_space=Slate(3, 2)))
