"""The gradient of uneven episodes does not pay for their padding, and it is the gradient of all rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from geometric import HORIZON, geometric

from pgjax import _pieces, acting, automata, baselines, estimators, networks, rollouts
from pgjax import rows as rows_module
from pgjax.environments.text import make_text
from pgjax.types import Trajectory

EPISODES = 24


@pytest.fixture(autouse=True)
def _packed(monkeypatch):
    """Small batches are packed too."""
    monkeypatch.setattr(_pieces, "_PACKED_ROWS", 0)


def drawn(policy, environment, scale=1.0):
    """θ with every number away from zero, in the default float type."""
    _, obs = environment.reset(jax.random.key(0), environment.params)
    draw, like = np.random.default_rng(0), jax.eval_shape(policy.init, jax.random.key(0), obs)
    return jax.tree.map(lambda x: jnp.asarray(scale * draw.standard_normal(x.shape), float), like)


def text(new=32):
    """Answers of a random length up to 32 tokens, to prompts of one to three tokens."""
    ones = automata.make_automaton(np.zeros((1, 5), int), rewards=np.arange(5.0)[None])
    return make_text(
        [[1, 0, 0], [1, 2, 0], [2, 2, 1]],
        prompt_lengths=[1, 2, 3],
        score=ones,
        max_new_tokens=new,
        vocabulary=5,
        eos=4,
    )


PROBLEMS = {
    "recurrent": (geometric(), {"network": "gru", "hidden": (), "network_options": {"memory_size": 3}}),
    "transformer": (text(), {"network": "transformer", "hidden": (4,), "network_options": {"heads": 2}}),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", PROBLEMS)
def test_whole_episodes_in_pieces_of_their_length_give_the_gradient_of_all_rows(name, monkeypatch):
    environment, options = PROBLEMS[name]
    policy = networks.make_policy(environment, **options)
    params = drawn(policy, environment)
    keys = jax.random.split(jax.random.key(1), EPISODES)
    batch = jax.jit(lambda: rollouts.episodes(environment, policy, params, keys, record_log_probs=True))()
    lengths = np.asarray(batch.alive).sum(axis=0)
    assert lengths.min() <= environment.horizon / 4 < lengths.max()
    estimator = estimators.make_estimator(
        policy, baseline=baselines.leave_one_out(), entropy_coef=0.1, rows_per_piece=2 * environment.horizon
    )

    def both():
        state = estimator.init(jax.random.key(0), batch)
        return estimator.gradient(params, state, batch)[0], acting.log_probs(policy, params, batch)

    gradient, log_probs = jax.jit(both)()
    np.testing.assert_allclose(log_probs, batch.behaviour_log_probs, atol=1e-10)
    monkeypatch.setattr(_pieces, "_PARTS", (1,))
    wanted = jax.jit(lambda: both())()
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-12)
    jax.tree.map(close, (gradient, log_probs), wanted)
    assert max(np.abs(x).max() for x in jax.tree.leaves(gradient)) > 1e-2


def test_a_piece_of_whole_episodes_is_computed_to_a_quarter_of_the_horizon_if_it_ends_there():
    lengths = jnp.asarray([3, 40, 10, 1, 0, 11, 2, 5])  # NaN · 0 is NaN: padding would show
    alive = jnp.arange(40)[:, None] < lengths
    x, seen = jnp.where(alive, jnp.arange(40.0)[:, None], jnp.nan), []

    def counted(piece, mask):
        jax.debug.callback(lambda: seen.append(piece.shape))
        return jnp.sum(piece * mask), (2 * piece).reshape(-1)

    total, values = jax.jit(lambda: rows_module.over_rows(counted, x, alive, 40, whole_episodes=True))()
    jax.effects_barrier()
    # An episode without a row has no piece.
    assert sorted(seen) == [(10, 1)] * 5 + [(40, 1)] * 2
    assert total == sum(n * (n - 1) // 2 for n in lengths.tolist())
    np.testing.assert_array_equal(values, np.where(alive, 2 * np.asarray(x), 0.0))


@pytest.mark.parametrize(
    ("lengths", "pieces"), [([3, 20, 7, 1, 0, 10, 2], 6), ([20, 20, 20, 20, 20, 20, 19], 18)], ids=["much", "little"]
)
def test_no_piece_of_rows_holds_padding(lengths, pieces):
    lengths = jnp.asarray(lengths)
    alive = jnp.arange(20)[:, None] < lengths
    x, seen = jnp.where(alive, jnp.arange(20.0)[:, None], jnp.nan), []

    def counted(piece, mask):
        jax.debug.callback(lambda rows: seen.extend(rows.tolist()), piece)
        return jnp.sum(piece * mask), 2 * piece

    total, values = jax.jit(lambda: rows_module.over_rows(counted, x, alive, 8))()
    jax.effects_barrier()
    # NaN · 0 is NaN: a piece with a row of padding would show.
    assert np.isfinite(seen).all() and len(seen) == 8 * pieces
    assert total == sum(n * (n - 1) // 2 for n in lengths.tolist())
    np.testing.assert_array_equal(values, np.where(alive, 2 * np.asarray(x), 0.0))


def test_runs_that_are_vmapped_together_share_the_branch_and_the_number_of_pieces():
    """Under a vmap without a name a piece is as long as the longest episode of all runs."""
    x = jnp.ones((HORIZON, 4))
    alive = jnp.arange(HORIZON)[:, None] < jnp.asarray([[5, 1, 2, 3], [5, 25, 2, 3]])[:, None]
    total = lambda x, alive: rows_module.sum_over_rows(
        lambda piece, mask: jnp.sum(piece * mask), x, alive, HORIZON, whole_episodes=True
    )
    together = jax.vmap(total, (None, 0))
    np.testing.assert_array_equal(together(x, alive), [11, 35])
    assert "select_n" not in str(jax.make_jaxpr(lambda: jax.vmap(rows_module.largest_of_runs)(jnp.arange(3)))())
    cond = lambda index: jax.lax.cond(rows_module.largest_of_runs(index) > 1, jnp.sin, jnp.cos, 1.0)
    assert "cond" in str(jax.make_jaxpr(jax.vmap(cond))(jnp.arange(3)))


def test_nested_vmaps_share_one_maximum():
    x, largest = jnp.arange(6).reshape(2, 3), rows_module.largest_of_runs
    np.testing.assert_array_equal(jax.vmap(jax.vmap(largest))(x), jnp.full((2, 3), 5))
    np.testing.assert_array_equal(jax.vmap(jax.vmap(lambda x, y: largest(x + y)), (0, None))(x, x[0]), [[7] * 3] * 2)
    cond = lambda index: jax.lax.cond(largest(index) > 1, jnp.sin, jnp.cos, 1.0)
    assert "select_n" not in str(jax.make_jaxpr(jax.jit(jax.vmap(jax.jit(jax.vmap(cond)))))(x))


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("whole", [True, False])
def test_an_episode_without_a_live_row_poisons_nothing(monkeypatch, whole, packed):
    monkeypatch.setattr(_pieces, "_PACKED_ROWS", 0 if packed else 1 << 17)
    alive = jnp.arange(3)[:, None] < jnp.asarray([0, 3, 0, 2])
    x = jnp.where(alive, 2.0, jnp.nan)
    total = rows_module.sum_over_rows(lambda piece, mask: jnp.sum(piece * mask), x, alive, 6, whole_episodes=whole)
    assert total == 10.0
    filled = _pieces.fill_with_live(x, alive)
    assert np.isfinite(filled).all()


def test_values_that_use_the_mask_survive_rows_that_the_last_piece_repeats():
    x, alive = jnp.arange(1.0, 11.0).reshape(5, 2), jnp.ones((5, 2), bool)
    _, values = rows_module.over_rows(lambda piece, mask: (jnp.sum(piece), piece * mask), x, alive, 4)
    np.testing.assert_array_equal(values, x)


@pytest.mark.parametrize("options", [{"hidden": (2,)}, PROBLEMS["recurrent"][1]], ids=["rows", "recurrent"])
def test_a_dead_episode_with_nan_poisons_no_gradient(options):
    environment = geometric(4)
    policy = networks.make_policy(environment, **options)
    params = drawn(policy, environment)
    alive = jnp.arange(4)[:, None] < jnp.asarray([3, 0, 2])

    def gradients(padding):
        batch = Trajectory(
            obs=jnp.where(alive[..., None], 1.0, padding) * jnp.ones(environment.observation_space.shape),
            actions=jnp.zeros((4, 3), jnp.int32),
            rewards=jnp.where(alive, 1.0, 0.0),
            alive=alive,
            terminated=alive & ~jnp.roll(alive, -1, axis=0),
            truncated=jnp.zeros_like(alive),
            final_obs=jnp.ones((3, *environment.observation_space.shape)),
        )
        estimator = estimators.make_estimator(policy)
        state = estimator.init(jax.random.key(0), batch)
        return estimator.gradient(params, state, batch)[0], estimator.episode_gradients(params, state, batch)

    jax.tree.map(np.testing.assert_array_equal, *(jax.jit(gradients)(x) for x in (0.0, jnp.nan)))
