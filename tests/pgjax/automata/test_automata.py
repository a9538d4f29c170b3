import itertools

import jax
import numpy as np
import pytest

from pgjax import automata


def by_hand(automaton, tokens):
    state, total = int(automaton.start), 0.0
    for token in tokens:
        total += automaton.rewards[state, token]
        state = automaton.next[state, token]
    return total + automaton.final[state]


def test_the_score_is_the_sum_along_the_path_and_ignores_what_follows(x64):
    numbers = np.random.default_rng(0)
    automaton = automata.make_automaton(
        numbers.integers(0, 4, (4, 3)), rewards=numbers.normal(size=(4, 3)), final=numbers.normal(size=4), start=2
    )
    sequences = [tokens for length in range(4) for tokens in itertools.product(range(3), repeat=length)]
    lengths = np.array([len(tokens) for tokens in sequences])
    score = jax.jit(jax.vmap(automata.score, (None, 0, 0)))
    for rest in (0, 2):
        padded = np.array([[*tokens, *[rest] * (5 - len(tokens))] for tokens in sequences])
        expected = [by_hand(automaton, tokens) for tokens in sequences]
        np.testing.assert_allclose(score(automaton, padded, lengths), expected)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"next": np.zeros(3, int)}, r"shape \[S, V\], got shape \(3,\)"),
        ({"next": np.zeros((2, 2))}, "integers"),
        ({"next": np.array([[0, 2], [1, 0]])}, r"states in \[0, 1\], got 2"),
        ({"next": np.zeros((2, 2), int), "start": 2}, r"start must be a state in \[0, 1\], got 2"),
        ({"next": np.zeros((2, 2), int), "final": np.zeros(3)}, r"final must have shape \(2,\)"),
        ({"next": np.zeros((2, 2), int), "rewards": np.full((2, 2), np.nan)}, "rewards must be finite, got nan"),
    ],
)
def test_bad_tables_are_refused(tables, said):
    with pytest.raises(ValueError, match=said):
        automata.make_automaton(**tables)
