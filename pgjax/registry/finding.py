"""Functions that find and make an estimator from its name or from a user's `module:function`."""

import difflib
import importlib
import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any, cast

import jax
import jax.numpy as jnp

from pgjax import estimators
from pgjax._doors import readable
from pgjax._shown import described
from pgjax.registry.entry import NEEDS, NOT_STATED, Entry, Parts, ServedParts
from pgjax.registry.of_episodes import ENTRIES as OF_EPISODES
from pgjax.registry.of_steps import ENTRIES as OF_STEPS
from pgjax.registry.others import ENTRIES as OTHERS
from pgjax.types import Baseline, Estimator, PyTree, Trajectory

ENTRIES: dict[str, Entry] = {entry.name: entry for entry in (*OF_EPISODES, *OF_STEPS, *OTHERS)}
# Other words for estimators, and the names that they may mean.
ALIASES = {
    "a2c": ("actor_critic", "n_step", "gae"),
    "a3c": ("n_step",),
    "advantage": ("gae", "gpomdp_value"),
    "baseline": ("gpomdp_value", "reinforce_moving_average"),
    "batch_mean": ("dr_grpo",),
    "clipped": ("ppo", "ppo_gae"),
    "control_variate": ("trajectory_wise", "action_dependent"),
    "greedy": ("reinforce_greedy",),
    "group_mean": ("dr_grpo",),
    "importance_weighted": ("importance_per_decision", "importance_trajectory", "off_policy_ratio"),
    "lambda_return": ("gae",),
    "leave_one_out": ("rloo", "gpomdp_leave_one_out"),
    "loo": ("rloo", "gpomdp_leave_one_out"),
    "moving_average": ("reinforce_moving_average", "gpomdp_moving_average"),
    "natural": ("natural_value", "natural_gae", "natural_exact_value"),
    "none": ("reinforce", "gpomdp"),
    "npg": ("natural_value", "natural_gae"),
    "optimal": ("reinforce_optimal", "gpomdp_optimal_time"),
    "optimal_constant": ("reinforce_optimal",),
    "optimal_time": ("gpomdp_optimal_time",),
    "q": ("all_action", "action_dependent"),
    "reward_to_go": ("gpomdp", "gpomdp_value"),
    "scst": ("reinforce_greedy",),
    "self_critical": ("reinforce_greedy",),
    "time_dependent": ("gpomdp_time_average",),
    "total_return": ("reinforce",),
    "trpo": ("natural_gae", "natural_value"),
    "value": ("gpomdp_value",),
    "vpg": ("gpomdp_value", "gae"),
}


@readable
def find(name: str) -> Entry:
    """The entry of a name, or of a user's `module:function` (see `load`).

    Raises:
        ValueError: if no estimator has this name; the message lists similar names.

    Example:
        >>> from pgjax import registry
        >>> print(registry.find("rloo").label, "|", registry.find("rloo").claim)
        G₁, leave-one-out (RLOO) | unbiased
    """
    if "," in name:
        apart = " ".join(name.split(","))
        raise ValueError(f"no estimator is called {name!r}; names have spaces between them, not commas: {apart}")
    if ":" in name:
        return load(name)
    if name in ENTRIES:
        return ENTRIES[name]
    plain = name.strip().lower().replace("-", "_").replace(" ", "_")
    close = ALIASES.get(plain) or ((plain,) if plain in ENTRIES else ())
    close = close or tuple(difflib.get_close_matches(plain, (*ENTRIES, *ALIASES), n=3, cutoff=0.6))
    meant = dict.fromkeys(entry for word in close for entry in ALIASES.get(word, (word,)))
    hint = f"did you mean {' or '.join(meant)}? " if meant else ""
    raise ValueError(
        f"no estimator is called {name!r}; {hint}the known names are {', '.join(ENTRIES)}, and module:function for "
        "your own"
    )


@readable
def make(estimator: str | Entry, parts: Parts) -> Estimator:
    """The estimator of a name, made from the given parts. All programs that train or measure call this function.

    Args:
        estimator: a name in `ENTRIES`, a user's `module:function`, or an entry.
        parts: the policy, and the other parts that the problem has.

    Raises:
        ValueError: if the name is unknown, a part that the estimator needs is missing, or a setting is not allowed.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import distributions, registry
        >>> from pgjax.types import Policy
        >>> policy = Policy(init=lambda key, obs: jnp.zeros((4, 2)), apply=lambda params, obs: obs @ params,
        ...                 distribution=distributions.categorical)
        >>> registry.make("rloo", registry.Parts(policy=policy, group_size=4)).needs.group_size
        4
    """
    entry = find(estimator) if isinstance(estimator, str) else estimator
    if lacking := entry.lacking(parts):
        raise ValueError(f"the estimator {entry.name} needs {NEEDS[lacking]}")
    # After the checks above the parts hold all that the entry needs.
    return entry.build(cast(ServedParts, parts._replace(settings=entry.resolve(parts.settings))))


@readable
def load(path: str) -> Entry:
    """The entry of a user's `module:function`. This imports the module, so its code runs.

    The function takes the policy and returns an `Estimator`. Or it takes nothing and returns a `Baseline`, which the
    estimator subtracts from G_t. The entry states nothing about the bias.

    Raises:
        ValueError: if the module cannot be imported or has no such function. The estimator's `build` raises it if the
            function fails or returns another object; the message gives the file and the line of the failure.
    """
    wanted = f"the estimator {path} must be module:function"
    module_name, _, attribute = path.partition(":")
    if not module_name or not attribute:
        raise ValueError(wanted)
    try:
        module = importlib.import_module(module_name)
        function = getattr(module, attribute)
    except Exception as error:  # the user's module may raise anything
        raise ValueError(f"{wanted} that can be imported, but {described(error)}") from error
    if not callable(function):
        raise ValueError(f"the estimator {path} must be a function, got {type(function).__name__}")

    def build(parts: ServedParts) -> Estimator:
        made = _called(path, module, function, parts)
        if isinstance(made, Baseline):
            return estimators.make_estimator(parts.policy, baseline=_checked(path, made))
        if isinstance(made, Estimator):
            return made
        raise ValueError(
            f"the estimator {path} must be a function of the policy that returns an Estimator, or of nothing that "
            f"returns a Baseline; it returned {type(made).__name__}"
        )

    return Entry(name=path, label=path, build=build, source="yours", bias=NOT_STATED, joint=True)


def _called(path: str, module: ModuleType, function: Callable, parts: ServedParts) -> Any:
    try:
        required = [p for p in inspect.signature(function).parameters.values() if p.default is p.empty]
        required = [p for p in required if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        return function(parts.policy) if required else function()
    except Exception as error:  # the user's function may raise anything
        raise ValueError(
            f"the estimator {path} must be a function of the policy that returns an Estimator, or of nothing that "
            f"returns a Baseline; it failed: {described(error, module)}"
        ) from error


def _checked(path: str, baseline: Baseline) -> Baseline:
    """The baseline with a check that its predictions have the shape of the rewards, because others would broadcast."""

    def predict(state: PyTree, trajectory: Trajectory) -> jax.Array:
        values = baseline.predict(state, trajectory)
        found, wanted = list(jnp.shape(values)), list(trajectory.rewards.shape)
        if found != wanted:
            raise ValueError(f"the estimator {path}: its predict must return b [T, B] = {wanted}, got {found}")
        return values

    return baseline._replace(predict=predict)
