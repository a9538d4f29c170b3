"""From options to a trainer: what `experiments.train` makes of its command line and presets."""

import jax
import optax

from pgjax import baselines, critics, environments, estimators, losses, networks, training
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
    "batch_mean": lambda o: baselines.batch_mean("live"),
    "leave_one_out": lambda o: baselines.leave_one_out("live"),
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


def make_policy(options: dict) -> tuple[Environment, Policy]:
    environment = environments.make(options["env"])
    policy = networks.make_policy(environment, distribution=options["distribution"], hidden=options["hidden"])
    return environment, policy


def make_baseline(options: dict, environment: Environment) -> Baseline:
    if options["baseline"] != "value":
        return BASELINES[options["baseline"]](options)
    init, apply = networks.make_value(environment, hidden=options["hidden"])
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
    init, apply = networks.make_action_values(environment, hidden=options["hidden"])
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


def make_build(options: dict, environment: Environment, policy: Policy):
    """`η → Trainer`: the learning rate is traced, so that a sweep compiles once.

    Raises:
        ValueError: for options that do not fit each other.
    """
    _require_ratio(options)
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
            epochs=options["epochs"],
        )

    return build
