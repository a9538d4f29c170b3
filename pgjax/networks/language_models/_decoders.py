"""The two layouts as decoders: how they embed, project, add and give outputs, and their first parameters.

The layers are stacked: each array has a leading axis over the K blocks, which are scanned. Axes as in `_decoder`.
"""

import functools

import jax
import jax.numpy as jnp

from pgjax.networks._decoder import Cache, Decoder, Place, split_heads
from pgjax.networks._layers import HEAD_SCALE, dense, init_linear, init_norm, look_up, norm, rms_norm
from pgjax.networks.language_models.configs import Config, GPT2Config, LlamaConfig
from pgjax.networks.transformer import add as add_gpt2
from pgjax.networks.transformer import init_layer as init_gpt2_layer
from pgjax.networks.transformer import project as project_gpt2
from pgjax.types import PyTree


def make_decoder(config: Config, *, recompute: bool = False) -> Decoder:
    """The pieces of a language model; θ is what `init_params` draws.

    Args:
        config: the sizes, whose type chooses the layout.
        recompute: whether the backward pass computes the inside of each block again. That costs a third more time and
            keeps only x `[L, W]` of each block in memory.
    """
    if isinstance(config, GPT2Config):
        return Decoder(
            embed=functools.partial(_embed_gpt2, config),
            project=functools.partial(project_gpt2, config.heads, config.epsilon),
            add=functools.partial(add_gpt2, config.epsilon),
            outputs=lambda params, x: _outputs(params, norm(params["norm"], x, config.epsilon)),
            recompute=recompute,
        )
    return Decoder(
        embed=functools.partial(_embed_llama, config),
        project=functools.partial(_project_llama, config),
        add=functools.partial(_add_llama, config),
        outputs=lambda params, x: _outputs(params, rms_norm(params["norm"], x, config.epsilon)),
        recompute=recompute,
    )


def init_params(key: jax.Array, config: Config, outputs: int) -> PyTree:
    """Draw θ, float32. The outputs start near zero: from a table of small numbers if tied, else from small weights."""
    table_key, position_key, head_key, layers_key = jax.random.split(key, 4)
    is_gpt2 = isinstance(config, GPT2Config)
    init_layer = functools.partial(_init_gpt2_layer if is_gpt2 else _init_llama_layer, config)
    params = {
        "tokens": 0.02 * jax.random.normal(table_key, (config.vocabulary, config.width), jnp.float32),
        "layers": jax.vmap(init_layer)(jax.random.split(layers_key, config.layers)),
        "norm": init_norm(config.width) if is_gpt2 else _init_rms_norm(config.width),
    }
    if is_gpt2:
        params["positions"] = 0.02 * jax.random.normal(position_key, (config.context, config.width), jnp.float32)
    if not config.tied:
        params["head"] = init_linear(head_key, config.width, outputs, HEAD_SCALE)
    return params


def _outputs(params: PyTree, x: jax.Array) -> jax.Array:
    return dense(params["head"], x) if "head" in params else x @ params["tokens"].T


def _require_length(config: Config, tokens: jax.Array) -> None:
    if tokens.ndim != 1 or tokens.shape[0] > config.context:
        raise ValueError(
            f"tokens must be one text of at most context={config.context} tokens (vmap for more texts), got the shape "
            f"{tokens.shape}"
        )


def _embed_gpt2(config: GPT2Config, params: PyTree, tokens: jax.Array, place: Place) -> jax.Array:
    _require_length(config, tokens)
    positions = jax.lax.dynamic_slice_in_dim(params["positions"], place, tokens.shape[0])
    return look_up(params["tokens"], tokens) + positions


def _init_gpt2_layer(config: GPT2Config, key: jax.Array) -> PyTree:
    return init_gpt2_layer(key, config.width, config.inner_width, 1.0 / (2 * config.layers))


def _embed_llama(config: LlamaConfig, params: PyTree, tokens: jax.Array, place: Place) -> jax.Array:
    del place
    _require_length(config, tokens)
    return look_up(params["tokens"], tokens)


def _rotate(config: LlamaConfig, x: jax.Array, place: Place) -> jax.Array:
    """Turn each pair (x_i, x_{i + D/2}) of x `[H, N, D]` by the angle place · base^(−2 i / D).

    Source: Su et al. (2021), with the two halves of a head as the pairs, as in Llama's files.
    """
    half = config.head_width // 2
    # The angles need the precision of float32 also if θ is shorter.
    dtype = jnp.promote_types(x.dtype, jnp.float32)
    frequencies = config.rope_theta ** (-jnp.arange(half, dtype=dtype) / half)
    angles = (place + jnp.arange(x.shape[1])).astype(dtype)[:, None] * frequencies
    cosine, sine = jnp.cos(angles).astype(x.dtype), jnp.sin(angles).astype(x.dtype)
    first, second = x[..., :half], x[..., half:]
    return jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def _project_llama(config: LlamaConfig, layer: PyTree, x: jax.Array, place: Place) -> tuple[jax.Array, Cache]:
    x = rms_norm(layer["attention_norm"], x, config.epsilon)
    queries = split_heads(dense(layer["queries"], x), config.heads)
    keys, values = (split_heads(dense(layer[name], x), config.groups) for name in ("keys", "values"))
    return _rotate(config, queries, place), (_rotate(config, keys, place), values)


def _add_llama(config: LlamaConfig, layer: PyTree, x: jax.Array, attended: jax.Array) -> jax.Array:
    x = x + dense(layer["mixing"], attended)
    read = rms_norm(layer["inner_norm"], x, config.epsilon)
    return x + dense(layer["down"], jax.nn.silu(dense(layer["gate"], read)) * dense(layer["up"], read))


def _init_rms_norm(width: int) -> PyTree:
    return {"scale": jnp.ones(width, jnp.float32)}


def _init_llama_layer(config: LlamaConfig, key: jax.Array) -> PyTree:
    keys = jax.random.split(key, 7)
    width, shared = config.width, config.groups * config.head_width
    # The variance of what all blocks add to x does not depend on the number of blocks.
    added = 1.0 / (2 * config.layers)
    return {
        "attention_norm": _init_rms_norm(width),
        "queries": init_linear(keys[0], width, width),
        "keys": init_linear(keys[1], width, shared),
        "values": init_linear(keys[2], width, shared),
        "mixing": init_linear(keys[3], width, width, added),
        "inner_norm": _init_rms_norm(width),
        "gate": init_linear(keys[4], width, config.inner),
        "up": init_linear(keys[5], width, config.inner),
        "down": init_linear(keys[6], config.inner, width, added),
    }
