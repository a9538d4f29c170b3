"""Experts: optimal tables against breadth-first search, noise against enumeration, a controller against its problem."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments, evaluation, exact, rollouts
from pgjax.distributions import categorical, diagonal_gaussian
from pgjax.environments.maze import LAYOUT, make_maze, maze_mdp, shortest_path_lengths
from pgjax.imitation import experts
from pgjax.types import Policy


@pytest.fixture(scope="module")
def maze():
    """The default maze with a slippery floor, its optimal values, and the table with ties shared."""
    with jax.enable_x64(True):
        mdp = maze_mdp(LAYOUT, slip=0.2)
        return mdp, exact.stationary_optimal_action_values(mdp), exact.optimal_probabilities(mdp, ties="uniform")


def test_values_without_slip_are_shortest_paths(x64):
    """Ties are shared by all of them, and the expert takes one, by its observations in float32."""
    mdp, distances = maze_mdp(), shortest_path_lengths()
    values = np.asarray(exact.stationary_optimal_action_values(mdp)).max(axis=1)
    np.testing.assert_allclose(values, -distances, atol=1e-10)
    nearer = distances[mdp.successors[:, :, 0]] == distances[:, None] - 1
    shared = nearer / np.maximum(nearer.sum(axis=1, keepdims=True), 1)
    table = np.asarray(exact.optimal_probabilities(mdp, ties="uniform"))
    np.testing.assert_allclose(table[distances > 0], shared[distances > 0], atol=1e-12)
    expert = experts.optimal_expert(mdp, ties="uniform")
    with jax.enable_x64(False):
        result = evaluation.evaluate(make_maze(), experts.as_policy(expert), (), jax.random.key(0), num_episodes=2)
    assert np.all(result.returns == -12.0)


def test_values_solve_the_bellman_equation(x64, maze):
    mdp, q, table = maze
    targets = mdp.rewards + q.max(axis=1)[mdp.successors]
    backed_up = jnp.where(mdp.terminal[:, None], 0.0, jnp.sum(mdp.probabilities * targets, axis=-1))
    np.testing.assert_allclose(q, backed_up, atol=1e-9)
    # Its policy, evaluated by itself, has these values.
    np.testing.assert_allclose(exact.stationary_state_values(mdp, table), q.max(axis=1), atol=1e-9)


def test_discounted_values_are_the_long_horizon_limit(x64, maze):
    mdp = dataclasses.replace(maze[0], horizon=400)
    long = exact.optimal_action_values(mdp, 0.9)[0]
    np.testing.assert_allclose(exact.stationary_optimal_action_values(mdp, 0.9), long, atol=1e-9)


def test_ties_and_softness(x64, maze):
    mdp, q, shared = maze
    running = ~np.asarray(mdp.terminal)
    lowest, shared = np.asarray(exact.optimal_probabilities(mdp))[running], np.asarray(shared)[running]
    assert np.all(lowest.max(axis=1) == 1.0)
    np.testing.assert_array_equal(lowest.argmax(axis=1), np.argmax(shared > 0, axis=1))
    soft = exact.optimal_probabilities(mdp, softness=0.5)
    ratios = jnp.log(soft[:, :1] / soft)[running]
    np.testing.assert_allclose(ratios, ((q[:, :1] - q) / 0.5)[running], atol=1e-9)
    with pytest.raises(ValueError, match="ties must be one of"):
        exact.optimal_probabilities(mdp, ties="all")
    with pytest.raises(ValueError, match="softness must be at least 0"):
        exact.optimal_probabilities(mdp, softness=-1.0)


def test_in_float32_near_ties_are_told_apart_and_ties_are_not():
    """√ε max|Q| in float32, 0.035 here, would take the worse action; no tolerance would tell 0.1 + 0.6 from 0.7."""
    options = {"initial": [1.0, 0.0], "probabilities": np.ones((2, 2, 1)), "terminal": [False, True], "horizon": 1}
    rewards = np.array([[-100.0], [-99.98]])
    for scale in (1.0, 1e-6):
        mdp = exact.make_tabular_mdp(
            successors=np.ones((2, 2, 1), int), rewards=np.stack([scale * rewards, 0.0 * rewards]), **options
        )
        assert mdp.rewards.dtype == np.float32
        found = exact.optimal_probabilities(mdp)
        assert found.dtype == np.float32 and found[0].tolist() == [0.0, 1.0]
    ways = exact.make_tabular_mdp(
        initial=[1.0, 0.0, 0.0],
        successors=np.array([[2, 1], [2, 2], [2, 2]])[..., None],
        probabilities=np.ones((3, 2, 1)),
        rewards=np.array([[0.7, 0.1], [0.6, 0.6], [0.0, 0.0]])[..., None],
        terminal=[False, False, True],
        horizon=2,
    )
    q = exact.stationary_optimal_action_values(ways)
    assert q[0, 0] < q[0, 1]
    np.testing.assert_array_equal(exact.optimal_probabilities(ways, ties="uniform")[0], [0.5, 0.5])


def test_where_going_round_is_free_is_refused(x64):
    mdp = maze_mdp()
    free = dataclasses.replace(mdp, rewards=jnp.where(mdp.terminal[mdp.successors], 1.0, 0.0))
    with pytest.raises(ValueError, match="discount must be below 1 for maze"):
        exact.optimal_probabilities(free)


def test_states_that_look_alike_must_be_treated_alike(x64):
    mdp = exact.compounding_chain(3, recoverable=True)
    blind = dataclasses.replace(mdp, observations=jnp.zeros((2, 1)))
    with pytest.raises(ValueError, match="probabilities must be equal in states 0 and 1"):
        experts.from_table(blind, np.eye(2))
    assert experts.from_table(blind, np.array([[1.0, 0.0], [1.0, 0.0]])).act(jax.random.key(0), jnp.zeros(1)) == 0
    with pytest.raises(ValueError, match="probabilities must have the shape"):
        experts.from_table(blind, np.eye(3))


def test_noisy_and_partial_act_as_their_probabilities_say():
    """Drawn frequencies against log_probs, |z| < 4.5; the twin that excludes the expert's own action is 12 % off."""
    base = experts.from_log_probs(lambda obs: jnp.log(jnp.array([0.7, 0.3, 0.0])))
    somewhere = experts.partial(base, lambda obs: obs > 0, 3)
    kinds = [(experts.noisy(base, 0.36, 3), 1.0), (somewhere, 1.0), (somewhere, -1.0)]
    number = 40_000
    keys = jax.random.split(jax.random.key(0), number)

    @jax.jit
    def draw(keys):
        act = lambda expert, obs: jax.vmap(lambda key: expert.act(key, jnp.float32(obs)))(keys)
        return [(act(expert, obs), jnp.exp(expert.log_probs(jnp.float32(obs)))) for expert, obs in kinds]

    expected = [[0.568, 0.312, 0.12], [0.7, 0.3, 0.0], [1 / 3] * 3]
    for (actions, probabilities), wanted in zip(draw(keys), expected, strict=True):
        np.testing.assert_allclose(probabilities, wanted, atol=1e-6)
        shares = np.bincount(actions, minlength=3) / number
        stderr = np.sqrt(np.maximum(np.multiply(wanted, np.subtract(1, wanted)), 1e-9) / number)
        assert np.abs((shares - wanted) / stderr).max() < 4.5
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\], got 1.5"):
        experts.noisy(base, 1.5, 3)


def test_experts_of_policies():
    policy = Policy(init=lambda key, obs: jnp.zeros(2), apply=lambda params, obs: params, distribution=categorical)
    params = jnp.log(jnp.array([0.25, 0.75]))
    plain, greedy = (experts.from_policy(policy, params, greedy=g) for g in (False, True))
    np.testing.assert_allclose(jnp.exp(plain.log_probs(())), [0.25, 0.75], rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(greedy.log_probs(())), [0.0, 1.0])
    keys = jax.random.split(jax.random.key(0), 500)
    drawn, best = (jax.vmap(lambda key, e=e: e.act(key, ()))(keys) for e in (plain, greedy))
    assert np.all(best == 1) and 0.65 < drawn.mean() < 0.85
    assert experts.from_policy(policy._replace(distribution=diagonal_gaussian), params).log_probs is None


def test_pendulum_swing_up():
    """Near the optimum, −136 on average by dynamic programming on a grid; three experts in one program."""
    environment = environments.make("Pendulum-v1")
    keys = jax.random.split(jax.random.key(0), 100)

    @jax.jit
    @jax.vmap
    def play(energy_gain, std):
        expert = experts.perturbed(experts.pendulum_swing_up(energy_gain=energy_gain), std, low=-2.0, high=2.0)
        episodes = rollouts.episodes(environment, experts.as_policy(expert), (), keys)
        return evaluation.episode_returns(episodes)[0]

    plain, wrong_sign, noisy = np.asarray(play(jnp.array([1.0, -1.0, 1.0]), jnp.array([0.0, 0.0, 1.0])))
    assert -175.0 < plain.mean() < -120.0
    assert plain.min() > -450.0
    assert wrong_sign.mean() < -800.0
    assert plain.mean() - 100.0 < noisy.mean() < plain.mean() - 5.0


def test_pendulum_law():
    """Upright at rest it does nothing; hanging at rest it pushes with all it has; it is odd in (θ, θ̇)."""
    act = lambda cos, sin, speed: experts.pendulum_swing_up().act(None, jnp.array([cos, sin, speed]))
    np.testing.assert_allclose(act(1.0, 0.0, 0.0), [0.0], atol=1e-6)
    np.testing.assert_allclose(act(-1.0, 0.0, 0.0), [2.0])
    np.testing.assert_allclose(act(np.cos(0.1), np.sin(0.1), 0.0), [-1.0], rtol=1e-5)
    for cos, sin, speed in ((0.6, 0.8, 3.0), (-0.8, 0.6, -1.0)):
        np.testing.assert_allclose(act(cos, -sin, -speed), -act(cos, sin, speed))
