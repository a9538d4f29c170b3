"""The options of a training on the command line: their help, the values they allow, and the values of presets."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import tyro

from experiments.harness import runner
from experiments.shared.training import build, presets
from pgjax import registry

DEFAULT_ENV = "CartPole-v1"
# The options that describe the network of a preset, and that do not fit another network.
SHAPE = ("hidden", "activation", "network_options")
# Headings of --help, and the options below them.
GROUPS = {
    "learning": (
        *("epochs", "num_steps", "group_size", "lr_left", "schedule_updates"),
        *("value_lr", "value_steps", "max_grad_norm"),
    ),
    "estimator": registry.SETTINGS,
    "network": ("network", "hidden", "activation", "network_options", "distribution", "precision"),
}
# The options that may be None after the preset, and what --help shows for that.
WITHOUT_VALUE = {"num_steps": "complete episodes", "max_grad_norm": "no limit", "activation": "that of the network"}
WITHOUT_VALUE |= {"meter": "no measurement"}


@dataclasses.dataclass(frozen=True)
class EnvironmentOption:
    """The environment, the first option of every question that trains."""

    env: str | None = None
    """The environment: a name such as CartPole-v1 (an unknown name prints all of them), a name of another package that
    is installed, such as gymnasium:LunarLander-v3, or package.module:name for your own. That module is imported and
    its code runs."""


@dataclasses.dataclass(frozen=True)
class TrainingOptions:
    """The options of a training beside its environment, its estimator and its learning rate. An option that is None
    takes its value from the preset of the environment, or from the estimator."""

    epochs: int | None = None
    """The number of gradient steps on each batch. More than 1 needs an estimator that weighs each step by the ratio to
    the policy that acted: importance_per_decision, importance_trajectory, off_policy_ratio, ppo, ppo_gae, or one of
    your own."""
    num_seeds: int | None = None
    """The number of runs of each setting. They differ in their seeds and train side by side in one program."""
    num_updates: int | None = None
    """The total number of updates of each run."""
    num_episodes: int | None = None
    """B, the number of episodes in an update. With --num-steps it is the number of environments side by side."""
    num_steps: int | None = None
    """The length in steps of a window: an update then sees this many steps of each environment, and the next update
    goes on from there. With None an update sees complete episodes."""
    group_size: int | None = None
    """k, the number of consecutive episodes that share a start, as the answers to one prompt do. Estimators that
    compare episodes (dr_grpo, grpo, rloo) then compare the episodes of a group. With 1 every episode has a start of
    its own, and these estimators compare all episodes of the batch."""
    lr_left: float | None = None
    """The fraction of η that is left at the end. η falls linearly to it over --schedule-updates updates."""
    schedule_updates: int | None = None
    """The number of updates over which η falls."""
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
    precision: Literal["float32", "tfloat32", "bfloat16"] | None = None
    """The precision of the matrix products of all networks. tfloat32 and bfloat16 keep 10 and 7 bits of mantissa of
    each operand, add the products in float32, and are faster on a GPU with such units. A CPU rounds the operands and
    gains no speed. `python -m experiments.precision` measures the error of the gradient."""
    eval_episodes: int | None = None
    """The number of episodes on which each run is evaluated. All runs are evaluated on the same starts."""
    seed: int = 0
    """The seed of the first run. The seeds of the others count up from it."""
    typed: tyro.conf.Suppress[tyro.conf.Fixed[tuple[str, ...]]] = ()
    """The fields that the command line gives. They apply even if they are the defaults, also to a resumed run."""

    def validate_training(self) -> None:
        """Refuse values outside their ranges.

        Raises:
            UsageError: the message names the option and the range.
        """
        counts = ("num_seeds", "num_updates", "num_episodes", "num_steps", "group_size", "epochs")
        runner.require_counts(self, *counts, "value_steps", "schedule_updates", "n")
        for name in RANGES:
            if getattr(self, name) is not None:
                require_number(name, getattr(self, name))
        for value in self.hidden or ():
            runner.require(1 <= value <= 65_536, "--hidden", value, "at least 1 and at most 65536")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        runner.require_counts(self, "eval_episodes", least=2)
        build.parsed_network_options(self.network_options or ())


# The float options, by the numbers that they allow.
_FRACTIONS = ("discount", "lambda_", "decay", "lr_left")
_RATES = ("lr", "value_lr", "max_grad_norm")
_AT_LEAST_ZERO = ("clip", "damping", "entropy_coef")
RANGES = tuple(name for name in (*_FRACTIONS, *_RATES, *_AT_LEAST_ZERO) if name != "lr")


def require_number(name: str, value: float) -> None:
    """Refuse a number that the float option does not allow.

    Raises:
        UsageError: the message names the option and the range.
    """
    if name in _FRACTIONS:
        runner.require(0 <= value <= 1, option(name), value, "in [0, 1]")
    elif name in _RATES:
        runner.require_rate(option(name), value)
    else:
        fits = 0 <= value <= runner.LARGEST_RATE
        runner.require(fits, option(name), value, f"in [0, {runner.LARGEST_RATE:.2g}], the range of float32")


def option(name: str) -> str:
    """The option of a field as it is typed: `--lambda`, `--entropy-coef`."""
    return "--" + name.rstrip("_").replace("_", "-")


def given(config: TrainingOptions, unset: bool = False) -> dict[str, Any]:
    """The options that are given, or all with `unset`. None switches an option off if it is typed and can be None."""
    kept = {name for name in WITHOUT_VALUE if name in config.typed}
    found = {name: value for name, value in dataclasses.asdict(config).items() if name != "typed"}
    return {name: value for name, value in found.items() if unset or value is not None or name in kept}


def resolve(given: Mapping[str, Any], of_file: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Every option with its value: those of the command line come first, then those of a file, then the preset.

    The settings of an estimator that is not the preset's are the estimator's own; a setting that it does not have is
    None.

    Args:
        given: the options of the command line that were not left out, by the names of their fields.
        of_file: the options that a saved policy decides.

    Raises:
        ValueError: the estimator is unknown or does not have a setting that was given.
    """
    of_file = of_file or {}
    env = given.get("env") or of_file.get("env", DEFAULT_ENV)
    preset = presets.preset(env)
    if preset["network"] not in ("auto", given.get("network", preset["network"])):
        preset |= {name: presets.DEFAULT[name] for name in SHAPE}
    entry = build.find(given.get("estimator", preset["estimator"]))
    if entry.name != preset["estimator"]:
        preset |= dict.fromkeys(registry.SETTINGS)
        # A rate for the natural gradient, which Adam does not rescale, means nothing for another estimator.
        if entry.natural != build.find(preset["estimator"]).natural:
            preset |= {"lr": presets.DEFAULT["lr"]}
    for name in registry.SETTINGS:
        if name in given and (refusal := entry.refusal(name, given[name])):
            raise ValueError(f"{option(name)} {given[name]}: {refusal}")
    options = preset | of_file | {"env": env} | given
    options |= vars(entry.resolve(build.settings(options)))
    return {"schedule_updates": options["num_updates"]} | options


def word(name: str, value: Any, environment: str) -> str:
    """What --help shows for an option that the preset of the environment decides: `0.01, preset of CartPole-v1`."""
    return f"{shown(WITHOUT_VALUE.get(name) if value is None else value)}, {presets.called(environment)}"


def shown(value: Any) -> str:
    """A value as --help shows it."""
    return " ".join(map(str, value)) or "none" if isinstance(value, tuple) else str(value)
