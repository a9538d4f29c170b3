"""How well answers agree: with a person's own earlier answers, and between persons. NumPy, on the host.

Axes: N pairs that were judged twice; categories are small integers.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from pgjax.diagnostics import Estimate

NORMAL_95 = 1.959963984540054


class Agreement(NamedTuple):
    """How well two judgements of the same N pairs agree.

    Attributes:
        count: N.
        share: the share of pairs with equal judgements, with its Wilson interval of 95 %; None if N = 0.
        kappa: Cohen's κ with its interval of 95 %; None if N = 0, or if all judgements are the same kind of tie.
    """

    count: int
    share: Estimate | None
    kappa: Estimate | None


def wilson(hits: int, count: int) -> Estimate:
    """The share p̂ = k / N of hits, and the interval of 95 % that Wilson's score test does not reject.

    (p̂ + z²/2N ± z √(p̂ (1 − p̂)/N + z²/4N²)) / (1 + z²/N),  z = 1.96.

    It has a length above 0 also for k = 0 and k = N. The standard error is √(p̂ (1 − p̂) / N).

    Raises:
        ValueError: N is below 1, or k is outside 0 … N.

    Source: Wilson 1927 (Probable inference, the law of succession, and statistical inference).
    """
    if count < 1 or not 0 <= hits <= count:
        raise ValueError(f"hits must be between 0 and count, and count at least 1, got {hits} of {count}")
    z, p = NORMAL_95, hits / count
    centre, scale = p + z**2 / (2 * count), 1 + z**2 / count
    margin = z * math.sqrt(p * (1 - p) / count + z**2 / (4 * count**2))
    low, high = max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)
    return Estimate(value=p, stderr=math.sqrt(p * (1 - p) / count), low=low, high=high)


def agreement(first: Sequence[int], second: Sequence[int]) -> Agreement:
    """The share of equal judgements p_o, and Cohen's κ = (p_o − p_e) / (1 − p_e).

    p_e = Σ_c p_c q_c is the agreement that two independent judges would reach who use the category c with the same
    shares p_c and q_c. Which answer of a pair is called 0 and which 1 has no meaning, so each pair is counted in both
    orders: p_0 = p_1 is half of the share of choices, and two judges who only choose reach p_e = ½.
    The interval of κ is the interval of p_o with p_e taken as known, so that it has a length above 0 also where all
    judgements agree.

    Args:
        first, second: the categories of both judgements, `[N]`: 0 and 1 for the two answers, larger numbers for ties.

    Source: Cohen 1960 (A coefficient of agreement for nominal scales).
    """
    a, b = np.asarray(first, int), np.asarray(second, int)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"first and second must be [N] alike, got {a.shape} and {b.shape}")
    if a.size == 0:
        return Agreement(count=0, share=None, kappa=None)
    share = wilson(int(np.sum(a == b)), a.size)
    chance = float(0.5 * np.mean(a < 2) * np.mean(b < 2))
    chance += float(sum(np.mean(a == c) * np.mean(b == c) for c in np.union1d(a, b) if c >= 2))
    if chance == 1:
        return Agreement(count=a.size, share=share, kappa=None)
    above = lambda p: (p - chance) / (1 - chance)
    kappa = Estimate(
        value=above(share.value), stderr=share.stderr / (1 - chance), low=above(share.low), high=above(share.high)
    )
    return Agreement(count=a.size, share=share, kappa=kappa)
