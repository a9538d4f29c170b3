"""Optimal baselines at the tiny size: formulas, orders and limits are exact at every size."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import optimal_baselines as module
from experiments.harness import runner
from experiments.harness.verdicts import otherwise


def execute(config, folder):
    """Verdicts by key, rows by (quantity, variant), and the directory."""
    directory = runner.execute("optimal_baselines", config, module.run, module.plot, output_dir=folder)
    verdicts = json.loads((directory / "paper.json").read_text())["verdicts"]
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    return verdicts, {(row["quantity"], row["variant"]): row for row in rows}, directory


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return execute(module.TINY, tmp_path_factory.mktemp("results"))


def test_every_target_comes_out(ran):
    verdicts, _, directory = ran
    assert {key: verdict for key, verdict in verdicts.items() if verdict != "agrees"} == {}
    assert verdicts["b*"] == verdicts["value"] == verdicts["optimum"] == "agrees"
    assert [verdicts[f"formula {name}"] for name in module.problems.ARGMINS] == ["agrees"] * 7
    assert {path.stem for path in directory.glob("*.png")} == {"optimal_baselines"}


def test_the_value_costs_what_the_parabola_says(ran):
    """Twin: E G in the place of b*. Var(b) − Var(b*) = (b − b*)² E‖S‖²."""
    _, rows, _ = ran
    for variant in (module.THREE, module.ARMS):
        mean, best, nothing, value, least = (
            rows[quantity, variant]["ours"] for quantity in ("E G", "b*", "Var(0)", "Var(E G)", "Var(b*)")
        )
        assert (value - least) / (nothing - least) == pytest.approx((mean / best - 1) ** 2, rel=1e-9)
        assert value > 1.02 * least


def test_the_lowest_points_tell_the_rules_apart(ran):
    """Twin: the rule of one step alone in the place of that of the sum, which forgets the other steps' returns."""
    _, _, directory = ran
    with np.load(directory / "formulas_and_lowest.npz") as file:
        alone, lowest = file["one step alone, formula"], file["step, of both, lowest"]
        assert np.abs(file["step, of both, formula"] - lowest).max() < 1e-10
    assert np.abs(alone - lowest).max() > 0.2


def test_bad_options_are_refused():
    with pytest.raises(runner.UsageError, match="--problems 63: must be at least 64"):
        dataclasses.replace(module.TINY, problems=63).validate()
    with pytest.raises(runner.UsageError, match="--lengths 4 1024: must be increasing, with 16 among them"):
        dataclasses.replace(module.TINY, lengths=(4, 1024)).validate()


@pytest.mark.slow
def test_the_default_run_has_no_bad_verdict(tmp_path):
    verdicts, rows, _ = execute(module.Config(), tmp_path)
    assert [key for key, verdict in verdicts.items() if otherwise(verdict)] == []
    assert 0.05 < rows["share with Var(E G) > Var(0)", module.RANDOM]["ours"] < 0.3
