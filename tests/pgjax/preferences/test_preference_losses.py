"""Losses of preferences: the identities of their models, and exact recovery where every answer can be listed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.preferences import losses

REWARDS = jnp.array([[0.3, -1.0, 2.0, 0.5], [4.0, -3.0, 0.0, 1.0]])


@pytest.fixture(autouse=True)
def exactly(float64):
    """All tests of this file are exact."""


def rewards():
    return jnp.asarray(np.asarray(REWARDS), jnp.float64)


def test_bradley_terry():
    first, second = rewards()[:, 0], rewards()[:, 1]
    loss = losses.bradley_terry_loss(first, second)
    np.testing.assert_allclose(loss, -np.log(1 / (1 + np.exp(-(first - second)))), rtol=1e-12)
    np.testing.assert_allclose(losses.bradley_terry_loss(first + 7, second + 7), loss, rtol=1e-10)
    np.testing.assert_allclose(
        losses.bradley_terry_loss(first, second, 0.25), losses.bradley_terry_loss(first - 0.25, second)
    )
    zeros = jnp.zeros(2)
    np.testing.assert_allclose(losses.bradley_terry_loss(zeros, zeros), np.log(2))
    slope = jax.grad(lambda x: jnp.sum(losses.bradley_terry_loss(x, second)))(first)
    np.testing.assert_allclose(slope, -(1 - jax.nn.sigmoid(first - second)), rtol=1e-12)


def test_large_differences_neither_overflow_nor_lose_the_gradient():
    ends = jnp.array([-1e4, 1e4])
    value, slope = jax.vmap(jax.value_and_grad(lambda d: losses.bradley_terry_loss(d, jnp.zeros(()))))(ends)
    assert value.tolist() == [1e4, 0.0]
    assert slope.tolist() == [-1.0, 0.0]


def test_a_ranking_of_two_is_a_comparison_and_one_place_is_the_best_of_k():
    r = rewards()
    pair = losses.plackett_luce_loss(r[:, :2])
    np.testing.assert_allclose(pair, losses.bradley_terry_loss(r[:, 0], r[:, 1]), rtol=1e-12)
    np.testing.assert_allclose(losses.best_of_k_loss(r[:, :2], jnp.zeros(2, int)), pair, rtol=1e-12)
    best = losses.plackett_luce_loss(r, places=jnp.ones(2, int))
    np.testing.assert_allclose(losses.best_of_k_loss(r, jnp.zeros(2, int)), best, rtol=1e-12)
    np.testing.assert_allclose(losses.plackett_luce_loss(r + 5), losses.plackett_luce_loss(r), rtol=1e-10)


def test_the_probabilities_of_all_rankings_add_up_to_one():
    import itertools

    orders = jnp.array(list(itertools.permutations(range(4))))
    assert np.exp(-losses.plackett_luce_loss(rewards()[0][orders])).sum() == pytest.approx(1.0, abs=1e-12)


def test_a_mask_is_the_shorter_ranking():
    r = rewards()
    mask = jnp.array([[True, True, True, False], [True, False, False, False]])
    hidden = jnp.where(mask, r, jnp.nan)
    loss, slope = jax.jit(jax.value_and_grad(lambda x: jnp.sum(losses.plackett_luce_loss(x, mask))))(hidden)
    np.testing.assert_allclose(loss, losses.plackett_luce_loss(r[0, :3]), rtol=1e-12)
    np.testing.assert_allclose(slope[0, :3], jax.jit(jax.grad(losses.plackett_luce_loss))(r[0, :3]), rtol=1e-12)
    assert not slope[1].any() and slope[0, 3] == 0
    best = losses.best_of_k_loss(jnp.where(mask, r, 100.0), jnp.array([2, 0]), mask)
    np.testing.assert_allclose(best, [losses.best_of_k_loss(r[0, :3], jnp.array(2)), 0.0], atol=1e-12)


def test_davidson():
    first, second = rewards()[:, 0], rewards()[:, 1]
    log_tie = jnp.log(0.7)
    p = np.exp(losses.davidson_log_probs(first, second, log_tie))
    a, b = np.exp(first), np.exp(second)
    whole = a + b + 0.7 * np.sqrt(a * b)
    np.testing.assert_allclose(p, np.stack([a, b, 0.7 * np.sqrt(a * b)], -1) / whole[:, None], rtol=1e-10)
    outcomes = jnp.array([2, 3])
    np.testing.assert_allclose(losses.davidson_loss(first, second, outcomes, log_tie), -np.log(p[:, 2]), rtol=1e-10)
    none = losses.davidson_loss(first, second, jnp.array([0, 1]), -jnp.inf)
    wins = losses.bradley_terry_loss(first[:1], second[:1]), losses.bradley_terry_loss(second[1:], first[1:])
    np.testing.assert_allclose(none, jnp.concatenate(wins), rtol=1e-12)
    slope = jax.grad(lambda x: losses.davidson_loss(x, second[0], jnp.array(0), -jnp.inf))(first[0])
    np.testing.assert_allclose(slope, -(1 - jax.nn.sigmoid(first[0] - second[0])), rtol=1e-12)


def test_half_a_win_each():
    loss = losses.half_win_loss(jnp.array([1.0, 1.0]), jnp.zeros(2), jnp.array([2, 1]), 0.5)
    tie = (
        losses.bradley_terry_loss(jnp.ones(()), jnp.zeros(())) + losses.bradley_terry_loss(jnp.zeros(()), jnp.ones(()))
    ) / 2
    np.testing.assert_allclose(loss, [tie, np.log1p(np.exp(1.5))], rtol=1e-12)


def newton(loss, start, steps=30):
    """The minimiser of a convex loss that one constant does not change, so its Hessian has a null vector."""

    @jax.jit
    def step(x):
        move = jnp.linalg.pinv(jax.hessian(loss)(x), rtol=1e-9) @ jax.grad(loss)(x)
        return x - move

    for _ in range(steps):
        start = step(start)
    return start


@pytest.fixture
def answers():
    """All 27 answers of 3 tokens out of 3: a reward, a reference, and the exact probability that i beats j."""
    rng = np.random.default_rng(0)
    reward = jnp.array(rng.normal(size=27))
    reference = jax.nn.log_softmax(jnp.array(rng.normal(size=27)))
    return reward, reference, jax.nn.sigmoid(reward[:, None] - reward[None])


def expected(loss_of_pairs, wins):
    """The mean loss over all ordered pairs, of which i wins with the exact probability."""
    return jnp.mean(wins * loss_of_pairs)


def test_exact_preferences_give_the_reward_back_up_to_a_constant_and_the_loss_its_entropy(answers):
    reward, _, wins = answers

    def loss(r):
        first, second = jnp.broadcast_arrays(r[:, None], r[None, :])
        return expected(losses.bradley_terry_loss(first, second), wins)

    found = newton(loss, jnp.zeros(27))
    np.testing.assert_allclose(found - found.mean(), reward - reward.mean(), atol=1e-10)
    floor = jnp.mean(jax.scipy.special.entr(wins))
    np.testing.assert_allclose(loss(found), floor, rtol=1e-12)
    assert loss(found + 0.1 * reward) > floor


def test_dpo_with_exact_preferences_finds_the_optimum(answers):
    reward, reference, wins = answers
    beta = 0.5

    def loss(logits):
        policy = jax.nn.log_softmax(logits)
        pairs = [jnp.broadcast_arrays(x[:, None], x[None, :]) for x in (policy, reference)]
        (chosen, rejected), (reference_chosen, reference_rejected) = pairs
        return expected(losses.dpo_loss(chosen, rejected, reference_chosen, reference_rejected, kl_coef=beta), wins)

    assert loss(reference) == pytest.approx(0.5 * np.log(2))
    found = jax.nn.softmax(newton(loss, reference))
    np.testing.assert_allclose(found, jax.nn.softmax(reference + reward / beta), atol=1e-9)


def test_the_reference_of_dpo_is_a_constant_and_a_negative_coefficient_an_error():
    one = jnp.ones(())
    slope = jax.grad(lambda x: losses.dpo_loss(one, one, x, one, kl_coef=0.1))(one)
    assert slope == 0
    with pytest.raises(ValueError, match="kl_coef must be at least 0, got -1"):
        losses.dpo_loss(one, one, one, one, kl_coef=-1.0)
    with pytest.raises(ValueError, match="chosen must have a float type"):
        losses.bradley_terry_loss(jnp.ones((), int), jnp.ones((), int))
