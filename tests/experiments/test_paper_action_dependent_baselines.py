"""Tucker et al.'s point mass at the tiny size: the closed forms are those of every size, the samples are few."""

import dataclasses
import json

import numpy as np
import pytest

from experiments import action_dependent_baselines as module
from experiments.harness import runner
from experiments.harness.verdicts import Verdict, otherwise

# Three cells of the table, in their last digit; "several nats", which no trained policy has between the last two
# sources; and the last step, which has no future.
CELLS = {"Σ_τ 95", "Σ_a^φ(s) 50", "Σ_a^φ(s) 95"}
EXPECTED = CELLS | {"several 150", "several 300", "several 600", "order at the end"}


def execute(config, folder):
    """Verdicts by key, rows by (quantity, variant), and the directory."""
    directory = runner.execute("action_dependent_baselines", config, module.run, module.plot, output_dir=folder)
    verdicts = json.loads((directory / "paper.json").read_text())["verdicts"]
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    return verdicts, {(row["quantity"], row["variant"]): row for row in rows}, directory


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    return execute(module.TINY, tmp_path_factory.mktemp("results"))


def test_every_target_but_seven_comes_out(ran):
    verdicts, _, directory = ran
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == EXPECTED
    assert Verdict.NOT_MEASURED not in verdicts.values()
    table = [verdicts[f"{source} {t}"] for source in module.SOURCES for t in module.TABLE_TIMES]
    assert table.count("agrees") == 12 and table.count("not as expected") == 3
    assert {verdicts[key] for key in EXPECTED - CELLS} == {"not as expected"}
    assert {verdicts[f"order {u}"] for u in module.UPDATES} | {verdicts["several 0"]} == {"agrees"}
    assert {path.stem for path in directory.glob("*.png")} == {"variance_sources"}


def test_closed_forms_of_the_cells_that_differ(ran):
    """Ours to more digits than the reference has, so that a change would show."""
    _, rows, _ = ran
    for (source, time), known in {("Σ_τ", 95): 6.26803, ("Σ_a^φ(s)", 50): 7.13779, ("Σ_a^φ(s)", 95): -1.64274}.items():
        row = rows[f"ln tr {source}, t = {time}", "corrected"]
        sampled = rows[f"ln tr {source}, t = {time}, sampled", "corrected"]
        assert row["ours"] == pytest.approx(known, abs=1e-5)
        assert abs(sampled["ours"] - known) < 4.5 * sampled["stderr"]


def test_the_exact_updates_are_those_of_the_reference(ran):
    """Twins: without the factor γ^−t ρ is −746.582 at update 150, without momentum −729.879."""
    _, rows, _ = ran
    known = {0: -1525.539, 150: -729.8315, 300: -661.2898, 600: -615.3654}
    for update, objective in known.items():
        assert rows[f"ρ, update {update}", None]["ours"] == pytest.approx(objective, rel=1e-6)


def test_targets_of_other_means_or_updates_are_left_out():
    for change in ({"means_seed": 4}, {"learning_rate": 0.002}, {"momentum": 0.0}):
        assert module.measure(dataclasses.replace(module.TINY, **change), {}, {}, {}) == {}


def test_the_released_noise_is_caught_by_the_predicted_amount(ran):
    """Twin: noise with the covariance of the state. Returns are off by −Σ γⁱ tr(S̃_i − S_i), S̃ the wrong covariance."""
    _, rows, _ = ran
    move, push = np.eye(4), np.zeros((4, 2))
    move[:2, 2:] = push[2:] = 0.05 * np.eye(2)
    noise, marginals = 1e-5 * np.eye(4), [1e-5 * np.eye(4)]
    for _ in range(99):
        marginals.append(move @ marginals[-1] @ move.T + 1e-4 * push @ push.T + noise)
    for time in (0, 50):
        right = wrong = np.zeros((4, 4))
        predicted = 0.0
        for i in range(time + 1, 100):
            right, wrong = move @ right @ move.T + noise, move @ wrong @ move.T + marginals[i]
            predicted -= 0.99 ** (i - time) * np.trace(wrong - right)
        row = rows[f"mean of G_t − Q_t(X_t, A_t), t = {time}", "as released"]
        assert row["exact"] == pytest.approx(predicted, rel=1e-9)
        assert abs(row["ours"] - predicted) < 4.5 * row["stderr"] < abs(row["ours"])
        fair = rows[f"mean of G_t − Q_t(X_t, A_t), t = {time}", "corrected"]
        assert abs(fair["ours"]) < 4.5 * fair["stderr"]
    inflated = rows["ln(Σ_τ as released / Σ_τ), t = 95", "as released"]
    assert inflated["ours"] > 10 * inflated["stderr"]


def test_bad_options_are_refused(tmp_path):
    with pytest.raises(runner.UsageError, match="--times 0 50: must be in 0, …, 98, with 0, 50 and 95 among them"):
        dataclasses.replace(module.TINY, times=(0, 50)).validate()
    with pytest.raises(runner.UsageError, match=r"--momentum 1\.0: must be in"):
        dataclasses.replace(module.TINY, momentum=1.0).validate()
    for name in ("learning_rate", "momentum"):
        for rate in (np.inf, np.nan):
            with pytest.raises(runner.UsageError, match=f"--{name.replace('_', '-')} {rate}: must be"):
                dataclasses.replace(module.TINY, **{name: rate}).validate()
    for name in ("states", "rollouts"):
        with pytest.raises(runner.UsageError, match=f"--{name} 63: must be at least 64"):
            dataclasses.replace(module.TINY, **{name: 63}).validate()
    for name in ("states", "rollouts"):
        chosen = dataclasses.replace(module.Config(), full=True, **{name: 64})
        with pytest.raises(runner.UsageError, match=f"--{name} 64 and --full exclude each other"):
            execute(chosen, tmp_path)


@pytest.mark.slow
def test_the_default_run_has_the_same_verdicts(tmp_path):
    verdicts, rows, _ = execute(module.Config(), tmp_path)
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == EXPECTED
    assert max(row["ours"] for (quantity, _), row in rows.items() if quantity.startswith("greatest |sampled")) < 4.5
