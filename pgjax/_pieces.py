"""How a batch of uneven episodes is cut into pieces: padding is left out, and lengths are put together.

Axes: T time, b episodes, n episodes of a piece.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax.types import PyTree

PieceFunction = Callable[..., tuple[PyTree, PyTree]]

# Whole episodes are computed up to T/4 or T steps, unless T is short. Each length is a program of its own to compile.
_PARTS, _LONG = (4, 1), 32
# Smaller batches are cut as they lie in memory: what packing saves in them is less than its compilation takes.
_PACKED_ROWS = 1 << 17
# A batch in which less than a 16th of the rows up to the last live one is padding is cut as it lies in memory.
_LITTLE_PADDING = 16


@jax.custom_batching.custom_vmap
def largest_of_vmap(x: jax.Array) -> jax.Array:
    """The number x; under vmaps the largest x of all their lanes, which is one number and no batch of numbers."""
    return x


@largest_of_vmap.def_vmap
def _largest_of_lanes(axis_size: int, in_batched: list[bool], x: jax.Array) -> tuple[jax.Array, bool]:
    del axis_size, in_batched
    # The maximum may be a batch of a vmap further out, which then applies this rule again.
    return largest_of_vmap(jnp.max(x, axis=0)), False


class Cut(NamedTuple):
    """A batch cut into pieces of one size. The last piece may repeat rows of the piece before; its mask excludes them.

    Attributes:
        count: the number of pieces up to the last live row.
        take: `k → (start, piece, mask)`, the start of piece k, its rows and its mask.
        spread: the values of all pieces side by side → the values `[T, b, ...]`, with any values where not alive.
    """

    count: jax.Array
    take: Callable[[jax.Array], tuple[jax.Array, PyTree, jax.Array]]
    spread: Callable[[jax.Array], jax.Array]


def fill(rows: PyTree, live: jax.Array, instead: PyTree) -> PyTree:
    """Rows `[N, ...]` or `[T, n, ...]`, and `instead` where not live: even a masked infinity makes gradients NaN."""
    choose = lambda x, y: jnp.where(live.reshape((*live.shape, *(1 for _ in x.shape[live.ndim :]))), x, y)
    return jax.tree.map(choose, rows, instead)


def fill_with_live(rows: PyTree, live: jax.Array) -> PyTree:
    """Whole episodes `[T, n, ...]` whose rows of padding repeat their row 0; leaves without time stay as they are.

    An episode without a live row repeats the first live row of the others.
    """
    t, lane = jnp.divmod(jnp.argmax(live.reshape(-1)), live.shape[1])

    def filled(x: jax.Array) -> jax.Array:
        if x.shape[: live.ndim] != live.shape:
            return x
        x = jnp.asarray(x)
        return fill(x, live, fill(x[0], live[0], x[t, lane][None])[None])

    return jax.tree.map(filled, rows)


def _lengths(alive: jax.Array) -> jax.Array:
    """The number of rows of each episode up to its last live one, `[b]`."""
    last = alive.shape[0] - jnp.argmax(alive[::-1], axis=0)
    return jnp.where(jnp.any(alive, axis=0), last, 0)


def _cut_rows(rows: PyTree, alive: jax.Array, size: int) -> Cut:
    """Rows in the order in which they lie in memory, up to the last live row of the batch."""
    flat = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), (rows, alive))
    total = jnp.max(_lengths(alive)) * alive.shape[1]

    def take(k: jax.Array):
        start = jnp.minimum(k * size, alive.size - size)
        piece, live = _slice(flat, start, size)
        return start, _filled(piece, live, rows, alive), live & (start + jnp.arange(size) >= k * size)

    spread = lambda x: x.reshape((*alive.shape, *x.shape[1:]))
    return Cut(count=jnp.asarray(largest_of_vmap((total + size - 1) // size), int), take=take, spread=spread)


def _slice(flat: PyTree, start: jax.Array, size: int) -> PyTree:
    return jax.tree.map(lambda x: jax.lax.dynamic_slice_in_dim(x, start, size), flat)


def _filled(piece: PyTree, live: jax.Array, rows: PyTree, alive: jax.Array) -> PyTree:
    """The piece with the first live row of the batch where not live."""
    t, lane = jnp.divmod(jnp.argmax(alive.reshape(-1)), alive.shape[1])
    return fill(piece, live, jax.tree.map(lambda x: jnp.asarray(x)[t, lane][None], rows))


def _pack_rows(rows: PyTree, alive: jax.Array, size: int) -> Cut:
    """The rows of every episode up to its last live one, without the padding behind it, cut into pieces.

    The rows are in the order of time. At equal times the longest episode comes first, so that the row at position j
    belongs to the first time t with j < n_1 + … + n_t, where n_t episodes have a row t. Finding a row in this order
    costs about 4 % of the gradient of a small network. So if padding is less than 1/16 of the rows up to the last live
    one, they are all taken, in the order in which they lie in memory.
    """
    num_steps, num_episodes = alive.shape
    flat = jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), (rows, alive))
    lengths = _lengths(alive)
    order = jnp.argsort(-lengths, stable=True)
    counts = jnp.sum(lengths[None] > jnp.arange(num_steps)[:, None], axis=1)
    ends = jnp.cumsum(counts)
    begins = ends - counts
    padded = jnp.max(lengths) * num_episodes
    packed = largest_of_vmap((ends[-1] < padded - padded // _LITTLE_PADDING).astype(jnp.int32)) > 0
    total = jnp.where(packed, ends[-1], padded)

    def find(start: jax.Array) -> PyTree:
        position = jnp.minimum(start + jnp.arange(size), jnp.maximum(total - 1, 0))
        t = jnp.searchsorted(ends, position, side="right", method="scan_unrolled").astype(position.dtype)
        t = jnp.minimum(t, num_steps - 1)
        row = t * num_episodes + order[position - begins[t]]
        return jax.tree.map(lambda x: x[row], flat)

    def take(k: jax.Array):
        start = jnp.minimum(k * size, alive.size - size)
        at = start + jnp.arange(size)
        piece, live = jax.lax.cond(packed, find, lambda start: _slice(flat, start, size), start)
        return start, _filled(piece, live, rows, alive), live & (at >= k * size) & (at < total)

    def spread(values: jax.Array) -> jax.Array:
        in_order = lambda x: x.reshape((*alive.shape, *x.shape[1:]))
        positions = jnp.minimum(begins[:, None] + jnp.argsort(order)[None], alive.size - 1)
        return jax.lax.cond(packed, lambda x: x[positions], in_order, values)

    return Cut(count=jnp.asarray(largest_of_vmap((total + size - 1) // size), int), take=take, spread=spread)


def _cut_episodes(rows: PyTree, alive: jax.Array, size: int) -> Cut:
    """Whole episodes, those of similar lengths in the same piece: the longest first, equal ones in their order."""
    num_steps, num_episodes = alive.shape
    size = max(1, min(num_episodes, size // num_steps))
    lengths = _lengths(alive)
    order = jnp.argsort(-lengths, stable=True)

    def take(k: jax.Array):
        start = jnp.minimum(k * size, num_episodes - size)
        columns = jax.lax.dynamic_slice_in_dim(order, start, size)
        piece, live = jax.tree.map(lambda x: jnp.take(x, columns, axis=1), (rows, alive))
        return start, fill_with_live(piece, live), live & (start + jnp.arange(size) >= k * size)[None]

    count = largest_of_vmap((jnp.sum(lengths > 0) + size - 1) // size)
    place = jnp.argsort(order)
    return Cut(count=jnp.asarray(count, int), take=take, spread=lambda x: jnp.take(x, place, axis=1))


def _first_rows(tree: PyTree, count: int, num_steps: int) -> PyTree:
    """The first rows of leaves `[T, ...]`. A record with a method `first_rows` shortens itself (`TextBuffer`)."""
    own = lambda x: hasattr(x, "first_rows")
    cut = lambda x: x.first_rows(count, num_steps) if own(x) else x[:count]
    return jax.tree.map(cut, tree, is_leaf=own)


def by_length(function: PieceFunction, rows: PyTree, num_steps: int) -> PieceFunction:
    """`function` of whole episodes, computed up to T/4 steps if the longest of them has ended there, and else up to T.

    The values of the other rows are 0. Rows of a window have a leaf without time, the memory at row 0, and no episode
    that ends early, so they are always computed up to T.
    """
    in_time = all(x.shape[0] == num_steps for x in jax.tree.leaves(rows))
    lengths = sorted({-(-num_steps // part) for part in _PARTS}) if in_time and num_steps >= _LONG else [num_steps]
    if len(lengths) == 1:
        return function

    def up_to(length: int) -> PieceFunction:
        def run(piece: PyTree, mask: jax.Array) -> tuple[PyTree, PyTree]:
            sums, values = function(_first_rows(piece, length, num_steps), mask[:length])
            missing = (num_steps - length) * mask.shape[1]
            pad = lambda x: jnp.pad(x, [(0, missing)] + [(0, 0)] * (x.ndim - 1))
            return sums, jax.tree.map(pad, values)

        return run

    def choose(piece: PyTree, mask: jax.Array) -> tuple[PyTree, PyTree]:
        longest = largest_of_vmap(jnp.max(_lengths(mask)))
        index = jnp.sum(longest > jnp.asarray(lengths[:-1]))
        return jax.lax.switch(index, [up_to(length) for length in lengths], piece, mask)

    return choose


def cut(rows: PyTree, alive: jax.Array, size: int, whole_episodes: bool) -> Cut:
    """The batch `[T, b, ...]` in pieces of `size` rows; in pieces of whole episodes if `whole_episodes`."""
    of_rows = _pack_rows if alive.size >= _PACKED_ROWS else _cut_rows
    found = (_cut_episodes if whole_episodes else of_rows)(rows, alive, size)
    # If there is only one piece, the compiler would move its work out of the loop and merge it with other work, which
    # changes the rounding. The barriers prevent this: they hide the count, and tie each piece to its index.
    return Cut(
        count=jax.lax.optimization_barrier(found.count),
        take=lambda k: jax.lax.optimization_barrier((k, found.take(k)))[1],
        spread=found.spread,
    )
