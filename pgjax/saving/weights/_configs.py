"""The sizes of a language model from a config.json, as it stands beside a safetensors file, or from GGUF metadata."""

import json
import pathlib
from typing import Any

from pgjax import _json
from pgjax._checks import shown
from pgjax._gguf import Gguf
from pgjax._limits import read_whole
from pgjax.networks import GPT2Config, LlamaConfig
from pgjax.networks.language_models import Config

_MOST_BYTES = 1 << 20


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """The object of a config.json.

    Raises:
        ValueError: if it is larger than a megabyte or holds no JSON object.
    """
    return parsed(path, read_whole(path, _MOST_BYTES))


def parsed(path: pathlib.Path, text: bytes | str) -> dict[str, Any]:
    """The object that a text of JSON holds."""
    try:
        found = _json.loads(text)
    except _json.JsonError as error:
        raise ValueError(f"path {path} holds a configuration that is not JSON: {shown(str(error))}") from error
    if not isinstance(found, dict):
        raise ValueError(f"path {path} must hold a configuration that is an object, got {shown(found)}")
    return found


class _Given:
    """The values of a configuration, each required to have its type."""

    def __init__(self, path: pathlib.Path, values: dict[str, Any]) -> None:
        self.path, self.values = path, values

    def number(self, name: str, kind: type, default: Any = None) -> Any:
        value = self.values.get(name)
        if value is None and default is not None:
            return default
        if isinstance(value, bool) or not isinstance(value, (int, float) if kind is float else int):
            raise ValueError(f"path {self.path}: {name} must be a number of type {kind.__name__}, got {shown(value)}")
        return kind(value)

    def flag(self, name: str, default: bool) -> bool:
        value = self.values.get(name, default)
        if not isinstance(value, bool):
            raise ValueError(f"path {self.path}: {name} must be true or false, got {shown(value)}")
        return value

    def require(self, name: str, *allowed: Any) -> None:
        """Require a value that pgjax computes with; a missing one is the first."""
        value = self.values.get(name, allowed[0])
        if value not in allowed:
            known = " or ".join(json.dumps(value) for value in allowed)
            raise ValueError(f"path {self.path}: pgjax computes only with {name} = {known}, got {shown(value)}")


def _made(path: pathlib.Path, kind: type, **sizes: Any) -> Config:
    try:
        return kind(**sizes)
    except ValueError as error:
        raise ValueError(f"path {path} holds a configuration that does not fit: {error}") from error


def from_json(path: pathlib.Path, values: dict[str, Any], has_head: bool) -> Config:
    """The sizes from the keys of a config.json of `GPT2LMHeadModel` or `LlamaForCausalLM`.

    Args:
        path: the file, for errors.
        values: the object.
        has_head: whether the weights have a head, which decides for a configuration that does not tell.
    """
    given = _Given(path, values)
    match values.get("model_type"):
        case "gpt2":
            return _gpt2(given, has_head)
        case "llama":
            return _llama(given, has_head)
    raise ValueError(f"path {path}: model_type must be 'gpt2' or 'llama', got {shown(values.get('model_type'))}")


def _gpt2(given: _Given, has_head: bool) -> Config:
    given.require("activation_function", "gelu_new", "gelu_pytorch_tanh")
    given.require("scale_attn_weights", True)
    given.require("scale_attn_by_inverse_layer_idx", False)
    return _made(
        given.path,
        GPT2Config,
        vocabulary=given.number("vocab_size", int),
        width=given.number("n_embd", int),
        layers=given.number("n_layer", int),
        heads=given.number("n_head", int),
        context=given.number("n_positions", int),
        inner=given.number("n_inner", int, 4 * given.number("n_embd", int)),
        epsilon=given.number("layer_norm_epsilon", float, 1e-5),
        tied=given.flag("tie_word_embeddings", not has_head),
    )


def _llama(given: _Given, has_head: bool) -> Config:
    given.require("hidden_act", "silu")
    given.require("rope_scaling", None)
    for name in ("attention_bias", "mlp_bias"):
        given.require(name, False)
    rope = given.values.get("rope_parameters") or {}
    rope = _Given(given.path, rope if isinstance(rope, dict) else {"rope_type": rope})
    rope.require("rope_type", "default")
    heads, width = given.number("num_attention_heads", int), given.number("hidden_size", int)
    if heads > 0:
        given.require("head_dim", None, width // heads)
    return _made(
        given.path,
        LlamaConfig,
        vocabulary=given.number("vocab_size", int),
        width=width,
        layers=given.number("num_hidden_layers", int),
        heads=heads,
        kv_heads=given.number("num_key_value_heads", int, heads),
        inner=given.number("intermediate_size", int),
        context=given.number("max_position_embeddings", int),
        rope_theta=rope.number("rope_theta", float, given.number("rope_theta", float, 10_000.0)),
        epsilon=given.number("rms_norm_eps", float, 1e-6),
        tied=given.flag("tie_word_embeddings", not has_head),
    )


def to_json(config: Config) -> dict[str, Any]:
    """The configuration under the names of a config.json, which `from_json` reads."""
    if isinstance(config, GPT2Config):
        return {
            "model_type": "gpt2",
            "architectures": ["GPT2LMHeadModel"],
            "activation_function": "gelu_new",
            "vocab_size": config.vocabulary,
            "n_embd": config.width,
            "n_layer": config.layers,
            "n_head": config.heads,
            "n_positions": config.context,
            "n_inner": config.inner,
            "layer_norm_epsilon": config.epsilon,
            "tie_word_embeddings": config.tied,
        }
    return {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_act": "silu",
        "vocab_size": config.vocabulary,
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "num_key_value_heads": config.kv_heads,
        "intermediate_size": config.inner,
        "max_position_embeddings": config.context,
        "rope_theta": config.rope_theta,
        "rms_norm_eps": config.epsilon,
        "tie_word_embeddings": config.tied,
    }


def from_gguf(gguf: Gguf) -> Config:
    """The sizes from the metadata of a GGUF file of the architecture "llama".

    Raises:
        ValueError: for another architecture, missing metadata, or a variant that pgjax does not compute.
    """
    architecture = gguf.require("general.architecture", str)
    if architecture != "llama":
        raise ValueError(f"path {gguf.path}: general.architecture must be 'llama', got {shown(architecture)}")
    given = _Given(gguf.path, gguf.metadata)
    heads, width = given.number("llama.attention.head_count", int), given.number("llama.embedding_length", int)
    given.require("llama.rope.scaling.type", "none")
    given.require("llama.expert_count", 0)
    if heads > 0:
        for name in ("llama.rope.dimension_count", "llama.attention.key_length", "llama.attention.value_length"):
            given.require(name, width // heads)
    if "token_embd.weight" not in gguf.tensors:
        raise ValueError(f"path {gguf.path} must hold the tensor 'token_embd.weight'")
    return _made(
        gguf.path,
        LlamaConfig,
        vocabulary=gguf.tensors["token_embd.weight"].shape[0],
        width=width,
        layers=given.number("llama.block_count", int),
        heads=heads,
        kv_heads=given.number("llama.attention.head_count_kv", int, heads),
        inner=given.number("llama.feed_forward_length", int),
        context=given.number("llama.context_length", int),
        rope_theta=given.number("llama.rope.freq_base", float, 10_000.0),
        epsilon=given.number("llama.attention.layer_norm_rms_epsilon", float),
        tied="output.weight" not in gguf.tensors,
    )
