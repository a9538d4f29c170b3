"""All answers to a prompt that a language model can write, and their log-probabilities.

Axes: T tokens of the longest answer, V tokens of the vocabulary, M prefixes, N answers.
"""

import dataclasses
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax import automata
from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.automata import Automaton, MissingEos
from pgjax.exact.mdp.dynamic_programming import Apply, log_probabilities_of
from pgjax.exact.mdp.enumeration import refuse_beyond
from pgjax.types import PyTree

# The observation of one prefix: `(tokens [T], length []) → obs`. It puts the prompt in front.
Observe = Callable[[jax.Array, jax.Array], PyTree]


@dataclasses.dataclass(frozen=True, eq=False)
class Answers:
    """All N answers of at most T tokens, and the M prefixes after which a model chooses a token.

    The prefixes stand in the order of their length, and prefixes of one length in the order of their tokens. The
    answers that end with EOS come first, in the order of their prefixes; then come the answers of T tokens without EOS.
    The record is a pytree: the arrays are leaves, and the other attributes are static.

    Attributes:
        prefixes: the tokens so far, `[M, T]`; places that are not yet written hold 0.
        prefix_lengths: int32 `[M]`, from 0 to T − 1.
        tokens: the tokens of each answer, its EOS included, `[N, T]`; places behind the answer hold 0.
        lengths: int32 `[N]`, the number of tokens of each answer.
        ended: bool `[N]`, whether the answer ends with EOS.
        vocabulary: V.
        max_new_tokens: T.
        eos: the token that ends an answer; None if all answers have T tokens.
        allowed: the tokens that may be written, in ascending order.
    """

    prefixes: jax.Array
    prefix_lengths: jax.Array
    tokens: jax.Array
    lengths: jax.Array
    ended: jax.Array
    vocabulary: int
    max_new_tokens: int
    eos: int | None
    allowed: tuple[int, ...]

    @property
    def num_answers(self) -> int:
        return self.tokens.shape[0]

    @property
    def num_prefixes(self) -> int:
        return self.prefixes.shape[0]

    @property
    def continuing(self) -> np.ndarray:
        """The tokens that may be written and that do not end the answer."""
        return np.array([token for token in self.allowed if token != self.eos], int)

    @property
    def may_end(self) -> bool:
        """Whether EOS may be written."""
        return self.eos in self.allowed


jax.tree_util.register_dataclass(
    Answers,
    data_fields=["prefixes", "prefix_lengths", "tokens", "lengths", "ended"],
    meta_fields=["vocabulary", "max_new_tokens", "eos", "allowed"],
)


@readable
def enumerate_answers(
    vocabulary: int,
    max_new_tokens: int,
    *,
    eos: int | None = None,
    allowed: ArrayLike | None = None,
    limit: int = 10**6,
) -> Answers:
    """All answers under the rules of `environments.text.make_text`: an answer ends with EOS, or when it has T tokens.

    Without EOS there are N = V^T answers and M = (V^T − 1) / (V − 1) prefixes. With EOS there are W = V − 1 other
    tokens, M = 1 + W + … + W^(T−1) prefixes, and N = M + W^T answers; each answer is listed once.

    Args:
        vocabulary: V.
        max_new_tokens: T.
        eos: the token that ends an answer, or None.
        allowed: bool `[V]`, the tokens that may be written; all if None.
        limit: the greatest number of answers.

    Raises:
        ValueError: for a number out of range, no allowed token, or more than `limit` answers.

    Example: the sequences of two tokens, and then the answers of at most two tokens of which 1 is EOS.

        >>> from pgjax import exact
        >>> exact.enumerate_answers(2, 2).tokens.tolist()
        [[0, 0], [0, 1], [1, 0], [1, 1]]
        >>> exact.enumerate_answers(2, 2, eos=1).tokens.tolist()
        [[1, 0], [0, 1], [0, 0]]
    """
    require_integer("vocabulary", vocabulary, 2, 65536)
    require_integer("max_new_tokens", max_new_tokens, 1, 1024)
    if eos is not None:
        require_integer("eos", eos, 0, vocabulary - 1)
    allowed = np.ones(vocabulary, bool) if allowed is None else np.asarray(allowed)
    if allowed.shape != (vocabulary,) or allowed.dtype != bool or not allowed.any():
        raise ValueError(
            f"allowed must be bool [{vocabulary}] with at least one true entry, got {allowed.dtype} {allowed.shape} "
            f"with {int(np.sum(allowed))} true"
        )
    written = tuple(int(token) for token in np.flatnonzero(allowed))
    others = np.array([token for token in written if token != eos], int)
    ends, fan = eos in written, len(others)
    counts = [fan**length for length in range(max_new_tokens + 1)]
    total = counts[-1] + (sum(counts[:-1]) if ends else 0)
    refuse_beyond(limit, total, f"answers of at most {max_new_tokens} of {vocabulary} tokens")

    level, prefixes, endings = np.zeros((1, max_new_tokens), int), [], []
    for place in range(max_new_tokens):
        prefixes.append(level)
        if ends:
            ending = level.copy()
            ending[:, place] = eos
            endings.append(ending)
        level = np.repeat(level, fan, axis=0)
        level[:, place] = np.tile(others, counts[place])
    places, dtype = np.arange(max_new_tokens), np.uint8 if vocabulary <= 256 else np.uint16
    ended = np.arange(total) < total - counts[-1]
    of_ended = np.repeat(places + 1, counts[:-1]) if ends else places[:0]
    lengths = np.concatenate([of_ended, np.full(counts[-1], max_new_tokens)])
    return Answers(
        prefixes=jnp.asarray(np.concatenate(prefixes), dtype),
        prefix_lengths=jnp.asarray(np.repeat(places, counts[:-1]), jnp.int32),
        tokens=jnp.asarray(np.concatenate([*endings, level]), dtype),
        lengths=jnp.asarray(lengths, jnp.int32),
        ended=jnp.asarray(ended),
        vocabulary=vocabulary,
        max_new_tokens=max_new_tokens,
        eos=eos,
        allowed=written,
    )


@readable
def prefix_log_probs(
    policy: Apply, params: PyTree, answers: Answers, observe: Observe, *, batch_size: int = 4096
) -> jax.Array:
    """ln π(a | prompt, prefix) of every prefix and token, `[M, V]`; differentiable in θ.

    Args:
        policy: a `Policy` with `apply`, or `apply(params, obs) → logits [V]` of a softmax policy.
        params: θ.
        answers: all answers.
        observe: `(tokens [T], length []) → obs`, the observation of one prefix, with the prompt in front. For policies
            of text buffers it is `environments.text.after_prompt(prompt, T)`.
        batch_size: the number of prefixes that are computed at the same time, which bounds the memory, also in reverse
            mode.

    Raises:
        ValueError: for a policy that needs its memory, or a batch size below 1.
    """
    require_integer("batch_size", batch_size, 1, None)
    of_obs = log_probabilities_of(policy, answers.vocabulary)
    of_prefix = lambda prefix: of_obs(params, observe(*prefix))
    prefixes = (answers.prefixes, answers.prefix_lengths)
    if answers.num_prefixes <= batch_size:
        table = jax.vmap(of_prefix)(prefixes)
    else:
        table = jax.lax.map(jax.checkpoint(of_prefix), prefixes, batch_size=batch_size)
    chex.assert_shape(table, (answers.num_prefixes, answers.vocabulary))
    return table


@readable
def answer_log_probs(answers: Answers, table: jax.Array) -> jax.Array:
    """ln π(y | prompt) = Σ_t ln π(y_t | prompt, y_1 … y_{t−1}) of every answer y, `[..., N]`.

    The probabilities sum to 1 if the policy gives probability 0 to tokens that are not allowed.

    Args:
        answers: all answers.
        table: ln π(a | prompt, prefix) `[..., M, V]`, as `prefix_log_probs` gives it.
    """
    return _walk(answers, table)[1]


@readable
def prefix_reach(answers: Answers, table: jax.Array) -> jax.Array:
    """ln of the probability that an answer begins with each prefix, `[..., M]`; arguments as in `answer_log_probs`.

    An expectation over the steps of an answer is a sum over prefixes with these weights:
    E[Σ_t f(prefix_t)] = Σ_m exp(reach_m) f(m).
    """
    return _walk(answers, table)[0]


def _walk(answers: Answers, table: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The log-probabilities of all prefixes `[..., M]` and of all answers `[..., N]`, one length after the other."""
    chex.assert_shape(table, (..., answers.num_prefixes, answers.vocabulary))
    fan, leading = answers.continuing, table.shape[:-2]
    level, begin = jnp.zeros((*leading, 1), table.dtype), 0
    reached, endings = [], []
    for _ in range(answers.max_new_tokens):
        rows = table[..., begin : begin + level.shape[-1], :]
        begin += level.shape[-1]
        reached.append(level)
        if answers.may_end:
            endings.append(level + rows[..., answers.eos])
        level = (level[..., None] + rows[..., fan]).reshape(*leading, -1)
    return jnp.concatenate(reached, axis=-1), jnp.concatenate([*endings, level], axis=-1)


@readable
def answer_scores(
    answers: Answers, automaton: Automaton, *, missing_eos: MissingEos = "keep", missing_eos_value: float = 0.0
) -> jax.Array:
    """The score of every answer by an automaton, `[N]`, as `environments.text.make_text` pays it.

    Args:
        answers: all answers.
        automaton: the score.
        missing_eos, missing_eos_value: the rule for an answer of T tokens without EOS, as in `make_text`.

    Raises:
        ValueError: for an automaton of another vocabulary, an unknown rule, or a rule for a missing EOS without an EOS.
    """
    automata.require_reads("automaton", automaton, answers.vocabulary)
    automata.require_missing_eos(answers.eos, missing_eos, missing_eos_value)
    scores = jax.vmap(automata.score, (None, 0, 0))(automaton, answers.tokens, answers.lengths)
    return automata.at_the_limit(scores, answers.ended, missing_eos, missing_eos_value)
