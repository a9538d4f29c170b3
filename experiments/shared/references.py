"""What to compare a trained policy with: for each environment its measures, its reference policies and its optimum.

A measure is a number for each episode, so that two policies can be compared on the same starts, pair by pair.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.shared import ranges
from pgjax import diagnostics, environments, evaluation, exact, imitation
from pgjax.diagnostics import Estimate
from pgjax.environments import cooling_controllers, slates, swimmer_gaits
from pgjax.environments.rules import rule_policy
from pgjax.evaluation import Evaluation
from pgjax.types import Environment, Policy, PyTree

Acting = tuple[Policy, PyTree]

# The names of policies in the rows of `experiments.train`, beside those of the reference controllers.
RANDOM, TRAINED, ONE_RUN = "random", "trained, mean over seeds", "trained, "
# The name of the row of `experiments.train` with the CPU time of one run.
CPU_TIME = "CPU time of training"


class Measure(NamedTuple):
    """What is asked of an episode.

    Attributes:
        name: the name in tables, with its unit.
        of: the measure of each of B episodes, `[B]`.
        optimum: environment → a bound that no policy's mean passes, or None if none is known.
        among: which of the B episodes count, bool `[B]`; None for all of them.
        larger_is_better: whether a policy with a larger mean is the better one.
        range: environment → the range in which the measure must lie.
    """

    name: str
    of: Callable[[Evaluation], np.ndarray]
    optimum: Callable[[Environment], float | None] = lambda environment: None
    among: Callable[[Evaluation], np.ndarray] | None = None
    larger_is_better: bool = True
    range: Callable[[Environment], ranges.Bounds] = lambda environment: diagnostics.UNBOUNDED

    def values(self, found: Evaluation) -> np.ndarray:
        """The measure of the episodes that count."""
        values = np.asarray(self.of(found), np.float64)
        return values if self.among is None else values[np.asarray(self.among(found), bool)]

    def mean(self, found: Evaluation, environment: Environment) -> Estimate:
        """The mean over the episodes that count, with its interval; NaN if no episode counts."""
        values = self.values(found)
        if not len(values):  # for example, no robot has arrived
            return Estimate(*(np.asarray(np.nan),) * 4)
        return diagnostics.mean_interval(values, bounds=self.range(environment))


def _metric(name: str, kind: str) -> Callable[[Evaluation], np.ndarray]:
    return lambda found: getattr(found.by_episode[name], kind)


def _best_return(environment: Environment) -> float | None:
    """E[max_a Q*_1(X_1, a)] of a tabular problem, whose policies may see the time; None for other environments."""
    if not isinstance(mdp := environment.params, exact.TabularMDP):
        return None
    values = exact.optimal_action_values(mdp)[0].max(axis=-1)
    return float(mdp.initial @ values)


_RETURN = Measure(name="return", of=lambda found: found.returns, optimum=_best_return)


def _arrived(found: Evaluation) -> np.ndarray:
    return found.by_episode["success"].final > 0.5


_MEASURES: dict[str, tuple[Measure, ...]] = {
    "random_maze": (
        Measure("success", _metric("success", "final"), optimum=lambda _: 1.0, range=lambda _: ranges.SHARE),
        Measure(
            "steps beyond the shortest way, if arrived",
            _metric("excess", "final"),
            optimum=lambda _: 0.0,
            among=_arrived,
            larger_is_better=False,
            range=lambda _: ranges.NOT_NEGATIVE,
        ),
        _RETURN,
    ),
    "navigation": (
        Measure("success", _metric("success", "final"), optimum=lambda _: 1.0, range=lambda _: ranges.SHARE),
        Measure(
            "driven way / distance, if arrived", _metric("detour", "final"), among=_arrived, larger_is_better=False
        ),
        Measure(
            "steps, if arrived",
            lambda found: found.lengths,
            among=_arrived,
            larger_is_better=False,
            range=lambda environment: (1.0, environment.horizon),
        ),
        _RETURN,
    ),
    "ads": (
        # Only a policy that knows ω, which nobody sees, has regret 0.
        Measure(
            "regret of a session, clicks", _metric("regret", "total"), optimum=lambda _: 0.0, larger_is_better=False
        ),
        Measure("clicks in a session", _metric("click", "total"), range=lambda _: ranges.NOT_NEGATIVE),
    ),
    "cooling": (
        Measure("PUE", _metric("pue", "final"), larger_is_better=False),
        Measure(
            "share of the time above 27 °C",
            _metric("violation", "mean"),
            optimum=lambda _: 0.0,
            larger_is_better=False,
            range=lambda _: ranges.SHARE,
        ),
        _RETURN,
    ),
}

# The search for the best travelling wave: 8 amplitudes, 16 frequencies in Hz, and 16 lags in rad.
WAVES = (np.arange(1, 9) / 8, np.arange(1, 17) / 16, np.arange(-8, 8) * np.pi / 8)


def best_wave(environment: Environment) -> swimmer_gaits.Wave:
    """The fastest travelling wave of the grid `WAVES` on eight starts that no evaluation uses.

    One start would choose a wave that is lucky there: its mean over other starts was two thirds of that of the best.
    """
    waves = swimmer_gaits.grid(*WAVES)
    returns = swimmer_gaits.mean_returns(environment, waves, jax.random.key(987_654_321), num_episodes=8)
    best = int(np.argmax(returns))
    return swimmer_gaits.Wave(*(values[best] for values in waves))


def _rule(act: Callable) -> Callable[[Environment], Acting]:
    return lambda environment: (rule_policy(act), ())


def _most_viewed(key: jax.Array, obs: jax.Array) -> jax.Array:
    del key
    products = (obs.shape[0] - 2) // 2
    return jnp.argmax(obs[:products]).astype(jnp.int32)


_CONTROLLERS: dict[str, Mapping[str, Callable[[Environment], Acting]]] = {
    "navigation": {"potential field": lambda environment: (imitation.as_policy(imitation.potential_field()), ())},
    "random_maze": {"shortest way": lambda environment: (imitation.as_policy(imitation.shortest_way()), ())},
    "swimmer": {
        "best travelling wave": lambda environment: (swimmer_gaits.travelling_wave(environment), best_wave(environment))
    },
    "slates": {"myopic": lambda environment: (slates.myopic_policy(environment), ())},
    "ads": {"most viewed product": _rule(_most_viewed)},
    "cooling": {
        "PI loop on the fans (24 °C, inlet 25.5 °C)": _rule(cooling_controllers.pi_fan(24.0, 25.5)),
        "airflow matching (25.5 °C)": _rule(cooling_controllers.airflow_matching(25.5)),
    },
}


def measures(name: str) -> tuple[Measure, ...]:
    """The measures of the environment of that name; the return for an environment without measures of its own."""
    of_return = _RETURN._replace(range=lambda environment: ranges.returns(name, environment.horizon))
    return tuple(of_return if one is _RETURN else one for one in _MEASURES.get(name, (_RETURN,)))


def policies(name: str, environment: Environment) -> dict[str, Acting]:
    """The policies to compare with, as pairs of a policy and its θ: random actions, then the reference controllers."""
    made: dict[str, Any] = {RANDOM: (environments.random_policy(environment), ())}
    return made | {label: make(environment) for label, make in _CONTROLLERS.get(name, {}).items()}


def evaluate(name: str, environment: Environment, key: jax.Array, num_episodes: int) -> dict[str, Evaluation]:
    """The evaluations of all policies of `policies` on the same starts."""
    return {
        label: evaluation.evaluate(environment, policy, params, key, num_episodes=num_episodes)
        for label, (policy, params) in policies(name, environment).items()
    }
