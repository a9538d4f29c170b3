"""Small language models as the bytes of files, for tests of what reads them."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.networks import GPT2Config, LlamaConfig, make_language_model

GPT2 = GPT2Config(vocabulary=11, width=8, layers=2, heads=2, context=9, inner=12)
LLAMA = LlamaConfig(
    vocabulary=32,
    width=32,
    layers=2,
    heads=4,
    kv_heads=2,
    inner=64,
    context=64,
    rope_theta=500.0,
    epsilon=1e-6,
    tied=False,
)
TOKENS = np.asarray([3, 1, 4, 1, 5, 9])
ITEM = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}


def saved(tensors, metadata=None):
    """A file of `tensors`, name → (kind, shape, bytes)."""
    head, at = {} if metadata is None else {"__metadata__": metadata}, 0
    for name, (kind, shape, raw) in tensors.items():
        head[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [at, at + len(raw)]}
        at += len(raw)
    head = json.dumps(head).encode()
    return struct.pack("<Q", len(head)) + head + b"".join(raw for *_, raw in tensors.values())


def stored(arrays, kind="F64"):
    """Name → (kind, shape, bytes) of arrays; BF16 is the upper half of float32."""
    if kind == "BF16":
        cut = lambda x: (np.asarray(x, "<f4").view("<u4") >> 16).astype("<u2")
        return {name: (kind, x.shape, cut(x).tobytes()) for name, x in arrays.items()}
    return {name: (kind, x.shape, np.asarray(x, ITEM[kind]).tobytes()) for name, x in arrays.items()}


def drawn(shapes):
    draw = np.random.default_rng(0).standard_normal
    return {name: 0.3 * draw(shape) + (0.5 if len(shape) == 1 else 0.0) for name, shape in shapes.items()}


def gpt2_weights():
    w, shapes = 8, {"wte.weight": (11, 8), "wpe.weight": (9, 8), "ln_f.weight": (8,), "ln_f.bias": (8,)}
    parts = {"attn.c_attn": (w, 24), "attn.c_proj": (w, w), "mlp.c_fc": (w, 12), "mlp.c_proj": (12, w)}
    for i in range(2):
        for name, (inputs, outputs) in parts.items():
            shapes |= {f"h.{i}.{name}.weight": (inputs, outputs), f"h.{i}.{name}.bias": (outputs,)}
        shapes |= {f"h.{i}.{name}.{x}": (w,) for name in ("ln_1", "ln_2") for x in ("weight", "bias")}
    return drawn(shapes)


def llama_weights():
    w, shapes = 32, dict.fromkeys(("model.embed_tokens.weight", "lm_head.weight"), (32, 32))
    attention = {"q_proj": (w, w), "k_proj": (16, w), "v_proj": (16, w), "o_proj": (w, w)}
    mlp = {"gate_proj": (64, w), "up_proj": (64, w), "down_proj": (w, 64)}
    for i in range(2):
        block = f"model.layers.{i}."
        shapes |= {f"{block}self_attn.{name}.weight": shape for name, shape in attention.items()}
        shapes |= {f"{block}mlp.{name}.weight": shape for name, shape in mlp.items()}
        shapes |= {f"{block}{name}.weight": (w,) for name in ("input_layernorm", "post_attention_layernorm")}
    return drawn(shapes | {"model.norm.weight": (w,)})


def logits_of(found):
    return jax.jit(make_language_model(found.config).logits)(found.params, jnp.asarray(TOKENS)[None])[0]


def written(tmp_path, content, config=None):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    if config is not None:
        (tmp_path / "config.json").write_text(json.dumps(config))
    return path


def swap(files, name, kind=None, shape=None, raw=None):
    old = files[name]
    return files | {name: (kind or old[0], old[1] if shape is None else shape, old[2] if raw is None else raw)}


def without(files, name):
    return {key: x for key, x in files.items() if key != name}
