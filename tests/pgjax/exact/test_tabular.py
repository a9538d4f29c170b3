"""Tabular problems: what is refused when one is made, and that the environment draws as the table says."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact

pytestmark = pytest.mark.usefixtures("exact_arithmetic")


def corrupted(**changes):
    fields = {
        "initial": [1.0, 0.0],
        "successors": np.ones((2, 2, 1), int),
        "probabilities": np.ones((2, 2, 1)),
        "rewards": np.zeros((2, 2, 1)),
        "terminal": [False, True],
        "horizon": 1,
    }
    return exact.make_tabular_mdp(**{**fields, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"probabilities": np.full((2, 2, 1), 0.9)}, r"probabilities\[0, 0\] sums to 0\.9, must sum to 1"),
        ({"initial": [0.5, 0.0]}, r"initial sums to 0\.5, must sum to 1"),
        ({"initial": [0.0, 1.0]}, r"initial\[1\] is positive in a terminal state"),
        ({"initial": [2.0, -1.0]}, r"initial\[1\] is -1\.0, must not be negative"),
        ({"initial": [1.0]}, r"initial has shape \(1,\), must be \(2,\)"),
        ({"successors": np.full((2, 2, 1), 2)}, r"successors\[0, 0, 0\] is 2, must be in 0, …, 1"),
        ({"successors": np.ones((2, 2))}, r"successors has shape \(2, 2\), must be \[S, A, K\]"),
        ({"successors": np.ones((2, 2, 1))}, "successors has dtype float64, must be an integer type"),
        ({"rewards": np.full((2, 2, 1), np.nan)}, "rewards holds an entry that is not finite"),
        ({"rewards": np.zeros((2, 2, 2))}, r"rewards has shape \(2, 2, 2\), must be \(2, 2, 1\)"),
        ({"observations": np.ones((3, 1))}, r"observations has shape \(3, 1\), must have 2 rows"),
        ({"horizon": 0}, "horizon is 0, must be an integer of at least 1"),
        ({"horizon": 2.0}, r"horizon is 2\.0, must be an integer of at least 1"),
    ],
)
def test_impossible_mdps_are_refused(changes, message):
    corrupted()
    with pytest.raises(ValueError, match=message):
        corrupted(**changes)


def test_random_mdp_needs_two_states():
    with pytest.raises(ValueError, match="num_states is 1, must be at least 2"):
        exact.random_mdp(jax.random.key(0), 1, 2, 2, 3)


def test_environment_draws_outcomes_with_their_probabilities():
    """40 000 draws, |z| < 4.5 for three possible outcomes of five: a false alarm in 2e-5 of seeds."""
    chances = np.array([0.1, 0.0, 0.6, 0.3, 0.0])
    shape = (2, 1, 5)
    mdp = exact.make_tabular_mdp(
        initial=[1.0, 0.0],
        successors=np.broadcast_to([0, 0, 0, 1, 1], shape),
        probabilities=np.broadcast_to(chances, shape),
        rewards=np.broadcast_to(np.arange(5.0), shape),
        terminal=[False, True],
        horizon=2,
    )
    environment = exact.to_environment(mdp)
    state, obs = environment.reset(jax.random.key(0), environment.params)
    draw = lambda key: environment.step(key, state, jnp.int32(0), environment.params)
    states, steps = jax.vmap(draw)(jax.random.split(jax.random.key(3), 40_000))
    assert obs.dtype == steps.obs.dtype == steps.reward.dtype == jnp.float32
    assert states.index.dtype == jnp.int32
    np.testing.assert_array_equal(steps.terminated, steps.reward >= 3)
    np.testing.assert_array_equal(steps.obs, np.eye(2)[states.index])

    counts = np.bincount(np.asarray(steps.reward, int), minlength=5)
    assert counts[1] == counts[4] == 0
    z = (counts - 40_000 * chances)[chances > 0] / np.sqrt(40_000 * chances * (1 - chances))[chances > 0]
    assert np.all(np.abs(z) < 4.5)
    assert abs(counts[0] - 40_000 * 0.12) / np.sqrt(40_000 * 0.12 * 0.88) > 5.2  # twin: .12 for .1 is seen


def test_environment_params_vmap(small_problem):
    environment = exact.to_environment(small_problem[0])
    scales = jnp.arange(1.0, 4.0, dtype=jnp.float32)
    rewards = scales[:, None, None, None] * environment.params.rewards[None]

    def reward(rewards):
        params = dataclasses.replace(environment.params, rewards=rewards)
        state, _ = environment.reset(jax.random.key(5), params)
        return environment.step(jax.random.key(6), state, jnp.int32(1), params)[1].reward

    found = jax.vmap(reward)(rewards)
    np.testing.assert_allclose(found, scales * found[0], rtol=1e-6)
    assert found[0] != 0
