"""The forms of a KL penalty, and the exact moments of what each adds to a gradient.

Axes: N answers, T tokens, B answers of a batch, F forms in the reward, M prefixes, V tokens of the vocabulary.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.kl_placement.answers import Problem, divergence
from pgjax import estimators, exact, rewards
from pgjax.advantages.steps import OverTime
from pgjax.types import Trajectory


def unused_key() -> jax.Array:
    """A key for states that draw nothing. It is made when it is needed, because a key at import would start JAX."""
    return jax.random.key(0)


OVER_TIME: dict[OverTime, str] = {
    "sum": "sum over the answer",
    "episode_mean": "1/|o|, the answer's own length",
    "mean": "mean over the batch's tokens",
    "horizon": "1/T, a constant",
}


class Part(NamedTuple):
    """One term: the words of `rewards.kl_penalty` (placement "reward") or of `estimators.kl_loss` ("loss")."""

    placement: str
    kind: str
    level: str = "token"
    ratio: str = "none"


class Form(NamedTuple):
    """A form of the penalty: its parts, and what its expected gradient is: "exact", "zero" or "biased"."""

    parts: tuple[Part, ...]
    expected: str


FORMS: Mapping[str, Form] = {
    "k1 in the reward": Form((Part("reward", "k1"),), "exact"),
    "k1 in the reward, at the end": Form((Part("reward", "k1", "sequence"),), "exact"),
    "k2 in the reward": Form((Part("reward", "k2"),), "biased"),
    "k3 in the reward": Form((Part("reward", "k3"),), "biased"),
    "full in the reward": Form((Part("reward", "full"),), "biased"),
    "k1 in the loss": Form((Part("loss", "k1"),), "zero"),
    "k2 in the loss": Form((Part("loss", "k2"),), "biased"),
    "k3 in the loss": Form((Part("loss", "k3"),), "biased"),
    "full in the loss": Form((Part("loss", "full"),), "biased"),
    "k2 in the loss, sequence": Form((Part("loss", "k2", "sequence"),), "exact"),
    "k3 in the loss, sequence": Form((Part("loss", "k3", "sequence"),), "biased"),
    "k3 in the loss × ratio": Form((Part("loss", "k3", "token", "importance"),), "biased"),
    "k3 in the loss × ratio, sequence": Form((Part("loss", "k3", "sequence", "importance"),), "exact"),
    "k3 in reward and loss": Form((Part("reward", "k3"), Part("loss", "k3")), "exact"),
    "full in reward and loss": Form((Part("reward", "full"), Part("loss", "full")), "exact"),
}
BASE = "k1 in the reward"


def summands(
    problem: Problem, params: jax.Array, reference: jax.Array, batch: Trajectory, over_time: OverTime
) -> dict[str, jax.Array]:
    """Return form → what each answer of the batch adds to the estimate of ∇KL, `[B, M, V]`.

    It is what the real estimators with β = 1 and no score give, times −1. The reward forms use the reward-to-go without
    a baseline.
    """
    parts = dict.fromkeys(part for form in FORMS.values() for part in form.parts)
    acted = estimators.record_behaviour(problem.policy, params, batch)
    acted = rewards.relabel(acted, jnp.zeros_like(acted.rewards))
    paid = {}
    for part in (part for part in parts if part.placement == "reward"):
        stage = rewards.kl_penalty(problem.policy, 1.0, reference, kind=part.kind, level=part.level)
        paid[part] = stage.relabel(params, stage.init(unused_key(), params), acted)[0].rewards
    to_go = estimators.make_estimator(problem.policy, over_time=over_time)
    each = jax.vmap(lambda paid: to_go.episode_gradients(params, (), acted._replace(rewards=paid)))
    found = dict(zip(paid, each(jnp.stack(list(paid.values()))), strict=True))
    for part in (part for part in parts if part.placement == "loss"):
        how = {"kind": part.kind, "level": part.level, "ratio": part.ratio, "over_time": over_time}
        loss = estimators.kl_loss(problem.policy, 1.0, reference, **how)
        found[part] = loss.episode_gradients(params, loss.init(unused_key(), acted), acted)
    return {name: -sum(found[part] for part in form.parts) for name, form in FORMS.items()}


class Grades(NamedTuple):
    """How an estimate compares with the exact ∇KL.

    Attributes:
        norm_ratio: ‖E ĝ‖ / ‖∇KL‖.
        cosine: the cosine of E ĝ with ∇KL; NaN if E ĝ = 0.
        error: ‖E ĝ − ∇KL‖ / ‖∇KL‖.
        variance: tr Var of the estimate from one answer.
    """

    norm_ratio: jax.Array
    cosine: jax.Array
    error: jax.Array
    variance: jax.Array


def graded(mean: jax.Array, variance: jax.Array, truth: jax.Array) -> Grades:
    """Return the grades of an estimate with this mean and this tr Var; the truth is ∇KL `[M, V]`."""
    norm, length = jnp.linalg.norm(mean), jnp.linalg.norm(truth)
    zero = norm < 1e-12 * length
    cosine = jnp.where(zero, jnp.nan, jnp.sum(mean * truth) / jnp.where(zero, 1.0, norm) / length)
    return Grades(
        norm_ratio=norm / length, cosine=cosine, error=jnp.linalg.norm(mean - truth) / length, variance=variance
    )


def grade(
    problem: Problem, params: jax.Array, reference: jax.Array, over_time: OverTime = "sum"
) -> tuple[dict[str, Grades], jax.Array]:
    """Return form → its grades with single answers as batches, and KL(π ‖ π_ref).

    `"mean"` depends on the lengths of the other answers in the batch; for it the batches have two answers, and the
    variance is twice that of the mean of the two.
    """
    truth = jax.grad(divergence, argnums=1)(problem, params, reference)
    probabilities = exact.trajectory_probabilities(problem.policy.apply, params, problem.every)
    if over_time == "mean":
        pair = lambda batch: jax.tree.map(
            lambda x: x.mean(axis=0), summands(problem, params, reference, batch, over_time)
        )
        moments = exact.estimator_moments(pair, problem.every, probabilities, 2, batch_size=512)
        of = lambda name: (moments.mean[name], 2 * jnp.sum(moments.variance[name]))
    else:
        each = summands(problem, params, reference, problem.every.trajectories, over_time)
        found = {name: exact.moments_of(x, probabilities) for name, x in each.items()}
        of = lambda name: (found[name].mean, found[name].total_variance)
    return {name: graded(*of(name), truth) for name in FORMS}, divergence(problem, params, reference)


def inverse_length_gap(problem: Problem, params: jax.Array, reference: jax.Array) -> jax.Array:
    """Return ‖E ĝ − ∇E[1/|o|]‖ / ‖∇E[1/|o|]‖ for k1 as a loss that is divided by the length |o| of the answer.

    Its estimate is (1/|o|) Σ_t ∇ ln π, the score function of the "reward" 1/|o|, which no reference enters.
    """

    def mean(params: jax.Array) -> jax.Array:
        lengths = jnp.sum(problem.every.trajectories.alive, axis=0)
        return jnp.sum(exact.trajectory_probabilities(problem.policy.apply, params, problem.every) / lengths)

    truth = jax.grad(mean)(params)
    loss = estimators.kl_loss(problem.policy, 1.0, reference, kind="k1", over_time="episode_mean")
    batch = problem.every.trajectories
    each = -loss.episode_gradients(params, loss.init(unused_key(), batch), batch)
    probabilities = exact.trajectory_probabilities(problem.policy.apply, params, problem.every)
    found = jnp.tensordot(probabilities, each, 1)
    return jnp.linalg.norm(found - truth) / jnp.linalg.norm(truth)
