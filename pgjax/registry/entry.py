"""The registry's record of one estimator, and the parts that an estimator is made of.

Axes: T time, S states, A actions, k episodes of a group.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._doors import readable
from pgjax.advantages.steps import OverTime
from pgjax.estimators.weighting import Standardise
from pgjax.exact.mdp.tabular import TabularMDP
from pgjax.exact.moments.summary import Moments
from pgjax.types import Baseline, Critic, Estimator, Policy, PyTree

NOT_STATED = "not stated"
# What an estimator may need in addition to a policy, and what the problem must therefore be.
NEEDS = {
    "value": "a predicted return v(Xₜ)",
    "critic": "a predicted q(Xₜ, a), hence discrete actions",
    "states": "numbered states, hence a tabular problem",
    "oracle": "exact values at a fixed θ, hence a tabular problem without training",
    "greedy": "a greedy episode from each start",
}


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of an estimator that a user may change.

    In an entry, None means that the estimator has no such setting. In a user's settings, None keeps the estimator's own
    value.

    Attributes:
        discount: γ.
        lambda_: λ of the λ-return.
        n: the number of rewards in the n-step return.
        decay: β of all running averages: ρ̂, bₜ, b*, and the scale of a fitted value.
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
        """The settings that are not None, by their names."""
        return {name: value for name, value in vars(self).items() if value is not None}


SETTINGS = tuple(field.name for field in dataclasses.fields(Settings))


class States(NamedTuple):
    """Numbered states: `index_of` maps one observation to an integer in 0, …, `count` − 1."""

    index_of: Callable[[jax.Array], jax.Array]
    count: int


@readable
def states_of(mdp: TabularMDP) -> States:
    """The numbered states of a tabular problem; states with the same observation share the number of the first."""
    observations = np.asarray(mdp.observations)
    axes = tuple(range(1, observations.ndim))

    def index_of(obs: jax.Array) -> jax.Array:
        return jnp.argmax(jnp.all(obs[None] == observations.astype(obs.dtype), axis=axes))

    return States(index_of=index_of, count=len(observations))


class Oracle(NamedTuple):
    """Exact numbers about a policy at a fixed θ in a tabular problem; NumPy arrays in float64.

    Attributes:
        mdp: the problem in float64; use it with 64-bit numbers enabled.
        values, action_values: V_t(s) and Q_t(s, a), averaged over the times at which s is visited, `[S]` and `[S, A]`.
        values_in_time: V_t(s), `[T, S]`.
        best_constant: b* = E[‖S‖² G_1] / E‖S‖², where S is the score of an episode.
    """

    mdp: TabularMDP
    values: np.ndarray
    action_values: np.ndarray
    values_in_time: np.ndarray
    best_constant: float


class Parts(NamedTuple):
    """The parts that an estimator can be made of; fill in those that the problem has.

    Attributes:
        policy: f(x, θ).
        value: v(X_t), a baseline that is a function of the observation.
        critic: q(X_t, ·) of discrete actions.
        states, oracle: the states and the exact numbers of a tabular problem; the oracle holds for a fixed θ.
        group_size: k, the number of episodes that share a start and are compared with each other. With 1 each episode
            has its own start, and the episodes of the whole batch are compared.
        settings: the user's settings; the estimator keeps its own value for a setting that is None.

    Example:
        >>> from pgjax import environments, networks, registry
        >>> policy = networks.make_policy(environments.make("corridor"))
        >>> parts = registry.Parts(policy=policy, settings=registry.Settings(discount=0.99))
        >>> registry.make("gpomdp", parts)
        Estimator(make_estimator, constant, fits_windows=False)
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
        """k, or None if the whole batch is one group."""
        return self.group_size if self.group_size > 1 else None


class CompleteSettings(Protocol):
    """`Settings` as a builder sees them: each setting that its entry declares has a value."""

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
    """`Parts` as a builder sees them: each part that its entry needs is present."""

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
    """The registry's record of one estimator.

    Attributes:
        name: the name that a user types.
        label: the weight of ∇ ln f(Xₜ, θ)_{Aₜ} in mathematical notation, for tables and figures.
        build: a function from parts with complete settings to an Estimator; call it through `registry.make`.
        source: the publication.
        bias: the cause of the bias with the estimator's own settings; empty if the estimator is unbiased.
        settings: the settings of the estimator and their values; a setting that is None cannot be set.
        words: the allowed values of a setting, if not all values of `make_estimator` are allowed.
        needs: names in `NEEDS`.
        compares: whether the weight of an episode depends on the other episodes of its group, or of the batch if there
            are no groups.
        joint: whether the weight of an episode depends on other episodes of the batch, so that the variance need not
            fall as 1/B.
        behaviour: whether the estimator learns from episodes of another θ, by ratios of probabilities.
        windows: whether the estimator can learn from windows, which cut episodes.
        natural: whether the estimator estimates F⁺∇ρ.
        program: a dynamic program for the exact moments of the estimate from one episode, without learning. Call it
            with 64-bit numbers enabled and with parts whose settings are complete.
        factor: `k → c`, if the mean of the estimate is c times ∇ρ when k episodes are compared; else None.

    Example:
        >>> from pgjax import registry
        >>> print(registry.ENTRIES["dr_grpo"].claim)
        biased: the mean of k episodes contains the episode itself: (k−1)/k of ∇ρ
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
    program: Callable[[ServedParts, PyTree], Moments] | None = None
    factor: Callable[[int], float] | None = None

    @property
    def is_own(self) -> bool:
        """Whether the entry is a user's `module:function`."""
        return ":" in self.name

    @property
    def claim(self) -> str:
        """A sentence part about the bias of the estimator with its own settings."""
        right = "unbiased for F⁺∇ρ" if self.natural else "unbiased"
        return f"biased: {self.bias}" if self.bias else right

    @property
    def exact_moments(self) -> str:
        """The method that gives the exact mean and variance of the estimate on a tabular problem."""
        if "greedy" in self.needs:
            return "none: a greedy episode has randomness of its own"
        if self.program is not None:
            return "dynamic program; enumeration"
        return "enumeration" if self.factor is None else "enumeration; the mean also by a known factor"

    def refusal(self, name: str, value: Any) -> str | None:
        """The end of a sentence that says why the setting `name` cannot have this value; None if it can."""
        if getattr(self.settings, name) is None:
            known = ", ".join(self.settings.chosen()) or "none"
            return f"must be left out with the estimator {self.name}, which has no such setting (its settings: {known})"
        allowed = self.words.get(name)
        if allowed is not None and value not in allowed:
            return f"must be {' or '.join(allowed)} with the estimator {self.name}"
        return None

    def resolve(self, given: Settings) -> Settings:
        """The settings of the estimator, with the user's values where they are given.

        Raises:
            ValueError: if the estimator does not have a setting, or does not allow its value.
        """
        for name, value in given.chosen().items():
            if refusal := self.refusal(name, value):
                raise ValueError(f"{name} {value} {refusal}")
        return dataclasses.replace(self.settings, **given.chosen())

    def lacking(self, parts: Parts) -> str | None:
        """The first need of the estimator that is missing in the parts; None if nothing is missing."""
        return next((need for need in self.needs if need != "greedy" and getattr(parts, need) is None), None)
