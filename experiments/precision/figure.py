"""The figure: noise and rounding error of one batch's gradient against the number of episodes."""

import numpy as np

from experiments.harness import runner
from experiments.precision.rounding import ALL_BFLOAT16, Errors


def draw(found: Errors, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    crossing = {word: found.crossing(word) for word in ("tfloat32", "bfloat16")}
    figure, axes = plots.figure(
        f"Noise falls as 1/√B and rounding does not: they are equal at {_shown(crossing['bfloat16'])} episodes in "
        f"bfloat16 and at {_shown(crossing['tfloat32'])} in TF32",
        "CartPole-v1 at a trained policy, relative to the norm of the gradient. Lines and dots are root mean squares "
        "over batches, and bars go from the smallest to the largest; the rounding error is the distance from the "
        "float64 gradient of the same episodes. Thin lines continue the noise as σ/√B and the rounding as √(a + b/B).",
        width=8.5,
        height=5.4,
    )
    names = ["noise of sampling", *found.rounding]
    colour_of = plots.colours(names)
    batches = np.array(found.batches, float)
    finite = [value for value in crossing.values() if np.isfinite(value) and value > 0]
    end = max([batches[-1], *finite]) * 4
    fine = np.geomspace(batches[0], end, 60)
    ends = {}
    noise = found.noise[0] * np.sqrt(batches[0] / fine)
    axes.plot(fine, noise, color=colour_of[names[0]], linewidth=1)
    axes.plot(batches, found.noise, "o-", color=colour_of[names[0]], linewidth=2)
    ends[names[0]] = (fine[-1], noise[-1], colour_of[names[0]])
    for name in found.rounding:
        floor, slope = found.floor(name)
        line, measured = np.sqrt(floor + slope / fine), np.sqrt(found.mean_square(name))
        style = {"color": colour_of[name]}
        reach = np.array([(errors.min(), errors.max()) for errors in found.rounding[name]]).T
        gaps = np.abs(reach - measured)
        axes.errorbar(batches, measured, yerr=gaps, fmt="s-", linewidth=2, markersize=5, capsize=3, **style)
        if name != ALL_BFLOAT16:  # longer sums have other errors, which no floor describes
            axes.plot(fine, line, linewidth=1, **style)
            ends[name] = (fine[-1], line[-1], colour_of[name])
        else:
            middle, above = len(batches) // 2, plots.SMALL_TEXT | {"color": colour_of[name], "fontweight": "bold"}
            axes.annotate(name, (batches[middle], measured[middle]), (0, 24), ha="center", **above)
    for value in crossing.values():
        if np.isfinite(value) and value > 0:
            height = found.noise[0] * np.sqrt(batches[0] / value)
            axes.plot(value, height, "D", color=plots.INK, markersize=6, zorder=5)
            axes.annotate(f"B* = {_shown(value)}", (value, height), (4, 8), **plots.SMALL_TEXT)
    axes.set(xscale="log", yscale="log", xlabel="B, episodes in a batch", ylabel="error of the gradient / ‖∇ρ‖")
    plots.label_ends(axes, ends)
    recorder.figure(figure, "precision")


def _shown(value: float) -> str:
    """A number of episodes with two digits: `5 300`, `2.1 million`."""
    if not np.isfinite(value):
        return "no number of"
    digits = float(f"{value:.2g}")
    return f"{digits / 1e6:,.10g} million" if digits >= 1e6 else f"{digits:,.0f}".replace(",", " ")
