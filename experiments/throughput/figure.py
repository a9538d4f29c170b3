"""The figures: rates against the batch size, ratios to the peers, seconds to solve, and the seven problems."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness import runner
from experiments.throughput import bare
from experiments.throughput.rates import Rate
from experiments.throughput.solve import AIMS, without_evaluation


def draw(results: Mapping[str, Any], recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    found: Sequence[Rate] = results["rates"]
    names = list(dict.fromkeys(rate.workload for rate in found))
    if names:
        best = {name: max(rate.share or 0.0 for rate in found if rate.workload == name) for name in names}
        shares = ", ".join(f"{100 * share:.0f} % ({name})" for name, share in best.items())
        figure, axes = plots.figure(
            f"The best programs reach these shares of the machine's nearer limit: {shares}",
            "Medians with the lowest and the highest repetition. A live step is a step of an episode that still runs.",
            columns=len(names),
            width=4.2 * len(names),
            height=4.4,
        )
        for ax, name in zip(np.atleast_1d(axes), names):
            _against_batch(ax, [rate for rate in found if rate.workload == name])
        recorder.figure(figure, "throughput")
    if results["peers"] or results["solved"]:
        _beside(results, recorder)
    if results["bare"]:
        bare.draw(results["bare"], recorder)


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
    ax.set_xlabel("episodes, lanes or answers at once")
    ax.set_ylabel(f"live {found[0].unit} per second")
    ax.legend(fontsize=7, frameon=False)


def _beside(results: Mapping[str, Any], recorder: runner.Recorder) -> None:
    """Left: ratios to the peers; right: seconds to solve."""
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
    title = "pgjax beside other libraries, learning included" if ratios else "The time to solve CartPole-v1"
    figure, axes = plots.figure(
        title,
        "Medians with the lowest and the highest pair of neighbours in time, or seed. Seconds count from the start of "
        "the process, without those of evaluations.",
        columns=len(panels),
        width=8.5 * len(panels),
        height=1.6 + 0.34 * max(map(len, panels.values())),
    )
    for ax, (label, values) in zip(np.atleast_1d(axes), panels.items()):
        bars = {name: (statistics.median(x), min(x), max(x)) for name, x in values.items()}
        plots.bars_with_intervals(ax, bars, scale="log")
        ax.set_xlabel(f"{label} (log scale)")
        if values is ratios:
            plots.reference_line(ax, 1.0, "equally fast", axis="x")
    recorder.figure(figure, "throughput_peers")
