"""Parts (b) and (c): the rates of every program against the batch size, as shares of the machine's limits."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax

from experiments.harness import memory, reports, runner, verdicts
from experiments.throughput import saturation
from experiments.throughput.counting import Count
from experiments.throughput.limits import NARROW, Limits
from experiments.throughput.measuring import Measured, measure, span
from experiments.throughput.workloads import CARTPOLE, CRITIC, PLAIN, ROLLOUT, Workload

AIMS = {PLAIN: 3.2e6, CRITIC: 2.0e6}  # live steps per second on CartPole-v1
SHARE_AIM, SHARE_BATCH = 0.65, 1024  # of the rate of narrow products, by REINFORCE
MANY, GROWTH_AIM = 65536, 1.2  # with so many episodes a live step must not cost much more than with 1 024
HEADERS = (
    "workload",
    "program",
    "at once",
    "M/s",
    "lowest to highest",
    "CPU µs each",
    "compile s",
    "first result s",
    "arrays MiB",
    "process MiB",
    "kFLOP each",
    "bytes each",
    "share of the limit",
)
COLUMNS = (
    "Rates: M/s are millions of live steps or tokens a second. Arrays are those of the program on one device, as the "
    "compiler planned them; the memory of the process is its largest while the program ran. Operations are counted by "
    "the compiler in pieces without loops. Bytes are those that must pass the memory: the rows that the rollout "
    "stores and the update reads; the parameters stay in the caches. The limit is the nearer one of arithmetic and "
    "memory (the roofline)."
)


class Rate(NamedTuple):
    """One program at one batch size.

    Attributes:
        workload, unit, program: names.
        batch: the number of episodes, lanes or answers at once.
        measured: its measurements.
        count: the cost of a step; None where nobody counted.
        share, limit: the share of the nearer limit, and "arithmetic" or "memory"; None without a count.
    """

    workload: str
    unit: str
    program: str
    batch: int
    measured: Measured
    count: Count | None
    share: float | None
    limit: str | None

    @property
    def median(self) -> float:
        return statistics.median(self.measured.rates)


class How(NamedTuple):
    """How programs are measured.

    Attributes:
        limits: the limits of the machine.
        seconds, repetitions: the least seconds of a repetition, and the number of repetitions.
        programs: the names of the programs in the order of measurement; none measures all of them.
        heard: is called with each rate as soon as it is measured.
        errors: gets the errors of JAX, except those that say that the memory is too small.
    """

    limits: Limits
    seconds: float
    repetitions: int
    programs: Sequence[str]
    heard: Callable[[Rate], None]
    errors: list[Exception]


def measure_workload(workload: Workload, batches: Sequence[int], how: How, recorder: runner.Recorder) -> None:
    """The programs of a workload at every batch size. A program that fails is left out, and the others are measured."""
    for batch in batches:
        made = workload.programs(batch)
        for name in (name for name in how.programs or made if name in made):
            try:
                one = measure(made[name], batch, how.seconds, how.repetitions)
            except jax.errors.JaxRuntimeError as error:
                _record_failure(f"{workload.name}, {name}, {batch} at once", workload.unit, error, how, recorder)
                continue
            count, median = workload.counts.get(name), statistics.median(one.rates)
            share, limit = how.limits.share(median, count.operations, count.moved) if count else (None, None)
            how.heard(Rate(workload.name, workload.unit, name, batch, one, count, share, limit))
            recorder.metrics({"workload": workload.name, "program": name, "batch": batch, "rates": one.rates})
            if not recorder.tiny:
                recorder.say(f"{workload.name}, {name}, {batch}: {median / 1e6:.3g} M {workload.unit}/s")


def _record_failure(where: str, unit: str, error: Exception, how: How, recorder: runner.Recorder) -> None:
    exhausted = memory.is_exhausted(error)
    reason = "the memory of the device is too small" if exhausted else str(error).splitlines()[0]
    if not exhausted:
        how.errors.append(error)
    verdict = verdicts.say(verdicts.Verdict.NOT_MEASURED, reason)
    recorder.row(quantity=f"(b) 10⁶ live {unit}/s", variant=where, verdict=verdict)
    recorder.say(f"{where}: {verdict}")


def cells(rate: Rate) -> list[str]:
    one, count = rate.measured, rate.count
    shown = lambda x, pattern: "" if x is None else pattern.format(x)
    return [
        rate.workload,
        rate.program,
        str(rate.batch),
        f"{rate.median / 1e6:.3g}",
        span([x / 1e6 for x in one.rates]),
        f"{one.cpu_seconds * 1e6:.3g}",
        f"{one.compile_seconds:.1f}",
        f"{one.first_result_seconds:.1f}",
        f"{one.mebibytes:.0f}",
        shown(one.peak_mebibytes, "{:.0f}"),
        shown(count and count.operations / 1e3, "{:.3g}"),
        shown((count and count.moved) or None, "{:.0f}"),
        "" if rate.share is None else f"{100 * rate.share:.0f} %, {rate.limit}",
    ]


def record(found: Sequence[Rate], limits: Limits, recorder: runner.Recorder) -> None:
    """The table of all programs, and rows for the tools that compare runs."""
    if not found:
        return
    headers = list(HEADERS)
    recorder.table("Rates", headers, [cells(rate) for rate in found], numeric=headers[2:])
    recorder.note(COLUMNS)
    for rate in found:
        one, where = rate.measured, f"{rate.workload}, {rate.program}, {rate.batch} at once"
        recorder.row(
            quantity=f"(b) 10⁶ live {rate.unit}/s",
            variant=where,
            ours=rate.median / 1e6,
            verdict=verdicts.say(verdicts.Verdict.NOT_JUDGED, span([x / 1e6 for x in one.rates])),
            seconds=one.compile_seconds,
        )
        recorder.row(quantity="(b) CPU microseconds for each", variant=where, ours=one.cpu_seconds * 1e6)
        recorder.row(quantity="(b) memory of a device, MiB", variant=where, ours=one.mebibytes)
        if rate.share is not None:
            recorder.row(quantity=f"(c) share of the {rate.limit} limit", variant=where, ours=rate.share)
    _record_aims([rate for rate in found if rate.workload == CARTPOLE], limits, recorder)


def _record_aims(cartpole: Sequence[Rate], limits: Limits, recorder: runner.Recorder) -> None:
    tiny, peak = verdicts.is_tiny(recorder), limits.products[NARROW]
    for name, aim in AIMS.items():
        best = max((rate.median for rate in cartpole if rate.program == name), default=None)
        if best is not None:
            verdict = verdicts.of_aim(best >= aim, f"≥ {aim / 1e6:g}", tiny=tiny)
            recorder.row(quantity="(b) 10⁶ live steps/s, best", variant=name, ours=best / 1e6, verdict=verdict)
        _record_growth(name, {rate.batch: rate.median for rate in cartpole if rate.program == name}, recorder)
    for rate in cartpole:
        if rate.count is None or rate.program not in (ROLLOUT, *AIMS):
            continue
        share, judged = rate.median * rate.count.operations / peak, rate.program == PLAIN and rate.batch == SHARE_BATCH
        recorder.row(
            quantity="(c) share of the rate of products [N, 64] × [64, 64]",
            variant=f"{rate.program}, {rate.batch} episodes",
            ours=share,
            verdict=verdicts.of_aim(share >= SHARE_AIM, f"≥ {SHARE_AIM:g}", tiny=tiny) if judged else None,
        )


def _record_growth(name: str, by_batch: Mapping[int, float], recorder: runner.Recorder) -> None:
    """What a live step costs with many episodes, as a multiple of its cost with 1 024, if both were measured."""
    if SHARE_BATCH in by_batch and (most := max(by_batch)) >= MANY:
        cost = by_batch[SHARE_BATCH] / by_batch[most]
        verdict = verdicts.of_aim(cost <= GROWTH_AIM, f"≤ {GROWTH_AIM:g}", tiny=verdicts.is_tiny(recorder))
        quantity = f"(b) cost of a live step, {most} / {SHARE_BATCH} episodes"
        recorder.row(quantity=quantity, variant=name, ours=cost, verdict=verdict)


def record_limits(limits: Limits, recorder: runner.Recorder) -> None:
    for name, rate in limits.products.items():
        recorder.row(quantity="(c) limit, 10⁹ operations/s", variant=f"products, {name}", ours=rate / 1e9)
    for name, rate in limits.bandwidths.items():
        recorder.row(quantity="(c) limit, 10⁹ bytes/s", variant=f"memory, {name}", ours=rate / 1e9)
    lines = [[f"products, {name}", f"{rate / 1e9:.4g}", "GFLOP/s"] for name, rate in limits.products.items()]
    lines += [[f"memory, {name}", f"{rate / 1e9:.4g}", "GB/s"] for name, rate in limits.bandwidths.items()]
    recorder.table("Limits of the machine", ["limit", "best", "unit"], lines, numeric=["best"])


def record_all_aims(recorder: runner.Recorder) -> None:
    """The table of the rows that an aim judges, because a run with tables does not print its rows."""
    judged = [row for row in recorder.rows if ": aim " in (row["verdict"] or "") or "; aim " in (row["verdict"] or "")]
    headers, lines = reports.table(judged)
    if judged:
        recorder.table("Aims", headers, lines, numeric=[name for name in headers if name in reports.NUMERIC])


def point(rate: Rate) -> saturation.Point:
    """What the saturation is found from."""
    return saturation.Point(rate.workload, rate.program, rate.batch, rate.measured.rates)


def by_key(found: Sequence[Rate]) -> Mapping[str, Rate]:
    return {f"{rate.workload}, {rate.program}, {rate.batch}": rate for rate in found}
