"""Sticky actions against their definition, on an environment that shows what it executes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments
from pgjax.environments.sticky import with_sticky_actions
from pgjax.types import Box, Discrete, Environment, Step

# Shows the action that the last step executed.
MIRROR = Environment(
    name="mirror",
    reset=lambda key, params: (jnp.int32(0), jnp.float32(-1.0)),
    step=lambda key, state, action, params: (
        state,
        Step(obs=action.astype(jnp.float32), reward=jnp.float32(0.0), terminated=jnp.bool_(False)),
    ),
    params=(),
    observation_space=Box(low=-1.0, high=2.0, shape=()),
    action_space=Discrete(3),
    horizon=400,
)


def played(environment, chosen):
    def advance(state, at):
        key, action = at
        state, seen = environment.step(key, state, action, environment.params)
        return state, seen.obs

    state, _ = environment.reset(jax.random.key(0), environment.params)
    keys = jax.random.split(jax.random.key(1), len(chosen))
    return np.asarray(jax.jit(lambda: jax.lax.scan(advance, state, (keys, chosen)))()[1])


def test_repeats_the_executed_action_as_often_as_asked():
    """Twin: repeating the last *chosen* action. Runs of repeats tell the two apart."""
    chosen = jnp.tile(jnp.array([1, 2, 0], jnp.int32), 400)
    seen = played(with_sticky_actions(MIRROR, 0.4), chosen)
    before = np.append(0, seen[:-1])
    assert ((seen == before) | (seen == chosen)).all()
    repeats = (seen != chosen).sum() / len(chosen)
    # A repeat is visible unless the action executed before is the chosen one; after j repeats in a row that holds where
    # j + 1 is a multiple of three, with probability 0.4² 0.6 / (1 − 0.4³) among the steps that repeat.
    hidden = 0.4**2 * 0.6 / (1 - 0.4**3)
    expected = 0.4 * (1 - hidden)
    assert abs(repeats - expected) < 4.5 * (0.4 * 0.6 / len(chosen)) ** 0.5
    last_chosen = np.append(0, np.asarray(chosen)[:-1])
    assert ((seen != chosen) & (seen != last_chosen)).sum() > 50


def test_extremes():
    chosen = jnp.array([2, 1, 0, 1], jnp.int32)
    assert with_sticky_actions(MIRROR, 0.0) is MIRROR
    np.testing.assert_array_equal(played(with_sticky_actions(MIRROR, 1.0), chosen), [0, 0, 0, 0])


def test_breakout_with_sticky_actions_conforms_and_is_drawn():
    environment = environments.make("Breakout-MinAtar", sticky_actions=0.1)
    assert environment.observation_space.dtype == jnp.uint8
    environments.check(environment, num_steps=30, num_lanes=2)
    state, obs = environment.reset(jax.random.key(0), environment.params)
    assert environment.render(state, obs, environment.params).shape == (320, 320, 3)


@pytest.mark.parametrize(
    ("name", "probability", "message"),
    [
        ("Breakout-MinAtar", 1.5, r"sticky_actions must be .*1\.5"),
        ("Pendulum-v1", 0.1, "needs a Discrete action space"),
    ],
)
def test_refused(name, probability, message):
    with pytest.raises(ValueError, match=message):
        environments.make(name, sticky_actions=probability)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (
            dataclasses.replace(MIRROR, action_mask=lambda obs: obs < jnp.arange(3)),
            "0 with mirror, got 0.5: its action_mask",
        ),
        (environments.make("maze"), "0 with maze, got 0.5: its params are a TabularMDP"),
    ],
)
def test_environments_whose_masks_or_exact_numbers_would_be_wrong_are_refused(environment, message):
    with pytest.raises(ValueError, match=message):
        with_sticky_actions(environment, 0.5)
    assert with_sticky_actions(environment, 0.0) is environment
