"""Language models from files: their logits are those of a NumPy reference, and what is damaged is refused by name."""

import json
import struct

import jax
import numpy as np
import pytest
from language_files import (
    GPT2,
    LLAMA,
    TOKENS,
    gpt2_weights,
    llama_weights,
    logits_of,
    saved,
    stored,
    swap,
    without,
    written,
)
from language_references import gpt2_logits, llama_logits

from pgjax.networks import make_language_model
from pgjax.saving import weights


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


@pytest.mark.parametrize("old", [b"pgjax_sha256", b"pgjax_config"])
def test_a_digest_or_sizes_under_a_damaged_name_are_missed(tmp_path, old):
    params = make_language_model(GPT2).init(jax.random.key(0))
    path = tmp_path / "model.safetensors"
    weights.save(path, GPT2, params)
    content = path.read_bytes()
    assert content.count(old) == 1
    path.write_bytes(content.replace(old, old.replace(b"_", b"[")))
    with pytest.raises(ValueError, match="is damaged: its digest does not match what it holds"):
        weights.load(path)
