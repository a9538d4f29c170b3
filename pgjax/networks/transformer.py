"""A decoder-only transformer over tokens: one definition that reads a whole buffer or one token at a time.

The observation is the buffer of all tokens so far, with the fields `tokens` `[L]` and `length` `[]`, and every action
adds one token to it. So the observation is Markov: `apply` computes from X_t alone what `memory` computes with a cache
of keys and values, and a cache can be computed anew from any X_t. No action follows a full buffer, so the last place of
the buffer is never read, and its logits have no meaning. Axes: T time, L places of the buffer without the last, N the
places whose logits are asked for, O outputs, W width, H heads, D = W / H.

Source: Vaswani et al. (2017); the blocks are those of GPT-2 (Radford et al. 2019).
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from pgjax.networks._decoder import (
    Cache,
    Decoder,
    Place,
    make_apply,
    make_memory,
    require_blocks,
    require_buffer,
    split_heads,
)
from pgjax.networks._layers import HEAD_SCALE, dense, init_dense, init_norm, norm, rows
from pgjax.networks.bodies import Activation
from pgjax.networks.network import Network
from pgjax.types import PyTree

EPSILON = 1e-5


def project(heads: int, epsilon: float, layer: PyTree, x: jax.Array, place: Place) -> tuple[jax.Array, Cache]:
    """The queries `[H, N, D]` of N places, and their keys and values, from x `[N, W]`; the place has no influence."""
    del place
    parts = jnp.split(dense(layer["attention"], norm(layer["attention_norm"], x, epsilon)), 3, axis=-1)
    queries, keys, values = (split_heads(part, heads) for part in parts)
    return queries, (keys, values)


def add(epsilon: float, layer: PyTree, x: jax.Array, attended: jax.Array) -> jax.Array:
    """x + attention(norm(x)), then + MLP(norm(x)): x `[N, W]` → x `[N, W]`."""
    x = x + dense(layer["mixing"], attended)
    inner = jax.nn.gelu(dense(layer["up"], norm(layer["inner_norm"], x, epsilon)))
    return x + dense(layer["down"], inner)


def init_layer(key: jax.Array, width: int, inner: int, added: float) -> PyTree:
    """The parameters of one block; `added` scales the variance of what it adds to x."""
    attention_key, mixing_key, up_key, down_key = jax.random.split(key, 4)
    return {
        "attention_norm": init_norm(width),
        "attention": init_dense(attention_key, width, 3 * width),
        "mixing": init_dense(mixing_key, width, width, added),
        "inner_norm": init_norm(width),
        "up": init_dense(up_key, width, inner),
        "down": init_dense(down_key, inner, width, added),
    }


def _init(key: jax.Array, symbols: int, places: int, outputs: int, width: int, layers: int) -> PyTree:
    table_key, position_key, head_key, *layer_keys = jax.random.split(key, 3 + layers)
    # The variance of what all blocks add to x does not depend on the number of blocks.
    added = 1.0 / (2 * layers)
    return {
        "tokens": 0.02 * jax.random.normal(table_key, (symbols, width), jnp.float32),
        "positions": 0.02 * jax.random.normal(position_key, (places, width), jnp.float32),
        "layers": tuple(init_layer(layer_key, width, 4 * width, added) for layer_key in layer_keys),
        "norm": init_norm(width),
        "head": init_dense(head_key, width, outputs, HEAD_SCALE),
    }


def _embed(params: PyTree, tokens: jax.Array, place: Place) -> jax.Array:
    positions = params["positions"]
    if not isinstance(place, int):
        positions = jax.lax.dynamic_slice_in_dim(positions, place, tokens.shape[0])
    elif tokens.shape[0] > positions.shape[0]:
        wanted = positions.shape[0] + 1
        raise ValueError(
            f"obs.tokens must have at most {wanted} places, those of one buffer (vmap for more), "
            f"got {tokens.shape[0] + 1}"
        )
    else:  # a batch of short answers comes without the last places
        positions = positions[: tokens.shape[0]]
    return rows(params["tokens"], tokens) + positions


def _outputs(params: PyTree, x: jax.Array) -> jax.Array:
    return dense(params["head"], norm(params["norm"], x))


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
    symbols, places = require_buffer("transformer", space)
    width, layers = require_blocks("transformer", hidden, activation, "gelu", heads)

    def init(key: jax.Array, obs: PyTree) -> PyTree:
        del obs
        return _init(key, symbols, places, outputs, width, layers)

    decoder = Decoder(
        embed=_embed,
        project=functools.partial(project, heads, EPSILON),
        add=functools.partial(add, EPSILON),
        outputs=_outputs,
    )
    return Network(init=init, apply=make_apply(decoder), memory=make_memory(decoder))
