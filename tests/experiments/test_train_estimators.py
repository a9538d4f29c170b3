"""What `experiments.train` makes of the name of an estimator and of its conventions, today's and former."""

import dataclasses
import json
import sys
import textwrap

import jax
import numpy as np
import pytest

from experiments import train
from experiments.harness import runner
from experiments.shared.training import build, presets
from experiments.train import former
from pgjax import evaluation, registry


def traced_greedy_plays(monkeypatch, **options):
    """Traces a trainer's start and its update, uncompiled; how often greedy episodes were among it."""
    plays = []
    play = evaluation.with_greedy_returns
    monkeypatch.setattr(evaluation, "with_greedy_returns", lambda *args, **how: plays.append(1) or play(*args, **how))
    options = train.resolve(dataclasses.replace(train.TINY, **options))
    trainer = build.make_build(options, *build.make_policy(options))(0.1)
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    jax.eval_shape(trainer.update, state)
    return len(plays)


def test_greedy_episodes_are_played_only_for_a_baseline_that_is_used(monkeypatch):
    assert traced_greedy_plays(monkeypatch, estimator="reinforce_greedy") > 0
    assert traced_greedy_plays(monkeypatch, estimator="per_parameter") == 0


@pytest.mark.parametrize("name", [name for name, entry in registry.ENTRIES.items() if entry.behaviour])
def test_more_epochs_are_allowed_where_there_is_a_ratio(monkeypatch, name):
    assert traced_greedy_plays(monkeypatch, epochs=2, estimator=name) == 0


def test_conventions_are_the_command_lines_the_presets_or_the_estimators():
    options = train.resolve(train.Config(env="Pendulum-v1", lambda_=0.8))
    assert (options["estimator"], options["lambda_"], options["discount"]) == ("gae", 0.8, 0.95)
    # The preset chose its conventions for its own estimator.
    options = train.resolve(train.Config(env="Pendulum-v1", estimator="gpomdp_discounted", entropy_coef=0.1))
    assert (options["discount"], options["entropy_coef"], options["over_time"]) == (0.9, 0.1, "sum")
    assert options["lambda_"] is None and options["max_grad_norm"] == 0.5


def test_a_rate_of_the_natural_gradient_is_left_to_natural_estimators():
    rate = lambda **options: train.resolve(train.Config(env="ads", **options))["lr"]
    assert rate() == rate(estimator="natural_value") == (60.0,)
    assert rate(estimator="gae") == (0.01,) and rate(estimator="gae", lr=(0.1,)) == (0.1,)


FORMER = {
    **{"clip": 0.2, "natural": None, "discount": 1.0, "lambda_": 0.95, "decay": 0.9, "entropy_coef": 0.0},
    **{"over_time": "sum", "standardise": "none", "env": "CartPole-v1", "loss": "score_function"},
}


@pytest.mark.parametrize(
    ("former_options", "wanted"),
    [
        (("reward_to_go", "value", {"entropy_coef": 0.5}), ("gpomdp_value", {"entropy_coef": 0.5, "lambda_": None})),
        (("lambda_return", "value", {"lambda_": 0.9}), ("gae", {"lambda_": 0.9, "clip": None})),
        (("reward_to_go", "value", {"loss": "clipped"}), ("ppo", {"clip": 0.2})),
        (("reward_to_go", "value", {"natural": 0.1}), ("natural_value", {"damping": 0.1})),
        (("total_return", "leave_one_out", {"env": "recall"}), ("rloo", {"decay": None})),
        (("total_return", "none", {"standardise": "group_sample"}), ("grpo", {"standardise": "group_sample"})),
        (("per_parameter", "value", {}), ("per_parameter", {"decay": 0.9, "over_time": None})),
        # Compared with the episodes that still ran at a step: another estimator than RLOO where lengths differ.
        (("total_return", "leave_one_out", {}), None),
        (("total_return", "value", {}), None),
        (("total_return", "none", {"natural": 0.1}), None),
    ],
    ids=str,
)
def test_a_run_with_the_former_names_goes_on_or_is_refused(former_options, wanted):
    returns, baseline, others = former_options
    options = FORMER | {"returns": returns, "baseline": baseline} | others
    if wanted is None:
        with pytest.raises(ValueError, match=f"returns={returns}, baseline={baseline}.*no registered estimator"):
            former.translated(options)
        return
    name, settings = wanted
    found = former.translated(options)
    assert found["estimator"] == name and found.items() >= settings.items()
    assert not {"returns", "baseline", "loss", "natural"} & found.keys()
    assert former.translated(found) == found


OWN_ESTIMATOR = """
    from pgjax import baselines, estimators

    def half(policy):
        return estimators.make_estimator(policy, baseline=baselines.batch_mean())

    def mean():
        return baselines.moving_average(0.5)

    def wrong_shape():
        return baselines.stateless(lambda trajectory: trajectory.rewards[0])
"""


def test_ones_own_estimator_trains_and_a_bad_one_is_refused(tmp_path, monkeypatch):
    (tmp_path / "own_estimator.py").write_text(textwrap.dedent(OWN_ESTIMATOR))
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("half", "mean"):
        assert traced_greedy_plays(monkeypatch, estimator=f"own_estimator:{name}") == 0
    config = dataclasses.replace(train.TINY, estimator="own_estimator:wrong_shape")
    with pytest.raises(runner.UsageError, match="wrong_shape: its predict must return b"):
        runner.execute("train", config, train.run, output_dir=tmp_path)
    assert not (tmp_path / "train").exists()
    sys.modules.pop("own_estimator")


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {"estimator": "all_action"},
        {"estimator": "action_dependent"},
        {"estimator": "trajectory_wise"},
        {"estimator": "per_parameter"},
        {"estimator": "importance_per_decision", "epochs": 2},
        {"estimator": "ppo", "epochs": 3},
        {"estimator": "ppo_gae", "epochs": 3},
        {"estimator": "off_policy_ratio", "epochs": 2, "over_time": "episode_mean"},
        {"estimator": "grpo"},
        {"estimator": "n_step", "n": 20},
        {"estimator": "reinforce_optimal"},
        {"estimator": "reinforce_optimal_leave_one_out"},
        {"estimator": "gpomdp_optimal_time"},
        {"estimator": "reinforce_greedy"},
        {"estimator": "natural_value", "damping": 0.1},
        {"estimator": "natural_gae", "damping": 0.1, "num_steps": 32},
    ],
    ids=str,
)
def test_every_estimator_trains(tmp_path, options):
    """CartPole pays 22 to a policy that has learned nothing; each of them doubles that and more."""
    config = train.Config(env="CartPole-v1", num_seeds=2, num_updates=25, num_episodes=32, lr=(0.02,), hidden=(16,))
    config = dataclasses.replace(config, gif=False, **options)
    directory = runner.execute("train", config, train.run, output_dir=tmp_path)
    rows = json.loads((directory / "summary.json").read_text())["rows"]
    assert rows[0]["ours"] > 50.0


@pytest.mark.parametrize("options", [{}, {"estimator": "grpo"}], ids=str)
def test_a_group_shares_a_start_and_is_compared(options):
    """With one prompt to a group of 2, the weights of each group add up to zero: so does the sum over the batch."""
    options = train.resolve(train.Config(env="reverse", group_size=2, num_episodes=8, **options))
    environment, policy = build.make_policy(options)
    estimator = build.make_estimator(options, environment, policy)
    assert estimator.needs.group_size == 2
    assert build.make_build(options, environment, policy)(0.1).group_size == 2


@pytest.mark.parametrize("env", ["spell_backward", "addition"])
def test_a_run_is_evaluated_on_prompts_that_its_training_never_draws(env):
    options = train.resolve(train.Config(env=env, hidden=(4,)))
    environment, _ = build.make_policy(options)
    prompts_of = lambda environment: {tuple(row) for row in np.asarray(environment.params.prompts)}
    asked = prompts_of(build.evaluation_environment(options, environment))
    assert asked and not asked & prompts_of(environment)


def test_every_preset_is_complete_and_every_name_in_it_an_option():
    for name in [*presets.PRESETS, "Asterix-MinAtar", "anything"]:
        entry = registry.find(presets.preset(name)["estimator"])
        entry.resolve(build.settings(presets.preset(name)))  # refuses a convention that its estimator does not have
        assert presets.preset(name).keys() <= train.Config.__dataclass_fields__.keys()
        assert presets.preset(name).keys() == presets.DEFAULT.keys()


def test_breakout_has_a_preset_of_its_own_and_the_other_games_share_one():
    own, shared = presets.preset("gymnax:Breakout-MinAtar"), presets.preset("Asterix-MinAtar")
    assert own == presets.preset("Breakout-MinAtar") != shared == presets.preset("Freeway-MinAtar")
    assert (own["estimator"], own["network"]) == ("ppo_gae", "mlp") and own["epochs"] > 1
    assert (shared["estimator"], shared["network"], shared["epochs"]) == ("gae", "auto", 1)


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        ([], {"lr": "0.01, preset of CartPole-v1", "discount": "1.0, setting of gpomdp_value", "env": "CartPole-v1"}),
        (
            ["--env", "Pendulum-v1"],
            {"estimator": "gae, preset of Pendulum-v1", "lambda_": "0.9, preset of Pendulum-v1"},
        ),
        (
            ["--env=maze", "--estimator", "gpomdp_value"],
            {"discount": "1.0, setting of gpomdp_value", "clip": "none, gpomdp_value has no such setting"},
        ),
        (["--env", "own:make"], {"num_updates": "60, common preset", "num_steps": "complete episodes, common preset"}),
        (["--estimator", "nope", "--help"], {"estimator": "gpomdp_value, preset of CartPole-v1"}),
        (["--help", "--env"], {"env": "CartPole-v1"}),
        (
            ["--env", "cooling"],
            {"num_updates": "200, preset of cooling, with a budget of 60 s of CPU time for each seed"},
        ),
    ],
    ids=str,
)
def test_the_help_shows_what_the_preset_and_the_estimator_decide(arguments, wanted):
    words = train.Config().default_words(arguments)
    assert wanted.items() <= words.items()
    unsaid = {name for name, value in dataclasses.asdict(train.Config()).items() if value is None} - words.keys()
    assert unsaid - {"env"} == {"render", "resume", "start_from"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hidden": (2**31,)}, "--hidden 2147483648: must be at least 1 and at most 65536"),
        ({"num_seeds": 2**31}, "--num-seeds 2147483648: must be at least 1 and at most 2³⁰"),
        ({"lr": (1e300,)}, "--lr 1e.300: must be in .1.2e-38, 3.4e.38., the range of float32"),
    ],
)
def test_sizes_and_rates_that_no_machine_has_are_refused(options, message):
    with pytest.raises(runner.UsageError, match=message):
        train.Config(**options).validate()


def test_none_switches_an_option_of_the_preset_off(capsys):
    words = ["--env", "ads", "--num-seeds", "1", "--num-episodes", "2", "--dry-run", "--estimator", "gpomdp"]
    with pytest.raises(SystemExit, match="2"):
        runner.start(train, arguments=words, cache=False)
    assert "--num-steps 32: must be None with --estimator gpomdp" in capsys.readouterr().err
    runner.start(train, arguments=[*words, "--num-steps", "None", "--max-grad-norm", "None"], cache=False)
    assert {"--num-steps None", "--max-grad-norm None"} <= set(capsys.readouterr().out.splitlines())
