"""Ads: click probabilities, views, the chain of events, the mask, and the knowledge that views give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments
from pgjax.environments import ads

LANES, STEPS = 400, 150


@pytest.fixture(scope="module")
def env():
    return ads.make_ads(link="sharp", flips=2)


@pytest.fixture(scope="module")
def events(env):
    """Random ads: states before and after each event, rewards and endings, `[LANES, STEPS, ...]`."""

    def step(state, key):
        action_key, step_key = jax.random.split(key)
        new, seen = env.step(step_key, state, jax.random.randint(action_key, (), 0, 10), env.params)
        return new, (state, new, seen)

    def session(key):
        state, _ = env.reset(key, env.params)
        return jax.lax.scan(step, state, jax.random.split(key, STEPS))[1]

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(session))(jax.random.split(jax.random.key(0), LANES)))


@pytest.mark.parametrize(
    ("link", "low", "middle", "high"), [("recogym", 0.00448, 0.00942, 0.02931), ("sharp", 0.05, 0.325, 0.6)]
)
def test_click_probabilities_lie_between_their_bounds_and_rise(link, low, middle, high):
    values = np.asarray(ads.link_function(jnp.linspace(-60.0, 60.0, 121), link))
    np.testing.assert_allclose(values[[0, 60, 120]], [low, middle, high], rtol=2e-3)
    assert (np.diff(values) >= 0.0).all()


def test_clicks_happen_as_often_as_their_probabilities_say(env, events):
    before, after, seen = events
    shown = before.bandit
    assert (after.ad >= 0).tolist() == shown.tolist()
    probability = after.click_probability[shown]
    deviation = np.sqrt((probability * (1 - probability)).sum())
    assert abs(after.click[shown].sum() - probability.sum()) < 4.5 * deviation
    assert (seen.reward == after.click).all() and not after.click[~shown].any()
    assert (after.best_click_probability >= after.click_probability).all()


def test_views_follow_the_softmax_of_the_interests(env, events):
    before, after, _ = events
    viewed = ~before.bandit
    params = jax.tree.map(np.asarray, env.params)
    scores = before.interests[viewed] @ params.organic_factors.T + params.organic_popularity
    probability = np.exp(scores - scores.max(-1, keepdims=True))
    probability /= probability.sum(-1, keepdims=True)
    counts = (after.views - before.views)[viewed]
    assert (counts.sum(-1) == 1).all() and (after.views == before.views)[before.bandit].all()
    deviation = np.sqrt((probability * (1 - probability)).sum(0))
    assert (np.abs(counts.sum(0) - probability.sum(0)) < 4.5 * deviation + 1).all()


def test_the_chain_of_events(events):
    before, after, seen = events
    clicked = after.click
    for kind, rate in ((False, 0.25), (True, 0.05)):
        rows = (before.bandit == kind) & ~clicked
        for happened, wanted in ((seen.terminated[rows], 0.01), ((after.bandit != before.bandit)[rows], rate)):
            assert abs(happened.mean() - wanted) < 4.5 * np.sqrt(wanted * (1 - wanted) / rows.sum())
    assert not after.bandit[clicked].any() and not seen.terminated[clicked].any()
    stays = after.bandit
    assert (after.interests == before.interests)[stays].all()
    assert abs((after.interests - before.interests)[~stays].std() - 0.1) < 0.005


def test_sessions_are_as_long_as_the_absorbing_chain_says():
    params = ads.draw_shop()
    organic, bandit = ads.expected_events(params)
    # Every event ends the session with probability 0.01, so 100 are expected; 0.26 a = 1 + 0.05 b.
    assert organic + bandit == pytest.approx(100.0)
    assert 0.26 * organic == pytest.approx(1.0 + 0.05 * bandit)
    rng = np.random.default_rng(0)
    lengths = np.zeros(4000)
    kind, alive = np.zeros(4000, bool), np.ones(4000, bool)
    while alive.any():  # the same chain once more, with clicks of one probability, in plain NumPy
        lengths += alive
        click = kind & (rng.random(4000) < 0.3)
        draw = rng.random(4000)
        alive &= click | (draw >= 0.01)
        kind = ~click & (kind ^ ((draw >= 0.01) & (draw < 0.01 + np.where(kind, 0.05, 0.25))))
    expected = sum(ads.expected_events(params, click_rate=0.3))
    assert abs(lengths.mean() - expected) < 4.5 * lengths.std() / np.sqrt(4000)


def test_an_organic_event_allows_one_action_and_says_so(env, events):
    before, after, seen = events
    mask = jax.vmap(jax.vmap(env.action_mask))(seen.obs)
    assert (np.asarray(mask).sum(-1) == np.where(after.bandit, 10, 1)).all()
    shares = seen.obs[..., :10].sum(-1)
    np.testing.assert_allclose(shares, 1.0, atol=1e-5)  # the first event is a view
    metrics = env.metrics(after, seen.obs, env.params)
    assert (metrics["impression"] == before.bandit).all() and (metrics["regret"] >= 0.0).all()


def test_flips_exchange_pairs_of_similar_products():
    plain, flipped = ads.draw_shop(flips=0), ads.draw_shop(flips=2)
    assert (plain.bandit_factors == plain.organic_factors).all()
    assert int((flipped.bandit_factors != plain.bandit_factors).any(1).sum()) == 4
    np.testing.assert_allclose(np.sort(flipped.bandit_popularity), np.sort(plain.bandit_popularity))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"products": 1}, "products must be at least 2, got 1"),
        ({"flips": 6}, r"flips must be in \[0, 5\], got 6"),
        ({"link": "linear"}, "link must be one of 'recogym', 'sharp', got 'linear'"),
        ({"params": ads.draw_shop()._replace(leave=0.0)}, r"leave must be in \[0.001, 1\], got 0"),
        ({"params": ads.draw_shop()._replace(drift=-0.1)}, "drift must be at least 0"),
        ({"params": ads.draw_shop()._replace(bandit_to_organic=0.995)}, r"bandit_to_organic must be in \[0, 0.99\]"),
        ({"params": ads.draw_shop(products=4)}, r"organic_factors must have the shape \(10, 5\)"),
    ],
)
def test_impossible_shops_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        ads.make_ads(**options)


def test_the_contract_and_the_picture():
    report = environments.check(ads.make_ads(products=3, factors=2), num_steps=8, num_lanes=4)
    assert report.random_reset and report.random_step
