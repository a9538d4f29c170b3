"""A decoder-only transformer as a policy over tokens: one definition, run over a whole buffer or one token at a time.

The observation is the buffer of all tokens so far, with the fields `tokens` `[L]` and `length` `[]`, and every action
adds one token to it. So the observation is Markov: `apply` computes from X_t alone what `memory` computes with a cache
of keys and values, and a cache can be made afresh from any X_t. No action follows a full buffer, so its last place is
never read, and its logits are zero. Axes: T time, L places of the buffer without the last, A actions, W width, H heads,
D = W / H.

Source: Vaswani et al. (2017); the blocks are those of GPT-2 (Radford et al. 2019).
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import distributions
from pgjax._checks import require_integer, require_one_of
from pgjax.networks._layers import HEAD_SCALE, dense, init_dense, init_norm, norm, rows
from pgjax.types import Environment, Memory, Policy

PyTree = Any


def _attend(queries: jax.Array, cache: jax.Array, allowed: jax.Array) -> jax.Array:
    """softmax(q kᵀ / √D) v of every head, `[N, W]`, for queries `[N, H, D]` at N places.

    The cache `[L, 2, H, D]` holds keys and values; `allowed` bool `[N, L]` tells which places a query may look at.
    """
    keys, values = cache[:, 0], cache[:, 1]
    scores = jnp.einsum("nhd,lhd->hnl", queries, keys) / math.sqrt(queries.shape[-1])
    weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf))
    return jnp.einsum("hnl,lhd->nhd", weights, values).reshape(queries.shape[0], -1)


def _block(
    layer: PyTree, heads: int, x: jax.Array, allowed: jax.Array, remember: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """One pre-norm block at N places: x `[N, W]` → x `[N, W]` and the layer's cache `[L, 2, H, D]`.

    `remember` puts the keys and values of these N places, `[N, 2, H, D]`, where the cache holds them.
    """
    projected = dense(layer["attention"], norm(layer["attention_norm"], x)).reshape(x.shape[0], 3, heads, -1)
    cache = remember(projected[:, 1:])
    x = x + dense(layer["mixing"], _attend(projected[:, 0], cache, allowed))
    inner = jax.nn.gelu(dense(layer["up"], norm(layer["inner_norm"], x)))
    return x + dense(layer["down"], inner), cache


def _logits(params: PyTree, x: jax.Array) -> jax.Array:
    return dense(params["head"], norm(params["norm"], x))


def _read(params: PyTree, heads: int, tokens: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """One causal pass over a buffer: the logits after every place, `[L, A]`, and the cache of every layer.

    What stands in a place that is not yet written reaches no place before it.
    """
    places = params["positions"].shape[0]
    if tokens.shape != (places + 1,):
        raise ValueError(f"obs.tokens must have shape ({places + 1},), one buffer (vmap for more), got {tokens.shape}")
    x = rows(params["tokens"], tokens[:-1]) + params["positions"]
    causal = jnp.tril(jnp.ones((places, places), jnp.bool_))
    caches = []
    for layer in params["layers"]:
        x, cache = _block(layer, heads, x, causal, lambda new: new)
        caches.append(cache)
    return _logits(params, x), tuple(caches)


def _read_one(
    params: PyTree, heads: int, carry: tuple[jax.Array, ...], obs: PyTree
) -> tuple[tuple[jax.Array, ...], jax.Array]:
    """The newest token of a buffer, with what the cache holds of those before it: the new cache, and logits `[A]`."""
    places = params["positions"].shape[0]
    # Inside also for rows of padding, whose outputs nobody uses: no buffer, or a full one.
    position = jnp.clip(obs.length - 1, 0, places - 1)
    at_position = lambda x: jax.lax.dynamic_slice_in_dim(x, position, 1)
    allowed = jnp.arange(places)[None] <= position
    x = rows(params["tokens"], at_position(obs.tokens)) + at_position(params["positions"])
    caches = []
    for layer, old in zip(params["layers"], carry):
        write = lambda new: jax.lax.dynamic_update_slice_in_dim(old, new, position, axis=0)
        x, cache = _block(layer, heads, x, allowed, write)
        caches.append(cache)
    return tuple(caches), _logits(params, x)[0]


def _make_memory(heads: int, apply: Callable[[PyTree, PyTree], jax.Array]) -> Memory:
    """The cache of keys and values: a tuple over the layers of `[L, 2, H, D]`."""

    def start(params: PyTree, obs: PyTree) -> tuple[jax.Array, ...]:
        return _read(params, heads, obs.tokens)[1]

    def step(params: PyTree, carry: tuple[jax.Array, ...], obs: PyTree) -> tuple[tuple[jax.Array, ...], jax.Array]:
        return _read_one(params, heads, carry, obs)

    def unroll(params: PyTree, carry: PyTree | None, obs: PyTree, starts: jax.Array | None) -> jax.Array:
        # The observation is Markov, so θ alone decides: a carry, which older θ computed, is not needed.
        if starts is not None:
            return jax.vmap(apply, (None, 0))(params, obs)
        # Not the last row: a rollout that stops early leaves rows of padding without a token behind.
        longest = obs.tokens[jnp.argmax(obs.length)]
        return rows(_read(params, heads, longest)[0], obs.length - 1)

    return Memory(start=start, step=step, unroll=unroll)


def _init(key: jax.Array, symbols: int, places: int, actions: int, width: int, layers: int) -> PyTree:
    table_key, position_key, head_key, *layer_keys = jax.random.split(key, 3 + layers)
    # What the blocks add to x keeps its variance, however many there are.
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
        "head": init_dense(head_key, width, actions, HEAD_SCALE),
    }


def _check_spaces(observation_space: PyTree, action_space: Any, distribution: str) -> None:
    require_one_of("distribution", distribution, ("auto", "categorical"))
    tokens = getattr(observation_space, "tokens", None)
    integers = tokens is not None and jnp.issubdtype(tokens.dtype, jnp.integer)
    if not integers or not hasattr(observation_space, "length") or len(tokens.shape) != 1 or tokens.shape[0] < 2:
        raise ValueError(
            "network='transformer' needs observations with the fields tokens, two or more integers, and length, got "
            f"the observation space {observation_space}"
        )
    if not hasattr(action_space, "n") or tuple(action_space.shape) != ():
        raise ValueError(f"network='transformer' needs a discrete action space, got {action_space}")


def transformer_policy(
    observation_space: PyTree,
    action_space: Any,
    *,
    distribution: str = "auto",
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
) -> Policy:
    """`make_transformer_policy` from the two spaces."""
    _check_spaces(observation_space, action_space, distribution)
    for name, value in (("width", width), ("layers", layers), ("heads", heads)):
        require_integer(name, value, 1, None)
    if width % heads:
        raise ValueError(f"width must be a multiple of heads={heads}, got {width}")
    places = observation_space.tokens.shape[0] - 1
    symbols = int(np.max(observation_space.tokens.high)) + 1

    def init(key: jax.Array, obs: PyTree) -> PyTree:
        return _init(key, symbols, places, action_space.n, width, layers)

    def apply(params: PyTree, obs: PyTree) -> jax.Array:
        return rows(_read(params, heads, obs.tokens)[0], obs.length - 1)

    return Policy(
        init=init, apply=apply, distribution=distributions.categorical, memory=_make_memory(heads, apply)
    )


def make_transformer_policy(
    environment: Environment, *, distribution: str = "auto", width: int = 64, layers: int = 2, heads: int = 4
) -> Policy:
    """A decoder-only transformer over a buffer of tokens; it has both `apply` and a `memory`.

    x = E[tokens] + P;   x ← x + attention(norm(x)),   x ← x + MLP(norm(x)) in each block;   logits = norm(x) W + b

    The attention is causal, P are learned positions, the MLP has 4 W inner units and GELU, and the logits for A_t are
    those at place `length` − 1 of X_t. θ starts in float32 and near uniform; if θ has another float type, everything is
    computed in that.

    The memory is the keys and values of every place, a tuple over the layers of `[L, 2, H, D]`. `start` reads the whole
    buffer at once (so that it can begin at any X_t), `step` reads the newest token, and `unroll` reads all tokens of an
    episode in one pass. Inside windows (`starts` given) `unroll` reads the buffer of every row, which costs T passes
    instead of one. It never uses a carry, so that its outputs belong to θ and not to the θ that filled the cache.

    Args:
        environment: its observations have the fields `tokens`, integers `[L + 1]`, and `length`, the number of tokens
            that are written, at least 1; each step appends one token, and a full buffer ends the episode. Its actions
            are discrete.
        distribution: `"categorical"`, or `"auto"`, which is the same.
        width: W.
        layers: the number of blocks.
        heads: H, a divisor of W.

    Raises:
        ValueError: if the spaces do not fit, a number is below 1, or H does not divide W.
    """
    return transformer_policy(
        environment.observation_space,
        environment.action_space,
        distribution=distribution,
        width=width,
        layers=layers,
        heads=heads,
    )
