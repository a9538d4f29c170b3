"""The gradient laboratory on small problems: with an oracle, without one, with a user's own estimators, refused."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import textwrap

import jax
import numpy as np
import pytest

from experiments import gradient_lab
from experiments.gradient_lab import exact_part, laboratory, problems, report
from experiments.harness import runner
from pgjax import diagnostics, exact, networks, registry
from pgjax.saving import checkpoints, policies

OWN = """
    import itertools
    import jax.numpy as jnp
    import numpy as np
    from pgjax import baselines, estimators, exact
    from pgjax.types import Box, Discrete, Environment, Step

    def halved(policy):
        return estimators.make_estimator(policy, baseline=baselines.batch_mean())

    def paired(policy):
        return estimators.make_estimator(policy, baseline=baselines.leave_one_out(group_size=2))

    def number():
        return 3

    def not_a_number():
        return baselines.stateless(lambda trajectory: trajectory.rewards * jnp.nan)

    def wrong_shape():
        return baselines.stateless(lambda trajectory: jnp.zeros(3))

    three = 3

    def fails(policy):
        raise TypeError("a mistake of the user's own")

    def tree():
        # Three starts, and then every sequence of three choices: 24 trajectories.
        nodes = [(s, *h) for length in range(3) for s in range(3) for h in itertools.product((0, 1), repeat=length)]
        index = {node: n for n, node in enumerate(nodes)}
        end = len(nodes)
        successors = np.array([[index.get((*node, a), end) for a in (0, 1)] for node in nodes] + [[end, end]])
        return exact.to_environment(exact.make_tabular_mdp(
            initial=[0.5, 0.3, 0.2] + [0.0] * (end - 2), successors=successors[..., None],
            probabilities=np.ones((end + 1, 2, 1)), rewards=np.sin(np.arange(2.0 * end + 2)).reshape(-1, 2, 1),
            terminal=np.arange(end + 1) == end, horizon=3, name="tree",
        ))

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
    config = dataclasses.replace(gradient_lab.TINY, estimator=(*gradient_lab.TINY.estimator, "own_lab:halved"))
    return execute(config, tmp_path_factory.mktemp("results"))


def test_with_an_oracle_every_number_is_exact_and_the_sample_agrees(tabular):
    directory, summary = tabular
    assert {path.stem for path in directory.glob("*.png")} == {"bias_variance", "variance_against_batch"}
    rows = {(row["quantity"], row["variant"]): row for row in summary["rows"]}
    names = [*(registry.ENTRIES[name].label for name in gradient_lab.TINY.estimator), "own_lab:halved"]
    assert {variant for _, variant in rows} == set(names)
    for name in names:
        variance = rows["tr Var", name]
        assert abs(variance["ours"] - variance["exact"]) < 4.5 * variance["stderr"] and variance["verdict"] == "agrees"
    biases = [rows["relative bias", name]["ours"] for name in names]
    np.testing.assert_allclose(biases, [0.0, 0.5, 0.0, 0.5], atol=1e-9)
    verdicts = [rows["relative bias", name]["verdict"] for name in names]
    assert verdicts == [
        "agrees: unbiased",
        f"agrees: biased: {registry.ENTRIES['dr_grpo'].bias}",
        "agrees: unbiased",
        "not judged: biased",
    ]


def test_the_parts_of_the_variance_add_up(tabular):
    _, parts = tabular[1]["tables"]
    for _, *numbers in parts["lines"]:
        state, action, future, total = map(float, numbers)
        assert state + action + future == pytest.approx(total, rel=1e-3)
    assert float(parts["lines"][-1][2]) == 0.0


@pytest.mark.slow
def test_a_false_claim_is_told(own_module, monkeypatch, tmp_path):
    wrong = dataclasses.replace(registry.ENTRIES["dr_grpo"], bias="")
    monkeypatch.setitem(registry.ENTRIES, "reinforce", wrong)
    _, summary = execute(dataclasses.replace(gradient_lab.TINY, estimator=("reinforce",)), tmp_path)
    assert summary["rows"][0]["verdict"].startswith("wrong")


def test_what_is_no_number_is_never_called_unbiased(own_module, tmp_path):
    config = dataclasses.replace(gradient_lab.TINY, estimator=("reinforce", "own_lab:not_a_number"))
    _, summary = execute(config, tmp_path)
    verdicts = {row["variant"]: row["verdict"] for row in summary["rows"] if row["quantity"] == "relative bias"}
    assert verdicts == {"G₁": "agrees: unbiased", "own_lab:not_a_number": "wrong: not finite"}


@pytest.mark.slow
def test_probabilities_that_float32_rounds_make_no_estimator_biased(tmp_path):
    config = gradient_lab.Config(problem="random", episodes=256, estimator=("gpomdp", "gpomdp_discounted"))
    _, summary = execute(config, tmp_path)
    verdicts = [row["verdict"] for row in summary["rows"] if row["quantity"] == "relative bias"]
    assert verdicts[0] == "agrees: unbiased" and all(verdict.startswith("agrees: biased: ") for verdict in verdicts[1:])


@pytest.mark.slow
def test_where_trajectories_cannot_be_listed_dynamic_programs_are_exact(tmp_path):
    names = ("gpomdp", "action_dependent", "action_dependent_uncorrected")
    config = gradient_lab.Config(problem="random", episodes=256, limit=1, estimator=names)
    _, summary = execute(config, tmp_path)
    rows = {(row["quantity"], row["variant"]): row for row in summary["rows"]}
    assert rows["relative bias", "Gₜ − q(Xₜ, Aₜ), corrected"]["verdict"] == "agrees: unbiased"
    assert rows["relative bias", "Gₜ − q(Xₜ, Aₜ), uncorrected"]["ours"] == pytest.approx(1.0)
    assert rows["tr Var", "Gₜ (GPOMDP)"]["exact"] == pytest.approx(0.7131, rel=1e-3)


def test_groups_that_share_a_start_are_measured_and_named(monkeypatch, tmp_path, capsys):
    """Enumeration and, start by start, dynamic programs agree with each other and with the sample."""
    monkeypatch.setitem(problems.TABULAR, "bandit", lambda: exact.random_mdp(jax.random.key(5), 3, 2, 1, 2))
    config = gradient_lab.Config(
        problem="bandit", batch=4, group_size=2, episodes=1024, estimator=("rloo", "dr_grpo", "gpomdp")
    )
    directory = runner.execute("gradient_lab", config, gradient_lab.run, output_dir=tmp_path)
    summary = json.loads((directory / "summary.json").read_text())
    rows = {(row["quantity"], row["variant"]): row for row in summary["rows"]}
    verdicts = {variant: row["verdict"] for (quantity, variant), row in rows.items() if quantity == "relative bias"}
    assert verdicts["G₁, leave-one-out (RLOO)"] == verdicts["Gₜ (GPOMDP)"] == "agrees: unbiased"
    assert rows["relative bias", "G₁, batch mean (Dr. GRPO)"]["ours"] == pytest.approx(0.5)
    assert verdicts["G₁, batch mean (Dr. GRPO)"].startswith("agrees: biased: the mean of k episodes")
    assert all(row["verdict"] == "agrees" for (quantity, _), row in rows.items() if quantity == "tr Var")
    assert "B = 4 episodes an estimate, in groups of 2 that share a start" in summary["tables"][0]["title"]
    assert "exact moments: 18 batches" in capsys.readouterr().out


# 54 GB before batches were summed block by block.
@pytest.mark.slow
def test_exact_moments_of_many_batches_stay_below_a_gibibyte(own_module, tmp_path):
    code = """
import pathlib, resource, sys
from experiments import gradient_lab
from experiments.harness import runner
names = ("rloo", "dr_grpo", "grpo", "gpomdp_leave_one_out", "actor_critic")
config = gradient_lab.Config(problem="own_lab:tree", policy="fresh", batch=4, episodes=1600, estimator=names)
runner.execute("gradient_lab", config, gradient_lab.run, output_dir=pathlib.Path(sys.argv[1]))
print("peak", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    root = pathlib.Path(gradient_lab.__file__).resolve().parents[2]
    path = os.pathsep.join([str(root), *sys.path])
    command = [sys.executable, "-c", code, str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": path}
    shown = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, timeout=900).stdout
    assert "exact moments: 331,776 batches" in shown
    kibibytes = int(shown.splitlines()[-1].removeprefix("peak"))
    assert kibibytes < 2**20, f"{kibibytes / 2**20:.2f} GiB"


@pytest.mark.slow
def test_a_gradient_of_zero_accuses_nobody(own_module, monkeypatch, tmp_path):
    monkeypatch.setitem(problems.TABULAR, "bandit", lambda: exact.make_bandit(np.ones(3)))
    _, summary = execute(dataclasses.replace(gradient_lab.TINY, estimator=("reinforce",)), tmp_path)
    assert summary["rows"][0]["verdict"] == "agrees: unbiased"
    assert any("∇ρ vanishes here" in note for note in summary["notes"])


@pytest.mark.slow
def test_without_an_oracle_a_large_sample_is_the_reference(own_module, tmp_path):
    config = gradient_lab.Config(
        problem="own_lab:walk",
        policy="fresh",
        episodes=1024,
        hidden=(4,),
        estimator=("gpomdp_value", "dr_grpo"),
    )
    _, summary = execute(config, tmp_path)
    rows = {(row["quantity"], row["variant"]): row for row in summary["rows"]}
    assert any("its own error" in note for note in summary["notes"])
    assert rows["relative bias", "Gₜ − v(Xₜ)"]["verdict"].startswith("agrees: no bias seen (max |z|")
    assert all(row["exact"] is None for key, row in rows.items() if key[0] == "tr Var")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--problem", "CartPool-v1"], ["CartPool-v1", "CartPole-v1"]),
        (["--problem", "CartPole-v1", "--policy", "random"], ["--policy random", "fresh or trained"]),
        (
            ["--estimator", "loo"],
            ["--estimator: no estimator is called 'loo'; did you mean rloo or gpomdp_leave_one_out"],
        ),
        (["--estimator", "nowhere:f"], ["the estimator nowhere:f must be module:function that can be imported"]),
        (["--estimator", "json:dumps"], ["the estimator json:dumps must be a function of the policy", "TypeError"]),
        (["--estimator", "own_syntax:f"], ["the estimator own_syntax:f", "SyntaxError", "own_syntax.py, line 1"]),
        (["--estimator", "own_lab:fails"], ["TypeError: a mistake of the user's own (own_lab.py, line 26)"]),
        (["--estimator", "own_lab:number"], ["own_lab:number must be a function of the policy", "returned int"]),
        (["--estimator", "own_lab:three"], ["own_lab:three", "must be a function", "int"]),
        (["--estimator", "own_lab:wrong_shape"], ["own_lab:wrong_shape", "[T, B] = [1, 2]", "[3]"]),
        (["--estimator", "rloo", "--batch", "1"], ["--estimator rloo: needs --batch 2 or more"]),
        (
            ["--problem", "own_lab:walk", "--policy", "fresh", "--estimator", "reinforce_optimal_exact"],
            ["--estimator reinforce_optimal_exact: needs a tabular problem"],
        ),
        (["--problem", "maze", "--checkpoint", "x.safetensors"], ["--problem maze", "left out with --checkpoint"]),
        (["--estimator", "G₁"], ["no estimator is called 'G₁'", "the known names are reinforce, "]),
        (["--batch", "0"], ["--batch 0", "at least 1"]),
        (["--batch", "4", "--group-size", "3"], ["--group-size 3", "divide --batch 4"]),
        (["--batch", "4", "--estimator", "own_lab:paired"], ["own_lab:paired", "--group-size 2", "got 1"]),
        (["--checkpoint", "nothing.safetensors"], ["nothing.safetensors"]),
        (["--checkpoint", "own.safetensors"], ["names the environment own_saved:walk", "does not ship", "--env"]),
        (["--checkpoint", "own.safetensors", "--env", "maze"], ["the observation_space {", "environment maze has"]),
        (["--problem", "maze", "--env", "maze"], ["--env maze", "used together with --checkpoint"]),
    ],
)
def test_bad_input_is_refused(own_module, tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "own_syntax.py").write_text("def f(:")
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


def line(mean, rounding, *, claim=""):
    """An estimate of ∇ρ = (1, 0) with tr Var 1, whose exact mean is given."""
    draws = (np.random.default_rng(0).normal(size=(64, 2)) * 0.5**0.5 + [1.0, 0.0]).astype(np.float32)
    statistics = diagnostics.gradient_statistics(draws, np.float32([1.0, 0.0]))
    return report.Line(
        entry=registry.Entry(name="", label="", build=None, source="", bias=claim),
        exact=exact_part.Exact(mean=np.array(mean), variance=1.0, rounding=rounding),
        found=laboratory.Measured(statistics=statistics, cosine=None, estimates=draws),
        target=np.array([1.0, 0.0]),
        reference_errors=np.zeros(2),
        ratio=None,
        gain=None,
    )


def test_what_float32_cannot_tell_from_zero_is_no_bias():
    """2e-8 of the gradient, above a threshold of 1e-9, was called biased: it is a constant in float32."""
    assert line([1.0, 1e-15], 1e-14).verdict() == "unbiased" and line([1.0, 1e-15], 1e-14).bias_cell() == "0"
    assert line([1.0, 2e-8], 1e-14).verdict() == "unbiased but for float32's rounding, 2e-08"
    assert line([1.0, 2e-8], 1e-14).bias_cell() == "2e-08"
    assert line([1.0, 1e-5], 1e-14).verdict().startswith("DIFFERS")
    assert line([1.0, 1e-5], 1e-14, claim="so it is").verdict() == "biased: so it is"
    # Where the arithmetic itself leaves more, as with returns of 10¹², it is no bias either.
    assert line([1.0, 1e-5], 1e-4).verdict() == "unbiased"


@pytest.mark.parametrize("constant", [0.0, 1e6])
def test_the_rounding_that_is_allowed_is_that_of_the_returns(monkeypatch, constant):
    """With 10⁶ on all rewards and a baseline beside them the estimates stay small, and their roundings do not."""
    arms = np.array([1.0, 0.7, 0.0]) + constant
    monkeypatch.setitem(problems.TABULAR, "bandit", lambda: exact.make_bandit(arms))
    problem = problems.make_problem("bandit", "random", 0, (4,), 0)
    entries = {name: registry.ENTRIES[name] for name in ("reinforce_optimal_exact", "rloo")}
    found = exact_part.exact_moments(problem, entries, dict.fromkeys(entries, ()), 2, 1000)
    for name, one in found.items():
        error = np.linalg.norm(one.mean - problem.truth.gradient)
        assert error <= one.rounding < 1e-13 * (1.0 + 10.0 * constant), name
        assert one.consistent
