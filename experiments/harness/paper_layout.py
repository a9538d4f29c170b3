"""The layout of figures for a paper: one or two columns wide, letters of 7 points or more, no title and no caption.

Within `for_paper` every figure of `plots` gets this layout. Its title and caption go to a text file beside the figure.
Panels that would be too narrow are put below each other. Names that do not fit beside their lines go into a legend.
"""

import contextlib
import contextvars
import math
import re
import textwrap
import weakref
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

WIDTHS = {"single": 3.25, "double": 6.75}  # inches, of a column and of a page of two
LEAST_POINTS, LARGEST_POINTS = 7.0, 8.0
LEAST_PANEL, TALLEST = 2.0, 9.0  # inches: the width of a panel, the height of a figure
THICKEST, LARGEST_MARKER = 1.4, 5.0  # points, of lines and of markers
STYLE = {"font.size": 8, "axes.titlesize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7}
POINTS_PER_LETTER = 0.56  # of the size of the letters
LONGEST_TICK = 24  # letters of a name at the y axis
LEGEND_LINE = 0.16  # inches
SCREEN_PANEL = 3.5  # inches, the height of a panel on a screen
FAR = 12.0  # points

_width: contextvars.ContextVar[float | None] = contextvars.ContextVar("width", default=None)


class Words(NamedTuple):
    """The title and the caption of a figure."""

    title: str
    caption: str


_words: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()
_legends: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


@contextlib.contextmanager
def for_paper(width: str) -> Iterator[None]:
    """Figures that are made in this block are for a paper: "single" or "double" is the column's width."""
    token = _width.set(WIDTHS[width])
    try:
        yield
    finally:
        _width.reset(token)


def paper_width() -> float | None:
    """The width in inches; None if the figure is for the screen."""
    return _width.get()


def remember(figure: Any, title: str, caption: str) -> None:
    _words[figure] = Words(title=title, caption=caption)


def words_of(figure: Any) -> Words:
    """The title and the caption that a figure was made with."""
    return _words.get(figure, Words(title=figure.get_suptitle(), caption=figure.get_supxlabel()))


class Grid(NamedTuple):
    """How panels are laid out: `rows` of `columns`, in a figure of this size in inches."""

    rows: int
    columns: int
    width: float
    height: float


def layout(rows: int, columns: int, width: float, height: float) -> Grid:
    """The grid for a paper of panels that stand in `rows` × `columns` on a screen of `width` × `height` inches.

    As many panels stand side by side as are `LEAST_PANEL` wide; more, where the figure would be higher than `TALLEST`.
    """
    paper = paper_width()
    aspect = min((height / rows) / (width / columns), 0.85)
    number = rows * columns

    def grid(side_by_side: int) -> Grid:
        below = math.ceil(number / side_by_side)
        each = max(aspect * paper / side_by_side, 0.24 * (height / rows) if number == 1 else 0.0, 1.5)
        return Grid(rows=below, columns=side_by_side, width=paper, height=each * below + 0.2)

    fits = max(1, min(columns, int(paper / LEAST_PANEL)))
    return next((grid(n) for n in range(fits, columns + 1) if grid(n).height <= TALLEST), grid(columns))


def put_into_legend(axes: Any, entries: Mapping[str, Any]) -> None:
    """Put names into a legend below the panel; `entries` maps each name to an artist with its look."""
    _legends.setdefault(axes.figure, {}).setdefault(axes, {}).update(entries)


def names_fit(names: Any, axes: Any) -> bool:
    """Whether names beside their lines leave enough width for the panel."""
    place = axes.get_subplotspec()
    share = paper_width() / (1 if place is None else place.get_gridspec().ncols)
    return max(map(len, names)) * LARGEST_POINTS * POINTS_PER_LETTER / 72 <= 0.28 * min(share, 4.0)


def finish(figure: Any) -> None:
    """Finish a figure for a paper: sizes of letters, lines and markers, legends, and line breaks."""
    from matplotlib.lines import Line2D
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        text.set_fontsize(min(max(text.get_fontsize(), LEAST_POINTS), LARGEST_POINTS))
    for line in figure.findobj(Line2D):
        line.set_linewidth(min(line.get_linewidth(), THICKEST))
        line.set_markersize(min(line.get_markersize(), LARGEST_MARKER))
    figure.draw_without_rendering()
    scale = 72 / figure.dpi
    for axes in figure.axes:
        box = axes.get_window_extent()
        _draw_near(axes, box.height / figure.dpi / SCREEN_PANEL)
        for text in (axes.title, axes._left_title, axes.xaxis.label):
            _break(text, box.width * scale)
        _break(axes.yaxis.label, box.height * scale)
        if any(len(text.get_text()) > LONGEST_TICK for text in axes.get_yticklabels()):
            broken = [textwrap.fill(text.get_text(), LONGEST_TICK) for text in axes.get_yticklabels()]
            axes.set_yticks(axes.get_yticks(), broken)
    _draw_legends(figure)


def _draw_near(axes: Any, factor: float) -> None:
    """Move names nearer to their points, in proportion to the smaller panel."""
    from matplotlib.text import Annotation

    for note in axes.findobj(Annotation):
        # Names at the ends of lines, which are not clipped, have been spread for this very panel.
        if note.anncoords == "offset points" and note.get_annotation_clip() is not False:
            note.xyann = tuple(min(factor, 1.0) * x if abs(x) > FAR else x for x in note.xyann)


def _draw_legends(figure: Any) -> None:
    """One legend below all panels if their lines have the same names, else one below each."""
    wanted = _legends.get(figure, {})
    style = {"frameon": False, "fontsize": LEAST_POINTS, "borderaxespad": 0.2, "handlelength": 1.6}
    letter = LEAST_POINTS * POINTS_PER_LETTER

    def columns_of(entries: Mapping[str, Any], points: float) -> int:
        return max(1, min(len(entries), int(points / (max(map(len, entries)) * letter + 28))))

    if len({tuple(entries) for entries in wanted.values()}) == 1:
        entries = next(iter(wanted.values()))
        columns = columns_of(entries, figure.get_figwidth() * 72)
        figure.set_figheight(figure.get_figheight() + LEGEND_LINE * math.ceil(len(entries) / columns))
        figure.legend(list(entries.values()), list(entries), loc="outside lower center", ncols=columns, **style)
        return
    scale, more = 72 / figure.dpi, {}
    for axes, entries in wanted.items():
        columns = columns_of(entries, axes.get_window_extent().width * scale)
        row = axes.get_subplotspec().rowspan.start
        more[row] = max(more.get(row, 0.0), LEGEND_LINE * math.ceil(len(entries) / columns))
        _legend_below(axes, list(entries.values()), list(entries), ncols=columns, **style)
    figure.set_figheight(figure.get_figheight() + sum(more.values()))


def _legend_below(axes: Any, handles: list, names: list[str], **style: Any) -> None:
    """A legend under the label of the x axis, wherever the layout will put that."""
    from matplotlib.transforms import ScaledTranslation

    figure = axes.figure
    below = axes.get_window_extent().y0 - axes.xaxis.get_tightbbox().y0
    place = axes.transAxes + ScaledTranslation(0, -below / figure.dpi - 0.02, figure.dpi_scale_trans)
    axes.legend(handles, names, loc="upper left", bbox_to_anchor=(0, 0), bbox_transform=place, **style)


def _break(text: Any, points: float) -> None:
    letters = int(points / (text.get_fontsize() * POINTS_PER_LETTER))
    if len(text.get_text()) > letters > 8:
        # Only at spaces: a space that does not break keeps a number and its unit together.
        text.set_text(textwrap.fill(" ".join(re.split("[ \n]+", text.get_text())), letters))
