"""The task: one closed sentence as an answer. The score is a finite automaton, the environment is `make_text`."""

import numpy as np

from experiments.harness.runner import UsageError
from experiments.real_model.model import RealModel
from pgjax import automata, networks
from pgjax.environments.text import TextBuffer, make_text
from pgjax.types import Environment, Policy

BEFORE, INSIDE, CLOSED, RIGHT, WRONG = range(5)
_END = 0xFF  # UTF-8 never contains this byte


def one_sentence(token_bytes: tuple[bytes, ...], eos: int) -> automata.Automaton:
    """1 for an answer of one closed sentence, and 0 for every other.

    The answer must begin with a capital letter A–Z, contain exactly one of the marks . ! ? as its last byte, contain no
    line break, and end with EOS directly after the mark. So "3.5" counts as two sentences.
    """

    def read(state: int, byte: int) -> tuple[int, float]:
        if state == BEFORE:
            return (INSIDE if chr(byte).isascii() and chr(byte).isupper() else WRONG), 0.0
        if state == INSIDE and byte not in (_END, *b"\n\r"):
            return (CLOSED if byte in b".!?" else INSIDE), 0.0
        return (RIGHT if state == CLOSED and byte == _END else WRONG), 0.0

    of_bytes = automata.explore(BEFORE, read, lambda state: float(state == RIGHT), 256)
    return automata.over_tokens(of_bytes, token_bytes, special={eos: _END})


def make_environment(model: RealModel, prompts: list[str], max_new_tokens: int) -> Environment:
    """The environment in which the model answers one of the prompts.

    Raises:
        UsageError: a prompt and an answer are longer than the context of the model.
    """
    table, lengths = model.encoded(prompts)
    config, tokeniser = model.loaded.config, model.tokeniser
    longest = table.shape[1]
    if longest + max_new_tokens > config.context:
        raise UsageError(
            f"--max-new-tokens {max_new_tokens}: must be at most {config.context - longest}, because the model reads "
            f"{config.context} tokens and the longest prompt has {longest}"
        )
    return make_text(
        table,
        prompt_lengths=lengths,
        score=one_sentence(tokeniser.token_bytes, tokeniser.eos),
        max_new_tokens=max_new_tokens,
        vocabulary=config.vocabulary,
        eos=tokeniser.eos,
    )


def make_policy(model: RealModel, environment: Environment) -> Policy:
    """The language model as a policy that starts from the parameters of the file."""
    return networks.make_language_policy(environment, model.loaded.config, model.loaded.params, recompute=True)


def texts(model: RealModel, prompts: list[str], buffers: TextBuffer) -> list[tuple[str, str]]:
    """(prompt, answer) of each buffer; an answer that was cut at the limit ends with "…"."""
    asked = {tuple(row[:length].tolist()): prompt for row, length, prompt in zip(*model.encoded(prompts), prompts)}
    found = []
    for tokens, length, begins in zip(*(np.asarray(x) for x in buffers), strict=True):
        answer = tokens[begins:length]
        cut = "" if answer[-1] == model.tokeniser.eos else " …"
        found.append((asked[tuple(tokens[:begins].tolist())], model.tokeniser.decode(answer) + cut))
    return found
