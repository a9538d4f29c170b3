"""Language models from GGUF files: the logits are those of a NumPy reference, and damage is refused by name."""

import struct

import jax
import numpy as np
import pytest
from gguf_files import gguf_bytes as gguf
from gguf_files import quantised
from language_files import ITEM, TOKENS, llama_weights, logits_of, swap, without
from language_references import llama_logits

from pgjax.saving import weights

GGUF_NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
GGUF_SIZES = {
    "general.architecture": "llama",
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.embedding_length": 32,
    "llama.feed_forward_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": 2,
    "llama.rope.freq_base": 500.0,
    "llama.rope.dimension_count": 8,
    "llama.attention.layer_norm_rms_epsilon": 1e-6,
}


def gguf_llama():
    """Tensors of a GGUF file in several kinds, and the weights that they stand for under the names of safetensors."""
    tensors, arrays = {}, {}
    for seed, (name, x) in enumerate(llama_weights().items()):
        block = name.split(".")[2] if name.startswith("model.layers.") else None
        part = name.removesuffix(".weight").removeprefix(f"model.layers.{block}.")
        kind = "F32" if x.ndim == 1 else ("Q4_1", "Q8_0", "Q4_0", "F16")[seed % 4]
        raw, x = (
            (x.astype(ITEM[kind]).tobytes(), x.astype(ITEM[kind])) if kind in ITEM else quantised(kind, x.shape, seed)
        )
        tensors[f"{GGUF_NAMES[part]}.weight" if block is None else f"blk.{block}.{GGUF_NAMES[part]}.weight"] = (
            kind,
            x.shape,
            raw,
        )
        if part in ("self_attn.q_proj", "self_attn.k_proj"):
            # The file's row 2 i + h of a head is row i of half h.
            rows = [head * 8 + 2 * (r % 4) + r // 4 for head in range(len(x) // 8) for r in range(8)]
            x = x[rows]
        arrays[name] = x.astype("f8")
    return tensors, arrays


def test_a_gguf_file_is_the_reference_with_its_rows_in_order(tmp_path):
    tensors, arrays = gguf_llama()
    assert {kind for kind, *_ in tensors.values()} == {"F32", "F16", "Q8_0", "Q4_0", "Q4_1"}
    path = tmp_path / "model.gguf"
    path.write_bytes(gguf(GGUF_SIZES, tensors))
    with jax.enable_x64(True):
        found = weights.load(path, dtype="float64")
        assert found.config.kv_heads == 2 and not found.config.tied
        wanted = llama_logits(arrays, TOKENS, heads=4, kv_heads=2, theta=500.0, epsilon=found.config.epsilon)
        # The file's scales times codes are float32 here and float64 in the reference.
        np.testing.assert_allclose(logits_of(found), wanted, rtol=1e-5, atol=1e-5)


def head(*counts):
    """The first bytes of a GGUF file: its counts of tensors and metadata, and perhaps the length of a name."""
    return b"GGUF" + struct.pack(f"<I{len(counts)}Q", 3, *counts)


BAD_GGUF = {
    "version": (lambda m, t: gguf(m, t, version=1), r"version 2 or 3, got version 1"),
    "cut head": (lambda m, t: gguf(m, t)[:300], r"damaged or cut short: .* are left"),
    "cut data": (lambda m, t: gguf(m, t)[:-1], r"must lie in the bytes \d+ to \d+, got"),
    "many tensors": (lambda m, t: head(1 << 40, 0), r"at most 100000 tensors, got 1099511627776"),
    "long text": (lambda m, t: head(0, 1, 1 << 62), r"has 4611686018427387904 bytes"),
    "long list": (lambda m, t: head(0, 1, 1) + b"a" + struct.pack("<IIQ", 9, 8, 1 << 50), r"a at byte .* are left"),
    "unknown type": (lambda m, t: head(0, 1, 1) + b"a" + struct.pack("<I", 77), r"a has the unknown type 77"),
    "rows": (
        lambda m, t: gguf(m, t | {"x": ("Q4_0", (32, 31), bytes(18))}),
        r"x of Q4_0 must have rows of a multiple of 32 numbers",
    ),
    "architecture": (lambda m, t: gguf(m | {"general.architecture": "qwen2"}, t), r"must be 'llama', got qwen2"),
    "no width": (
        lambda m, t: gguf(without(m, "llama.embedding_length"), t),
        r"llama.embedding_length must be a number",
    ),
    "shape": (
        lambda m, t: gguf(m | {"llama.feed_forward_length": 96}, t),
        r"blk.0.ffn_gate.weight must have the shape \[96, 32\], got",
    ),
    "frequencies": (
        lambda m, t: gguf(m, t | {"rope_freqs.weight": ("F32", (4,), bytes(16))}),
        r"holds the tensor rope_freqs.weight, which",
    ),
    "rotary part": (
        lambda m, t: gguf(m | {"llama.rope.dimension_count": 4}, t),
        r"only with llama.rope.dimension_count = 8, got 4",
    ),
    "infinite": (
        lambda m, t: gguf(m, swap(t, "output_norm.weight", raw=np.full(32, np.inf, "<f4").tobytes())),
        r"output_norm.weight must be finite",
    ),
}


@pytest.mark.parametrize("damage", BAD_GGUF)
def test_a_damaged_gguf_file_is_refused_by_name(tmp_path, damage):
    change, message = BAD_GGUF[damage]
    path = tmp_path / "model.gguf"
    path.write_bytes(change(GGUF_SIZES, gguf_llama()[0]))
    with pytest.raises(ValueError, match=message) as caught:
        weights.load(path)
    assert str(path) in str(caught.value)
