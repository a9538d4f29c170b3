"""The command line of `experiments.train`: its options, the values they allow, and the values that presets give."""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from experiments.harness import metric_log, runner
from experiments.shared.training import build as build_options
from experiments.shared.training import options as training_options
from experiments.shared.training import presets, sizing, start
from experiments.shared.training.options import DEFAULT_ENV, EnvironmentOption, TrainingOptions, option, shown
from experiments.train import former, resume
from pgjax import registry
from pgjax.saving import identity


@dataclasses.dataclass(frozen=True)
class _Estimator(EnvironmentOption):
    """The options that --help shows first."""

    estimator: str | None = None
    """The estimator that trains the policy: a name that `python -m experiments.estimators` lists, or module:function
    for your own. That module is imported and its code runs. The function takes the policy and returns an Estimator, or
    takes nothing and returns a Baseline, which is subtracted from G_t."""
    lr: tuple[float, ...] | None = None
    """The learning rate η of Adam. Several numbers make a sweep: all of them train side by side in one program."""


@dataclasses.dataclass(frozen=True)
class Config(TrainingOptions, _Estimator):
    """An option that you leave out takes its value from the preset of the environment, or from the estimator: --help
    shows it for the --env and the --estimator beside it. A preset's values of the estimator options apply to the
    preset's estimator only. Reasons are in experiments/shared/training/presets.py. Commands and results stand at the
    end of this help."""

    meter: int | None = None
    """N of the gradient meter, which measures the noise of the gradient that trains at every Nth update: its variance,
    signal-to-noise ratio and noise scale, and the cosine between two halves of the batch. It costs one more gradient in
    N updates and changes no number of the training. None measures nothing."""
    deterministic: bool = True
    """Whether devices that share an update add up its sums in a fixed order, so that the result does not depend on
    their number. Only 2, 4 or 8 devices can do so. With --no-deterministic any number can share an update and they
    exchange less, and the last bits of the result depend on their number."""
    references: bool = True
    """Whether random actions, and the reference controllers that the environment has, are evaluated on the same starts
    and printed beside the trained policies."""
    gif: bool = True
    """Whether an episode of the best run is drawn as an animation, if the environment can be drawn."""
    start_from: pathlib.Path | None = None
    """A saved policy from which every run starts, such as a copy of an expert: its file, or the folder of the run that
    saved it. The file also decides the environment, if --env is left out, and the options of the network. The value
    network starts anew."""
    render: pathlib.Path | None = None
    """A saved policy to evaluate and draw instead of training: its file, or the folder of the run that saved it. --env
    is then needed only if the policy belongs to an environment of your own."""
    resume: pathlib.Path | None = None
    """The folder of an earlier run to go on with. Its options apply. The path of a run NAME also finds the folders
    NAME-incomplete and .NAME.partial, which an interrupted run leaves. --num-updates includes the updates that are
    already done, and --schedule-updates stays as it was."""
    allow: tuple[str, ...] = ()
    """With --resume: the options that may differ from those of the saved run, such as lr, after a divergence. versions
    allows other versions of jax, jaxlib, numpy, pgjax and Python, numerics other settings of JAX that change numbers,
    and code another text of your own module."""
    checkpoint_every: float = 60.0
    """The seconds between two checkpoints, in [0, 86400]. The first follows within ten seconds, and 0 saves after each
    chunk of updates, about once a second. The newest two are kept."""
    log_to: tuple[metric_log.Destination, ...] = ()
    """Where the lines of metrics.jsonl are copied to: tensorboard or wandb or both. Each needs its package,
    pip install -e ".[tensorboard]" or ".[wandb]". W&B works offline unless WANDB_MODE or WANDB_API_KEY is set."""

    BATCH: ClassVar[str] = "num_episodes"
    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "": (
            *("env", "estimator", "lr", "num_updates", "num_episodes", "num_seeds", "seed"),
            *("output_dir", "run_name", "tiny"),
        ),
        **training_options.GROUPS,
        "evaluation": ("eval_episodes", "references", "gif", "meter", "figures", "figure_width", "log_to"),
        "resuming": ("start_from", "render", "resume", "allow", "checkpoint_every"),
    }
    HINTS: ClassVar[dict[str, str]] = dict.fromkeys(
        ("estimator", "estimators"),
        "This command trains one estimator, --estimator NAME; to compare several, type "
        "python -m experiments.sweep --estimators NAME NAME",
    )

    def inputs(self) -> dict[str, Callable]:
        """Field → a function that finds its files, which process 0 sends to the others (--distributed)."""
        of = {"resume": resume.carried, "start_from": start.carried}
        return {name: functools.partial(find, getattr(self, name)) for name, find in of.items() if getattr(self, name)}

    def resolved(self) -> dict:
        """Every option with its value, for --dry-run."""
        return training_options.given(self, unset=True) if self.render is not None else resolve(self)

    def memory(self) -> dict[str, float]:
        """The bytes of each part of the run; a policy that is only evaluated has no estimate."""
        return {} if self.render is not None else sizing.memory(resolve(self))

    def require_resumable(self) -> None:
        """Refuse a run that --resume cannot go on with, as the resumed run itself would."""
        options = resolve(self)
        resume.check(options, build_options.own_code(options))

    def default_words(self, arguments: Sequence[str]) -> dict[str, str]:
        """What --help shows for the options that the preset or the estimator decides: see `preset_words`."""
        return preset_words(self, arguments)

    def only_resumes(self) -> bool:
        """Whether the options ask for no more than the run that is resumed."""
        default = Config(resume=self.resume)
        beside = ("checkpoint_every", "log_to", "allow", "typed")
        return dataclasses.replace(self, **{name: getattr(default, name) for name in beside}) == default

    def validate(self) -> None:
        one = self.estimator is None or "," not in self.estimator
        runner.require(one, "--estimator", self.estimator, f"one name. {self.HINTS['estimator']}")
        if self.estimator is not None and ":" not in self.estimator:
            build_options.find(self.estimator)
        self.validate_training()
        runner.require_counts(self, "meter")
        runner.require(self.lr is None or len(self.lr) >= 1, "--lr", self.lr, "at least one number")
        for value in self.lr or ():
            training_options.require_number("lr", value)
        every = self.checkpoint_every
        runner.require(0 <= every <= 86_400, "--checkpoint-every", every, "in [0, 86400] seconds")
        metric_log.require_installed(self.log_to)
        known = {option(name)[2:] for name in presets.DEFAULT} | {"seed", "env", *identity.GROUPS[1:]}
        for name in self.allow:
            allowed = f"used with --resume, and one of {', '.join(sorted(known))}"
            runner.require(self.resume is not None and name in known, "--allow", name, allowed)
        runner.require(not (self.render and self.resume), "--render", self.render, "used without --resume")
        there = self.render is None or self.render.exists()
        runner.require(there, "--render", self.render, "a policy's file, or the folder of a run; there is none")
        beside = self.start_from and (self.render or self.resume)
        runner.require(not beside, "--start-from", self.start_from, "used without --render and --resume")


TINY = Config(
    env="corridor", num_seeds=2, num_updates=4, num_episodes=4, eval_episodes=4, lr=(0.01, 0.1), references=False
)


def resolve(config: Config) -> dict:
    """Every option with its value.

    The command line comes first, then the run that is resumed, then a policy to start from, then the preset.

    Raises:
        ValueError: the estimator is unknown or does not have a setting that was given, or a resumed run does not allow
            an option.
    """
    given = training_options.given(config)
    if config.resume is not None:
        return _resumed(config, given)
    of_file = {} if config.start_from is None else start.options(config.start_from, given, presets.DEFAULT)
    return training_options.resolve(given, of_file)


def preset_words(config: Config, arguments: Sequence[str]) -> dict[str, str]:
    """Option → its value if it is left out, and what decides it: `0.01, preset of CartPole-v1`.

    The environment and the estimator are those of `arguments`, the words of the command line, else those of `config`.
    An estimator that is unknown is replaced by the preset's.
    """
    read = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    read.add_argument("--env", default=config.env)
    read.add_argument("--estimator", default=config.estimator)
    try:
        asked, _ = read.parse_known_args(list(arguments))
    except argparse.ArgumentError:  # a name is missing; the real parser says so
        asked = argparse.Namespace(env=config.env, estimator=config.estimator)
    environment, of_preset = asked.env or DEFAULT_ENV, presets.preset(asked.env or DEFAULT_ENV)
    try:
        options = resolve(Config(env=environment, estimator=asked.estimator))
    except ValueError:
        options = resolve(Config(env=environment))
    estimator = options["estimator"]
    words = {"schedule_updates": "--num-updates"} | ({} if asked.env else {"env": DEFAULT_ENV})
    for name, value in options.items():
        if name in ("env", "seed", "gif", "references", "schedule_updates"):
            continue
        if name in registry.SETTINGS and value is None:
            words[name] = f"none, {estimator} has no such setting"
        elif name in registry.SETTINGS and (of_preset[name] is None or estimator != of_preset["estimator"]):
            words[name] = f"{shown(value)}, setting of {estimator}"
        else:
            words[name] = training_options.word(name, value, environment)
    if (budget := presets.BUDGETS.get(environment)) is not None:
        words["num_updates"] += f", with a budget of {budget} s of CPU time for each seed"
    return words


def _resumed(config: Config, given: dict) -> dict:
    fixed = presets.DEFAULT | former.translated(resume.options(config.resume))
    free = {*resume.FREE, *resume.allowed(config.allow)}
    defaults = dataclasses.asdict(Config())
    anew = {name: value for name, value in given.items() if name in config.typed or value != defaults[name]}
    for name, value in anew.items():
        if name not in free and value != fixed.get(name):
            raise ValueError(
                f"{option(name)} {_typed(value)}: a resumed run keeps its own value, {_typed(fixed.get(name))}; "
                f"--allow {option(name)[2:]} lets it change"
            )
    # A run that was stopped before its first checkpoint may still need what it was allowed.
    allow = tuple(dict.fromkeys((*fixed.get("allow", ()), *config.allow)))
    return fixed | {name: value for name, value in anew.items() if name in free} | {"allow": allow}


def _typed(value: Any) -> str:
    """A value as it is typed on the command line."""
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
