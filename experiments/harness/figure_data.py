"""The numbers in a figure, read from its lines, points, bars, intervals and bands.

A figure `NAME.png` of one panel has `NAME.csv`; one of several has `NAME-1.csv`, `NAME-2.csv`, … in reading order. The
columns are `series`, the labels of the two axes, and `low` and `high` of an interval. Names at the ticks of an axis
stand for its numbers.
"""

import csv
import io
import math
import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from pgjax import writing

UNNAMED = re.compile(r"_(child\d|container\d|nolegend_)")
CLOSE = 1e-9  # relative: the same place
TRUE_INTERVALS = "_pgjax_intervals"


class Entry:
    """One row: a series' point with its interval, in the units of the axes."""

    def __init__(self, series: str, x: float, y: float, *, colour: Any = None, bar_upright: bool | None = None):
        self.series, self.x, self.y, self.colour, self.bar_upright = series, x, y, colour, bar_upright
        self.low = self.high = math.nan


def write(figure: Any, path: pathlib.Path) -> list[pathlib.Path]:
    """Write the data of each panel that has any, and return the files."""
    panels = [axes for axes in figure.axes if axes.get_visible()]
    data = [(axes, entries) for axes in panels if (entries := read(axes))]
    written = []
    for number, (axes, entries) in enumerate(data, start=1):
        name = path.with_suffix("").name + (f"-{number}" if len(panels) > 1 else "")
        written.append(path.with_name(f"{name}.csv"))
        content = io.StringIO(newline="")
        csv.writer(content).writerows([_headers(axes), *_rows(axes, entries)])
        writing.replace_file(written[-1], content.getvalue())
    return written


def remember(
    artist: Any, series: str, place: np.ndarray, low: np.ndarray, high: np.ndarray, upright: bool = True
) -> None:
    """State the true intervals at `place`, `[N]`, of a drawing that had to cut them; bounds may be infinite."""
    setattr(artist, TRUE_INTERVALS, (upright, series, place, low, high))


def read(axes: Any) -> list[Entry]:
    """All data of the panel, each interval beside its point."""
    entries = [*_bars(axes), *_lines(axes)]
    for low, high, place, colour, name, upright in [*_intervals(axes), *_bands(axes), *_remembered(axes)]:
        fits = [e for e in entries if _belongs(e, place, colour, name, upright)]
        entry = next((e for e in fits if math.isnan(e.low)), None)
        if entry is None:
            at = (place, math.nan) if upright else (math.nan, place)
            entry = Entry(name, *at, colour=colour)
            entries.append(entry)
        entry.low, entry.high = low, high
    return entries


def _belongs(entry: Entry, place: float, colour: Any, name: str, upright: bool) -> bool:
    """Whether an interval at `place` is that of a point: of its series by name, of its bar, or of a line's colour."""
    at = entry.x if upright else entry.y
    if not math.isclose(at, place, rel_tol=CLOSE, abs_tol=1e-12):
        return False
    if name:
        return entry.series == name
    return entry.bar_upright is upright or _same(entry.colour, colour)


def _same(one: Any, other: Any) -> bool:
    from matplotlib.colors import to_rgb

    return one is not None and other is not None and to_rgb(one) == to_rgb(other)


def _name(artist: Any) -> str:
    label = str(artist.get_label() or "")
    return "" if UNNAMED.match(label) else label.removeprefix("_")


def _lines(axes: Any) -> Iterator[Entry]:
    part = {line for made in axes.containers if _is_errorbar(made) for line in made.lines[1]}
    named = {made.lines[0]: _name(made) for made in axes.containers if _is_errorbar(made) and made.lines[0] is not None}
    for number, line in enumerate(axes.lines, start=1):
        if line in part:  # the caps of error bars
            continue
        name = named.get(line) or _name(line) or f"line {number}"
        x, y = (np.ravel(np.asarray(line.get_data()[i], float)) for i in (0, 1))
        if line.get_transform() != axes.transData:  # a line across the panel
            across = line.get_transform() == axes.get_yaxis_transform(which="grid")
            x, y = (np.array([np.nan]), y[:1]) if across else (x[:1], np.array([np.nan]))
        for at in zip(x, y, strict=True):
            yield Entry(name, *map(float, at), colour=line.get_color())
    for number, points in enumerate(axes.collections, start=1):
        if type(points).__name__ == "PathCollection":
            for x, y in np.ma.filled(points.get_offsets(), np.nan):
                yield Entry(_name(points) or f"points {number}", float(x), float(y))


def _is_errorbar(container: Any) -> bool:
    return type(container).__name__ == "ErrorbarContainer"


def _bars(axes: Any) -> Iterator[Entry]:
    for number, container in enumerate(axes.containers, start=1):
        if type(container).__name__ != "BarContainer":
            continue
        flat = container.orientation == "horizontal"
        for bar in container.patches:
            x, y, width, height = bar.get_x(), bar.get_y(), bar.get_width(), bar.get_height()
            at = (x + width, y + height / 2) if flat else (x + width / 2, y + height)
            name = _name(container) or f"bars {number}"
            yield Entry(name, *map(float, at), colour=bar.get_facecolor(), bar_upright=not flat)


def _intervals(axes: Any) -> Iterator[tuple]:
    """low, high, place, colour, series, upright of each error bar."""
    for container in axes.containers:
        if not _is_errorbar(container):
            continue
        name = _name(container)
        if not name and container.lines[0] is not None:
            name = _name(container.lines[0])
        directions = [False] * container.has_xerr + [True] * container.has_yerr
        for upright, bars in zip(directions, container.lines[2], strict=True):
            if hasattr(bars, TRUE_INTERVALS):
                continue
            for segment in filter(len, bars.get_segments()):  # there is none where an interval is NaN
                along, across = (1, 0) if upright else (0, 1)
                low, high = sorted(float(end[along]) for end in segment)
                yield low, high, float(segment[0][across]), bars.get_color()[0], name, upright


def _bands(axes: Any) -> Iterator[tuple]:
    """low, high, place, colour, series, upright of each point of a `fill_between`."""
    for band in axes.collections:
        if type(band).__name__ not in ("PolyCollection", "FillBetweenPolyCollection"):
            continue
        for path in band.get_paths():
            vertices = path.vertices
            count = (len(vertices) - 3) // 2
            if count < 1:
                continue
            # A corner of the one side, that side, a corner of the other, that side backwards, and the first again.
            one, other = vertices[1 : count + 1], vertices[count + 2 : 2 * count + 2][::-1]
            for (x, a), (_, b) in zip(one, other, strict=True):
                yield float(min(a, b)), float(max(a, b)), float(x), band.get_facecolor()[0], _name(band), True


def _remembered(axes: Any) -> Iterator[tuple]:
    """low, high, place, colour, series, upright of each interval of `remember`."""
    for artist in axes.collections:
        upright, series, *columns = getattr(artist, TRUE_INTERVALS, (True, "", (), (), ()))
        for place, low, high in zip(*columns, strict=True):
            yield float(low), float(high), float(place), None, series, upright


def _headers(axes: Any) -> list[str]:
    x, y = (" ".join((axis.get_label_text() or name).split()) for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)))
    return ["series", x, y if y != x else "y", "low", "high"]


def _rows(axes: Any, entries: list[Entry]) -> Iterator[list[Any]]:
    ticks = {id(axis): _ticks(axis) for axis in (axes.xaxis, axes.yaxis)}
    for entry in entries:
        x, y = (_cell(at, ticks[id(axis)]) for at, axis in ((entry.x, axes.xaxis), (entry.y, axes.yaxis)))
        yield [" ".join(entry.series.split()), x, y, _cell(entry.low, {}), _cell(entry.high, {})]


def _ticks(axis: Any) -> dict[float, str]:
    """Place → name, where the ticks of an axis have names of their own."""
    locator, formatter = axis.get_major_locator(), axis.get_major_formatter()
    if type(locator).__name__ != "FixedLocator" or type(formatter).__name__ not in ("FuncFormatter", "FixedFormatter"):
        return {}
    return {round(float(place), 9): formatter(place, index) for index, place in enumerate(axis.get_majorticklocs())}


def _cell(value: float, names: dict[float, str]) -> str:
    if math.isnan(value):
        return ""
    return " ".join(names.get(round(value, 9), repr(value)).split())
