"""Trained policies beside random actions and controllers: the rows of a training, and the table made of them."""

import dataclasses
import json
import types

import numpy as np
import pytest

from experiments import problems, train
from experiments.harness import runner
from experiments.problems import reading
from experiments.shared import references
from pgjax import environments

NAMES = ("maze", "random_maze", "navigation", "swimmer", "slates", "ads", "cooling", "Breakout-MinAtar", "reverse")


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """A results folder with one small training of ads."""
    folder = tmp_path_factory.mktemp("results")
    tiny = {"num_updates": 1, "num_episodes": 4, "hidden": (4,), "eval_episodes": 30, "gif": False}
    config = train.Config(env="ads", num_seeds=2, seed=7, estimator="gae", lr=(0.1,), **tiny)
    runner.execute("train", config, train.run, output_dir=folder, run_name="ads")
    return folder


def rows_of(folder):
    return json.loads((folder / "summary.json").read_text())["rows"]


def test_a_training_is_shown_beside_random_actions_and_the_controller(output):
    rows = [row for row in rows_of(output / "train" / "ads") if row["quantity"] == "regret of a session, clicks"]
    found = {row["variant"]: row["ours"] for row in rows}
    assert set(found) == {
        "random",
        "most viewed product",
        "trained, mean over seeds",
        "trained, lr 0.1, seed 7",
        "trained, lr 0.1, seed 8",
    }
    assert 0 < found["most viewed product"] < 0.5 * found["random"]
    assert found["trained, mean over seeds"] == pytest.approx(
        (found["trained, lr 0.1, seed 7"] + found["trained, lr 0.1, seed 8"]) / 2
    )
    assert all(row["exact"] == 0.0 for row in rows)


def test_the_table_of_problems_repeats_the_rows_of_the_training(output, tmp_path):
    config = problems.Config(runs=(output / "train" / "ads",))
    directory = runner.execute("problems", config, problems.run, problems.plot, output_dir=tmp_path)
    assert (directory / "problems.png").is_file()
    trained = {(row["quantity"], row["variant"]): row for row in rows_of(output / "train" / "ads")}
    for row in rows_of(directory):
        problem, measure = row["quantity"].split(": ")
        name = references.TRAINED if row["variant"] == "trained" else row["variant"]
        assert problem == "ads" and row["ours"] == trained[measure, name]["ours"]
    line = json.loads((directory / "summary.json").read_text())["tables"][0]["lines"][0]
    assert line[0] == "ads" and len(line[5].split()) == 2 and float(line[7]) > 0
    assert reading.latest(output / "train") == [output / "train" / "ads"]


def line_of(random, controllers, seeds, *, larger_is_better):
    known = lambda value: problems.diagnostics.Estimate(value, 0.1, value, value)
    return reading.Line(
        problem="x",
        measure="y",
        random=known(random),
        references={str(value): known(value) for value in controllers},
        trained=known(np.mean(seeds)),
        seeds=np.array(seeds),
        bound=None,
        cpu_seconds=None,
        larger_is_better=larger_is_better,
    )


@pytest.mark.parametrize(("reference", "wanted"), [(0.2, [1.0, 1.25]), (0.6, [2.0, 2.5])])
def test_the_share_of_the_way_is_the_same_whether_less_or_more_is_better(reference, wanted):
    less = line_of(1.0, [reference, 1.5], [0.2, 0.0], larger_is_better=False)
    np.testing.assert_allclose(reading.shares(less), wanted)
    more = line_of(-1.0, [-reference, -1.5], [-0.2, 0.0], larger_is_better=True)
    np.testing.assert_allclose(reading.shares(more), wanted)


def test_a_policy_that_is_worse_than_random_actions_beats_no_reference():
    failed = line_of(0.0, [10.0, -5.0], [-10.0, -10.0], larger_is_better=True)
    np.testing.assert_array_equal(reading.shares(failed), [-1.0, -1.0])
    mirrored = line_of(0.0, [-10.0, 5.0], [10.0, 10.0], larger_is_better=False)
    np.testing.assert_array_equal(reading.shares(mirrored), [-1.0, -1.0])


def test_without_a_reference_above_random_actions_there_is_no_share():
    weak = line_of(0.0, [-5.0], [-10.0, 3.0], larger_is_better=True)
    assert np.isnan(reading.shares(weak)).all()
    drawn = []
    recorder = types.SimpleNamespace(figure=lambda figure, name: drawn.append(figure))
    problems.plot([weak], recorder)
    assert not drawn
    problems.plot([weak, line_of(0.0, [5.0], [6.0, 7.0], larger_is_better=True)._replace(problem="z")], recorder)
    assert [label.get_text() for label in drawn[0].axes[0].get_yticklabels()] == ["z: y"]


def test_the_direction_of_a_line_is_that_of_its_measure(output):
    found = {line.measure: line.larger_is_better for line in reading.lines(output / "train" / "ads")}
    assert found == {"regret of a session, clicks": False, "clicks in a session": True}


def test_what_is_no_compared_run_is_refused(output, tmp_path):
    with pytest.raises(runner.UsageError, match="must be the folder of a finished run"):
        runner.execute("problems", problems.Config(runs=(tmp_path,)), problems.run, output_dir=tmp_path)
    config = dataclasses.replace(train.TINY, gif=False)
    alone = runner.execute("train", config, train.run, output_dir=tmp_path)
    with pytest.raises(runner.UsageError, match="with --references"):
        runner.execute("problems", problems.Config(runs=(alone,)), problems.run, output_dir=tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_every_problem_has_a_measure_and_random_actions(name, monkeypatch):
    environment = environments.make(name)
    monkeypatch.setattr(references, "best_wave", lambda environment: ())
    assert references.RANDOM in references.policies(name, environment)
    measures = references.measures(name)
    assert len({measure.name for measure in measures}) == len(measures) > 0
    if name == "maze":
        assert measures[0].optimum(environment) == pytest.approx(-12.0)
