"""Pieces are an implementation of a plain sum and a plain map, whatever their size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import _shards
from pgjax import rows as rows_module
from pgjax.rows import map_over_rows, sum_over_rows

T, B = 7, 5


@pytest.fixture(scope="module")
def batch():
    rows = jax.random.normal(jax.random.key(0), (T, B, 3))
    alive = jnp.arange(T)[:, None] < jnp.asarray([1, 4, 0, 3, 2])
    return rows, alive


def masked_sum(piece, mask):
    return {"sum": jnp.sum(jnp.where(mask[:, None], piece, 0.0), axis=0), "count": jnp.sum(mask)}


@pytest.mark.parametrize("size", [1, 4, 11, 35, 1000, None])
def test_a_sum_does_not_depend_on_the_piece_size(batch, size):
    rows, alive = batch
    got = sum_over_rows(masked_sum, rows, alive, size)
    np.testing.assert_allclose(got["sum"], np.asarray(rows)[np.asarray(alive)].sum(0), rtol=1e-5)
    assert got["count"] == alive.sum()


@pytest.mark.parametrize("size", [1, 11, None])
def test_a_map_does_not_depend_on_the_piece_size(batch, size):
    rows, alive = batch
    got = map_over_rows(lambda x: jnp.sum(x, axis=-1), rows, alive, size)
    np.testing.assert_allclose(got, np.where(alive, rows.sum(-1), 0.0), rtol=1e-6)


def test_a_map_keeps_trailing_axes(batch):
    rows, alive = batch
    got = map_over_rows(lambda x: jnp.stack([x, 2.0 * x], axis=1), rows, alive, 11)
    np.testing.assert_allclose(got, np.where(alive[..., None, None], np.stack([rows, 2 * rows], axis=2), 0.0))


def test_rows_after_the_last_live_one_are_never_visited(batch):
    rows, alive = batch
    poisoned = rows.at[4:].set(jnp.nan)
    # The wrong twin multiplies by the mask and visits everything: NaN · 0 is NaN.
    wrong = jnp.sum(poisoned * alive[..., None])
    right = sum_over_rows(lambda piece, mask: jnp.sum(piece * mask[:, None]), poisoned, alive, B)
    assert np.isnan(wrong) and np.isfinite(right)


def test_no_live_row_gives_zero(batch):
    rows, alive = batch
    got = sum_over_rows(masked_sum, rows, jnp.zeros_like(alive), 4)
    assert got["count"] == 0 and not got["sum"].any()


def test_under_vmap_and_jit(batch):
    rows, alive = batch
    many = jax.jit(jax.vmap(lambda r, a: sum_over_rows(masked_sum, r, a, 4)["sum"]))(
        jnp.stack([rows, 2 * rows]), jnp.stack([alive, ~alive])
    )
    np.testing.assert_allclose(many[0], np.asarray(rows)[np.asarray(alive)].sum(0), rtol=1e-5)
    np.testing.assert_allclose(many[1], 2 * np.asarray(rows)[~np.asarray(alive)].sum(0), rtol=1e-5)


def test_a_large_sum_has_fewer_blocks_and_larger_pieces(monkeypatch):
    """The memory traffic of a large gradient grows with the number of its pieces, so they must be few."""
    batch, alive = jax.random.normal(jax.random.key(0), (T, 32, 3)), jnp.ones((T, 32), bool)
    lengths = []

    def counted(piece, mask):
        jax.debug.callback(lambda: lengths.append(piece.shape[0]))
        return masked_sum(piece, mask)

    monkeypatch.setattr(rows_module, "_CPU_ROWS", 14)
    monkeypatch.setattr(rows_module, "_MANY_CORE_ROWS", 14)
    small = sum_over_rows(counted, batch, alive)
    assert lengths == [14] * 16  # eight blocks of 28 rows
    lengths.clear()
    monkeypatch.setattr(_shards, "_LARGE_SUM", 3)
    monkeypatch.setattr(rows_module, "_CACHED_SUM", 3)
    large = sum_over_rows(counted, batch, alive)
    assert lengths == [112] * 2
    np.testing.assert_allclose(large["sum"], small["sum"], rtol=1e-5)


def test_the_pieces_of_a_sum_that_leaves_the_cache_are_larger(monkeypatch):
    """The size of the sum decides, not that of the batch: above 2¹⁸ numbers a piece has up to 1 024 rows, not 256."""
    monkeypatch.setattr(rows_module.os, "cpu_count", lambda: 2)
    assert [rows_module.default_rows(sum_size=size) for size in (0, 1 << 18, (1 << 18) + 1)] == [256, 256, 1024]
    seen = []

    def function(piece, mask, theta):
        seen.append(mask.shape[0])
        return theta * jnp.sum(jnp.where(mask, piece, 0.0))

    ones = jnp.ones((64, 64))
    for size, largest in ((4, 256), ((1 << 18) + 1, 512)):
        seen.clear()
        total = sum_over_rows(function, ones, ones > 0, shared=(jnp.ones(size),))
        assert total.shape == (size,) and float(total[0]) == 64 * 64
        assert seen[-1] == largest
