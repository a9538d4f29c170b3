"""All trajectories, once each, with their probabilities; moments of a table and over all batches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from oracle import exact_gradient, objective, policy_probabilities, trajectory_probabilities
from policies import tabular

from pgjax import exact

pytestmark = pytest.mark.usefixtures("exact_arithmetic")


def distance(found, expected):
    pairs = zip(jax.tree.leaves(found), jax.tree.leaves(expected))
    return max(np.max(np.abs(np.asarray(a) - np.asarray(b))) for a, b in pairs)


def test_enumeration_is_every_trajectory_once(small_enumeration):
    enumeration, probabilities = small_enumeration
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


def test_forgetting_the_mask_breaks_the_distribution(small_problem, small_enumeration):
    enumeration, _ = small_enumeration
    batch = enumeration.trajectories
    unmasked = enumeration._replace(trajectories=batch._replace(alive=jnp.ones_like(batch.alive)))
    assert jnp.sum(trajectory_probabilities(tabular, small_problem[1], unmasked)) < 0.99


def test_enumeration_agrees_with_the_dynamic_programs(small_problem, small_enumeration):
    (mdp, params), (enumeration, probabilities) = small_problem, small_enumeration
    batch = enumeration.trajectories
    returns = np.sum(0.9 ** np.arange(3)[:, None] * np.asarray(batch.rewards), axis=0)
    np.testing.assert_allclose(returns @ probabilities, objective(tabular, params, mdp, 0.9), atol=1e-13)

    here = np.asarray(batch.alive)[:, :, None] & (np.asarray(enumeration.states)[:, :, None] == np.arange(4))
    visits = np.sum(here * np.asarray(probabilities)[:, None], axis=1)
    visitation = exact.visitation(mdp, policy_probabilities(tabular, params, mdp))
    np.testing.assert_allclose(visitation, visits, atol=1e-14)
    lengths = np.asarray(batch.alive).sum(0)
    np.testing.assert_allclose(np.sum(visitation), lengths @ np.asarray(probabilities), atol=1e-13)


def test_score_function_identity(small_problem, small_enumeration):
    """E[G Σ_t ∇ ln π] = ∇ρ, and the terms of rewards before the action vanish one by one."""
    (mdp, params), (enumeration, probabilities) = small_problem, small_enumeration
    batch = enumeration.trajectories

    def log_prob_taken(theta):
        taken = exact.policy_log_probabilities(tabular, theta, mdp)[enumeration.states, batch.actions]
        return jnp.where(batch.alive, taken, 0.0)

    def expected_return(theta):
        return trajectory_probabilities(tabular, theta, enumeration) @ jnp.sum(batch.rewards, axis=0)

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


def test_counts_beyond_the_limit_are_refused(small_problem):
    mdp, _ = small_problem
    message = "there are 150 trajectories of 'random' with horizon 3, the limit is 149"
    with pytest.raises(ValueError, match=message):
        exact.enumerate_trajectories(mdp, limit=149)
    assert exact.enumerate_trajectories(mdp, limit=150).states.shape == (3, 150)
    with pytest.raises(ValueError, match=r"there are \d\.\d\de\+\d\d\d? trajectories"):
        exact.enumerate_trajectories(dataclasses.replace(mdp, horizon=200))
    with pytest.raises(ValueError, match=r"there are 1000000 groups of 3 of 100 traj.* the limit is 999"):
        exact.groups(100, 3, limit=999)
    with pytest.raises(ValueError, match=r"size must be in \[1, 1024\], got 0"):
        exact.groups(100, 0)


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


def test_estimator_moments_of_batches(small_problem):
    """REINFORCE on B episodes: the mean is ∇ρ and the variance 1/B of one episode's. Twin: a baseline that is
    the mean of the batch itself shrinks the mean to (B − 1)/B."""
    mdp = dataclasses.replace(small_problem[0], horizon=1)
    params = small_problem[1]
    enumeration = exact.enumerate_trajectories(mdp)
    probabilities = trajectory_probabilities(tabular, params, enumeration)

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
