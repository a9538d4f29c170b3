"""The cells of the exact table: every estimator × way of adding up × form of the KL term, as estimates of one batch.

Axes: E estimators, A ways of adding up, F forms, N answers, M prefixes, V tokens, k answers of a group, P = M V.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.kl_placement.answers import Problem
from experiments.kl_placement.forms import OVER_TIME, Form, Part, unused_key
from pgjax import baselines, estimators, exact, registry, rewards
from pgjax.advantages.steps import OverTime
from pgjax.types import Estimator, PyTree, Rewards, Trajectory

NO_TERM = "no KL term"
# What theory says of a form: "exact"; "zero", for a term whose expected gradient is 0; "in both", for one that is exact
# if the estimator has no factor; "biased".
FORMS: Mapping[str, Form] = {
    NO_TERM: Form((), "zero"),
    "k1 in the reward": Form((Part("reward", "k1"),), "exact"),
    "k2 in the reward": Form((Part("reward", "k2"),), "biased"),
    "k3 in the reward": Form((Part("reward", "k3"),), "biased"),
    "full in the reward": Form((Part("reward", "full"),), "biased"),
    "k1 in the reward, at the end": Form((Part("reward", "k1", "sequence"),), "exact"),
    "k2 in the reward, at the end": Form((Part("reward", "k2", "sequence"),), "biased"),
    "k3 in the reward, at the end": Form((Part("reward", "k3", "sequence"),), "biased"),
    "full in the reward, at the end": Form((Part("reward", "full", "sequence"),), "biased"),
    "k1 in the loss": Form((Part("loss", "k1"),), "zero"),
    "k2 in the loss": Form((Part("loss", "k2"),), "biased"),
    "k3 in the loss": Form((Part("loss", "k3"),), "biased"),
    "full in the loss": Form((Part("loss", "full"),), "biased"),
    "k1 in the loss, sequence": Form((Part("loss", "k1", "sequence"),), "zero"),
    "k2 in the loss, sequence": Form((Part("loss", "k2", "sequence"),), "exact"),
    "k3 in the loss, sequence": Form((Part("loss", "k3", "sequence"),), "biased"),
    "k3 in reward and loss": Form((Part("reward", "k3"), Part("loss", "k3")), "in both"),
    "full in reward and loss": Form((Part("reward", "full"), Part("loss", "full")), "in both"),
}
# Names in the registry. `ppo` is the first epoch of PPO-clip, where every ratio is 1 and nothing is clipped.
FIRST_EPOCH = "ppo"
ESTIMATORS = {
    "reinforce": "REINFORCE, no baseline",
    "reinforce_moving_average": "REINFORCE, moving average",
    "rloo": "RLOO",
    "dr_grpo": "Dr. GRPO",
    "grpo": "GRPO",
    "gpomdp": "reward-to-go",
    "gpomdp_leave_one_out": "reward-to-go, leave-one-out",
    "reinforce_plus_plus": "REINFORCE++",
    FIRST_EPOCH: "PPO-clip, first epoch, exact v",
}
BASE = ("rloo", "sum", "k1 in the reward")
_PARTS = tuple(dict.fromkeys(part for form in FORMS.values() for part in form.parts))
PAID = (None, *(part for part in _PARTS if part.placement == "reward"))
LOST = tuple(part for part in _PARTS if part.placement == "loss")


class Setting(NamedTuple):
    """A problem at a fixed policy.

    Attributes:
        problem: all answers.
        params, reference: θ and θ_ref, `[M, V]`.
        kl_coef: β.
        probabilities: of each answer, `[N]`.
        group_size: k; a batch is one group of k answers to the one prompt.
    """

    problem: Problem
    params: jax.Array
    reference: jax.Array
    kl_coef: float
    probabilities: jax.Array
    group_size: int


def make_setting(problem: Problem, params: jax.Array, reference: jax.Array, kl_coef: float, group_size: int) -> Setting:
    return Setting(
        problem=problem,
        params=params,
        reference=reference,
        kl_coef=kl_coef,
        probabilities=exact.trajectory_probabilities(problem.policy.apply, params, problem.every),
        group_size=group_size,
    )


def stage_of(setting: Setting, part: Part | None) -> Rewards:
    """The reward stage of a term in the reward; `as_paid` if there is none."""
    if part is None:
        return rewards.as_paid()
    how = {"kind": part.kind, "level": part.level}
    return rewards.kl_penalty(setting.problem.policy, setting.kl_coef, setting.reference, **how)


def loss_of(setting: Setting, part: Part, over_time: OverTime) -> Estimator:
    how = {"kind": part.kind, "level": part.level, "over_time": over_time}
    return estimators.kl_loss(setting.problem.policy, setting.kl_coef, setting.reference, **how)


def paid_by(setting: Setting, part: Part | None, acted: Trajectory) -> jax.Array:
    """The rewards `[T, B]` after the stage of this term; `acted` holds the log-probabilities of θ."""
    stage = stage_of(setting, part)
    return stage.relabel(setting.params, stage.init(unused_key(), setting.params), acted)[0].rewards


def made_for(setting: Setting, name: str, over_time: OverTime, paid: jax.Array) -> tuple[Estimator, PyTree]:
    """The estimator of the registry and its state, for the rewards `[T, N]` that its stage pays for all answers.

    The moving average stands at its expectation E[Σ_t R_{t+1}], where it stands after many batches of this policy. The
    critic of PPO is the exact value of the rewards.
    """
    values = values_of(setting, paid)
    parts = registry.Parts(
        policy=setting.problem.policy,
        value=baselines.state_values(lambda prefix: values[prefix]),
        group_size=setting.group_size,
        settings=registry.Settings(over_time=over_time),
    )
    made = registry.make(name, parts)
    state = made.init(unused_key(), setting.problem.every.trajectories)
    if name == "reinforce_moving_average":
        mean = jnp.sum(setting.probabilities * jnp.sum(paid, axis=0))
        state = state._replace(estimate=mean, num_updates=jnp.ones_like(state.num_updates))
    return made, state


def values_of(setting: Setting, paid: jax.Array) -> jax.Array:
    """E[Σ_{l≥t} R_{l+1} | prefix] of each prefix `[M]`, for the rewards `[T, N]` of all answers."""
    every = setting.problem.every.trajectories
    to_go = jnp.cumsum(paid[::-1], axis=0)[::-1]
    weights = jnp.where(every.alive, setting.probabilities[None], 0.0)
    zeros = jnp.zeros(setting.params.shape[0])
    return zeros.at[every.obs].add(weights * to_go) / zeros.at[every.obs].add(weights)


def mean_of(estimator: Estimator, state: PyTree, setting: Setting, batch: Trajectory) -> jax.Array:
    """The estimate from a batch, `[P]`: the mean of its summands, which compiles faster than `gradient`."""
    return jnp.mean(estimator.episode_gradients(setting.params, state, batch), axis=0).ravel()


def estimates_of(
    setting: Setting, names: Sequence[str] = tuple(ESTIMATORS), ways: Sequence[OverTime] = tuple(OVER_TIME)
) -> Callable[[Trajectory], jax.Array]:
    """Return `batch of k answers → all estimates [E, A, F, P]` of these estimators and ways of adding up.

    Each is what `sum_of` of the estimator and its losses gives after the reward stage. Estimates of one batch share
    their terms, because a sum of estimators adds estimates.
    """
    acted = estimators.record_behaviour(setting.problem.policy, setting.params, setting.problem.every.trajectories)
    of_all = jnp.stack([paid_by(setting, part, acted) for part in PAID])
    place = {part: number for number, part in enumerate(PAID)}

    def estimates(batch: Trajectory) -> jax.Array:
        acted = estimators.record_behaviour(setting.problem.policy, setting.params, batch)
        paid = jnp.stack([paid_by(setting, part, acted) for part in PAID])

        def with_rewards(name: str, over_time: OverTime) -> jax.Array:
            def one(own: jax.Array, all_own: jax.Array) -> jax.Array:
                return mean_of(*made_for(setting, name, over_time, all_own), setting, acted._replace(rewards=own))

            return jax.vmap(one)(paid, of_all)

        lost = {}
        for over_time in ways:
            for part in LOST:
                loss = loss_of(setting, part, over_time)
                lost[over_time, part] = mean_of(loss, loss.init(unused_key(), acted), setting, acted)

        def cells(name: str, over_time: OverTime) -> jax.Array:
            found = with_rewards(name, over_time)
            rows = []
            for form in FORMS.values():
                first = next((part for part in form.parts if part.placement == "reward"), None)
                terms = [lost[over_time, part] for part in form.parts if part.placement == "loss"]
                rows.append(sum(terms, found[place[first]]))
            return jnp.stack(rows)

        return jnp.stack([jnp.stack([cells(name, over_time) for over_time in ways]) for name in names])

    return estimates
