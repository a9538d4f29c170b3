"""Text as an environment: an action writes a token, and the answer is paid when it ends.

Axes: T new tokens, L = P + T places of the buffer, P places of the longest prompt, N prompts, V tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import automata
from pgjax._checks import require_in_range, require_integer
from pgjax.automata import Automaton, MissingEos
from pgjax.types import Box, Discrete, Environment, PyTree, Step


class TextBuffer(NamedTuple):
    """A prompt, and directly behind it the answer so far.

    Attributes:
        tokens: uint8 or uint16 `[L]`; places that are not yet written hold 0.
        length: int32 `[]`, the number of places that are written.
        prompt_length: int32 `[]`, the number of places of the prompt, so the answer is `tokens[prompt_length:length]`.
    """

    tokens: PyTree
    length: PyTree
    prompt_length: PyTree

    def first_rows(self, count: int, num_steps: int) -> "TextBuffer":
        """The first rows of T = `num_steps` rows `[T, ...]`, without the places that only later rows write."""
        places = self.tokens.shape[-1] - (num_steps - count)
        shorter = jax.tree.map(lambda x: x[:count], self)
        return shorter._replace(tokens=shorter.tokens[..., :places])


class TextParams(NamedTuple):
    """The parameters of `make_text`; another value of the same shapes needs no new compilation.

    Attributes:
        prompts: `[N, P]`, unused places hold 0.
        prompt_lengths: int32 `[N]`, from 1 to P.
        score: the `Automaton`, or what the score function takes as its second argument.
    """

    prompts: PyTree
    prompt_lengths: PyTree
    score: PyTree


class _State(NamedTuple):
    buffer: TextBuffer
    automaton: jax.Array
    total: jax.Array


class _Scoring(NamedTuple):
    """How an answer is scored: by an automaton as it is written, or by a function of the buffer at its end.

    Attributes:
        params: `TextParams.score`.
        start: `params → []`, the first state of the automaton.
        read: `(state, action, params) → (automaton, total)`, the automaton's state and total after one more token.
        pay: `(buffer, automaton, total, params) → []`, the score of the answer if it ends here.
    """

    params: PyTree
    start: Callable[[TextParams], Any]
    read: Callable[[_State, jax.Array, TextParams], tuple[jax.Array, jax.Array]]
    pay: Callable[[TextBuffer, jax.Array, jax.Array, TextParams], jax.Array]


def make_text(
    prompts: Any,
    *,
    score: Automaton | Callable[[TextBuffer, PyTree], jax.Array],
    max_new_tokens: int,
    vocabulary: int,
    prompt_lengths: Any = None,
    score_params: PyTree = (),
    eos: int | None = None,
    missing_eos: MissingEos = "keep",
    missing_eos_value: float = 0.0,
    allowed: Any = None,
) -> Environment:
    """Write an answer of up to T tokens to a prompt; the reward is 0 until the answer ends, and then its score.

    X_1 is a `TextBuffer` with one of N prompts, drawn uniformly; `rollouts.episodes(group_size=k)` gives k answers to
    one prompt. A_t is written into the next place. The answer ends with EOS, which belongs to it and which the score
    sees, or when T tokens are written. Both ends are `terminated`: the limit is a rule of the problem. Nothing is
    written after the end. The metrics are `length`, the number of tokens of the answer, and `ended`, 1 after EOS.

    Args:
        prompts: token numbers `[N, P]` with P ≥ 1.
        score: an automaton, which reads the tokens of the answer, or a function `(buffer, score_params) → []` of the
            buffer at the end, written with `jax.numpy`.
        max_new_tokens: T, the horizon.
        vocabulary: V, from 2 to 65 536; buffers are uint8 up to 256 and uint16 above.
        prompt_lengths: integers `[N]` from 1 to P; P for all if None.
        score_params: what a score function takes as its second argument.
        eos: the token that ends an answer; None for answers that always have T tokens.
        missing_eos: the rule for an answer of T tokens without EOS: its score is kept, or `missing_eos_value` is
            subtracted from it, or the score is replaced by `missing_eos_value`.
        missing_eos_value: see `missing_eos`.
        allowed: bool `[V]`, the tokens that may be written, at least one; all if None.

    Raises:
        ValueError: for arrays of a wrong shape, tokens outside the vocabulary, an automaton for another vocabulary, a
            number out of range, or a rule for a missing EOS without an EOS.

    Example:
        >>> import numpy as np
        >>> from pgjax import automata
        >>> from pgjax.environments.text import make_text
        >>> ones = automata.make_automaton(np.zeros((1, 3), int), rewards=np.array([[0.0, 1.0, 0.0]]))
        >>> make_text([[0], [1]], score=ones, max_new_tokens=4, vocabulary=3, eos=2).action_space
        Discrete(3)
    """
    require_integer("max_new_tokens", max_new_tokens, 1, None)
    require_integer("vocabulary", vocabulary, 2, 65536)
    prompts, prompt_lengths = _prompts(prompts, prompt_lengths, vocabulary)
    if eos is not None:
        require_integer("eos", eos, 0, vocabulary - 1)
    automata.require_missing_eos(eos, missing_eos, missing_eos_value)
    allowed = _allowed(allowed, vocabulary)
    scoring = _scoring(score, score_params, vocabulary)
    places, token_type = prompts.shape[1] + max_new_tokens, prompts.dtype

    def begin(key: jax.Array, params: TextParams) -> tuple[_State, TextBuffer]:
        row = jax.random.randint(key, (), 0, params.prompts.shape[0])
        length = params.prompt_lengths[row].astype(jnp.int32)
        tokens = jnp.zeros(places, token_type).at[: params.prompts.shape[1]].set(params.prompts[row])
        buffer = TextBuffer(tokens=tokens, length=length, prompt_length=length)
        automaton = jnp.asarray(scoring.start(params), jnp.int32)
        return _State(buffer=buffer, automaton=automaton, total=jnp.zeros((), float)), buffer

    def write(key: jax.Array, state: _State, action: jax.Array, params: TextParams) -> tuple[_State, Step]:
        del key
        old = state.buffer
        tokens = jnp.where(jnp.arange(places) == old.length, action.astype(token_type), old.tokens)
        buffer = old._replace(tokens=tokens, length=jnp.minimum(old.length + 1, places))
        automaton, total = scoring.read(state, action, params)
        ended = jnp.zeros((), bool) if eos is None else action == eos
        full = buffer.length - buffer.prompt_length >= max_new_tokens
        paid = jnp.asarray(scoring.pay(buffer, automaton, total, params), total.dtype)
        paid = automata.at_the_limit(paid, ended, missing_eos, missing_eos_value)
        done = ended | full
        reward = jnp.where(done, paid, 0.0)
        return _State(buffer=buffer, automaton=automaton, total=total), Step(obs=buffer, reward=reward, terminated=done)

    def metrics(state: _State, obs: TextBuffer, params: TextParams) -> dict[str, jax.Array]:
        del state, params
        last = obs.tokens[jnp.maximum(obs.length - 1, 0)]
        ended = (last == eos) & (obs.length > obs.prompt_length) if eos is not None else jnp.zeros((), bool)
        return {"length": (obs.length - obs.prompt_length).astype(float), "ended": ended.astype(float)}

    as_arrays = lambda tree: jax.tree.map(jnp.asarray, tree)
    return Environment(
        name="text",
        reset=begin,
        step=write,
        params=as_arrays(TextParams(prompts, prompt_lengths, scoring.params)),
        observation_space=TextBuffer(
            tokens=Box(low=0, high=vocabulary - 1, shape=(places,), dtype=token_type),
            length=Discrete(places + 1),
            prompt_length=Discrete(prompts.shape[1] + 1),
        ),
        action_space=Discrete(vocabulary),
        horizon=max_new_tokens,
        action_mask=None if allowed is None else lambda obs: jnp.asarray(allowed),
        metrics=metrics,
    )


def answer(buffer: TextBuffer) -> tuple[jax.Array, jax.Array]:
    """The answer of one buffer, moved to the front `[L]`, and its length `[]`; places behind it hold 0.

    A score function that reads the answer from its first token begins with it; `automata.score` takes both.
    """
    length = buffer.length - buffer.prompt_length
    moved = jnp.roll(buffer.tokens, -buffer.prompt_length)
    return jnp.where(jnp.arange(moved.shape[0]) < length, moved, 0).astype(buffer.tokens.dtype), length


def after_prompt(
    prompt: jax.typing.ArrayLike, max_new_tokens: int, *, prompt_length: jax.typing.ArrayLike | None = None
) -> Callable[[jax.Array, jax.Array], TextBuffer]:
    """`(tokens [T], length []) → TextBuffer`: the prompt, and directly behind it the first `length` tokens.

    Exact functions, such as `exact.prefix_log_probs`, take it as `observe`; the buffers are those of `make_text`.

    Args:
        prompt: token numbers `[P]` of the unsigned type of the buffer; P is the same for all prompts of a task.
        max_new_tokens: T.
        prompt_length: the number of places of this prompt, from 1 to P; P if None.
    """
    prompt = jnp.asarray(prompt)
    places = prompt.shape[0] + max_new_tokens
    first = jnp.asarray(prompt.shape[0] if prompt_length is None else prompt_length, jnp.int32)

    def observe(tokens: jax.Array, length: jax.Array) -> TextBuffer:
        place = jnp.arange(places, dtype=jnp.int32)
        length = jnp.asarray(length, jnp.int32)
        behind = jnp.roll(jnp.pad(tokens.astype(jnp.int32), (0, prompt.shape[0])), first)
        before = jnp.pad(prompt.astype(jnp.int32), (0, max_new_tokens))
        written = jnp.where(place < first, before, jnp.where(place < first + length, behind, 0))
        return TextBuffer(tokens=written.astype(tokens.dtype), length=first + length, prompt_length=first)

    return observe


def _scoring(
    score: Automaton | Callable[[TextBuffer, PyTree], jax.Array], score_params: PyTree, vocabulary: int
) -> _Scoring:
    if isinstance(score, Automaton):
        automata.require_reads("score", score, vocabulary)

        def read(state: _State, action: jax.Array, params: TextParams) -> tuple[jax.Array, jax.Array]:
            after = params.score.next[state.automaton, action].astype(jnp.int32)
            return after, state.total + params.score.rewards[state.automaton, action].astype(state.total.dtype)

        pay = lambda buffer, automaton, total, params: total + params.score.final[automaton]
        return _Scoring(params=score, start=lambda params: params.score.start, read=read, pay=pay)
    if not callable(score):
        raise ValueError(f"score must be an Automaton or a function of (buffer, score_params), got {score!r}")
    return _Scoring(
        params=score_params,
        start=lambda params: 0,
        read=lambda state, action, params: (state.automaton, state.total),
        pay=lambda buffer, automaton, total, params: score(buffer, params.score),
    )


def _prompts(prompts: Any, lengths: Any, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    prompts = np.asarray(prompts)
    if prompts.ndim != 2 or 0 in prompts.shape or not np.issubdtype(prompts.dtype, np.integer):
        raise ValueError(f"prompts must be integers of shape [N, P], got shape {prompts.shape} and {prompts.dtype}")
    if prompts.min() < 0 or prompts.max() >= vocabulary:
        bad = prompts[(prompts < 0) | (prompts >= vocabulary)][0]
        raise ValueError(f"prompts must hold tokens in [0, {vocabulary - 1}], got {bad}")
    count, places = prompts.shape
    lengths = np.full(count, places) if lengths is None else np.asarray(lengths)
    if lengths.shape != (count,) or not np.issubdtype(lengths.dtype, np.integer):
        raise ValueError(
            f"prompt_lengths must be integers of shape ({count},), got {lengths.shape} and {lengths.dtype}"
        )
    require_in_range("prompt_lengths", lengths, 1, places)
    # Nobody may see what stands behind a prompt.
    prompts = np.where(np.arange(places) < lengths[:, None], prompts, 0)
    return prompts.astype(np.uint8 if vocabulary <= 256 else np.uint16), lengths.astype(np.int32)


def _allowed(allowed: Any, vocabulary: int) -> np.ndarray | None:
    if allowed is None:
        return None
    allowed = np.asarray(allowed)
    if allowed.shape != (vocabulary,) or allowed.dtype != bool or not allowed.any():
        raise ValueError(
            f"allowed must be bool [{vocabulary}] with at least one true entry, got {allowed.dtype} {allowed.shape} "
            f"with {int(np.sum(allowed))} true"
        )
    return allowed
