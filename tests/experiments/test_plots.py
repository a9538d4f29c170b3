"""Figures: what is drawn where, that labels keep apart, and that the caller's matplotlib stays as it was."""

import itertools

import matplotlib
import numpy as np
import pytest

from experiments.harness import plots
from pgjax.diagnostics import bootstrap_interval, interquartile_mean


def texts(axes) -> dict[str, matplotlib.text.Annotation]:
    return {text.get_text(): text for text in axes.texts}


@pytest.fixture(scope="module")
def curves():
    rng = np.random.default_rng(0)
    return {name: height + rng.normal(size=(6, 12)) for name, height in (("low", 0.0), ("high", 0.1), ("far", 50.0))}


def test_learning_curves_draw_the_statistic_inside_its_band(curves):
    _, axes = plots.figure("A finding", "A caption")
    plots.learning_curves(axes, np.arange(12), curves, statistic=interquartile_mean)
    lines = {line.get_label(): line for line in axes.lines}
    for index, (name, runs) in enumerate(curves.items()):
        np.testing.assert_allclose(lines[name].get_ydata(), interquartile_mean(runs))
        band = axes.collections[index].get_paths()[0].vertices[:, 1]
        assert band.min() < lines[name].get_ydata().min() and lines[name].get_ydata().max() < band.max()
        assert matplotlib.colors.same_color(texts(axes)[name].get_color(), lines[name].get_color())


def test_bands_of_a_mean_cover_from_two_runs_on():
    """2 000 points of two normal runs: the bootstrap's interval, the wrong twin, covers half of the time."""
    runs = np.random.default_rng(3).normal(size=(2, 2000))
    _, axes = plots.figure("A finding")
    plots.learning_curves(axes, np.arange(2000), {"two": runs})
    low, high = plots._interval(runs, np.mean, 0.95)
    assert abs(np.mean((low <= 0) & (high >= 0)) - 0.95) < 0.02
    low, high = bootstrap_interval(runs, np.mean, resamples=200)
    assert np.mean((low <= 0) & (high >= 0)) < 0.6
    assert plots.bands(5) == "95 % t bands"
    warning = "Only 2 seeds: a 95 % interval is 12.7 standard errors to each side"
    assert plots.bands(2, "seeds").startswith(f"95 % t bands ({warning}. Two seeds are too few")


def test_bands_end_at_known_bounds():
    runs = np.array([[0.9, 0.2], [1.0, 0.0]])
    _, axes = plots.figure("A finding")
    plots.learning_curves(axes, np.arange(2), {"share": runs}, bounds=(0.0, 1.0))
    heights = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert heights.min() == 0.0 and heights.max() == 1.0 and max(plots._interval(runs, np.mean, 0.95)[1]) > 1


def test_labels_do_not_overlap(curves):
    figure, axes = plots.figure("A finding")
    plots.learning_curves(axes, np.arange(12), curves)
    figure.draw_without_rendering()
    boxes = sorted((text.get_window_extent().y0, text.get_window_extent().y1) for text in axes.texts)
    assert len(boxes) == 3
    for (_, top), (bottom, _) in itertools.pairwise(boxes):
        assert top <= bottom


def test_spread_moves_only_what_touches():
    spread = plots._spread(np.array([1.0, 100.0, 0.0, 50.0]), 10.0)
    np.testing.assert_allclose(spread, [5.5, 100.0, -4.5, 50.0])
    crowd = plots._spread(np.zeros(5), 10.0)
    np.testing.assert_allclose(np.diff(np.sort(crowd)), 10.0)
    np.testing.assert_allclose(crowd.mean(), 0.0)
    # The first merge pushes the pair into its neighbour.
    np.testing.assert_allclose(plots._spread(np.array([0.0, 1.0, 8.0]), 10.0), [-7.0, 3.0, 13.0])


def test_diverged_and_single_runs_are_said_not_hidden(curves):
    broken = curves["low"].copy()
    broken[2, 5:] = np.nan
    _, axes = plots.figure("A finding")
    plots.learning_curves(axes, np.arange(12), {"broken": broken, "lost": broken * np.nan, "one": broken[:1]})
    assert set(texts(axes)) == {"broken (1 of 6 diverged)", "one"}
    assert texts(axes)["broken (1 of 6 diverged)"].xy[0] == 4


def test_more_names_than_colours_are_told_apart():
    _, axes = plots.figure("A finding")
    names = [f"variant {i}" for i in range(8)]
    plots.learning_curves(axes, np.arange(3), {name: np.zeros((2, 3)) + i for i, name in enumerate(names)})
    styles = {(line.get_color(), line.get_linestyle()) for line in axes.lines}
    assert len(styles) == 8
    assert "variant 7 (dashed)" in texts(axes)


@pytest.mark.parametrize("scale", ["linear", "log"])
def test_bars_stand_in_order_with_their_numbers(scale):
    _, axes = plots.figure("A finding")
    values = {"a": (1.0, 0.9, 1.1), "outside": (0.5, 0.6, 0.7), "no interval": (0.0125, np.nan, np.nan)}
    plots.bars_with_intervals(axes, values, scale=scale)
    plots.reference_line(axes, 0.2, "exact", axis="x")
    plots.reference_line(axes, 1, "middle")
    assert [label.get_text() for label in axes.get_yticklabels()] == list(values)
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert {"1", "0.5", "0.0125", "exact", "middle"} == set(texts(axes))
    assert len(axes.patches) == (3 if scale == "linear" else 0)  # a bar has no foot on a logarithmic scale
    axes.figure.draw_without_rendering()


def test_bars_refuse_another_scale():
    _, axes = plots.figure("A finding")
    with pytest.raises(ValueError, match=r"scale.*symlog"):
        plots.bars_with_intervals(axes, {"a": (1.0, 0.9, 1.1)}, scale="symlog")


def test_the_callers_settings_stay_and_long_titles_are_broken():
    before = dict(matplotlib.rcParams)
    figure, axes = plots.figure("A finding that needs many words to be said " * 3, "words " * 40, columns=2)
    assert axes.shape == (2,)
    figure.draw_without_rendering()
    width = figure.get_window_extent().width
    for text in figure.texts:
        assert "\n" in text.get_text() and text.get_window_extent().x1 <= width
    assert dict(matplotlib.rcParams) == before
    assert plots.colours(["a", "b"]) == {"a": plots.PALETTE[0], "b": plots.PALETTE[1]}


def test_a_long_curve_is_thinned_before_its_band_is_computed():
    runs = np.sin(np.arange(200_003) / 3e4) + np.arange(3)[:, None]
    _, axes = plots.figure("A long run")
    x = np.arange(200_003)
    ends = plots.learning_curves(axes, x, {"three": runs, "one": runs[:1] - 2}, statistic=np.median)
    line = axes.lines[0]
    assert len(line.get_xdata()) <= 1001 and len(axes.collections) == 1  # one run has no band
    np.testing.assert_allclose(line.get_ydata()[:3], 1 + np.sin((100.0 + 201 * np.arange(3)) / 3e4), rtol=1e-4)
    assert ends["three"][0] > 199_900
