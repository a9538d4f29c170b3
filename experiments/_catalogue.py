"""The estimators that the gradient laboratory compares: what each one is, and what it claims of itself."""

import importlib
import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments._problems import Problem
from experiments._runner import UsageError
from pgjax import baselines, estimators, exact, losses
from pgjax.types import Baseline, Estimator, Trajectory


class Entry(NamedTuple):
    """One estimator of the table.

    Attributes:
        make: problem → Estimator.
        bias: empty for an unbiased one, else why it is biased.
        needs: "oracle", "critic" or "", what the problem must offer.
        joint: whether the episodes of a batch weigh each other, so that the variance need not fall as 1/B.
        behaviour: whether it learns from the episodes of another θ.
        natural: whether it estimates F⁺∇ρ.
        enumerable: whether the trajectory alone decides it: a greedy episode depends on the randomness besides.
    """

    make: Callable[[Problem], Estimator]
    bias: str = ""
    needs: str = ""
    joint: bool = False
    behaviour: bool = False
    natural: bool = False
    enumerable: bool = True


def weighted(returns=estimators.reward_to_go, **options) -> Callable[[Problem], Estimator]:
    """An entry's `make`: options may be functions of the problem."""

    def make(problem: Problem) -> Estimator:
        chosen = {name: f(problem) if callable(f) and name == "baseline" else f for name, f in options.items()}
        return estimators.make_estimator(problem.policy, returns=returns(), **chosen)

    return make


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


G1, GT = estimators.total_return, estimators.reward_to_go
VALUE = lambda problem: problem.value
AVERAGE = lambda problem: baselines.moving_average(0.9, "first")
OLD_VISITS = "states visited as θ_old does"
OWN_SAMPLE = "(B−1)/B: the mean contains the own episode"

CATALOGUE: dict[str, Entry] = {
    "G₁": Entry(weighted(G1)),
    "G₁ − ρ̂": Entry(weighted(G1, baseline=AVERAGE)),
    "G₁ − b*, learned": Entry(weighted(G1, baseline=lambda p: baselines.optimal_constant(0.95))),
    "G₁ − b*, exact": Entry(
        weighted(G1, baseline=lambda p: baselines.constant(p.oracle.best_constant)), needs="oracle"
    ),
    "G₁ − b*ⱼ per parameter": Entry(lambda p: estimators.per_parameter(p.policy, decay=0.95)),
    "G₁, leave-one-out (RLOO)": Entry(weighted(G1, baseline=lambda p: baselines.leave_one_out()), joint=True),
    "G₁, batch mean (Dr. GRPO)": Entry(
        weighted(G1, baseline=lambda p: baselines.batch_mean()), OWN_SAMPLE, joint=True
    ),
    "G₁, standardised (GRPO)": Entry(
        weighted(G1, standardise="group_population"), "divided by the batch's own spread", joint=True
    ),
    "Gₜ (GPOMDP)": Entry(weighted()),
    "Gₜ, γ = 0.9 without γᵗ": Entry(weighted(lambda: GT(0.9)), "follows the gradient of no objective"),
    "Gₜ − ρ̂": Entry(weighted(baseline=AVERAGE)),
    "Gₜ − bₜ": Entry(weighted(baseline=lambda p: baselines.time_dependent(0.9))),
    "Gₜ − b*(Xₜ), learned": Entry(
        weighted(baseline=lambda p: baselines.optimal_state(p.state_of, p.num_states, decay=0.95)), needs="oracle"
    ),
    "Gₜ − v(Xₜ)": Entry(weighted(baseline=VALUE)),
    "Gₜ − Vₜ(Xₜ), exact": Entry(weighted(baseline=values_in_time), needs="oracle"),
    "Gₜ − v(Xₜ) + 1": Entry(weighted(baseline=lambda p: baselines.shifted(p.value, -1.0))),
    "Gₜ, leave-one-out": Entry(weighted(baseline=lambda p: baselines.leave_one_out("live")), joint=True),
    "G₁ − greedy episode": Entry(weighted(G1, baseline=lambda p: baselines.greedy_rollout()), enumerable=False),
    "GAE, λ = 0.9": Entry(weighted(lambda: estimators.lambda_return(0.9), baseline=VALUE), "the error of v"),
    "TD, λ = 0": Entry(weighted(lambda: estimators.lambda_return(0.0), baseline=VALUE), "the error of v"),
    "actor-critic, mean over steps, standardised": Entry(
        weighted(baseline=VALUE, over_time="mean", standardise="population"), "divided by length and spread", joint=True
    ),
    "all actions, q": Entry(with_critic("all_action"), "the error of q", needs="critic"),
    "Gₜ − q(Xₜ, Aₜ), corrected": Entry(with_critic("action_dependent"), needs="critic"),
    "Gₜ − q(Xₜ, Aₜ), uncorrected": Entry(with_critic("uncorrected"), "the correction is missing", needs="critic"),
    "trajectory-wise control variate": Entry(with_critic("trajectory_wise"), needs="critic"),
    "off-policy, per decision": Entry(
        lambda p: estimators.importance_weighted(p.policy, baseline=p.value, weighting="per_decision"),
        needs="oracle",
        behaviour=True,
    ),
    "off-policy, own ratio": Entry(
        weighted(baseline=VALUE, loss=losses.importance_weighted_loss), OLD_VISITS, needs="oracle", behaviour=True
    ),
    "off-policy, clipped (PPO)": Entry(
        weighted(baseline=VALUE, loss=estimators.clipped_surrogate(0.2)), OLD_VISITS, needs="oracle", behaviour=True
    ),
    "natural, Gₜ − v(Xₜ)": Entry(natural, needs="oracle", natural=True),
}


def chosen(problem: Problem, names: tuple[str, ...], own: tuple[str, ...]) -> dict[str, Entry]:
    """The entries that the problem has room for, in order, and then the user's own.

    Raises:
        UsageError: for a name that is not in the catalogue, or a `module:function` that cannot be used.
    """
    unknown = set(names) - set(CATALOGUE)
    if unknown:
        raise UsageError(f"--only {sorted(unknown)[0]}: must be among {', '.join(CATALOGUE)}")
    offers = {
        "": True,
        "oracle": problem.oracle is not None,
        "critic": problem.critic is not None,
    }
    found = {
        name: entry for name, entry in CATALOGUE.items() if name in (names or CATALOGUE) and offers[entry.needs]
    }
    loaded = {path: load(path) for path in own}
    for entry in loaded.values():
        entry.make(problem)  # what cannot be made is refused before the long measurements
    return found | loaded


def load(path: str) -> Entry:
    """A user's `module:function`: policy → Estimator, or nothing → Baseline, which is subtracted from G_t."""
    module, _, function = path.partition(":")
    try:
        build = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise UsageError(f"--estimator {path}: must be module:function that can be imported ({error})") from error

    def make(problem: Problem) -> Estimator:
        required = [p for p in inspect.signature(build).parameters.values() if p.default is p.empty]
        made = build(problem.policy) if required else build()
        if isinstance(made, Baseline):
            return estimators.make_estimator(problem.policy, baseline=made)
        if isinstance(made, Estimator):
            return made
        raise UsageError(f"--estimator {path}: must return an Estimator or a Baseline, got {type(made).__name__}")

    return Entry(make, bias="not stated", joint=True)
