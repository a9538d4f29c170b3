"""Schulman's table digit for digit, and what the gradients of k1, k2 and k3 are."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import kl_estimators
from experiments.harness import runner
from experiments.harness.verdicts import otherwise
from experiments.kl_estimators import uses
from pgjax import exact

NAME = "kl_estimators"


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    tmp = tmp_path_factory.mktemp("results")
    return runner.execute(NAME, kl_estimators.TINY, kl_estimators.run, kl_estimators.plot, output_dir=tmp)


@pytest.fixture(scope="module")
def rows(directory):
    return json.loads((directory / "summary.json").read_text())["rows"]


def test_every_target_agrees(directory, rows):
    verdicts = json.loads((directory / "paper.json").read_text())["verdicts"]
    assert set(verdicts) == {target.key for target in kl_estimators.PAPER.targets}
    assert set(verdicts.values()) == {"agrees"}
    for row in rows[: len(verdicts)]:
        assert abs(row["ours"] - row["exact"]) < 1e-10
    assert (directory / "kl_estimators.png").stat().st_size > 10_000


def test_the_sample_agrees_with_the_integrals(rows):
    drawn = [row for row in rows if row["stderr"]]
    assert len(drawn) == 12
    for row in drawn:
        assert abs(row["ours"] - row["exact"]) < 4.5 * row["stderr"], row
    # With 1/σ² in the place of 1/(2σ²), or k2 without its half, the bias of k2 would be 1.5 at μ = 1.
    found = next(row for row in drawn if row["quantity"] == "bias of k2 / KL, μ = 1")
    assert abs(found["ours"] - 1.5) > 20 * found["stderr"]


def test_the_quadrature_is_exact_for_every_mean_of_the_figure_and_catches_swapped_arguments(x64):
    means = np.geomspace(0.05, 2.0, 43)
    np.testing.assert_allclose(uses.by_quadrature(means, 64), uses.in_closed_form(means), atol=1e-9)
    x, weights = np.polynomial.hermite_e.hermegauss(64)
    mean = jnp.asarray(0.5)
    swapped = -uses.estimates(jnp.asarray(x), mean)[0]  # k1 of ln p and ln q in the other order
    found = exact.moments_of(swapped, jnp.asarray(weights / weights.sum())).mean
    np.testing.assert_allclose(found / uses.divergence(mean) - 1, -2.0, atol=1e-12)


def test_each_estimate_is_right_in_one_use_and_wrong_in_the_other_as_predicted(x64):
    found = uses.gradients()
    far = kl_estimators.distances(found)
    assert far["k2 loss"] < 1e-12 and far["k1 reward"] < 1e-12
    right, other = (np.linalg.norm(found[name]) for name in ("forward", "backward"))
    np.testing.assert_allclose([far["k1 loss"], far["k3 reward"]], [1.0, other / right], rtol=1e-10)
    pi, reference = (np.asarray(jax.nn.softmax(jnp.asarray(x))) for x in (uses.LOGITS, uses.REFERENCE_LOGITS))
    np.testing.assert_allclose(found["k3 loss"], pi - reference, atol=1e-12)
    log_ratio = np.log(pi / reference)
    np.testing.assert_allclose(found["k2 loss"], pi * (log_ratio - pi @ log_ratio), atol=1e-12)
    assert min(far["k3 loss"], far["k2 reward"], far["k3 reward"]) > 0.1


def test_bad_options_are_refused(tmp_path):
    for config, words in (
        (kl_estimators.Config(draws=1), "--draws 1: must be at least 1000"),
        (kl_estimators.Config(full=True, draws=5000), "--draws 5000 and --full exclude each other"),
    ):
        with pytest.raises(runner.UsageError, match=words):
            runner.execute(NAME, config, kl_estimators.run, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_default_run_finds_the_same(tmp_path):
    directory = runner.execute(NAME, kl_estimators.Config(), kl_estimators.run, kl_estimators.plot, output_dir=tmp_path)
    verdicts = json.loads((directory / "paper.json").read_text())["verdicts"]
    assert {key for key, found in verdicts.items() if otherwise(found)} == set()
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert all(not (row["verdict"] and otherwise(row["verdict"])) for row in rows[len(verdicts) :])
