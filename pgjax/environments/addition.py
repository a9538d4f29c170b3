"""Add two numbers, digit by digit: a small task of calculation with one right answer to each prompt.

Axes: d digits of a summand, P = 2 d + 2 places of a prompt, T = d + 1 new tokens.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import tokens
from pgjax._checks import require_integer, require_one_of
from pgjax.environments.right_answers import Paid, Reward, make_right_answer_text
from pgjax.environments.text import TextBuffer
from pgjax.types import Environment

Sums = Literal["train", "held_out", "every"]
DIGITS = tokens.alphabet("0123456789+=")
_MOST_DIGITS = 3  # of 10⁶ pairs, 8 MB of prompts
_HELD_OUT_OF = 8


def make_addition(
    digits: int = 2,
    reward: Reward = "share",
    paid: Paid = "each",
    lowest_first: bool = True,
    sums: Sums = "every",
) -> Environment:
    """Write the d + 1 digits of a + b after the prompt "a+b=", the lowest digit first: "211" after "37+75=".

    X_1 is a `TextBuffer` with two numbers of d digits, with zeros in front, drawn uniformly. A_t is a digit, and the
    answer ends when d + 1 digits are written, also those that are a leading zero of the sum. The score and the metrics
    are those of `make_right_answer_text`.

    Args:
        digits: d, from 1 to 3.
        reward: `"share"` or `"all"`, see `make_right_answer_text`.
        paid: `"end"` or `"each"`, see `make_right_answer_text`.
        lowest_first: whether the answer begins with its lowest digit ("211" for 112). The carry to the next digit can
            then be read from the digits that are already written. With False the answer begins with its highest digit
            ("112"), which depends on all carries at once, and the task is much harder to learn.
        sums: `"every"` pair (a, b), or one of two parts without a common pair: `"held_out"`, about an eighth of the
            pairs, or `"train"`, all others. A hash of the two numbers decides, so the digits and the carries of both
            parts have nearly the same frequencies. The pairs (a, b) and (b, a) are always in one part, so no held-out
            sum is in training with its summands exchanged.

    Raises:
        ValueError: for a number of digits out of range, or an unknown choice.

    Source: Lee, Sreenivasan, Lee, Lee & Papailiopoulos (2023), "Teaching arithmetic to small transformers", where the
    lowest digit comes first.

    Example:
        >>> from pgjax import environments
        >>> environments.make("addition", digits=1).horizon
        2
    """
    require_integer("digits", digits, 1, _MOST_DIGITS)
    require_one_of("sums", sums, get_args(Sums))
    powers = 10 ** np.arange(digits)[::-1]
    vocabulary = DIGITS.vocabulary

    def right_answer(buffer: TextBuffer) -> tuple[jax.Array, jax.Array]:
        of_numbers = buffer.tokens[: 2 * digits + 1].astype(jnp.int32)
        total = jnp.sum((of_numbers[:digits] + of_numbers[digits + 1 :]) * powers)
        places = 10 ** np.arange(digits + 1)
        return total // (places if lowest_first else places[::-1]) % 10, jnp.asarray(digits + 1)

    return make_right_answer_text(
        "addition",
        _prompts(digits, sums),
        right_answer,
        reward=reward,
        paid=paid,
        max_new_tokens=digits + 1,
        vocabulary=vocabulary,
        allowed=np.arange(vocabulary) < 10,
    )


def _prompts(digits: int, sums: Sums) -> np.ndarray:
    """The prompts uint8 `[N, 2 d + 2]` of the pairs of a part."""
    first, second = (number.ravel() for number in np.indices((10**digits, 10**digits)))
    held_out = _hash(first, second, 10**digits) % _HELD_OUT_OF == 0
    kept = {"every": np.ones_like(held_out), "held_out": held_out, "train": ~held_out}[sums]
    of = lambda number: number[kept, None] // 10 ** np.arange(digits)[::-1] % 10
    plus, equals = (np.full((kept.sum(), 1), token) for token in DIGITS.encode("+="))
    return np.concatenate([of(first), plus, of(second), equals], axis=1).astype(np.uint8)


def _hash(first: np.ndarray, second: np.ndarray, numbers: int) -> np.ndarray:
    """A hash of every pair without its order, uint32 `[N]`: the last steps of MurmurHash3 (Appleby 2008)."""
    mixed = (np.minimum(first, second) * numbers + np.maximum(first, second)).astype(np.uint32)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        mixed = (mixed ^ (mixed >> np.uint32(shift))) * np.uint32(factor)
    return mixed ^ (mixed >> np.uint32(16))
