"""The sweep: its tiny run, its grid, what may vary, what it refuses, failures, memory and interruptions."""

import csv
import dataclasses
import json
import math
import signal
import time

import jax
import numpy as np
import pytest
from trainings import returns_in, summary

from experiments import sweep, train
from experiments.harness import memory, runner
from experiments.shared import coinciding
from experiments.shared.training import build
from experiments.sweep import grid, learning, results, sizing
from experiments.sweep.options import Config
from pgjax import registry


def run(folder, **changes):
    return runner.execute("sweep", dataclasses.replace(sweep.TINY, **changes), sweep.run, sweep.plot, output_dir=folder)


def lines(directory):
    with (directory / "runs.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(autouse=True)
def plans_are_made_anew():
    """A plan is remembered for its configuration, and some tests change the memory that is available."""
    sizing.plan.cache_clear()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return run(tmp_path_factory.mktemp("results"))


def test_a_tiny_sweep_writes_its_table_its_runs_and_its_figure(tiny):
    names = {path.name for path in tiny.iterdir()}
    assert {"runs.csv", "sweep.png", "sweep.csv", "metrics.jsonl", "options.json", "summary.json"} <= names
    found = lines(tiny)
    assert len(found) == 2 * 4 * 2 and [line["seed"] for line in found[:3]] == ["0", "1", "0"]
    assert [line["lr"] for line in found[::2]] == 2 * ["0.003", "0.01", "0.03", "0.1"]
    (table,) = summary(tiny)["tables"]
    assert table["headers"] == ["estimator", "lr", "return ± s.e.", "95 % interval", "minus the best"]
    assert [line[0] for line in table["lines"]] == ["reinforce"] * 4 + ["rloo"] * 4
    for part in (table["lines"][:4], table["lines"][4:]):
        assert [line[4] for line in part].count("best") == 1
    log = [json.loads(line) for line in (tiny / "metrics.jsonl").read_text().splitlines()]
    names = {(line["update"], line["estimator"]) for line in log}
    assert names == {(update, name) for update in (1, 2, 3) for name in ("reinforce", "rloo")} and len(log) == 6
    assert all(len(line["mean_return"]) == 4 for line in log)


def test_the_runs_of_a_sweep_are_those_of_a_training(tiny, tmp_path):
    """The same numbers as `experiments.train` gives for the same learning rates and seeds."""
    options = {"env": "corridor", "estimator": "rloo", "num_seeds": 2, "num_updates": 3, "num_episodes": 4}
    options |= {"eval_episodes": 4, "references": False, "lr": (0.003, 0.01, 0.03, 0.1)}
    alone = runner.execute("train", train.Config(**options), train.run, output_dir=tmp_path)
    found = [float(line["return"]) for line in lines(tiny) if line["estimator"] == "rloo"]
    assert found == returns_in(alone) and len(set(found)) > 3


def test_estimators_that_coincide_are_named_and_never_is_not_said(tmp_path):
    """With one epoch PPO's ratio is 1. 100 episodes of the corridor cannot average −1, which is the best first step."""
    names, options = ("gpomdp_value", "ppo", "rloo"), {"num_updates": 25, "num_episodes": 4, "threshold": -1.0}
    found = summary(run(tmp_path, estimators=names, vary=("lr=0.01",), **options))
    (note,) = [note for note in found["notes"] if "cannot tell them apart" in note]
    assert note.startswith("gpomdp_value and ppo gave the same parameters in every run")
    assert "the ratio of probabilities in ppo is 1" in note and "rloo" not in note
    (table,) = found["tables"]
    assert table["headers"][-1] == "updates to -1" and {line[-1] for line in table["lines"]} == {"> 25, 0 of 2"}
    assert "never" not in json.dumps(found["tables"]) and any("within their 25 updates" in n for n in found["notes"])


def test_a_goal_that_too_few_episodes_cannot_reach_is_left_out(tiny, tmp_path):
    assert not any("updates to" in header for header in summary(tiny)["tables"][0]["headers"])
    found = summary(run(tmp_path, threshold=-20.0, estimators=("reinforce",), vary=("lr=0.01",)))
    assert any("a mean over 100 training episodes, and a run has 12 of them" in note for note in found["notes"])
    assert not any("updates to" in header for header in found["tables"][0]["headers"])


def test_names_of_the_same_numbers_are_grouped():
    params = {"w": np.arange(12.0).reshape(2, 2, 3), "b": np.ones((2, 3))}
    prints = coinciding.fingerprint(params)
    assert prints.shape == (2, 4) and prints[1, 2] == np.arange(6, 12).sum()
    numbers = {"a": prints, "b": prints + 1e-3, "c": prints * (1 + 1e-7), "d": prints * np.nan, "e": prints * np.nan}
    numbers |= {"f": 0 * prints, "g": 0 * prints}
    assert coinciding.groups(numbers) == [["a", "c"]]
    entries = {name: registry.find(name) for name in ("gae", "ppo_gae", "td")}
    assert "ratio" in coinciding.sentence(["gae", "ppo_gae"], entries, {"epochs": 1}, "numbers")
    assert "ratio" not in coinciding.sentence(["gae", "ppo_gae"], entries, {"epochs": 2}, "numbers")
    assert "ratio" not in coinciding.sentence(["gae", "td"], entries, {"epochs": 1}, "numbers")


def test_a_grid_of_two_options_has_all_combinations(tmp_path):
    varied = ("lr=0.01,0.1", "discount=1,0.5")
    directory = run(tmp_path, vary=varied, estimators=("gpomdp",), num_seeds=1)
    found = [(line["lr"], line["discount"]) for line in lines(directory)]
    assert found == [("0.01", "1.0"), ("0.01", "0.5"), ("0.1", "1.0"), ("0.1", "0.5")]
    assert {path.name for path in directory.glob("sweep*.csv")} == {"sweep-1.csv", "sweep-2.csv"}
    log = [json.loads(line)["mean_return"] for line in (directory / "metrics.jsonl").read_text().splitlines()]
    # The first batch is that of the first θ; then each setting goes its own way, unless γ does not matter.
    assert len(set(log[0])) == 1 and len(set(log[2])) == 4


def test_each_run_has_its_own_setting_and_seed():
    made = grid.parsed(("lr=0.1,0.2", "lambda=0.5,1"), 3)
    assert made.num_runs == 12 and made.settings[1] == {"lr": 0.1, "lambda_": 1.0}
    given = made.hyperparams()
    np.testing.assert_array_equal(given["lr"], np.float32([0.1] * 6 + [0.2] * 6))
    np.testing.assert_array_equal(given["lambda_"], np.float32([0.5, 0.5, 0.5, 1, 1, 1] * 2))
    wanted = jax.vmap(jax.random.key)(np.array([7, 8, 9] * 4))
    np.testing.assert_array_equal(jax.random.key_data(made.keys(7)), jax.random.key_data(wanted))
    assert Config(lr=0.2).grid().settings == [{"lr": 0.2}] and len(Config().grid().settings) == 4
    assert grid.described(made.settings[3]) == "lr 0.2, lambda 1"


def traced_update(estimator, name):
    """Trace an update whose option `name` has no number yet."""
    options = Config(env="corridor", estimators=(estimator,), num_episodes=4, num_updates=2).options_of()[estimator]
    make = build.make_varied_build(options, *build.make_policy(options))

    def update(value):
        trainer = make({name: value})
        return trainer.update(trainer.init(jax.random.key(0)))

    return jax.eval_shape(update, np.float32(0.5))


WITH = {"lr": "reinforce", "lr_left": "rloo", "max_grad_norm": "gpomdp", "value_lr": "gpomdp_value", "discount": "gae"}
WITH |= {"lambda_": "gae", "decay": "reinforce_moving_average", "clip": "ppo", "damping": "natural_value"}
WITH |= {"entropy_coef": "grpo"}


@pytest.mark.parametrize("name", build.VARIED)
def test_an_option_that_may_vary_may_be_traced(name):
    traced_update(WITH[name], name)


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n, e in registry.ENTRIES.items() if not {"oracle", "states"} & {*e.needs}])
def test_every_setting_of_every_estimator_may_be_traced(name):
    for setting in registry.ENTRIES[name].settings.chosen():
        if setting in build.VARIED:
            traced_update(name, setting)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--vary", "lr"], ["--vary lr: must be NAME=VALUE,VALUE,..., such as lr=0.003"]),
        (["--vary", "hidden=32,64"], ["--vary hidden: hidden cannot vary inside one", "these can vary: lr, lr-left"]),
        (["--vary", "n=1,5"], ["--vary n: n cannot vary", "discount, lambda, decay, clip, damping, entropy-coef"]),
        (["--vary", "speed=1"], ["--vary speed: speed is no option of a training; these can vary: lr"]),
        (["--vary", "lr=0.1,fast"], ["--vary lr=0.1,fast: must hold numbers separated by commas, got 'fast'"]),
        (["--vary", "lr=0.1,0.1"], ["--vary lr=0.1,0.1: each value must be given once"]),
        (["--vary", "lr=0.1", "--vary", "lr=0.2"], ["--vary lr=0.2: lr is named twice"]),
        (["--vary", "lr=0,0.1"], ["--vary lr=0,0.1: lr 0.0: must be in [1.2e-38"]),
        (["--vary", "discount=1.5"], ["--vary discount=1.5: discount 1.5: must be in [0, 1]"]),
        (["--vary", "lr=0.1", "--lr", "0.2"], ["--lr 0.2: must be left out with --vary lr"]),
        (["--lr", "0"], ["--lr 0.0: must be in [1.2e-38"]),
        (["--vary", "lambda=0.5,1", "--estimators", "gae", "rloo"], ["--vary lambda: must be left out", "rloo"]),
        (["--vary", "value-lr=0.1", "--estimators", "rloo"], ["--vary value-lr: must be left out", "fits no value"]),
        (["--estimators", "loo"], ["no estimator is called 'loo'; did you mean rloo"]),
        (["--estimators", "rloo", "rloo"], ["--estimators rloo: must be named once"]),
        (["--estimators"], ["--estimators (): must be at least one name"]),
        (["--env", "CartPool-v1"], ["CartPool-v1", "did you mean 'CartPole-v1'"]),
        (["--num-seeds", "0"], ["--num-seeds 0: must be at least 1"]),
        (["--num-steps", "8"], ["--num-steps 8", "does not bootstrap"]),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        runner.main(sweep.__file__, sweep.__doc__, sweep.Config, sweep.run, arguments=arguments)
    error = capsys.readouterr().err
    assert left.value.code == 2 and "Traceback" not in error and not (tmp_path / "results").exists()
    for word in words:
        assert word in " ".join(error.split())


def test_a_run_that_diverges_is_named_and_the_others_are_complete(tiny, tmp_path):
    message = r"^4 of 16 runs failed; the others are complete: reinforce, lr 3e\+38, seed 0: gradient must be finite"
    with pytest.raises(runner.UsageError, match=message) as refused:
        run(tmp_path, vary=("lr=0.01,0.03,0.1,3e38",))
    assert "rloo, lr 3e+38, seed 1: gradient must be finite, got NaN or infinity at update 1: θ" in str(refused.value)
    (directory,) = (tmp_path / "sweep").iterdir()
    good = {(line["estimator"], line["lr"], line["seed"]): line["return"] for line in lines(tiny)}
    for line in lines(directory):
        if line["lr"] == "3e+38":
            assert line["return"] == "" and "must be finite" in line["failure"]
        else:
            assert line["return"] == good[line["estimator"], line["lr"], line["seed"]] and not line["failure"]
    (table,) = summary(directory)["tables"]
    assert [line[-1] for line in table["lines"]] == 2 * ["", "", "", "2 of 2"]
    assert table["lines"][3][2] == "all failed" and sum(line[4] == "best" for line in table["lines"]) == 2


@pytest.mark.parametrize("sequential", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_where_all_runs_fail_at_once_the_sweep_says_so(tmp_path, sequential):
    with pytest.raises(runner.UsageError, match=r"^16 of 16 runs failed: reinforce, lr 1e"):
        run(tmp_path, vary=("lr=1e38,1.5e38,2e38,3e38",), sequential=sequential)


@pytest.fixture
def short_of_memory(monkeypatch):
    """The memory holds one estimator, and not both. The value is the memory that one needs."""
    whole, alone = (sizing.plan(dataclasses.replace(sweep.TINY, sequential=asked)) for asked in (False, True))
    assert whole.together and alone.reason == "--sequential asks for it"
    least, most = (sum(plan.parts.values()) for plan in (alone, whole))
    monkeypatch.setattr(memory, "program", lambda: 0.0)
    monkeypatch.setattr(memory, "available", lambda: (least + most) / 2)
    sizing.plan.cache_clear()
    return least


def test_where_memory_is_short_the_estimators_take_turns(short_of_memory, tmp_path, monkeypatch, capsys):
    plan = sizing.plan(sweep.TINY)
    assert not plan.together and plan.reason.startswith("together they need about")
    assert sum(plan.parts.values()) == short_of_memory
    arguments = ["--tiny", "--dry-run"]
    runner.main(sweep.__file__, sweep.__doc__, sweep.Config, sweep.run, arguments=arguments, tiny=sweep.TINY)
    assert f"memory: about {memory.in_words(short_of_memory)}, and" in capsys.readouterr().out
    monkeypatch.setattr(memory, "available", lambda: short_of_memory / 2)
    sizing.plan.cache_clear()
    with pytest.raises(runner.UsageError, match=r"this run needs about .* are available; no --num-episodes would fit"):
        run(tmp_path)


@pytest.mark.slow
def test_both_ways_give_the_same_runs(tiny, short_of_memory, tmp_path, capsys):
    directory = run(tmp_path, compare=True)
    assert "The estimators are trained one after another: together they need about" in capsys.readouterr().out
    assert lines(directory) == lines(tiny)
    times = [row["variant"] for row in summary(directory)["rows"] if row["quantity"] == "compilation"]
    assert times == ["2 programs", "one program"]
    assert "One program and one for each estimator: 0 of " in " ".join(summary(directory)["notes"])


def test_other_causes_why_estimators_take_turns(monkeypatch):
    monkeypatch.setattr(sizing.environments, "HostEnvironment", object)
    assert sizing.plan(sweep.TINY).reason.startswith("corridor runs on the host")


def test_an_interrupted_sweep_says_what_it_keeps(tmp_path, monkeypatch, capsys):
    hear = learning.Curves.hear

    def hear_and_signal(self, name, metrics):
        said = hear(self, name, metrics)
        if name == "rloo":
            signal.raise_signal(signal.SIGTERM)
            time.sleep(0.2)
        return said

    monkeypatch.setattr(learning.Curves, "hear", hear_and_signal)
    arguments = ["--tiny", "--run-name", "one", "--output-dir", str(tmp_path)]
    with pytest.raises(SystemExit) as stop:
        runner.main(sweep.__file__, sweep.__doc__, sweep.Config, sweep.run, arguments=arguments, tiny=sweep.TINY)
    error = capsys.readouterr().err
    assert stop.value.code == 75 and "interrupted by SIGTERM\n" in error and "Traceback" not in error
    assert "A sweep cannot be resumed; metrics.jsonl and runs.csv hold what it has measured so far." in error
    log = [
        json.loads(line) for line in (tmp_path / "sweep" / "one-incomplete" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [line["estimator"] for line in log] == ["reinforce", "rloo"]


def test_solved_is_when_the_latest_hundred_episodes_average_enough():
    returns = np.array([[0, 10, 10, 10], [10, 10, 10, 10], [10, np.nan, 10, 10], [10, 9, 10, 10.0]])
    counts = np.array([[60, 50, 50, 50], [40, 40, 10, 10], [60, 0, 39, 1], [60, 60, 60, 60]])
    np.testing.assert_array_equal(learning.updates_to(10.0, returns, counts), [3, 4, 4, 4])
    assert learning.updates_to(10.1, returns, counts).tolist() == [math.inf] * 4


def test_the_interval_of_a_median_covers():
    assert all(math.isnan(x) for x in results.median_interval(np.arange(5.0)))
    assert results.median_interval(np.arange(1.0, 7)) == (1.0, 6.0)
    assert results.median_interval(np.append(np.arange(1.0, 13), [math.inf] * 4)) == (4.0, math.inf)  # ranks 4 and 13
    draws = np.random.default_rng(0).exponential(size=(2000, 16))
    intervals = np.array([results.median_interval(draw) for draw in draws])
    covered = np.mean((intervals[:, 0] <= np.log(2)) & (np.log(2) <= intervals[:, 1]))
    assert 0.95 < covered < 0.99  # 0.979 by the binomial


def test_an_option_of_the_preset_can_be_switched_off():
    estimators = ("gae", "rloo")
    of = Config(env="maze", estimators=estimators, typed=("num_steps",)).options_of()
    assert [of[name]["num_steps"] for name in estimators] == [None, None]
    assert Config(env="maze", estimators=estimators).options_of()["gae"]["num_steps"] == 32


def test_the_dry_run_shows_options_and_memory(capsys):
    arguments = ["--dry-run", "--tiny", "--estimators", "gae", "rloo"]
    runner.main(sweep.__file__, sweep.__doc__, sweep.Config, sweep.run, arguments=arguments, tiny=sweep.TINY)
    shown = capsys.readouterr().out
    assert "--vary lr=0.003,0.01,0.03,0.1\n" in shown and "--lambda 0.9 None\n" in shown and "memory: about" in shown
