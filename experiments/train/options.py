"""The command line of `experiments.train`: its options, what they allow, and their values after presets."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.harness import runner
from experiments.train import build as build_options
from experiments.train import presets, resume

DEFAULT_ENV = "CartPole-v1"
# The options that belong to the network that a preset names.
SHAPE = ("hidden", "activation", "network_options")
LEAST, LARGEST = (float(x) for x in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
RATE = f"in [{LEAST:.2g}, {LARGEST:.2g}], the numbers of float32"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options; None takes the environment's preset. Every run prints all values that it uses, presets' included, at its
    start and keeps them in options.json; experiments/presets.py lists the presets with their reasons."""

    env: str | None = None
    """One of pgjax.environments.available() (an unknown name lists them), CartPole-v1 if left open; or
    package.module:name for an environment of one's own: the module is imported and its code runs. With --render, the
    environment of a file that names none that pgjax ships."""
    returns: Annotated[
        Literal[
            "total_return",
            "reward_to_go",
            "lambda_return",
            "all_action",
            "action_dependent",
            "trajectory_wise",
            "per_parameter",
            "importance_weighted",
        ]
        | None,
        tyro.conf.arg(name="estimator"),
    ] = None
    """What stands for the return (G_1, G_t, the λ-return of an actor-critic), or an estimator of another form."""
    baseline: (
        Literal[
            "none",
            "moving_average",
            "batch_mean",
            "leave_one_out",
            "time_dependent",
            "optimal_constant",
            "optimal_time",
            "greedy",
            "value",
        ]
        | None
    ) = None
    """What is subtracted from it; not for per_parameter and the forms of a critic, which learn their own."""
    loss: Literal["score_function", "importance_weighted", "clipped"] | None = None
    """The surrogate; the last two are for --epochs above 1 (clipped is PPO's)."""
    clip: float | None = None
    """ε of the clipped surrogate."""
    epochs: int | None = None
    """Steps on each batch; above 1 with a --loss that has a ratio, or with --estimator importance_weighted."""
    natural: float | None = None
    """Follow the natural gradient with this damping of the Fisher matrix, in plain steps instead of Adam's."""
    num_seeds: int | None = None
    """Runs with different seeds, all in one program."""
    num_updates: int | None = None
    """Updates of each run in all; with --resume, those already done included."""
    num_episodes: int | None = None
    """B: episodes, or lanes, of an update."""
    num_steps: int | None = None
    """Steps of a continuing window; complete episodes if the preset leaves it open."""
    group_size: int | None = None
    """k, consecutive episodes that share a start, as the answers to one prompt do. leave_one_out, batch_mean and
    --standardise group_… then compare the episodes of a group; with 1 every episode has a start of its own, and they
    compare the whole batch."""
    lr: tuple[float, ...] | None = None
    """Adam's η; several make a sweep, all in one program."""
    lr_left: float | None = None
    """The fraction of η that is left in the end, falling linearly."""
    schedule_updates: int | None = None
    """Updates over which η falls; num_updates if None. A resumed run keeps it."""
    value_lr: float | None = None
    """Adam's η of the value network."""
    value_steps: int | None = None
    """Gradient steps of the value network per update."""
    discount: float | None = None
    """γ."""
    lambda_: float | None = None
    """λ."""
    decay: float | None = None
    """β of the moving averages."""
    entropy_coef: float | None = None
    """Weight of the entropy bonus."""
    over_time: Literal["sum", "mean", "episode_mean"] | None = None
    """Sum over an episode's steps, mean over the batch's live steps, or mean over each episode's own."""
    standardise: Literal["none", "population", "group_population", "group_sample"] | None = None
    """Whether weights are standardised: over live steps, or over episodes row by row (GRPO)."""
    max_grad_norm: float | None = None
    """Clip the gradient's norm."""
    network: Literal["auto", "mlp", "conv", "gru", "transformer"] | None = None
    """The policy's network; gru and transformer remember the episode. auto is conv for images, else mlp. A value is a
    function of one observation: it has a network of the same kind, and mlp or conv where the policy remembers."""
    hidden: tuple[int, ...] | None = None
    """Widths of the dense layers; of a transformer's blocks, all alike."""
    activation: Literal["tanh", "relu", "silu", "gelu"] | None = None
    """Between the layers; the network's own if None."""
    network_options: tuple[str, ...] | None = None
    """More options of the network as KEY=VALUE with values in JSON, such as memory_size=32 of gru, heads=4 of
    transformer, channels=16 of conv."""
    distribution: (
        Literal["auto", "categorical", "multi_categorical", "plackett_luce", "gaussian", "squashed_gaussian"] | None
    ) = None
    """Of the actions; auto is the one that fits the action space (plackett_luce for slates)."""
    eval_episodes: int | None = None
    """Episodes of the evaluation of each run, on the same starts for all."""
    seed: int = 0
    """The first run's seed."""
    gif: bool = True
    """Draw an episode of the best run, where the environment can be drawn."""
    render: pathlib.Path | None = None
    """Evaluate and draw a saved policy instead of training: its file, or the folder of the run that saved it."""
    resume: pathlib.Path | None = None
    """Go on from this run's directory, with its options (NAME also finds NAME-incomplete and .NAME.partial)."""

    def validate(self) -> None:
        counts = ("num_seeds", "num_updates", "num_episodes", "num_steps", "group_size", "epochs")
        for name in (*counts, "value_steps", "schedule_updates"):
            value = getattr(self, name)
            runner.require(value is None or value >= 1, option(name), value, "at least 1")
        for name in ("discount", "lambda_", "decay", "lr_left"):
            value = getattr(self, name)
            runner.require(value is None or 0 <= value <= 1, option(name), value, "in [0, 1]")
        for name in ("value_lr", "max_grad_norm"):
            value = getattr(self, name)
            runner.require(value is None or is_rate(value), option(name), value, RATE)
        for name in ("clip", "natural", "entropy_coef"):
            value = getattr(self, name)
            fits = value is None or 0 <= value <= LARGEST
            runner.require(fits, option(name), value, f"in [0, {LARGEST:.2g}], the numbers of float32")
        runner.require(self.lr is None or len(self.lr) >= 1, "--lr", self.lr, "at least one number")
        for value in self.lr or ():
            runner.require(is_rate(value), "--lr", value, RATE)
        for value in self.hidden or ():
            runner.require(value >= 1, "--hidden", value, "at least 1")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        count = self.eval_episodes
        runner.require(count is None or count >= 2, "--eval-episodes", count, "at least 2")
        build_options.parsed_network_options(self.network_options or ())
        runner.require(not (self.render and self.resume), "--render", self.render, "used without --resume")


TINY = Config(env="corridor", num_seeds=2, num_updates=4, num_episodes=4, eval_episodes=4, lr=(0.01, 0.1))


def is_rate(value: float) -> bool:
    """Whether it is above 0 and finite as the float32 that it becomes."""
    return bool(LEAST <= value <= LARGEST)


def option(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def resolve(config: Config) -> dict:
    """Every option with its value: the command line's, else that of the resumed run, else the preset's.

    Raises:
        ValueError: for a baseline that is asked for and would not be used, and for what a resumed run does not allow.
    """
    options = _resolve(config)
    kind = options["returns"]
    # A preset's baseline stands for the estimators that take one, so only the command line's is refused.
    if config.baseline is not None and kind in build_options.WITHOUT_BASELINE:
        raise ValueError(
            f"--baseline {config.baseline}: must be left out with --estimator {kind}, which learns its own; allowed "
            f"with --estimator {', '.join(build_options.RETURNS)} or importance_weighted"
        )
    return options


def _resolve(config: Config) -> dict:
    given = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    if config.resume is None:
        env = config.env or DEFAULT_ENV
        preset = presets.preset(env)
        if preset["network"] not in ("auto", given.get("network", preset["network"])):
            preset |= {name: presets.DEFAULT[name] for name in SHAPE}
        options = preset | {"env": env} | given
        return {"schedule_updates": options["num_updates"]} | options
    fixed = presets.DEFAULT | resume.options(config.resume)
    free = ("num_updates", "eval_episodes", "gif", "resume")
    defaults = dataclasses.asdict(Config())
    for name, value in given.items():
        if name not in free and value != defaults[name] and value != fixed.get(name):
            raise ValueError(f"{option(name)} {value}: a resumed run keeps its options, here {fixed.get(name)}")
    return fixed | {name: given[name] for name in free if name in given and given[name] != defaults[name]}
