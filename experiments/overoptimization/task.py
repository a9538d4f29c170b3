"""The text task: all answers of eight characters, their gold score, the reference that writes them, reward models.

Axes: N answers, T characters, V letters of the alphabet, F features.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import automata, exact
from pgjax.environments.text import TextBuffer, after_prompt, answer, make_text
from pgjax.preferences import RewardModel, reward_models
from pgjax.types import Environment

ALPHABET = "ab()"
VOCABULARY = len(ALPHABET)
PROMPT = np.zeros(1, np.uint8)  # a text buffer has a prompt; this one says nothing


class Task(NamedTuple):
    """The whole problem in tables.

    Attributes:
        answers: all N answers.
        automaton: the gold score r, with mean 0 and standard deviation 1 under the reference.
        gold: r of every answer, `[N]`.
        reference: ln π_ref(a | prefix) of every prefix, `[M, V]`.
        log_probs: ln π_ref of every answer, `[N]`.
    """

    answers: exact.Answers
    automaton: automata.Automaton
    gold: jax.Array
    reference: jax.Array
    log_probs: jax.Array


def raw_gold() -> automata.Automaton:
    """+1 for each `ab`, +1 if all brackets are closed, −1 for each pair of characters that comes again.

    A pair comes again if it began at most four places earlier, as `ab` does in `abab` and in `ab(ab`.
    """
    parts = [
        automata.pattern([0, 1], VOCABULARY),
        automata.balanced([[2, 3]], VOCABULARY, depth=4),
        automata.repetitions(VOCABULARY, size=2, window=4),
    ]
    return automata.minimised(automata.weighted_sum(parts, [1.0, 1.0, -1.0]))


def make_task(length: int) -> Task:
    """The task with answers of T = `length` characters.

    The reference is π_ref ∝ e^{gold} of the raw score: a model that was fine-tuned on good texts. It writes what gold
    punishes most only rarely, so labels on its answers say little about that.
    """
    answers, automaton = exact.enumerate_answers(VOCABULARY, length), raw_gold()
    gold = exact.answer_scores(answers, automaton)
    log_probs = jax.nn.log_softmax(gold)
    mean = exact.expected(log_probs, gold)
    spread = jnp.sqrt(exact.expected(log_probs, jnp.square(gold - mean)))
    scaled = automaton._replace(
        rewards=automaton.rewards / float(spread), final=(automaton.final - float(mean)) / float(spread)
    )
    return Task(
        answers=answers,
        automaton=scaled,
        gold=(gold - mean) / spread,
        reference=conditionals(log_probs, length),
        log_probs=log_probs,
    )


def conditionals(log_probs: jax.Array, length: int) -> jax.Array:
    """ln π(a | prefix) `[M, V]` of a distribution over all answers, in the order of `exact.Answers.prefixes`."""
    level, rows = log_probs, []
    for _ in range(length):
        level = level.reshape(-1, VOCABULARY)
        total = jax.nn.logsumexp(level, axis=-1)
        rows.append(level - total[:, None])
        level = total
    return jnp.concatenate(rows[::-1])


def prefix_number(obs: TextBuffer) -> jax.Array:
    """The place of the answer so far among `exact.Answers.prefixes`, int32 `[]`."""
    tokens, written = answer(obs)

    def read(carry: tuple[jax.Array, jax.Array], at: tuple[jax.Array, jax.Array]):
        (first, rank), (place, token) = carry, at
        inside = place < written
        return (
            jnp.where(inside, first * VOCABULARY + 1, first),
            jnp.where(inside, rank * VOCABULARY + token, rank),
        ), None

    places = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    (first, rank), _ = jax.lax.scan(read, (jnp.int32(0), jnp.int32(0)), (places, tokens.astype(jnp.int32)))
    return first + rank


def environment_of(task: Task) -> Environment:
    length = task.answers.max_new_tokens
    return make_text(PROMPT[None], score=task.automaton, max_new_tokens=length, vocabulary=VOCABULARY)


def observe(task: Task) -> Callable[[jax.Array, jax.Array], TextBuffer]:
    """`(tokens [T], length) → TextBuffer` of a prefix or an answer."""
    return after_prompt(PROMPT, task.answers.max_new_tokens)


def buffers_of(task: Task) -> TextBuffer:
    """All answers as text buffers, leaves `[N, ...]`."""
    return jax.vmap(observe(task))(task.answers.tokens, task.answers.lengths)


def letters_of(length: int) -> Callable[[TextBuffer], jax.Array]:
    """The features `[T V]`: which letter stands at each place of the answer; zeros at places not yet written."""

    def features(obs: TextBuffer) -> jax.Array:
        tokens, written = answer(obs)
        shown = jax.nn.one_hot(tokens[:length], VOCABULARY)
        return jnp.ravel(jnp.where((jnp.arange(length) < written)[:, None], shown, 0.0))

    return features


class ProxyModel(NamedTuple):
    """A reward model of feature vectors, and the features of a text buffer."""

    model: RewardModel
    features: Callable[[TextBuffer], jax.Array]

    def of_buffers(self) -> RewardModel:
        """The normalised model of text buffers, as the reward stage of a trainer takes it."""
        return reward_models.on_features(reward_models.normalised(self.model), self.features)


PAIRS, TRIPLES, NETWORK = "linear, pairs", "linear, triples", "network"


def proxy_models(length: int, width: int) -> dict[str, ProxyModel]:
    """The reward models from small to large, with V² = 16, V³ = 64 and about 2 000 parameters."""
    ngrams = lambda n: reward_models.ngrams(VOCABULARY, n)
    return {
        PAIRS: ProxyModel(reward_models.linear(), ngrams(2)),
        TRIPLES: ProxyModel(reward_models.linear(), ngrams(3)),
        NETWORK: ProxyModel(reward_models.mlp((width,)), letters_of(length)),
    }


def written(tokens: np.ndarray) -> str:
    return "".join(ALPHABET[token] for token in tokens)
