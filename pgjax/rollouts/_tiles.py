"""Lanes in tiles: the lanes that still run fill as few tiles as they can. Axes: T time, B episodes, w lanes of a tile.

One program steps the w lanes of a tile. A chunk of steps runs it for every tile that has a live lane, so a batch in
which most episodes have ended costs little more than its live lanes. A program for each of several widths costs more
time for its compilation, and lanes that take a new episode when one ends, each at its own time, were slower.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax._platform import platform
from pgjax.types import PyTree

_CPU_LANES, _ACCELERATOR_LANES, _LEAST_TILES = 128, 1 << 17, 4


def tile_width(num_episodes: int, most: int | None = None) -> int | None:
    """w: the largest even divisor of B that is at most `most` and above a quarter of it; None for no tiles.

    There are no tiles without such a divisor, and with less than twice `most` episodes.

    Args:
        num_episodes: B.
        most: None takes 128 on a CPU, where wider tiles were no faster, and 2¹⁷ on an accelerator, which fewer lanes
            would leave idle; then there are no tiles with less than four times as many episodes, because the second
            loop costs about as much compilation as the first.
    """
    least = 2
    if most is None:
        most, least = (_CPU_LANES if platform() == "cpu" else _ACCELERATOR_LANES), _LEAST_TILES
    if num_episodes < least * most:
        return None
    # Products of one row round differently, so the width is even.
    fits = (width for width in range(most - most % 2, most // 4, -2) if num_episodes % width == 0)
    return next(fits, None)


class Running(NamedTuple):
    """The lanes of a batch, or of one of its tiles; all leaves have a leading axis `[B]` or `[w]`.

    Attributes:
        lanes: their episodes.
        keys: the key of each episode.
        env_params: the environment's parameters if each episode has its own, and `()` otherwise.
        columns: int32, the episode that each lane plays.
    """

    lanes: PyTree
    keys: jax.Array
    env_params: PyTree
    columns: jax.Array


def compact(running: Running, alive: jax.Array) -> Running:
    """The same lanes with the live ones first, in their order."""
    order = jnp.argsort(~alive, stable=True)
    return jax.tree.map(lambda x: x[order], running)


def cut(tree: PyTree, i: jax.Array, width: int, axis: int = 0) -> PyTree:
    """Tile i of leaves `[B, ...]`."""
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, i * width, width, axis), tree)


def put(tree: PyTree, tile: PyTree, i: jax.Array, width: int) -> PyTree:
    """The leaves `[B, ...]` with a new tile i."""
    write = lambda x, part: jax.lax.dynamic_update_slice_in_dim(x, part, i * width, axis=0)
    return jax.tree.map(write, tree, tile)


def in_columns(buffers: PyTree, columns: jax.Array, chunks: tuple[jax.Array, jax.Array], chunk: int) -> PyTree:
    """The rows `[T, B, ...]`, written in the order of the lanes, in the columns of their episodes.

    Args:
        buffers: the rows; positions that no lane has written hold 0.
        columns: int32 `[T / chunk, B]`, the episode of each lane in each chunk of steps.
        chunks: the first chunk of tiles, and the first one that was not played.
        chunk: the number of steps in a chunk.
    """

    def one(k: jax.Array, buffers: PyTree) -> PyTree:
        lane_of = jnp.argsort(columns[k])

        def of_chunk(x: jax.Array) -> jax.Array:
            rows = jax.lax.dynamic_slice_in_dim(x, k * chunk, chunk)
            return jax.lax.dynamic_update_slice_in_dim(x, jnp.take(rows, lane_of, axis=1), k * chunk, axis=0)

        return jax.tree.map(of_chunk, buffers)

    return jax.lax.fori_loop(*chunks, one, buffers)
