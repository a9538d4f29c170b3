"""The figures: rates against the batch size, ratios to the peers, seconds to solve, and the seven problems."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness import runner
from experiments.throughput import bare
from experiments.throughput.rates import Rate
from experiments.throughput.solve import AIMS, EMPTY, without_evaluation


def draw(results: Mapping[str, Any], recorder: runner.Recorder) -> None:
    if results["rates"]:
        _rates(results["rates"], recorder)
    if results["peers"] or results["solved"]:
        _beside(results, recorder)
    if results["bare"]:
        bare.draw(results["bare"], recorder)


def _rates(found: Sequence[Rate], recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    names = list(dict.fromkeys(rate.workload for rate in found))
    best = {name: max(rate.share or 0.0 for rate in found if rate.workload == name) for name in names}
    shares = ", ".join(f"{100 * share:.0f} % ({name})" for name, share in best.items())
    columns = min(2, len(names))
    rows = -(-len(names) // columns)
    figure, axes = plots.figure(
        f"The best programs reach these shares of the machine's nearer limit: {shares}",
        "Medians with the lowest and the highest repetition. A live step is a step of an episode that still runs.",
        rows=rows,
        columns=columns,
        width=5.0 * columns,
        height=0.7 + 3.6 * rows,
    )
    panels = np.atleast_1d(axes).ravel()
    for ax, name in zip(panels, names):
        _against_batch(ax, [rate for rate in found if rate.workload == name])
    for spare in panels[len(names) :]:
        spare.remove()
    recorder.figure(figure, "throughput")


def _against_batch(ax: Any, found: Sequence[Rate]) -> None:
    """One line for each program: rate against batch size, both logarithmic."""
    from experiments.harness import plots

    ax.set(xscale="log", yscale="log", title=found[0].workload)
    programs = list(dict.fromkeys(rate.program for rate in found))
    for name, colour in plots.colours(programs).items():
        own = [rate for rate in found if rate.program == name]
        x, y = [rate.batch for rate in own], np.array([rate.median for rate in own])
        low, high = (np.array([f(rate.measured.rates) for rate in own]) for f in (min, max))
        ax.errorbar(x, y, yerr=[y - low, high - y], fmt="o-", color=colour, capsize=3, label=name)
    batches = sorted({rate.batch for rate in found})
    ax.set_xticks(batches, [f"{batch:,}" for batch in batches])
    ax.minorticks_off()
    ax.set_xlabel({"tokens": "answers at once"}.get(found[0].unit, "episodes or lanes at once"))
    ax.set_ylabel(f"live {found[0].unit} per second")
    ax.legend(fontsize=7, frameon=False)


def _beside(results: Mapping[str, Any], recorder: runner.Recorder) -> None:
    """Above: ratios to the peers; below: seconds to solve."""
    from experiments.harness import plots

    ratios = {f"{peer.workload}: {peer.label}": one.ratios for peer, one in results["peers"] if one.failure is None}
    seconds = {
        f"pgjax, {name}" if name in AIMS else name: [without_evaluation(one) for one in runs]
        for name, runs in results["solved"].items()
        if not any("failure" in one for one in runs)
    }
    labels = {"rate of pgjax / rate of the peer": ratios, "seconds to solve CartPole-v1, with compilation": seconds}
    panels = {label: values for label, values in labels.items() if values}
    if not panels:
        return
    figure, axes = plots.figure(
        _finding(ratios, seconds),
        "Medians with the lowest and the highest pair of neighbours in time, or seed. Seconds count from the start of "
        "the process, without those of evaluations.",
        rows=len(panels),
        width=10.0,
        height=1.4 + sum(0.6 + 0.34 * len(values) for values in panels.values()),
    )
    for ax, (label, values) in zip(np.atleast_1d(axes), panels.items()):
        bars = {name: (statistics.median(x), min(x), max(x)) for name, x in values.items()}
        plots.bars_with_intervals(ax, bars, scale="log")
        ax.minorticks_off()
        ax.set_xlabel(f"{label} (log scale)")
        if values is ratios:
            plots.reference_line(ax, 1.0, "equally fast", axis="x")
    recorder.figure(figure, "throughput_peers")


def _finding(ratios: Mapping[str, Sequence[float]], seconds: Mapping[str, Sequence[float]]) -> str:
    found = []
    if ratios:
        middle = [statistics.median(x) for x in ratios.values()]
        found.append(f"pgjax makes {min(middle):.3g} to {max(middle):.3g} times as many steps per second as the peers")
    medians = {name: statistics.median(x) for name, x in seconds.items()}
    theirs = [median for name, median in medians.items() if not name.startswith("pgjax")]
    if medians:
        quickest = f", the quickest peer in {min(theirs):.2g} s" if theirs else ""
        ours = min(median for name, median in medians.items() if name.startswith(f"pgjax, {EMPTY}"))
        found.append(f"with an empty cache it solves CartPole-v1 in {ours:.2g} s{quickest}")
    return "; ".join(found)
