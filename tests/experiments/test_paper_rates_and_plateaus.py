"""Rates and plateaus after Mei et al.: slopes, plateaus to the update, and updates that miss the importance weight."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import rates_and_plateaus as module
from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.harness.verdicts import Verdict, otherwise
from experiments.rates_and_plateaus import targets as known
from experiments.shared import one_step
from pgjax import estimators, exact

LONG = {"slope", "steeper", "gap 10000", "gap 30000", "gap 60000"}


def execute(tmp_path_factory, config):
    directory = runner.execute(
        "rates_and_plateaus", config, module.run, module.plot, output_dir=tmp_path_factory.mktemp("results")
    )
    return directory, json.loads((directory / "paper.json").read_text())["verdicts"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return execute(tmp_path_factory, module.TINY)


def test_what_the_papers_say_comes_out(tiny):
    directory, verdicts = tiny
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == set()
    assert {key for key, verdict in verdicts.items() if verdict == Verdict.NOT_MEASURED} == LONG
    for key in ("plateau", "no plateau", "still there", "proportional", "length", "unbiased", "variance with"):
        assert verdicts[key] == "agrees"
    assert (directory / "rates_and_plateaus.png").stat().st_size > 10_000


def test_the_gaps_are_those_of_the_recorded_times(tiny):
    curves = np.load(tiny[0] / "curves.npz")
    assert curves["gaps"].shape == (len(curves["times"]), 2, module.TINY.runs)
    assert {10, 100, 1000, 3000} <= set(curves["times"])
    assert np.all(curves["gaps"] > -1e-12) and np.all(curves["gaps"] < 0.97)


def test_a_plateau_is_left_after_one_update_fewer_than_the_index_of_its_parameters(tiny):
    """θ₁ is the start, so θ_4570 comes after 4569 updates; the exact ascent here is written out."""
    arms, policy = np.array(known.PLATEAU_ARMS), np.array(known.STARTS["(0.01, 0.98, 0.01)"])
    theta, updates = np.log(policy), 0
    while arms.max() - policy @ arms >= 0.05:
        theta, updates = theta + known.PLATEAU_STEP * policy * (arms - policy @ arms), updates + 1
        policy = np.exp(theta - theta.max()) / np.exp(theta - theta.max()).sum()
    assert updates == 4569
    summary = json.loads((tiny[0] / "summary.json").read_text())
    rows = {row["variant"]: row["ours"] for row in summary["rows"] if "first t" in row["quantity"]}
    assert rows == {"from (0.01, 0.98, 0.01)": updates + 1, "from uniform": 60}
    with Image.open(tiny[0] / "rates_and_plateaus.png") as image:
        assert "waits 4569 updates" in image.info["Title"]
    headline = json.loads((tiny[0] / "paper.json").read_text())["headline"]
    assert not any("updates" in line["quantity"] for line in headline)


def judged(key, value, stderr=0.0):
    target = next(target for target in module.PAPER.targets if target.key == key)
    return papers.judge(target, papers.Measured(value, stderr)).overall


def test_no_gap_of_0_and_no_gap_of_the_other_baseline_agrees(tiny):
    curves = np.load(tiny[0] / "curves.npz")
    with_, without = curves["gaps"][:, 0].mean(axis=1), curves["gaps"][:, 1].mean(axis=1)
    for t in known.REFERENCES:
        # From t = 3000 on the gap with b = 0 stays where it is, by less than a tenth.
        other = without[min(np.searchsorted(curves["times"], t), len(without) - 1)]
        assert judged(f"gap {t}", float(other), 0.1 * float(other)) == "not as expected"
        assert judged(f"gap {t}", 0.0) == judged(f"gap {t}", -1e-5) == "not as expected"
    for key in ("stuck mean", "stuck worst"):
        assert judged(key, float(with_[-1]), 0.0) == judged(key, 0.0) == "not as expected"


def test_a_rule_on_ln_gap_allows_three_errors_and_no_more():
    rule = known.OtherArms(0.1)
    inside, outside = (np.exp(errors * (2 * 0.1**2 + 0.2**2) ** 0.5) for errors in (2.95, 3.05))
    for ours in (inside, 1 / inside):
        assert rule.holds(papers.Measured(ours, 0.2 * ours), 1.0, "1.000")
    for ours in (outside, 1 / outside):
        assert not rule.holds(papers.Measured(ours, 0.2 * ours), 1.0, "1.000")


def test_one_stuck_run_in_forty_is_too_many():
    for stuck, verdict in ((0, "agrees"), (1, "differs")):
        share = papers.Measured.share(np.arange(40) >= stuck)
        assert judged("none stuck", share.value, share.stderr) == verdict


@pytest.mark.slow
def test_the_slope_of_the_tail_is_that_of_more_and_longer_runs(tmp_path_factory):
    directory, verdicts = execute(tmp_path_factory, module.Config())
    assert Verdict.NOT_MEASURED not in verdicts.values()
    curves = np.load(directory / "curves.npz")
    slope = module.log_slope(curves["times"], curves["gaps"][:, 0], known.TAIL, module.Config().updates)
    assert 0 < slope.stderr < 0.3
    assert abs(slope.value + 1.14) < 3 * slope.stderr
    differs = {"slope"} if abs(slope.value + 1) > 0.1 else set()
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == differs


def test_without_the_inverse_of_its_fisher_the_mean_is_pi_times_smaller(x64):
    """The wrong twin is the vanilla gradient: its mean is (diag(π) − ππᵀ) times that of the natural one."""
    rewards = jnp.asarray(module.arms())
    policy, mdp = one_step.table(20), exact.make_bandit(rewards)
    vanilla = estimators.make_estimator(policy, returns=estimators.total_return())

    @jax.jit
    def means(params):
        probabilities = exact.policy_probabilities(policy.apply, params, mdp)[0]
        each = lambda estimator, a: estimator.gradient(params, (), one_step.trajectory(a, rewards[a]))[0][0]
        both = lambda a: (each(module.natural_estimator(0.3), a), each(vanilla, a))
        fisher = jnp.diag(probabilities) - jnp.outer(probabilities, probabilities)
        right = exact.natural_gradient(policy.apply, params, mdp)[0]
        return right, fisher @ right, *(probabilities @ found for found in jax.vmap(both)(jnp.arange(20)))

    right, predicted, found, twin = means(jnp.linspace(-1.0, 1.0, 20)[None])
    np.testing.assert_allclose(found, right, atol=1e-12)
    np.testing.assert_allclose(twin, predicted, atol=1e-12)
    assert float(jnp.linalg.norm(twin)) < 0.2 * float(jnp.linalg.norm(right))


def test_a_slope_is_found_and_a_wrong_power_is_told_apart():
    times = np.unique(np.geomspace(1, 10_000, 100).round().astype(int))
    noise = np.exp(0.05 * np.random.default_rng(0).normal(size=(1, 30)))
    for power in (-1.0, -2.0):
        found = module.log_slope(times, times[:, None] ** power * noise, 100, 10_000)
        assert found.value == pytest.approx(power, abs=1e-9)


def test_the_error_of_a_slope_is_that_of_the_noise():
    """Runs t⁻¹ (1 + s z ln t), z summing to 0: to first order the slope of the mean errs by s times that of mean z."""
    times = np.unique(np.geomspace(1, 10_000, 50).round().astype(int))
    z = np.random.default_rng(0).normal(size=30)
    z -= z.mean()
    gap = (1.0 + 1e-3 * np.outer(np.log(times), z)) / times[:, None]
    found = module.log_slope(times, gap, 100, 10_000)
    assert found.value == pytest.approx(-1.0, abs=1e-9)
    assert found.stderr == pytest.approx(1e-3 * z.std(ddof=1) / 30**0.5, rel=1e-2)


def test_another_step_size_is_not_judged_by_references_for_this_one():
    times = np.array([10, 100, 1000, 3000])
    gaps = np.random.default_rng(0).uniform(0.1, 0.2, size=(4, 2, 40))
    usual, other = (
        set(module.measure_gaps(module.Config(runs=40, updates=3000, step_size=step), times, gaps))
        for step in (0.05, 0.5)
    )
    assert other == {"order", "stuck", "none stuck"}
    assert usual - other == {"gap 1000", "gap 3000", "stuck mean", "stuck worst"}


def test_too_few_updates_are_refused():
    with pytest.raises(runner.UsageError, match="--updates 100: must be in 3000"):
        module.Config(updates=100).validate()
