"""What the registry holds of one estimator, and what an estimator is made of.

Axes: T time, S states, A actions, k episodes of a group.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import exact
from pgjax.advantages.steps import OverTime
from pgjax.estimators.weighting import Standardise
from pgjax.exact import TabularMDP
from pgjax.types import Baseline, Critic, Estimator, Policy, PyTree

NOT_STATED = "not stated"
# What an estimator may need beyond a policy, and what this asks of the problem.
NEEDS = {
    "value": "a predicted return v(Xₜ)",
    "critic": "a predicted q(Xₜ, a), hence discrete actions",
    "states": "numbered states, hence a tabular problem",
    "oracle": "exact values at a θ that stands still, hence a tabular problem and no training",
    "greedy": "a greedy episode from each start",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The conventions of an estimator that a user may set.

    None: the estimator has no such convention or, where a user's settings are meant, keeps its own.

    Attributes:
        discount: γ.
        lambda_: λ of the λ-return.
        n: rewards of the n-step return.
        decay: β of every running average: ρ̂, bₜ, b*, and the scale of a fitted value.
        clip: ε of PPO's clipped surrogate.
        damping: δ in (F + δI)⁻¹ ∇̂ρ.
        entropy_coef, over_time, standardise: as in `estimators.make_estimator`.
    """

    discount: float | None = None
    lambda_: float | None = None
    n: int | None = None
    decay: float | None = None
    clip: float | None = None
    damping: float | None = None
    entropy_coef: float | None = None
    over_time: OverTime | None = None
    standardise: Standardise | None = None

    def chosen(self) -> dict[str, Any]:
        """Those that are not None, by their names."""
        return {name: value for name, value in vars(self).items() if value is not None}


SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))


class States(NamedTuple):
    """Numbered states: `index_of` of one observation, an integer in 0, …, `count` − 1."""

    index_of: Callable[[jax.Array], jax.Array]
    count: int


def states_of(mdp: TabularMDP) -> States:
    """The states of a tabular problem by their observations; states that look alike have the number of the first."""
    observations = np.asarray(mdp.observations)
    axes = tuple(range(1, observations.ndim))

    def index_of(obs: jax.Array) -> jax.Array:
        return jnp.argmax(jnp.all(obs[None] == observations.astype(obs.dtype), axis=axes))

    return States(index_of=index_of, count=len(observations))


class Oracle(NamedTuple):
    """What is exact about a policy at a fixed θ in a tabular problem; NumPy arrays in float64.

    Attributes:
        mdp: in float64; to be used with 64-bit numbers enabled.
        values, action_values: V_t(s) and Q_t(s, a) averaged over the times of the visits, `[S]` and `[S, A]`.
        values_in_time: V_t(s), `[T, S]`.
        best_constant: b* = E[‖S‖² G_1] / E‖S‖², S the score of an episode.
    """

    mdp: TabularMDP
    values: np.ndarray
    action_values: np.ndarray
    values_in_time: np.ndarray
    best_constant: float


class Parts(NamedTuple):
    """What an estimator may be made of; who makes it fills in what the problem has.

    Attributes:
        policy: f(x, θ).
        value: v(X_t), a baseline that is a function of the observation.
        critic: q(X_t, ·) of discrete actions.
        states, oracle: of a tabular problem; the oracle's θ stands still.
        group_size: k, episodes that share a start and are compared with each other; 1: every episode has a start of
            its own, and those of the whole batch are compared.
        settings: the user's; what is None the estimator sets itself.
    """

    policy: Policy
    value: Baseline | None = None
    critic: Critic | None = None
    states: States | None = None
    oracle: Oracle | None = None
    group_size: int = 1
    settings: Settings = Settings()

    @property
    def group(self) -> int | None:
        """k; None for the whole batch."""
        return self.group_size if self.group_size > 1 else None


class CompleteSettings(Protocol):
    """`Settings` as a builder sees them: every convention that its entry declares has a value."""

    discount: float
    lambda_: float
    n: int
    decay: float
    clip: float
    damping: float
    entropy_coef: float
    over_time: OverTime
    standardise: Standardise


class ServedParts(Protocol):
    """`Parts` as a builder sees them: everything that its entry needs is there."""

    policy: Policy
    value: Baseline
    critic: Critic
    states: States
    oracle: Oracle
    settings: CompleteSettings

    @property
    def group(self) -> int | None: ...


@dataclasses.dataclass(frozen=True)
class Entry:
    """One estimator, declared once.

    Attributes:
        name: what is typed.
        label: the weight of ∇ ln f(Xₜ, θ)_{Aₜ} in mathematics, for tables and figures.
        build: parts with complete settings → Estimator; call it through `registry.make`.
        source: who published it.
        bias: why it is biased with its own settings; empty for an unbiased one.
        settings: its conventions and their values; what is None cannot be set.
        words: the values that a convention may have where not all of `make_estimator`'s fit.
        needs: names in `NEEDS`.
        compares: whether an episode is weighed by the others of its group, or of the batch where there are no groups.
        joint: whether the episodes of a batch weigh each other, so that the variance need not fall as 1/B.
        behaviour: whether it learns from the episodes of another θ, by ratios of probabilities.
        windows: whether it learns from windows, which cut episodes.
        natural: whether it estimates F⁺∇ρ.
        program: the exact moments of one episode's estimate by dynamic programming, where nothing is learnt; called
            with 64-bit numbers enabled, and parts whose settings are complete.
        factor: k → the number by which its mean differs from ∇ρ where k episodes are compared, if that is all.
    """

    name: str
    label: str
    build: Callable[[ServedParts], Estimator]
    source: str
    bias: str = ""
    settings: Settings = Settings()
    words: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    needs: tuple[str, ...] = ()
    compares: bool = False
    joint: bool = False
    behaviour: bool = False
    windows: bool = False
    natural: bool = False
    program: Callable[[ServedParts, PyTree], exact.Moments] | None = None
    factor: Callable[[int], float] | None = None

    @property
    def is_own(self) -> bool:
        """Whether it is a user's `module:function`."""
        return ":" in self.name

    @property
    def claim(self) -> str:
        """What it says of its own bias, with its own settings."""
        if self.natural and not self.bias:
            return "unbiased for F⁺∇ρ where F is exact; where F is estimated, biased by an amount of order 1/B"
        return f"biased: {self.bias}" if self.bias else "unbiased"

    @property
    def exact_moments(self) -> str:
        """Where the exact mean and variance of its estimate come from on a tabular problem."""
        if "greedy" in self.needs:
            return "none: a greedy episode has randomness of its own"
        if self.program is not None:
            return "dynamic program; enumeration"
        return "enumeration" if self.factor is None else "enumeration; the mean is known besides"

    def refusal(self, name: str, value: Any) -> str | None:
        """Why the setting `name` cannot have this value, as the end of a sentence about it; None if it can."""
        if getattr(self.settings, name) is None:
            known = ", ".join(self.settings.chosen()) or "none"
            return f"must be left out with the estimator {self.name}, which has no such setting (its settings: {known})"
        allowed = self.words.get(name)
        if allowed is not None and value not in allowed:
            return f"must be {' or '.join(allowed)} with the estimator {self.name}"
        return None

    def resolve(self, given: Settings) -> Settings:
        """Its settings with a user's in their places.

        Raises:
            ValueError: for a setting that it does not have, or a value that contradicts what it is.
        """
        for name, value in given.chosen().items():
            if refusal := self.refusal(name, value):
                raise ValueError(f"{name} {value} {refusal}")
        return dataclasses.replace(self.settings, **given.chosen())

    def lacking(self, parts: Parts) -> str | None:
        """The first of its needs that the parts do not serve; None if they serve all."""
        return next((need for need in self.needs if need != "greedy" and getattr(parts, need) is None), None)
