"""Advantages of plain arrays: expected gradients by enumeration of all groups, equal returns, what is refused."""

import doctest
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close

from pgjax import advantages

pytestmark = pytest.mark.usefixtures("strict", "x64")

RANDOM = np.random.default_rng(0)


def run(function, *arrays, **kwargs):
    """Compiled as a whole, which is faster than operation by operation."""
    return np.asarray(jax.jit(functools.partial(function, **kwargs))(*arrays))


RULES = {
    "rloo": advantages.rloo,
    "dr_grpo": advantages.dr_grpo,
    "grpo": advantages.grpo,
    "sample": functools.partial(advantages.grpo, ddof=1),
}


# --- expected gradients, by enumeration


def expected_gradient(weigh, log_probs, theta, size, mask, over_time="sum"):
    """Σ over all groups of `size` answers of their probability times the gradient that the weights give.

    `weigh(answers, mask)` gives the advantages `[B, T]` of all groups in one batch; `log_probs(θ)` is `[answers, T]`.
    """
    chosen = np.array(list(itertools.product(range(len(mask)), repeat=size)))
    weights = weigh(chosen.reshape(-1), mask[chosen.reshape(-1)]).reshape(*chosen.shape, -1)

    def gradient(rows, weight):
        mean = functools.partial(advantages.aggregate, mask=jnp.asarray(mask)[rows], over_time=over_time)
        return jax.grad(lambda theta: mean(log_probs(theta)[rows] * weight))(theta)

    chances = np.prod(np.exp(np.where(mask, run(log_probs, theta), 0.0).sum(axis=1))[chosen], axis=1)
    return np.tensordot(chances, run(jax.vmap(gradient), chosen, weights), axes=1)


BANDIT = np.array([0.3, -1.0, 2.0])
LOGITS = np.array([0.2, -0.4, 0.9])
P = np.exp(LOGITS) / np.exp(LOGITS).sum()
TRUE = P * (BANDIT - P @ BANDIT)


def of_bandit(advantage, size, **groups):
    weigh = lambda chosen, mask: run(advantage, BANDIT[chosen][:, None], mask, **groups)
    log_probs = lambda theta: jax.nn.log_softmax(theta)[:, None]
    return expected_gradient(weigh, log_probs, LOGITS, size, np.ones((3, 1), bool))


@pytest.mark.parametrize("size", [2, 3, 4])
def test_rloo_is_unbiased_and_dr_grpo_is_short_of_it_by_its_factor(size):
    close(of_bandit(advantages.rloo, size, group_size=size), TRUE)
    dr_grpo = of_bandit(advantages.dr_grpo, size, group_size=size)
    close(dr_grpo, (size - 1) / size * TRUE)
    # The wrong twin, a mean that contains the return, is off by a k-th: far outside the tolerance.
    assert np.abs(dr_grpo - TRUE).max() == pytest.approx(np.abs(TRUE).max() / size, rel=1e-9)


@pytest.mark.parametrize("size", [2, 4, 8])
def test_grpo_weighs_prompts_by_their_difficulty(size):
    """With rewards 1 and 0 the expected gradient is E[s], s² = M(1 − M), M the share of right answers in the group."""
    for p, ddof in itertools.product((0.05, 0.2, 0.5), (0, 1)):
        right = np.array(list(itertools.product((0.0, 1.0), repeat=size)))
        chances = np.prod(np.where(right, p, 1 - p), axis=1)
        got = run(advantages.grpo, right.reshape(-1), group_size=size, ddof=ddof).reshape(right.shape)
        gradient = chances @ np.mean(got * (right - p), axis=1)
        of_right = [math.comb(size, j) * p**j * (1 - p) ** (size - j) for j in range(size)]
        spread = sum(chance * math.sqrt(j * (size - j)) / size for j, chance in enumerate(of_right))
        close(gradient, spread * math.sqrt((size - ddof) / size))
        if size == 2 and ddof == 0:
            close(gradient, p * (1 - p))
        if size == 8 and ddof == 0 and p == 0.05:
            close(gradient / (p * (1 - p)), 2.473, 5e-4)


# All answers of up to two tokens; token 2 ends an answer. The second token's logits follow the first token.
ANSWERS = np.array([[2, 0], *itertools.product((0, 1), range(3))])
LENGTHS = np.where(ANSWERS[:, 0] == 2, 1, 2)
LIVE = np.arange(2) < LENGTHS[:, None]
# What the first token earns does not depend on the second, as rewards-to-go ask for.
TOKEN_REWARDS = np.stack([RANDOM.normal(size=3)[ANSWERS[:, 0]], RANDOM.normal(size=len(ANSWERS))], axis=1)
TOKEN_REWARDS = np.where(LIVE, TOKEN_REWARDS, np.nan)
THETA = RANDOM.normal(size=(3, 3))


def answer_log_probs(theta):
    rows = np.stack([np.full(len(ANSWERS), 2), np.minimum(ANSWERS[:, 0], 1)], axis=1)
    return jax.nn.log_softmax(theta)[rows, ANSWERS]


def of_answers(advantage, over_time="sum", **kwargs):
    weigh = lambda chosen, mask: run(advantage, TOKEN_REWARDS[chosen], mask, group_size=2, **kwargs)
    return expected_gradient(weigh, answer_log_probs, THETA, 2, LIVE, over_time)


def chances_of_answers(theta):
    return jnp.exp(jnp.sum(jnp.where(LIVE, answer_log_probs(theta), 0.0), axis=1))


TOTALS = np.nansum(TOKEN_REWARDS, axis=1)


@pytest.mark.parametrize("which", ["total_return", "reward_to_go"])
def test_answers_of_two_lengths(which):
    true = np.tensordot(TOTALS, run(jax.jacobian(chances_of_answers), THETA), axes=1)
    close(of_answers(advantages.rloo, returns=which), true)
    close(of_answers(advantages.dr_grpo, returns=which), true / 2)


def test_dividing_by_the_length_is_biased_as_predicted():
    """E = Σ_a p(a) (G(a) − E G) ∇ ln p(a) / |a|, written down answer by answer."""
    slopes = run(jax.jacobian(chances_of_answers), THETA)
    centred = TOTALS - TOTALS @ run(chances_of_answers, THETA)
    predicted, true = np.tensordot(centred / LENGTHS, slopes, axes=1), np.tensordot(TOTALS, slopes, axes=1)
    close(of_answers(advantages.rloo, "episode_mean"), predicted)
    assert np.abs(predicted - true).max() > 0.1 * np.abs(true).max()


# --- equal is equal


@pytest.mark.parametrize("size", [2, 7, 100, 3300])
def test_equal_returns_are_worth_exactly_nothing(size):
    lengths = 1 + np.arange(size)[:, None] % 6
    mask, last = np.arange(6) < lengths, np.arange(6) == lengths - 1

    @jax.jit
    def every_one(scores, mask, last):
        rewards = jnp.where(last, scores[:, None], 0.0)
        to_go = functools.partial(advantages.reinforce_plus_plus, rewards, mask)
        halves = functools.partial(advantages.grpo, rewards, mask, group_ids=np.arange(size) % 2, num_groups=2)
        of_scores = [advantage(scores) for advantage in RULES.values()]
        of_rewards = [advantage(rewards, mask) for advantage in RULES.values()]
        return *of_scores, *of_rewards, to_go(), to_go(baseline="group_mean"), halves()

    for value in (1.1, -0.1, 1e-9, 1e19):
        assert not any(np.any(x) for x in every_one(np.full(size, value, np.float32), mask, last))
    assert all(np.any(x) for x in every_one(np.arange(size, dtype=np.float32), mask, last) if x.ndim == 1 or size > 2)


def test_an_absolute_epsilon_would_make_something_of_nothing():
    scores = np.full(3300, 1.1, np.float32)
    mean = np.cumsum(scores)[-1] / np.float32(3300)
    with_epsilon = (scores - mean) / (np.sqrt(np.mean(np.square(scores - mean))) + np.float32(1e-8))
    assert np.abs(with_epsilon).min() > 0.9 and not np.any(run(advantages.grpo, scores))


def test_the_unit_of_the_rewards_does_not_matter():
    scores = np.array([1.0, 2.0, 4.0, 7.0], np.float32)
    for factor in (1e-30, 1e-22, 1e-9, 1e19, 1e30):
        got = run(advantages.grpo, scores * np.float32(factor))
        close(got, (scores - scores.mean()) / scores.std(), 1e-6)
        close(run(advantages.standardise, scores * np.float32(factor)), got, 1e-6)
    # A derivative exists for equal returns as well.
    close(run(jax.grad(lambda x: advantages.grpo(x)[0]), np.ones(4)), [0.75, -0.25, -0.25, -0.25])


# --- by hand, the door, the example


def test_one_number_for_each_episode():
    scores = np.array([0.0, 1.0, 4.0, 3.0, 3.0, -6.0])
    close(run(advantages.rloo, scores, group_size=3), [-2.5, -1.0, 3.5, 4.5, 4.5, -9.0])
    close(run(advantages.dr_grpo, scores, group_size=3), [-5 / 3, -2 / 3, 7 / 3, 3.0, 3.0, -6.0])
    close(run(advantages.grpo, scores, group_size=2), [-1, 1, 1, -1, 1, -1])
    close(run(advantages.grpo, scores, group_size=2, ddof=1), np.array([-1, 1, 1, -1, 1, -1]) / math.sqrt(2))
    close(run(advantages.rloo, scores), scores - (scores.sum() - scores) / 5)
    counts = np.array([True, True, False, True, False, False])
    # The fourth has no other that counts beside it: nothing is subtracted.
    got = run(advantages.rloo, np.where(counts, scores, np.nan), counts, group_size=3)
    close(got, [-1.0, 1.0, 0.0, 3.0, 0.0, 0.0])


SCORES, TABLE = np.arange(6.0), np.ones((7, 5))
HALF = TABLE > 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: advantages.rloo(np.arange(6)), "rewards must be of a float type, got int"),
        (lambda: advantages.rloo(np.ones((2, 2, 2))), "rewards must have the shape [B] or [B, T], got (2, 2, 2)"),
        (lambda: advantages.grpo(SCORES, np.ones(6)), "mask must be bool of the shape (6,), got float64 (6,)"),
        (lambda: advantages.grpo(SCORES, np.ones(5, bool)), "mask must be bool of the shape (6,), got bool (5,)"),
        (lambda: advantages.rloo(SCORES, group_size=4), "group_size must divide the number of episodes 6, got 4"),
        (lambda: advantages.rloo(SCORES, group_size=1), "group_size must be at least 2, got 1"),
        (lambda: advantages.dr_grpo(SCORES, group_size=1), "group_size must be at least 2, got 1"),
        (lambda: advantages.grpo(SCORES, group_size=2.0), "group_size must be an integer at least 2, got 2.0"),
        (lambda: advantages.grpo(SCORES[:1]), "a batch that forms one group must hold at least 2 episodes, got 1"),
        (lambda: advantages.dr_grpo(SCORES[:1]), "a batch that forms one group must hold at least 2 episodes, got 1"),
        (lambda: advantages.grpo(SCORES, ddof=2), "ddof must be in [0, 1], got 2"),
        (lambda: advantages.rloo(SCORES, returns="sum"), "returns must be one of 'total_return', 'reward_to_go'"),
        (lambda: advantages.rloo(SCORES, num_groups=2), "group_ids and num_groups must be given together"),
        (
            lambda: advantages.rloo(SCORES, group_ids=np.arange(6), num_groups=2),
            "group_ids must be in [0, 1], got 2",
        ),
        (
            lambda: advantages.rloo(SCORES, group_ids=SCORES, num_groups=6),
            "group_ids must be integers of the shape (6,), got float64 (6,)",
        ),
        (
            lambda: advantages.rloo(SCORES, group_size=3, group_ids=np.zeros(6, int), num_groups=1),
            "group_size must be None if group_ids are given, got 3",
        ),
        (
            lambda: advantages.reinforce_plus_plus(SCORES, group_size=3),
            "baseline must be 'group_mean' if groups are given, got 'none'",
        ),
        (
            lambda: advantages.gae(TABLE, TABLE[:, :4], TABLE, HALF, discount=1.0, lambda_=1.0),
            "values must have the shape [B, T] of rewards (7, 5), got (7, 4)",
        ),
        (
            lambda: advantages.gae(TABLE, TABLE, TABLE[:, 0], HALF, HALF, discount=1.0, lambda_=1.0),
            "next_values must have the shape [B, T] if truncated is given, got [B]",
        ),
        (
            lambda: advantages.gae(TABLE, TABLE, TABLE, np.ones(7), discount=1.0, lambda_=1.0),
            "terminated must be bool, got float64",
        ),
        (lambda: advantages.aggregate(TABLE, HALF, over_time="max"), "over_time must be one of 'sum', 'mean'"),
    ],
)
def test_what_is_wrong_is_said(call, message):
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value)


def test_the_example_runs():
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"), jax.enable_x64(False):
        results = doctest.testmod(advantages)
    assert results.attempted > 5 and results.failed == 0
