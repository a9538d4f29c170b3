"""The command line of `experiments.sweep`: its options, and from them the options of each estimator's training."""

import argparse
import dataclasses
import math
from collections.abc import Sequence
from typing import Annotated, Any, ClassVar

import tyro

from experiments.harness import runner
from experiments.shared.training import build, options
from experiments.shared.training.options import DEFAULT_ENV, EnvironmentOption, TrainingOptions
from experiments.sweep import grid, sizing
from pgjax import registry

# The return at which Gymnasium calls an environment solved, as its registry has it (reward_threshold).
SOLVED = {
    "CartPole-v1": 475.0,
    "Acrobot-v1": -100.0,
    "MountainCar-v0": -110.0,
    "MountainCarContinuous-v0": 90.0,
    "gymnasium:LunarLander-v3": 200.0,
}
VARIED = ("lr=0.003,0.01,0.03,0.1",)


@dataclasses.dataclass(frozen=True)
class _What(EnvironmentOption):
    """The options that --help shows first."""

    estimators: tuple[str, ...] = ("reinforce", "gpomdp", "rloo", "gpomdp_value", "gae")
    """The estimators that are compared: names that `python -m experiments.estimators` lists, or module:function for an
    estimator of your own, as in experiments.train. That module is imported and its code runs."""
    vary: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """An option that varies, with its values: NAME=VALUE,VALUE,.... Give --vary several times to get a grid of all
    combinations. lr, lr-left, max-grad-norm, value-lr, discount, lambda, decay, clip, damping and entropy-coef can
    vary, each with estimators that have it. Without this option the learning rate varies: lr=0.003,0.01,0.03,0.1."""
    lr: float | None = None
    """The learning rate η of Adam, if it does not vary. Without --vary all runs have this rate, and only estimators
    and seeds differ."""


@dataclasses.dataclass(frozen=True)
class Config(TrainingOptions, _What):
    """An option that you leave out takes its value from the preset of the environment (see experiments.train), or from
    each estimator. options.json of the run holds all values. Commands and results stand at the end of this help."""

    num_seeds: int = 16
    """The number of runs of each setting of each estimator. They differ in their seeds."""
    threshold: float | None = None
    """The mean return of the latest 100 training episodes that counts as solved. The table then says after how many
    updates a run reaches it."""
    sequential: bool = False
    """Whether the estimators are trained one after another, each in a program of its own. This needs less memory. It is
    also done where the estimators do not fit into the memory together, or cannot share a program."""
    compare: bool = False
    """Whether everything is trained once more in the other way, in one program or in one for each estimator, to report
    the time of both ways and whether all parameters are equal. Use it with --no-cache, so that both ways compile."""

    BATCH: ClassVar[str] = "num_episodes"
    GROUPS: ClassVar[dict[str, tuple[str, ...]]] = {
        "": (
            *("env", "estimators", "vary", "lr", "num_updates", "num_episodes", "num_seeds", "seed", "threshold"),
            *("output_dir", "run_name", "tiny"),
        ),
        **options.GROUPS,
        "evaluation": ("eval_episodes", "figures", "figure_width", "sequential", "compare"),
    }
    HINTS: ClassVar[dict[str, str]] = {
        "lr": "To vary the learning rate, type --vary lr=0.003,0.01",
        "estimator": "This command compares estimators: --estimators NAME NAME",
    }

    def grid(self) -> grid.Grid:
        """What varies."""
        return grid.parsed(self.varied(), self.num_seeds)

    def varied(self) -> tuple[str, ...]:
        """The words of --vary. Without them the learning rate varies, or has the one value of --lr."""
        return self.vary or (VARIED if self.lr is None else (f"lr={self.lr!r}",))

    def options_of(self) -> dict[str, dict[str, Any]]:
        """Estimator → every option of its training with its value.

        Raises:
            ValueError: an estimator is unknown or does not have a setting that was given.
        """
        own = ("estimators", "vary", "threshold", "sequential", "compare")
        given = {name: value for name, value in options.given(self).items() if name not in own}
        varied, found = self.grid(), {}
        for name in self.estimators:
            grid.require_fitting(varied, build.find(name, "--estimators"))
            made = options.resolve(given | {"estimator": name})
            rates = made["lr"]
            found[name] = made | {"lr": rates[0] if isinstance(rates, tuple) else rates}
        return found

    def solved(self) -> float | None:
        """The return that counts as solved; None if there is none."""
        name = (self.env or DEFAULT_ENV).removeprefix("gymnax:")
        return SOLVED.get(name) if self.threshold is None else self.threshold

    def resolved(self) -> dict[str, Any]:
        """Every option with its value, for --dry-run. Options in which the estimators differ show all their values."""
        of = list(self.options_of().values())
        words = {name: [made[name] for made in of] for name in of[0] if name not in ("estimator", "lr")}
        same = lambda values: all(value == values[0] for value in values)
        shown = {name: values[0] if same(values) else tuple(values) for name, values in words.items()}
        own = {"estimators": self.estimators, "vary": self.varied(), "threshold": self.solved()}
        return own | shown | {"sequential": self.sequential, "compare": self.compare}

    def memory(self) -> dict[str, float]:
        """The bytes of each part of the sweep, in the way in which it will be trained."""
        return sizing.plan(self).parts

    def default_words(self, arguments: Sequence[str]) -> dict[str, str]:
        """What --help shows for the options that the preset or the estimators decide."""
        read = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
        read.add_argument("--env", default=self.env)
        try:
            env = read.parse_known_args(list(arguments))[0].env or DEFAULT_ENV
        except argparse.ArgumentError:  # the name is missing; the real parser says so
            env = DEFAULT_ENV
        words = {name: options.word(name, value, env) for name, value in options.resolve({"env": env}).items()}
        words |= dict.fromkeys(registry.SETTINGS, "that of each estimator")
        solved = dataclasses.replace(self, env=env).solved()
        words |= {"schedule_updates": "--num-updates", "threshold": f"{solved:g}" if solved else "none"}
        return words | ({"env": DEFAULT_ENV} if self.env is None else {})

    def validate(self) -> None:
        runner.require(len(self.estimators) >= 1, "--estimators", self.estimators, "at least one name")
        for name in self.estimators:
            runner.require(self.estimators.count(name) == 1, "--estimators", name, "named once")
            if ":" not in name:
                build.find(name, "--estimators")
        finite = self.threshold is None or math.isfinite(self.threshold)
        runner.require(finite, "--threshold", self.threshold, "finite")
        self.validate_training()
        if self.lr is not None:
            options.require_number("lr", self.lr)
        for name in self.grid().values:
            if self.vary and getattr(self, name) is not None:
                raise runner.UsageError(
                    f"{options.option(name)} {getattr(self, name)}: must be left out with --vary {grid.word(name)}"
                )


TINY = Config(
    env="corridor",
    estimators=("reinforce", "rloo"),
    num_seeds=2,
    num_updates=3,
    num_episodes=4,
    eval_episodes=4,
)
