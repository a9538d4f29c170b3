"""Text tasks with one right answer to each prompt: the score counts the places of the answer that are right.

Axes: T new tokens, L = P + T places of the buffer, N prompts, P places of a prompt.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from pgjax._checks import require_one_of
from pgjax.environments.text import TextBuffer, make_text
from pgjax.types import Environment, PyTree, Step

Reward = Literal["share", "all"]
Paid = Literal["end", "each"]
# The right answer to the prompt of a buffer: its tokens `[T]`, and how many of them belong to it, `[]`.
RightAnswer = Callable[[TextBuffer], tuple[jax.Array, jax.Array]]


def make_right_answer_text(
    name: str,
    prompts: Any,
    right_answer: RightAnswer,
    *,
    reward: Reward,
    paid: Paid,
    max_new_tokens: int,
    vocabulary: int,
    eos: int | None = None,
    allowed: Any = None,
) -> Environment:
    """`make_text` with a score that compares the answer with the right one, place by place.

    For a right answer of n tokens and an answer of which r tokens are right, each in its own place, the score is r / n
    with the reward `"share"`, and 1 if r = n and else 0 with the reward `"all"`. So the greatest return is 1, and only
    the right answer gets it. The metrics are those of `make_text`, `share_right`, which is r / n, and `all_right`.

    Args:
        name: the name of the environment.
        prompts: token numbers `[N, P]`.
        right_answer: a function of the buffer, of whose tokens it reads those of the prompt only.
        reward: `"share"` or `"all"`.
        paid: `"end"` pays the score when the answer ends. `"each"` pays every right token its 1 / n at once, so that
            the sum over the answer is the same; it needs the reward `"share"`.
        max_new_tokens: T, at least the length of every right answer.
        vocabulary: V.
        eos: the token that ends an answer, which is also the last token of the right answer; None for answers that
            always have T tokens.
        allowed: bool `[V]`, the tokens that may be written; all if None.

    Raises:
        ValueError: for an unknown word, `paid="each"` with the reward `"all"`, or what `make_text` refuses.
    """
    require_one_of("reward", reward, get_args(Reward))
    require_one_of("paid", paid, get_args(Paid))
    if paid == "each" and reward != "share":
        raise ValueError(f"paid must be 'end' with reward={reward!r}, which judges the whole answer, got {paid!r}")

    def share(buffer: TextBuffer, params: PyTree = ()) -> jax.Array:
        del params
        right, count = _right(buffer, right_answer, max_new_tokens)
        return jnp.sum(right) / jnp.asarray(count, float)

    def whole(buffer: TextBuffer, params: PyTree = ()) -> jax.Array:
        del params
        right, count = _right(buffer, right_answer, max_new_tokens)
        return (jnp.sum(right) == count).astype(float)

    environment = make_text(
        prompts,
        score=share if reward == "share" else whole,
        max_new_tokens=max_new_tokens,
        vocabulary=vocabulary,
        eos=eos,
        allowed=allowed,
    )
    at_the_end, of_text = environment.step, environment.metrics
    assert of_text is not None

    def step(key: jax.Array, state: Any, action: jax.Array, params: PyTree) -> tuple[Any, Step]:
        state_after, seen = at_the_end(key, state, action, params)
        gained = share(state_after.buffer) - share(state.buffer)
        return state_after, seen._replace(reward=gained.astype(seen.reward.dtype))

    def metrics(state: Any, obs: TextBuffer, params: PyTree) -> dict[str, jax.Array]:
        return {**of_text(state, obs, params), "share_right": share(obs), "all_right": whole(obs)}

    step = step if paid == "each" else at_the_end
    return dataclasses.replace(environment, name=name, step=step, metrics=metrics)


def _right(buffer: TextBuffer, right_answer: RightAnswer, places: int) -> tuple[jax.Array, jax.Array]:
    """Bool `[T]`, the places of the answer that are written and right, and the length of the right answer."""
    wanted, count = right_answer(buffer)
    at = jnp.arange(places)
    written = buffer.tokens[jnp.minimum(buffer.prompt_length + at, buffer.tokens.shape[0] - 1)]
    inside = (at < count) & (at < buffer.length - buffer.prompt_length)
    return inside & (written == wanted.astype(written.dtype)), count
