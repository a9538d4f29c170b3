"""From options to a trainer: builds what the command line and the presets describe."""

import functools
import hashlib
import importlib.util
import json
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import optax

from experiments.harness import team
from experiments.harness.directories import UsageError
from experiments.shared.training import presets, start
from pgjax import baselines, environments, networks, registry, training
from pgjax.environments import foreign
from pgjax.exact.mdp.tabular import TabularMDP
from pgjax.spaces import Discrete
from pgjax.training import sharding
from pgjax.types import Baseline, Critic, Environment, Estimator, Policy

CHUNK_SECONDS = 1.0  # how long a chunk of updates may take: a signal is answered after it
# Networks that a value can have: they see one observation only, and give any number of outputs.
OF_VALUES = ("auto", "mlp", "conv", "centred")
# The float options that may be traced, so that they differ from run to run in one program; the second group changes the
# estimator, and the first the steps of the optimiser alone.
OF_OPTIMISER = ("lr", "lr_left", "max_grad_norm")
OF_ESTIMATOR = ("value_lr", "discount", "lambda_", "decay", "clip", "damping", "entropy_coef")
VARIED = OF_OPTIMISER + OF_ESTIMATOR


def parsed_network_options(pairs: Sequence[str]) -> dict[str, Any]:
    """The `network_options` of `networks.make_policy`, read from words KEY=VALUE with values in JSON.

    Raises:
        ValueError: a word has another form, or a key is given twice.
    """
    parsed = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        wanted = f"--network-options {pair}: must be KEY=VALUE with a value in JSON, such as heads=2"
        if not key or not equals:
            raise ValueError(wanted)
        if key in parsed:
            raise ValueError(f"--network-options {pair}: {key} is given twice; give it once")
        try:
            parsed[key] = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(wanted) from error
    return parsed


def network_arguments(options: dict) -> dict[str, Any]:
    """The arguments of `networks.make_policy`, which are also saved with a policy."""
    arguments = {name: options[name] for name in ("distribution", "network", "hidden", "activation")}
    return arguments | {"network_options": parsed_network_options(options["network_options"])}


def make_policy(options: dict) -> tuple[Environment, Policy]:
    """The environment of the training, and a policy for it, which starts from a saved θ if the options say so.

    The matrix products of the policy have the precision of the options.

    Raises:
        ValueError: the environment or the network is unknown, or the saved policy does not fit.
    """
    of_training, _ = presets.HELD_OUT.get(options["env"], ({}, {}))
    environment = environments.make(options["env"], **of_training)
    # A resumed run has its θ already, and the file may be gone.
    if options.get("start_from") and not options.get("resume"):
        policy = start.policy(options["start_from"], environment)
    else:
        policy = networks.make_policy(environment, **network_arguments(options))
    return environment, networks.with_precision(policy, options["precision"])


def evaluation_environment(options: dict, environment: Environment) -> Environment:
    """The environment on which runs are evaluated: that of the training, except where prompts are held out."""
    if options["env"] not in presets.HELD_OUT:
        return environment
    return environments.make(options["env"], **presets.HELD_OUT[options["env"]][1])


def value_arguments(options: dict) -> dict[str, Any]:
    """The arguments of a value network: those of the policy's network, or of a plain one if that gives no value."""
    arguments = network_arguments(options)
    del arguments["distribution"]
    return arguments if options["network"] in OF_VALUES else arguments | {"network": "auto", "network_options": {}}


def settings(options: dict) -> registry.Settings:
    """The options that are settings of an estimator; None means that the estimator uses its own value or has none."""
    return registry.Settings(**{name: options[name] for name in registry.SETTINGS})


def parts(options: dict, entry: registry.Entry, environment: Environment, policy: Policy) -> registry.Parts:
    """The parts from which the estimator is built. There is no oracle, because θ changes during training."""
    tabular = isinstance(environment.params, TabularMDP)
    return registry.Parts(
        policy=policy,
        value=value_baseline(options, environment) if "value" in entry.needs else None,
        critic=critic(options, environment) if "critic" in entry.needs else None,
        states=registry.states_of(environment.params) if tabular else None,
        group_size=options["group_size"],
        settings=settings(options),
    )


def training_of(
    environment: Environment, policy: Policy, deterministic: bool = True
) -> Callable[..., training.TrainingRun]:
    """`training.train`, or `training.train_on_host` with the same arguments where the environment is not in JAX."""
    if isinstance(environment, environments.HostEnvironment):
        return functools.partial(training.train_on_host, environment, policy)
    return functools.partial(training.train, chunk_seconds=CHUNK_SECONDS, deterministic=deterministic)


def unused_devices(trainer: training.Trainer, num_runs: int, deterministic: bool) -> str | None:
    """Why fewer devices work than this process has; None if all of them work."""
    devices = sharding.choose_devices(None)
    if sharding.spans_processes(devices):  # then all must work
        return None
    layout = sharding.choose_layout(devices, num_runs, trainer.num_episodes, trainer.group_size, deterministic)
    used = layout.mesh.size
    if used == len(devices):
        return None
    runs, are = f"{num_runs} run{'s' * (num_runs > 1)}", "is" if used == 1 else "are"
    allowed = "2, 4 or 8 devices, each an even number of episodes; --no-deterministic allows more"
    allowed = f"--deterministic allows {allowed}" if deterministic else "their number must divide that of the groups"
    return (
        f"{used} of {len(devices)} devices {are} used: {runs} cannot occupy all of them, and they cannot share the "
        f"{trainer.num_episodes} episodes of an update ({allowed})"
    )


def own_code(options: dict) -> dict[str, str]:
    """Module → SHA-256 of its file, for the user's own modules that the options name."""
    found = {}
    for name in (options["env"], options["estimator"]):
        module, colon, _ = str(name).partition(":")
        spec = importlib.util.find_spec(module) if colon and module in sys.modules else None
        if spec is not None and spec.origin is not None and module not in {*foreign.ADAPTERS, "gymnax"}:
            found[f"code of {module}"] = hashlib.sha256(pathlib.Path(spec.origin).read_bytes()).hexdigest()
    return found


def _require_fitting_host(options: dict, entry: registry.Entry, environment: Environment) -> None:
    """Refuse what only environments in JAX can do."""
    if not isinstance(environment, environments.HostEnvironment):
        return
    require_alone(f"--env {environment.name}", "its episodes are played on the host of one process")
    if options["num_steps"] is not None:
        raise ValueError(
            f"--num-steps {options['num_steps']}: must be None with --env {environment.name}, because environments "
            "of the host are played in complete episodes"
        )
    if "greedy" in entry.needs:
        raise ValueError(
            f"--estimator {entry.name}: needs a greedy episode from each start, which --env {environment.name} does "
            "not play, because it runs on the host"
        )


def _fitted(options: dict) -> dict[str, Any]:
    """The optimiser, the steps and the decay with which a predicted return is fitted."""
    optimizer = optax.adam(options["value_lr"])
    return {"optimizer": optimizer, "num_steps": options["value_steps"], "decay": options["decay"]}


def value_baseline(options: dict, environment: Environment) -> Baseline:
    init, apply = networks.make_value(environment, **value_arguments(options))
    return baselines.value_function(init, networks.with_precision(apply, options["precision"]), **_fitted(options))


def critic(options: dict, environment: Environment) -> Critic | None:
    if not isinstance(environment.action_space, Discrete):
        return None
    init, apply = networks.make_action_values(environment, **value_arguments(options))
    apply = networks.with_precision(apply, options["precision"])
    return baselines.action_value_function(init, apply, **_fitted(options))


def find(name: str, option: str = "--estimator") -> registry.Entry:
    """The estimator of that name; raises ValueError, naming the option, if there is none."""
    try:
        return registry.find(name)
    except ValueError as error:
        raise ValueError(f"{option}: {error}") from error


def make_estimator(options: dict, environment: Environment, policy: Policy) -> Estimator:
    """The estimator; raises ValueError if it refuses an option, or if the environment lacks a part that it needs."""
    entry = find(options["estimator"])
    try:
        return registry.make(entry, parts(options, entry, environment, policy))
    except ValueError as error:
        raise ValueError(f"--estimator {entry.name}: {error}") from error


def require_alone(option: str, reason: str) -> None:
    """Refuse an option in a run of several processes.

    Raises:
        UsageError: there are several.
    """
    if team.current.count > 1:
        raise UsageError(f"{option}: must be used without --distributed, because {reason}")


def _having(quality: str) -> str:
    return ", ".join(entry.name for entry in registry.ENTRIES.values() if getattr(entry, quality))


def _require_fitting(options: dict, entry: registry.Entry) -> None:
    """Refuse options that do not fit each other, and name the options as they are typed."""
    group_size, num_episodes, num_steps = (options[name] for name in ("group_size", "num_episodes", "num_steps"))
    # After the first step the batch was played by another policy than θ. An estimator without the ratio ignores that.
    if options["epochs"] > 1 and not (entry.behaviour or entry.is_own):
        raise ValueError(
            f"--epochs {options['epochs']}: must be 1 with --estimator {entry.name}, which has no ratio to the policy "
            f"that acted; more epochs need --estimator {_having('behaviour')}"
        )
    if num_episodes % group_size:
        raise ValueError(f"--group-size {group_size}: must divide --num-episodes {num_episodes}")
    if num_episodes == 1 and entry.compares:
        raise ValueError(f"--num-episodes 1: must be at least 2 with --estimator {entry.name}, which compares episodes")
    if options["meter"] and num_episodes // group_size % 2:
        of_groups = f", two parts of whole groups of --group-size {group_size}" if group_size > 1 else ""
        raise ValueError(
            f"--meter {options['meter']}: needs a batch that can be cut into two halves{of_groups}, got --num-episodes "
            f"{num_episodes}"
        )
    if num_steps is None:
        return
    if group_size > 1:
        raise ValueError(f"--group-size {group_size}: must be 1 with --num-steps, because windows have no common start")
    if not (entry.windows or entry.is_own):
        raise ValueError(
            f"--num-steps {num_steps}: must be None with --estimator {entry.name}, which does not bootstrap and "
            f"needs complete episodes; --num-steps needs --estimator {_having('windows')}"
        )


def make_build(options: dict, environment: Environment, policy: Policy) -> Callable[[Any], training.Trainer]:
    """A function `η → Trainer`. The learning rate is traced, so that a sweep compiles once.

    Raises:
        ValueError: options do not fit each other.
    """
    build = make_varied_build(options, environment, policy)
    return lambda rate: build({"lr": rate})


def make_varied_build(
    options: dict, environment: Environment, policy: Policy
) -> Callable[[Mapping[str, Any]], training.Trainer]:
    """A function `values → Trainer`, where the values replace options of the same names and may be traced.

    `VARIED` names the options that may be traced. `lr` must be among the values or be one number in the options.

    Raises:
        ValueError: options do not fit each other.
    """
    entry = find(options["estimator"])
    _require_fitting(options, entry)
    _require_fitting_host(options, entry, environment)
    estimator = make_estimator(options, environment, policy)
    # Adam would rescale every parameter and undo the lengths that the Fisher matrix gives.
    ascend = optax.sgd if entry.natural else optax.adam
    group_size = options["group_size"] if options["group_size"] > 1 else None

    def build(values: Mapping[str, Any]) -> training.Trainer:
        chosen = options | dict(values)
        most, rate = chosen["max_grad_norm"], chosen["lr"]
        before = optax.identity() if most is None else optax.clip_by_global_norm(most)
        falling = optax.linear_schedule(rate, chosen["lr_left"] * rate, chosen["schedule_updates"] * chosen["epochs"])
        own = any(name in OF_ESTIMATOR for name in values)
        return training.make_trainer(
            environment,
            policy,
            make_estimator(chosen, environment, policy) if own else estimator,
            optax.chain(before, ascend(falling)),
            num_episodes=options["num_episodes"],
            num_steps=options["num_steps"],
            group_size=group_size,
            epochs=options["epochs"],
            meter=options["meter"],
        )

    return build
