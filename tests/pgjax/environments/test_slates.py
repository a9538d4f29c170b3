"""Slates: the user model's equations, its invariants, its reference policies, and the network that scores items."""

import jax
import numpy as np
import pytest

from pgjax import environments, evaluation, networks
from pgjax.environments import slates
from pgjax.spaces import Box, Discrete

LANES, STEPS = 64, 120


@pytest.fixture(scope="module")
def env():
    return environments.make("slates")


@pytest.fixture(scope="module")
def sessions(env):
    """Random slates: states before and after each step and the rewards, `[STEPS, LANES, ...]`; endings are ignored."""

    def step(state, key):
        action_key, step_key = jax.random.split(key)
        new, seen = env.step(step_key, state, env.action_space.sample(action_key), env.params)
        return new, (state, new, seen.reward, seen.terminated)

    def session(key):
        state, _ = env.reset(key, env.params)
        return jax.lax.scan(step, state, jax.random.split(key, STEPS))[1]

    rows = jax.jit(jax.vmap(session))(jax.random.split(jax.random.key(0), LANES))
    return jax.tree.map(np.asarray, rows)


def test_a_click_and_no_click_change_the_budget_as_stated(sessions):
    before, after, reward, _ = sessions
    running, clicked = before.budget > 0, after.clicked >= 0
    change = after.budget - before.budget
    watched = np.minimum(before.budget, 4.0)
    wanted = np.where(clicked, (0.9 / 3.4 * after.quality - 1.0) * watched, -0.5)
    np.testing.assert_allclose(change[running], wanted[running], atol=1e-4)
    np.testing.assert_allclose(reward[running], np.where(clicked, watched, 0.0)[running], atol=1e-6)
    assert (change[running] < 0).all(), "no quality is high enough to make a session longer than before"
    assert 0.2 < clicked[running].mean() < 0.9


def test_interests_stay_in_their_range_and_only_the_clicked_topic_moves(sessions):
    before, after, _, _ = sessions
    assert np.abs(after.interests).max() <= 1.0
    moved = np.abs(after.interests - before.interests)
    clicked = after.clicked >= 0
    assert (moved[~clicked] == 0.0).all()
    lanes, times = np.nonzero(clicked)
    topic = after.shown[lanes, times, after.clicked[lanes, times]]
    u = before.interests[lanes, times, topic]
    np.testing.assert_allclose(moved[lanes, times].sum(-1), 0.3 * (1 - np.abs(u)) * (1 - u), atol=1e-5)


def test_qualities_are_those_of_their_topics(env, sessions):
    before = sessions[0]
    noise = before.qualities - np.asarray(env.params.topic_quality)[before.topics]
    assert abs(noise.mean()) < 0.003 and abs(noise.std() - 0.1) < 0.003
    assert before.qualities.max() < 1.0 / env.params.quality_gain, "or a session might never end"


def test_choices_follow_the_weights(env, sessions):
    before, after, _, _ = sessions
    interests = np.take_along_axis(before.interests, after.shown, axis=-1)
    probability = jax.vmap(jax.vmap(lambda u: slates.choice_probabilities(u, env.params)))(interests)
    np.testing.assert_allclose(probability.sum(-1), 1.0, atol=1e-6)
    assert (np.asarray(probability) >= 0.0).all()
    for place in range(4):
        happened = after.clicked == (place if place < 3 else -1)
        deviation = np.sqrt((probability[..., place] * (1 - probability[..., place])).sum())
        assert abs(happened.sum() - probability[..., place].sum()) < 4.5 * deviation


def test_random_and_myopic_slates_reach_the_known_watch_times(env):
    # 159.4 ± 0.7 and 167.3 ± 1.3 in 300 sessions of an independent implementation of the same equations; SlateQ's
    # authors print 159.2 and 166.3.
    for policy, wanted, error in (
        (environments.random_policy(env), 159.4, 0.7),
        (slates.myopic_policy(env), 167.3, 1.3),
    ):
        found = evaluation.evaluate(env, policy, (), jax.random.key(0), num_episodes=500)
        assert abs(found.mean - wanted) < 2.5 * np.hypot(found.stderr, error)
        assert found.lengths.max() < env.horizon


def test_items_are_scored_by_one_network(env):
    policy = networks.make_policy(env, network="items", hidden=(8,))
    _, obs = env.reset(jax.random.key(0), env.params)
    params = jax.tree.map(lambda x: x + 0.3, policy.init(jax.random.key(1), obs))
    order = np.random.default_rng(0).permutation(10)
    scores = policy.apply(params, obs)
    assert scores.shape == (10,) and np.ptp(scores) > 1e-3
    exchanged = policy.apply(params, obs | {"items": obs["items"][order]})
    np.testing.assert_allclose(exchanged, np.asarray(scores)[order], rtol=1e-5)


@pytest.mark.parametrize(
    ("observation", "actions", "message"),
    [
        (Box(-1.0, 1.0, (3,)), Discrete(4), r"exactly one observed matrix, with a row for each item, got \(3,\)"),
        (Box(-1.0, 1.0, (3, 2)), Discrete(4), "an output for each of the 3 observed rows, but needs 4"),
    ],
)
def test_the_network_of_items_needs_a_row_for_each_output(observation, actions, message):
    with pytest.raises(ValueError, match=message):
        networks.policy_for_spaces(observation, actions, network="items")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"slate_size": 11}, r"slate_size must be in \[1, 10\], got 11"),
        ({"candidates": 0}, "candidates must be at least 1, got 0"),
        ({"topics": 1}, "topics must be at least 2, got 1"),
        ({"params": slates.default_params(5)}, "one number for each of the 20 topics"),
        ({"params": slates.default_params()._replace(length=-4.0)}, "length must be at least 0.001, got -4"),
        ({"params": slates.default_params()._replace(no_click_mass=-1.5)}, "no_click_mass must be at least -1"),
        ({"params": slates.default_params()._replace(quality_gain=0.5)}, "topic_quality must be at most 2, got"),
    ],
)
def test_impossible_sizes_and_numbers_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        slates.make_slates(**options)


def test_the_contract_and_the_picture():
    small = slates.make_slates(topics=3, candidates=3, slate_size=2, observe_budget=True)
    report = environments.check(small, num_steps=4, num_lanes=2)
    assert report.random_reset and report.random_step
