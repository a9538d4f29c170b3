"""The record of one library's default, and the estimators of pgjax from which the defaults are built.

Axes: T time, B answers, k answers of a group, G groups.
"""

from collections.abc import Callable
from typing import NamedTuple

from pgjax import estimators, rewards
from pgjax.types import Baseline, Estimator, Policy, PyTree, Rewards

UNBIASED = "unbiased"


class Given(NamedTuple):
    """What an entry is built from: the policy, θ_ref, k, and v(X_t) of the rewards that the entry's stage pays."""

    policy: Policy
    reference: PyTree
    group_size: int
    value: Baseline


class KLTerm(NamedTuple):
    """The KL term: placement, kind, ratio, how it is added up over time, and β; `on` tells whether it is on by default.

    `kl_coef` is the default, 0 for a term that is off.
    """

    placement: str
    kind: str
    kl_coef: float
    over_time: str = "sum"
    ratio: str = "none"
    on: bool = True


class Library(NamedTuple):
    """One default.

    Attributes:
        name: the library and its trainer.
        version: the version and the commit that was read.
        sources: file and lines of every choice.
        loss, baseline, aggregation: the choices in words.
        group_size: the default number of answers to a prompt.
        kl: the KL term, or None.
        build: `Given → Estimator` of the gradient with its KL loss, if it has one.
        claim: what theory says of the expected gradient of the objective: `UNBIASED`, or "biased: reason".
        left_out: what the estimators of pgjax do not express, or what has no effect at the first step.
    """

    name: str
    version: str
    sources: tuple[str, ...]
    loss: str
    baseline: str
    aggregation: str
    group_size: int
    kl: KLTerm | None
    build: Callable[[Given], Estimator]
    claim: str
    left_out: str

    @property
    def kl_coef(self) -> float:
        """β of the default objective: 0 if the term is off."""
        return self.kl.kl_coef if self.kl is not None and self.kl.on else 0.0


def penalty(library: Library, policy: Policy, reference: PyTree, kl_coef: float | None = None) -> Rewards:
    """The reward stage of an entry; it pays nothing extra if the KL term is not in the reward."""
    kl = library.kl
    if kl is None or kl.placement != "reward":
        return rewards.as_paid()
    return rewards.kl_penalty(policy, library.kl_coef if kl_coef is None else kl_coef, reference, kind=kl.kind)


def with_loss(base: Estimator, given: Given, kl: KLTerm) -> Estimator:
    """The estimator with the KL loss of an entry."""
    return estimators.sum_of(base, kl_loss(given.policy, given.reference, kl, kl.kl_coef))


def kl_loss(policy: Policy, reference: PyTree, kl: KLTerm, kl_coef: float) -> Estimator:
    return estimators.kl_loss(policy, kl_coef, reference, kind=kl.kind, over_time=kl.over_time, ratio=kl.ratio)


def group_relative(given: Given, over_time: str) -> Estimator:
    """(r − mean of the group) / standard deviation of the group, divisor k − 1."""
    return estimators.make_estimator(
        given.policy,
        returns=estimators.total_return(),
        standardise="group_sample",
        group_size=given.group_size,
        over_time=over_time,
    )


def with_critic(given: Given, lambda_: float) -> Estimator:
    """GAE with γ = 1 and an exact critic, whitened over the tokens of the batch, mean over these tokens."""
    return estimators.make_estimator(
        given.policy,
        returns=estimators.lambda_return(lambda_, 1.0),
        baseline=given.value,
        standardise="population",
        over_time="mean",
    )


def with_rule(given: Given, returns: estimators.ReturnRule, over_time: str) -> Estimator:
    """Advantages by a rule of their own."""
    return estimators.make_estimator(given.policy, returns=returns, group_size=given.group_size, over_time=over_time)
