"""Where a moving average starts: identities at full strength, and what the sign of the returns does to learning."""

import json

import numpy as np
import pytest

from experiments import baseline_start as module
from experiments.baseline_start import facts
from experiments.harness import runner
from experiments.harness import targets as papers
from experiments.harness.verdicts import Verdict, otherwise

EXACT = [t.key for t in module.PAPER.targets if not isinstance(t.rule, papers.Above)]
CONTRADICTED = {"entropy negative"}


def execute(config, directory):
    kept = []

    def run(config, recorder):
        kept.append(module.run(config, recorder))
        return kept[0]

    place = runner.execute("baseline_start", config, run, module.plot, output_dir=directory)
    return place, kept[0], json.loads((place / "paper.json").read_text(encoding="utf-8"))["verdicts"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return execute(module.TINY, tmp_path_factory.mktemp("results"))


def test_identities_agree_and_one_claim_fails(tiny):
    place, _, verdicts = tiny
    assert len(EXACT) == 24 and {verdicts[key] for key in EXACT} == {"agrees"}
    # What the sign does to plain steps takes more runs than these.
    expected = CONTRADICTED | {"plain signs", "repeats negative"}
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == expected
    assert Verdict.NOT_MEASURED not in verdicts.values()
    assert (place / "starts.png").stat().st_size > 20_000
    curves = np.load(place / "curves.npz")
    assert curves["natural gradient, from zero, +1: entropy"].shape == (2, module.UPDATES + 1)


def test_a_lag_is_not_a_bias_and_a_bias_is_caught(tiny):
    """Zero is (1 − βⁿ) short of ρ(θ) without any bias; the wrong order is short by β, and no other twin fits."""
    measured = tiny[1]["measured"]
    targets = {target.key: target for target in module.PAPER.targets}
    lag = measured["mean zero"].value / measured["mean debiased"].value
    assert lag == pytest.approx(1 - facts.DECAY**facts.PAST, rel=1e-12)
    assert measured["bias zero"].value < 1e-15
    for twin in (1.0, 1 - facts.DECAY, measured["refreshed debiased"].value):
        assert papers.judge(targets["refreshed zero"], papers.Measured(twin)).overall == "wrong"
    uncorrected = papers.Measured(measured["mean zero"].value, exact=measured["mean debiased"].exact)
    assert papers.judge(targets["mean debiased"], uncorrected).overall == "wrong"
    assert papers.judge(targets["pushes debiased"], measured["pushes zero"]).overall == "wrong"


def test_both_signs_are_equally_noisy(tiny):
    """2/3 (c² + E r²) − ‖∇ρ‖² for both: what differs in the runs is no variance."""
    measured, rewards = tiny[1]["measured"], np.asarray(module.CENTRED)
    wanted = 2 / 3 * (25 + np.mean(rewards**2)) - np.sum((rewards / 3) ** 2)
    assert measured["noise -"].value == pytest.approx(wanted, rel=1e-12)
    assert measured["noise +"].value == pytest.approx(wanted, rel=1e-12)


def test_a_constant_changes_what_is_learned_from_zero_alone(tiny):
    found, ends = tiny[1]["found"], {}
    for start in module.VARIANTS:
        low, high = (found[module.NATURAL, start, shift]["ends"][:, 0] > module.SURE for shift in (-1.0, 1.0))
        ends[start] = low.mean() - high.mean()
    stderr = np.sqrt(2 * 0.25 / module.TINY.runs)
    assert ends["zero"] > 0.2 + 4.5 * stderr
    assert all(abs(ends[start]) < 0.05 for start in module.VARIANTS if start != "zero")


def test_options_are_refused():
    with pytest.raises(runner.UsageError, match=r"--decay 1\.5: must be in"):
        module.Config(decay=1.5).validate()
    with pytest.raises(runner.UsageError, match=r"--plain-shifts 0\.0 1\.0: must be increasing"):
        module.Config(plain_shifts=(0.0, 1.0)).validate()
    with pytest.raises(runner.UsageError, match=r"--natural-shifts -0\.5 0\.6: must be .*all returns have one sign"):
        module.Config(natural_shifts=(-0.5, 0.6)).validate()
    with pytest.raises(runner.UsageError, match="--runs 7 and --full exclude each other"):
        module.Config(runs=7, full=True).validate()
    module.Config(full=True).validate()


@pytest.mark.slow
def test_the_default_run_holds(tmp_path):
    _, _, verdicts = execute(module.Config(), tmp_path)
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == CONTRADICTED
