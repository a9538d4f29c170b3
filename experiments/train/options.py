"""The command line of `experiments.train`: its options, what they allow, and their values after presets."""

import dataclasses
import pathlib
from typing import Annotated, Literal

import numpy as np
import tyro

from experiments.harness import runner
from experiments.train import build as build_options
from experiments.train import former, presets, resume
from pgjax import registry

DEFAULT_ENV = "CartPole-v1"
# The options that belong to the network that a preset names.
SHAPE = ("hidden", "activation", "network_options")
LEAST, LARGEST = (float(x) for x in (np.finfo(np.float32).tiny, np.finfo(np.float32).max))
RATE = f"in [{LEAST:.2g}, {LARGEST:.2g}], the numbers of float32"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options; None takes the environment's preset. Every run prints all values that it uses, presets' included, at its
    start and keeps them in options.json; experiments/train/presets.py lists the presets with their reasons."""

    env: str | None = None
    """One of pgjax.environments.available() (an unknown name lists them), CartPole-v1 if left open; or
    package.module:name for an environment of one's own: the module is imported and its code runs. With --render, the
    environment of a file that names none that pgjax ships."""
    estimator: str | None = None
    """What is trained with: a name that `python -m experiments.estimators` lists, or module:function for an estimator
    of your own: a function of the policy that returns an Estimator, or of nothing that returns a Baseline, which is
    subtracted from G_t; the module is imported and its code runs. A preset's conventions (discount, lambda, n, decay,
    clip, damping, entropy-coef, over-time, standardise) belong to the preset's estimator; another one has its own."""
    epochs: int | None = None
    """Steps on each batch; above 1 with an estimator that weighs by the ratio to the policy that acted: ppo, ppo_gae,
    off_policy_ratio, importance_per_decision, importance_trajectory, or your own."""
    num_seeds: int | None = None
    """Runs with different seeds, all in one program."""
    num_updates: int | None = None
    """Updates of each run in all; with --resume, those already done included."""
    num_episodes: int | None = None
    """B: episodes, or lanes, of an update."""
    num_steps: int | None = None
    """Steps of a continuing window; complete episodes if the preset leaves it open."""
    group_size: int | None = None
    """k, consecutive episodes that share a start, as the answers to one prompt do. Estimators that compare episodes
    (rloo, grpo, dr_grpo) then compare those of a group; with 1 every episode has a start of its own, and they compare
    the whole batch."""
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
    """γ of the estimator's returns; without a factor γᵗ on step t, which is biased for γ < 1."""
    lambda_: Annotated[float | None, tyro.conf.arg(name="lambda")] = None
    """λ of gae and ppo_gae."""
    n: int | None = None
    """Rewards of the n-step return before v(X_{t+n})."""
    decay: float | None = None
    """β of the running averages: of ρ̂, b_t and b*, and of the scale of a fitted value."""
    clip: float | None = None
    """ε of PPO's clipped surrogate."""
    damping: float | None = None
    """δ in the natural gradient (F + δI)⁻¹ ∇ρ."""
    entropy_coef: float | None = None
    """Weight of the entropy bonus, which changes the objective."""
    over_time: Literal["sum", "mean", "episode_mean"] | None = None
    """Sum over an episode's steps (unbiased), mean over the batch's live steps, or mean over each episode's own."""
    standardise: Literal["none", "population", "group_population", "group_sample"] | None = None
    """Whether weights are standardised, which is biased: over live steps, or over episodes row by row (GRPO)."""
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
        if self.estimator is not None and ":" not in self.estimator:
            build_options.find(self.estimator)
        counts = ("num_seeds", "num_updates", "num_episodes", "num_steps", "group_size", "epochs")
        for name in (*counts, "value_steps", "schedule_updates", "n"):
            value = getattr(self, name)
            runner.require(value is None or value >= 1, option(name), value, "at least 1")
        for name in ("discount", "lambda_", "decay", "lr_left"):
            value = getattr(self, name)
            runner.require(value is None or 0 <= value <= 1, option(name), value, "in [0, 1]")
        for name in ("value_lr", "max_grad_norm"):
            value = getattr(self, name)
            runner.require(value is None or is_rate(value), option(name), value, RATE)
        for name in ("clip", "damping", "entropy_coef"):
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
    """Every option with its value: the command line's, else that of the resumed run, else the preset's or, for the
    conventions of an estimator, its own (None where it has no such convention).

    Raises:
        ValueError: for an unknown estimator, a convention that it does not have, and what a resumed run does not allow.
    """
    given = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    if config.resume is not None:
        return _resumed(config, given)
    env = config.env or DEFAULT_ENV
    preset = presets.preset(env)
    if preset["network"] not in ("auto", given.get("network", preset["network"])):
        preset |= {name: presets.DEFAULT[name] for name in SHAPE}
    entry = build_options.find(given.get("estimator", preset["estimator"]))
    if entry.name != preset["estimator"]:
        preset |= dict.fromkeys(registry.SETTINGS)
    for name in registry.SETTINGS:
        if name in given and (refusal := entry.refusal(name, given[name])):
            raise ValueError(f"{option(name)} {given[name]}: {refusal}")
    options = preset | {"env": env} | given
    options |= vars(entry.resolve(build_options.settings(options)))
    return {"schedule_updates": options["num_updates"]} | options


def _resumed(config: Config, given: dict) -> dict:
    fixed = presets.DEFAULT | former.translated(resume.options(config.resume))
    free = ("num_updates", "eval_episodes", "gif", "resume")
    defaults = dataclasses.asdict(Config())
    for name, value in given.items():
        if name not in free and value != defaults[name] and value != fixed.get(name):
            raise ValueError(f"{option(name)} {value}: a resumed run keeps its options, here {fixed.get(name)}")
    return fixed | {name: given[name] for name in free if name in given and given[name] != defaults[name]}
