"""Noise in the actions or in the parameters: the table at the tiny size, and what a wrong option says."""

import json

import pytest

from experiments import parameter_exploring as exploring
from experiments.harness import runner


def test_the_tiny_experiment_measures_every_case(tmp_path):
    directory = runner.execute(
        "parameter_exploring", exploring.TINY, exploring.run, exploring.plot, output_dir=tmp_path
    )
    rows = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 8 and all(row["ours"] > 0 and row["stderr"] > 0 for row in rows)
    plain = {row["variant"]: row["ours"] for row in rows if row["quantity"] == "tr Var, T = 4, nothing subtracted"}
    other = {row["variant"]: row["ours"] for row in rows if row["quantity"] == "tr Var, T = 4, leave-one-out"}
    assert all(other[name] < plain[name] for name in plain)
    assert (directory / "parameter_exploring.png").is_file()


def test_horizons_must_increase():
    with pytest.raises(runner.UsageError, match=r"--horizons .*two or more, increasing"):
        exploring.Config(horizons=(5, 2)).validate()
