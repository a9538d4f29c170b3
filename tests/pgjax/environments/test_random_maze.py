"""Random mazes against breadth-first search on the host, their exact MDP, their samples, and the expert."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments, evaluation, exact, imitation
from pgjax.distributions import categorical
from pgjax.environments import maze_drawing
from pgjax.environments.maze import maze_mdp, shortest_path_lengths
from pgjax.types import Policy

SIZE = 9


def blind(params, obs):
    """Logits that do not depend on the observation: params `[A]`."""
    return params


def drawn(count, size=SIZE, seed=0, **options):
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.jit(jax.vmap(lambda key: maze_drawing.draw_maze(key, size, **options)))(keys)


def one(problems, index):
    return jax.tree.map(lambda x: x[index], problems)


@pytest.fixture(scope="module")
def mazes():
    """200 mazes, the distances that `steps_to_goal` finds, and V*_0 of their MDPs, solved together."""

    def solve(problem):
        mdp = maze_drawing.problem_mdp(problem)
        return maze_drawing.steps_to_goal(problem.walls, problem.goal), exact.optimal_action_values(mdp)[0].max(-1)

    problems = drawn(200)
    return problems, *map(np.asarray, jax.jit(jax.vmap(solve))(problems))


def test_optimal_values_are_breadth_first_search_on_200_mazes(mazes):
    """Every maze is a tree of 2n² − 1 cells, and `parse_layout` refuses an exit that cannot be reached."""
    problems, distances, values = mazes
    for index in range(200):
        problem = one(problems, index)
        free = ~np.asarray(problem.walls)
        expected = shortest_path_lengths(maze_drawing.to_layout(problem))
        assert free.sum() == maze_drawing.num_free(SIZE) == 31 and np.isfinite(expected).all()
        np.testing.assert_array_equal(distances[index][free], expected)
        np.testing.assert_array_equal(values[index].reshape(SIZE, SIZE)[free], -expected)
        assert np.isinf(distances[index][~free]).all()
    walls = np.asarray(problems.walls).reshape(200, -1)
    assert len(np.unique(walls, axis=0)) > 190
    assert (np.asarray(problems.start) != np.asarray(problems.goal)).all()


def test_all_ends_are_drawn_and_corners_are_opposite():
    problems = drawn(2000, size=5)
    pairs = np.unique(np.stack([problems.start, problems.goal]), axis=1)
    assert pairs.shape[1] == 4 * 3
    # 2 × 2 rooms have four spanning trees, one for each wall that stays.
    assert len(np.unique(np.asarray(problems.walls).reshape(2000, -1), axis=0)) == 4
    corners = drawn(3, ends="corners")
    assert (corners.start == SIZE + 1).all() and (corners.goal == SIZE * SIZE - SIZE - 2).all()


def test_loops_open_walls_and_the_search_stays_exact():
    problems = drawn(20, loops=0.5)
    free = (~np.asarray(problems.walls)).sum((1, 2))
    assert free.min() >= 31 and free.mean() > 33
    for index in range(20):
        problem = one(problems, index)
        found = np.asarray(maze_drawing.steps_to_goal(problem.walls, problem.goal))[~np.asarray(problem.walls)]
        np.testing.assert_array_equal(found, shortest_path_lengths(maze_drawing.to_layout(problem)))
    assert (~np.asarray(one(drawn(1, loops=1.0), 0).walls)).sum() == 16 + 24


def test_objective_and_gradient_of_a_table_are_those_of_the_drawn_layout(x64):
    """ρ and ∇ρ, vmapped over mazes, against `maze_mdp`, whose states are the free cells alone, with slip."""
    table = lambda theta, obs: obs.astype(theta.dtype) @ theta
    theta = jax.random.normal(jax.random.key(1), (25, 4), float)
    problems = drawn(3, size=5)
    value = lambda problem: exact.objective(
        table, theta, maze_drawing.problem_mdp(problem, slip=0.2, horizon=30, observation="position")
    )
    gradient = lambda problem: exact.exact_gradient(
        table, theta, maze_drawing.problem_mdp(problem, slip=0.2, horizon=30, observation="position")
    )
    values, gradients = jax.jit(jax.vmap(lambda problem: (value(problem), gradient(problem))))(problems)
    solve = jax.jit(lambda theta, mdp: (exact.objective(table, theta, mdp), exact.exact_gradient(table, theta, mdp)))
    for index in range(3):
        problem = one(problems, index)
        free = np.flatnonzero(~np.asarray(problem.walls).ravel())
        expected, of_free = solve(theta[free], maze_mdp(maze_drawing.to_layout(problem), slip=0.2, horizon=30))
        np.testing.assert_allclose(values[index], expected, rtol=1e-12)
        np.testing.assert_allclose(gradients[index][free], of_free, rtol=1e-10, atol=1e-12)
        assert np.abs(gradients[index]).sum() == pytest.approx(np.abs(of_free).sum(), rel=1e-9)


@pytest.mark.parametrize("slip", [0.0, 0.3])
def test_sampled_returns_have_the_exact_mean(slip):
    """|z| < 4.5 raises a false alarm in 7e-6 of seeds. Twin: the oracle without the slip."""
    environment = environments.make("random_maze", size=5, pool=1, seed=3, slip=slip, horizon=20)
    logits = jnp.array([0.5, 0.2, 0.0, -0.3])
    policy = Policy(init=lambda key, obs: logits, apply=blind, distribution=categorical)
    found = evaluation.evaluate(environment, policy, logits, jax.random.key(0), num_episodes=4000)
    expected = lambda slip: float(
        exact.objective(
            blind,
            logits,
            maze_drawing.problem_mdp(one(environment.params.pool, 0), slip=slip, horizon=20),
        )
    )
    assert abs(found.mean - expected(slip)) < 4.5 * found.stderr
    assert slip == 0.0 or abs(found.mean - expected(0.0)) > 5.2 * found.stderr


def test_expert_takes_shortest_ways_and_a_bad_move_is_seen():
    """Its returns are V* in every lane, with loops too. Twin: an expert that sometimes acts at random."""
    environment = environments.make("random_maze", loops=0.3)
    expert = imitation.shortest_way()
    result = evaluation.evaluate(environment, imitation.as_policy(expert), (), jax.random.key(2), num_episodes=200)
    assert result.metrics["excess"].final.value == 0 and result.metrics["success"].final.value == 1
    assert result.metrics["steps"].final.value == -result.mean
    noisy = imitation.as_policy(imitation.noisy(expert, 0.1, 4))
    worse = evaluation.evaluate(environment, noisy, (), jax.random.key(2), num_episodes=200)
    assert worse.metrics["excess"].final.value > 0.3


def test_expert_shares_ties_and_knows_its_probabilities():
    open_floor = jnp.ones((5, 5), bool).at[1:4, 1:4].set(False)
    seen = lambda cell: maze_drawing.planes(open_floor, jnp.asarray(cell), jnp.asarray(18))
    probabilities = lambda cell: np.exp(imitation.shortest_way().log_probs(seen(cell)))
    np.testing.assert_allclose(probabilities(6), [0.0, 0.5, 0.5, 0.0], rtol=1e-6)
    np.testing.assert_allclose(probabilities(8), [0.0, 0.0, 1.0, 0.0], rtol=1e-6)
    np.testing.assert_allclose(probabilities(18), [0.25] * 4, rtol=1e-6)


def test_expert_is_the_optimal_policy_of_the_exact_mdp():
    problem = one(drawn(1, loops=0.3), 0)
    mdp = maze_drawing.problem_mdp(problem)
    table = np.asarray(exact.optimal_action_values(mdp)[0])
    best = table == table.max(axis=1, keepdims=True)
    chosen = np.exp(jax.vmap(imitation.shortest_way().log_probs)(mdp.observations))
    inside = ~np.asarray(problem.walls).ravel() & ~np.asarray(mdp.terminal)
    np.testing.assert_allclose(chosen[inside], (best / best.sum(1, keepdims=True))[inside], rtol=1e-6)


def test_a_pool_holds_its_mazes_and_another_seed_others():
    pool = environments.make("random_maze", pool=4, seed=1)
    states, obs = jax.vmap(pool.reset, (0, None))(jax.random.split(jax.random.key(5), 100), pool.params)
    known = {np.asarray(walls).tobytes() for walls in pool.params.pool.walls}
    assert {np.asarray(walls).tobytes() for walls in states.problem.walls} == known and len(known) == 4
    assert obs.dtype == jnp.uint8 and obs.shape == (100, 9, 9, 3)
    other = environments.make("random_maze", pool=4, seed=2)
    assert not known & {np.asarray(walls).tobytes() for walls in other.params.pool.walls}


def test_parameters_may_differ_between_episodes():
    """Slip 0 and slip 1, which never makes the chosen move, side by side."""
    environment = environments.make("random_maze", size=5, pool=1)
    many = jax.tree.map(lambda x: jnp.stack([x, x]), environment.params)._replace(slip=jnp.array([0.0, 1.0]))
    state, _ = environment.reset(jax.random.key(0), environment.params)
    walls, start = np.asarray(state.problem.walls).ravel(), int(state.cell)
    free = int(np.flatnonzero([not walls[start + offset] for offset in (-5, 1, 5, -1)])[0])
    step = lambda key, params: environment.step(key, state, jnp.asarray(free), params)[0].cell
    keys = jax.random.split(jax.random.key(1), 50)
    cells = np.asarray(jax.vmap(jax.vmap(step, (None, 0)), (0, None))(keys, many))
    assert (cells[:, 0] == start + (-5, 1, 5, -1)[free]).all() and (cells[:, 1] != cells[:, 0]).all()


def test_steps_pay_minus_one_and_the_horizon_is_minus_its_length():
    """A policy that only bumps is truncated at T with a return of exactly −T."""
    environment = environments.make("random_maze", size=5, horizon=13)
    stuck = lambda params, obs: jnp.where(
        (obs[..., 0] > 0).ravel()[jnp.argmax(obs[..., 1]) + jnp.array([-5, 1, 5, -1])], 0.0, -jnp.inf
    )
    policy = Policy(init=lambda key, obs: (), apply=stuck, distribution=categorical)
    result = evaluation.evaluate(environment, policy, (), jax.random.key(0), num_episodes=20)
    assert (result.returns == -13.0).all() and result.metrics["success"].final.value == 0


def test_random_mazes_conform_and_are_drawn():
    for options in ({"size": 5}, {"size": 5, "pool": 3, "observation": "position", "slip": 0.1}):
        environments.check(environments.make("random_maze", **options), num_steps=40, num_lanes=8)
    environment = environments.make("random_maze", size=5)
    state, obs = environment.reset(jax.random.key(0), environment.params)
    picture = environment.render(state, obs, environment.params)
    assert picture.dtype == np.uint8 and picture.shape == (120, 120, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, r"size must be an odd integer of at least 5 \(5, 7, 9, …\), got 8"),
        ({"size": 3}, "size must be an odd integer of at least 5"),
        ({"loops": 1.5}, r"loops must be .*1\.5"),
        ({"slip": -0.1}, r"slip must be .*-0\.1"),
        ({"pool": 0}, "pool must be .*0"),
        ({"horizon": 0}, "horizon must be .*0"),
        ({"ends": "middle"}, "ends must be .*middle"),
        ({"observation": "pixels"}, "observation must be .*pixels"),
    ],
)
def test_impossible_mazes_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        environments.make("random_maze", **options)
