"""The figure of the seven problems, and a sentence on each."""

from experiments.harness import plots, runner
from experiments.which_baseline.measuring import LADDER, Measured
from pgjax import registry


def best_of(found: Measured) -> str:
    """The estimate with the smallest variance, a name in the registry."""
    return min(LADDER, key=lambda name: float(found.ratios[name].value))


def sentence(problem: str, found: Measured) -> str:
    """What was measured on one problem, in words."""
    best = best_of(found)
    ratio, average = found.ratios[best], found.ratios["reinforce_moving_average"]
    return (
        f"{problem}: {registry.ENTRIES[best].label} has the smallest variance, {float(ratio.value):.2g} times that of "
        f"G₁. A constant could take away {found.constant_share:.0%} of E[G₁²], and ρ̂ leaves "
        f"{float(average.value):.0%} of the variance. v explains {found.explained:.0%} of the variance of Gₜ over "
        f"{found.length:.0f} steps."
    )


def draw(batch: int, found: dict[str, Measured], recorder: runner.Recorder) -> None:
    """One row for each problem; the marks are the estimates, and the line at 1 is G₁."""
    best = {name: registry.ENTRIES[best_of(one)].label for name, one in found.items()}
    labels = list(dict.fromkeys(best.values()))
    winners = "; ".join(f"{label} on {', '.join(n for n, own in best.items() if own == label)}" for label in labels)
    figure, axes = plots.figure(
        f"The least noisy estimate depends on the problem: {winners}",
        f"tr Var of each estimate from {batch} episodes divided by that with G₁ on the same episodes; bars are 95 % "
        "bootstrap intervals. Policies after a few updates.",
        width=10,
        height=1.6 + 0.75 * len(found),
    )
    colour_of = plots.colours(LADDER[1:])
    for row, one in enumerate(found.values()):
        for place, name in enumerate(LADDER[1:]):
            ratio, y = one.ratios[name], row - 0.3 + 0.6 * place / (len(LADDER) - 2)
            label = registry.ENTRIES[name].label if row == 0 else None
            axes.plot([ratio.low, ratio.high], [y, y], color=colour_of[name], linewidth=2, alpha=0.6)
            axes.plot(ratio.value, y, "o", color=colour_of[name], markersize=5, label=label)
    axes.set(xscale="log", xlabel="tr Var / tr Var with G₁ (log scale; left is less noise)")
    axes.set(ylim=(len(found) - 0.5, -0.5))
    axes.set_yticks(range(len(found)), list(found))
    plots.reference_line(axes, 1.0, "G₁", axis="x")
    axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=9)
    recorder.figure(figure, "which_baseline")
