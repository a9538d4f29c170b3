"""Advantages of masked arrays against plain NumPy loops: gaps, padding, empty rows, groups of unequal sizes."""

import functools
import itertools

import jax
import numpy as np
import pytest
import references
from closeness import close
from test_advantages import RULES, run

from pgjax import advantages, returns

pytestmark = pytest.mark.usefixtures("strict", "x64")

RANDOM = np.random.default_rng(1)
# Answers with a prompt in front, a tool's words in between, padding behind; one row is empty, and what is dead is NaN.
ROWS = ("01110", "11011", "10000", "11111", "00110", "00000", "10101")
MASK = np.array([[digit == "1" for digit in row] for row in ROWS])
REWARDS, VALUES = RANDOM.normal(size=(2, *MASK.shape))
DEAD = np.where(MASK, REWARDS, np.nan)
IDS = np.array([2, 0, 2, 0, 1, 0, 2], np.int32)


def to_go(rewards, live):
    return [rewards[live][n:].sum() for n in range(live.sum())]


def plain(rule, rewards, mask, ids, which):
    """One group, one episode, one step at a time."""
    result = np.zeros(mask.shape)
    for i, t in zip(*np.nonzero(mask)):
        group = [j for j in range(len(mask)) if ids[j] == ids[i] and mask[j].any()]
        n = mask[i, :t].sum() if which == "reward_to_go" else 0
        g = {j: dict(enumerate(to_go(rewards[j], mask[j]))).get(n, 0.0) for j in group}
        own, everyone = g[i], np.array(list(g.values()))
        others = [g[j] for j in group if j != i]
        if rule == "rloo":
            result[i, t] = own - (np.mean(others) if others else 0.0)
        else:
            spread = everyone.std(ddof=rule == "sample") if len(group) > 1 else 0.0
            divide = spread if rule != "dr_grpo" and spread > 0 else 1.0
            result[i, t] = (own - everyone.mean()) / divide
    return result


# Groups as neighbours, filled up with empty rows to three episodes.
ORDER = np.array([1, 3, 5, 4, 5, 5, 0, 2, 6])


@pytest.fixture(scope="module")
def masked():
    """(rule, which return) → the advantages by numbers of groups, and by neighbours, in one compilation."""
    with jax.enable_x64(True):

        @jax.jit
        def every_rule(rewards, mask, ids):
            by_ids = lambda rule, which: RULES[rule](rewards, mask, returns=which, group_ids=ids, num_groups=3)
            alike = lambda rule, which: RULES[rule](rewards[ORDER], mask[ORDER], returns=which, group_size=3)
            cases = itertools.product(RULES, ("total_return", "reward_to_go"))
            return {f"{rule}, {which}": (by_ids(rule, which), alike(rule, which)) for rule, which in cases}

        return jax.device_get(every_rule(DEAD, MASK, IDS.astype(np.uint8)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("which", ["total_return", "reward_to_go"])
def test_masked_groups_are_the_loops(masked, rule, which):
    """NaN outside the mask stays out; so do empty episodes, which may fill groups up."""
    got, alike = masked[f"{rule}, {which}"]
    close(got, plain(rule, REWARDS, MASK, IDS, which))
    assert (got[~MASK] == 0).all()
    close(alike, got[ORDER])


def test_statistics_of_groups_go_along_the_first_axis_only():
    statistics = functools.partial(advantages.group_statistics, group_size=2, ddof=1)
    got = jax.device_get(jax.jit(statistics)(REWARDS[:6], MASK[:6]))
    for i, t in itertools.product(range(6), range(5)):
        group = [REWARDS[j, t] for j in (i - i % 2, i - i % 2 + 1) if MASK[j, t]]
        mean = np.mean(group) if group else 0.0
        spread = np.std(group, ddof=1) if len(group) > 1 else 0.0
        wanted = (mean, REWARDS[i, t] - mean if MASK[i, t] else 0.0, spread, len(group))
        close([x[i, t] for x in got], list(wanted))


def openrlhf_with_group_mean(scores, penalties, mask, size):
    """Scores minus their group's mean at the last token, penalties, reward-to-go, and then the moments of the batch."""
    centred = (scores.reshape(-1, size) - scores.reshape(-1, size).mean(axis=1, keepdims=True)).reshape(-1)
    weights = np.zeros(mask.shape)
    for i, live in enumerate(mask):
        rewards = penalties[i].copy()
        rewards[np.flatnonzero(live)[-1]] += centred[i]
        weights[i, live] = to_go(rewards, live)
    return np.where(mask, (weights - weights[mask].mean()) / weights[mask].std(), 0.0)


def test_reinforce_plus_plus_and_what_implementations_make_of_it():
    mask = np.delete(MASK, 5, axis=0)
    penalties, scores = RANDOM.normal(size=mask.shape), RANDOM.normal(size=6)
    last = np.array([np.flatnonzero(live)[-1] for live in mask])
    with_score = lambda scores: np.where(mask, penalties, np.nan) + scores[:, None] * (np.arange(5) == last[:, None])
    standardised = lambda x, ddof=0: np.where(mask, (x - x[mask].mean()) / x[mask].std(ddof=ddof), 0.0)
    rewards = with_score(scores)
    going = np.zeros(mask.shape)
    for i, live in enumerate(mask):
        going[i, live] = to_go(rewards[i], live)
    close(run(advantages.reinforce_plus_plus, rewards, mask, ddof=1), standardised(going, ddof=1))
    totals = np.nansum(rewards, axis=1).reshape(3, 2)
    centred = np.where(mask, (totals - totals.mean(axis=1, keepdims=True)).reshape(-1, 1), 0.0)
    got = run(advantages.reinforce_plus_plus, rewards, mask, baseline="group_mean", group_size=2)
    close(got, standardised(centred))
    composed = run(advantages.reinforce_plus_plus, with_score(run(advantages.dr_grpo, scores, group_size=2)), mask)
    close(composed, openrlhf_with_group_mean(scores, penalties, mask, 2))
    one_step = run(advantages.reinforce_plus_plus, scores[:, None])[:, 0]
    close(one_step, run(advantages.grpo, scores))
    close(one_step, run(advantages.reinforce_plus_plus, scores))


@pytest.mark.parametrize("terminated", [True, False])
def test_gae_of_a_row_is_gae_of_its_steps(terminated):
    hypers = {"discount": 0.9, "lambda_": 0.7}
    last_values, ends = VALUES[:, 0] + 1.0, np.full(len(MASK), terminated)
    episodes = functools.partial(advantages.gae, **hypers)
    got = run(
        lambda *arrays: episodes(*arrays[:4], mask=arrays[4]),
        DEAD,
        np.where(MASK, VALUES, np.nan),
        last_values,
        ends,
        MASK,
    )
    for i, live in enumerate(MASK):
        n = live.sum()
        following, stops = [*VALUES[i, live][1:], last_values[i]][:n], [False] * (n - 1) + [terminated]
        wanted = references.gae(REWARDS[i, live], VALUES[i, live], following, stops[:n], [False] * n, **hypers)
        close(got[i, live], wanted)
        assert (got[i, ~live] == 0).all()


def test_gae_of_windows_is_gae_row_by_row():
    """Rows of several episodes, terminated and truncated inside; a sweep of the discount is a vmap."""
    shape = (3, 6)
    arrays = (*RANDOM.normal(size=(3, *shape)), *(RANDOM.random((2, *shape)) < 0.3))
    discounts = np.array([0.0, 0.9, 1.0])

    def sweep(function, arrays):
        return run(jax.vmap(lambda discount: function(*arrays, discount=discount, lambda_=0.8)), discounts)

    rows = lambda *arrays, **kwargs: jax.vmap(functools.partial(returns.gae, **kwargs))(*arrays)
    got = sweep(advantages.gae, arrays)
    np.testing.assert_array_equal(got, sweep(rows, arrays))
    assert np.abs(got - sweep(advantages.gae, arrays[:4])).max() > 0.1


def test_rewards_to_go_pass_over_gaps():
    got = run(advantages.reward_to_go, DEAD, MASK, discount=0.5)
    for i, live in enumerate(MASK):
        close(got[i, live], references.reward_to_go(list(REWARDS[i, live]), 0.5))
        assert (got[i, ~live] == 0).all()
    close(run(advantages.reward_to_go, REWARDS), REWARDS[:, ::-1].cumsum(axis=1)[:, ::-1])


def test_three_ways_to_add_up():
    live = [row[mask] for row, mask in zip(REWARDS, MASK) if mask.any()]
    wanted = {
        "sum": sum(row.sum() for row in live) / 6,
        "mean": np.concatenate(live).mean(),
        "episode_mean": np.mean([row.mean() for row in live]),
    }
    for over_time, value in wanted.items():
        close(run(advantages.aggregate, DEAD, MASK, over_time=over_time), value)
        weights = run(advantages.step_weights, MASK, over_time=over_time)
        close(np.sum(weights * np.where(MASK, REWARDS, 0.0)), value)
    assert run(advantages.aggregate, DEAD, np.zeros_like(MASK)) == 0


@pytest.mark.parametrize("rule", RULES)
def test_a_vmap_is_a_loop(rule):
    stacked = np.stack([DEAD[:6], DEAD[1:]]), np.stack([MASK[:6], MASK[1:]])
    one = functools.partial(RULES[rule], returns="reward_to_go", group_size=3)
    close(run(jax.vmap(one), *stacked), [run(one, *each) for each in zip(*stacked)])
