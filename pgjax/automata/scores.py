"""Scores of text as automata: length, patterns, well-formedness, repetition, the end of a sentence, dictionary words.

Tokens are numbers; for texts of bytes (V = 256) a `bytes` object is a sequence of tokens, such as `b"()"`. EOS, where
there is one, is not content: it is not counted in a length and not compared with other tokens. Axes: S states, V
tokens.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.automata.automaton import Automaton, make_automaton
from pgjax.automata.building import MOST_STATES, MOST_TOKENS, explore, never

_DEAD = "dead"
Tokens = Sequence[int]


@readable
def count(tokens: Iterable[int], vocabulary: int, *, value: float = 1.0) -> Automaton:
    """`value` for each token of the set: one state.

    With all tokens but EOS it is a score that grows with the length.

    Raises:
        ValueError: for a token outside the vocabulary.
    """
    chosen = _checked("tokens", tokens, vocabulary)
    rewards = np.zeros((1, vocabulary))
    rewards[0, list(chosen)] = value
    return make_automaton(np.zeros((1, vocabulary), int), rewards=rewards)


@readable
def length(values: Sequence[float], vocabulary: int, *, eos: int | None = None) -> Automaton:
    """values[n] for an answer of n tokens, EOS not counted; longer answers get the last value. S = len(values).

    Example: −|n − 3| for lengths up to 6.

        >>> import numpy as np
        >>> from pgjax import automata
        >>> near_three = automata.length(-np.abs(np.arange(7) - 3), vocabulary=5, eos=4)
        >>> float(automata.score(near_three, np.array([0, 0, 4]), 3))
        -1.0

    Raises:
        ValueError: for no value, or an EOS outside the vocabulary.
    """
    final = np.asarray(values, float)
    if final.ndim != 1 or final.size == 0:
        raise ValueError(f"values must hold the score of each length, shape [n + 1], got shape {final.shape}")
    last = final.size - 1
    next = np.repeat(np.minimum(np.arange(final.size) + 1, last)[:, None], vocabulary, axis=1)
    if eos is not None:
        next[:, _checked("eos", [eos], vocabulary)[0]] = np.arange(final.size)
    return make_automaton(next, final=final)


@readable
def pattern(tokens: Tokens, vocabulary: int, *, value: float = 1.0) -> Automaton:
    """`value` for each occurrence of a fixed string of tokens; occurrences may overlap. S = the length of the string.

    `ever(pattern(…))` pays once for an answer that contains the string, and `never(pattern(…))` for one that does not.

    Raises:
        ValueError: for an empty string, or a token outside the vocabulary.

    Source: Knuth, Morris & Pratt 1977.
    """
    wanted = _checked("tokens", tokens, vocabulary)
    if not wanted:
        raise ValueError("tokens must be a string of at least one token, got none")

    def read(matched: int, token: int) -> tuple[int, float]:
        # The text so far ends with the first `matched` tokens; the longest start that still fits is kept.
        now = (*wanted[:matched], token)
        longest = lambda most: next(k for k in range(most, -1, -1) if now[len(now) - k :] == wanted[:k])
        if now == wanted:
            return longest(len(wanted) - 1), value
        return longest(min(len(now), len(wanted) - 1)), 0.0

    return explore(0, read, lambda matched: 0.0, vocabulary)


@readable
def balanced(
    pairs: Sequence[Tokens],
    vocabulary: int,
    *,
    depth: int,
    quotes: Tokens = (),
    value: float = 1.0,
    limit: int = MOST_STATES,
) -> Automaton:
    """`value` if all brackets and quotes are closed in the right order and never nested deeper than `depth`; else 0.

    A quote closes the innermost open bracket or quote if that is the same quote, and opens a new one otherwise. With k
    kinds there are at most 1 + k + … + k^depth states, and one more for everything that cannot be mended.

    Args:
        pairs: the opening and the closing token of each kind of bracket, such as `[b"()", b"[]"]`.
        vocabulary: V.
        depth: the greatest number of brackets and quotes that are open at the same time.
        quotes: tokens that both open and close.
        value: the score of a well-formed answer.
        limit: the greatest number of states.

    Raises:
        ValueError: for a token outside the vocabulary or in two roles, no bracket and no quote, or too many states.
    """
    require_integer("depth", depth, 1, None)
    opens, closes = {}, {}
    for pair in pairs:
        if len(pair) != 2:
            raise ValueError(f"pairs must hold an opening and a closing token each, got {pair!r}")
        opens[pair[0]], closes[pair[1]] = pair[0], pair[0]
    both = _checked("quotes", quotes, vocabulary)
    named = [*(token for pair in pairs for token in pair), *both]
    if len(set(_checked("pairs", named, vocabulary))) < len(named) or not named:
        raise ValueError(f"pairs and quotes must name at least one token, and each token once, got {named}")

    def read(state, token: int):
        if state == _DEAD:
            return _DEAD, 0.0
        inner = state[-1] if state else None
        if token in closes:
            return (state[:-1] if inner == closes[token] else _DEAD), 0.0
        if token in both and inner == token:
            return state[:-1], 0.0
        if token in opens or token in both:
            return ((*state, token) if len(state) < depth else _DEAD), 0.0
        return state, 0.0

    of_state = lambda state: value if state == () else 0.0
    return explore((), read, of_state, vocabulary, limit=limit, name=f"brackets nested up to depth {depth}")


@readable
def repetitions(
    vocabulary: int,
    *,
    size: int = 1,
    window: int | None = None,
    ignored: Iterable[int] = (),
    value: float = 1.0,
    limit: int = MOST_STATES,
) -> Automaton:
    """`value` for each token that completes an n-gram which has occurred before. Small alphabets only.

    With a window, only n-grams that began at most `window` places earlier count as repeated: `size=1, window=1` finds
    a token directly after the same token. The state is the last n − 1 + window tokens, up to A^(n−1+window) states for
    A tokens that are not ignored. Without a window the state is the set of all n-grams so far, up to 2^(Aⁿ) A^(n−1)
    states.

    Args:
        vocabulary: V.
        size: n.
        window: see above; None for the whole answer.
        ignored: tokens that are not read, such as EOS.
        value: the score of one repetition.
        limit: the greatest number of states.

    Raises:
        ValueError: for a number below 1, a token outside the vocabulary, or too many states.
    """
    require_integer("size", size, 1, None)
    if window is not None:
        require_integer("window", window, 1, None)
    skipped = frozenset(_checked("ignored", ignored, vocabulary))

    kept = size - 1 + (window or 0)

    def in_window(last: tuple, token: int) -> tuple[tuple, float]:
        now = (*last, token)
        starts = range(len(now) - size)
        again = len(now) >= size and any(now[k : k + size] == now[len(now) - size :] for k in starts)
        return now[-kept:], value if again else 0.0

    def anywhere(state: tuple, token: int) -> tuple[tuple, float]:
        last, seen = state
        now = (*last, token)
        kept = now[-(size - 1) :] if size > 1 else ()
        if len(now) < size:
            return (kept, seen), 0.0
        return (kept, seen | {now}), value if now in seen else 0.0

    rule, start = (anywhere, ((), frozenset())) if window is None else (in_window, ())
    read = lambda state, token: (state, 0.0) if token in skipped else rule(state, token)
    where = "anywhere" if window is None else f"within {window} places"
    name = f"repetitions of {size} of {vocabulary - len(skipped)} tokens {where}"
    return explore(start, read, lambda state: 0.0, vocabulary, limit=limit, name=name)


@readable
def no_repetition(
    vocabulary: int,
    *,
    size: int = 1,
    window: int | None = None,
    ignored: Iterable[int] = (),
    value: float = 1.0,
    limit: int = MOST_STATES,
) -> Automaton:
    """`value` for an answer in which no n-gram occurs again, and 0 otherwise; arguments and errors as `repetitions`."""
    found = repetitions(vocabulary, size=size, window=window, ignored=ignored, limit=limit)
    return never(found, value=value, limit=limit + 1)


@readable
def ends_with(tokens: Iterable[int], vocabulary: int, *, eos: int | None = None, value: float = 1.0) -> Automaton:
    """`value` if the last token is one of `tokens`, and 0 otherwise: an answer that closes its sentence.

    With an EOS, the answer must end with one of the tokens and then EOS; an answer without EOS gets 0.

    Raises:
        ValueError: for a token outside the vocabulary.
    """
    wanted = _checked("tokens", tokens, vocabulary)
    next = np.zeros((3, vocabulary), int)
    next[:, list(wanted)] = 1
    if eos is not None:
        next[:, _checked("eos", [eos], vocabulary)[0]] = [0, 2, 0]
    return make_automaton(next, final=np.array([0.0, 0.0, value] if eos is not None else [0.0, value, 0.0]))


def _checked(name: str, tokens: Iterable[int], vocabulary: int) -> tuple[int, ...]:
    require_integer("vocabulary", vocabulary, 1, MOST_TOKENS)
    tokens = tuple(int(token) for token in tokens)
    for token in tokens:
        if not 0 <= token < vocabulary:
            raise ValueError(f"{name} must hold tokens in [0, {vocabulary - 1}], got {token}")
    return tokens
