"""The question about precision: its control in float64, its errors beside NumPy's own rounding, and its figure."""

import json

import numpy as np
import pytest

from experiments import precision
from experiments.harness import runner
from experiments.harness.verdicts import otherwise
from experiments.precision import learning, tables
from experiments.precision.rounding import ALL_BFLOAT16, Errors


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    seen = {}

    def plot(found, recorder):
        seen.update(found)
        precision.plot(found, recorder)

    folder = tmp_path_factory.mktemp("results")
    directory = runner.execute("precision", precision.TINY, precision.run, plot, output_dir=folder)
    return directory, json.loads((directory / "summary.json").read_text()), seen


def test_the_tiny_run_records_every_part(results):
    directory, summary, _ = results
    assert not [row for row in summary["rows"] if row["verdict"] and otherwise(row["verdict"])]
    assert len(summary["tables"]) == 3 and (directory / "precision.png").stat().st_size > 10_000


def test_the_mean_over_all_trajectories_is_the_gradient_in_float64_only(results):
    """Twin: the precision is ignored, and all three rows are that of float32."""
    biases = results[2]["biases"]["random"]
    for weights in ("Gₜ", "Gₜ − v(Xₜ)"):
        assert biases[weights, "float64"].own.max() < 1e-13
        assert 1e-9 < biases[weights, "float32"].own.max() < 3e-6
        assert 3e-5 < biases[weights, "tfloat32"].own.min() < 0.1 * biases[weights, "bfloat16"].own.max() < 3e-3


def test_the_errors_of_a_batch_are_in_the_order_of_the_mantissas(results):
    found = results[2]["found"]
    errors = [np.sqrt(found.mean_square(name)[-1]) for name in ("float32", "tfloat32", "bfloat16", ALL_BFLOAT16)]
    assert 3.0 * errors[0] < errors[1] and 3.0 * errors[1] < errors[2]
    assert errors[2] < errors[3] < 0.1


def test_the_crossing_is_where_both_errors_are_equal():
    """Twin: a floor without the part that averages out gives 100."""
    batches = np.array([4, 64])
    rounding = {"low": [np.sqrt(np.array([0.01 + 0.2 / size])) for size in batches]}
    found = Errors(batches=(4, 64), noise=1.0 / np.sqrt(batches), rounding=rounding, rows=[1.0, 1.0])
    np.testing.assert_allclose(found.crossing("low"), (1.0 - 0.2) / 0.01)
    flat = found._replace(rounding={"low": [np.array([0.0]), np.array([0.0])]})
    assert flat.crossing("low") == np.inf


class Heard(list):
    """A recorder that keeps the rows."""

    tiny = False

    def row(self, **row):
        self.append(row)

    def table(self, *args, **more):
        del args, more


def test_trainings_are_compared_seed_by_seed():
    first = np.array([500.0, 490.0, 480.0])
    spread = lambda returns: learning.Learned(returns=returns, seconds=1.0)
    heard = Heard()
    learned = {
        "float32": spread(first),
        "tfloat32": spread(first + np.array([1, -2, 1])),
        "bfloat16": spread(first - np.array([9, 9.5, 10])),
    }
    tables.report_trainings(learned, heard)
    verdicts = [row["verdict"] for row in heard if "minus" in row["quantity"]]
    assert [otherwise(verdict) for verdict in verdicts] == [False, True]


@pytest.mark.slow
def test_training_learns_in_low_precision():
    found = learning.train("bfloat16", 2, 25, (32, 32), 0)
    assert found.returns.mean() > 100.0
