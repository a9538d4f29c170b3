"""The program that pgjax is compared with: sample and learn with a model in the layout of Llama in JAX, without pgjax.

Model, batch, estimate and optimiser are those of pgjax. It is written for this one problem: whole batches of prompts of
one length, a cache that is written in place, blocks that are scanned and computed again in the backward pass. θ has
the names that `saving.weights.load` gives. Axes: B answers, N places, V tokens, W width, H heads, G heads of keys and
values, D width of a head, K blocks.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax.networks.language_models import LlamaConfig
from pgjax.types import PyTree


class Peer(NamedTuple):
    """The functions of the hand-written program.

    Attributes:
        sample: `(θ, prompts [B / k, P], key) → tokens [B, P + T]`.
        update: `((θ, state of Adam), prompts, key) → (θ, state of Adam)`: sampling, gradient of RLOO and Adam.
    """

    sample: Callable[[PyTree, jax.Array, jax.Array], jax.Array]
    update: Callable[[tuple, jax.Array, jax.Array], tuple]


def make_peer(
    config: LlamaConfig,
    *,
    group_size: int,
    max_new_tokens: int,
    score: Callable[[jax.Array], jax.Array],
    optimizer: optax.GradientTransformation,
) -> Peer:
    """The program for answers of exactly T tokens; `score` maps answers `[B, T]` to `[B]`."""

    def sample(params: PyTree, prompts: jax.Array, key: jax.Array) -> jax.Array:
        length, places = prompts.shape[1], prompts.shape[1] + max_new_tokens
        x, new = _prompt(config, params, prompts)
        # Each prompt is read once; its answers begin with copies of what was read.
        repeated = lambda x, axis: jnp.repeat(x, group_size, axis)
        shape = (config.layers, prompts.shape[0] * group_size, config.kv_heads, places, config.head_width)
        write = lambda new: jax.lax.dynamic_update_slice(jnp.zeros(shape, x.dtype), repeated(new, 1), (0,) * 5)
        tokens = jnp.zeros((shape[1], places), jnp.int32).at[:, :length].set(repeated(prompts, 0))

        def one(carry: tuple, step: tuple) -> tuple[tuple, None]:
            tokens, cache, logits = carry
            place, key = step
            token = jax.random.categorical(key, logits)[:, None]
            tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token, place, 1)
            x, cache = _token(config, params, token, cache, place)
            return (tokens, cache, _logits(config, params, x[:, 0])), None

        *keys, last_key = jax.random.split(key, max_new_tokens)
        carry = (tokens, jax.tree.map(write, new), _logits(config, params, repeated(x[:, -1], 0)))
        steps = (length + jnp.arange(max_new_tokens - 1), jnp.stack(keys))
        (tokens, _, logits), _ = jax.lax.scan(one, carry, steps)
        return tokens.at[:, -1].set(jax.random.categorical(last_key, logits))

    def loss(params: PyTree, tokens: jax.Array, advantages: jax.Array) -> jax.Array:
        x, _ = _prompt(config, params, tokens[:, :-1], keep=False)
        log_probs = jax.nn.log_softmax(_logits(config, params, x[:, -max_new_tokens:]))
        taken = jnp.take_along_axis(log_probs, tokens[:, -max_new_tokens:, None], 2)[..., 0]
        return -jnp.mean(advantages * taken.sum(1))

    def update(state: tuple, prompts: jax.Array, key: jax.Array) -> tuple:
        params, optimizer_state = state
        tokens = sample(params, prompts, key)
        grouped = score(tokens[:, -max_new_tokens:]).reshape(-1, group_size)
        others = (grouped.sum(1, keepdims=True) - grouped) / (group_size - 1)
        gradient = jax.grad(loss)(params, tokens, (grouped - others).reshape(-1))
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return optax.apply_updates(params, updates), optimizer_state

    return Peer(sample=sample, update=update)


def _norm(layer: PyTree, x: jax.Array, epsilon: float) -> jax.Array:
    return x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + epsilon) * layer["scale"]


def _logits(config: LlamaConfig, params: PyTree, x: jax.Array) -> jax.Array:
    x = _norm(params["norm"], x, config.epsilon)
    return x @ params["head"]["kernel"] if "head" in params else x @ params["tokens"].T


def _rotated(config: LlamaConfig, x: jax.Array, place: jax.Array | int) -> jax.Array:
    half = x.shape[-1] // 2
    frequencies = config.rope_theta ** (-jnp.arange(half, dtype=jnp.float32) / half)
    angles = (place + jnp.arange(x.shape[2], dtype=jnp.float32))[:, None] * frequencies
    cosine, sine, a, b = jnp.cos(angles), jnp.sin(angles), x[..., :half], x[..., half:]
    return jnp.concatenate([a * cosine - b * sine, b * cosine + a * sine], -1)


def _project(config: LlamaConfig, layer: PyTree, x: jax.Array, place: jax.Array | int):
    """Queries `[B, H, N, D]`, and keys and values `[B, G, N, D]`."""
    z = _norm(layer["attention_norm"], x, config.epsilon)
    heads = lambda name: (z @ layer[name]["kernel"]).reshape(*x.shape[:2], -1, config.head_width).swapaxes(1, 2)
    queries, keys, values = map(heads, ("queries", "keys", "values"))
    return _rotated(config, queries, place), (_rotated(config, keys, place), values)


def _add(config: LlamaConfig, layer: PyTree, x: jax.Array, queries: jax.Array, cache: tuple, allowed: jax.Array):
    """The rest of a block: attention over the cache, then the inner layer."""
    batch, heads, places, width = queries.shape
    queries = queries.reshape(batch, config.kv_heads, -1, places, width)
    scores = jnp.einsum("bgsnd,bgld->bgsnl", queries, cache[0]) / math.sqrt(width)
    weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf))
    mixed = jnp.einsum("bgsnl,bgld->bngsd", weights, cache[1]).reshape(batch, places, heads * width)
    x = x + mixed @ layer["mixing"]["kernel"]
    z = _norm(layer["inner_norm"], x, config.epsilon)
    inner = jax.nn.silu(z @ layer["gate"]["kernel"]) * (z @ layer["up"]["kernel"])
    return x + inner @ layer["down"]["kernel"]


def _prompt(config: LlamaConfig, params: PyTree, tokens: jax.Array, keep: bool = True):
    """x `[B, N, W]` after all places of `tokens [B, N]`, and the keys and values of all blocks if `keep`."""
    places = jnp.arange(tokens.shape[1])

    @jax.checkpoint
    def block(x: jax.Array, layer: PyTree):
        queries, new = _project(config, layer, x, 0)
        return _add(config, layer, x, queries, new, places <= places[:, None]), new if keep else None

    return jax.lax.scan(block, params["tokens"][tokens], params["layers"])


def _token(config: LlamaConfig, params: PyTree, token: jax.Array, cache: tuple, place: jax.Array):
    """x `[B, 1, W]` after one more token `[B, 1]`, and the cache `[K, B, G, N, D]` with its keys and values."""
    allowed = jnp.arange(cache[0].shape[3])[None] <= place

    def block(carry: tuple, scanned: tuple):
        x, cache = carry
        layer, depth = scanned
        queries, new = _project(config, layer, x, place)
        write = lambda old, new: jax.lax.dynamic_update_slice(old, new[None], (depth, 0, 0, place, 0))
        cache = jax.tree.map(write, cache, new)
        own = jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, depth, 0, keepdims=False), cache)
        return (_add(config, layer, x, queries, own, allowed), cache), None

    depths = jnp.arange(config.layers)
    return jax.lax.scan(block, (params["tokens"][token], cache), (params["layers"], depths))[0]
