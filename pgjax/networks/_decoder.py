"""How every decoder-only transformer reads tokens: the pieces that differ are a record, and the reading is shared.

The layers are a tuple, which is compiled layer by layer, or one tree of arrays with a leading axis over the layers,
which is scanned, so that thirty layers compile as fast as one. Axes: T time, L places, N places of a part of them,
O outputs, W width, H heads of queries, G heads of keys and values (H a multiple of G), D width of a head, K layers.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer
from pgjax.networks._layers import rows
from pgjax.spaces import Box
from pgjax.types import Memory, PyTree

Cache = tuple[jax.Array, jax.Array]  # the keys and the values of one layer, `[G, L, D]` each
Place = int | jax.Array


class Decoder(NamedTuple):
    """The pieces of a decoder-only transformer; θ holds the layers under the name "layers".

    Attributes:
        embed: `(params, tokens [N], place) → x [N, W]`; the tokens stand at the places `place`, `place` + 1, …
        project: `(layer, x [N, W], place) → (queries [H, N, D], (keys [G, N, D], values [G, N, D]))`.
        add: `(layer, x [N, W], attended [N, H D]) → x [N, W]`, the rest of a block.
        outputs: `(params, x [N, W]) → [N, O]`.
        recompute: whether the backward pass computes the inside of a scanned block again instead of keeping it.
    """

    embed: Callable[[PyTree, jax.Array, Place], jax.Array]
    project: Callable[[PyTree, jax.Array, Place], tuple[jax.Array, Cache]]
    add: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    outputs: Callable[[PyTree, jax.Array], jax.Array]
    recompute: bool = False


def split_heads(x: jax.Array, heads: int) -> jax.Array:
    """x `[N, H D]` as `[H, N, D]`: the products want the heads first, or every step would lay out the cache anew."""
    return x.reshape(x.shape[0], heads, -1).swapaxes(0, 1)


def _attend(queries: jax.Array, keys: jax.Array, values: jax.Array, allowed: jax.Array) -> jax.Array:
    """softmax(q kᵀ / √D) v of every head, `[N, H D]`, for queries `[H, N, D]` at N places.

    Keys and values are `[G, L, D]`, and the consecutive H / G heads of queries of one group share them; `allowed` bool
    `[N, L]` tells which places a query may look at.
    """
    heads, places, width = queries.shape
    shared = heads // keys.shape[0]
    # The queries of one group are further rows of the same product.
    queries = queries.reshape(keys.shape[0], shared * places, width)
    allowed = jnp.tile(allowed, (shared, 1)) if shared > 1 else allowed
    scores = jnp.einsum("hnd,hld->hnl", queries, keys) / math.sqrt(width)
    weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf))
    # XLA on a CPU takes a fast path only if the product keeps the order of its axes; sampling of a byte model went from
    # 0.87 to 1.22 times the rate of a program written by hand (`python -m experiments.real_model --parts tokens`).
    found = jnp.einsum("hnl,hld->hnd", weights, values).reshape(heads, places, width)
    return found.swapaxes(0, 1).reshape(places, -1)


def newest(obs: PyTree) -> jax.Array:
    """The place of the newest token; inside also for rows of padding, which nobody uses: no buffer, or a full one."""
    return jnp.clip(obs.length - 1, 0, obs.tokens.shape[-1] - 2)


def _through_tuple(decoder: Decoder, layers: tuple, x: jax.Array, asked: jax.Array | None) -> tuple[jax.Array, PyTree]:
    places = at = jnp.arange(x.shape[0])
    caches = []
    for depth, layer in enumerate(layers, 1):
        queries, cache = decoder.project(layer, x, 0)
        caches.append(cache)
        if depth == len(layers) and asked is not None:
            # What the last block would add at the other places is used by nobody.
            at, x, queries = asked, rows(x, asked), jax.vmap(rows, (0, None))(queries, asked)
        x = decoder.add(layer, x, _attend(queries, *cache, places <= at[:, None]))
    return x, tuple(caches)


def _through_scan(decoder: Decoder, layers: PyTree, x: jax.Array, keep: bool) -> tuple[jax.Array, PyTree]:
    places = jnp.arange(x.shape[0])

    def block(x: jax.Array, layer: PyTree) -> tuple[jax.Array, Cache | None]:
        queries, cache = decoder.project(layer, x, 0)
        return decoder.add(layer, x, _attend(queries, *cache, places <= places[:, None])), cache if keep else None

    # A scan does not merge the two computations of a block, so nothing has to prevent it.
    block = jax.checkpoint(block, prevent_cse=False) if decoder.recompute else block
    return jax.lax.scan(block, x, layers)


def read(
    decoder: Decoder, params: PyTree, tokens: jax.Array, asked: jax.Array | None, keep: bool = False
) -> tuple[jax.Array, PyTree]:
    """One causal pass over tokens `[L]`: the outputs `[N, O]` after the asked places `[N]`, and the cache.

    A place has no influence on the places before it. If `asked` is None, all places are asked. The cache is that of
    every layer; it is None if the layers are scanned and `keep` is false.
    """
    x = decoder.embed(params, tokens, 0)
    if isinstance(params["layers"], tuple):
        x, cache = _through_tuple(decoder, params["layers"], x, asked)
    else:
        x, cache = _through_scan(decoder, params["layers"], x, keep)
        x = x if asked is None else rows(x, asked)
    return decoder.outputs(params, x), cache


def _step_tuple(decoder: Decoder, layers: tuple, carry: tuple, x: jax.Array, place: jax.Array, allowed: jax.Array):
    write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=1)
    caches = []
    for layer, old in zip(layers, carry):
        queries, new = decoder.project(layer, x, place)
        keys, values = jax.tree.map(write, old, new)
        caches.append((keys, values))
        x = decoder.add(layer, x, _attend(queries, keys, values, allowed))
    return tuple(caches), x


def _step_scan(decoder: Decoder, layers: PyTree, carry: Cache, x: jax.Array, place: jax.Array, allowed: jax.Array):
    zero, depths = jnp.zeros((), place.dtype), jnp.arange(carry[0].shape[0], dtype=place.dtype)

    def block(state: tuple[jax.Array, Cache], scanned: tuple[PyTree, jax.Array]):
        x, cache = state
        layer, depth = scanned
        queries, new = decoder.project(layer, x, place)
        # Written first and read afterwards: the other order would copy the whole cache in every block.
        write = lambda old, new: jax.lax.dynamic_update_slice(old, new[None], (depth, zero, place, zero))
        cache = jax.tree.map(write, cache, new)
        keys, values = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, depth, 0, keepdims=False), cache)
        x = decoder.add(layer, x, _attend(queries, keys, values, allowed))
        return (x, cache), None

    (x, carry), _ = jax.lax.scan(block, (x, carry), (layers, depths))
    return carry, x


def _step(decoder: Decoder, params: PyTree, carry: PyTree, obs: PyTree) -> tuple[PyTree, jax.Array]:
    """Read the newest token of a buffer, with the cache of the tokens before it: the new cache, and outputs `[O]`."""
    place = newest(obs)
    allowed = jnp.arange(obs.tokens.shape[0] - 1)[None] <= place
    token = jax.lax.dynamic_slice_in_dim(obs.tokens, place, 1)
    through = _step_tuple if isinstance(params["layers"], tuple) else _step_scan
    carry, x = through(decoder, params["layers"], carry, decoder.embed(params, token, place), place, allowed)
    return carry, decoder.outputs(params, x)[0]


def make_apply(decoder: Decoder) -> Callable[[PyTree, PyTree], jax.Array]:
    """`(params, obs) → outputs [O]` after the newest token of a buffer, from the whole buffer."""
    return lambda params, obs: read(decoder, params, obs.tokens[:-1], newest(obs)[None])[0][0]


def make_memory(decoder: Decoder) -> Memory:
    """The memory: the keys and values of every layer, a tuple of `[G, L, D]` over the layers, or `[K, G, L, D]`."""
    apply = make_apply(decoder)

    def start(params: PyTree, obs: PyTree) -> PyTree:
        return read(decoder, params, obs.tokens[:-1], newest(obs)[None], keep=True)[1]

    def step(params: PyTree, carry: PyTree, obs: PyTree) -> tuple[PyTree, jax.Array]:
        return _step(decoder, params, carry, obs)

    def unroll(params: PyTree, carry: PyTree | None, obs: PyTree, starts: jax.Array | None) -> jax.Array:
        # The observation is Markov, so a carry, which an older θ computed, is not needed.
        if starts is not None:
            return jax.vmap(apply, (None, 0))(params, obs)
        # The last row is not used: a rollout that stops early leaves rows of padding without a token.
        longest = obs.tokens[jnp.argmax(obs.length)]
        return read(decoder, params, longest[:-1], newest(obs))[0]

    return Memory(start=start, step=step, unroll=unroll)


def require_buffer(network: str, space: PyTree) -> tuple[int, int]:
    """Require a space of buffers of tokens: its symbols and the places that are read, one less than it has.

    Raises:
        ValueError: if the space has no fields `tokens`, a box `[L + 1]` of integers with L at least 1, and `length`.
    """
    tokens = getattr(space, "tokens", None)
    if (
        not isinstance(tokens, Box)
        or not jnp.issubdtype(tokens.dtype, jnp.integer)
        or not hasattr(space, "length")
        or len(tokens.shape) != 1
        or tokens.shape[0] < 2
    ):
        raise ValueError(
            f"network={network!r} needs observations with the fields tokens, a box of two or more integers, and "
            f"length, got the observation space {space}"
        )
    return int(np.max(tokens.bounds[1])) + 1, tokens.shape[0] - 1


def require_blocks(network: str, hidden: Any, activation: str | None, usual: str, heads: int) -> tuple[int, int]:
    """Require one width for every block, the usual activation and heads that divide the width: the width and K.

    Raises:
        ValueError: if the widths differ, the activation is another one, or the heads do not divide the width.
    """
    if not hidden or len(set(hidden)) > 1:
        raise ValueError(f"hidden must be one width for every block of network={network!r}, got {tuple(hidden)}")
    if activation not in (None, usual):
        raise ValueError(f"activation must be None or {usual!r} with network={network!r}, got {activation!r}")
    require_integer("heads", heads, 1, None)
    if hidden[0] % heads:
        raise ValueError(f"heads must divide the width {hidden[0]} in hidden, got {heads}")
    return hidden[0], len(hidden)
