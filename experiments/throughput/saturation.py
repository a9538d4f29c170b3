"""The batch size at which a device is busy: the smallest one whose rate is within 5 % of the best measured rate."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from experiments.harness import runner

WITHIN = 0.05
HEADERS = ("workload", "program", "smallest batch within 5 %", "M/s there", "best M/s", "at once")


class Point(NamedTuple):
    """The rate of a program at one batch size: live steps or tokens per second."""

    workload: str
    program: str
    batch: int
    rate: float


class Saturation(NamedTuple):
    """Where the rate of a program stops to grow.

    Attributes:
        workload, program: names.
        batch, rate: the smallest batch size whose rate is at least 0.95 times the best one, and this rate.
        best_batch, best_rate: the batch size with the best rate, and this rate.
        largest: the largest batch size that was measured.
    """

    workload: str
    program: str
    batch: int
    rate: float
    best_batch: int
    best_rate: float
    largest: int

    @property
    def grows(self) -> bool:
        """Whether only the largest batch is near the best rate, so that a larger one could be faster."""
        return self.batch == self.largest


def saturations(points: Iterable[Point]) -> list[Saturation]:
    """The saturation of each program that was measured at several batch sizes, in the order of the points."""
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        groups.setdefault((point.workload, point.program), []).append(point)
    found = []
    for (workload, program), group in groups.items():
        if len({point.batch for point in group}) < 2:
            continue
        best = max(group, key=lambda point: point.rate)
        first = min((one for one in group if one.rate >= (1 - WITHIN) * best.rate), key=lambda one: one.batch)
        found.append(
            Saturation(
                workload=workload,
                program=program,
                batch=first.batch,
                rate=first.rate,
                best_batch=best.batch,
                best_rate=best.rate,
                largest=max(point.batch for point in group),
            )
        )
    return found


def cells(one: Saturation) -> list[str]:
    """The line of a table with `HEADERS`."""
    millions = (f"{rate / 1e6:.3g}" for rate in (one.rate, one.best_rate))
    rate, best_rate = millions
    return [one.workload, one.program, f"{one.batch:,}", rate, best_rate, f"{one.best_batch:,}"]


def sentence(one: Saturation) -> str:
    """What a user of `experiments.train` does with it."""
    what = f"{one.workload}, {one.program}"
    if one.grows:
        return (
            f"{what}: the rate still grows at the largest measured batch, so --num-episodes {one.batch} of "
            "experiments.train is the fastest measured batch, and a larger one may be faster."
        )
    return (
        f"{what}: --num-episodes {one.batch} of experiments.train is the smallest measured batch whose rate is within "
        f"5 % of the best one."
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
        recorder.row(quantity="(b) smallest batch within 5 % of the best rate", variant=where, ours=one.batch)
    chosen = set(learning)
    for one in found:
        if (one.workload, one.program) in chosen:
            recorder.note(sentence(one))
