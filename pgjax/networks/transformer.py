"""A decoder-only transformer over tokens: one definition that reads a whole buffer or one token at a time.

The observation is the buffer of all tokens so far, with the fields `tokens` `[L]` and `length` `[]`, and every action
adds one token to it. So the observation is Markov: `apply` computes from X_t alone what `memory` computes with a cache
of keys and values, and a cache can be computed anew from any X_t. No action follows a full buffer, so the last place of
the buffer is never read, and its logits have no meaning. Axes: T time, L places of the buffer without the last, N the
places whose logits are asked for, O outputs, W width, H heads, D = W / H.

Source: Vaswani et al. (2017); the blocks are those of GPT-2 (Radford et al. 2019).
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer
from pgjax.networks._layers import HEAD_SCALE, dense, init_dense, init_norm, norm, rows
from pgjax.networks.bodies import Activation
from pgjax.networks.network import Network
from pgjax.spaces import Box
from pgjax.types import Memory, PyTree

Cache = tuple[jax.Array, jax.Array]  # the keys and the values of one layer, `[H, L, D]` each


def _attend(queries: jax.Array, keys: jax.Array, values: jax.Array, allowed: jax.Array) -> jax.Array:
    """softmax(q kᵀ / √D) v of every head, `[N, W]`, for queries `[H, N, D]` at N places.

    Keys and values are `[H, L, D]`; `allowed` bool `[N, L]` tells which places a query may look at.
    """
    scores = jnp.einsum("hnd,hld->hnl", queries, keys) / math.sqrt(queries.shape[-1])
    weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf))
    return jnp.einsum("hnl,hld->nhd", weights, values).reshape(queries.shape[1], -1)


def _project(layer: PyTree, heads: int, x: jax.Array) -> tuple[jax.Array, Cache]:
    """The queries `[H, N, D]` of N places, and their keys and values, from x `[N, W]`."""
    parts = jnp.split(dense(layer["attention"], norm(layer["attention_norm"], x)), 3, axis=-1)
    # Heads first, as the products of the attention want them: otherwise every step would lay out the cache anew.
    queries, keys, values = (part.reshape(x.shape[0], heads, -1).swapaxes(0, 1) for part in parts)
    return queries, (keys, values)


def _add(layer: PyTree, x: jax.Array, queries: jax.Array, cache: Cache, allowed: jax.Array) -> jax.Array:
    """x + attention(norm(x)), then + MLP(norm(x)): x `[N, W]` at the places of the queries → x `[N, W]`."""
    x = x + dense(layer["mixing"], _attend(queries, *cache, allowed))
    inner = jax.nn.gelu(dense(layer["up"], norm(layer["inner_norm"], x)))
    return x + dense(layer["down"], inner)


def _logits(params: PyTree, x: jax.Array) -> jax.Array:
    return dense(params["head"], norm(params["norm"], x))


def _newest(params: PyTree, length: jax.Array) -> jax.Array:
    """The place of the newest token; inside also for rows of padding, which nobody uses: no buffer, or a full one."""
    return jnp.clip(length - 1, 0, params["positions"].shape[0] - 1)


def _read(params: PyTree, heads: int, tokens: jax.Array, asked: jax.Array) -> tuple[jax.Array, tuple[Cache, ...]]:
    """One causal pass over a buffer: the logits after the asked places `[N]`, `[N, O]`, and the cache of every layer.

    A place that is not yet written has no influence on the places before it.
    """
    places = params["positions"].shape[0]
    if tokens.shape != (places + 1,):
        raise ValueError(f"obs.tokens must have shape ({places + 1},), one buffer (vmap for more), got {tokens.shape}")
    x = rows(params["tokens"], tokens[:-1]) + params["positions"]
    at, caches = jnp.arange(places), []
    for depth, layer in enumerate(params["layers"], 1):
        queries, cache = _project(layer, heads, x)
        caches.append(cache)
        if depth == len(params["layers"]):
            # What the last block would add at the other places is used by nobody.
            at, x, queries = asked, rows(x, asked), jax.vmap(rows, (0, None))(queries, asked)
        x = _add(layer, x, queries, cache, jnp.arange(places) <= at[:, None])
    return _logits(params, x), tuple(caches)


def _read_one(params: PyTree, heads: int, carry: tuple[Cache, ...], obs: PyTree) -> tuple[tuple[Cache, ...], jax.Array]:
    """Read the newest token of a buffer, with the cache of the tokens before it: the new cache, and outputs `[O]`."""
    place = _newest(params, obs.length)
    at_place = lambda x: jax.lax.dynamic_slice_in_dim(x, place, 1)
    write = lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, place, axis=1)
    allowed = jnp.arange(params["positions"].shape[0])[None] <= place
    x = rows(params["tokens"], at_place(obs.tokens)) + at_place(params["positions"])
    caches = []
    for layer, old in zip(params["layers"], carry):
        queries, new = _project(layer, heads, x)
        caches.append(jax.tree.map(write, old, new))
        x = _add(layer, x, queries, caches[-1], allowed)
    return tuple(caches), _logits(params, x)[0]


def _make_memory(heads: int, apply: Callable[[PyTree, PyTree], jax.Array]) -> Memory:
    """The cache of keys and values of every layer."""

    def start(params: PyTree, obs: PyTree) -> tuple[Cache, ...]:
        return _read(params, heads, obs.tokens, _newest(params, obs.length)[None])[1]

    def step(params: PyTree, carry: tuple[Cache, ...], obs: PyTree) -> tuple[tuple[Cache, ...], jax.Array]:
        return _read_one(params, heads, carry, obs)

    def unroll(params: PyTree, carry: PyTree | None, obs: PyTree, starts: jax.Array | None) -> jax.Array:
        # The observation is Markov, so a carry, which an older θ computed, is not needed.
        if starts is not None:
            return jax.vmap(apply, (None, 0))(params, obs)
        # The last row is not used: a rollout that stops early leaves rows of padding without a token.
        longest = obs.tokens[jnp.argmax(obs.length)]
        return _read(params, heads, longest, _newest(params, obs.length))[0]

    return Memory(start=start, step=step, unroll=unroll)


def _init(key: jax.Array, symbols: int, places: int, outputs: int, width: int, layers: int) -> PyTree:
    table_key, position_key, head_key, *layer_keys = jax.random.split(key, 3 + layers)
    # The variance of what all blocks add to x does not depend on the number of blocks.
    added = 1.0 / (2 * layers)

    def init_layer(key: jax.Array) -> PyTree:
        attention_key, mixing_key, up_key, down_key = jax.random.split(key, 4)
        return {
            "attention_norm": init_norm(width),
            "attention": init_dense(attention_key, width, 3 * width),
            "mixing": init_dense(mixing_key, width, width, added),
            "inner_norm": init_norm(width),
            "up": init_dense(up_key, width, 4 * width),
            "down": init_dense(down_key, 4 * width, width, added),
        }

    return {
        "tokens": 0.02 * jax.random.normal(table_key, (symbols, width), jnp.float32),
        "positions": 0.02 * jax.random.normal(position_key, (places, width), jnp.float32),
        "layers": tuple(map(init_layer, layer_keys)),
        "norm": init_norm(width),
        "head": init_dense(head_key, width, outputs, HEAD_SCALE),
    }


def _check(space: PyTree, hidden: Sequence[int], activation: Activation | None, heads: int) -> None:
    tokens = getattr(space, "tokens", None)
    if (
        not isinstance(tokens, Box)
        or not jnp.issubdtype(tokens.dtype, jnp.integer)
        or not hasattr(space, "length")
        or len(tokens.shape) != 1
        or tokens.shape[0] < 2
    ):
        raise ValueError(
            "network='transformer' needs observations with the fields tokens, a box of two or more integers, and "
            f"length, got the observation space {space}"
        )
    if not hidden or len(set(hidden)) > 1:
        raise ValueError(f"hidden must be one width for every block of network='transformer', got {tuple(hidden)}")
    if activation not in (None, "gelu"):
        raise ValueError(f"activation must be None or 'gelu' with network='transformer', got {activation!r}")
    require_integer("heads", heads, 1, None)
    if hidden[0] % heads:
        raise ValueError(f"heads must divide the width {hidden[0]} in hidden, got {heads}")


def make_transformer(
    space: PyTree, outputs: int, *, hidden: Sequence[int], activation: Activation | None, heads: int = 4
) -> Network:
    """A decoder-only transformer over a buffer of tokens; it has both `apply` and a `memory`.

    x = E[tokens] + P;   x ← x + attention(norm(x)),   x ← x + MLP(norm(x)) in each block;   outputs = norm(x) W + b

    The attention is causal, P are learned positions, the MLP has 4 W inner units and GELU, and the outputs for A_t are
    those at place `length` − 1 of X_t. θ starts in float32, and the outputs start near zero; if θ has another float
    type, all computations use it.

    The memory is the keys and values of every place, a tuple over the layers of two arrays `[H, L, D]`. `start` reads
    the whole buffer at once (so it can begin at any X_t), `step` reads the newest token, and `unroll` reads all tokens
    of an episode in one pass, whose last block computes only the places of its rows. In windows (if `starts` is given)
    `unroll` reads the buffer of every row, which costs T passes instead of one. It never uses a carry, so its outputs
    depend on θ alone and not on the θ that filled the cache.

    Args:
        space: the space of the observations, with the fields `tokens`, integers `[L + 1]`, and `length`, the number of
            tokens that are written, at least 1; each step appends one token, and a full buffer ends the episode.
        outputs: O.
        hidden: W once for each block, so `(64, 64)` gives two blocks of width 64.
        activation: `"gelu"`, or None, which is the same.
        heads: H, a divisor of W.

    Raises:
        ValueError: if the space does not fit, the widths differ, or H does not divide W.
    """
    _check(space, hidden, activation, heads)
    width, layers = hidden[0], len(hidden)
    places = space.tokens.shape[0] - 1
    symbols = int(np.max(space.tokens.bounds[1])) + 1

    def init(key: jax.Array, obs: PyTree) -> PyTree:
        del obs
        return _init(key, symbols, places, outputs, width, layers)

    def apply(params: PyTree, obs: PyTree) -> jax.Array:
        return _read(params, heads, obs.tokens, _newest(params, obs.length)[None])[0][0]

    return Network(init=init, apply=apply, memory=_make_memory(heads, apply))
