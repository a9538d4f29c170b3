"""The figure of the seven problems, and a sentence on each."""

from experiments.harness import runner
from experiments.which_baseline.measuring import LADDER, Measured
from pgjax import registry


def best_of(found: Measured) -> list[str]:
    """The estimates, names in the registry, whose interval reaches down to that of the smallest variance."""
    least = min(LADDER, key=lambda name: float(found.ratios[name].value))
    return [name for name in LADDER if found.ratios[name].low <= found.ratios[least].high]


def sentence(problem: str, found: Measured) -> str:
    """What was measured on one problem, in words."""
    least = min(LADDER, key=lambda name: float(found.ratios[name].value))
    others = [registry.ENTRIES[name].label for name in best_of(found) if name != least]
    alike = f" (the intervals of {', '.join(others)} overlap with its own)" if others else ""
    ratio, average = found.ratios[least], found.ratios["reinforce_moving_average"]
    return (
        f"{problem}: {registry.ENTRIES[least].label} has the smallest variance{alike}, {float(ratio.value):.2g} times "
        f"that of G₁. A constant could take away {found.constant_share:.0%} of E[G₁²], and ρ̂ leaves "
        f"{float(average.value):.0%} of the variance. v explains {found.explained:.0%} of the variance of Gₜ over "
        f"{found.length:.0f} steps."
    )


def title_of(found: dict[str, Measured]) -> str:
    """The problems by their least noisy estimate, where one is alone; then those where several cannot be told apart."""
    best = {name: best_of(one) for name, one in found.items()}
    alone = {name: names[0] for name, names in best.items() if len(names) == 1}
    parts = [
        f"{registry.ENTRIES[label].label} on {', '.join(name for name, own in alone.items() if own == label)}"
        for label in dict.fromkeys(alone.values())
    ]
    if several := [name for name, names in best.items() if len(names) > 1]:
        parts.append(f"several alike on {', '.join(several)}")
    return f"The least noisy estimate: {'; '.join(parts)}"


def draw(batch: int, found: dict[str, Measured], recorder: runner.Recorder) -> None:
    """One row for each problem; the marks are the estimates, and the line at 1 is G₁."""
    from experiments.harness import plots

    figure, axes = plots.figure(
        title_of(found),
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
