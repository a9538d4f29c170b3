"""RLOO, GRPO and Dr. GRPO on prompts that can be enumerated: every ratio, the limit, and the pull of 1/|o|."""

import json

import numpy as np
import pytest

from experiments import group_baselines
from experiments.group_baselines import prompts
from experiments.harness import runner
from experiments.harness.verdicts import Verdict, otherwise

NAME = "group_baselines"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("results")
    return runner.execute(NAME, group_baselines.TINY, group_baselines.run, group_baselines.plot, output_dir=tmp)


@pytest.fixture(scope="module")
def rows(directory):
    return json.loads((directory / "summary.json").read_text())["rows"]


def test_every_target_agrees(directory, rows):
    verdicts = json.loads((directory / "paper.json").read_text())["verdicts"]
    assert set(verdicts) == {target.key for target in group_baselines.PAPER.targets}
    assert {key for key, found in verdicts.items() if otherwise(found)} == set()
    assert Verdict.NOT_MEASURED not in verdicts.values()
    for row in rows[: len(verdicts)]:
        assert row["exact"] is not None and abs(row["ours"] - row["exact"]) < 1e-10
    assert (directory / "group_baselines.png").stat().st_size > 10_000


def test_the_sample_agrees_and_tells_the_twins_apart(rows):
    drawn = {row["variant"]: row for row in rows if row["stderr"]}
    assert len(drawn) == 4
    for row in drawn.values():
        assert abs(row["ours"] - row["exact"]) < 4.5 * row["stderr"], row
    # GRPO in the place of RLOO would double the gradient at p = 0.2.
    assert abs(drawn[prompts.RLOO]["ours"] - drawn[prompts.GRPO]["exact"]) > 20 * drawn[prompts.RLOO]["stderr"]


def test_wrong_twins_are_off_by_their_factors(rows):
    ours = {(row["quantity"], row["variant"]): row["ours"] for row in rows}
    for size in group_baselines.GROUPS:
        for p in group_baselines.PROBABILITIES:
            quantity = f"E[estimate] / ∇p, G = {size}, p = {p}"
            found = ours[quantity, group_baselines.AS_RELEASED] / ours[quantity, group_baselines.AS_PUBLISHED]
            np.testing.assert_allclose(found, ((size - 1) / size) ** 0.5, rtol=1e-10)
    # 1/|o| halves what is learned of the short answers and pulls by p (1 − p) · ¼ · (1/2 − 1/4).
    found = ours["pull of right answers towards short", prompts.RLOO_PER_TOKEN]
    np.testing.assert_allclose(found, 0.2 * 0.8 / 16, rtol=1e-10)


def test_many_answers_come_to_the_arcsine():
    for p in (0.05, 0.5):
        gaps = [1 - prompts.mean_spread(p, size) / np.sqrt(p * (1 - p)) for size in (128, 256)]
        # 1/(8 G p (1 − p)) in the first order.
        np.testing.assert_allclose(gaps[1] / gaps[0], 0.5, atol=0.05)
        np.testing.assert_allclose(gaps[1] * 8 * 256 * p * (1 - p), 1.0, atol=0.1)


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(runner.UsageError, match=r"--right 1.0: must be in \(0, 1\)"):
        runner.execute(NAME, group_baselines.Config(right=1.0), group_baselines.run, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_default_run_finds_the_same(tmp_path):
    config = group_baselines.Config()
    directory = runner.execute(NAME, config, group_baselines.run, group_baselines.plot, output_dir=tmp_path)
    verdicts = json.loads((directory / "paper.json").read_text())["verdicts"]
    assert {key for key, found in verdicts.items() if otherwise(found)} == set()
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert all(not (row["verdict"] and otherwise(row["verdict"])) for row in rows[len(verdicts) :])
