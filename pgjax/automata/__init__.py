"""Scores of token sequences as finite automata: tables that the environment and the exact oracle share.

An automaton reads the tokens a_1 … a_n of an answer one by one, and

    score = Σ_t rewards[q_t, a_t] + final[q_{n+1}],    q_1 = start,    q_{t+1} = next[q_t, a_t].

Because the score is a table over (state, token), dynamic programming gives exact values and optimal policies for
answers of any length (`pgjax.exact.text`), and `environments.text.make_text` pays the same score. Axes: S states, V
tokens, n tokens of an answer.
"""

from pgjax.automata.automaton import Automaton, make_automaton, score
from pgjax.automata.building import aligned, ever, explore, minimised, never, over_tokens, weighted_sum
from pgjax.automata.endings import MissingEos, at_the_limit, require_missing_eos, require_reads
from pgjax.automata.scores import balanced, count, ends_with, length, no_repetition, pattern, repetitions
from pgjax.automata.words import word_count, word_share

__all__ = [
    "Automaton",
    "MissingEos",
    "aligned",
    "at_the_limit",
    "balanced",
    "count",
    "ends_with",
    "ever",
    "explore",
    "length",
    "make_automaton",
    "minimised",
    "never",
    "no_repetition",
    "over_tokens",
    "pattern",
    "repetitions",
    "require_missing_eos",
    "require_reads",
    "score",
    "weighted_sum",
    "word_count",
    "word_share",
]
