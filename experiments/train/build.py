"""From options to a trainer: what `experiments.train` makes of its command line and presets."""

import json
from collections.abc import Sequence
from typing import Any

import jax
import optax

from pgjax import baselines, environments, networks, registry, training
from pgjax.exact import TabularMDP
from pgjax.spaces import Discrete
from pgjax.types import Baseline, Critic, Environment, Estimator, Policy

# Networks that look at one observation alone, as a value has to.
MEMORYLESS = ("auto", "mlp", "conv")


def parsed_network_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The `network_options` of `networks.make_policy` from words KEY=VALUE, each value in JSON.

    Raises:
        ValueError: for a word of another form, or a key that stands twice.
    """
    parsed = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        wanted = f"--network-options {pair}: must be KEY=VALUE with a value in JSON, such as heads=2"
        if not key or not equals:
            raise ValueError(wanted)
        if key in parsed:
            raise ValueError(f"--network-options {pair}: {key} must be given once")
        try:
            parsed[key] = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(wanted) from error
    return parsed


def network_arguments(options: dict) -> dict[str, Any]:
    """The arguments of `networks.make_policy`, which a saved policy keeps in its header."""
    arguments = {name: options[name] for name in ("distribution", "network", "hidden", "activation")}
    return arguments | {"network_options": parsed_network_options(options["network_options"])}


def make_policy(options: dict) -> tuple[Environment, Policy]:
    environment = environments.make(options["env"])
    return environment, networks.make_policy(environment, **network_arguments(options))


def value_arguments(options: dict) -> dict[str, Any]:
    """The arguments of a network that stands for a value: the policy's, or a plain one where the policy remembers."""
    arguments = network_arguments(options)
    del arguments["distribution"]
    return arguments if options["network"] in MEMORYLESS else arguments | {"network": "auto", "network_options": {}}


def settings(options: dict) -> registry.Settings:
    """The options that are conventions of an estimator; None where it keeps its own or has none."""
    return registry.Settings(**{name: options[name] for name in registry.SETTINGS})


def parts(options: dict, entry: registry.Entry, environment: Environment, policy: Policy) -> registry.Parts:
    """What the environment has for estimators; an oracle it has not, because θ moves."""
    tabular = isinstance(environment.params, TabularMDP)
    return registry.Parts(
        policy=policy,
        value=value_baseline(options, environment) if "value" in entry.needs else None,
        critic=critic(options, environment) if "critic" in entry.needs else None,
        states=registry.states_of(environment.params) if tabular else None,
        group_size=options["group_size"],
        settings=settings(options),
    )


def _fitted(options: dict) -> dict[str, Any]:
    """How a predicted return is fitted."""
    optimizer = optax.adam(options["value_lr"])
    return {"optimizer": optimizer, "num_steps": options["value_steps"], "decay": options["decay"]}


def value_baseline(options: dict, environment: Environment) -> Baseline:
    init, apply = networks.make_value(environment, **value_arguments(options))
    return baselines.value_function(init, apply, **_fitted(options))


def critic(options: dict, environment: Environment) -> Critic | None:
    if not isinstance(environment.action_space, Discrete):
        return None
    init, apply = networks.make_action_values(environment, **value_arguments(options))
    return baselines.action_value_function(init, apply, **_fitted(options))


def find(name: str) -> registry.Entry:
    """Raises ValueError, in the words of the command line, for an estimator that there is not."""
    try:
        return registry.find(name)
    except ValueError as error:
        raise ValueError(f"--estimator: {error}") from error


def make_estimator(options: dict, environment: Environment, policy: Policy) -> Estimator:
    """Raises ValueError for options that the estimator cannot keep, and where the environment lacks what it needs."""
    entry = find(options["estimator"])
    try:
        return registry.make(entry, parts(options, entry, environment, policy))
    except ValueError as error:
        raise ValueError(f"--estimator {entry.name}: {error}") from error


def _having(quality: str) -> str:
    return ", ".join(entry.name for entry in registry.ENTRIES.values() if getattr(entry, quality))


def _require_fitting(options: dict, entry: registry.Entry) -> None:
    """What the trainer would refuse too, in the words of the command line; and what it cannot know."""
    group_size, num_episodes, num_steps = (options[name] for name in ("group_size", "num_episodes", "num_steps"))
    # From its second step on a batch is another policy's: an estimator without the ratio would take it for θ's own.
    if options["epochs"] > 1 and not (entry.behaviour or entry.is_own):
        raise ValueError(
            f"--epochs {options['epochs']}: must be 1 with --estimator {entry.name}, which has no ratio to the policy "
            f"that acted; above 1 with --estimator {_having('behaviour')}"
        )
    if num_episodes % group_size:
        raise ValueError(f"--group-size {group_size}: must divide --num-episodes {num_episodes}")
    if num_episodes == 1 and entry.compares:
        raise ValueError(f"--num-episodes 1: must be at least 2 with --estimator {entry.name}, which compares episodes")
    if num_steps is None:
        return
    if group_size > 1:
        raise ValueError(f"--group-size {group_size}: must be 1 with --num-steps, whose windows share no start")
    if not (entry.windows or entry.is_own):
        raise ValueError(
            f"--num-steps {num_steps}: must be left out with --estimator {entry.name}, which does not bootstrap and "
            f"needs complete episodes; allowed with --estimator {_having('windows')}"
        )


def make_build(options: dict, environment: Environment, policy: Policy):
    """`η → Trainer`: the learning rate is traced, so that a sweep compiles once.

    Raises:
        ValueError: for options that do not fit each other.
    """
    entry = find(options["estimator"])
    _require_fitting(options, entry)
    estimator = make_estimator(options, environment, policy)
    most = options["max_grad_norm"]
    before = optax.identity() if most is None else optax.clip_by_global_norm(most)
    # Adam would rescale, parameter by parameter, the very lengths that the Fisher matrix has set.
    ascend = optax.sgd if entry.natural else optax.adam
    group_size = options["group_size"] if options["group_size"] > 1 else None

    def build(rate: jax.Array) -> training.Trainer:
        falling = optax.linear_schedule(
            rate, options["lr_left"] * rate, options["schedule_updates"] * options["epochs"]
        )
        return training.make_trainer(
            environment,
            policy,
            estimator,
            optax.chain(before, ascend(falling)),
            num_episodes=options["num_episodes"],
            num_steps=options["num_steps"],
            group_size=group_size,
            epochs=options["epochs"],
        )

    return build
