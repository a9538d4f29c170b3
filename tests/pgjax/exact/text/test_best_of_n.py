"""The exact distribution of best-of-n, and the frontiers of a proxy without an optimiser."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close, far

from pgjax import exact


def by_hand(probabilities, rewards, num_draws):
    """The best of n by a sum over all groups of n; ties are broken by a fair draw among the best draws."""
    found = np.zeros(len(rewards))
    for group in itertools.product(range(len(rewards)), repeat=num_draws):
        best = [y for y in group if rewards[y] == max(rewards[z] for z in group)]
        for y in best:
            found[y] += np.prod([probabilities[z] for z in group]) / len(best)
    return found


# One program for each number of answers: n is traced.
best_of_n = jax.jit(exact.best_of_n_log_probs)

PROBABILITIES = np.array([0.1, 0.3, 0.05, 0.25, 0.3])


@pytest.mark.parametrize("rewards", [[0.3, -1.0, 2.0, 0.5, 0.1], [1.0, 0.0, 1.0, 0.0, -2.0], [1.0] * 5])
def test_the_distribution_is_the_sum_over_groups_also_with_ties(float64, rewards):
    rewards = jnp.asarray(rewards)
    for num_draws in (1, 2, 4):
        got = jnp.exp(best_of_n(jnp.log(jnp.asarray(PROBABILITIES)), rewards, num_draws))
        close(got, by_hand(PROBABILITIES, rewards.tolist(), num_draws))
    # The wrong twin tilts the reference by n instead of counting the draws.
    if len(set(rewards.tolist())) > 1:
        far(jax.nn.softmax(jnp.log(jnp.asarray(PROBABILITIES)) + jnp.log(4.0)), got)


def test_the_divergence_stays_below_the_bound_and_reaches_it_without_ties(float64):
    draw = np.random.default_rng(0)
    reference = jnp.asarray(jax.nn.log_softmax(draw.normal(size=(2, 256)) * 2))
    rewards = jnp.asarray(draw.normal(size=256))
    for num_draws in (2, 64, 512):
        bound = exact.best_of_n_kl_bound(num_draws)
        best = best_of_n(reference, rewards, num_draws)
        assert np.all(exact.kl_divergence(best, reference) < bound)
        close(np.exp(best).sum(-1), np.ones(2), atol=1e-10)
        ties = best_of_n(reference, np.floor(rewards), num_draws)
        assert np.all(exact.kl_divergence(ties, reference) < exact.kl_divergence(best, reference))
    even = jnp.full((2, 256), -np.log(256.0))
    found = exact.kl_divergence(best_of_n(even, rewards, 64), even)
    close(exact.best_of_n_kl_bound(64), 3.1745, atol=5e-5)
    close(found, 3.1719, atol=5e-5)  # 256 equally probable answers: less than 0.1 % below the bound


def test_many_draws_of_rare_answers_stay_finite(float64):
    reference = jnp.log(jnp.array([1e-12, 1.0 - 1e-12, 0.0]))
    rewards = jnp.array([1.0, 0.0, 2.0])
    close(jnp.exp(best_of_n(reference, rewards, 1_000)), [1e-9, 1.0 - 1e-9, 0.0], atol=1e-12)
    expected = lambda log_probs: exact.expected(best_of_n(log_probs, rewards, 8), rewards)
    assert np.isfinite(jax.grad(expected)(jnp.log(jnp.array([0.2, 0.3, 0.5])))).all()
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        exact.best_of_n_log_probs(reference, rewards, 0)


def test_rare_answers_do_not_vanish_in_float32():
    draw = np.random.default_rng(0).normal
    reference = jax.nn.log_softmax(jnp.asarray(2.5 * draw(size=4096), jnp.float32))
    # The best answers are the rarest. Each is below the rounding of F near 1.
    rewards = -reference + 0.3 * jnp.asarray(draw(size=4096), jnp.float32)
    np.testing.assert_allclose(jnp.sum(jnp.exp(best_of_n(reference, rewards, 1024))), 1.0, atol=1e-3)


def test_the_frontier_of_a_proxy_is_the_best_that_any_optimiser_can_do(float64):
    draw = np.random.default_rng(1).normal
    reference = jax.nn.log_softmax(jnp.asarray(draw(size=64)))
    gold = jnp.asarray(draw(size=64))
    proxy = gold + jnp.where(gold < -0.5, 4.0 * jnp.asarray(draw(size=64)), 0.0)  # wrong where answers are bad
    tilted = exact.goodhart_frontier(reference, proxy, gold, [10.0, 3.0, 1.0, 0.3, 0.1, 0.03])
    assert np.all(np.diff(tilted.kl) > 0)
    assert np.all(np.diff(tilted.proxy) > 0)
    assert np.all(np.diff(tilted.entropy) < 0)
    peak = int(np.argmax(tilted.gold))
    assert 0 < peak < 5, "the gold reward rises and then falls"
    close(tilted.gold[2], exact.expected(exact.tilted_log_probs(reference, proxy, 1.0), gold))
    drawn = exact.best_of_n_frontier(reference, proxy, gold, [1, 2, 8, 64])
    close(drawn.kl[0], 0.0)
    # No policy of the same divergence has a greater proxy: best-of-n lies below the curve.
    # β is known while `jit` traces.
    curve = jax.jit(lambda: exact.goodhart_frontier(reference, proxy, gold, np.geomspace(0.02, 50.0, 400)))()
    for kl, value in zip(drawn.kl[1:].tolist(), drawn.proxy[1:].tolist()):
        assert value < np.interp(kl, curve.kl[::-1], curve.proxy[::-1]) + 1e-9
    with pytest.raises(ValueError, match="kl_coef must be above 0"):
        exact.goodhart_frontier(reference, proxy, gold, [1.0, 0.0])
    with pytest.raises(ValueError, match="num_draws must be at least 1, got 0"):
        exact.best_of_n_frontier(reference, proxy, gold, [0, 2])
