"""The finding of the learning curves, and the three figures of the experiment."""

import numpy as np

from experiments.harness import runner
from experiments.shared import ranges


def last_fifth(returns: np.ndarray) -> np.ndarray:
    """The mean of the last fifth of each run, `[S, U] → [S]`."""
    return returns[:, -max(1, returns.shape[1] // 5) :].mean(axis=1)


def finding(curves: dict) -> str:
    """The sentence in the title: the least and the greatest mean return over the last fifth of training."""
    last = {name: last_fifth(y).mean() for name, (_, y) in curves.items()}
    worst, best = min(last, key=last.get), max(last, key=last.get)
    return (
        f"Over the last fifth of training REINFORCE with “{worst}” returns {last[worst]:.0f} on average, with "
        f"“{best}” {last[best]:.0f}"
    )


def dots(values: dict) -> dict:
    """Intervals for a logarithmic axis, which cannot show values at or below zero."""
    return {name: (x.value, x.low, x.high) for name, x in values.items() if x.value > 0}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, curves, measured = results["config"], results["curves"], results["measured"]
    colour_of = plots.colours(results["exact"])
    shared = f"{config.measured} episodes, the same for all; 95 % intervals; B = {config.batch}."
    title = finding(curves)
    caption = (
        f"CartPole-v1. Left: total variance of one gradient estimate at a policy of return "
        f"{results['returns']['learning']:.0f}, {shared} Right: mean over {config.seeds} seeds, "
        f"{plots.bands(config.seeds, 'seeds')}. The grey part is the last fifth, whose means are in the title."
    )
    figure, (left, right) = plots.figure(title, caption, columns=2, width=12.5, height=4.8)
    plots.bars_with_intervals(left, dots(measured["variance"]["learning"]), scale="log", colour_of=colour_of)
    left.set_xlabel("tr Var of the gradient estimate (reward²)")
    right.set_xlabel("episodes seen")
    right.set_ylabel("return of an episode (steps)")
    right.set_ylim(0, 520)
    plots.reference_line(right, 500, "the most an episode can pay")
    x = min((x for x, _ in curves.values()), key=len)
    right.axvspan(x[-max(1, len(x) // 5)], x[-1], color=plots.GREY, alpha=0.08, linewidth=0, zorder=0)
    shown = {name: y[:, : len(x)] for name, (_, y) in curves.items()}
    plots.learning_curves(right, x, shown, colour_of=colour_of, bounds=ranges.returns("CartPole-v1", 500))
    recorder.figure(figure, "variance_reduction")

    title = "How noisy an estimate is, and how near to the true direction, at three stages of training"
    figure, axes = plots.figure(title, f"CartPole-v1, {shared}", rows=2, columns=3, width=13, height=6.4)
    for column, (stage, reached) in enumerate(results["returns"].items()):
        above, below = axes[:, column]
        plots.bars_with_intervals(above, dots(measured["variance"][stage]), scale="log", colour_of=colour_of)
        cosines = {name: (x.value, x.low, x.high) for name, x in measured["cosine"][stage].items()}
        plots.bars_with_intervals(below, cosines, colour_of=colour_of)
        above.set_title(f"{stage} policy, return {reached:.0f}", loc="left", fontsize=10)
        above.set_xlabel("tr Var (reward²)")
        below.set_xlabel("cosine with a large-sample gradient")
        if column:
            above.set_yticklabels([])
            below.set_yticklabels([])
    recorder.figure(figure, "gradients")

    title = "All estimates have the same exact mean ∇ρ and very different exact variances"
    figure, ax = plots.figure(
        title,
        "All trajectories of the short corridor are enumerated; the state is shown, 8 steps, B = 2.",
        width=8.5,
        height=3.6,
    )
    plots.bars_with_intervals(
        ax,
        {name: (value,) * 3 for name, value in results["exact"].items() if value is not None},
        scale="log",
        colour_of=colour_of,
    )
    ax.set_xlabel("exact tr Var of the gradient estimate (reward²)")
    recorder.figure(figure, "exact")
