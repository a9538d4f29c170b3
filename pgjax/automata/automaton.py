"""The record of an automaton, its check, and its score of one sequence."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._doors import readable
from pgjax._records import PyTree, one_line


class Automaton(NamedTuple):
    """A finite automaton that scores a sequence of tokens; all leaves may be vmapped.

    Attributes:
        start: int32 `[]`, the state before the first token.
        next: int32 `[S, V]`, the state after token a is read in state q.
        rewards: float `[S, V]`, what is added to the score when token a is read in state q.
        final: float `[S]`, what is added to the score once, in the state in which the sequence ends.
    """

    start: PyTree
    next: PyTree
    rewards: PyTree
    final: PyTree

    def __repr__(self) -> str:
        return one_line(self)


@readable
def make_automaton(
    next: np.ndarray, *, rewards: np.ndarray | None = None, final: np.ndarray | None = None, start: int = 0
) -> Automaton:
    """An automaton from its tables, which are checked.

    Args:
        next: integers `[S, V]`, the state after each token in each state.
        rewards: `[S, V]`; zeros if None.
        final: `[S]`; zeros if None.
        start: the state before the first token.

    Raises:
        ValueError: if a table has a wrong shape, a state is outside 0 … S − 1, or a score is not finite.

    Example: one point for each token 1.

        >>> import numpy as np
        >>> from pgjax import automata
        >>> ones = automata.make_automaton(np.zeros((1, 2), int), rewards=np.array([[0.0, 1.0]]))
        >>> float(automata.score(ones, np.array([1, 0, 1, 1]), 3))
        2.0
    """
    next = np.asarray(next)
    if next.ndim != 2 or 0 in next.shape or not np.issubdtype(next.dtype, np.integer):
        raise ValueError(f"next must be integers of shape [S, V], got shape {next.shape} and type {next.dtype}")
    states = next.shape[0]
    if next.min() < 0 or next.max() >= states:
        bad = next[(next < 0) | (next >= states)][0]
        raise ValueError(f"next must hold states in [0, {states - 1}], got {bad}")
    if not 0 <= start < states:
        raise ValueError(f"start must be a state in [0, {states - 1}], got {start}")
    tables = {"rewards": (rewards, next.shape), "final": (final, (states,))}
    scores = {name: _numbers(name, table, shape) for name, (table, shape) in tables.items()}
    return Automaton(start=np.int32(start), next=next.astype(np.int32), **scores)


def _numbers(name: str, table: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    table = np.zeros(shape) if table is None else np.asarray(table, float)
    if table.shape != shape:
        raise ValueError(f"{name} must have shape {shape}, got {table.shape}")
    if not np.isfinite(table).all():
        raise ValueError(f"{name} must be finite, got {table[~np.isfinite(table)][0]}")
    return table


@readable
def score(automaton: Automaton, tokens: jax.typing.ArrayLike, length: jax.typing.ArrayLike) -> jax.Array:
    """The score `[]` of the first n = `length` tokens of a sequence `[N]`; the other tokens have no influence.

    score = Σ_{t ≤ n} rewards[q_t, a_t] + final[q_{n+1}]
    """
    tokens = jnp.asarray(tokens)
    after, rewards = jnp.asarray(automaton.next), jnp.asarray(automaton.rewards)

    def read(carry: tuple[jax.Array, jax.Array], at: tuple[jax.Array, jax.Array]):
        (state, total), (place, token) = carry, at
        inside = place < length
        total = total + jnp.where(inside, rewards[state, token], 0.0)
        return (jnp.where(inside, after[state, token], state), total), None

    start = (jnp.asarray(automaton.start, jnp.int32), jnp.zeros((), rewards.dtype))
    (state, total), _ = jax.lax.scan(read, start, (jnp.arange(tokens.shape[0]), tokens.astype(jnp.int32)))
    return total + jnp.asarray(automaton.final)[state]
