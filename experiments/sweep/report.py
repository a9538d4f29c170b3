"""The report of a sweep: the table of estimators and settings, the rows, the notes, and the sentence of failures."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness import runner
from experiments.shared import coinciding, references
from experiments.shared.training import build
from experiments.sweep.grid import Grid, described, word
from experiments.sweep.learning import EPISODES, Trained
from experiments.sweep.results import Result, Summary, best_of, difference, median_interval
from pgjax import diagnostics

RETURN, UPDATES = "evaluated return, mean over seeds", "updates to the threshold, median over seeds"


def report(
    found: Mapping[str, list[Summary]], grid: Grid, threshold: float | None, num_updates: int, recorder: runner.Recorder
) -> None:
    """Record the table, and the rows of each setting of each estimator."""
    lines = []
    for name, summaries in found.items():
        best = best_of(summaries)
        for number, (setting, summary) in enumerate(zip(grid.settings, summaries, strict=True)):
            _rows(name, setting, summary, threshold, recorder)
            beside = _beside(summaries, number, best)
            values = [f"{value:g}" for value in setting.values()]
            mean, failed = summary.mean, f"{summary.num_failed} of {grid.num_seeds}" if summary.num_failed else ""
            shown = "all failed" if not np.isfinite(mean.value) else _number(mean)
            interval = runner.format_interval(float(mean.low), float(mean.high), digits=4)
            lines.append((name, *values, shown, interval, beside, _updates(summary.solved, num_updates), failed))
    names = [word(name) for name in grid.values]
    headers = [
        "estimator",
        *names,
        "return ± s.e.",
        "95 % interval",
        "minus the best",
        f"updates to {threshold}",
        "failed",
    ]
    if threshold is not None:
        headers[-2] = f"updates to {threshold:g}"
    kept = [n for n in range(len(headers)) if n < len(headers) - 2 or any(line[n] for line in lines)]
    pick = lambda cells: [cells[n] for n in kept]
    recorder.table("Sweep", pick(headers), [pick(line) for line in lines])


def _number(mean: diagnostics.Estimate) -> str:
    return runner.format_number(float(mean.value), float(mean.stderr))


def _beside(summaries: Sequence[Summary], number: int, best: int | None) -> str:
    """How a setting compares with the best one of its estimator, seed by seed."""
    if best is None or number == best:
        return "best" if number == best else ""
    found = difference(summaries[number], summaries[best])
    return "" if found is None else runner.format_interval(float(found.low), float(found.high), digits=3)


def _updates(solved: np.ndarray, num_updates: int) -> str:
    """`34 [28, 41], 16 of 16`: the median, its interval, and how many runs get there; `> 60` after the last."""
    if np.isnan(solved).all():
        return ""
    number = lambda x: f"{x:g}" if np.isfinite(x) else f"> {num_updates}"
    low, high = median_interval(solved)
    interval = "" if np.isnan(low) else f" [{number(low)}, {number(high)}]"
    return f"{number(float(np.median(solved)))}{interval}, {int(np.isfinite(solved).sum())} of {len(solved)}"


def _rows(name: str, setting: dict, summary: Summary, threshold: float | None, recorder: runner.Recorder) -> None:
    variant = ", ".join(filter(None, (name, described(setting))))
    mean = summary.mean
    if np.isfinite(mean.value):
        recorder.row(quantity=RETURN, variant=variant, ours=float(mean.value), stderr=float(mean.stderr))
    else:
        recorder.row(quantity=RETURN, variant=variant, verdict="not measured: all runs failed")
    if threshold is not None and np.isfinite(median := float(np.median(summary.solved))):
        recorder.row(quantity=f"{UPDATES} ({threshold:g})", variant=variant, ours=median)


def notes(
    found: Mapping[str, list[Summary]],
    grid: Grid,
    options: Mapping[str, Any],
    threshold: float | None,
    recorder: runner.Recorder,
) -> None:
    """Say which setting is best for each estimator, and how to read the table; `options` are those of one estimator."""
    episodes, num_updates = options["eval_episodes"], options["num_updates"]
    sentences = []
    for name, summaries in found.items():
        best = best_of(summaries)
        if best is None or len(summaries) < 2:
            continue
        beside = {n: difference(summaries[n], summaries[best]) for n in range(len(summaries)) if n != best}
        like = [described(grid.settings[n]) for n, gap in beside.items() if gap is not None and gap.high >= 0]
        rest = f" (not distinguishable from it: {'; '.join(like)})" if like else ""
        sentences.append(f"{name}: {described(grid.settings[best])}{rest}")
    if sentences:
        recorder.note(f"Best for each estimator: {'. '.join(sentences)}.")
    recorder.note(
        f"A return is the mean over {grid.num_seeds} seeds of the mean over {episodes} evaluated episodes, the same "
        "starts for all runs. Intervals are those of Student's t over seeds. 'minus the best' compares a setting with "
        "the best one of the same estimator, seed by seed. The best setting was chosen by these returns, so its return "
        "is overestimated: train it with new seeds to state its value. Failed runs are left out of returns."
    )
    if threshold is not None:
        recorder.note(
            f"'updates to {threshold:g}' is the median over seeds of the first update whose latest {EPISODES} training "
            "episodes average that return, with its 95 % interval from order statistics, and the number of runs that "
            f"get there. '> {num_updates}' stands for runs that do not get there within their {num_updates} updates."
        )
    if few := diagnostics.few_runs(grid.num_seeds, "seeds"):
        recorder.note(few)


def coincidences(
    prints: Mapping[str, np.ndarray], options: Mapping[str, Mapping[str, Any]], recorder: runner.Recorder
) -> None:
    """Note which estimators trained the same parameters; `prints` are their fingerprints `[S, ...]`."""
    entries = {name: build.find(name) for name in prints}
    for group in coinciding.groups(prints):
        recorder.note(coinciding.sentence(group, entries, options[group[0]], "parameters in every run"))


def failures(results: Sequence[Result], grid: Grid) -> str:
    """One line that names every failed run with its update; empty if no run has failed."""
    name = lambda run: ", ".join(
        filter(None, (run.estimator, described(grid.settings[run.setting]), f"seed {run.seed}"))
    )
    failed = [f"{name(run)}: {run.failure}" for run in results if run.failure]
    if not failed:
        return ""
    kept = "; the others are complete" if len(failed) < len(results) else ""
    return f"{len(failed)} of {len(results)} runs failed{kept}: {'; '.join(failed)}"


def report_times(trained: Sequence[Trained], together: bool, recorder: runner.Recorder) -> None:
    """Record the time of the trainings: of one program for all estimators, or of one program for each."""
    used = trained[:1] if together else trained  # the runs of one program all have its times
    times = ("compile_seconds", "seconds", "cpu_seconds")
    compiled, learned, cpu = (sum(getattr(one, name) for one in used) for name in times)
    variant = "one program" if together else f"{len(trained)} programs"
    recorder.row(quantity="compilation", variant=variant, seconds=compiled)
    recorder.row(quantity="training without compilation", variant=variant, seconds=learned)
    recorder.row(quantity=f"{references.CPU_TIME}, compilation included", variant=variant, seconds=cpu)
    wall = f"compiled in {compiled:.1f} s, learned in {learned:.1f} s"
    recorder.note(f"Training in {variant}: {wall}; {cpu:.0f} s of CPU time in all.")
