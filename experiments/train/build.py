"""From options to a trainer: what `experiments.train` makes of its command line and presets."""

import json
from collections.abc import Sequence
from typing import Any

import jax
import optax

from pgjax import baselines, environments, estimators, losses, networks, training
from pgjax.baselines import critics
from pgjax.estimators import Returns
from pgjax.types import Baseline, Environment, Estimator, Policy

RETURNS = {
    "total_return": lambda o: estimators.total_return(o["discount"]),
    "reward_to_go": lambda o: estimators.reward_to_go(o["discount"]),
    "lambda_return": lambda o: estimators.lambda_return(o["lambda_"], o["discount"]),
}
CRITIC_FORMS = ("all_action", "action_dependent", "trajectory_wise")
WITHOUT_BASELINE = (*CRITIC_FORMS, "per_parameter")
OTHERS = (*WITHOUT_BASELINE, "importance_weighted")
BASELINES = {
    "none": lambda o: baselines.none(),
    "moving_average": lambda o: baselines.moving_average(o["decay"], "first"),
    "batch_mean": lambda o: baselines.batch_mean("live", _group(o)),
    "leave_one_out": lambda o: baselines.leave_one_out("live", _group(o)),
    "time_dependent": lambda o: baselines.time_dependent(o["decay"]),
    "optimal_constant": lambda o: baselines.optimal_constant(o["decay"]),
    "optimal_time": lambda o: baselines.optimal_time_dependent(o["decay"]),
    "greedy": lambda o: baselines.greedy_rollout(),
}
OBJECTIVES = {
    "score_function": lambda o: estimators.score_function,
    "importance_weighted": lambda o: losses.importance_weighted_objective,
    "clipped": lambda o: estimators.clipped_surrogate(o["clip"]),
}


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


def _group(options: dict) -> int | None:
    """The episodes that are compared with each other; None for the whole batch."""
    return options["group_size"] if options["group_size"] > 1 else None


def make_baseline(options: dict, environment: Environment) -> Baseline:
    if options["baseline"] != "value":
        return BASELINES[options["baseline"]](options)
    init, apply = networks.make_value(environment, **value_arguments(options))
    return baselines.value_function(
        init, apply, optax.adam(options["value_lr"]), num_steps=options["value_steps"], decay=options["decay"]
    )


def make_estimator(options: dict, environment: Environment, policy: Policy) -> Estimator:
    """Raises ValueError for options that this estimator cannot keep."""
    kind = options["returns"]
    if kind in OTHERS:
        estimator = _other_estimator(kind, options, environment, policy)
    else:
        estimator = estimators.make_estimator(
            policy,
            returns=RETURNS[kind](options),
            baseline=make_baseline(options, environment),
            objective=OBJECTIVES[options["loss"]](options),
            entropy_coef=options["entropy_coef"],
            over_time=options["over_time"],
            standardise=options["standardise"],
            group_size=_group(options),
        )
    damping = options["natural"]
    return estimator if damping is None else estimators.natural(estimator, policy, damping=damping)


def _other_estimator(kind: str, options: dict, environment: Environment, policy: Policy) -> Estimator:
    plain = {"entropy_coef": 0.0, "over_time": "sum", "standardise": "none", "loss": "score_function"}
    for name, value in plain.items():
        if options[name] != value:
            raise ValueError(f"--{name.replace('_', '-')} {options[name]}: must be {value} with --estimator {kind}")
    if kind == "per_parameter":
        return estimators.per_parameter(policy, decay=options["decay"], discount=options["discount"])
    returns: Returns = estimators.reward_to_go(options["discount"])
    if kind == "importance_weighted":
        baseline = make_baseline(options, environment)
        return estimators.importance_weighted(policy, returns=returns, baseline=baseline)
    init, apply = networks.make_action_values(environment, **value_arguments(options))
    critic = critics.action_value_function(
        init, apply, optax.adam(options["value_lr"]), num_steps=options["value_steps"], decay=options["decay"]
    )
    return estimators.make_critic_estimator(policy, critic, form=kind, returns=returns)


def _require_ratio(options: dict) -> None:
    """From its second step on a batch is another policy's: an estimator without the ratio would take it for θ's own."""
    kind, loss, epochs = options["returns"], options["loss"], options["epochs"]
    has_ratio = kind == "importance_weighted" or (kind not in OTHERS and loss != "score_function")
    if epochs > 1 and not has_ratio:
        raise ValueError(
            f"--epochs {epochs}: must be 1 with --estimator {kind} and --loss {loss}, which have no ratio to the "
            "policy that acted; above 1 with --loss importance_weighted or clipped, or --estimator importance_weighted"
        )


def _require_fitting_sizes(options: dict) -> None:
    """What the trainer would refuse too, in the words of the command line."""
    group_size, num_episodes, num_steps = (options[name] for name in ("group_size", "num_episodes", "num_steps"))
    if num_episodes % group_size:
        raise ValueError(f"--group-size {group_size}: must divide --num-episodes {num_episodes}")
    if num_episodes == 1 and options["baseline"] == "leave_one_out" and options["returns"] not in WITHOUT_BASELINE:
        raise ValueError("--num-episodes 1: must be at least 2 with --baseline leave_one_out")
    if num_steps is None:
        return
    if group_size > 1:
        raise ValueError(f"--group-size {group_size}: must be 1 with --num-steps, whose windows share no start")
    if options["baseline"] == "greedy" and options["returns"] not in WITHOUT_BASELINE:
        raise ValueError(
            f"--num-steps {num_steps}: must be left out with --baseline greedy, which plays complete episodes"
        )
    if options["returns"] != "lambda_return":
        raise ValueError(
            f"--num-steps {num_steps}: must be left out with --estimator {options['returns']}, which does not "
            "bootstrap and needs complete episodes; allowed with --estimator lambda_return"
        )


def make_build(options: dict, environment: Environment, policy: Policy):
    """`η → Trainer`: the learning rate is traced, so that a sweep compiles once.

    Raises:
        ValueError: for options that do not fit each other.
    """
    _require_ratio(options)
    _require_fitting_sizes(options)
    estimator = make_estimator(options, environment, policy)
    most = options["max_grad_norm"]
    before = optax.identity() if most is None else optax.clip_by_global_norm(most)
    # Adam would rescale, parameter by parameter, the very lengths that the Fisher matrix has set.
    ascend = optax.adam if options["natural"] is None else optax.sgd

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
            group_size=options["group_size"],
            epochs=options["epochs"],
        )

    return build
