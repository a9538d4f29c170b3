"""Writing a figure to files: PNG for the screen, PDF or SVG for a paper, and always the data as CSV."""

import dataclasses
import io
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

from experiments.harness import figure_data, paper_layout, verdicts
from pgjax import writing

Format = Literal["pdf", "svg"]
Width = Literal["single", "double"]


@dataclasses.dataclass(frozen=True)
class Paper:
    """The formats of figures for a paper, and their width: 3.25 inches (one column) or 6.75 (two columns)."""

    formats: Sequence[Format] = ()
    width: Width = "single"


def save(figure: Any, path: pathlib.Path, footer: str = "") -> None:
    """Write the PNG at `path`, with `footer` as the last line of its caption, and its data beside it."""
    words = paper_layout.words_of(figure)
    if footer:
        figure.supxlabel(f"{figure.get_supxlabel()}\n{footer}".strip(), x=0.012, ha="left", fontsize=8)
    _save(figure, path, {"Software": None, "Title": " ".join(words.title.split())})
    figure_data.write(figure, path)


def _save(figure: Any, path: pathlib.Path, metadata: dict[str, Any]) -> None:
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:], metadata=metadata)
    writing.replace_file(path, content.getbuffer())


class PaperCopies:
    """Takes the place of a recorder while `plot` draws again for a paper. It saves figures and ignores all notes."""

    def __init__(self, recorder: Any, paper: Paper):
        self._recorder, self._paper = recorder, paper

    def __getattr__(self, name: str) -> Any:
        return getattr(self._recorder, name)

    def figure(self, figure: Any, name: str) -> pathlib.Path:
        path = self._recorder.path(name.removesuffix(".png") + ".png")
        save_for_paper(figure, path, self._paper, tiny=self._recorder.tiny)
        return path

    def _nothing(self, *arguments: Any, **options: Any) -> None:
        """Do nothing: the first drawing, for the screen, has recorded this already."""

    row = table = note = metrics = say = failed = animation = _nothing


def save_for_paper(figure: Any, path: pathlib.Path, paper: Paper, *, tiny: bool = False) -> None:
    """Write a figure of `paper_layout.for_paper` beside `path` in each format, and its title and caption as text.

    The files contain no date, so that the same run gives the same files.
    """
    import matplotlib

    words = paper_layout.words_of(figure)
    paper_layout.finish(figure)
    if tiny:
        figure.suptitle("a tiny run", x=0.99, ha="right", fontsize=paper_layout.LEAST_POINTS)
    title = " ".join(words.title.split())
    undated = {"pdf": {"CreationDate": None, "Title": title}, "svg": {"Date": None, "Title": title}}
    # TrueType: journals refuse the letters of type 3 that are matplotlib's default. The salt names the parts of an SVG.
    with matplotlib.rc_context({"pdf.fonttype": 42, "svg.hashsalt": path.stem}):
        for kind in paper.formats:
            _save(figure, path.with_suffix(f".{kind}"), undated[kind])
    text = "\n\n".join(filter(None, (words.title, words.caption, verdicts.TINY_NOTICE if tiny else "")))
    writing.replace_file(path.with_suffix(".txt"), text + "\n")
