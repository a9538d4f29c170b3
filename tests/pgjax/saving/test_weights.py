"""Language models from files: their logits are those of a NumPy reference, and what is damaged is refused by name."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gguf_files import gguf_bytes as gguf
from gguf_files import quantised
from language_references import gpt2_logits, llama_logits

from pgjax.networks import GPT2Config, LlamaConfig, make_language_model
from pgjax.saving import weights

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


def test_gpt2_of_a_file_is_the_reference(tmp_path):
    arrays = gpt2_weights()
    masks = {f"h.{i}.attn.bias": ("BOOL", (1, 1, 2, 2), bytes(4)) for i in range(2)}
    files = stored(arrays) | masks | {"h.0.attn.masked_bias": ("F32", (), bytes(4))}
    files = {f"transformer.{name}": x for name, x in files.items()}
    path = written(tmp_path, saved(files), weights.config_json(GPT2))
    with jax.enable_x64(True):
        found = weights.load(path, dtype="float64")
        assert found.config == GPT2
        np.testing.assert_allclose(logits_of(found), gpt2_logits(arrays, TOKENS, heads=2), atol=1e-12)


@pytest.mark.parametrize("head", ["own", "equal"])
def test_llama_of_a_file_is_the_reference(tmp_path, head):
    arrays = llama_weights()
    config = weights.config_json(LLAMA) | {"tie_word_embeddings": head != "own"}
    if head == "equal":
        arrays["lm_head.weight"] = arrays["model.embed_tokens.weight"]
    frequencies = {"model.layers.0.self_attn.rotary_emb.inv_freq": ("F32", (4,), bytes(16))}
    path = written(tmp_path, saved(stored(arrays) | frequencies), config)
    with jax.enable_x64(True):
        found = weights.load(path, dtype="float64")
        assert ("head" in found.params) is (head == "own")
        if head == "own":
            wanted = llama_logits(arrays, TOKENS, heads=4, kv_heads=2, theta=500.0, epsilon=1e-6)
            np.testing.assert_allclose(logits_of(found), wanted, atol=1e-12)


@pytest.mark.parametrize("kind", ["F16", "BF16"])
def test_short_floats_are_read_exactly(tmp_path, kind):
    arrays = gpt2_weights()
    found = weights.load(written(tmp_path, saved(stored(arrays, kind))), config=GPT2)
    table = arrays["wte.weight"]
    wanted = table.astype("f2") if kind == "F16" else (table.astype("<f4").view("u4") & 0xFFFF0000).view("f4")
    np.testing.assert_array_equal(found.params["tokens"], wanted.astype("f4"))


@pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
def test_what_is_saved_is_loaded_and_has_the_names_of_the_layout(tmp_path, config):
    shapes = jax.eval_shape(make_language_model(config).init, jax.random.key(0))
    params = jax.tree.map(lambda x: np.random.default_rng(x.size).standard_normal(x.shape).astype("f4"), shapes)
    path = tmp_path / "model.safetensors"
    weights.save(path, config, params)
    found = weights.load(path)
    assert found.config == config
    jax.tree.map(np.testing.assert_array_equal, found.params, params)
    from safetensors.numpy import load_file

    arrays = load_file(path)
    assert set(arrays) == set(gpt2_weights() if config is GPT2 else llama_weights())
    name = "h.1.mlp.c_fc.weight" if config is GPT2 else "model.layers.1.mlp.up_proj.weight"
    kernel = params["layers"]["up"]["kernel"][1]
    np.testing.assert_array_equal(arrays[name], kernel if config is GPT2 else kernel.T)
    with pytest.raises(ValueError, match="params holds another structure"):
        weights.save(path, config, {"tokens": params["tokens"]})


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


def swap(files, name, kind=None, shape=None, raw=None):
    old = files[name]
    return files | {name: (kind or old[0], old[1] if shape is None else shape, old[2] if raw is None else raw)}


def without(files, name):
    return {key: x for key, x in files.items() if key != name}


def patched(old, new):
    """The file with the text `old` of its head replaced by `new` of the same length."""

    def change(files):
        content = saved(files)
        assert content.count(old) and len(old) == len(new)
        return content.replace(old, new, 1)

    return change


NAN = np.full((8,), np.nan, "<f8").tobytes()
FC, WTE = "h.1.mlp.c_fc.weight", "wte.weight"
DAMAGED = {
    "empty": (lambda f: b"", r"model.safetensors is damaged, cut short or no safetensors file: its head must have"),
    "long head": (
        lambda f: struct.pack("<Q", 1 << 60) + b"{}",
        r"must have 2 to 2 bytes, got 11529215046068469",
    ),
    "no JSON": (lambda f: struct.pack("<Q", 4) + b"{{{{", r"its head is no readable JSON"),
    "a list": (lambda f: struct.pack("<Q", 2) + b"[]", r"its head must be an object, got \[\]"),
    "deep": (lambda f: struct.pack("<Q", 200_000) + b"[" * 200_000, r"its head is no readable JSON"),
    "cut short": (
        lambda f: saved(f)[:-8],
        r"cut short: .* must lie in the bytes",
    ),
    "overlap": (
        patched(b"[704, 1280]", b"[696, 1272]"),
        r"wpe.weight must begin behind wte.weight",
    ),
    "wrong size": (
        patched(b'"shape": [11, 8]', b'"shape": [11, 9]'),
        r"wte.weight of F64\[11, 9\] must have 792 bytes, got",
    ),
    "negative": (
        patched(b'"shape": [11, 8]', b'"shape": [-1, 8]'),
        r"wte.weight must have dtype, shape and two data_offsets",
    ),
    "unknown type": (patched(b'"F64"', b'"F63"'), r"must have a type among .* got F63"),
    "other layout": (lambda f: saved(without(f, WTE)), r"must have the layout of GPT-2 .* or of Llama"),
    "lacks one": (lambda f: saved(without(f, FC)), rf"lacks the tensor {FC} of the layout of GPT-2"),
    "one too many": (
        lambda f: saved(f | {"h.2.ln_1.bias": f["ln_f.bias"]}),
        r"holds the tensor h.2.ln_1.bias, which",
    ),
    "transposed": (
        lambda f: saved(swap(f, FC, shape=(12, 8))),
        rf"{FC} must have the shape \[8, 12\], got F64\[12, 8\]",
    ),
    "integers": (lambda f: saved(swap(f, FC, kind="I64")), rf"{FC} must be of a kind among .*, got I64"),
    "NaN": (
        lambda f: saved(swap(f, "ln_f.bias", raw=NAN)),
        r"ln_f.bias must be finite in float32, got 8 NaN or infinite of 8",
    ),
    "too large": (
        lambda f: saved(swap(f, "ln_f.bias", raw=np.full(8, 1e300).tobytes())),
        r"must be finite in float32",
    ),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    change, message = DAMAGED[damage]
    path = written(tmp_path, change(stored(gpt2_weights())), weights.config_json(GPT2))
    with pytest.raises(ValueError, match=message) as caught:
        weights.load(path)
    assert str(path) in str(caught.value)


CONFIGS = {
    "no JSON": ("{", r"config.json holds a configuration that is not JSON"),
    "other model": ({"model_type": "mamba"}, r"model_type must be 'gpt2' or 'llama', got mamba"),
    "no width": ({"n_embd": None}, r"n_embd must be a number of type int, got None"),
    "text": ({"n_layer": "2"}, r"n_layer must be a number of type int, got 2"),
    "heads": ({"n_head": 3}, r"holds a configuration that does not fit: heads must divide the width 8, got 3"),
    "activation": (
        {"activation_function": "relu"},
        r"computes only with activation_function = \"gelu_new\" or .*, got relu",
    ),
    "many blocks": ({"n_layer": 10**9}, r"must have at most 1000 blocks, got 1000000000"),
    "vocabulary": ({"vocab_size": 12}, r"wte.weight must have the shape \[12, 8\], got F64\[11, 8\]"),
    "untied": ({"tie_word_embeddings": False}, r"lacks the tensor lm_head.weight"),
    "llama": (weights.config_json(LLAMA), r"has the layout of GPT-2, but the sizes are a LlamaConfig"),
}


@pytest.mark.parametrize("case", CONFIGS)
def test_a_configuration_that_does_not_fit_is_refused_by_name(tmp_path, case):
    change, message = CONFIGS[case]
    path = written(tmp_path, saved(stored(gpt2_weights())))
    text = change if isinstance(change, str) else json.dumps(weights.config_json(GPT2) | change)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        weights.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rope_scaling": {"rope_type": "llama3"}}, r"computes only with rope_scaling = null, got"),
        ({"attention_bias": True}, r"computes only with attention_bias = false, got True"),
        ({"head_dim": 16}, r"computes only with head_dim = null or 8, got 16"),
        ({"tie_word_embeddings": True}, r"lm_head.weight must equal model.embed_tokens.weight"),
    ],
)
def test_a_variant_of_llama_is_refused_by_name(tmp_path, change, message):
    path = written(tmp_path, saved(stored(llama_weights())), weights.config_json(LLAMA) | change)
    with pytest.raises(ValueError, match=message):
        weights.load(path)


def test_a_file_without_sizes_asks_for_them(tmp_path):
    path = written(tmp_path, saved(stored(gpt2_weights())))
    with pytest.raises(ValueError, match=r"needs the sizes of its model: put its config.json beside it"):
        weights.load(path)
    with pytest.raises(ValueError, match="is not a file"):
        weights.load(tmp_path / "nothing.gguf")
    with pytest.raises(ValueError, match=r"dtype must be a float type that JAX has turned on, got float64"):
        weights.load(path, dtype="float64")


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
