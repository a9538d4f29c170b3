"""Chung et al. 2021, three arms: exact facts at full strength, the runs at a fraction of their number."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import baselines_and_convergence as module
from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.harness.verdicts import Verdict, otherwise
from experiments.shared import three_arms as arms

START = 0  # the place of θ₀ in THETAS
EXACT = [t for t in module.PAPER.targets if t.exact is not None or isinstance(t.rule, papers.Digits)]


def execute(config, directory):
    kept = []

    def run(config, recorder):
        kept.append(module.run(config, recorder))
        return kept[0]

    place = runner.execute("baselines_and_convergence", config, run, module.plot, output_dir=directory)
    return place, kept[0], json.loads((place / "paper.json").read_text(encoding="utf-8"))["verdicts"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return execute(module.TINY, tmp_path_factory.mktemp("results"))


def test_exact_facts_agree_and_the_runs_do(tiny):
    place, _, verdicts = tiny
    assert len(EXACT) == 16 and {verdicts[target.key] for target in EXACT} == {"agrees"}
    # 1.75 % of 300 runs are too few to be three standard errors above none, or above those of b* + ½.
    expected = {"trapped, corrected", "rarer, corrected"}
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == expected
    assert Verdict.NOT_MEASURED not in verdicts.values()
    assert (place / "simplex.png").stat().st_size > 20_000
    assert set(np.load(place / "curves.npz")) >= {"V: entropy", "b*, corrected: largest"}


def test_the_exchanged_weights_are_caught(tiny):
    """The best baseline of one step with the other's weights fails by the square of its distance from b*."""
    _, results, _ = tiny
    targets = {target.key: target for target in module.PAPER.targets}
    for key in ("b* − 0.5, {}: solved", "b* − 0.5, {}: second arm", "b* − 0.5, {}: value"):
        for ours, theirs in (("as released", "corrected"), ("corrected", "as released")):
            measured = results["measured"][key.format(theirs)]
            assert papers.judge(targets[key.format(ours)], measured).overall == "not as expected"
    found = {name: x[START] for name, x in results["facts"].items()}
    low, high, released_low, released_high = found["natural variances"]
    assert low == pytest.approx(high, rel=1e-12)
    best, released = found["oracle corrected"], found["oracle released"]
    policy = found["policy"]
    length = np.sum(2.0 / 3.0 / policy)  # E‖(e_a − 1/3) / π_a‖²
    for b, variance in ((released - 0.5, released_low), (released + 0.5, released_high)):
        assert variance - low == pytest.approx(((b - best) ** 2 - 0.25) * length, rel=1e-10)
    assert released_low / released_high == pytest.approx(25.03, abs=0.01)


def test_the_estimators_own_best_baseline_is_the_oracles(tiny):
    facts = tiny[1]["facts"]
    for name in ("released", "corrected", "value"):
        np.testing.assert_allclose(facts[name], facts[f"oracle {name}"], rtol=0, atol=1e-12)
    # Around V, which is not b*, the parabola is not symmetric: tr Var(V + ½) − tr Var(V − ½) = 2 (V − b*) E‖∇ ln π‖².
    on_grid, start = facts["variances"][START][5:], facts["policy"][START]
    length = 1.0 - np.sum(start**2)
    assert on_grid[4] - on_grid[2] == pytest.approx(2 * (0.5 - facts["oracle released"][START]) * length, abs=1e-12)
    assert on_grid[4] - on_grid[2] < -0.02


def test_an_update_is_the_published_one(x64):
    """θ + α (r − b) (e_a − 1/3) / π_a with π cut at 10⁻⁸; e_a − π in the place of e_a − 1/3 is another step."""
    theta = jnp.asarray([[2.0, 30.0, -1.0]])
    bandit = arms.make_bandit()
    policy = np.clip(np.asarray(jax.nn.softmax(theta))[0], 1e-8, 1 - 1e-8)
    policy /= policy.sum()
    assert policy[2] == pytest.approx(1e-8, rel=1e-6)
    step = jax.jit(lambda uniform: module.update(bandit, theta, uniform, 2, 0.25))
    rewards = np.asarray(arms.REWARDS)
    value = policy @ rewards
    for uniform, arm in ((0.0, 0), (0.5, 1), (1 - 1e-10, 2)):
        moved = np.asarray(step(jnp.asarray(uniform)) - theta)[0]
        weight = module.STEP * (rewards[arm] - value - 0.25) / policy[arm]
        np.testing.assert_allclose(moved, weight * (np.eye(3)[arm] - 1 / 3), rtol=1e-6)
        assert np.abs(moved - weight * (np.eye(3)[arm] - policy)).max() > 0.1 * np.abs(weight)


def test_half_more_than_the_best_baseline_can_commit_to_the_second_arm(x64):
    """Where arm 0 is the rarest, the natural b* is nearly its reward; where the best arm is, nearly 1."""
    bandit = arms.make_bandit()
    find = jax.jit(lambda policy: module.BASELINES["corrected"](bandit, jnp.log(policy)[None]))
    assert find(jnp.asarray([1e-3, 1.0 - 1.01e-3, 1e-5])) == pytest.approx((1e3 + 0.7) / (1e3 + 1e5 + 1.0), rel=1e-3)
    assert find(jnp.asarray([1e-5, 1.0 - 1.01e-3, 1e-3])) == pytest.approx((1e5 + 0.7) / (1e3 + 1e5 + 1.0), rel=1e-3)


def test_options_are_refused():
    with pytest.raises(runner.UsageError, match="--runs 1: must be in"):
        module.Config(runs=1).validate()
    with pytest.raises(runner.UsageError, match="--drawn 9: must be at least 1 and at most --runs"):
        module.Config(runs=8, drawn=9).validate()
    with pytest.raises(runner.UsageError, match="--runs 7 and --full exclude each other"):
        module.Config(runs=7, full=True).validate()
    module.Config(drawn=5000, full=True).validate()


@pytest.mark.slow
def test_the_default_run_agrees_with_the_reference(tmp_path):
    _, _, verdicts = execute(module.Config(), tmp_path)
    assert not any(otherwise(verdict) for verdict in verdicts.values())
