"""Entries of other estimators: with a critic q(Xₜ, Aₜ), from another policy's episodes, and the natural gradient."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import estimators, exact, losses
from pgjax.acting import require_memoryless
from pgjax.estimators.critic import CriticForm
from pgjax.estimators.importance import RatioWeighting
from pgjax.registry.builders import (
    WITH_VALUE,
    by_program,
    lambda_return,
    over_time,
    reward_to_go,
    total_return,
    value,
    weighted,
)
from pgjax.registry.entry import CompleteSettings, Entry, ServedParts, Settings
from pgjax.types import Estimator, PyTree

PREDICTED = Settings(discount=1.0, decay=0.9)
OLD_VISITS = "the states are those that θ_old visits"


def with_critic(form: CriticForm) -> Callable[[ServedParts], Estimator]:
    """The field `build` of an estimator that uses the critic in this form."""
    return lambda parts: estimators.make_critic_estimator(
        parts.policy, parts.critic, form=form, returns=reward_to_go(parts.settings)
    )


def importance_weighted(
    weighting: RatioWeighting, returns: Callable[[CompleteSettings], Any]
) -> Callable[[ServedParts], Estimator]:
    """The field `build` of an estimator that weighs the episodes of another policy by ratios of probabilities."""
    return lambda parts: estimators.importance_weighted(
        parts.policy, returns=returns(parts.settings), baseline=parts.value, weighting=weighting
    )


def natural_value(parts: ServedParts, fisher: Callable[[PyTree], jax.Array] | None = None) -> Estimator:
    """(F + δI)⁻¹ of Gₜ − v(Xₜ). Without `fisher` F is estimated from the same episodes, by conjugate gradients."""
    estimator = weighted(reward_to_go, value)(parts)
    return estimators.natural(estimator, parts.policy, damping=parts.settings.damping, fisher=fisher)


def natural_gae(parts: ServedParts) -> Estimator:
    """`natural_value` with λ-returns, which also learn from windows; F is then that of the steps of a window."""
    estimator = weighted(lambda_return, value)(parts)
    return estimators.natural(estimator, parts.policy, damping=parts.settings.damping)


def natural_exact_value(parts: ServedParts) -> Estimator:
    """`natural_value` with the exact F of the oracle."""

    def fisher(params: PyTree) -> jax.Array:
        dtype = jax.tree.leaves(params)[0].dtype
        cast = lambda x: np.asarray(x).astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x
        apply = require_memoryless(parts.policy, "registry.natural_exact_value")
        return exact.fisher_matrix(apply, params, jax.tree.map(cast, parts.oracle.mdp))

    return natural_value(parts, fisher)


def clipped(settings: CompleteSettings) -> Callable:
    """PPO's objective with the ε of the settings."""
    return estimators.clipped_surrogate(settings.clip)


ENTRIES = (
    Entry(
        name="all_action",
        label="all actions, q",
        build=with_critic("all_action"),
        source="Sutton, McAllester, Singh & Mansour 2000; Ciosek & Whiteson 2018",
        bias="the error of q",
        settings=PREDICTED,
        needs=("critic",),
        program=by_program(lambda: exact.all_action_moments, "discount", values=over_time),
    ),
    Entry(
        name="action_dependent",
        label="Gₜ − q(Xₜ, Aₜ), corrected",
        build=with_critic("action_dependent"),
        source="Gu et al. 2017; Liu et al. 2018; Wu et al. 2018",
        settings=PREDICTED,
        needs=("critic",),
        program=by_program(lambda: exact.reward_to_go_moments, "discount", baseline=over_time, correction="expected"),
    ),
    Entry(
        name="action_dependent_uncorrected",
        label="Gₜ − q(Xₜ, Aₜ), uncorrected",
        build=with_critic("uncorrected"),
        source="Tucker et al. 2018",
        bias="the correction is missing",
        settings=PREDICTED,
        needs=("critic",),
        program=by_program(lambda: exact.reward_to_go_moments, "discount", baseline=over_time),
    ),
    Entry(
        name="trajectory_wise",
        label="trajectory-wise control variate",
        build=with_critic("trajectory_wise"),
        source="Cheng, Yan & Boots 2020",
        settings=PREDICTED,
        needs=("critic",),
    ),
    Entry(
        name="importance_per_decision",
        label="off-policy, per decision",
        build=importance_weighted("per_decision", reward_to_go),
        source="Precup, Sutton & Singh 2000; Jie & Abbeel 2010",
        settings=PREDICTED,
        needs=("value",),
        behaviour=True,
    ),
    Entry(
        name="importance_trajectory",
        label="off-policy, whole episodes",
        build=importance_weighted("trajectory", total_return),
        source="Precup, Sutton & Singh 2000; Jie & Abbeel 2010",
        settings=PREDICTED,
        needs=("value",),
        behaviour=True,
    ),
    Entry(
        name="off_policy_ratio",
        label="off-policy, own ratio",
        build=weighted(reward_to_go, value, lambda settings: losses.importance_weighted_objective),
        source="Schulman et al. 2015",
        bias=OLD_VISITS,
        settings=WITH_VALUE,
        needs=("value",),
        behaviour=True,
    ),
    Entry(
        name="ppo",
        label="off-policy, clipped (PPO)",
        build=weighted(reward_to_go, value, clipped),
        source="Schulman et al. 2017",
        bias=OLD_VISITS,
        settings=replace(WITH_VALUE, clip=0.2),
        needs=("value",),
        behaviour=True,
    ),
    Entry(
        name="ppo_gae",
        label="off-policy, clipped (PPO), GAE, λ",
        build=weighted(lambda_return, value, clipped),
        source="Schulman et al. 2017",
        bias=f"the error of v, and {OLD_VISITS}",
        settings=replace(WITH_VALUE, lambda_=0.9, clip=0.2),
        needs=("value",),
        behaviour=True,
        windows=True,
    ),
    Entry(
        name="natural_value",
        label="natural, Gₜ − v(Xₜ)",
        build=natural_value,
        source="Kakade 2002; Peters & Schaal 2008",
        bias="F is estimated from the same episodes",
        settings=replace(WITH_VALUE, damping=0.0),
        needs=("value",),
        joint=True,
        natural=True,
    ),
    Entry(
        name="natural_gae",
        label="natural, GAE, λ",
        build=natural_gae,
        source="Kakade 2002; Schulman et al. 2015, 2016",
        bias="the error of v; F is estimated from the same steps",
        settings=replace(WITH_VALUE, lambda_=0.9, damping=0.0),
        needs=("value",),
        joint=True,
        natural=True,
        windows=True,
    ),
    Entry(
        name="natural_exact_value",
        label="natural, Gₜ − v(Xₜ), exact F",
        build=natural_exact_value,
        source="Kakade 2002; Peters & Schaal 2008",
        settings=replace(WITH_VALUE, damping=0.0),
        needs=("value", "oracle"),
        natural=True,
    ),
)
