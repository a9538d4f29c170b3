"""The batch size at which a device is busy: the smallest one whose rate is within 5 % of the best rate.

The repetitions of a batch say how well its rate is known: it lies between the lowest and the highest of them. The best
rate then lies between the largest lowest repetition and the largest highest repetition of all batches. A batch is
*surely* near the best rate if its lowest repetition is at least 0.95 times the upper end of that interval. It *may* be
near if its highest repetition is at least 0.95 times the lower end. The smallest batch is therefore between the first
that may be near and the first that surely is (or, if none surely is, the last that may be).
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.harness import runner, verdicts
from experiments.throughput.measuring import span

WITHIN = 0.05
HEADERS = ("workload", "program", "smallest batch within 5 %", "M/s there (range)", "best M/s (range)", "at once")


class Point(NamedTuple):
    """The repetitions of a program at one batch size: live steps or tokens per second."""

    workload: str
    program: str
    batch: int
    rates: Sequence[float]


class Saturation(NamedTuple):
    """Where the rate of a program stops to grow.

    Attributes:
        workload, program: names.
        first: the smallest batch size that may be near the best rate.
        batch, rates: the smallest batch size that surely is near it, or, if none is, the largest one that may be; and
            its repetitions.
        best_batch, best_rates: the batch size with the best median, and its repetitions.
        largest: the largest batch size that was measured.
    """

    workload: str
    program: str
    first: int
    batch: int
    rates: Sequence[float]
    best_batch: int
    best_rates: Sequence[float]
    largest: int

    @property
    def grows(self) -> bool:
        """Whether only the largest batch may be near the best rate, so that a larger one could be faster."""
        return self.first == self.largest


def saturations(points: Iterable[Point]) -> list[Saturation]:
    """The saturation of each program that was measured at several batch sizes, in the order of the points."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.workload, point.program), []).append(point)
    found = []
    for (workload, program), group in groups.items():
        if len({point.batch for point in group}) < 2:
            continue
        group = sorted(group, key=lambda point: point.batch)
        low, high = max(min(point.rates) for point in group), max(max(point.rates) for point in group)
        possible = [point for point in group if max(point.rates) >= (1 - WITHIN) * low]
        sure = [point for point in group if min(point.rates) >= (1 - WITHIN) * high]
        last = sure[0] if sure else possible[-1]
        best = max(group, key=lambda point: statistics.median(point.rates))
        found.append(
            Saturation(
                workload=workload,
                program=program,
                first=possible[0].batch,
                batch=last.batch,
                rates=last.rates,
                best_batch=best.batch,
                best_rates=best.rates,
                largest=group[-1].batch,
            )
        )
    return found


def bounds(one: Saturation) -> str:
    """`1,024`, or `256 to 1,024` if the repetitions do not decide."""
    return f"{one.batch:,}" if one.first == one.batch else f"{one.first:,} to {one.batch:,}"


def cells(one: Saturation) -> list[str]:
    """The line of a table with `HEADERS`."""
    shown = []
    for rates in (one.rates, one.best_rates):
        millions = [rate / 1e6 for rate in rates]
        shown.append(f"{statistics.median(millions):.3g} ({span(millions)})")
    return [one.workload, one.program, bounds(one), *shown, f"{one.best_batch:,}"]


def sentence(one: Saturation) -> str:
    """What a user of `experiments.train` does with it."""
    what = f"{one.workload}, {one.program}"
    if one.grows:
        return (
            f"{what}: the rate still grows at the largest measured batch, so --num-episodes {one.batch} of "
            "experiments.train is the fastest measured batch, and a larger one may be faster."
        )
    if one.first == one.batch:
        return (
            f"{what}: --num-episodes {one.batch} of experiments.train is the smallest measured batch whose rate is "
            "within 5 % of the best one, in all repetitions."
        )
    return (
        f"{what}: the smallest measured batch whose rate is within 5 % of the best one is between --num-episodes "
        f"{one.first} and {one.batch} of experiments.train; the repetitions differ too much to say which one it is."
    )


def record(found: Sequence[Saturation], learning: Iterable[tuple[str, str]], recorder: runner.Recorder) -> None:
    """The table of all programs, and a sentence for each program that learns.

    Args:
        learning: the names (workload, program) of the programs that learn.
    """
    if not found:
        return
    recorder.table("Saturation", list(HEADERS), [cells(one) for one in found], numeric=list(HEADERS[2:]))
    for one in found:
        where = f"{one.workload}, {one.program}"
        verdict = verdicts.say(verdicts.Verdict.NOT_JUDGED, bounds(one))
        quantity = "(b) smallest batch within 5 % of the best rate"
        recorder.row(quantity=quantity, variant=where, ours=one.batch, verdict=verdict)
    chosen = set(learning)
    for one in found:
        if (one.workload, one.program) in chosen:
            recorder.note(sentence(one))
