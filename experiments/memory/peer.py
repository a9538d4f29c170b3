"""The program that pgjax is compared with: reverse a string with a transformer and RLOO in JAX, without pgjax.

Model, batch, estimate and optimiser are those of pgjax with `network="transformer"` on `reverse`. It is written for
this one problem: it has whole batches, one position that all sequences share, a cache that is written in place, and
sampling, gradient and Adam in one jitted scan. Axes: B sequences, N places, n symbols, W width, H heads, D = W / H.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from pgjax.types import PyTree


def make_token_peer(
    length: int = 6,
    vocabulary: int = 9,
    num_episodes: int = 256,
    group_size: int = 4,
    width: int = 64,
    layers: int = 2,
    heads: int = 4,
    learning_rate: float = 2e-3,
) -> tuple[Callable, Callable]:
    """The jitted functions `init(key) → state` and `run(state, keys [U]) → (state, mean returns [U])` of U updates."""
    optimizer = optax.adam(learning_rate)
    attend = functools.partial(_block, heads)

    @jax.jit
    def init(key: jax.Array) -> PyTree:
        params = _init(key, vocabulary, 2 * length, width, layers)
        return params, optimizer.init(params)

    def sample(params: PyTree, key: jax.Array) -> jax.Array:
        """Tokens `[B, 2 n]`, the prompt first."""
        prompt_key, key = jax.random.split(key)
        prompt = jax.random.randint(prompt_key, (num_episodes // group_size, length), 0, vocabulary)
        tokens = jnp.zeros((num_episodes, 2 * length), jnp.int32).at[:, :length].set(prompt.repeat(group_size, 0))
        empty = jnp.zeros((num_episodes, 2, heads, 2 * length, width // heads))
        x, caches = _embed(params, tokens[:, :length], 0), []
        for layer in params["layers"]:
            x, new = attend(layer, x, None, 0)
            caches.append(jax.lax.dynamic_update_slice_in_dim(empty, new, 0, 3))

        def one(carry: tuple, step: tuple) -> tuple[tuple, None]:
            tokens, caches, logits = carry
            position, key = step
            token = jax.random.categorical(key, logits)[:, None]
            tokens = jax.lax.dynamic_update_slice_in_dim(tokens, token, position, 1)
            x, written = _embed(params, token, position), []
            for layer, cache in zip(params["layers"], caches):
                x, cache = attend(layer, x, cache, position)
                written.append(cache)
            return (tokens, tuple(written), _logits(params, x[:, 0])), None

        *keys, last_key = jax.random.split(key, length)
        carry, steps = (tokens, tuple(caches), _logits(params, x[:, -1])), length + jnp.arange(length - 1)
        (tokens, _, logits), _ = jax.lax.scan(one, carry, (steps, jnp.stack(keys)))
        return tokens.at[:, -1].set(jax.random.categorical(last_key, logits))

    def loss(params: PyTree, tokens: jax.Array, advantages: jax.Array) -> jax.Array:
        x = _embed(params, tokens[:, :-1], 0)
        for layer in params["layers"]:
            x, _ = attend(layer, x, None, 0)
        log_probs = jax.nn.log_softmax(_logits(params, x[:, length - 1 :]))
        taken = jnp.take_along_axis(log_probs, tokens[:, length:, None], 2)[..., 0]
        return -jnp.mean(advantages * taken.sum(1))

    def update(state: PyTree, key: jax.Array) -> tuple[PyTree, jax.Array]:
        params, optimizer_state = state
        tokens = sample(params, key)
        returns = jnp.mean(tokens[:, length:] == tokens[:, :length][:, ::-1], axis=1)
        grouped = returns.reshape(-1, group_size)
        others = (grouped.sum(1, keepdims=True) - grouped) / (group_size - 1)
        gradient = jax.grad(loss)(params, tokens, (grouped - others).reshape(-1))
        updates, optimizer_state = optimizer.update(gradient, optimizer_state, params)
        return (optax.apply_updates(params, updates), optimizer_state), returns.mean()

    return init, jax.jit(lambda state, keys: jax.lax.scan(update, state, keys), donate_argnums=0)


def _init(key: jax.Array, vocabulary: int, places: int, width: int, layers: int) -> PyTree:
    keys = iter(jax.random.split(key, 3 + 4 * layers))
    normal = lambda i, o, scale: scale * jax.random.normal(next(keys), (i, o))
    dense = lambda i, o, scale=1.0: {"w": normal(i, o, scale / math.sqrt(i)), "b": jnp.zeros(o)}
    norm = lambda: {"w": jnp.ones(width), "b": jnp.zeros(width)}
    sizes = {"qkv": (width, 3 * width), "out": (width, width), "up": (width, 4 * width), "down": (4 * width, width)}
    block = lambda: {"norm_1": norm(), "norm_2": norm(), **{name: dense(*size) for name, size in sizes.items()}}
    tables = {"tokens": normal(vocabulary, width, 0.02), "positions": normal(places, width, 0.02)}
    ends = {"norm": norm(), "head": dense(width, vocabulary, 0.01)}
    return {**tables, **ends, "layers": [block() for _ in range(layers)]}


_norm = lambda layer, x: jax.nn.standardize(x, epsilon=1e-5) * layer["w"] + layer["b"]
_dense = lambda layer, x: x @ layer["w"] + layer["b"]
_logits = lambda params, x: _dense(params["head"], _norm(params["norm"], x))


def _embed(params: PyTree, tokens: jax.Array, position: jax.Array | int) -> jax.Array:
    return params["tokens"][tokens] + jax.lax.dynamic_slice_in_dim(params["positions"], position, tokens.shape[1])


def _block(heads: int, layer: PyTree, x: jax.Array, cache: jax.Array | None, position: jax.Array | int):
    """x `[B, N, W]` at the places from `position` on → x and the keys and values `[B, 2, H, places, D]`."""
    batch, places, width = x.shape
    qkv = _dense(layer["qkv"], _norm(layer["norm_1"], x)).reshape(batch, places, 3, heads, -1).transpose(0, 2, 3, 1, 4)
    new = qkv[:, 1:]
    cache = new if cache is None else jax.lax.dynamic_update_slice_in_dim(cache, new, position, 3)
    scores = jnp.einsum("bhnd,bhld->bhnl", qkv[:, 0], cache[:, 0]) / math.sqrt(width // heads)
    allowed = jnp.arange(cache.shape[3]) <= position + jnp.arange(places)[:, None]
    weights = jax.nn.softmax(jnp.where(allowed, scores, -jnp.inf))
    mixed = jnp.einsum("bhnl,bhld->bnhd", weights, cache[:, 1]).reshape(batch, places, width)
    x = x + _dense(layer["out"], mixed)
    return x + _dense(layer["down"], jax.nn.gelu(_dense(layer["up"], _norm(layer["norm_2"], x)))), cache
