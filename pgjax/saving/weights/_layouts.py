"""The names and shapes of the two layouts in files, and where each tensor belongs in θ.

The sizes in the shapes: W width, Q = 3 W, A = H D all queries, G the keys of all their heads, I inner units,
V vocabulary, C context.
"""

import re
from typing import NamedTuple

from pgjax.networks import GPT2Config, LlamaConfig
from pgjax.networks.language_models import Config


class Entry(NamedTuple):
    """One tensor of the layout, or one of every block.

    Attributes:
        place: the names on the way to it in θ.
        axes: its shape in the file, one letter for each axis.
        heads: the letter of the heads whose rows a GGUF file reorders, "H" or "G", or "".
    """

    place: tuple[str, ...]
    axes: str
    heads: str = ""


class Layout(NamedTuple):
    """A layout of names.

    Attributes:
        name: for errors.
        transposed: whether matrices are stored (out, in), unlike θ, which holds (in, out).
        whole: the tensors that occur once.
        block: the start of the names of block i, with {} for i.
        blocks: the tensors of every block, by the rest of their names.
        head: the name of the weights of the outputs, which a tied model lacks.
        skipped: what a file may hold besides and is not read: masks and frequencies.
    """

    name: str
    transposed: bool
    whole: dict[str, Entry]
    block: str
    blocks: dict[str, Entry]
    head: str
    skipped: re.Pattern


def _pair(name: str, place: str, axes: str) -> dict[str, Entry]:
    """Weights and biases of one layer of GPT-2; a norm has a scale in place of weights."""
    weight = "scale" if len(axes) == 1 else "kernel"
    return {f"{name}.weight": Entry((place, weight), axes), f"{name}.bias": Entry((place, "bias"), axes[-1])}


GPT2 = Layout(
    name="GPT-2",
    transposed=False,
    whole={
        "wte.weight": Entry(("tokens",), "VW"),
        "wpe.weight": Entry(("positions",), "CW"),
        **_pair("ln_f", "norm", "W"),
    },
    block="h.{}.",
    blocks={
        **_pair("ln_1", "attention_norm", "W"),
        **_pair("attn.c_attn", "attention", "WQ"),
        **_pair("attn.c_proj", "mixing", "WW"),
        **_pair("ln_2", "inner_norm", "W"),
        **_pair("mlp.c_fc", "up", "WI"),
        **_pair("mlp.c_proj", "down", "IW"),
    },
    head="lm_head.weight",
    skipped=re.compile(r"h\.\d+\.attn\.(bias|masked_bias)"),
)

_LLAMA_BLOCK = {
    "attention_norm": Entry(("attention_norm", "scale"), "W"),
    "queries": Entry(("queries", "kernel"), "AW", "H"),
    "keys": Entry(("keys", "kernel"), "GW", "G"),
    "values": Entry(("values", "kernel"), "GW"),
    "mixing": Entry(("mixing", "kernel"), "WA"),
    "inner_norm": Entry(("inner_norm", "scale"), "W"),
    "gate": Entry(("gate", "kernel"), "IW"),
    "up": Entry(("up", "kernel"), "IW"),
    "down": Entry(("down", "kernel"), "WI"),
}
_SAFETENSORS_NAMES = {
    "input_layernorm": "attention_norm",
    "self_attn.q_proj": "queries",
    "self_attn.k_proj": "keys",
    "self_attn.v_proj": "values",
    "self_attn.o_proj": "mixing",
    "post_attention_layernorm": "inner_norm",
    "mlp.gate_proj": "gate",
    "mlp.up_proj": "up",
    "mlp.down_proj": "down",
}
_GGUF_NAMES = {
    "attn_norm": "attention_norm",
    "attn_q": "queries",
    "attn_k": "keys",
    "attn_v": "values",
    "attn_output": "mixing",
    "ffn_norm": "inner_norm",
    "ffn_gate": "gate",
    "ffn_up": "up",
    "ffn_down": "down",
}
LLAMA = Layout(
    name="Llama",
    transposed=True,
    whole={
        "model.embed_tokens.weight": Entry(("tokens",), "VW"),
        "model.norm.weight": Entry(("norm", "scale"), "W"),
    },
    block="model.layers.{}.",
    blocks={f"{name}.weight": _LLAMA_BLOCK[ours] for name, ours in _SAFETENSORS_NAMES.items()},
    head="lm_head.weight",
    skipped=re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq"),
)
LLAMA_GGUF = Layout(
    name="Llama (GGUF)",
    transposed=True,
    whole={
        "token_embd.weight": Entry(("tokens",), "VW"),
        "output_norm.weight": Entry(("norm", "scale"), "W"),
    },
    block="blk.{}.",
    blocks={f"{name}.weight": _LLAMA_BLOCK[ours] for name, ours in _GGUF_NAMES.items()},
    head="output.weight",
    skipped=re.compile(r"(?!)"),
)
HEAD = Entry(("head", "kernel"), "VW")


def layout_of(config: Config) -> Layout:
    """The layout of safetensors files for this model."""
    return GPT2 if isinstance(config, GPT2Config) else LLAMA


def entries(layout: Layout, config: Config) -> dict[str, tuple[Entry, int | None]]:
    """Name in the file → the entry, and the number of its block or None; with the head if the model is not tied."""
    found: dict[str, tuple[Entry, int | None]] = {name: (entry, None) for name, entry in layout.whole.items()}
    for i in range(config.layers):
        found |= {layout.block.format(i) + name: (entry, i) for name, entry in layout.blocks.items()}
    return found if config.tied else found | {layout.head: (HEAD, None)}


def shape_of(entry: Entry, config: Config) -> tuple[int, ...]:
    """The shape of a tensor in the file."""
    grouped = config.groups * config.head_width if isinstance(config, LlamaConfig) else config.width
    sizes = {
        "W": config.width,
        "A": config.width,
        "Q": 3 * config.width,
        "G": grouped,
        "I": config.inner,
        "V": config.vocabulary,
        "C": config.context,
    }
    return tuple(sizes[letter] for letter in entry.axes)


def is_transposed(layout: Layout, entry: Entry) -> bool:
    """Whether the file holds the transpose of what θ holds; the table of symbols is `[V, W]` in both."""
    return len(entry.axes) == 2 and (entry is HEAD or (layout.transposed and entry.place != ("tokens",)))
