"""Language models as functions of whole texts, and as networks over a buffer of tokens.

Axes: B texts, L tokens of a text, V symbols, O outputs, K blocks, W width.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax

from pgjax._doors import readable
from pgjax._records import one_line
from pgjax.networks._decoder import make_apply, make_memory, read, require_blocks, require_buffer
from pgjax.networks.bodies import Activation
from pgjax.networks.language_models._decoders import init_params, make_decoder
from pgjax.networks.language_models.configs import Config, GPT2Config, LlamaConfig
from pgjax.networks.network import Network
from pgjax.types import PyTree


class LanguageModel(NamedTuple):
    """A language model for whole texts; `networks.make_language_policy` makes the policy with the same θ.

    Attributes:
        config: the sizes.
        init: `key → params`, a new θ in float32.
        logits: `(params, tokens [B, L]) → [B, L, V]`, the logits of the token after each place, in one parallel pass.
    """

    config: Config
    init: Callable[[jax.Array], PyTree]
    logits: Callable[[PyTree, jax.Array], jax.Array]

    def __repr__(self) -> str:
        return one_line(self)


@readable
def make_language_model(config: Config, *, recompute: bool = False) -> LanguageModel:
    """The functions of a language model, for pretraining and for evaluation on texts.

    p(a_{l+1} = v | a_1 … a_l) = softmax(logits[b, l])_v

    θ is a dictionary with the table "tokens" `[V, W]`, the "layers", whose arrays have a leading axis over the K
    blocks, the last "norm", "positions" `[C, W]` in GPT-2, and a "head" if the model is not tied.

    Args:
        config: the sizes, a `GPT2Config` or a `LlamaConfig`.
        recompute: whether the backward pass computes the inside of each block again. That costs a third more time and
            keeps only L · W numbers of each block in memory.

    Raises:
        ValueError: by `logits`, if the texts are longer than `config.context`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax import networks
        >>> config = networks.GPT2Config(vocabulary=256, width=16, layers=2, heads=2, context=32)
        >>> model = networks.make_language_model(config)
        >>> params = model.init(jax.random.key(0))
        >>> model.logits(params, jnp.zeros((3, 10), jnp.uint8)).shape
        (3, 10, 256)
    """
    decoder = make_decoder(config, recompute=recompute)

    def logits(params: PyTree, tokens: jax.Array) -> jax.Array:
        if tokens.ndim != 2:
            raise ValueError(f"tokens must have the axes [B, L], got the shape {tokens.shape}")
        return jax.vmap(lambda text: read(decoder, params, text, None)[0])(tokens)

    return LanguageModel(config=config, init=lambda key: init_params(key, config, config.vocabulary), logits=logits)


def _network(config: Config, outputs: int, recompute: bool) -> Network:
    if config.tied and outputs != config.vocabulary:
        raise ValueError(
            f"tied must be False or None if there are not as many outputs ({outputs}) as symbols "
            f"({config.vocabulary}), got True"
        )
    decoder = make_decoder(config, recompute=recompute)
    return Network(
        init=lambda key, obs: init_params(key, config, outputs),
        apply=make_apply(decoder),
        memory=make_memory(decoder),
    )


def make_gpt2(
    space: PyTree,
    outputs: int,
    *,
    hidden: Sequence[int],
    activation: Activation | None,
    heads: int = 4,
    inner: int | None = None,
    context: int | None = None,
    epsilon: float = 1e-5,
    tied: bool | None = None,
    recompute: bool = False,
) -> Network:
    """A language model in the layout of GPT-2 over a buffer of tokens; it has both `apply` and a `memory`.

    x = E[tokens] + P;   x ← x + attention(norm(x)),   x ← x + MLP(norm(x)) in each block;   outputs = norm(x) Eᵀ

    It is `make_transformer` with three changes: the blocks are scanned, so that many compile as fast as one; the
    outputs use the table E of the symbols; and there may be more positions than the buffer has places.

    Args:
        space: the space of the observations, with the fields `tokens`, integers `[L + 1]`, and `length`, the number of
            tokens that are written, at least 1; each step appends one token, and a full buffer ends the episode.
        outputs: O.
        hidden: W once for each block, so `(64, 64)` gives two blocks of width 64.
        activation: `"gelu"`, or None, which is the same.
        heads: H, a divisor of W.
        inner: the inner units of the MLP; None takes 4 W.
        context: C, the number of learned positions; None takes L.
        epsilon: ε of the norms.
        tied: whether the outputs use the table of symbols; None takes True where O is the number of symbols.
        recompute: see `make_language_model`.

    Raises:
        ValueError: if the space does not fit, the widths differ, a number is out of range, or `context` is below L.

    Source: Radford et al. (2019).
    """
    symbols, places = require_buffer("gpt2", space)
    width, layers = require_blocks("gpt2", hidden, activation, "gelu", heads)
    config = GPT2Config(
        vocabulary=symbols,
        width=width,
        layers=layers,
        heads=heads,
        context=_context(context, places),
        inner=inner,
        epsilon=epsilon,
        tied=outputs == symbols if tied is None else tied,
    )
    return _network(config, outputs, recompute)


def make_llama(
    space: PyTree,
    outputs: int,
    *,
    hidden: Sequence[int],
    activation: Activation | None,
    heads: int = 4,
    kv_heads: int | None = None,
    inner: int | None = None,
    context: int | None = None,
    rope_theta: float = 10_000.0,
    epsilon: float = 1e-5,
    tied: bool | None = None,
    recompute: bool = False,
) -> Network:
    """A language model in the layout of Llama over a buffer of tokens; it has both `apply` and a `memory`.

    x = E[tokens];   x ← x + attention(norm(x)),   x ← x + (silu(z G) ⊙ z U) D with z = norm(x) in each block;
    outputs = norm(x) Eᵀ

    The norm divides by the root mean square, queries and keys are rotated by angles in proportion to their place, and
    H / G heads of queries share a head of keys and values. The blocks are scanned.

    Args:
        space, outputs, hidden, heads, epsilon, tied, recompute: see `make_gpt2`.
        activation: `"silu"`, or None, which is the same.
        kv_heads: G, a divisor of H; None takes H.
        inner: the inner units of the MLP; None takes 8 W / 3, rounded down to a multiple of 8, at least 8.
        context: C, the longest text; None takes L.
        rope_theta: the base of the rotary frequencies.

    Raises:
        ValueError: if the space does not fit, the widths differ, a number is out of range, or `context` is below L.

    Source: Touvron et al. (2023); Su et al. (2021), rotary positions; Ainslie et al. (2023), grouped queries; Shazeer
        (2020), SwiGLU.
    """
    symbols, places = require_buffer("llama", space)
    width, layers = require_blocks("llama", hidden, activation, "silu", heads)
    config = LlamaConfig(
        vocabulary=symbols,
        width=width,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        inner=max(8, 8 * width // 3 // 8 * 8) if inner is None else inner,
        context=_context(context, places),
        rope_theta=rope_theta,
        epsilon=epsilon,
        tied=outputs == symbols if tied is None else tied,
    )
    return _network(config, outputs, recompute)


def _context(context: int | None, places: int) -> int:
    if context is not None and context < places:
        raise ValueError(f"context must be at least the {places} places of the buffer that are read, got {context}")
    return places if context is None else context
