"""Episodes of very different lengths: ended lanes leave the batch, and no length is preferred."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometric import HORIZON, MEAN_LENGTH, P_END, geometric

from pgjax import acting, networks, rollouts
from pgjax.rollouts import _tiles

EPISODES = 640
POLICY = networks.make_policy(geometric(), hidden=(8,))


@pytest.fixture(scope="module")
def params():
    draw = np.random.default_rng(0).standard_normal
    like = POLICY.init(jax.random.key(0), jnp.zeros(3))
    return jax.tree.map(lambda x: jnp.asarray(draw(x.shape), jnp.float32), like)


def play(params, tile, policy=POLICY, environment=None, count=EPISODES, **options):
    environment = geometric() if environment is None else environment
    episodes = lambda params, keys: rollouts.episodes(
        environment, policy, params, keys, tile=tile, record_log_probs=True, chunk=5, **options
    )
    return jax.jit(episodes)(params, jax.random.split(jax.random.key(1), count))


@pytest.fixture(scope="module")
def both(params):
    return play(params, tile=EPISODES), play(params, tile=40)


def require_equal(one, other):
    """All leaves are equal, with the padding; products with another number of lanes may round differently."""
    for name, a in one._asdict().items():
        check = lambda x, y, name=name: (
            np.testing.assert_allclose(x, y, atol=1e-6)
            if name == "behaviour_log_probs"
            else np.testing.assert_array_equal(x, y)
        )
        jax.tree.map(check, a, getattr(other, name))


def test_tiles_change_no_episode(both):
    require_equal(*both)
    assert np.ptp(both[0].behaviour_log_probs) > 1.0


def test_rows_after_the_end_hold_zeros(both):
    ended = ~np.asarray(both[1].alive)
    assert all(not np.asarray(x)[ended].any() for x in (both[1].obs, both[1].actions, both[1].rewards))
    # The last observation is a real one.
    assert np.abs(both[1].final_obs).min() > 0


def z_value(lengths):
    return (lengths.mean() - MEAN_LENGTH) / (lengths.std(ddof=1) / np.sqrt(lengths.size))


def test_the_mean_length_is_exact_and_the_first_to_finish_are_too_short(params, both):
    lengths = np.asarray(both[1].alive).sum(axis=0)
    assert abs(z_value(lengths)) < 4
    # A wrong twin stops when half of the lanes have ended and averages what has finished.
    first = np.sort(lengths)[: lengths.size // 2]
    expected = np.arange(1, HORIZON + 1)
    weight = P_END * (1 - P_END) ** (expected - 1)
    weight = weight[np.cumsum(weight) <= 0.5]
    assert z_value(first) < -20
    np.testing.assert_allclose(first.mean(), np.average(expected[: weight.size], weights=weight), rtol=0.1)


def test_episodes_with_parameters_of_their_own_keep_them(params):
    ends = jnp.where(jnp.arange(EPISODES) % 2, 1.0, 0.02)
    require_equal(*(play(params, tile, env_params=ends, env_params_axis=0) for tile in (EPISODES, 40)))
    lengths = np.asarray(play(params, 40, env_params=ends, env_params_axis=0).alive).sum(axis=0)
    assert (lengths[1::2] == 1).all() and lengths[::2].mean() > 20


def test_a_memory_and_the_starts_of_groups_move_with_their_episodes():
    gru = networks.make_policy(geometric(), network="gru", hidden=(), network_options={"memory_size": 3})
    like = gru.init(jax.random.key(0), jnp.zeros(3))
    params = jax.tree.map(lambda x: jnp.asarray(np.random.default_rng(0).standard_normal(x.shape), jnp.float32), like)
    batches = [play(params, tile, gru, count=160, group_size=4) for tile in (EPISODES, 40)]
    require_equal(*batches)
    first = np.asarray(batches[1].obs)[0]
    np.testing.assert_array_equal(first, first[::4].repeat(4, 0))
    again = acting.log_probs(gru, params, batches[1])
    np.testing.assert_allclose(again, batches[1].behaviour_log_probs, atol=1e-5)


@pytest.mark.parametrize(
    ("episodes", "most", "width"),
    # A divisor, the next even divisor below, too few episodes, and no even divisor above a quarter.
    [(512, 64, 64), (60, 16, 12), (31, 16, None), (32, 16, 16), (35, 8, None), (511, None, None), (512, None, 128)],
)
def test_a_tile_is_an_even_divisor_above_a_quarter(episodes, most, width):
    assert _tiles.tile_width(episodes, most) == width


def test_tiles_of_batches_that_are_vmapped_together_are_those_of_each_alone():
    environment = geometric(HORIZON)
    policy = networks.make_policy(environment, hidden=(2,))
    params = policy.init(jax.random.key(0), jnp.zeros(environment.observation_space.shape))
    keys = jax.vmap(lambda key: jax.random.split(key, 8))(jax.random.split(jax.random.key(1), 3))
    play = lambda keys: rollouts.episodes(environment, policy, params, keys, tile=2, chunk=2)
    together = jax.jit(jax.vmap(play))(keys)
    alone = jax.jit(lambda: jax.lax.map(play, keys))()
    for name in ("alive", "actions", "rewards"):
        np.testing.assert_array_equal(getattr(together, name), getattr(alone, name))
    assert len(set(np.asarray(together.alive).sum(axis=(1, 2)))) == 3
