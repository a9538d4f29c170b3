"""The potential field: forces in plain cases, and how often it arrives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import evaluation, imitation
from pgjax.environments import make

KEY = jax.random.key(0)


def seen(bearing=0.0, beams=(1.0,) * 16):
    return jnp.array([0.5, np.cos(bearing), np.sin(bearing), 0.0, 0.0, *beams])


@pytest.fixture(scope="module")
def act():
    return jax.jit(imitation.potential_field().act)


def test_in_the_open_it_turns_to_the_goal(act):
    np.testing.assert_allclose(act(KEY, seen()), [1.0, 0.0], atol=1e-6)
    np.testing.assert_allclose(act(KEY, seen(bearing=0.3)), [np.cos(0.3), 0.3], atol=1e-6)
    np.testing.assert_allclose(act(KEY, seen(bearing=-2.0)), [0.0, -1.0], atol=1e-6)


def test_an_obstacle_turns_it_away_and_its_force_is_khatibs(act):
    beams = [1.0] * 16
    beams[1] = 0.8 / 3.0  # at 22.5 degrees to the left, 0.6 m from the robot's edge
    push = 0.1 * 2 * np.pi / 16 * (1 / 0.6 - 1.0) / 0.6**2
    force = np.array([1.0, 0.0]) - push * np.array([np.cos(np.pi / 8), np.sin(np.pi / 8)])
    angle = np.arctan2(force[1], force[0])
    assert angle < -0.01
    np.testing.assert_allclose(act(KEY, seen(beams=beams)), [np.cos(angle), angle], atol=1e-5)


def test_it_arrives_in_most_arenas_and_hardly_ever_collides():
    expert = imitation.as_policy(imitation.potential_field())
    found = evaluation.evaluate(make("navigation"), expert, (), KEY, num_episodes=256)
    assert 0.8 < found.metrics["success"].final.value < 0.97
    assert found.metrics["collision"].final.value < 0.02


@pytest.mark.parametrize("wrong", [{"repulsion": -1.0}, {"influence": 0.0}, {"turn_gain": 0.0}, {"beams": 0}])
def test_refuses_impossible_numbers(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must be"):
        imitation.potential_field(**wrong)
