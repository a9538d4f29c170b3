"""What is drawn is also data, and a figure for a paper fits its column with letters that can be read."""

import csv
import dataclasses

import numpy as np
import pytest
from matplotlib.text import Text

from experiments.harness import figures, paper_layout, plots, runner, verdicts


def rows_of(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def written(figure, directory):
    from experiments.harness import figure_data

    return [rows_of(path) for path in figure_data.write(figure, directory / "figure.png")]


def numbers(rows, series, *columns):
    return np.array([[float(row[i]) for i in columns] for row in rows[1:] if row[0] == series])


def test_learning_curves_are_written_with_their_bands(tmp_path):
    runs = np.random.default_rng(0).normal(size=(4, 6))
    _, axes = plots.figure("A finding", "A caption")
    axes.set(xlabel="episodes", ylabel="return\n(steps)")
    plots.learning_curves(axes, np.arange(1, 7), {"a, b": runs, "one run": runs[:1]})
    plots.reference_line(axes, 0.5, "the optimum")
    (rows,) = written(axes.figure, tmp_path)
    assert rows[0] == ["series", "episodes", "return (steps)", "low", "high"]
    found = numbers(rows, "a, b", 1, 2, 3, 4)
    low, high = plots._interval(runs, np.mean, 0.95)
    np.testing.assert_array_equal(found, np.stack([np.arange(1, 7), runs.mean(axis=0), low, high], axis=1))
    assert [row[3:] for row in rows if row[0] == "one run"] == [["", ""]] * 6
    assert [row for row in rows if row[0] == "the optimum"] == [["the optimum", "", "0.5", "", ""]]
    assert len(rows) == 1 + 6 + 6 + 1


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_bars_are_written_with_names_and_intervals(tmp_path, scale):
    _, axes = plots.figure("A finding")
    values = {"first": (2.0, 1.5, 2.75), "outside": (4.0, 5.0, 6.0), "no interval": (1.0, np.nan, np.nan)}
    plots.bars_with_intervals(axes, values, scale=scale)
    (rows,) = written(axes.figure, tmp_path)
    found = {row[2]: [float(cell) if cell else np.nan for cell in (row[1], *row[3:])] for row in rows[1:]}
    assert found.keys() == values.keys()
    for name, numbers in values.items():
        np.testing.assert_allclose(found[name], numbers)


def test_bars_error_bars_and_points_of_several_panels(tmp_path):
    figure, (left, right) = plots.figure("A finding", columns=2)
    left.bar([0, 1], [3.0, 4.0], label="mean")
    left.set_xticks([0, 1], ["x", "y"])
    right.errorbar([1, 2], [5.0, 6.0], yerr=[[1, 2], [3, 4]], label="with errors")
    right.scatter([7], [8], label="points")
    bars, points = written(figure, tmp_path)
    assert bars[1:] == [["mean", "x", "3.0", "", ""], ["mean", "y", "4.0", "", ""]]
    np.testing.assert_array_equal(numbers(points, "with errors", 1, 2, 3, 4), [[1, 5, 4, 8], [2, 6, 4, 10]])
    np.testing.assert_array_equal(numbers(points, "points", 1, 2), [[7, 8]])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figure-1.csv", "figure-2.csv"]


def test_a_logarithmic_bar_is_written_with_a_bound_below_0(tmp_path):
    _, axes = plots.figure("A finding")
    plots.bars_with_intervals(axes, {"wide": (2.0, -3.0, 7.0), "narrow": (1.0, 0.5, 2.0)}, scale="log")
    (rows,) = written(axes.figure, tmp_path)
    found = {row[2]: [float(row[1]), *map(float, row[3:])] for row in rows[1:]}
    np.testing.assert_allclose([found["wide"], found["narrow"]], [[2.0, -3.0, 7.0], [1.0, 0.5, 2.0]])


def test_an_interval_that_the_drawing_cuts_is_written_with_its_true_bounds(tmp_path):
    from experiments.harness import figure_data

    _, axes = plots.figure("A finding")
    axes.plot([1, 2, 3], [5.0, np.nan, 7.0], label="a")
    bars = axes.vlines([1, 2], [4.0, 6.0], [10.0, 10.0])
    figure_data.remember(bars, "a", np.array([1, 2]), np.array([4.0, 6.0]), np.array([np.inf, 300.0]))
    drawn = axes.errorbar([4.0], [2.0], yerr=[[1.98], [9.0]], label="b")
    figure_data.remember(drawn.lines[2][0], "b", np.array([4.0]), np.array([0.0]), np.array([11.0]))
    (rows,) = written(axes.figure, tmp_path)
    assert [row[1:] for row in rows[1:]] == [
        ["1.0", "5.0", "4.0", "inf"],
        ["2.0", "", "6.0", "300.0"],
        ["3.0", "7.0", "", ""],
        ["4.0", "2.0", "0.0", "11.0"],
    ]


@dataclasses.dataclass(frozen=True)
class Config:
    pass


NAMES = ("short", "a name that is much too long to stand beside its line")


def plot(results, recorder):
    recorder.note("said once")
    figure, panels = plots.figure("The finding is a sentence", "Ten seeds", rows=1, columns=2, width=13, height=5)
    for axes, name in zip(panels, NAMES, strict=True):
        axes.set(xlabel="episodes that the policy has seen", ylabel="return of an episode (steps)")
        axes.set_title("a heading that has very many words for so narrow a panel as this", loc="left", fontsize=10)
        axes.text(2, 0, "tiny letters", fontsize=3)
        plots.learning_curves(axes, np.arange(4), {name: np.zeros((3, 4)), "other": np.ones((3, 4))})
    recorder.figure(figure, "curves")


@pytest.mark.parametrize(("width", "inches", "side_by_side"), [("single", 3.25, 1), ("double", 6.75, 2)])
def test_a_figure_for_a_paper_fits_its_column(tmp_path, monkeypatch, width, inches, side_by_side):
    seen, finish = [], paper_layout.finish
    monkeypatch.setattr(paper_layout, "finish", lambda figure: (seen.append(figure), finish(figure)))
    paper = figures.Paper(formats=("pdf", "svg"), width=width)
    directory = runner.execute(
        "toy", Config(), lambda *_: None, plot, output_dir=tmp_path, run_name="one", paper=paper, tiny=width == "single"
    )
    (figure,) = seen
    assert figure.get_figwidth() == inches and figure.get_figheight() <= paper_layout.TALLEST
    assert len({round(axes.get_position().x0, 3) for axes in figure.axes}) == side_by_side
    shown = [text for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert all(7 <= text.get_fontsize() <= 8 for text in shown) and len(shown) > 10
    figure.draw_without_rendering()
    for text in shown:
        box = text.get_window_extent()
        assert box.x0 >= -1 and box.x1 <= figure.bbox.width + 1, text.get_text()
    words = " ".join(text.get_text() for text in shown)
    assert "The finding" not in words and "Ten seeds" not in words and NAMES[1] in words
    assert ("a tiny run" in words) == (width == "single")
    for name in ("curves.pdf", "curves.svg", "curves.png", "curves-1.csv", "curves-2.csv"):
        assert (directory / name).stat().st_size > 0
    assert b"/FontFile2" in (directory / "curves.pdf").read_bytes()  # TrueType, as journals ask
    told = (directory / "curves.txt").read_text()
    assert told.startswith("The finding is a sentence\n\nTen seeds") and (verdicts.TINY_NOTICE in told) == (
        width == "single"
    )
    assert (directory / "summary.md").read_text().count("said once") == 1


def test_the_same_run_gives_the_same_files(tmp_path):
    def made(place):
        with paper_layout.for_paper("single"):
            figure, axes = plots.figure("A finding")
            axes.plot([1, 2], [3, 4])
            figures.save_for_paper(figure, tmp_path / place / "f.png", figures.Paper(formats=("pdf", "svg")))
        return [(tmp_path / place / f"f.{kind}").read_bytes() for kind in ("pdf", "svg")]

    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert made("a") == made("b")


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (3, 2), (2, 5), (2, 3)])
@pytest.mark.parametrize("width", ["single", "double"])
def test_panels_have_the_shape_that_the_screen_has(shape, width):
    rows, columns = shape
    _, screen = plots.figure("A finding", rows=rows, columns=columns, width=13, height=8)
    with paper_layout.for_paper(width):
        figure, paper = plots.figure("A finding", rows=rows, columns=columns, width=13, height=8)
    assert np.shape(screen) == np.shape(paper) and len(figure.axes) == rows * columns
    assert figure.get_figheight() <= paper_layout.TALLEST


def test_the_footer_of_a_tiny_run_is_in_the_picture(tmp_path):
    made, _ = plots.figure("A finding", "A caption")
    figures.save(made, tmp_path / "f.png", footer=verdicts.TINY_NOTICE)
    assert made.get_supxlabel() == f"A caption\n{verdicts.TINY_NOTICE}"


def test_names_move_into_a_legend_where_panels_stand_side_by_side():
    with paper_layout.for_paper("single"):
        alone = plots.figure("A finding", rows=2)[1][0]
        beside = plots.figure("A finding", rows=6, columns=2, height=9.0)[1][0, 0]
        assert beside.get_subplotspec().get_gridspec().ncols == 2
        assert paper_layout.names_fit(["ε = −0.5"], alone)
        assert not paper_layout.names_fit(["ε = −0.5"], beside)


def test_a_number_and_its_unit_stay_on_one_line():
    with paper_layout.for_paper("single"):
        figure, axes = plots.figure("A finding")
        axes.set_title("a heading of some length that ends with the number 94.0\u00a0%\nor with another")
        paper_layout.finish(figure)
    lines = axes.get_title().split("\n")
    assert len(lines) > 1 and sum("94.0\u00a0%" in line for line in lines) == 1
