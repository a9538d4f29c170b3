"""Every experiment at its tiny size, and what `experiments.train` refuses."""

import dataclasses
import sys
import textwrap

import jax
import numpy as np
import pytest
from trainings import returns_in, summary, tiny_training

from experiments import gradient_lab, train, variance_reduction
from experiments.harness import runner
from experiments.shared import measure
from experiments.shared.training import build, presets
from experiments.train import report
from pgjax import baselines, environments, estimators
from pgjax.saving import checkpoints, policies


@pytest.fixture(scope="module")
def variance_run(tmp_path_factory):
    return runner.execute(
        "variance_reduction",
        variance_reduction.TINY,
        variance_reduction.run,
        variance_reduction.plot,
        output_dir=tmp_path_factory.mktemp("results"),
    )


def test_variance_reduction_writes_its_table_and_figures(variance_run):
    rows = summary(variance_run)["rows"]
    assert {path.stem for path in variance_run.glob("*.png")} == {"variance_reduction", "gradients", "exact"}
    (table,) = summary(variance_run)["tables"]
    names = list(variance_reduction.TINY.variants())
    assert [line[0] for line in table["lines"]] == names == ["one episode, G₁", "B episodes, Gₜ − v(Xₜ)"]
    assert table["lines"][0][1] == "81.4" and all("±" in cell for line in table["lines"] for cell in line[2:])
    assert "Over the last fifth of training" in summary(variance_run)["notes"][-1]
    for variant in names:
        quantities = {row["quantity"] for row in rows if row["variant"] == variant}
        wanted = {f"(b) {q}, {s}" for q in variance_reduction.QUANTITIES for s in variance_reduction.STAGES}
        assert wanted < quantities and "(c) return over the last fifth" in quantities


class Rows(list):
    """The rows of a recorder, and nothing else of it."""

    def row(self, **fields):
        self.append(fields)


@pytest.fixture(scope="module")
def exact_rows():
    rows = Rows()
    ladder = variance_reduction.Config().variants()
    measure.exact_moments({name: (v.estimator, 2 if v.many else 1) for name, v in ladder.items()}, rows)
    return rows


def test_the_exact_part_is_exact(exact_rows):
    means = {row["variant"]: row for row in exact_rows if row["quantity"].startswith("(a) E[")}
    assert len(means) == len(variance_reduction.Config().variants()) + 2
    for row in means.values():
        assert row["verdict"] == "agrees" and abs(row["ours"] - row["exact"]) < 1e-10
    assert means["wrong: batch mean that contains the episode"]["ours"] == pytest.approx(0.5)
    assert means["wrong: ρ̂ refreshed before use"]["ours"] == pytest.approx(0.9)


def test_an_estimator_that_learns_its_baseline_has_no_exact_variance():
    learned = lambda policy, value: estimators.make_estimator(policy, baseline=baselines.time_dependent(0.9))
    plain = lambda policy, value: estimators.make_estimator(policy)
    found = measure.exact_moments({"learned": (learned, 1), "plain": (plain, 1)}, Rows())
    assert found["learned"] is None and found["plain"] > 0


def test_the_cures_make_the_exact_variance_fall(exact_rows):
    variances = [row["exact"] for row in exact_rows if row["quantity"].startswith("(a) tr Var")]
    alone, average, many, to_go, *_ = variances
    assert alone > 7 * average and average == pytest.approx(2 * many) and to_go < many / 2


@pytest.mark.parametrize(
    ("option", "name", "words"),
    [
        ("many_episodes", "loo", "--many-episodes: no estimator is called 'loo'; did you mean rloo"),
        ("many_episodes", "gae", r"--many-episodes gae: is biased \(the error of v\)"),
        ("many_episodes", "natural_value", "another quantity"),
        ("many_episodes", "trajectory_wise", r"needs a predicted q\(Xₜ, a\)"),
        ("one_episode", "rloo", "--one-episode rloo: compares episodes"),
    ],
)
def test_the_ladder_refuses_what_it_cannot_compare(option, name, words):
    with pytest.raises(runner.UsageError, match=words):
        dataclasses.replace(variance_reduction.Config(), **{option: (name,)}).validate()


@pytest.fixture(scope="module")
def train_run(tmp_path_factory):
    return tiny_training(tmp_path_factory.mktemp("results"))


def test_train_writes_curve_policy_state_and_rows(train_run):
    names = {path.name for path in train_run.iterdir()}
    assert {"learning_curve.png", "policy.safetensors", "state-4.safetensors", "metrics.jsonl", "options.json"} <= names
    rows = summary(train_run)["rows"]
    assert [row["variant"] for row in rows[:2]] == ["lr 0.01", "lr 0.1"] and len(returns_in(train_run)) == 4
    assert len(rows) == 2 + 4 + 1 and rows[-1]["quantity"] == "CPU time of training" and rows[-1]["seconds"] > 0


@pytest.mark.parametrize(("name", "env"), [("policy.safetensors", None), ("", None), ("", "corridor")])
def test_a_saved_policy_is_evaluated_again(train_run, tmp_path, name, env):
    config = train.Config(render=train_run / name, env=env, eval_episodes=4)
    directory = runner.execute("train", config, train.run, report.plot, output_dir=tmp_path)
    assert summary(directory)["rows"][0]["ours"] == max(returns_in(train_run))


def test_captions_and_notes_count_the_seeds():
    note = report.how_to_read({"num_seeds": 1, "eval_episodes": 7}, 1)
    assert "best of" not in note and "over seeds" not in note and "7 episodes" in note
    note = report.how_to_read({"num_seeds": 1, "eval_episodes": 7}, 2)
    assert "over seeds" not in note and "the best of the 2" in note
    assert "that of a mean is over seeds" in report.how_to_read({"num_seeds": 2, "eval_episodes": 7}, 4)
    assert report.caption({"num_seeds": 1, "num_steps": None}).startswith("One seed, so there is no band. Undiscounted")
    two = report.caption({"num_seeds": 2, "num_steps": 8}, num_failed=1)
    assert (
        two.startswith("Mean over 2 seeds, 95 % t bands (Only 2 seeds: ")
        and "; failed runs that are left out: 1." in two
    )


BROKEN = """
    import jax.numpy as jnp
    from pgjax.types import Box, Discrete, Environment, Step

    def make(obs_size, reward):
        return Environment(
            name="broken",
            reset=lambda key, params: (jnp.zeros(()), jnp.zeros(2)),
            step=lambda key, state, action, params: (
                state, Step(obs=jnp.zeros(2), reward=jnp.float32(reward), terminated=jnp.zeros((), bool))
            ),
            params=(),
            observation_space=Box(0.0, 1.0, (obs_size,)),
            action_space=Discrete(2),
            horizon=3,
        )

    nan_rewards = lambda: make(2, jnp.nan)
    wrong_shape = lambda: make(3, 1.0)
"""


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["--env", "CartPool-v1"],
            ["CartPool-v1", "did you mean 'CartPole-v1'", "slates, ads, cooling, Pendulum-v1"],
        ),
        (["--env", "nowhere:make"], ["nowhere:make", "package.module:name"]),
        (["--discount", "-0.5"], ["--discount", "-0.5", "[0, 1]"]),
        (["--lr", "0"], ["--lr 0.0: must be in [1.2e-38, 3.4e+38]"]),
        (["--lr", "1e300"], ["--lr 1e+300: must be in [1.2e-38, 3.4e+38]"]),
        (["--env", ":x"], ["environment ':x' must be 'package.module:name'"]),
        (["--distribution", "gaussian"], ["gaussian", "Discrete(2)", "categorical"]),
        (["--estimator", "rloo", "--num-episodes", "1"], ["--num-episodes 1: must be at least 2", "rloo"]),
        (["--network-options", "heads"], ["--network-options heads: must be KEY=VALUE", "JSON"]),
        (["--network-options", "channels=x"], ["--network-options channels=x: must be KEY=VALUE"]),
        (["--network-options", "channels=1", "channels=2"], ["channels=2: channels is given twice"]),
        (["--env", "recall", "--network-options", "heads=2"], ["among ['memory_size'], got 'heads'"]),
        (["--env", "reverse", "--network-options", "heads=3"], ["heads must divide the width 64", "got 3"]),
        (["--env", "reverse", "--activation", "relu"], ["activation must be None or 'gelu'", "got 'relu'"]),
        (["--network", "transformer"], ["network='transformer' needs observations with the fields tokens"]),
        (["--network", "conv"], ["network='conv' needs observations of shape [H, W, C]", "(4,)"]),
        (["--env", "reverse", "--group-size", "3"], ["--group-size 3: must divide --num-episodes 256"]),
        (["--group-size", "0"], ["--group-size 0: must be at least 1"]),
        (
            ["--group-size", "4", "--estimator", "gae", "--num-steps", "4"],
            ["--group-size 4: must be 1 with --num-steps"],
        ),
        (["--estimator", "reinforce_greedy", "--num-steps", "4"], ["--num-steps 4: must be None", "greedy"]),
        (
            ["--num-steps", "8"],
            ["--num-steps 8", "does not bootstrap", "--num-steps needs --estimator n_step, gae, td"],
        ),
        (["--estimator", "loo"], ["--estimator: no estimator is called 'loo'; did you mean rloo or gpomdp_leave"]),
        (["--estimator", "rloo", "--lambda", "0.5"], ["--lambda 0.5: must be left out with the estimator rloo"]),
        (["--estimator", "per_parameter", "--standardise", "population"], ["--standardise population: must be left"]),
        (["--estimator", "grpo", "--standardise", "none"], ["--standardise none: must be group_population or group"]),
        (["--estimator", "gpomdp_exact_value"], ["gpomdp_exact_value needs exact values at a fixed θ"]),
        (["--estimator", "gpomdp_optimal_state"], ["gpomdp_optimal_state needs numbered states"]),
        (["--env", "Pendulum-v1", "--estimator", "all_action"], ["all_action needs a predicted q", "discrete actions"]),
        (["--estimator", "json:dumps"], ["the estimator json:dumps must be a function of the policy", "TypeError"]),
        (["--estimator", "nowhere:f"], ["the estimator nowhere:f must be module:function that can be imported"]),
        (["--epochs", "3"], ["--epochs 3", "must be 1 with --estimator gpomdp_value", "importance_per_decision"]),
        (["--epochs", "2", "--estimator", "per_parameter"], ["--epochs 2", "must be 1", "--estimator per_parameter"]),
        (["--hidden", "0"], ["--hidden 0", "at least 1"]),
        (["--lr"], ["--lr", "at least one"]),
        (["--seed", "99999999999"], ["--seed 99999999999"]),
        (["--env", "os:getcwd"], ["os:getcwd", "Environment", "str"]),
        (["--env", "broken_environments:wrong_shape"], ["saw float32 [2], wanted float32 [3]"]),
        (["--env", "broken_environments:nan_rewards", "--num-updates", "2"], ["rewards must be finite"]),
        (["--render", "nothing.safetensors"], ["nothing.safetensors", "there is none"]),
        (["--render", "."], ["policy.safetensors is not a file"]),
        (["--render", "own.safetensors"], ["own.safetensors names the environment broken_environments:make", "--env"]),
        (["--render", "own.safetensors", "--env", "nosuch"], ["no environment is called 'nosuch'"]),
        (["--render", "corridor.safetensors", "--env", "maze"], ["the observation_space {", "environment maze has"]),
        (["--resume", "nothing"], ["--resume nothing", "options.json"]),
        (["--run-name", "a/b"], ["--run-name a/b"]),
    ],
)
def test_bad_input_is_one_line_exit_code_two_and_nothing_left(tmp_path, monkeypatch, capsys, arguments, words):
    (tmp_path / "broken_environments.py").write_text(textwrap.dedent(BROKEN))
    for name, env in (("own", "broken_environments:make"), ("corridor", "corridor")):
        header = policies.policy_header("corridor") | {"env": env}
        checkpoints.save(tmp_path / f"{name}.safetensors", {"w": np.ones(2, np.float32)}, header)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("broken_environments", None)
    with pytest.raises(SystemExit) as left:
        runner.main(train.__file__, train.__doc__, train.Config, train.run, report.plot, arguments=arguments)
    error = capsys.readouterr().err
    assert left.value.code == 2 and "Traceback" not in error
    for word in words:
        assert word in " ".join(error.split())
    assert not (tmp_path / "results").exists()
    assert ("broken_environments" in sys.modules) == any("broken_environments" in word for word in arguments)


OWN = """
    from pgjax.environments.corridor import make_corridor

    make = lambda: make_corridor()
"""


def test_a_policy_in_ones_own_environment_is_drawn_where_the_command_line_names_it(tmp_path, monkeypatch):
    (tmp_path / "own_train.py").write_text(textwrap.dedent(OWN))
    monkeypatch.syspath_prepend(tmp_path)
    config = dataclasses.replace(train.TINY, env="own_train:make", estimator=presets.preset("corridor")["estimator"])
    directory = runner.execute("train", config, train.run, output_dir=tmp_path)
    sys.modules.pop("own_train")
    with pytest.raises(runner.UsageError, match="own_train:make, which pgjax does not ship"):
        runner.execute("train", train.Config(render=directory), train.run, output_dir=tmp_path)
    assert "own_train" not in sys.modules
    config = train.Config(render=directory, env="own_train:make", eval_episodes=4)
    drawn = runner.execute("train", config, train.run, output_dir=tmp_path)
    assert summary(drawn)["rows"][0]["ours"] == max(returns_in(directory))
    sys.modules.pop("own_train")


def test_spaces_that_cannot_be_saved_are_refused_before_training(tmp_path, monkeypatch):
    space = type("Foreign", (), {"n": 2, "shape": (), "dtype": np.dtype(np.int32)})()
    environment = dataclasses.replace(environments.make("corridor"), action_space=space)
    monkeypatch.setattr(environments, "make", lambda name: environment)
    with pytest.raises(runner.UsageError, match="action space: saw"):
        runner.execute("train", train.TINY, train.run, output_dir=tmp_path)
    assert not (tmp_path / "train").exists()


def test_the_help_says_which_options_run_code(capsys):
    for module, options in ((train, ("--env", "--estimator")), (gradient_lab, ("--env", "--problem", "--estimator"))):
        with pytest.raises(SystemExit):
            runner.main(module.__file__, module.__doc__, module.Config, module.run, arguments=["--help"])
        text = capsys.readouterr().out
        for option in options:
            described = " ".join(text.split(f"│ {option} ")[-1].split("│ --")[0].replace("│", "").split())
            assert "imported and its code runs" in described, (option, described)


SMALL = {"num_seeds": 1, "num_updates": 2, "num_episodes": 8, "eval_episodes": 4}
SLATE = """
    import dataclasses
    import jax.numpy as jnp
    from pgjax.environments.corridor import make_corridor
    from pgjax.types import Step
    from pgjax.spaces import Slate

    def make():
        corridor = make_corridor(horizon=5)

        def step(key, state, action, params):
            return corridor.step(key, state, action[0] % 2, params)

        return dataclasses.replace(corridor, step=step, action_space=Slate(3, 2))
"""


@pytest.mark.parametrize(
    ("env", "options", "arguments"),
    [
        pytest.param(
            "recall",
            {},
            {"network": "gru", "hidden": [], "network_options": {"memory_size": 32}},
            marks=pytest.mark.slow,
        ),
        ("reverse", {"hidden": (8,)}, {"network": "transformer", "hidden": [8], "network_options": {}}),
        pytest.param(
            "recall",
            {"network": "gru", "network_options": ("memory_size=2",), "activation": "relu", "hidden": (3,)}
            | {"estimator": "gae", "num_steps": 4},
            {"network": "gru", "hidden": [3], "activation": "relu", "network_options": {"memory_size": 2}},
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "recall",
            {"network": "mlp"},
            {"network": "mlp", "hidden": [64, 64], "network_options": {}},
            marks=pytest.mark.slow,
        ),
        pytest.param("own_slate:make", {"hidden": (3,)}, {"distribution": "plackett_luce"}, marks=pytest.mark.slow),
    ],
    ids=["recall", "reverse", "windows", "another network", "slate"],
)
def test_a_policy_of_any_network_is_trained_saved_evaluated_again_and_resumed(
    tmp_path, monkeypatch, env, options, arguments
):
    (tmp_path / "own_slate.py").write_text(textwrap.dedent(SLATE))
    monkeypatch.syspath_prepend(tmp_path)
    options = SMALL | options | {name: x for name, x in arguments.items() if name == "distribution"}
    config = train.Config(env=env, gif=False, **options)
    directory = runner.execute("train", config, train.run, report.plot, output_dir=tmp_path)
    header = checkpoints.metadata(directory / "policy.safetensors")["arguments"]
    assert header.items() >= arguments.items()
    quantities = {row["quantity"] for row in summary(directory)["rows"]}
    assert ("held-out prompts answered right (greedy policy)" in quantities) == (env in presets.HELD_OUT)
    again = train.Config(render=directory, env=env, eval_episodes=4, gif=False)
    drawn = runner.execute("train", again, train.run, output_dir=tmp_path)
    assert summary(drawn)["rows"][0]["ours"] == summary(directory)["rows"][0]["ours"]
    longer = train.Config(resume=directory, num_updates=3)
    resumed = runner.execute("train", longer, train.run, report.plot, output_dir=tmp_path)
    assert checkpoints.metadata(resumed / "policy.safetensors")["arguments"] == header


def test_a_value_remembers_nothing_where_the_policy_does():
    arguments = lambda **options: build.value_arguments(presets.DEFAULT | options)
    assert arguments(network="gru", network_options=("memory_size=2",))["network"] == "auto"
    assert arguments(network="transformer", hidden=(8, 8))["hidden"] == (8, 8)
    convolution = arguments(network="conv", network_options=("channels=4",), activation="silu")
    assert convolution == {
        "network": "conv",
        "hidden": (64, 64),
        "activation": "silu",
        "network_options": {"channels": 4},
    }


def test_the_good_runs_of_a_sweep_are_evaluated_and_saved_where_others_fail(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--env", "corridor", "--lr", "0.01", "1e38", "--num-seeds", "1", "--num-updates", "3"]
    arguments += ["--num-episodes", "4", "--eval-episodes", "4", "--no-gif", "--run-name", "sweep"]
    with pytest.raises(SystemExit) as left:
        runner.main(train.__file__, train.__doc__, train.Config, train.run, report.plot, arguments=arguments)
    shown = capsys.readouterr()
    assert left.value.code == 2 and "Traceback" not in shown.err
    assert "error: 1 of 2 runs failed; the others are evaluated" in shown.err and "lr 1e+38, seed 0:" in shown.err
    assert "must be" in shown.err and "Evaluation" in shown.out
    directory = tmp_path / "results" / "train" / "sweep-incomplete"
    assert {"policy.safetensors", "learning_curve.png", "summary.md"} <= {path.name for path in directory.iterdir()}
    rows = {row["variant"]: row for row in summary(directory)["rows"] if row["quantity"] == "evaluated return"}
    assert (
        rows["lr 1e+38, seed 0"]["verdict"] == "not measured: the run failed"
        and rows["lr 1e+38, seed 0"]["ours"] is None
    )
    _, _, params = policies.load_policy(directory)
    assert rows["lr 0.01, seed 0"]["ours"] is not None
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))
