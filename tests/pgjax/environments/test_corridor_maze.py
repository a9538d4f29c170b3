"""The corridor against its closed form, the maze against breadth-first search, both against their samples."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import exact
from pgjax.environments import check
from pgjax.environments.corridor import (
    BEST_PROBABILITY,
    BEST_VALUE,
    RIGHT,
    corridor_mdp,
    corridor_value,
    make_corridor,
)
from pgjax.environments.maze import (
    LAYOUT,
    TINY_LAYOUT,
    make_maze,
    maze_mdp,
    parse_layout,
    shortest_path_lengths,
)

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

objective = jax.jit(exact.objective, static_argnums=0)


def blind(params, obs):
    """Logits that do not depend on the observation: params [A]."""
    return params


def logits_of(p):
    return jnp.stack([jnp.zeros_like(p), jnp.log(p) - jnp.log1p(-p)])


def sample_returns(environment, logits, num_episodes=20_000):
    """Total returns of sampled episodes, by a scan of its own."""

    def total_return(key):
        def advance(carry, key):
            state, alive = carry
            action_key, step_key = jax.random.split(key)
            action = jax.random.categorical(action_key, logits)
            state, step = environment.step(step_key, state, action, environment.params)
            reward = jnp.where(alive, step.reward, 0.0)
            return (state, alive & ~step.terminated), reward

        reset_key, episode_key = jax.random.split(key)
        state, _ = environment.reset(reset_key, environment.params)
        keys = jax.random.split(episode_key, environment.horizon)
        return jnp.sum(jax.lax.scan(advance, (state, jnp.bool_(True)), keys)[1])

    keys = jax.random.split(jax.random.key(7), num_episodes)
    return np.asarray(jax.jit(jax.vmap(total_return))(keys))


def z_score(returns, expected):
    """How many standard errors the mean of `returns` lies above `expected`."""
    return (returns.mean() - float(expected)) / (returns.std(ddof=1) / np.sqrt(returns.size))


# --- corridor


def test_corridor_value_is_the_closed_form():
    mdp = corridor_mdp(horizon=4000)  # at p = .05 the cut is worth 1e-23
    p = jnp.array([0.05, 0.3, 0.5, BEST_PROBABILITY, 0.95])

    @jax.jit
    @jax.vmap
    def value_and_gradient(p):
        gradient = exact.exact_gradient(blind, logits_of(p), mdp)
        return exact.objective(blind, logits_of(p), mdp), gradient[RIGHT]

    values, gradients = value_and_gradient(p)
    np.testing.assert_allclose(values, corridor_value(p), rtol=1e-10)
    np.testing.assert_allclose(values[2], -12.0, rtol=1e-12)
    np.testing.assert_allclose(values[3], BEST_VALUE, rtol=1e-12)
    np.testing.assert_allclose(values[::4], [-82.11, -44.21], atol=5e-3)
    slopes = jax.vmap(jax.grad(corridor_value))(p)
    np.testing.assert_allclose(gradients, slopes * p * (1 - p), rtol=1e-10, atol=1e-10)
    assert abs(gradients[3]) < 1e-10


def test_unpaid_last_step_shifts_the_corridor_by_one():
    mdp = corridor_mdp()
    twin = dataclasses.replace(mdp, rewards=mdp.rewards.at[2, RIGHT].set(0.0))
    logits = logits_of(jnp.array(BEST_PROBABILITY))
    shift = objective(blind, logits, twin) - objective(blind, logits, mdp)
    np.testing.assert_allclose(shift, 1.0, atol=1e-12)


def test_corridor_horizon_cuts_what_the_docstring_says():
    mdp = corridor_mdp()
    assert mdp.horizon == 1000
    logits = logits_of(jnp.array(0.05))
    survivors = exact.visitation(mdp, exact.policy_probabilities(blind, logits, mdp))[-1].sum()
    assert 6.5e-7 < survivors < 6.8e-7
    excess = objective(blind, logits, mdp) - corridor_value(0.05)
    assert 4e-5 < excess < 5e-5


def test_corridor_expected_length_is_minus_value():
    mdp = corridor_mdp(horizon=50)
    logits = logits_of(jnp.array(0.3))
    visits = exact.visitation(mdp, exact.policy_probabilities(blind, logits, mdp))
    np.testing.assert_allclose(jnp.sum(visits), -objective(blind, logits, mdp), rtol=1e-13)


def test_seeing_the_state_solves_the_corridor_in_three_steps():
    mdp = corridor_mdp(horizon=10, observe_state=True)
    best = exact.optimal_action_values(mdp)
    np.testing.assert_array_equal(jnp.max(best, -1)[0], [-3, -2, -1, 0])
    np.testing.assert_array_equal(jnp.argmax(best, -1)[0, :3], [1, 0, 1])
    assert make_corridor(observe_state=True).observation_space.shape == (4,)
    assert len(np.unique(corridor_mdp().observations, axis=0)) == 1


def test_sampled_corridor_has_the_exact_mean():
    """|z| < 4.5 raises a false alarm in 7e-6 of seeds. Twin: the last step is not paid."""
    mdp = corridor_mdp(horizon=30)
    twin = dataclasses.replace(mdp, rewards=mdp.rewards.at[2, RIGHT].set(0.0))
    logits = logits_of(jnp.array(0.4))
    returns = sample_returns(make_corridor(horizon=30), logits)
    assert abs(z_score(returns, objective(blind, logits, mdp))) < 4.5
    assert abs(z_score(returns, objective(blind, logits, twin))) > 5.2


# --- maze


@pytest.mark.parametrize("layout", [LAYOUT, TINY_LAYOUT], ids=["default", "tiny"])
def test_optimal_maze_value_is_minus_the_distance(layout):
    mdp = maze_mdp(layout)
    lengths = shortest_path_lengths(layout)
    assert mdp.horizon == 4 * lengths.size
    np.testing.assert_array_equal(jnp.max(exact.optimal_action_values(mdp), -1)[0], -lengths)
    greedy = jax.nn.one_hot(jnp.argmax(exact.optimal_action_values(mdp)[0], -1), 4, dtype=float)
    np.testing.assert_array_equal(exact.state_values(mdp, greedy)[0], -lengths)
    free = dataclasses.replace(mdp, rewards=jnp.where(mdp.terminal[mdp.successors], 0.0, mdp.rewards))
    assert jnp.max(exact.optimal_action_values(free), -1)[0, 0] == 1 - lengths[0]  # twin: unpaid last step


def test_distances_of_the_default_maze():
    maze, lengths = parse_layout(LAYOUT), shortest_path_lengths(LAYOUT)
    assert lengths[maze.start] == 12 and lengths[maze.goal] == 0
    np.testing.assert_array_equal(lengths[maze.neighbours[maze.start]], [12, 13, 11, 12])  # two bumps
    long_way = LAYOUT.replace("#.#.#.#.#", "###.#.#.#", 1)
    assert shortest_path_lengths(long_way)[parse_layout(long_way).start] == 16
    walled_off = shortest_path_lengths("SG#.")
    np.testing.assert_array_equal(walled_off, [1, 0, np.inf])


def test_slip_goes_to_the_other_directions():
    mdp = maze_mdp(TINY_LAYOUT, slip=0.3)
    moves = np.zeros(4)
    np.add.at(moves, np.asarray(mdp.successors[0, 1]), np.asarray(mdp.probabilities[0, 1]))
    np.testing.assert_allclose(moves, [0.2, 0.7, 0.1, 0.0])  # bumps above and left, right, below
    assert maze_mdp(TINY_LAYOUT).successors.shape == (4, 4, 1)


@pytest.mark.parametrize("slip", [0.3, 1.0])
def test_slip_is_a_mixture_with_the_uniform_policy(slip):
    """Acting π with slip p is acting (1 − 4p/3) π + (4p/3)/4 without. Twin: if a slip may also keep the way,
    the weight of the uniform policy would be p."""
    weights = jax.random.exponential(jax.random.key(8), (shortest_path_lengths().size, 4))
    probabilities = weights / jnp.sum(weights, axis=1, keepdims=True)
    slipping = exact.state_values(maze_mdp(slip=slip), probabilities)[0]
    mix = lambda weight: exact.state_values(maze_mdp(), (1 - weight) * probabilities + weight / 4)[0]
    np.testing.assert_allclose(slipping, mix(4 * slip / 3), rtol=1e-12)
    assert np.max(np.abs(slipping - mix(slip))) > 1e-2


def test_sampled_maze_has_the_exact_mean():
    """|z| < 4.5 raises a false alarm in 7e-6 of seeds. Twin: the oracle of another slip."""
    logits = jnp.array([0.0, 1.0, 1.0, 0.0])
    expect = lambda slip: objective(blind, logits, maze_mdp(TINY_LAYOUT, slip=slip))
    returns = sample_returns(make_maze(TINY_LAYOUT, slip=0.2), logits)
    assert abs(z_score(returns, expect(0.2))) < 4.5
    assert abs(z_score(returns, expect(0.3))) > 5.2


def test_tiny_maze_enumerates_to_the_exact_gradient():
    mdp = maze_mdp(TINY_LAYOUT, horizon=4)
    enumeration = exact.enumerate_trajectories(mdp)
    logits = jnp.array([0.1, 0.5, -0.3, 0.0])
    returns = jnp.sum(enumeration.trajectories.rewards, axis=0)
    value = lambda theta: exact.trajectory_probabilities(blind, theta, enumeration) @ returns
    truth = jax.jit(exact.exact_gradient, static_argnums=0)(blind, logits, mdp)
    np.testing.assert_allclose(jax.jit(jax.grad(value))(logits), truth, rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="trajectories of 'maze' with horizon 16"):
        exact.enumerate_trajectories(maze_mdp(TINY_LAYOUT))


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ("S.\n.", "row 1 has 1 characters, row 0 has 2"),
        ("S.\nxG", "'x' at row 1, column 0"),
        ("..\n.G", "0 cells 'S', must have exactly one"),
        ("SG\n.G", "2 cells 'G', must have exactly one"),
        ("S#G", "no way from 'S' to 'G'"),
    ],
)
def test_wrong_layouts_are_refused(layout, message):
    with pytest.raises(ValueError, match=message):
        parse_layout(layout)


def test_slip_outside_unit_interval_is_refused():
    with pytest.raises(ValueError, match=r"slip is 1\.5, must be in \[0, 1\]"):
        maze_mdp(slip=1.5)


def test_maze_is_drawn_from_its_state():
    environment = make_maze(TINY_LAYOUT)
    draw = lambda cell: environment.render(exact.TabularState(index=jnp.int32(cell)), None, environment.params)
    pictures = [draw(cell) for cell in (0, 1)]
    assert all(picture.dtype == np.uint8 and picture.shape[-1] == 3 for picture in pictures)
    assert np.any(pictures[0] != pictures[1])


@pytest.mark.parametrize(
    ("make", "options"),
    [(make_corridor, {"horizon": 20}), (make_maze, {"layout": TINY_LAYOUT, "slip": 0.1})],
)
def test_environments_conform(make, options):
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        check(make(**options))
