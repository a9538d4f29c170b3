"""Small language models of bytes in experiments: their text, their fit, bits per byte, samples, and files."""

import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from optax.contrib import MuonDimensionNumbers, muon

from pgjax import automata, imitation, networks, rollouts, saving, tokens, training
from pgjax.datasets import text
from pgjax.datasets.text import Document, Split, Windows
from pgjax.environments.text import make_text
from pgjax.saving import policies
from pgjax.types import Environment, Policy, PyTree

BYTES = tokens.bytes_()
# A policy may write every byte that UTF-8 has, and EOS; it never writes BOS or PAD.
ALLOWED = np.array([token < 0xF8 or token == BYTES.eos for token in range(256)])


def load_split(files: Sequence[pathlib.Path], corpus: text.CorpusWord, *, as_sentences: bool = False) -> Split:
    """The documents of the files, or of the corpus if there are none, split by document.

    Args:
        as_sentences: whether each sentence of a document becomes a document of its own, after the split.

    Raises:
        ValueError: as `read_documents`, `load_corpus` and `split_documents`, or if a part has no sentence. The error of
            a file names the option --text.
    """
    try:
        documents = text.read_documents(files) if files else text.load_corpus(corpus)
    except ValueError as error:
        raise ValueError(f"{'--text' if files else '--corpus'}: {error}") from error
    split = text.split_documents(documents)
    if not as_sentences:
        return split
    split = Split(*map(text.sentences, split))
    for part, documents in zip(Split._fields, split):
        if not documents:
            raise ValueError(f"the text must have sentences of 20 to 160 bytes in each part, got none in {part}")
    return split


def small_model(width: int, layers: int, context: int) -> networks.LlamaConfig:
    """A Llama of bytes, with one head for every 32 units and inner layers of about 8/3 the width."""
    return networks.LlamaConfig(
        vocabulary=BYTES.vocabulary,
        width=width,
        layers=layers,
        heads=width // 32,
        inner=8 * width // 3 // 8 * 8,
        context=context,
    )


def make_reader(context: int) -> Environment:
    """The text environment whose buffer has `context` places: one prompt of BOS, then any text. Its score is 0."""
    nothing = automata.make_automaton(np.zeros((1, BYTES.vocabulary), int))
    how = {"vocabulary": BYTES.vocabulary, "eos": BYTES.eos, "allowed": ALLOWED}
    return make_text([[BYTES.bos]], score=nothing, max_new_tokens=context - 1, **how)


def as_data(windows: Windows) -> dict[str, np.ndarray]:
    return {"tokens": windows.tokens, "counted": windows.counted}


class Pretrained(NamedTuple):
    """A language model that was fitted to text.

    Attributes:
        params: θ with the lowest loss on valid.
        tokens_seen: the number of tokens that were trained on up to each evaluation `[E]`.
        train, valid: bits per token at each evaluation `[E]`; the first is the mean over the steps since the last one.
    """

    params: PyTree
    tokens_seen: np.ndarray
    train: np.ndarray
    valid: np.ndarray


def make_optimizer(learning_rate: float, num_updates: int, *, weight_decay: float, muon_rate: float) -> Any:
    """Muon for the matrices of the blocks and AdamW for the rest, both warmed up over 5 % of the steps, then a cosine.

    Source: Jordan et al. 2024 (Muon); Loshchilov & Hutter 2019 (AdamW).
    """
    schedule = lambda peak: optax.warmup_cosine_decay_schedule(
        0.0, peak, max(1, num_updates // 20), max(2, num_updates), 0.02 * peak
    )
    if muon_rate == 0:
        optimizer = optax.adamw(schedule(learning_rate), b2=0.98, weight_decay=weight_decay)
    else:
        optimizer = muon(
            schedule(muon_rate),
            weight_decay=weight_decay,
            adam_b2=0.98,
            adam_weight_decay=weight_decay,
            adam_learning_rate=schedule(learning_rate),
            muon_weight_dimension_numbers=_matrices_of_blocks,
        )
    return optax.chain(optax.clip_by_global_norm(1.0), optimizer)


def _matrices_of_blocks(params: PyTree) -> PyTree:
    """The stacked kernels `[K, in, out]` of all blocks are matrices for Muon; everything else is for Adam."""
    matrix = MuonDimensionNumbers(reduction_axis=1, output_axis=2)
    return jax.tree.map_with_path(lambda path, x: matrix if x.ndim == 3 else None, params)


def pretrain(
    key: jax.Array,
    policy: Policy,
    params: PyTree,
    split: Split,
    *,
    context: int,
    num_updates: int,
    batch_size: int,
    learning_rate: float,
    muon_rate: float,
    weight_decay: float,
    evaluations: int,
    on_evaluation: Callable[[int, dict[str, float]], None],
) -> Pretrained:
    """Fit a policy to the text by next-token likelihood, and keep the θ that is best on valid.

    Windows overlap by half in training, so that a token is met in two places. The number of updates is rounded to whole
    epochs. `on_evaluation` gets the number of tokens since the last call and the losses in bits per token.
    """
    half = max(1, context // 2)
    train = text.make_windows(split.train, BYTES, context, stride=half)
    valid = held_out_windows(split.valid, context)
    per_epoch = -(-len(train.tokens) // batch_size)
    num_epochs = max(1, round(num_updates / per_epoch))
    parts = min(per_epoch, max(1, round(evaluations / num_epochs)))
    per_part = float(train.weights.sum()) / parts
    data = jax.tree.map(lambda *x: np.concatenate(x), as_data(train), as_data(valid))
    in_bits = lambda losses: {name: value / math.log(2) for name, value in losses.items()}
    found = training.fit(
        key,
        params,
        imitation.next_token_loss(policy),
        data,
        make_optimizer(learning_rate, num_epochs * per_epoch, weight_decay=weight_decay, muon_rate=muon_rate),
        num_epochs=num_epochs,
        batch_size=batch_size,
        weights=np.concatenate([train.weights, valid.weights]),
        held_out=np.arange(len(data["tokens"])) >= len(train.tokens),
        evaluations_per_epoch=parts,
        on_evaluation=lambda done, losses, params: on_evaluation(round(per_part), in_bits(losses)),
    )
    losses = in_bits({name: np.asarray(values) for name, values in found.metrics.items()})
    return Pretrained(
        params=found.params,
        tokens_seen=per_part * np.arange(1, parts * num_epochs + 1),
        train=losses["train_loss"],
        valid=losses["validation_loss"],
    )


def held_out_windows(documents: Sequence[Document], context: int) -> Windows:
    """Windows in which every byte has at least half a buffer of context, or all of the document before it."""
    return text.make_windows(documents, BYTES, context, stride=max(1, context // 2), count_once=True)


def count_bits(policy: Policy, params: PyTree, data: PyTree) -> jax.Array:
    """−Σ log₂ f of all counted tokens of windows, `[]`."""

    def of_window(row: PyTree) -> jax.Array:
        log_probs = imitation.token_log_probs(policy, params, row["tokens"][None])[0]
        return -jnp.sum(jnp.where(row["counted"], log_probs, 0.0)) / math.log(2)

    return jnp.sum(jax.lax.map(of_window, data, batch_size=16))


def bits_per_byte(policy: Policy, params: PyTree, documents: Sequence[Document], context: int) -> float:
    """The bits that the policy needs for the documents with their ends (EOS), over their bytes."""
    data = jax.tree.map(jnp.asarray, as_data(held_out_windows(documents, context)))
    bits = jax.jit(functools.partial(count_bits, policy))(params, data)
    return float(bits) / text.num_bytes(documents)


class Prompts(NamedTuple):
    """Beginnings of documents: `tokens` uint8 `[N, P]` with BOS first, and `lengths` int32 `[N]`."""

    tokens: np.ndarray
    lengths: np.ndarray


def make_prompts(
    documents: Sequence[Document], num_bytes: int, count: int | None = None, *, whole_words: bool = False
) -> Prompts:
    """BOS and the beginnings of documents that have more than `num_bytes` bytes; equal beginnings are taken once.

    Args:
        num_bytes: the largest number of bytes of a beginning, so P = `num_bytes` + 1. Characters stay whole.
        count: the largest number of prompts; all if None.
        whole_words: whether a beginning ends with its last space, so that the answer begins with a new word.

    Raises:
        ValueError: if no document is long enough.
    """
    begun = {}
    for document in documents:
        raw = document.text.encode()
        start = raw[:num_bytes].decode(errors="ignore")
        start = start[: start.rfind(" ") + 1] if whole_words else start
        if len(raw) > num_bytes and start:
            begun[start] = None
    if not begun:
        raise ValueError(f"the text must have documents of more than {num_bytes} bytes for prompts, got none")
    rows = [np.append([BYTES.bos], BYTES.encode(start)) for start in list(begun)[:count]]
    prompts = np.zeros((len(rows), num_bytes + 1), np.uint8)
    for row, tokens_of_row in zip(prompts, rows):
        row[: len(tokens_of_row)] = tokens_of_row
    return Prompts(tokens=prompts, lengths=np.array([len(row) for row in rows], np.int32))


def make_writer(prompts: Prompts, max_new_tokens: int, score: Any = None, score_params: PyTree = ()) -> Environment:
    """The text environment of answers to prompts; its score is 0 if none is given."""
    score = automata.make_automaton(np.zeros((1, BYTES.vocabulary), int)) if score is None else score
    how = {"vocabulary": BYTES.vocabulary, "eos": BYTES.eos, "allowed": ALLOWED, "max_new_tokens": max_new_tokens}
    return make_text(prompts.tokens, prompt_lengths=prompts.lengths, score=score, score_params=score_params, **how)


def write_answers(
    key: jax.Array, model: networks.LlamaConfig, params: PyTree, prompts: Prompts, max_new_tokens: int
) -> list[tuple[str, str]]:
    """Each prompt with one answer, drawn by `rollouts.episodes` from the language model as a policy."""
    environment = make_writer(prompts, max_new_tokens)
    policy = networks.make_language_policy(environment, model)

    def write(key: jax.Array, prompt: jax.Array, length: jax.Array) -> tuple[jax.Array, jax.Array]:
        one = environment.params._replace(prompts=prompt[None], prompt_lengths=length[None])
        played = rollouts.episodes(environment, policy, params, key[None], env_params=one)
        return played.actions[:, 0], jnp.sum(played.alive[:, 0])

    keys = jax.random.split(key, len(prompts.tokens))
    actions, lengths = jax.jit(jax.vmap(write))(keys, jnp.asarray(prompts.tokens), jnp.asarray(prompts.lengths))
    return [
        (BYTES.decode(prompt[:length]), BYTES.decode(np.asarray(answer)[: int(size)]))
        for prompt, length, answer, size in zip(prompts.tokens, prompts.lengths, actions, lengths)
    ]


def save_language_model(path: pathlib.Path, params: PyTree, config: networks.LlamaConfig) -> None:
    """Write θ as a policy file, which `load_language_model` and `saving.load_policy` read."""
    saving.save_policy(path, params, environment=make_reader(config.context), **networks.network_arguments(config))


def load_language_model(path: pathlib.Path) -> tuple[networks.LlamaConfig, PyTree]:
    """The sizes and θ of a byte model that `python -m experiments.pretraining` saved.

    Raises:
        ValueError: if the file is missing or damaged, or holds another kind of policy.
    """
    path = pathlib.Path(path)
    path = path / policies.FILE_NAME if path.is_dir() else path
    header = saving.read(path).metadata
    arguments = header.get("arguments")
    if not isinstance(arguments, dict) or arguments.get("network") != "llama":
        raise ValueError(f"{path} must hold a policy of python -m experiments.pretraining, got another one")
    options = dict(arguments["network_options"])
    options.pop("recompute", None)
    hidden = arguments["hidden"]
    config = networks.LlamaConfig(vocabulary=BYTES.vocabulary, width=hidden[0], layers=len(hidden), **options)
    _, _, params = saving.load_policy(path, make_reader(config.context))
    return config, params
