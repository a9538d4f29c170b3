"""The figure of the gradient meter: exact against measured, and verl's proxies beside the meter."""

import numpy as np

from experiments.gradient_meter.tables import QUANTITIES, SCALE
from experiments.harness import figure_data, runner
from pgjax import diagnostics


def draw(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    grades, beside = results["grades"], results["beside"]
    ratios = [found.proxies.noise / found.noise for found in beside.values()]
    largest = max(abs(one.z) for one in grades)
    figure, (left, right) = plots.figure(
        f"The meter gives the exact noise of the gradient (largest |z| = {largest:.1f}); verl's proxy of the variance "
        f"gives {min(ratios):.2g} to {max(ratios):.2g} times the exact one",
        f"Left: means over {results['batches']:,} batches of a trainer whose θ stays; the wrong meter divides by M² in "
        "place of M (M − 1) and takes ‖ḡ‖² for ‖E ḡ‖². Right: the expectation of proxy3, B = 8, exact or a mean over "
        "as many drawn batches, divided by the exact tr Var ḡ; dots with 95 % intervals are the meter.",
        columns=2,
        width=13,
        height=5.6,
    )
    _draw_grades(left, grades)
    _draw_ratios(right, results)
    recorder.figure(figure, "gradient_meter")


def _draw_grades(axes, grades) -> None:
    from experiments.harness import plots

    shown = [QUANTITIES["variance"], QUANTITIES["squared_norm"], SCALE]
    colour_of, markers = plots.colours(shown), dict(zip(shown, "osD", strict=True))
    for quantity in shown:
        chosen = [one for one in grades if one.quantity == quantity and one.exact > 0 and one.value > 0]
        x, y = np.array([(one.exact, one.value) for one in chosen]).T
        errors = 1.96 * np.array([one.stderr for one in chosen])
        lower = np.minimum(errors, 0.99 * y)  # a logarithmic axis cannot show 0; the data file has the true bounds
        style = {"color": colour_of[quantity], "markersize": 5}
        label = f"{quantity}, 95 % interval"
        drawn = axes.errorbar(x, y, yerr=[lower, errors], fmt=markers[quantity], capsize=3, label=label, **style)
        figure_data.remember(drawn.lines[2][0], label, x, np.maximum(y - errors, 0.0), y + errors)
        twins = np.array([(one.exact, one.twin) for one in chosen if one.twin is not None]).reshape(-1, 2)
        axes.plot(*twins.T, markers[quantity], fillstyle="none", label=f"{quantity}, wrong meter", **style)
    axes.set(xscale="log", yscale="log", xlabel="exact value (units as in the legend)", ylabel="measured value")
    ends = np.array(axes.get_xlim())
    axes.plot(ends, ends, color=plots.GREY, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1, label="measured = exact")
    axes.set_xlim(*ends)
    # The legend would put all intervals last.
    order = lambda pair: ("wrong" in pair[1], "=" in pair[1])
    named = sorted(zip(*axes.get_legend_handles_labels(), strict=True), key=order)
    axes.legend(*zip(*named, strict=True), frameon=False, fontsize=8, loc="upper left")


def _draw_ratios(axes, results: dict) -> None:
    from experiments.harness import plots

    names = list(results["beside"])
    for height, name in enumerate(names):
        found, measured = results["beside"][name], results["meters"][name]
        ratio = found.proxies.noise / found.noise
        axes.plot([1, ratio], [height] * 2, color=plots.PALETTE[1], linewidth=5, alpha=0.45, zorder=2)
        axes.plot(ratio, height, "o", color=plots.PALETTE[1], markersize=8, zorder=3)
        style = plots.SMALL_TEXT | {"va": "center", "ha": "left" if ratio >= 1 else "right"}
        axes.annotate(f"{ratio:.3g}", (ratio, height), (8 if ratio >= 1 else -8, 0), **style)
        mean = diagnostics.mean_interval(measured.values["variance"] / found.noise)
        gap = [[float(mean.value - mean.low)], [float(mean.high - mean.value)]]
        axes.errorbar(
            float(mean.value), height, xerr=gap, fmt="D", color=plots.PALETTE[0], markersize=5, capsize=3, zorder=4
        )
    axes.set_xscale("log")
    axes.set(xlabel="expectation divided by the exact tr Var ḡ", ylim=(len(names) - 0.5, -1.2))
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.margins(x=0.24)
    axes.grid(axis="y", visible=False)
    plots.reference_line(axes, 1.0, "exact", axis="x")
    axes.plot([], [], "o", color=plots.PALETTE[1], markersize=8, label="verl's proxy3")
    axes.plot([], [], "D", color=plots.PALETTE[0], markersize=5, label="the meter")
    axes.legend(frameon=False, fontsize=8, loc="upper left")
