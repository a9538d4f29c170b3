"""Automata from a rule in plain Python, and what can be made from other automata.

Axes: S states, V tokens.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

import numpy as np

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.automata.automaton import Automaton, make_automaton

# The greatest number of states that the builders make unless they are told otherwise.
MOST_STATES = 20_000
MOST_TOKENS = 2**20  # of a vocabulary; those of large language models have a quarter of that

State = TypeVar("State", bound=Hashable)


@readable
def explore(
    start: State,
    read: Callable[[State, int], tuple[State, float]],
    final: Callable[[State], float],
    vocabulary: int,
    *,
    limit: int = MOST_STATES,
    name: str = "the automaton",
) -> Automaton:
    """The automaton of a rule in plain Python, with the states that can be reached from the start.

    Args:
        start: the state before the first token; states are hashable values of any kind.
        read: `(state, token) → (the state after it, what is added to the score)`.
        final: `state → what is added to the score` if the sequence ends in this state.
        vocabulary: V.
        limit: the greatest number of states.
        name: the name of the automaton in errors.

    Raises:
        ValueError: if more than `limit` states can be reached, or a score is not finite.

    Example: one point if the number of tokens 1 is even.

        >>> from pgjax import automata
        >>> even = automata.explore(0, lambda q, token: ((q + token) % 2, 0.0), lambda q: 1.0 - q, vocabulary=2)
        >>> even.next.tolist(), even.final.tolist()
        ([[0, 1], [1, 0]], [1.0, 0.0])
    """
    require_integer("vocabulary", vocabulary, 1, MOST_TOKENS)
    numbers, states = {start: 0}, [start]
    next, rewards = [], []
    for state in states:  # the list grows while it is read
        steps = [read(state, token) for token in range(vocabulary)]
        for after, _ in steps:
            if after not in numbers:
                if len(states) == limit:
                    raise ValueError(f"{name} needs more than {limit} states: make it smaller, or raise limit")
                numbers[after] = len(states)
                states.append(after)
        next.append([numbers[after] for after, _ in steps])
        rewards.append([paid for _, paid in steps])
    return make_automaton(np.array(next), rewards=np.array(rewards), final=np.array([final(q) for q in states]))


@readable
def aligned(*parts: Automaton, limit: int = MOST_STATES) -> tuple[Automaton, ...]:
    """The same scores as automata with the same states: all results share `start` and `next`.

    The states are the combinations of states that can be reached. A policy that is computed for one score can then be
    evaluated with another one.

    Args:
        parts: automata of one vocabulary.
        limit: the greatest number of states.

    Raises:
        ValueError: for no automaton, different vocabularies, or more than `limit` states.
    """
    if not parts:
        raise ValueError("parts must hold at least one automaton, got none")
    sizes = [np.shape(part.next)[1] for part in parts]
    if len(set(sizes)) > 1:
        raise ValueError(f"parts must read the same vocabulary, got vocabularies of {sizes} tokens")
    tables = [np.asarray(part.next) for part in parts]
    start = tuple(int(part.start) for part in parts)
    numbers, combinations, next = {start: 0}, [start], []
    for combination in combinations:  # the list grows while it is read
        # All tokens of one combination at a time: [V, parts].
        after = np.stack([table[q] for table, q in zip(tables, combination)], axis=1)
        steps = list(map(tuple, after.tolist()))
        for step in steps:
            if step not in numbers:
                if len(combinations) == limit:
                    raise ValueError(
                        f"the product of {len(parts)} automata needs more than {limit} states: make them smaller"
                    )
                numbers[step] = len(combinations)
                combinations.append(step)
        next.append([numbers[step] for step in steps])
    rows = np.array(combinations)
    of = lambda part, column: make_automaton(
        np.array(next), rewards=np.asarray(part.rewards)[column], final=np.asarray(part.final)[column]
    )
    return tuple(of(part, rows[:, place]) for place, part in enumerate(parts))


@readable
def weighted_sum(
    parts: Sequence[Automaton], weights: Sequence[float] | None = None, *, limit: int = MOST_STATES
) -> Automaton:
    """One automaton whose score is Σ_i w_i score_i; its states are the combinations that can be reached.

    Args:
        parts: automata of one vocabulary.
        weights: w, one number for each part; ones if None.
        limit: the greatest number of states.

    Raises:
        ValueError: as in `aligned`, and for a wrong number of weights.
    """
    parts = tuple(parts)
    given = np.ones(len(parts)) if weights is None else np.asarray(weights, float)
    if given.shape != (len(parts),):
        raise ValueError(f"weights must hold {len(parts)} numbers, one for each automaton, got shape {given.shape}")
    same = aligned(*parts, limit=limit)
    add = lambda leaves: np.tensordot(given, np.stack(leaves), 1)
    return make_automaton(
        same[0].next, rewards=add([part.rewards for part in same]), final=add([part.final for part in same])
    )


@readable
def ever(automaton: Automaton, *, value: float = 1.0, limit: int = MOST_STATES) -> Automaton:
    """`value` if the automaton pays anything other than 0 for at least one token, and 0 otherwise.

    The final score of the automaton has no influence. `ever(pattern(…))` tells whether a pattern occurs.

    Raises:
        ValueError: for more than `limit` states.
    """
    return _seen(automaton, value=value, if_paid=True, limit=limit)


@readable
def never(automaton: Automaton, *, value: float = 1.0, limit: int = MOST_STATES) -> Automaton:
    """`value` if the automaton pays 0 for every token, and 0 otherwise; see `ever`."""
    return _seen(automaton, value=value, if_paid=False, limit=limit)


def _seen(automaton: Automaton, *, value: float, if_paid: bool, limit: int) -> Automaton:
    next, rewards = np.asarray(automaton.next), np.asarray(automaton.rewards)
    paid = -1  # the one state after the first payment

    def read(state: int, token: int) -> tuple[int, float]:
        return (paid if state == paid or rewards[state, token] != 0 else int(next[state, token])), 0.0

    of_state = lambda state: value if (state == paid) == if_paid else 0.0
    return explore(int(automaton.start), read, of_state, next.shape[1], limit=limit)


@readable
def over_tokens(
    automaton: Automaton, token_bytes: Sequence[bytes], *, special: Mapping[int, int] | None = None
) -> Automaton:
    """An automaton over bytes, lifted to tokens of several bytes: a token reads its bytes one after the other.

    The score of a sequence of tokens is the score of the text that it spells.

    Args:
        automaton: reads numbers 0 … 255, the values of bytes.
        token_bytes: the bytes of each token, V of them, as in `tokens.Tokeniser.token_bytes`; empty for special tokens.
        special: the byte that stands for a special token, such as `{eos: 255}` for an automaton that reads 255 as EOS.
            All other tokens without bytes are not read: they change no state and pay 0.

    Raises:
        ValueError: if a byte is not in the vocabulary of the automaton.
    """
    special = dict(special or {})
    next, rewards = np.asarray(automaton.next), np.asarray(automaton.rewards)
    states = np.arange(next.shape[0])
    columns, paid = np.empty((len(token_bytes), states.size), int), np.zeros((len(token_bytes), states.size))
    for token, spelled in enumerate(token_bytes):
        now = states
        for byte in [special[token]] if token in special else spelled:
            if byte >= next.shape[1]:
                raise ValueError(f"token {token} must spell bytes below {next.shape[1]}, got byte {byte}")
            paid[token] += rewards[now, byte]
            now = next[now, byte]
        columns[token] = now
    return make_automaton(columns.T, rewards=paid.T, final=automaton.final, start=int(automaton.start))


@readable
def minimised(automaton: Automaton) -> Automaton:
    """An automaton with the same scores and fewer states: unreachable states go, and equal states become one.

    Two states are equal if they pay the same for every token and at the end, and lead to equal states. Scores that are
    paid at another time but add up to the same are not found to be equal, so a smaller automaton may exist.

    Source: Moore 1956 (refinement of partitions).
    """
    next, rewards, final = (np.asarray(x) for x in (automaton.next, automaton.rewards, automaton.final))
    reached, frontier = np.zeros(next.shape[0], bool), np.array([int(automaton.start)])
    while frontier.size:
        reached[frontier] = True
        frontier = np.unique(next[frontier])
        frontier = frontier[~reached[frontier]]
    kept = np.flatnonzero(reached)
    inside = np.cumsum(reached) - 1
    next, rewards, final = inside[next[kept]], rewards[kept], final[kept]
    classes = np.unique(np.column_stack([rewards, final]), axis=0, return_inverse=True)[1].ravel()
    while True:
        finer = np.unique(np.column_stack([classes, classes[next]]), axis=0, return_inverse=True)[1].ravel()
        if finer.max() == classes.max():
            break
        classes = finer
    first = np.unique(classes, return_index=True)[1]
    start = int(classes[inside[int(automaton.start)]])
    return make_automaton(classes[next[first]], rewards=rewards[first], final=final[first], start=start)
