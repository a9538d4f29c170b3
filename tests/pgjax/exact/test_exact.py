"""The oracle against itself: dynamic programming, autodiff and enumeration know the same numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from policies import draw_params, perceptron, tabular

from pgjax import baselines, estimators, exact
from pgjax.distributions import categorical
from pgjax.types import Policy

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

objective = jax.jit(exact.objective, static_argnums=0)
exact_gradient = jax.jit(exact.exact_gradient, static_argnums=0)
policy_gradient_theorem = jax.jit(exact.policy_gradient_theorem, static_argnums=0)


def distance(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected))
    return max(np.max(np.abs(np.asarray(a) - np.asarray(b))) for a, b in pairs)


@pytest.fixture(scope="module")
def problem():
    """A random MDP (S 4, A 2, K 2, T 3) with random tabular parameters."""
    mdp = exact.random_mdp(jax.random.key(0), 4, 2, 2, horizon=3)
    return mdp, draw_params(tabular, seed=1)


@pytest.fixture(scope="module")
def enumerated(problem):
    mdp, params = problem
    enumeration = exact.enumerate_trajectories(mdp)
    return enumeration, exact.trajectory_probabilities(tabular, params, enumeration)


# --- dynamic programming


@pytest.mark.parametrize("apply", [tabular, perceptron])
def test_policy_gradient_theorem_equals_differentiated_program(apply):
    for seed in range(4):
        mdp = exact.random_mdp(jax.random.key(seed), 4, 2, 2, horizon=3)
        params = draw_params(apply, seed)
        differentiated = exact_gradient(apply, params, mdp, 0.9)
        theorem = policy_gradient_theorem(apply, params, mdp, 0.9)
        undiscounted = policy_gradient_theorem(apply, params, mdp, 1.0)
        close(theorem, differentiated, atol=1e-12)
        assert distance(undiscounted, differentiated) > 1e-3  # twin: the discount forgotten


def test_theorem_needs_time_dependent_values(problem):
    mdp, params = problem

    @jax.jit
    def theorem(params, frozen):
        probabilities, pull_back = jax.vjp(lambda theta: exact.policy_probabilities(tabular, theta, mdp), params)
        d, q = exact.visitation(mdp, probabilities), exact.action_values(mdp, probabilities)
        q = jnp.where(frozen, q[:1], q)
        return pull_back(jnp.sum(d[:, :, None] * q, axis=0))[0]

    truth = exact_gradient(tabular, params, mdp, 1.0)
    assert distance(theorem(params, False), truth) < 1e-12
    assert distance(theorem(params, True), truth) > 1e-2  # twin: Q_0 at every step


def test_value_recursion_and_gradient_by_finite_differences(problem):
    mdp, params = problem
    probabilities = exact.policy_probabilities(tabular, params, mdp)
    v, q = exact.state_values(mdp, probabilities, 0.9), exact.action_values(mdp, probabilities, 0.9)
    assert v.shape == (4, 4) and q.shape == (3, 4, 2)
    v, q, p, r = (np.asarray(x) for x in (v, q, mdp.probabilities, mdp.rewards))
    np.testing.assert_allclose(v[:-1], (np.asarray(probabilities) * q).sum(-1), atol=1e-14)
    assert np.all(v[:, 3] == 0) and np.all(v[3] == 0) and np.all(q[:, 3] == 0)
    np.testing.assert_allclose(q[2, :3], (p * r).sum(-1)[:3], atol=1e-14)

    rho = lambda nudge: objective(tabular, params + jnp.zeros((4, 2)).at[1, 0].set(nudge), mdp, 0.9)
    numeric = (rho(1e-5) - rho(-1e-5)) / 2e-5
    np.testing.assert_allclose(numeric, exact_gradient(tabular, params, mdp, 0.9)[1, 0], atol=1e-9)


def test_terminal_states_are_worth_nothing(problem):
    mdp, params = problem
    endless = dataclasses.replace(mdp, terminal=jnp.zeros_like(mdp.terminal))
    assert abs(objective(tabular, params, mdp, 0.9) - objective(tabular, params, endless, 0.9)) > 1e-2


def test_optimal_values_bound_every_policy_and_are_reached(problem):
    mdp, params = problem
    best = jnp.max(exact.optimal_action_values(mdp, 0.9), axis=-1)
    probabilities = exact.policy_probabilities(tabular, params, mdp)
    assert np.all(best >= exact.state_values(mdp, probabilities, 0.9)[:-1])
    one_step = dataclasses.replace(mdp, horizon=1)
    greedy = jax.nn.one_hot(jnp.argmax(exact.optimal_action_values(one_step)[0], -1), 2, dtype=float)
    np.testing.assert_allclose(exact.state_values(one_step, greedy)[0], best[-1], atol=1e-14)


def test_discount_outside_unit_interval_is_refused(problem):
    mdp, params = problem
    with pytest.raises(ValueError, match=r"discount must be in \[0, 1\], got 1\.5"):
        exact.objective(tabular, params, mdp, 1.5)


# --- enumeration


def test_enumeration_is_every_trajectory_once(enumerated):
    enumeration, probabilities = enumerated
    batch = enumeration.trajectories
    np.testing.assert_allclose(jnp.sum(probabilities), 1.0, atol=1e-13)
    story = [enumeration.states.T, batch.actions.T, batch.rewards.T, batch.final_obs]
    assert len(np.unique(np.concatenate(story, axis=1), axis=0)) == probabilities.size

    length = np.asarray(batch.alive).sum(0)
    last = np.asarray(batch.terminated | batch.truncated)
    assert np.all(last.sum(0) == 1) and np.all(last.argmax(0) == length - 1) and 1 in length
    assert not np.any(batch.terminated & batch.truncated) and not np.any(batch.truncated[:-1])
    dead = ~np.asarray(batch.alive)
    assert np.all(np.asarray(batch.rewards)[dead] == 0)
    frozen = np.broadcast_to(batch.final_obs, batch.obs.shape)[dead]
    assert np.all(np.asarray(batch.obs)[dead] == frozen)


def test_forgetting_the_mask_breaks_the_distribution(problem, enumerated):
    enumeration, _ = enumerated
    batch = enumeration.trajectories
    unmasked = enumeration._replace(trajectories=batch._replace(alive=jnp.ones_like(batch.alive)))
    assert jnp.sum(exact.trajectory_probabilities(tabular, problem[1], unmasked)) < 0.99


def test_enumeration_agrees_with_the_dynamic_programs(problem, enumerated):
    (mdp, params), (enumeration, probabilities) = problem, enumerated
    batch = enumeration.trajectories
    returns = np.sum(0.9 ** np.arange(3)[:, None] * np.asarray(batch.rewards), axis=0)
    np.testing.assert_allclose(returns @ probabilities, objective(tabular, params, mdp, 0.9), atol=1e-13)

    here = np.asarray(batch.alive)[:, :, None] & (np.asarray(enumeration.states)[:, :, None] == np.arange(4))
    visits = np.sum(here * np.asarray(probabilities)[:, None], axis=1)
    visitation = exact.visitation(mdp, exact.policy_probabilities(tabular, params, mdp))
    np.testing.assert_allclose(visitation, visits, atol=1e-14)
    lengths = np.asarray(batch.alive).sum(0)
    np.testing.assert_allclose(np.sum(visitation), lengths @ np.asarray(probabilities), atol=1e-13)


def test_score_function_identity(problem, enumerated):
    """E[G Σ_t ∇ ln π] = ∇ρ, and the terms of rewards before the action vanish one by one."""
    (mdp, params), (enumeration, probabilities) = problem, enumerated
    batch = enumeration.trajectories

    def log_prob_taken(theta):
        taken = exact.policy_log_probabilities(tabular, theta, mdp)[enumeration.states, batch.actions]
        return jnp.where(batch.alive, taken, 0.0)

    def expected_return(theta):
        return exact.trajectory_probabilities(tabular, theta, enumeration) @ jnp.sum(batch.rewards, axis=0)

    truth = exact_gradient(tabular, params, mdp, 1.0)
    scores, gradient = jax.jit(lambda x: (jax.jacobian(log_prob_taken)(x), jax.grad(expected_return)(x)))(params)
    products = np.einsum("n,tnij,un->tuij", probabilities, scores, batch.rewards)
    np.testing.assert_allclose(products.sum((0, 1)), truth, atol=1e-12)
    np.testing.assert_allclose(gradient, truth, atol=1e-12)

    action, reward = np.tril_indices(3, -1)
    assert np.max(np.abs(products[action, reward])) < 1e-14
    assert np.min(np.max(np.abs(products[reward, action]), axis=(1, 2))) > 1e-3  # later rewards do count


def test_equal_outcomes_are_merged_and_impossible_ones_dropped():
    shape = (2, 2, 3)
    mdp = exact.make_tabular_mdp(
        initial=[1.0, 0.0],
        successors=np.broadcast_to([0, 0, 1], shape),
        probabilities=np.broadcast_to([0.25, 0.75, 0.0], shape),
        rewards=np.ones(shape),
        terminal=[False, True],
        horizon=3,
    )
    enumeration = exact.enumerate_trajectories(mdp)
    assert enumeration.states.shape == (3, 2**3)
    np.testing.assert_array_equal(enumeration.environment_probabilities, 1.0)
    distinct = dataclasses.replace(mdp, rewards=mdp.rewards.at[:, :, 0].set(2.0))
    assert exact.enumerate_trajectories(distinct).states.shape == (3, 4**3)


def test_enumeration_pads_to_the_horizon():
    enumeration = exact.enumerate_trajectories(corrupted(horizon=3))
    batch = enumeration.trajectories
    np.testing.assert_array_equal(batch.alive, [[True] * 2, [False] * 2, [False] * 2])
    np.testing.assert_array_equal(batch.actions, [[0, 1], [0, 0], [0, 0]])
    np.testing.assert_array_equal(enumeration.states, [[0, 0], [1, 1], [1, 1]])


def test_counts_beyond_the_limit_are_refused(problem):
    mdp, _ = problem
    message = "there are 150 trajectories of 'random' with horizon 3, the limit is 149"
    with pytest.raises(ValueError, match=message):
        exact.enumerate_trajectories(mdp, limit=149)
    assert exact.enumerate_trajectories(mdp, limit=150).states.shape == (3, 150)
    with pytest.raises(ValueError, match=r"there are \d\.\d\de\+\d\d\d? trajectories"):
        exact.enumerate_trajectories(dataclasses.replace(mdp, horizon=200))
    with pytest.raises(ValueError, match=r"there are 1000000 groups of 3 of 100 traj.* the limit is 999"):
        exact.groups(100, 3, limit=999)
    with pytest.raises(ValueError, match="size is 0, must be at least 1"):
        exact.groups(100, 0)


# --- moments


def test_moments_of_a_small_table():
    table = {"x": jnp.array([1.0, 3.0]), "y": jnp.array([[0.0], [4.0]])}
    found = exact.moments_of(table, jnp.array([0.25, 0.75]))
    np.testing.assert_allclose(found.mean["x"], 2.5)  # ¼·1 + ¾·3
    np.testing.assert_allclose(found.variance["x"], 0.75)  # ¼·¾·2²
    np.testing.assert_allclose(found.variance["y"], [3.0])  # ¼·¾·4²
    np.testing.assert_allclose(found.total_variance, 3.75)
    np.testing.assert_allclose(found.second_moment, 7.0 + 12.0)  # ¼·1 + ¾·9, ¾·16


def test_groups_are_ordered_and_repeat():
    np.testing.assert_array_equal(exact.groups(2, 2), [[0, 0], [0, 1], [1, 0], [1, 1]])


def test_estimator_moments_of_batches(problem):
    """REINFORCE on B episodes: the mean is ∇ρ and the variance 1/B of one episode's. Twin: a baseline that is
    the mean of the batch itself shrinks the mean to (B − 1)/B."""
    mdp = dataclasses.replace(problem[0], horizon=1)
    params = problem[1]
    enumeration = exact.enumerate_trajectories(mdp)
    probabilities = exact.trajectory_probabilities(tabular, params, enumeration)

    def surrogate(theta, trajectory, advantages):
        logits = jax.vmap(jax.vmap(lambda obs: tabular(theta, obs)))(trajectory.obs)
        log_probs = jnp.take_along_axis(jax.nn.log_softmax(logits), trajectory.actions[..., None], axis=-1)
        return jnp.mean(jnp.sum(jnp.where(trajectory.alive, log_probs[..., 0], 0.0), axis=0) * advantages)

    def estimates(trajectory):
        assert trajectory.final_obs.shape == trajectory.obs.shape[1:]
        returns = jnp.sum(trajectory.rewards, axis=0)
        gradient = lambda advantages: jax.grad(surrogate)(params, trajectory, advantages)
        return {"plain": gradient(returns), "own sample in baseline": gradient(returns - jnp.mean(returns))}

    truth = np.asarray(exact_gradient(tabular, params, mdp, 1.0))
    single = exact.estimator_moments(estimates, enumeration, probabilities, 1)
    pair = exact.estimator_moments(estimates, enumeration, probabilities, 2, batch_size=50)
    assert probabilities.size**2 % 50 != 0
    np.testing.assert_allclose(single.mean["plain"], truth, atol=1e-13)
    np.testing.assert_allclose(pair.mean["plain"], truth, atol=1e-13)
    np.testing.assert_allclose(pair.variance["plain"], single.variance["plain"] / 2, atol=1e-13)
    np.testing.assert_allclose(pair.mean["own sample in baseline"], truth / 2, atol=1e-13)
    excess = pair.second_moment - pair.total_variance
    np.testing.assert_allclose(excess, np.sum(truth**2) + np.sum((truth / 2) ** 2), atol=1e-13)


# --- precision


@jax.jit
def of_all_programs(params, mdp, batch):
    """ρ, ∇ρ, the joint moments of return and score, and the reward-to-go estimate from one batch."""
    policy = Policy(init=None, apply=tabular, distribution=categorical)
    estimator = estimators.make_estimator(
        policy, returns=estimators.reward_to_go(0.9), baseline=baselines.constant(0.4)
    )
    return {
        "objective": exact.objective(tabular, params, mdp, 0.9),
        "gradient": exact.exact_gradient(tabular, params, mdp, 0.9),
        "joint moments": exact.return_score_moments(tabular, params, mdp, discount=0.9)._asdict(),
        "estimate": estimator.gradient(params, (), batch)[0],
    }


def test_float32_stays_within_a_hundred_roundings_of_float64(problem, enumerated):
    """An entry is a sum of some ten products over T = 3 steps: 100 ε leaves room for all their roundings in a row.

    Twin: rewards rounded to half precision, each off by up to 4096 ε, are seen in every quantity.
    """
    mdp, params = problem
    batch = enumerated[0].trajectories
    half = lambda x: np.asarray(x, np.float16)
    rounded = dataclasses.replace(mdp, rewards=half(mdp.rewards)), batch._replace(rewards=half(batch.rewards))
    as_single = lambda x: np.asarray(x, np.float32 if jnp.issubdtype(x.dtype, jnp.floating) else x.dtype)
    double = jax.device_get(of_all_programs(params, mdp, batch))
    with jax.enable_x64(False):
        single = jax.device_get(of_all_programs(*jax.tree.map(as_single, (params, mdp, batch))))
        coarse = jax.device_get(of_all_programs(*jax.tree.map(as_single, (params, *rounded))))
    for name, wanted in double.items():
        assert {x.dtype for x in jax.tree.leaves(single[name])} == {np.dtype(np.float32)}
        scale = max(np.max(np.abs(x)) for x in jax.tree.leaves(wanted))
        bound = 100 * np.finfo(np.float32).eps * scale
        assert distance(single[name], wanted) < bound < distance(coarse[name], wanted), name


# --- construction and sampling


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


def test_environment_params_vmap(problem):
    environment = exact.to_environment(problem[0])
    scales = jnp.arange(1.0, 4.0, dtype=jnp.float32)
    rewards = scales[:, None, None, None] * environment.params.rewards[None]

    def reward(rewards):
        params = dataclasses.replace(environment.params, rewards=rewards)
        state, _ = environment.reset(jax.random.key(5), params)
        return environment.step(jax.random.key(6), state, jnp.int32(1), params)[1].reward

    found = jax.vmap(reward)(rewards)
    np.testing.assert_allclose(found, scales * found[0], rtol=1e-6)
    assert found[0] != 0
