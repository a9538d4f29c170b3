"""The style of all figures: the finding as title, colours for colour-blind readers, names at the lines, intervals.

Figures are made without pyplot, so no window opens and no setting of the caller's matplotlib changes.
"""

import textwrap
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import EngFormatter

from experiments.harness import figure_data, paper_layout
from experiments.harness.reports import format_number
from pgjax.diagnostics import UNBOUNDED, bootstrap_interval, few_runs, mean_interval

# Okabe & Ito 2008 (Color universal design), without its yellow, which is too light for a line.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, GREY = "#222222", "#666666"
STYLE = {
    "figure.dpi": 150,
    "figure.constrained_layout.use": True,
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GREY,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.7,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}
SMALL_TEXT = {"color": INK, "fontsize": 9, "textcoords": "offset points"}
MOST_POINTS = 1000  # of a curve; a band of more would cost much memory and show nothing more
LOG_REACH = 10.0  # an interval on a logarithmic axis is drawn down to its value divided by this
LABEL_POINTS = 12.0  # the least distance of two labels, one above the other


def figure(
    title: str, caption: str = "", *, rows: int = 1, columns: int = 1, width: float = 7.0, height: float = 4.2
) -> tuple[Figure, Any]:
    """A figure with the finding as its title and the necessary facts about the data as its caption.

    Args:
        title: the finding, as a sentence. It is broken into lines.
        caption: for example the number of seeds and the meaning of the bands. It stands below the axes in small type.
        rows, columns: the grid of axes.
        width, height: inches, of the whole figure.

    Returns:
        (figure, axes): one `Axes`, or an array `[rows, columns]` of them, without axes of length 1.
    """
    if paper_layout.paper_width() is not None:
        return _for_paper(title, caption, paper_layout.layout(rows, columns, width, height), (rows, columns))
    with matplotlib.rc_context(STYLE):
        made = Figure(figsize=(width, height))
        paper_layout.remember(made, title, caption)
        wrapped = textwrap.fill(title, int(width * 9.5))
        made.suptitle(wrapped, x=0.012, ha="left", fontsize=12, fontweight="bold")
        if caption:
            wrapped = textwrap.fill(caption, int(width * 15))
            made.supxlabel(wrapped, x=0.012, ha="left", fontsize=8, color=GREY)
        return made, made.subplots(rows, columns)


def _for_paper(
    title: str, caption: str, grid: paper_layout.Grid, shape: tuple[int, int]
) -> tuple[Figure, Axes | np.ndarray]:
    with matplotlib.rc_context(STYLE | paper_layout.STYLE):
        made = Figure(figsize=(grid.width, grid.height))
        paper_layout.remember(made, title, caption)
        panels = made.subplots(grid.rows, grid.columns, squeeze=False).ravel()
    count = shape[0] * shape[1]
    for spare in panels[count:]:
        spare.remove()
    kept = panels[:count].reshape(shape)
    return made, kept.item() if count == 1 else kept.squeeze()


def colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each name, in order. Use the result in all figures, so that a variant keeps its colour."""
    return {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(names)}


def learning_curves(
    axes: Axes,
    x: np.ndarray,
    curves: Mapping[str, np.ndarray],
    *,
    statistic: Callable[..., np.ndarray] = np.mean,
    confidence: float = 0.95,
    bounds: tuple[float, float] = UNBOUNDED,
    colour_of: Mapping[str, str] | None = None,
    named: bool = True,
) -> dict[str, tuple[float, float, str]]:
    """Draw one line for each variant, the `statistic` over its runs, and a band: the interval over the runs.

    The interval of a mean is Student's t, which covers the mean from two runs on. That of another statistic is the
    bootstrap's, which covers too little with few runs; `bands` warns of it in the caption. One run has no band. Of a
    curve with more than twice `MOST_POINTS` points, means of neighbouring points are drawn.

    The names stand at the ends of the lines, so set logarithmic scales, limits and reference lines before. A line ends
    where a run becomes NaN, and its name says how many runs diverged.

    Args:
        x: `[N]`, for example the number of episodes.
        curves: name → `[S, N]`, one row per run.
        statistic: `np.mean`, or `pgjax.diagnostics.interquartile_mean`.
        confidence: the confidence of the band.
        bounds: the range in which the statistic must lie, at which its band ends; see `pgjax.diagnostics.within`.
        colour_of: name → colour; by default in the order of `curves`.
        named: whether the names are written. If not, give the results of all calls to `label_ends` together.

    Returns:
        name → (x, y, colour) of each line's end.
    """
    x = _thinned(np.asarray(x))
    colour_of = colour_of or colours(curves)
    ends = {}
    for index, (name, runs) in enumerate(curves.items()):
        runs = _thinned(np.asarray(runs, float))
        line = statistic(runs, axis=0)
        dashed = index >= len(PALETTE)
        axes.plot(x, line, "--" if dashed else "-", color=colour_of[name], linewidth=2, label=name)
        if len(runs) > 1:
            low, high = np.clip(_interval(runs, statistic, confidence), *bounds)
            axes.fill_between(x, low, high, color=colour_of[name], alpha=0.18, linewidth=0)
        diverged = int(np.isnan(runs).any(axis=1).sum())
        text = name + " (dashed)" * dashed + f" ({diverged} of {len(runs)} diverged)" * bool(diverged)
        if np.isfinite(line).any():
            last = np.flatnonzero(np.isfinite(line))[-1]
            ends[text] = (x[last], line[last], colour_of[name])
    axes.margins(x=0)
    if np.max(np.abs(x)) >= 1e4 and axes.get_xscale() == "linear":
        axes.xaxis.set_major_formatter(EngFormatter(sep=" "))
    if named:
        label_ends(axes, ends)
    return ends


def _thinned(values: np.ndarray) -> np.ndarray:
    """`values` `[..., N]`, or if N is large the means of neighbours, at most about `MOST_POINTS` of them."""
    count = values.shape[-1]
    if count <= 2 * MOST_POINTS:
        return values
    starts = np.arange(0, count, -(-count // MOST_POINTS))
    return np.add.reduceat(values, starts, axis=-1) / np.diff(np.append(starts, count))


def _interval(runs: np.ndarray, statistic: Callable, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    if statistic is np.mean:
        found = mean_interval(runs, confidence=confidence)
        return found.low, found.high
    return bootstrap_interval(runs, statistic, confidence=confidence, resamples=1000)


def bands(count: int, unit: str = "runs", drawn: str = "bands") -> str:
    """The meaning of the bands of `learning_curves`, for a caption, with a warning for fewer than five runs."""
    warning = few_runs(count, unit).rstrip(".")
    return f"95 % t {drawn}" + f" ({warning})" * bool(warning)


def label_ends(axes: Axes, ends: Mapping[str, tuple[float, float, str]]) -> None:
    """Write each name beside its point, moved up or down until no two names overlap."""
    if not ends:
        return
    if paper_layout.paper_width() is not None and not paper_layout.names_fit(ends, axes):
        alike = {name: Line2D([], [], color=colour, linewidth=1.4) for name, (_, _, colour) in ends.items()}
        return paper_layout.put_into_legend(axes, alike)
    axes.figure.draw_without_rendering()
    points_per_pixel = 72 / axes.figure.dpi
    heights = np.array([axes.transData.transform((x, y))[1] for x, y, _ in ends.values()]) * points_per_pixel
    shifts = _spread(heights, LABEL_POINTS) - heights
    for (text, (x, y, colour)), shift in zip(ends.items(), shifts, strict=True):
        style = SMALL_TEXT | {"color": colour, "va": "center", "fontweight": "bold"}
        axes.annotate(text, (x, y), (6, shift), annotation_clip=False, **style)


def labelled_points(
    axes: Axes, points: Mapping[str, tuple[float, float]], markers: Mapping[str, str], colour: str = PALETTE[0]
) -> None:
    """Draw points with their names to the right. Names that would overlap are moved, and thin lines lead to them.

    Set scales and limits before. Four or more points above each other get a column of names.

    Args:
        points: name → (x, y).
        markers: name → marker; those that share the first one's are drawn in `colour`, the others in another.
    """
    first = next(iter(markers.values()), "o")
    for name, (x, y) in points.items():
        chosen = colour if markers[name] == first else PALETTE[1]
        axes.plot(x, y, markers[name], color=chosen, markersize=7, zorder=3, label=f"_{name}")
    axes.figure.draw_without_rendering()
    scale = 72 / axes.figure.dpi
    places = {name: axes.transData.transform(point) * scale for name, point in points.items()}
    columns: dict[int, list[str]] = {}
    for name, (x, _) in places.items():
        columns.setdefault(round(x), []).append(name)
    shifts: dict[str, float] = {}
    for names in columns.values():
        if len(names) >= 4:
            heights = np.array([places[name][1] for name in names])
            shifts |= dict(zip(names, _spread(heights, LABEL_POINTS) - heights, strict=True))
    boxes = [_label_box(places[name], shift, name) for name, shift in shifts.items()]
    boxes += [(x - 4, x + 4, y - 4, y + 4) for x, y in places.values()]
    for name in sorted(set(points) - set(shifts), key=lambda name: places[name][0]):
        tried = [_label_box(places[name], shift, name) for shift in _SHIFTS]
        free = [i for i, box in enumerate(tried) if not any(_overlap(box, other) for other in boxes)]
        chosen = free[0] if free else 0
        shifts[name] = _SHIFTS[chosen]
        boxes.append(tried[chosen])
    for name, shift in shifts.items():
        style = SMALL_TEXT | {"color": INK, "va": "center", "fontsize": 8}
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "shrinkA": 0, "shrinkB": 3, "relpos": (0, 0.5)}
        axes.annotate(name, points[name], (14, shift), annotation_clip=False, arrowprops=line, **style)


_SHIFTS = (0.0, *(sign * 11.0 * n for n in range(1, 6) for sign in (1, -1)))


def _label_box(place: np.ndarray, shift: float, text: str) -> tuple[float, float, float, float]:
    """Left, right, bottom, top of a name in points, by a guess at its width."""
    x, y = place[0] + 14, place[1] + shift
    return x, x + 4.6 * len(text), y - 5, y + 5


def _overlap(a: tuple[float, float, float, float], b: tuple[float, float, float, float]) -> bool:
    return a[0] < b[1] and b[0] < a[1] and a[2] < b[3] and b[2] < a[3]


def _spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Heights `[K]` of labels, moved until all are `gap` apart; those that touch spread about their mean."""
    order = np.argsort(heights, kind="stable")
    groups: list[list] = []  # of labels that touch: [mean height, number]
    for height in heights[order]:
        groups.append([height, 1])
        while len(groups) > 1 and groups[-1][0] - groups[-2][0] < gap * (groups[-1][1] + groups[-2][1]) / 2:
            (a, m), (b, n) = groups[-2:]
            groups[-2:] = [[(a * m + b * n) / (m + n), m + n]]
    spread = np.empty_like(heights)
    spread[order] = np.concatenate([c + gap * (np.arange(n) - (n - 1) / 2) for c, n in groups])
    return spread


def bars_with_intervals(
    axes: Axes,
    values: Mapping[str, tuple[float, float, float]],
    *,
    scale: str = "linear",
    colour_of: Mapping[str, str] | None = None,
) -> None:
    """Draw a horizontal bar for each name, with its interval and its number. A logarithmic scale has dots instead.

    Args:
        values: name → (value, low, high), from top to bottom.
        scale: "linear" or "log". A logarithmic axis shows the lower part of an interval to a tenth of the value; the
            data file has the true bound.
        colour_of: name → colour; by default in the order of `values`.

    Raises:
        ValueError: `scale` is another word.
    """
    if scale not in ("linear", "log"):
        raise ValueError(f'scale: must be "linear" or "log", got {scale!r}')
    colour_of = colour_of or colours(values)
    axes.set_xscale(scale)
    for height, (name, (value, low, high)) in enumerate(values.items()):
        if scale == "linear":
            axes.barh(height, value, height=0.62, color=colour_of[name], alpha=0.85, label=f"_{name}")
        else:
            axes.plot(value, height, "o", color=colour_of[name], markersize=7, label=f"_{name}")
        interval = INK if scale == "linear" else colour_of[name]
        shown = max(low, value / LOG_REACH) if scale == "log" else low  # a logarithmic axis has no 0
        # About its own middle: a bootstrap interval need not contain the value.
        made = axes.errorbar((shown + high) / 2, height, xerr=(high - shown) / 2, fmt="none", color=interval, capsize=4)
        if shown > low:
            bounds = (np.array([bound]) for bound in (height, low, high))
            figure_data.remember(made.lines[2][0], name, *bounds, upright=False)
        right = high if np.isfinite(high) else value
        axes.annotate(format_number(value, digits=3), (right, height), (7, 0), va="center", **SMALL_TEXT)
    axes.set_yticks(range(len(values)), list(values))
    axes.set_ylim(len(values) - 0.5, -0.5)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    axes.margins(x=0.14)
    if scale == "linear" and all(value >= 0 for value, _, _ in values.values()):
        axes.set_xlim(left=0)


def reference_line(axes: Axes, value: float, label: str, *, axis: str = "y", at_right: bool = False) -> None:
    """Draw a dashed line with a name at y = `value`, or at x with `axis="x"`, for example at the exact optimum.

    The name of a line at y stands at its left end, or with `at_right` at its right end.
    """
    place = SMALL_TEXT | {"color": GREY}
    # The underscore keeps the name out of legends; the data file shows it.
    drawn = {"color": GREY, "linestyle": (0, (4, 3)), "linewidth": 1.2, "zorder": 1.5, "label": f"_{label}"}
    if axis == "y":
        axes.axhline(value, **drawn)
        end = {"xy": (1, value), "xytext": (-4, 3), "ha": "right"} if at_right else {"xy": (0, value), "xytext": (4, 3)}
        axes.annotate(label, xycoords=("axes fraction", "data"), va="bottom", **end, **place)
    else:
        axes.axvline(value, **drawn)
        axes.annotate(label, (value, 1), (0, 3), xycoords=("data", "axes fraction"), ha="center", **place)
