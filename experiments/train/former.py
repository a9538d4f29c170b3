"""Options of older runs, which named an estimator by `returns`, `baseline` and `loss`: its name today."""

from typing import Any

from pgjax import registry

# The values that options.json holds for conventions that an estimator does not have.
# Options that the oldest runs do not have, with the values that they meant.
DEFAULTS_THEN = {"loss": "score_function", "baseline": "value", "natural": None, "group_size": 1, "epochs": 1}
WITHOUT = {"entropy_coef": 0.0, "over_time": "sum", "standardise": "none"}
# (returns, baseline, loss) → the estimator's name.
NAMES = {
    ("total_return", "none", "score_function"): "reinforce",
    ("total_return", "moving_average", "score_function"): "reinforce_moving_average",
    ("total_return", "optimal_constant", "score_function"): "reinforce_optimal",
    ("total_return", "greedy", "score_function"): "reinforce_greedy",
    ("total_return", "leave_one_out", "score_function"): "rloo",
    ("total_return", "batch_mean", "score_function"): "dr_grpo",
    ("reward_to_go", "none", "score_function"): "gpomdp",
    ("reward_to_go", "moving_average", "score_function"): "gpomdp_moving_average",
    ("reward_to_go", "time_dependent", "score_function"): "gpomdp_time_average",
    ("reward_to_go", "optimal_time", "score_function"): "gpomdp_optimal_time",
    ("reward_to_go", "leave_one_out", "score_function"): "gpomdp_leave_one_out",
    ("reward_to_go", "value", "score_function"): "gpomdp_value",
    ("reward_to_go", "value", "importance_weighted"): "off_policy_ratio",
    ("reward_to_go", "value", "clipped"): "ppo",
    ("lambda_return", "value", "score_function"): "gae",
    ("lambda_return", "value", "clipped"): "ppo_gae",
    ("importance_weighted", "value", "score_function"): "importance_per_decision",
}
# These estimators fit their own baseline.
OF_THEIR_OWN = ("all_action", "action_dependent", "trajectory_wise", "per_parameter")
# Environments whose episodes all have the same length. Only there did the baselines that compared the episodes still
# running at a step give what RLOO and Dr. GRPO give, which compare whole episodes.
SAME_LENGTH = ("recall", "reverse")


def translated(options: dict[str, Any]) -> dict[str, Any]:
    """The options of a saved run under today's names. Options that already have these names are returned unchanged.

    Raises:
        ValueError: no registered estimator is the one that the run was trained with.
    """
    if "returns" not in options:
        return options
    options = DEFAULTS_THEN | options
    entry = registry.ENTRIES[_name(options)]
    kept = {name: value for name, value in options.items() if name not in ("returns", "baseline", "loss", "natural")}
    damping = {"damping": options.get("natural")}
    settings = {name: (kept | damping).get(name) for name in registry.SETTINGS}
    for name, value in settings.items():
        if getattr(entry.settings, name) is None:
            settings[name] = None
        elif entry.refusal(name, value):
            raise _unknown(options)
    return kept | settings | {"estimator": entry.name}


def _name(options: dict[str, Any]) -> str:
    returns, baseline, loss = options["returns"], options["baseline"], options["loss"]
    if returns in OF_THEIR_OWN and options.get("natural") is None:
        return returns
    name = NAMES.get((returns, baseline, loss))
    # REINFORCE whose weights are standardised within groups is GRPO.
    if name == "reinforce" and options["standardise"].startswith("group"):
        name = "grpo"
    if name in ("rloo", "dr_grpo") and options["env"] not in SAME_LENGTH:
        name = None
    if options.get("natural") is not None:
        name = "natural_value" if name == "gpomdp_value" and _is_plain(options) else None
    if name is None:
        raise _unknown(options)
    return name


def _is_plain(options: dict[str, Any]) -> bool:
    return all(options[name] == value for name, value in WITHOUT.items())


def _unknown(options: dict[str, Any]) -> ValueError:
    what = ", ".join(f"{name}={options.get(name)}" for name in ("returns", "baseline", "loss", "natural"))
    return ValueError(
        f"--resume {options.get('resume') or 'RUN'}: the run was trained with {what}, and no registered estimator is "
        "the same, so it cannot be resumed; --render still evaluates its policy"
    )
