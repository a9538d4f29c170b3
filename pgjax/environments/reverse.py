"""Reverse a string: a small problem of writing symbols, with one reward after the last symbol.

Axes: n symbols of the string, L = 2 n places of the buffer, V symbols of the vocabulary, S states.
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer, require_one_of
from pgjax.exact.mdp.tabular import TabularMDP, make_tabular_mdp
from pgjax.types import Box, Discrete, Environment, PyTree, Step

_MOST_STATES = 100_000
Paid = Literal["share", "all"]
Prompts = Literal["every", "train", "held_out"]
_REWARDS: dict[Paid, Callable[[Any], Any]] = {"share": lambda right: right.mean(-1), "all": lambda right: right.all(-1)}


class TokenBuffer(NamedTuple):
    """All tokens so far; the prompt stands first.

    Attributes:
        tokens: uint8 `[L]`; places that are not yet written hold 0.
        length: int32 `[]`, the number of places that are written.
    """

    tokens: PyTree
    length: PyTree


def _right(tokens: Any) -> Any:
    """Bool `[..., n]`, true for the symbols of the answer that equal the reversed prompt, for tokens `[..., 2 n]`."""
    half = tokens.shape[-1] // 2
    return tokens[..., half:] == tokens[..., :half][..., ::-1]


def all_right(buffer: TokenBuffer) -> jax.Array:
    """Bool `[...]`, whether the buffer is full and its answer is the reversed prompt: the measure of success.

    The `final_obs` of a trajectory is such a buffer, with leaves `[B, ...]`.
    """
    return _right(buffer.tokens).all(-1) & (buffer.length == buffer.tokens.shape[-1])


def make_reverse(
    length: int = 5, vocabulary: int = 9, reward: Paid = "share", prompts: Prompts = "every"
) -> Environment:
    """Write n symbols after a prompt of n random symbols, so that they are the prompt reversed.

    X_1 is a `TokenBuffer` with the prompt, uniform over the strings of a part. A_t writes one symbol into the next
    place. The episode ends when n symbols are written, and only then a reward is paid. The best return is 1, for an
    answer without a wrong symbol (the metric `all_right`); the uniform policy gets 1/V with `"share"` and V⁻ⁿ with
    `"all"`.

    Args:
        length: n.
        vocabulary: V, from 2 to 256.
        reward: `"share"`, the share of right symbols, which can be learnt from rewards alone; or `"all"`, 1 if all
            symbols are right and else 0, a reward that a new policy almost never gets unless Vⁿ is small.
        prompts: `"every"` string, or one of two parts without a common string: `"held_out"`, those whose symbols add up
            to 0 modulo V, or `"train"`, all others.

    Raises:
        ValueError: for a number out of range, or an unknown reward or part.
    """
    _check(length, vocabulary, reward)
    require_one_of("prompts", prompts, get_args(Prompts))
    places, score = 2 * length, _REWARDS[reward]

    def draw(key: jax.Array) -> jax.Array:
        prompt = jax.random.randint(key, (length,), 0, vocabulary, jnp.int32)
        if prompts == "every":
            return prompt
        # The last symbol decides the sum, so a uniform sum makes the string uniform over its part.
        total = 0 if prompts == "held_out" else jax.random.randint(jax.random.fold_in(key, 1), (), 1, vocabulary)
        return prompt.at[-1].set((total - jnp.sum(prompt[:-1])) % vocabulary)

    def reset(key: jax.Array, params: tuple) -> tuple[TokenBuffer, TokenBuffer]:
        tokens = jnp.concatenate([draw(key).astype(jnp.uint8), jnp.zeros(length, jnp.uint8)])
        buffer = TokenBuffer(tokens=tokens, length=jnp.asarray(length, jnp.int32))
        return buffer, buffer

    def step(key: jax.Array, state: TokenBuffer, action: jax.Array, params: tuple) -> tuple[TokenBuffer, Step]:
        tokens = jnp.where(jnp.arange(places) == state.length, action.astype(jnp.uint8), state.tokens)
        buffer = TokenBuffer(tokens=tokens, length=jnp.minimum(state.length + 1, places))
        full = buffer.length == places
        paid = jnp.where(full, score(_right(tokens)).astype(jnp.float32), 0.0)
        return buffer, Step(obs=buffer, reward=paid, terminated=full)

    return Environment(
        name="reverse",
        reset=reset,
        step=step,
        params=(),
        observation_space=TokenBuffer(
            tokens=Box(low=0, high=vocabulary - 1, shape=(places,), dtype=jnp.uint8), length=Discrete(places + 1)
        ),
        action_space=Discrete(vocabulary),
        horizon=length,
        metrics=lambda state, obs, params: {"all_right": all_right(obs).astype(jnp.float32)},
    )


def reverse_mdp(length: int = 2, vocabulary: int = 2, reward: Paid = "share") -> TabularMDP:
    """`make_reverse` as an MDP with one state for each buffer that can occur, for exact values and enumeration.

    S = Vⁿ (1 + V + … + Vⁿ): 28 for n = V = 2, 120 for n = 3 and V = 2. The observations are the `TokenBuffer`s, leaves
    `[S, ...]`, so a policy of buffers can be used without changes.

    Raises:
        ValueError: as `make_reverse`, and for more than 100 000 states.
    """
    _check(length, vocabulary, reward)
    places, counts = 2 * length, vocabulary ** np.arange(length, 2 * length + 1, dtype=object)
    if counts.sum() > _MOST_STATES:
        raise ValueError(
            f"length={length} and vocabulary={vocabulary} give {counts.sum()} states, must be at most {_MOST_STATES}"
        )
    counts = counts.astype(int)
    # The states of one length stand together, ordered by their tokens read as a number in base V.
    first = np.cumsum(counts) - counts
    lengths = np.repeat(np.arange(length, places + 1), counts)
    codes = np.arange(counts.sum()) - np.repeat(first, counts)
    exponents = lengths[:, None] - 1 - np.arange(places)
    tokens = np.where(exponents >= 0, codes[:, None] // vocabulary ** np.maximum(exponents, 0) % vocabulary, 0)

    actions, full = np.arange(vocabulary), lengths == places
    following = np.append(first, 0)[lengths - length + 1]
    appended = (following + codes * vocabulary)[:, None] + actions
    successors = np.where(full[:, None], np.arange(full.size)[:, None], appended)
    paid = np.where(full, _REWARDS[reward](_right(tokens)), 0.0)[successors]
    return make_tabular_mdp(
        initial=(lengths == length) / counts[0],
        successors=successors[:, :, None],
        probabilities=np.ones((*successors.shape, 1)),
        rewards=paid[:, :, None],
        terminal=full,
        observations=TokenBuffer(tokens=tokens.astype(np.uint8), length=lengths.astype(np.int32)),
        horizon=length,
        name="reverse",
    )


def _check(length: int, vocabulary: int, reward: Paid) -> None:
    require_integer("length", length, 1, None)
    require_integer("vocabulary", vocabulary, 2, 256)
    require_one_of("reward", reward, get_args(Paid))
