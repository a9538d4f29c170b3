"""The command line of `experiments.train`: its options, the values they allow, and the values that presets give."""

import argparse
import dataclasses
import functools
import pathlib
from collections.abc import Callable, Sequence
from typing import Annotated, Any, ClassVar, Literal

import tyro

from experiments.harness import metric_log, runner
from experiments.train import build as build_options
from experiments.train import former, presets, resume, sizing, start
from pgjax import registry
from pgjax.saving import identity

DEFAULT_ENV = "CartPole-v1"
# The options that describe the network of a preset, and that do not fit another network.
SHAPE = ("hidden", "activation", "network_options")


@dataclasses.dataclass(frozen=True)
class Config:
    """An option that you leave out takes its value from the preset of the environment, or from the estimator. The help
    shows these values for the --env and the --estimator that stand beside --help. Every run prints all values at its
    start and writes them to options.json. experiments/train/presets.py lists the presets with their reasons."""

    env: str | None = None
    """The environment: a name from pgjax.environments.available(), such as CartPole-v1 (an unknown name prints them
    all), a name of another package that is installed, such as gymnasium:LunarLander-v3, or package.module:name for an
    environment of your own. That module is imported and its code runs. With
    --render this option is needed only if the saved policy belongs to an environment of your own."""
    estimator: str | None = None
    """The estimator that trains the policy: a name that `python -m experiments.estimators` lists, or module:function
    for an estimator of your own. That module is imported and its code runs. The function takes the policy and returns
    an Estimator, or takes nothing and returns a Baseline, which is subtracted from G_t. The preset's values of
    --discount, --lambda, --n, --decay, --clip, --damping, --entropy-coef, --over-time and --standardise apply to the
    preset's estimator only; every other estimator has its own values."""
    epochs: int | None = None
    """The number of gradient steps on each batch. More than 1 needs an estimator that weighs each step by the ratio to
    the policy that acted: importance_per_decision, importance_trajectory, off_policy_ratio, ppo, ppo_gae, or one of
    your own."""
    num_seeds: int | None = None
    """The number of runs for each learning rate. They differ in their seeds and train side by side in one program."""
    num_updates: int | None = None
    """The total number of updates of each run. With --resume it includes the updates that are already done."""
    num_episodes: int | None = None
    """B, the number of episodes in an update. With --num-steps it is the number of environments side by side."""
    num_steps: int | None = None
    """The length in steps of a window: an update then sees this many steps of each environment, and the next update
    goes on from there. With None an update sees complete episodes."""
    group_size: int | None = None
    """k, the number of consecutive episodes that share a start, as the answers to one prompt do. Estimators that
    compare episodes (dr_grpo, grpo, rloo) then compare the episodes of a group. With 1 every episode has a start of
    its own, and these estimators compare all episodes of the batch."""
    lr: tuple[float, ...] | None = None
    """The learning rate η of Adam. Several numbers make a sweep: all of them train side by side in one program."""
    lr_left: float | None = None
    """The fraction of η that is left at the end. η falls linearly to it over --schedule-updates updates."""
    schedule_updates: int | None = None
    """The number of updates over which η falls. A resumed run keeps this number."""
    value_lr: float | None = None
    """The learning rate of the value network, which Adam trains too."""
    value_steps: int | None = None
    """The number of gradient steps of the value network in each update."""
    discount: float | None = None
    """γ, the discount of the estimator's returns. There is no factor γᵗ on step t, so γ < 1 makes the gradient
    biased."""
    lambda_: Annotated[float | None, tyro.conf.arg(name="lambda")] = None
    """λ of the estimators that use λ-returns, such as gae and ppo_gae."""
    n: int | None = None
    """n, the number of rewards in an n-step return before v(X_{t+n}) replaces the rest."""
    decay: float | None = None
    """β of the running averages: the baselines ρ̂, b_t and b*, and the scale of a fitted value."""
    clip: float | None = None
    """ε of PPO: the ratio to the policy that acted is clipped to [1 − ε, 1 + ε]."""
    damping: float | None = None
    """δ in the natural gradient (F + δI)⁻¹ ∇ρ, where F is the Fisher matrix."""
    entropy_coef: float | None = None
    """The weight of the entropy bonus. A weight above 0 changes the objective."""
    over_time: Literal["sum", "mean", "episode_mean", "horizon"] | None = None
    """How the steps of an episode are combined: sum adds them (unbiased), mean averages over all live steps of the
    batch, episode_mean averages over the steps of each episode, horizon divides the sum by the greatest length."""
    standardise: Literal["none", "population", "group_population", "group_sample"] | None = None
    """How the weights are standardised, which makes the gradient biased: population over all live steps of the batch,
    group_population and group_sample over the episodes of a group (as in GRPO), none not at all."""
    max_grad_norm: float | None = None
    """The largest norm of the gradient; a longer gradient is shortened to it. None sets no limit."""
    meter: int | None = None
    """N of the gradient meter, which measures the noise of the gradient that trains at every Nth update: its variance,
    signal-to-noise ratio and noise scale, and the cosine between two halves of the batch. It costs one more gradient in
    N updates and changes no number of the training. None measures nothing."""
    network: Literal["auto", "mlp", "conv", "centred", "items", "gru", "transformer", "gpt2", "llama"] | None = None
    """The kind of the policy's network. auto means conv for images and mlp for everything else. centred moves the
    image so that the agent stands in its middle, and reads it with dense layers. items scores each of the observed
    candidates by the same layers. gru, transformer, gpt2 and llama remember the episode; the last three read buffers
    of tokens. A value network is of the same kind as the policy's network if that is mlp, conv or centred, and
    otherwise mlp or conv as auto chooses."""
    hidden: tuple[int, ...] | None = None
    """The widths of the dense layers. For transformer, gpt2 and llama, one width for each block, all equal."""
    activation: Literal["tanh", "relu", "silu", "gelu"] | None = None
    """The activation function between the layers."""
    network_options: tuple[str, ...] | None = None
    """More options of the network, each as KEY=VALUE with a value in JSON: for example channels=16 for conv,
    memory_size=32 for gru, heads=4 for transformer, gpt2 and llama."""
    distribution: (
        Literal["auto", "categorical", "multi_categorical", "plackett_luce", "gaussian", "squashed_gaussian"] | None
    ) = None
    """The distribution of the actions. auto chooses the one that fits the action space (plackett_luce for slates)."""
    eval_episodes: int | None = None
    """The number of episodes on which each run is evaluated. All runs are evaluated on the same starts."""
    references: bool = True
    """Whether random actions, and the reference controllers that the environment has, are evaluated on the same starts
    and printed beside the trained policies."""
    seed: int = 0
    """The seed of the first run. The seeds of the others count up from it."""
    gif: bool = True
    """Whether an episode of the best run is drawn as an animation, if the environment can be drawn."""
    start_from: pathlib.Path | None = None
    """A saved policy from which every run starts, such as a copy of an expert: its file, or the folder of the run that
    saved it. The file also decides the environment, if --env is left out, and the options of the network. The value
    network starts anew."""
    render: pathlib.Path | None = None
    """A saved policy to evaluate and draw instead of training: its file, or the folder of the run that saved it."""
    resume: pathlib.Path | None = None
    """The folder of an earlier run to go on with. Its options apply. The path of a run NAME also finds the folders
    NAME-incomplete and .NAME.partial, which an interrupted run leaves."""
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
    typed: tyro.conf.Suppress[tyro.conf.Fixed[tuple[str, ...]]] = ()
    """The fields that the command line gives, which thus apply to a resumed run even if they are the defaults."""

    BATCH: ClassVar[str] = "num_episodes"

    def inputs(self) -> dict[str, Callable]:
        """Field → a function that finds its files, which process 0 sends to the others (--distributed)."""
        of = {"resume": resume.carried, "start_from": start.carried}
        return {name: functools.partial(find, getattr(self, name)) for name, find in of.items() if getattr(self, name)}

    def resolved(self) -> dict:
        """Every option with its value, for --dry-run."""
        return _given(self, unset=True) if self.render is not None else resolve(self)

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
        if self.estimator is not None and ":" not in self.estimator:
            build_options.find(self.estimator)
        counts = ("num_seeds", "num_updates", "num_episodes", "num_steps", "group_size", "epochs", "meter")
        runner.require_counts(self, *counts, "value_steps", "schedule_updates", "n")
        for name in ("discount", "lambda_", "decay", "lr_left"):
            value = getattr(self, name)
            runner.require(value is None or 0 <= value <= 1, option(name), value, "in [0, 1]")
        for name in ("value_lr", "max_grad_norm"):
            if getattr(self, name) is not None:
                runner.require_rate(option(name), getattr(self, name))
        for name in ("clip", "damping", "entropy_coef"):
            value = getattr(self, name)
            fits = value is None or 0 <= value <= runner.LARGEST_RATE
            runner.require(fits, option(name), value, f"in [0, {runner.LARGEST_RATE:.2g}], the range of float32")
        runner.require(self.lr is None or len(self.lr) >= 1, "--lr", self.lr, "at least one number")
        for value in self.lr or ():
            runner.require_rate("--lr", value)
        for value in self.hidden or ():
            runner.require(1 <= value <= 65_536, "--hidden", value, "at least 1 and at most 65536")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        runner.require_counts(self, "eval_episodes", least=2)
        build_options.parsed_network_options(self.network_options or ())
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


def option(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def resolve(config: Config) -> dict:
    """Every option with its value.

    The command line comes first, then the run that is resumed, then the preset. The settings of an estimator that is
    not the preset's are the estimator's own; a setting that it does not have is None.

    Raises:
        ValueError: the estimator is unknown or does not have a setting that was given, or a resumed run does not allow
            an option.
    """
    given = _given(config)
    if config.resume is not None:
        return _resumed(config, given)
    of_file = {} if config.start_from is None else start.options(config.start_from, given, presets.DEFAULT)
    env = config.env or of_file.get("env", DEFAULT_ENV)
    preset = presets.preset(env)
    if preset["network"] not in ("auto", given.get("network", preset["network"])):
        preset |= {name: presets.DEFAULT[name] for name in SHAPE}
    entry = build_options.find(given.get("estimator", preset["estimator"]))
    if entry.name != preset["estimator"]:
        preset |= dict.fromkeys(registry.SETTINGS)
        # A rate for the natural gradient, which Adam does not rescale, means nothing for another estimator.
        if entry.natural != build_options.find(preset["estimator"]).natural:
            preset |= {"lr": presets.DEFAULT["lr"]}
    for name in registry.SETTINGS:
        if name in given and (refusal := entry.refusal(name, given[name])):
            raise ValueError(f"{option(name)} {given[name]}: {refusal}")
    options = preset | of_file | {"env": env} | given
    options |= vars(entry.resolve(build_options.settings(options)))
    return {"schedule_updates": options["num_updates"]} | options


def _given(config: Config, unset: bool = False) -> dict:
    """The options that are given, or all with `unset`. None switches an option off if it is typed and can be None."""
    kept = {name for name in WITHOUT_VALUE if name in config.typed}
    found = {name: value for name, value in dataclasses.asdict(config).items() if name != "typed"}
    return {name: value for name, value in found.items() if unset or value is not None or name in kept}


# The options that may be None after the preset, and what --help shows for that.
WITHOUT_VALUE = {"num_steps": "complete episodes", "max_grad_norm": "no limit", "activation": "that of the network"}
WITHOUT_VALUE |= {"meter": "no measurement"}


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
            words[name] = f"{_shown(value)}, setting of {estimator}"
        else:
            shown = _shown(WITHOUT_VALUE.get(name) if value is None else value)
            words[name] = f"{shown}, {presets.called(environment)}"
    if (budget := presets.BUDGETS.get(environment)) is not None:
        words["num_updates"] += f", with a budget of {budget} s of CPU time for each seed"
    return words


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)


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
