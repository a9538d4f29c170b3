"""Scores of token sequences as finite automata: tables that the environment and the exact oracle share.

An automaton reads the tokens a_1 … a_n of an answer one by one, and

    score = Σ_t rewards[q_t, a_t] + final[q_{n+1}],    q_1 = start,    q_{t+1} = next[q_t, a_t].

Because the score is a table over (state, token), dynamic programming gives exact values and optimal policies for
answers of any length (`pgjax.exact.text`), and `environments.text.make_text` pays the same score. Axes: S states, V
tokens, n tokens of an answer.
"""

from pgjax.automata.automaton import Automaton, make_automaton, score

__all__ = ["Automaton", "make_automaton", "score"]
