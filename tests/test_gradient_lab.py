"""The gradient laboratory on small problems: with an oracle, without one, with a user's own estimators, refused."""

import dataclasses
import json
import sys
import textwrap

import jax
import numpy as np
import pytest

from experiments import _catalogue, _problems, gradient_lab
from experiments import _runner as runner
from pgjax import checkpoints, exact, networks, policies

OWN = """
    import jax.numpy as jnp
    from pgjax import baselines, estimators
    from pgjax.types import Box, Discrete, Environment, Step

    def halved(policy):
        return estimators.make_estimator(policy, baseline=baselines.batch_mean())

    def number():
        return 3

    def not_a_number():
        return baselines.stateless(lambda trajectory: trajectory.rewards * jnp.nan)

    def wrong_shape():
        return baselines.stateless(lambda trajectory: jnp.zeros(3))

    three = 3

    def fails(policy):
        raise TypeError("a mistake of the user's own")

    def walk():
        def step(key, state, action, params):
            state = state + 2.0 * action.astype(jnp.float32) - 1.0
            return state, Step(obs=state[None], reward=-jnp.abs(state - 1.0), terminated=state > 1.5)
        return Environment(
            name="walk", reset=lambda key, params: (jnp.zeros(()), jnp.zeros(1)), step=step, params=(),
            observation_space=Box(-9.0, 9.0, (1,)), action_space=Discrete(2), horizon=4,
        )
"""


@pytest.fixture(scope="module")
def own_module(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    (folder / "own_lab.py").write_text(textwrap.dedent(OWN))
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("own_lab", None)


def execute(config, folder):
    directory = runner.execute("gradient_lab", config, gradient_lab.run, gradient_lab.plot, output_dir=folder)
    return directory, json.loads((directory / "summary.json").read_text())


@pytest.fixture(scope="module")
def tabular(own_module, tmp_path_factory):
    config = dataclasses.replace(gradient_lab.TINY, estimator=("own_lab:halved",))
    return execute(config, tmp_path_factory.mktemp("results"))


def test_with_an_oracle_every_number_is_exact_and_the_sample_agrees(tabular):
    directory, summary = tabular
    assert {path.stem for path in directory.glob("*.png")} == {"bias_variance", "variance_against_batch"}
    rows = {(row["quantity"], row["variant"]): row for row in summary["rows"]}
    names = [*gradient_lab.TINY.only, "own_lab:halved"]
    assert {variant for _, variant in rows} == set(names)
    for name in names:
        variance = rows["tr Var", name]
        assert abs(variance["ours"] - variance["exact"]) < 4.5 * variance["stderr"] and variance["verdict"] == "agrees"
    biases = [rows["relative bias", name]["ours"] for name in names]
    np.testing.assert_allclose(biases, [0.0, 0.5, 0.0, 0.5], atol=1e-9)
    verdicts = [rows["relative bias", name]["verdict"] for name in names]
    assert verdicts == ["unbiased", f"biased: {_catalogue.OWN_SAMPLE}", "unbiased", "biased"]


def test_the_parts_of_the_variance_add_up(tabular):
    _, parts = tabular[1]["tables"]
    for _, *numbers in parts["lines"]:
        state, action, future, total = map(float, numbers)
        assert state + action + future == pytest.approx(total, rel=1e-3)
    assert float(parts["lines"][-1][2]) == 0.0


@pytest.mark.slow
def test_a_false_claim_is_told(own_module, monkeypatch, tmp_path):
    wrong = _catalogue.CATALOGUE["G₁, batch mean (Dr. GRPO)"]._replace(bias="")
    monkeypatch.setitem(_catalogue.CATALOGUE, "G₁", wrong)
    _, summary = execute(dataclasses.replace(gradient_lab.TINY, only=("G₁",)), tmp_path)
    assert summary["rows"][0]["verdict"].startswith("DIFFERS")


def test_what_is_no_number_is_never_called_unbiased(own_module, tmp_path):
    config = dataclasses.replace(gradient_lab.TINY, only=("G₁",), estimator=("own_lab:not_a_number",))
    _, summary = execute(config, tmp_path)
    verdicts = {row["variant"]: row["verdict"] for row in summary["rows"] if row["quantity"] == "relative bias"}
    assert verdicts == {"G₁": "unbiased", "own_lab:not_a_number": "NOT FINITE"}


@pytest.mark.slow
def test_probabilities_that_float32_rounds_make_no_estimator_biased(tmp_path):
    config = gradient_lab.Config(problem="random", episodes=256, only=("Gₜ (GPOMDP)", "γ = 0.9"))
    _, summary = execute(config, tmp_path)
    verdicts = [row["verdict"] for row in summary["rows"] if row["quantity"] == "relative bias"]
    assert verdicts[0] == "unbiased" and all(verdict.startswith("biased: ") for verdict in verdicts[1:])


@pytest.mark.slow
def test_where_trajectories_cannot_be_listed_dynamic_programs_are_exact(tmp_path):
    config = gradient_lab.Config(problem="random", episodes=256, limit=1, only=("Gₜ (GPOMDP)", "corrected"))
    _, summary = execute(config, tmp_path)
    rows = {(row["quantity"], row["variant"]): row for row in summary["rows"]}
    assert rows["relative bias", "Gₜ − q(Xₜ, Aₜ), corrected"]["verdict"] == "unbiased"
    assert rows["relative bias", "Gₜ − q(Xₜ, Aₜ), uncorrected"]["ours"] == pytest.approx(1.0)
    assert rows["tr Var", "Gₜ (GPOMDP)"]["exact"] == pytest.approx(0.7131, rel=1e-3)


@pytest.mark.slow
def test_a_gradient_of_zero_accuses_nobody(own_module, monkeypatch, tmp_path):
    monkeypatch.setitem(_problems.TABULAR, "bandit", lambda: exact.make_bandit(np.ones(3)))
    _, summary = execute(dataclasses.replace(gradient_lab.TINY, only=("G₁",)), tmp_path)
    assert summary["rows"][0]["verdict"] == "unbiased"
    assert any("∇ρ vanishes here" in note for note in summary["notes"])


@pytest.mark.slow
def test_without_an_oracle_a_large_sample_is_the_reference(own_module, tmp_path):
    config = gradient_lab.Config(
        problem="own_lab:walk",
        policy="fresh",
        episodes=1024,
        hidden=(4,),
        only=("Gₜ − v(Xₜ)", "G₁, batch mean (Dr. GRPO)"),
    )
    _, summary = execute(config, tmp_path)
    rows = {(row["quantity"], row["variant"]): row for row in summary["rows"]}
    assert any("its own error" in note for note in summary["notes"])
    assert rows["relative bias", "Gₜ − v(Xₜ)"]["verdict"].startswith("no bias seen (max |z|")
    assert all(row["exact"] is None for key, row in rows.items() if key[0] == "tr Var")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problem", "CartPool-v1"], ["CartPool-v1", "CartPole-v1"]),
        (["--problem", "CartPole-v1", "--policy", "random"], ["--policy random", "fresh or trained"]),
        (["--estimator", "nowhere:f"], ["--estimator nowhere:f", "module:function"]),
        (["--estimator", "own_lab:number"], ["own_lab:number", "Estimator or a Baseline", "int"]),
        (["--estimator", "own_lab:three"], ["own_lab:three", "must be a function", "int"]),
        (["--estimator", "own_lab:wrong_shape"], ["own_lab:wrong_shape", "[T, B] = [1, 2]", "[3]"]),
        (["--only", "RLOO", "--batch", "1"], ["RLOO", "--batch 2 or more"]),
        (["--problem", "own_lab:walk", "--only", "b*, exact"], ["needs a tabular problem"]),
        (["--problem", "maze", "--checkpoint", "x.safetensors"], ["--problem maze", "without --checkpoint"]),
        (["--only", "REINFORCE"], ["--only REINFORCE", "G₁"]),
        (["--batch", "0"], ["--batch 0", "at least 1"]),
        (["--checkpoint", "nothing.safetensors"], ["nothing.safetensors"]),
        (["--checkpoint", "own.safetensors"], ["names the environment own_saved:walk", "does not ship", "--env"]),
        (["--checkpoint", "own.safetensors", "--env", "maze"], ["the observation_space {", "environment maze has"]),
        (["--problem", "maze", "--env", "maze"], ["--env maze", "used with --checkpoint"]),
    ],
)
def test_bad_input_is_refused(own_module, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    header = policies.policy_header("corridor") | {"env": "own_saved:walk"}
    checkpoints.save("own.safetensors", {"w": np.ones(2, np.float32)}, header)
    if not {"--problem", "--checkpoint"} & {*arguments}:
        arguments = ["--problem", "bandit", *arguments]
    with pytest.raises(SystemExit) as left:
        runner.main(
            gradient_lab.__file__,
            gradient_lab.__doc__,
            gradient_lab.Config,
            gradient_lab.run,
            gradient_lab.plot,
            arguments=arguments,
        )
    error = " ".join(capsys.readouterr().err.split())
    assert left.value.code == 2 and "Traceback" not in error
    assert all(word in error for word in words), error
    assert not (tmp_path / "results").exists()


def test_a_saved_policy_is_measured_in_the_environment_that_the_command_line_names(own_module, tmp_path):
    import own_lab

    made = networks.make_policy(own_lab.walk(), hidden=(2,))
    params = made.init(jax.random.key(0), np.zeros(1, np.float32))
    policies.save_policy(tmp_path / "policy.safetensors", params, environment="own_lab:walk", hidden=(2,))
    config = gradient_lab.Config(checkpoint=tmp_path, env="own_lab:walk")
    problem = gradient_lab.make_problem(config)
    assert problem.name == "walk"
    jax.tree.map(np.testing.assert_array_equal, problem.params, params)
    with pytest.raises(runner.UsageError, match="own_lab:walk, which pgjax does not ship"):
        gradient_lab.make_problem(dataclasses.replace(config, env=None))


def test_a_mistake_in_a_users_function_is_not_hidden(own_module, tmp_path):
    config = dataclasses.replace(gradient_lab.TINY, estimator=("own_lab:fails",))
    with pytest.raises(TypeError, match="a mistake of the user's own"):
        execute(config, tmp_path)
