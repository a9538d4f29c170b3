"""The figure of a sweep: the evaluated return of each estimator over the values of the first option that varies."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness import runner
from experiments.sweep.grid import Grid, described, word
from experiments.sweep.results import Summary, best_of

# The panels beside each other; a grid of more has several rows.
MOST_COLUMNS = 3
SYMBOLS = {"lr": "learning rate η", "discount": "discount γ", "lambda_": "λ", "decay": "decay β", "clip": "clip ε"}


def finding(found: Mapping[str, Sequence[Summary]], grid: Grid, env: str) -> str:
    """The title: the best estimator with its best setting, and the best one on average over all settings."""
    best = {name: best_of(summaries) for name, summaries in found.items()}
    means = {name: [float(s.mean.value) for s in found[name]] for name, number in best.items() if number is not None}
    if not means:
        return f"{env}: all runs failed"
    first = max(means, key=lambda name: means[name][best[name]])
    with_setting = f"{first} with {described(grid.settings[best[first]])}" if grid.values else first
    title = f"{env}: {with_setting} has the highest return, {means[first][best[first]]:.4g}"
    whole = {name: float(np.mean(values)) for name, values in means.items() if np.isfinite(values).all()}
    if len(means) < 2 or len(grid.settings) < 2 or not whole:
        return title
    steady = max(whole, key=lambda name: whole[name])
    who = "it is also highest" if steady == first else f"{steady} is highest"
    return f"{title}; {who} on average over all values, {whole[steady]:.3g}"


def draw(
    found: Mapping[str, list[Summary]],
    grid: Grid,
    env: str,
    threshold: float | None,
    caption: str,
    recorder: runner.Recorder,
) -> None:
    """A panel for each combination of the other options, with a line and a band for each estimator."""
    from experiments.harness import plots

    panels = _panels(grid)
    columns = min(len(panels), MOST_COLUMNS)
    rows = -(-len(panels) // columns)
    size = {
        "rows": rows,
        "columns": columns,
        "width": 7.5 if columns == 1 else 4.2 * columns,
        "height": 1.0 + 3.6 * rows,
    }
    figure, made = plots.figure(finding(found, grid, env), caption, **size)
    axes = np.atleast_1d(made).ravel()
    colour_of = plots.colours(found)
    for panel, (title, numbers) in zip(axes, panels.items(), strict=False):
        _panel(panel, found, grid, numbers, threshold, colour_of)
        panel.set_title(title, fontsize=10, loc="left")
    bottom, top = zip(*(panel.get_ylim() for panel in axes[: len(panels)]), strict=True)
    for panel in axes[: len(panels)]:
        panel.set_ylim(min(bottom), max(top))
    for spare in axes[len(panels) :]:
        spare.set_visible(False)
    recorder.figure(figure, "sweep")


def _panels(grid: Grid) -> dict[str, list[int]]:
    """The title of each panel and the numbers of its settings, in the order of the values of the first option."""
    first = next(iter(grid.values), None)
    made: dict[str, list[int]] = {}
    for number, setting in enumerate(grid.settings):
        others = {name: value for name, value in setting.items() if name != first}
        made.setdefault(described(others), []).append(number)
    along = lambda number: grid.settings[number].get(first, 0.0)
    return {title: sorted(numbers, key=along) for title, numbers in made.items()}


def _panel(
    axes: Any, found: Mapping, grid: Grid, numbers: list[int], threshold: float | None, colour_of: Mapping
) -> None:
    from experiments.harness import plots

    first = next(iter(grid.values))
    x = np.array([grid.settings[number][first] for number in numbers])
    wide = x.min() > 0 and x.max() >= 10 * x.min()
    if wide:
        axes.set_xscale("log")
    axes.set_xticks(x, [f"{value:g}" for value in x])
    axes.minorticks_off()
    axes.set_xlabel(SYMBOLS.get(first, word(first)) + (" (log scale)" if wide else ""))
    axes.set_ylabel("return of an episode after training")
    widest = (len(found) - 1) / 2
    axes.set_xlim(_beside(x, -widest - 1, wide)[0], _beside(x, widest + 1, wide)[-1])  # also where all runs failed
    ends = {}
    for place, (name, summaries) in enumerate(found.items()):
        chosen = [summaries[number] for number in numbers]
        mean, low, high = (
            np.array([getattr(s.mean, part) for s in chosen], float) for part in ("value", "low", "high")
        )
        beside = _beside(x, place - widest, wide)
        style = {"color": colour_of[name], "linewidth": 1.6, "markersize": 5, "capsize": 3, "elinewidth": 1.2}
        axes.errorbar(beside, mean, yerr=[mean - low, high - mean], fmt="o-", label=name, **style)
        failed = np.array([s.num_failed > 0 for s in chosen])
        if failed.any():
            axes.plot(
                beside[failed], mean[failed], "x", color=plots.INK, markersize=9, label=f"_{name}, some runs failed"
            )
        if np.isfinite(mean).any():
            last = np.flatnonzero(np.isfinite(mean))[-1]
            # A column of names at the right end; with a single value each name stands at its point.
            ends[name] = ((beside if len(x) == 1 else _beside(x, widest, wide))[last], mean[last], colour_of[name])
    if threshold is not None:
        plots.reference_line(axes, threshold, f"solved: {threshold:g}", at_right=True)
    plots.label_ends(axes, ends)


def _beside(x: np.ndarray, steps: float, wide: bool) -> np.ndarray:
    """The values, moved a little to the side, so that the intervals of several estimators do not cover each other."""
    if len(x) < 2:
        return x + 0.02 * steps
    step = 0.06 * (np.min(np.diff(np.log(x))) if wide else np.min(np.diff(x)))
    return x * np.exp(steps * step) if wide else x + steps * step
