"""The order in which a person sees the pairs: shuffled, without a sign of their origin, and some of them twice."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

from experiments.preferences.pairs import Pair


class Trial(NamedTuple):
    """One question to the person.

    Attributes:
        pair: the two answers.
        occurrence: 0 where the pair is shown for the first time, 1 where it is shown again.
        exchanged: whether the second answer of the pair is shown first.
    """

    pair: Pair
    occurrence: int
    exchanged: bool

    @property
    def name(self) -> str:
        return f"{self.pair.name}-{self.occurrence}"

    @property
    def shown(self) -> tuple[str, str]:
        """The answers in the order in which the person sees them."""
        one, other = self.pair.answers
        return (other, one) if self.exchanged else (one, other)


def _number(seed: int, word: str, pair: Pair) -> int:
    """A number below 2⁶⁴ that depends on the seed, the use and the pair, and on no other pair."""
    return int.from_bytes(hashlib.sha256(f"{seed} {word} {pair.name}".encode()).digest()[:8], "big")


def order(pairs: Sequence[Pair], seed: int, repeat_share: float) -> list[Trial]:
    """All trials, the same for the same arguments in any process.

    The pairs are shuffled and cut into blocks of b = round(1 / `repeat_share`). One pair of the first half of each
    block is shown again behind the following block, with its answers exchanged, so that a person who always chooses the
    left answer has no self-agreement. After the last block its own repeat follows at once. A block of fewer than b/2
    pairs has no repeat.

    Pairs that are added to the file later leave the order of the others as it is, and their first sides as well.

    Args:
        pairs: the pairs, in any order.
        seed: the seed of the order and of the sides.
        repeat_share: the number of repeats divided by the number of pairs, from 0 (none) to 0.5.
    """
    shuffled = sorted(pairs, key=lambda pair: _number(seed, "place", pair))
    # The side is a property of the two answers, whichever of them the file lists first.
    flipped = lambda pair: bool(_number(seed, "side", pair) % 2) != (pair.answers[0] > pair.answers[1])
    trials = [Trial(pair=pair, occurrence=0, exchanged=flipped(pair)) for pair in shuffled]
    if repeat_share == 0:
        return trials
    length = round(1 / repeat_share)
    blocks = [trials[start : start + length] for start in range(0, len(trials), length)]
    again, ordered = [], []
    for block in blocks:
        ordered += block + again
        again = []
        if 2 * len(block) >= length:
            chosen = block[_number(seed, "again", block[0].pair) % max(1, len(block) // 2)]
            again = [chosen._replace(occurrence=1, exchanged=not chosen.exchanged)]
    return ordered + again
