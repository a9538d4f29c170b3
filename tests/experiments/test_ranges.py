"""No interval of a report leaves the range in which its number must lie, also with two seeds."""

import csv
import dataclasses
import math

import jax
import numpy as np
import pytest
from trainings import summary

from experiments import train
from experiments.harness import runner
from experiments.shared import ranges, references
from experiments.train import report
from pgjax import diagnostics, environments, evaluation


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("CartPole-v1", (1.0, 500.0)),
        ("gymnax:CartPole-v1", (1.0, 500.0)),
        ("corridor", (-1000.0, -1.0)),
        ("MountainCar-v0", (-200.0, -1.0)),
        ("Acrobot-v1", (-500.0, 0.0)),
        ("recall", (0.0, 1.0)),
        ("Breakout-MinAtar", (0.0, math.inf)),
        ("swimmer", diagnostics.UNBOUNDED),
    ],
)
def test_episodes_of_random_actions_are_within_the_range(name, wanted):
    environment = environments.make(name)
    least, most = ranges.returns(name, environment.horizon)
    assert (least, most) == wanted
    played = evaluation.evaluate(environment, environments.random_policy(environment), (), jax.random.key(0))
    assert least <= played.returns.min() and played.returns.max() <= most


def test_nothing_is_known_of_other_environments_and_metrics():
    assert ranges.returns("my_file:my_environment", 10) == diagnostics.UNBOUNDED
    assert ranges.metric("distance", "mean") == diagnostics.UNBOUNDED
    assert ranges.metric("success", "final") == (0.0, 1.0) and ranges.metric("click", "total") == (0.0, math.inf)
    assert ranges.differences((1.0, 500.0)) == (-499.0, 499.0)


def test_a_success_rate_ends_at_1():
    environment = environments.make("random_maze")
    success = next(one for one in references.measures("random_maze") if one.name == "success")
    found = diagnostics.mean_interval([0.9, 1.0])
    assert found.high > 1 and diagnostics.within(found, success.range(environment)).high == 1


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two seeds that differ much: their t intervals are 25 standard errors long."""
    config = dataclasses.replace(train.TINY, num_updates=6, lr=(0.3,), references=True)
    folder = tmp_path_factory.mktemp("results")
    return runner.execute("train", config, train.run, report.plot, output_dir=folder, run_name="two")


def test_tables_and_figures_of_two_seeds_stay_in_the_range(trained):
    found, seen = summary(trained), 0
    for table in found["tables"]:
        column = table["headers"].index("95 % interval")
        for line in table["lines"]:
            low, high = (float(x) for x in line[column].split(" to "))
            assert -1000 <= low <= high <= -1, line
            seen += low == -1000 or high == -1
    assert seen > 0  # otherwise this test could not fail
    with (trained / "learning_curve.csv").open(encoding="utf-8", newline="") as file:
        bands = np.array([[float(x) for x in row[3:]] for row in list(csv.reader(file))[1:] if row[3]])
    assert len(bands) > 3 and bands.min() >= -1000 and bands.max() <= -1 and (bands == -1).any()
    assert any("too few for an interval" in note for note in found["notes"])
