"""Too large a step: what one saturated update does, counted by hand, and where exact ascent oversteps."""

import json

import numpy as np
import pytest

from experiments import step_size as module
from experiments.harness import runner
from experiments.step_size import targets as known

IN_THE_CORRIDOR = {"corridor stuck", "limit", "noise first"}


def execute(tmp_path_factory, config):
    kept = []

    def run(config, recorder):
        kept.append(module.run(config, recorder))
        return kept[0]

    directory = runner.execute("step_size", config, run, module.plot, output_dir=tmp_path_factory.mktemp("results"))
    return directory, json.loads((directory / "paper.json").read_text())["verdicts"], kept[0]["found"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return execute(tmp_path_factory, module.TINY)


def test_what_was_predicted_comes_out(tiny):
    directory, verdicts, _ = tiny
    # The corridor was not asked for, so that there is no word of it.
    assert set(verdicts) == {target.key for target in module.PAPER.targets} - IN_THE_CORRIDOR
    assert set(verdicts.values()) == {"agrees"}
    assert (directory / "step_size.png").stat().st_size > 10_000
    lines = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    assert len(lines) == 4 * len(known.problems()[known.BANDIT].powers)


def test_who_is_stuck_is_sure_of_a_lesser_arm(tiny):
    found = tiny[2][known.BANDIT].trained
    assert found.stuck.any()
    np.testing.assert_allclose(found.returns[found.stuck], 0.7, atol=0.02)
    assert not found.stuck[:, 0].any()  # slow, with all its entropy, is not stuck


def test_the_steps_are_those_of_the_baseline_named(tiny):
    """At the largest step one update decides, so each run's end is known from its first pulls, which all share."""
    found = tiny[2][known.BANDIT].trained
    plain, average, value = found.stuck[:, -1]
    np.testing.assert_array_equal(plain, average)
    # With ρ(θ) an arm that pays less is pushed away: stuck only where the first pull was the 0.7-arm's.
    assert np.all(plain[value]) and value.sum() < plain.sum()


def test_exact_ascent_leaves_the_best_above_2_over_the_curvature(x64):
    problem = known.problems()[known.CORRIDOR]
    settled, left = -2, -1
    pair = problem._replace(powers=range(settled, left + 1))
    climbed = module.ascend(pair, 200)
    limit = 2.0 / module.curvature(problem, climbed[0])
    # Δ = θ₂ − θ₁ alone matters, and its curvature enters twice: ρ'' of the truncated corridor, by finite differences.
    theta = climbed[0, 0]
    h = 1e-3
    moved = np.stack([theta + sign * h * np.array([-0.5, 0.5]) for sign in (-1, 0, 1)])[:, None]
    below, at, above = module.examine(problem, moved)[0].returns
    second = (above - 2 * at + below) / h**2
    assert limit == pytest.approx(-1.0 / second, rel=1e-4)
    assert 2.0**settled < limit < 2.0**left
    final = module.examine(problem, climbed)[0]
    assert final.gradient[0] < 1e-10 and final.gradient[1] > 1e-3
    # A wrong twin: the step that the curvature in Δ alone would allow is twice as large.
    assert -2.0 / second > 2.0**left


@pytest.mark.slow
def test_everything_comes_out_at_full_size(tmp_path_factory):
    verdicts = execute(tmp_path_factory, module.Config())[1]
    assert set(verdicts.values()) == {"agrees"}


def test_an_unknown_problem_is_refused():
    with pytest.raises(runner.UsageError, match="--problems maze: must be bandit"):
        module.Config(problems=("maze",)).validate()
