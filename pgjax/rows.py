"""Sums and maps over the rows of a time-major batch, in pieces that fit into the cache.

A batch `[T, B, ...]` is read as T·B rows, some hundred or thousand at a time. So the activations of a network stay in
the cache (measured on a CPU: two to four times as fast), the memory is bounded, and the padding after the end of each
episode costs nothing. If rows depend on the rows before them (a policy with memory), the pieces are whole episodes
`[T, n, ...]` of similar lengths.
"""

import os
from collections.abc import Callable

import jax
import jax.numpy as jnp

from pgjax import _pieces as pieces
from pgjax import _shards
from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax._pieces import PieceFunction, largest_of_vmap
from pgjax._platform import platform
from pgjax.types import PyTree

# With 256 rows and a 64 × 64 network a piece stays in the L2 cache of one core and uses no other thread. On two cores
# the gradient was then 1.1 times (idle machine) to 1.7 times (busy machine) as fast as with 8 192 rows. Machines with
# more cores were not measured.
_FEW_CORES = 4
_CPU_ROWS, _MANY_CORE_ROWS = 256, 8192
_ACCELERATOR_ROWS, _ACCELERATOR_NUMBERS = 1 << 20, 1 << 24
# Each piece of a sum that leaves the L2 cache of a core costs a pass over that sum. In pieces of 1 024 rows instead of
# 256, an update of a model with 0.75 million numbers went from 1.17 to 1.31 times the rate of a program written by hand
# (`python -m experiments.throughput --workloads tokens --answers 256`), and with two blocks instead of eight that of a
# model with 135 million numbers from 0.82 to 1.0 times (`python -m experiments.real_model --parts tokens`).
_CACHED_SUM, _LARGE_SUM_ROWS = 1 << 18, 1024


@readable
def default_rows(row_size: int = 1, sum_size: int = 0) -> int:
    """The number of rows in a piece, chosen by the device.

    On a CPU with at most 4 cores it is 256, so that a piece fits into the L2 cache of one core; with more cores it is
    8 192, so that all of them have work. With a sum that leaves the cache, such as the gradient of a large model, it is
    at least 1 024. On an accelerator it is 2²⁰, or less to save memory if a row has more than 16 numbers.

    Args:
        row_size: how many numbers a row has.
        sum_size: how many numbers the sum over rows has.
    """
    if platform() != "cpu":
        return min(_ACCELERATOR_ROWS, max(1024, _ACCELERATOR_NUMBERS // row_size))
    rows = _CPU_ROWS if (os.cpu_count() or 1) <= _FEW_CORES else _MANY_CORE_ROWS
    return max(rows, _LARGE_SUM_ROWS) if sum_size > _CACHED_SUM else rows


@readable
def largest_of_runs(x: jax.Array) -> jax.Array:
    """The maximum of the number x over all runs that are vmapped together; x itself without a vmap.

    Under nested vmaps it is the maximum over the runs of all of them.

    If all runs share the number of iterations of a loop and the branch of a condition, JAX does not have to select
    between old and new loop states, or between the results of all branches, for each run.
    """
    return largest_of_vmap(x)


def _row_size(rows: PyTree, alive: jax.Array) -> int:
    return max(1, sum(x.size for x in jax.tree.leaves(rows)) // alive.size)


def _piece_size(rows: PyTree, alive: jax.Array, rows_per_piece: int | None) -> int:
    if rows_per_piece is None:
        return min(default_rows(_row_size(rows, alive)), alive.size)
    require_integer("rows_per_piece", rows_per_piece, 1, None)
    return min(rows_per_piece, alive.size)


def _first() -> jax.Array:
    """The index 0 in the current default integer type."""
    return jnp.zeros((), int)


def _add(total: PyTree, part: PyTree) -> PyTree:
    # A product merged into the addition is rounded differently from a product that another device has sent.
    return jax.tree.map(jnp.add, total, jax.lax.optimization_barrier(part))


def _zeros(shapes: PyTree) -> PyTree:
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)


def _of_block(
    function: PieceFunction, rows: PyTree, alive: jax.Array, rows_per_piece: int | None, whole_episodes: bool
) -> tuple[PyTree, PyTree]:
    """The sums of a block, and the values of its rows `[T, b, ...]`, 0 where not alive."""
    cut = pieces.cut(rows, alive, _piece_size(rows, alive, rows_per_piece), whole_episodes)
    function = pieces.by_length(function, rows, alive.shape[0]) if whole_episodes else function
    sums, values = jax.eval_shape(lambda k: function(*cut.take(k)[1:]), _first())
    shape = alive.shape if whole_episodes else (alive.size,)
    outputs = jax.tree.map(lambda x: jnp.zeros((*shape, *x.shape[1:]), x.dtype), values)

    def one(k: jax.Array, carry: tuple[PyTree, PyTree]) -> tuple[PyTree, PyTree]:
        total, outputs = carry
        start, piece, mask = cut.take(k)
        sums, values = jax.lax.optimization_barrier(function(piece, mask))

        def write(output: jax.Array, x: jax.Array) -> jax.Array:
            x = x.reshape((*mask.shape, *x.shape[1:]))
            axis = int(whole_episodes)
            # The last piece repeats rows of the piece before, whose values are kept.
            old = jax.lax.dynamic_slice_in_dim(output, start, mask.shape[axis], axis)
            x = jnp.where(mask.reshape((*mask.shape, *(1 for _ in x.shape[mask.ndim :]))), x, old)
            return jax.lax.dynamic_update_slice_in_dim(output, x, start, axis)

        return jax.tree.map(jnp.add, total, sums), jax.tree.map(write, outputs, values)

    total, outputs = jax.lax.fori_loop(_first(), cut.count, one, (_zeros(sums), outputs))

    def of_live(x: jax.Array) -> jax.Array:
        x = cut.spread(x)
        return jnp.where(alive.reshape((*alive.shape, *(1 for _ in x.shape[2:]))), x, jnp.zeros((), x.dtype))

    return total, jax.tree.map(of_live, outputs)


@readable
def over_rows(
    function: PieceFunction,
    rows: PyTree,
    alive: jax.Array,
    rows_per_piece: int | None = None,
    *,
    whole_episodes: bool = False,
    shared: tuple = (),
) -> tuple[PyTree, PyTree]:
    """One pass over the rows: the first results of `function` summed over pieces, and its second result for each row.

    The sum adds blocks of episodes in a fixed order, on one device or on many (`_shards`).

    Args:
        function: takes leaves `[N, ...]` and a bool mask `[N]`; if `whole_episodes`, leaves `[T, n, ...]` and a mask
            `[T, n]` with N = T n. It returns a pytree of sums, to which rows with a false mask must add 0, and a pytree
            of values `[N, ...]`.
        rows: leaves `[T, B, ...]`.
        alive: bool `[T, B]`.
        rows_per_piece: the largest N; `default_rows()` if None. A piece holds at least one episode if `whole_episodes`.
        whole_episodes: whether a piece must hold whole episodes.
        shared: further arguments of `function`, the same for all rows. If `function` differentiates with respect to an
            array, this array must be among them: several devices can differentiate only arrays that they received.

    Returns:
        The sums, and the values `[T, B, ...]`, 0 where not `alive`.
    """
    num_episodes, shards = alive.shape[1], _shards.num_shards()
    # Devices that cannot share a part of a batch all compute the whole of it.
    shards = 1 if num_episodes % shards else shards
    # jit traces the function once for its several uses. As it is inlined, the program does not change.
    traced = jax.jit(function, inline=True)

    def make_block(size: int, rows_per_piece: int | None) -> Callable:
        def block(rows: PyTree, alive: jax.Array, shared: tuple, k: jax.Array) -> tuple[PyTree, PyTree]:
            if size < alive.shape[1]:
                cut = lambda x: jax.lax.dynamic_slice_in_dim(x, k * size, size, axis=1)
                rows, alive = jax.tree.map(cut, (rows, alive))
            of_piece = lambda piece, mask: traced(piece, mask, *shared)
            return _of_block(of_piece, rows, alive, rows_per_piece, whole_episodes)

        return block

    # If the order does not matter, each device has one block.
    size = num_episodes // max(_shards.num_blocks(num_episodes), shards)
    sums, _ = jax.eval_shape(make_block(size, rows_per_piece), rows, alive, shared, _first())
    sum_size = sum(x.size for x in jax.tree.leaves(sums))
    if _shards.is_large(sum_size):
        size = num_episodes // max(_shards.num_blocks(num_episodes, sum_size), shards)
    if rows_per_piece is None:
        rows_per_piece = default_rows(_row_size(rows, alive), sum_size)
    block = make_block(size, rows_per_piece)

    def joined(values: jax.Array) -> jax.Array:
        """The values `[blocks, T, b, ...]` in the shape `[T, blocks · b, ...]`."""
        return jnp.moveaxis(values, 0, 1).reshape((values.shape[1], -1, *values.shape[3:]))

    if shards == 1:

        def one(total: PyTree, k: jax.Array) -> tuple[PyTree, PyTree]:
            sums, values = block(rows, alive, shared, k)
            return _add(total, sums), values

        total, values = jax.lax.scan(one, _zeros(sums), jnp.arange(num_episodes // size))
        return total, jax.tree.map(joined, values)

    everything = (_shards.numbers_everywhere(rows), alive, shared)
    if not _shards.is_deterministic():

        def added(rows: PyTree, alive: jax.Array, shared: tuple) -> tuple[PyTree, PyTree]:
            sums, values = block(rows, alive, shared, _first())
            return _shards.sum_over_devices(sums), values

        return _shards.over_episode_shards(added, everything, in_axes=(1, 1, None), out_axes=(None, 1))

    def of_shard(rows: PyTree, alive: jax.Array, shared: tuple) -> tuple[PyTree, PyTree]:
        one = lambda k: block(rows, alive, shared, k)
        parts, values = jax.lax.map(one, jnp.arange(alive.shape[1] // size))
        return parts, jax.tree.map(joined, values)

    found = _shards.over_episode_shards(of_shard, everything, in_axes=(1, 1, None), out_axes=(0, 1))
    parts, values = _shards.everywhere(found)
    add = lambda total, part: (_add(total, part), None)
    zeros = jax.tree.map(lambda x: jnp.zeros_like(x[0]), parts)
    total, _ = jax.lax.scan(add, zeros, parts, length=num_episodes // size)
    return total, values


@readable
def sum_over_rows(
    function: Callable[..., PyTree],
    rows: PyTree,
    alive: jax.Array,
    rows_per_piece: int | None = None,
    *,
    whole_episodes: bool = False,
    shared: tuple = (),
) -> PyTree:
    """The sum over pieces of `function(piece, mask, *shared)`: `over_rows` without values."""
    only_sums = lambda piece, mask, *shared: (function(piece, mask, *shared), ())
    return over_rows(only_sums, rows, alive, rows_per_piece, whole_episodes=whole_episodes, shared=shared)[0]


@readable
def map_over_rows(
    function: Callable[[PyTree], PyTree],
    rows: PyTree,
    alive: jax.Array,
    rows_per_piece: int | None = None,
    *,
    whole_episodes: bool = False,
) -> PyTree:
    """`function(piece)` for each row, `[T, B, ...]`, 0 where not `alive`: `over_rows` without sums."""
    only_values = lambda piece, mask: ((), function(piece))
    return over_rows(only_values, rows, alive, rows_per_piece, whole_episodes=whole_episodes)[1]
