"""The estimators that the gradient laboratory compares: what each one is, and what it claims of itself."""

import importlib
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_lab.problems import Problem
from experiments.harness.runner import UsageError
from pgjax import baselines, estimators, exact, losses, rollouts
from pgjax.types import Baseline, Estimator, PyTree, Trajectory


class Entry(NamedTuple):
    """One estimator of the table.

    Attributes:
        make: problem → Estimator.
        bias: empty for an unbiased one, else why it is biased.
        needs: "oracle", "critic" or "", what the problem must offer.
        joint: whether the episodes of a batch weigh each other, so that the variance need not fall as 1/B.
        behaviour: whether it learns from the episodes of another θ.
        program: the exact moments of one episode's estimate by dynamic programming, where nothing is learnt; called
            with 64-bit numbers enabled.
        factor: B → the number by which its mean differs from the target, where that is all.
        natural: whether it estimates F⁺∇ρ.
        of_groups: k → the same entry by groups of k episodes, which weigh each other within their group alone; None
            where groups mean nothing to it.
    """

    make: Callable[[Problem], Estimator]
    bias: str = ""
    needs: str = ""
    joint: bool = False
    behaviour: bool = False
    program: Callable[[Problem, PyTree], exact.Moments] | None = None
    factor: Callable[[int], float] | None = None
    natural: bool = False
    of_groups: Callable[[int], "Entry"] | None = None


def weighted(returns=estimators.reward_to_go, **options) -> Callable[[Problem], Estimator]:
    """An entry's `make`: options may be functions of the problem."""

    def make(problem: Problem) -> Estimator:
        chosen = {name: f(problem) if callable(f) and name == "baseline" else f for name, f in options.items()}
        return estimators.make_estimator(problem.policy, returns=returns(), **chosen)

    return make


def by_groups(entry_of: Callable[[int | None], Entry]) -> Entry:
    """The entry by groups of k, made by `entry_of(k)`; here its one group is the whole batch, k = None."""
    return entry_of(None)._replace(joint=True, of_groups=entry_of)


def with_critic(form: str) -> Callable[[Problem], Estimator]:
    return lambda problem: estimators.make_critic_estimator(problem.policy, problem.critic, form=form)


def values_in_time(problem: Problem) -> Baseline:
    """b = V_t(X_t), the oracle's: what v(X_t) cannot know is how much time is left."""

    def predict(trajectory: Trajectory) -> jax.Array:
        table = jnp.asarray(problem.oracle.values_in_time.astype(trajectory.rewards.dtype))
        states = jax.vmap(jax.vmap(problem.state_of))(trajectory.obs)
        return jnp.take_along_axis(table, states, axis=1)

    return baselines.stateless(predict)


def natural(problem: Problem) -> Estimator:
    value = estimators.make_estimator(problem.policy, baseline=problem.value)

    def fisher(params):
        dtype = jax.tree.leaves(params)[0].dtype
        cast = lambda x: np.asarray(x).astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
        return exact.fisher_matrix(problem.policy.apply, params, jax.tree.map(cast, problem.oracle.mdp))

    return estimators.natural(value, problem.policy, damping=0.0, fisher=fisher)


def by_program(function: Callable, **options) -> Callable[[Problem, PyTree], exact.Moments]:
    """An entry's `program`; options may be functions of the oracle."""

    def program(problem: Problem, params: PyTree) -> exact.Moments:
        oracle = problem.oracle
        chosen = {name: option(oracle) if callable(option) else option for name, option in options.items()}
        return function(problem.policy.apply, params, oracle.mdp, **chosen)

    return program


def over_time(oracle) -> np.ndarray:
    """q(s, a), the same at all times, `[T, S, A]`."""
    return np.broadcast_to(oracle.action_values, (oracle.mdp.horizon, *oracle.action_values.shape))


G1, GT = estimators.total_return, estimators.reward_to_go
VALUE = lambda problem: problem.value
AVERAGE = lambda problem: baselines.moving_average(0.9, "first")
OLD_VISITS = "states visited as θ_old does"
contains_itself = lambda size: f"({size}−1)/{size}: the mean contains the episode itself"
OWN_SAMPLE = contains_itself("B")
NOT_STATED = "not stated"
TOTAL, TO_GO, LAMBDA = exact.total_return_moments, exact.reward_to_go_moments, exact.lambda_return_moments
OF_STATE = lambda oracle: oracle.values

CATALOGUE: dict[str, Entry] = {
    "G₁": Entry(weighted(G1), program=by_program(TOTAL)),
    "G₁ − ρ̂": Entry(weighted(G1, baseline=AVERAGE)),
    "G₁ − b*, learned": Entry(weighted(G1, baseline=lambda p: baselines.optimal_constant(0.95))),
    "G₁ − b*, natural norm, learned": Entry(
        weighted(G1, baseline=lambda p: baselines.optimal_constant(0.95, "natural"))
    ),
    "G₁ − b*, exact": Entry(
        weighted(G1, baseline=lambda p: baselines.constant(p.oracle.best_constant)),
        needs="oracle",
        program=by_program(TOTAL, baseline=lambda oracle: oracle.best_constant),
    ),
    "G₁ − b*ⱼ per parameter": Entry(lambda p: estimators.per_parameter(p.policy, decay=0.95)),
    "G₁ − greedy episode": Entry(weighted(G1, baseline=lambda p: baselines.greedy_rollout())),
    "G₁, leave-one-out (RLOO)": by_groups(
        lambda k: Entry(weighted(G1, baseline=lambda p: baselines.leave_one_out(group_size=k)))
    ),
    "G₁, batch mean (Dr. GRPO)": by_groups(
        lambda k: Entry(
            weighted(G1, baseline=lambda p: baselines.batch_mean(group_size=k)),
            OWN_SAMPLE if k is None else contains_itself("k"),
            factor=lambda batch: 1.0 - 1.0 / (k or batch),
        )
    ),
    "G₁, standardised (GRPO)": by_groups(
        lambda k: Entry(weighted(G1, standardise="group_population", group_size=k), "divided by the group's own spread")
    ),
    "Gₜ (GPOMDP)": Entry(weighted(), program=by_program(TO_GO)),
    "Gₜ, γ = 0.9 without γᵗ": Entry(
        weighted(lambda: GT(0.9)), "follows the gradient of no objective", program=by_program(TO_GO, discount=0.9)
    ),
    "Gₜ − ρ̂": Entry(weighted(baseline=AVERAGE)),
    "Gₜ − bₜ": Entry(weighted(baseline=lambda p: baselines.time_dependent(0.9))),
    "Gₜ − b*ₜ, learned": Entry(weighted(baseline=lambda p: baselines.optimal_time_dependent(0.95))),
    "Gₜ − b*(Xₜ), learned": Entry(
        weighted(baseline=lambda p: baselines.optimal_state(p.state_of, p.num_states, decay=0.95)), needs="oracle"
    ),
    "Gₜ − v(Xₜ)": Entry(weighted(baseline=VALUE), program=by_program(TO_GO, baseline=OF_STATE)),
    "Gₜ − Vₜ(Xₜ), exact": Entry(
        weighted(baseline=values_in_time),
        needs="oracle",
        program=by_program(TO_GO, baseline=lambda oracle: oracle.values_in_time),
    ),
    # Every weight is one too large: whatever was tried is pushed up.
    "Gₜ − v(Xₜ) + 1": Entry(
        weighted(baseline=lambda p: baselines.shifted(p.value, -1.0)),
        program=by_program(TO_GO, baseline=lambda oracle: oracle.values - 1.0),
    ),
    "Gₜ, leave-one-out": by_groups(lambda k: Entry(weighted(baseline=lambda p: baselines.leave_one_out("live", k)))),
    "GAE, λ = 0.9": Entry(
        weighted(lambda: estimators.lambda_return(0.9), baseline=VALUE),
        "the error of v",
        program=by_program(LAMBDA, values=OF_STATE, lambda_=0.9),
    ),
    "TD, λ = 0": Entry(
        weighted(lambda: estimators.lambda_return(0.0), baseline=VALUE),
        "the error of v",
        program=by_program(LAMBDA, values=OF_STATE, lambda_=0.0),
    ),
    "actor-critic, mean over steps, standardised": Entry(
        weighted(baseline=VALUE, over_time="mean", standardise="population"), "divided by length and spread", joint=True
    ),
    "all actions, q": Entry(
        with_critic("all_action"),
        "the error of q",
        needs="critic",
        program=by_program(exact.all_action_moments, values=over_time),
    ),
    "Gₜ − q(Xₜ, Aₜ), corrected": Entry(
        with_critic("action_dependent"),
        needs="critic",
        program=by_program(TO_GO, baseline=over_time, correction="expected"),
    ),
    "Gₜ − q(Xₜ, Aₜ), uncorrected": Entry(
        with_critic("uncorrected"),
        "the correction is missing",
        needs="critic",
        program=by_program(TO_GO, baseline=over_time),
    ),
    "trajectory-wise control variate": Entry(with_critic("trajectory_wise"), needs="critic"),
    "off-policy, per decision": Entry(
        lambda p: estimators.importance_weighted(p.policy, baseline=p.value, weighting="per_decision"),
        needs="oracle",
        behaviour=True,
    ),
    "off-policy, whole episodes": Entry(
        lambda p: estimators.importance_weighted(p.policy, baseline=p.value, weighting="trajectory"),
        needs="oracle",
        behaviour=True,
    ),
    "off-policy, own ratio": Entry(
        weighted(baseline=VALUE, objective=losses.importance_weighted_objective),
        OLD_VISITS,
        needs="oracle",
        behaviour=True,
    ),
    "off-policy, clipped (PPO)": Entry(
        weighted(baseline=VALUE, objective=estimators.clipped_surrogate(0.2)),
        OLD_VISITS,
        needs="oracle",
        behaviour=True,
    ),
    "natural, Gₜ − v(Xₜ)": Entry(natural, needs="oracle", natural=True),
}


def chosen(
    problem: Problem, batch: int, names: tuple[str, ...], own: tuple[str, ...], group_size: int = 1
) -> tuple[dict[str, Entry], dict[str, str]]:
    """The entries that the problem and the batch have room for, then the user's own; and the others, each with why not.

    Args:
        names: of the catalogue, whole or a part of one; all of it if empty.
        group_size: k, episodes that share a start; with k > 1 an entry that knows groups works within them.

    Raises:
        UsageError: for a name that nothing matches or that there is no room for, or a `module:function` that cannot
            be used.
    """
    lacking = {
        "oracle": "" if problem.oracle else "needs a tabular problem",
        "critic": "" if problem.critic else "needs discrete actions",
    }
    wanted = [name for part in names for name in _matching(part)] or [*CATALOGUE]
    found, left_out = {}, {}
    for name, entry in CATALOGUE.items():
        reason = lacking.get(entry.needs, "") or ("needs --batch 2 or more" if entry.joint and batch < 2 else "")
        if name in wanted:
            grouped = entry.of_groups(group_size) if entry.of_groups and group_size > 1 else entry
            (left_out if reason else found)[name] = reason or grouped
    if names and left_out:
        name, reason = next(iter(left_out.items()))
        raise UsageError(f"--only “{name}”: {reason}")
    return found | {path: load(path, problem, batch, group_size) for path in own}, left_out


def _matching(part: str) -> list[str]:
    if part in CATALOGUE:
        return [part]
    found = [name for name in CATALOGUE if part.lower() in name.lower()]
    if not found:
        names = ", ".join(f"“{name}”" for name in CATALOGUE)
        raise UsageError(f"--only {part}: must be, or be a part of, one of {names}")
    return found


def load(path: str, problem: Problem, batch: int, group_size: int = 1) -> Entry:
    """A user's `module:function`: policy → Estimator, or nothing → Baseline, which is subtracted from G_t."""
    module, _, function = path.partition(":")
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--estimator {path}: must be module:function that can be imported ({error})") from error
    if not callable(build):
        raise UsageError(f"--estimator {path}: must be a function, got {type(build).__name__}")

    def make(problem: Problem) -> Estimator:
        required = [p for p in inspect.signature(build).parameters.values() if p.default is p.empty]
        made = build(problem.policy) if required else build()
        if isinstance(made, Baseline):
            _check_shape(path, made, problem, batch)
            return estimators.make_estimator(problem.policy, baseline=made)
        if isinstance(made, Estimator):
            return made
        raise UsageError(f"--estimator {path}: must return an Estimator or a Baseline, got {type(made).__name__}")

    # What cannot be made is refused before the long measurements.
    wanted = make(problem).needs.group_size or group_size
    if wanted != group_size:
        raise UsageError(f"--estimator {path}: needs --group-size {wanted} (groups share a start), got {group_size}")
    return Entry(make, bias=NOT_STATED, joint=True)


def _check_shape(path: str, baseline: Baseline, problem: Problem, batch: int) -> None:
    def predict() -> jax.Array:
        keys = jax.random.split(jax.random.key(0), batch)
        episodes = rollouts.episodes(problem.environment, problem.policy, problem.params, keys)
        episodes = episodes._replace(returns=episodes.rewards, greedy_returns=episodes.rewards)
        return baseline.predict(baseline.init(jax.random.key(0), episodes), episodes)

    found, wanted = jnp.shape(jax.eval_shape(predict)), (problem.environment.horizon, batch)
    if found != wanted:
        raise UsageError(f"--estimator {path}: its predict must return b [T, B] = {list(wanted)}, got {list(found)}")
