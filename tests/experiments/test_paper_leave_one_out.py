"""Leave-one-out on three coin flips: the published gradient, every variance, and the wrong twin that is (k − 1)/k."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import leave_one_out
from experiments.harness import runner
from experiments.harness.verdicts import Verdict, otherwise
from experiments.leave_one_out import toy
from experiments.shared.multisets import multiset_moments, multisets
from pgjax import estimators, exact

NAME = "leave_one_out"
# The reference's last digit, not ours: see `leave_one_out.SLIPS`.
BAD = {"leave_one_out 2 -4", "best -4"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("results")
    return runner.execute(NAME, leave_one_out.TINY, leave_one_out.run, leave_one_out.plot, output_dir=tmp)


@pytest.fixture(scope="module")
def rows(directory):
    return json.loads((directory / "summary.json").read_text())["rows"]


def test_every_target_is_measured_and_all_but_two_last_digits_agree(directory, rows):
    verdicts = json.loads((directory / "paper.json").read_text())["verdicts"]
    assert set(verdicts) == {target.key for target in leave_one_out.PAPER.targets}
    assert {key for key, found in verdicts.items() if otherwise(found)} == BAD
    assert Verdict.NOT_MEASURED not in verdicts.values()
    assert (directory / "leave_one_out.png").stat().st_size > 10_000
    for row in rows[: len(verdicts)]:
        if row["exact"] is not None:
            assert abs(row["ours"] - row["exact"]) < 1e-10
    # The two whose last digit differs are exact all the same.
    for row in rows[: len(verdicts)]:
        if row["verdict"] == "not as expected":
            assert abs(row["ours"] / row["exact"] - 1) < 1e-10 and abs(row["ours"] / row["paper"] - 1) < 2e-4


def test_draws_agree_with_the_enumeration(rows):
    drawn = [row for row in rows if "by sampling" in row["quantity"]]
    assert len(drawn) == 16
    for row in drawn:
        assert abs(row["ours"] - row["exact"]) < 4.5 * row["stderr"], row
    # Were leave-one-out the estimate without a baseline, its variance would be 30 times as large.
    found = next(row for row in drawn if row["quantity"].startswith("Var") and row["variant"] == "leave-one-out")
    assert abs(found["ours"] - 30 * found["exact"]) > 20 * found["stderr"]


def test_the_own_sample_in_the_mean_shrinks_the_gradient_by_the_predicted_factor(rows):
    for k in (2, 3, 4):
        found = [row["ours"] for row in rows if row["quantity"].startswith(f"E[estimate] / ∇E f, k = {k}")]
        np.testing.assert_allclose(found, [(k - 1) / k] * 2, atol=1e-12)


def test_multisets_stand_for_all_ordered_groups(x64):
    for size in (1, 2, 5):
        indices, ways = multisets(3, size)
        assert ways.sum() == 3**size and len({tuple(row) for row in indices}) == len(indices)
    with pytest.raises(ValueError, match="multisets of 9"):
        multisets(50, 9)
    every = toy.problem()
    logit, k = jnp.asarray(toy.LOGITS[1]), 3
    named = toy.of_groups(k, own=True)
    probabilities = exact.trajectory_probabilities(toy.apply, logit, every)
    make = lambda b: estimators.make_estimator(toy.POLICY, returns=estimators.total_return(), baseline=b)
    gradients = lambda batch: {name: make(b).gradient(logit, (), batch)[0] for name, b in named.items()}
    ordered = exact.estimator_moments(gradients, every, probabilities, k)
    found = jax.jit(lambda p: multiset_moments(lambda batch: toy.summands(logit, named, batch), every, p, k))
    for a, b in zip(jax.tree.leaves(ordered), jax.tree.leaves(found(probabilities)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10)


def test_bad_options_are_refused(tmp_path):
    for config, words in (
        (leave_one_out.Config(evaluations=3), "--evaluations 3: must be from 4 to 12"),
        (leave_one_out.Config(draws=99), "--draws 99: must be at least 100"),
    ):
        with pytest.raises(runner.UsageError, match=words):
            runner.execute(NAME, config, leave_one_out.run, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_default_run_finds_the_same(tmp_path):
    directory = runner.execute(NAME, leave_one_out.Config(), leave_one_out.run, leave_one_out.plot, output_dir=tmp_path)
    verdicts = json.loads((directory / "paper.json").read_text())["verdicts"]
    assert {key for key, found in verdicts.items() if otherwise(found)} == BAD
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert all(not (row["verdict"] and otherwise(row["verdict"])) for row in rows[len(verdicts) :])
