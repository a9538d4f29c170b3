"""Phrases of letters: the reference that writes them, their gold score, and the features of a reward model.

Axes: F features, T places, V symbols.
"""

import collections
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import automata, exact
from pgjax.datasets import text
from pgjax.environments.text import TextBuffer, answer, make_text
from pgjax.types import Environment

LETTERS = "abcdefghijklmnopqrstuvwxyz"
SPACE, EOS, VOCABULARY = 26, 27, 28
PROMPT = np.full(1, SPACE, np.uint8)  # a text buffer has a prompt; this one says nothing
WORDS_OF_A_PHRASE, SHORTEST_WORD = 3, 3
FEATURES = ("wanted words", "other words", "finished", "characters")
GOLD = np.array([1.0, -0.5, 1.0, 0.0])
"""The gold score is the sum of the features with these weights."""
LENGTH = FEATURES.index("characters")


class Task(NamedTuple):
    """The reference and the features.

    Attributes:
        reference: π_ref, a bigram model of phrases, as a task whose score is gold.
        features: F automata with the same states, one for each of `FEATURES`.
        reading: int `[S]`, the number of what has been read of the present word, in each state of the automata.
        words: the dictionary.
        num_phrases: the number of phrases that the reference was fitted to.
    """

    reference: exact.MarkovTask
    features: tuple[automata.Automaton, ...]
    reading: np.ndarray
    words: tuple[str, ...]
    num_phrases: int


def encode(phrase: str) -> list[int]:
    return [SPACE if character == " " else LETTERS.index(character) for character in phrase]


def decode(tokens: Iterable[int]) -> str:
    """The text of an answer; `.` stands for EOS."""
    return "".join((LETTERS + " .")[token] for token in tokens)


def starts_of(words: Iterable[str]) -> dict[str | None, int]:
    """All beginnings of dictionary words, and None for the beginning of any other word, each with a number."""
    starts = sorted({word[:size] for word in words for size in range(len(word) + 1)})
    return {start: number for number, start in enumerate([*starts, None])}


def reading(words: Iterable[str]) -> automata.Automaton:
    """An automaton whose final score is the number of what has been read of the present word; see `starts_of`."""
    starts = starts_of(words)

    def step(read: str | None, token: int) -> tuple[str | None, float]:
        longer = None if read is None or token >= SPACE else read + LETTERS[token]
        return ("" if token >= SPACE else longer if longer in starts else None), 0.0

    return automata.explore("", step, lambda read: float(starts[read]), VOCABULARY)


def word_features(words: Iterable[str]) -> tuple[automata.Automaton, automata.Automaton]:
    """The number of wanted words and the number of all other words, as automata.

    The first three words that stand in the dictionary are wanted. The state is (what has been read of the word, wanted
    words so far); None stands for the beginning of a word that is in no dictionary.
    """
    known, starts = frozenset(words), starts_of(words)

    def ended(read: str | None, count: int) -> tuple[float, float]:
        """What the end of a word adds to both features."""
        wanted = read in known and count < WORDS_OF_A_PHRASE
        return float(wanted), float(read != "" and not wanted)

    def automaton(feature: int) -> automata.Automaton:
        def step(state: tuple[str | None, int], token: int) -> tuple[tuple[str | None, int], float]:
            read, count = state
            if token < SPACE:
                longer = None if read is None else read + LETTERS[token]
                return (longer if longer in starts else None, count), 0.0
            paid = ended(read, count)
            return ("", count + int(paid[0])), paid[feature]

        return automata.explore(("", 0), step, lambda state: ended(*state)[feature], VOCABULARY)

    return automaton(0), automaton(1)


def make_task(max_new_tokens: int, dictionary: int) -> Task:
    """The task with the `dictionary` most common words of at least three letters.

    The phrases are three words in a row from the help topics of Python, in small letters.
    """
    sentences = text.sentences(text.topics())
    words = [re.findall("[a-z]+", sentence.text.lower()) for sentence in sentences]
    phrases = [
        " ".join(sentence[place : place + WORDS_OF_A_PHRASE])
        for sentence in words
        for place in range(0, len(sentence) - WORDS_OF_A_PHRASE + 1, WORDS_OF_A_PHRASE)
    ]
    counts = collections.Counter(word for sentence in words for word in sentence if len(word) >= SHORTEST_WORD)
    common = tuple(word for word, _ in counts.most_common(dictionary))
    finished = automata.count([EOS], VOCABULARY)
    characters = automata.count(range(EOS), VOCABULARY)
    *features, read = automata.aligned(*word_features(common), finished, characters, reading(common))
    reference = exact.fit_markov_model(map(encode, phrases), VOCABULARY, order=1, eos=EOS)
    score = weighted(tuple(features), GOLD)
    task = exact.make_markov_task(reference, score, max_new_tokens=max_new_tokens, eos=EOS)
    return Task(
        reference=task,
        features=tuple(features),
        reading=np.asarray(read.final, int),
        words=common,
        num_phrases=len(phrases),
    )


def weighted(features: tuple[automata.Automaton, ...], weights: jax.Array, bias: jax.Array | float = 0.0):
    """The automaton of Σ_i w_i feature_i + b; the weights may be traced."""
    add = lambda leaves: sum(weights[place] * jnp.asarray(leaf, float) for place, leaf in enumerate(leaves))
    first = features[0]
    return automata.Automaton(
        start=jnp.asarray(first.start),
        next=jnp.asarray(first.next),
        rewards=add([one.rewards for one in features]),
        final=add([one.final for one in features]) + bias,
    )


def features_of(task: Task) -> Callable[[TextBuffer], jax.Array]:
    """The features `[F]` of a text buffer."""
    tables = tuple(jax.tree.map(jnp.asarray, automaton) for automaton in task.features)
    return lambda obs: jnp.stack([automata.score(automaton, *answer(obs)) for automaton in tables]).astype(float)


def environment_of(task: Task) -> Environment:
    length = task.reference.max_new_tokens
    gold = jax.tree.map(np.asarray, task.reference.score)
    return make_text(PROMPT[None], score=gold, max_new_tokens=length, vocabulary=VOCABULARY, eos=EOS)


def buffers_of(drawn: exact.SampledAnswers) -> TextBuffer:
    """Sampled answers as text buffers, leaves `[B, ...]`."""
    tokens = jnp.pad(drawn.tokens, ((0, 0), (1, 0)), constant_values=SPACE).astype(jnp.uint8)
    ones = jnp.ones_like(drawn.lengths)
    return TextBuffer(tokens=tokens, length=drawn.lengths + 1, prompt_length=ones)


class Quality(NamedTuple):
    """Exact values of a policy; all `[]`.

    Attributes:
        length: the expected number of characters, EOS not counted.
        gold: E[gold].
        proxy: E[r̂].
        bits: bits per symbol under the reference, −E[log₂ π_ref(answer)] / E[symbols]; a symbol is one byte of text,
            and EOS is a symbol.
        kl: KL(π ‖ π_ref) in nats.
        entropy: H(π) in nats.
    """

    length: jax.Array
    gold: jax.Array
    proxy: jax.Array
    bits: jax.Array
    kl: jax.Array
    entropy: jax.Array


def quality(gold: exact.MarkovTask, policy: exact.SoftOptimum | jax.Array, proxy: jax.typing.ArrayLike) -> Quality:
    """The exact values of a policy of the state space by a dynamic program; `proxy` is its E[r̂]."""
    values = exact.table_policy_values(gold, policy)
    return Quality(
        length=values.length - values.ended,
        gold=values.expected_reward,
        proxy=jnp.asarray(proxy, float),
        bits=(values.kl + values.entropy) / values.length / jnp.log(2.0),
        kl=values.kl,
        entropy=values.entropy,
    )
