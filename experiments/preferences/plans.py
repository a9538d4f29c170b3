"""How many labels one annotator has to give, from the pairs that this annotator judged twice."""

from collections.abc import Sequence
from typing import NamedTuple

from experiments.preferences import planning
from experiments.preferences.agreement import agreement

ASSUMED = 0.8  # the self-agreement of the forecast before there is enough of it to measure
LEAST_REPEATS = 5


class Plan(NamedTuple):
    """How many labels are needed that prefer one answer.

    Attributes:
        share, low, high: the self-agreement with its interval; the interval is (None, None) where it is assumed.
        repeats: the number of pairs in which one answer was preferred twice.
        needed: the number of labels with which a reward model is expected to reach the target; None if it is above
            `most`.
        fewest, most_needed: the same for the ends of the interval.
        most: the largest number of labels that is tried.
    """

    share: float
    low: float | None
    high: float | None
    repeats: int
    needed: int | None
    fewest: int | None
    most_needed: int | None
    most: int = planning.SIZES[-1]


def plan(first: Sequence[int], second: Sequence[int], target: float, features: int) -> Plan:
    """The number of labels that are needed, from all pairs that one annotator judged twice.

    The Bradley–Terry model has no ties, so a pair counts if both judgements prefer an answer.

    Args:
        first, second: the categories of both judgements, see `labels.category`.
    """
    chosen = [(one, other) for one, other in zip(first, second, strict=True) if max(one, other) < 2]
    found = agreement([one for one, _ in chosen], [other for _, other in chosen])
    if found.share is None or found.count < LEAST_REPEATS:
        number = planning.needed(ASSUMED, target, features)
        return Plan(
            share=ASSUMED, low=None, high=None, repeats=found.count, needed=number, fewest=None, most_needed=None
        )
    value, low, high = (float(getattr(found.share, name)) for name in ("value", "low", "high"))
    numbers = [planning.needed(share, target, features) for share in (value, high, low)]
    return Plan(
        share=value,
        low=low,
        high=high,
        repeats=found.count,
        needed=numbers[0],
        fewest=numbers[1],
        most_needed=numbers[2],
    )
