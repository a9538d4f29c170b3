"""The meter against exact values: what a trainer measures in many batches at the same θ, and what enumeration gives.

Axes: N batches, B episodes of a batch, k episodes of a group, M parts of a batch.
"""

from typing import NamedTuple

import jax
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from experiments.gradient_meter.cases import Case
from experiments.shared.problems import in_float64
from pgjax import diagnostics, estimators, exact, training
from pgjax.exact import Enumeration
from pgjax.training._meter import PREFIX, part_counts
from pgjax.types import Estimator, PyTree

NAMES = diagnostics.BatchNoise._fields


class Exact(NamedTuple):
    """The exact noise of the gradient ḡ of a batch, in float64.

    Attributes:
        variance: tr Var ḡ.
        squared_norm: ‖E ḡ‖².
        expected: name → the exact expectation of what the meter measures in one batch, for those that are known: by
            enumeration of all batches if there are few, otherwise for the unbiased ones.
    """

    variance: float
    squared_norm: float
    expected: dict[str, float]


class Measured(NamedTuple):
    """What the meter measured in N independent batches.

    Attributes:
        values: name → `[N]`.
        num_parts: M.
    """

    values: dict[str, np.ndarray]
    num_parts: int

    def twin(self) -> dict[str, np.ndarray]:
        """The wrong meter, which divides by M² instead of M (M − 1), and takes ‖ḡ‖² for ‖E ḡ‖²."""
        variance, squared_norm = self.values["variance"], self.values["squared_norm"]
        shrunk = variance * (self.num_parts - 1) / self.num_parts
        return {"variance": shrunk, "squared_norm": squared_norm + variance}


class Setting(NamedTuple):
    """A case in float64: all trajectories with their probabilities, θ, and the estimator with its state."""

    enumeration: Enumeration
    probabilities: jax.Array
    params: PyTree
    estimator: Estimator
    state: PyTree


def setting(case: Case) -> Setting:
    """The case in float64; call it, and use the result, with 64-bit numbers enabled."""
    enumeration = exact.enumerate_trajectories(case.problem.parts.oracle.mdp)
    params, estimator = jax.tree.map(in_float64, case.problem.params), case.estimator
    return Setting(
        enumeration=enumeration,
        probabilities=exact.trajectory_probabilities(case.policy, params, enumeration),
        params=params,
        estimator=estimator,
        state=estimator.init(jax.random.key(0), exact.select_episodes(enumeration.trajectories, np.arange(case.group))),
    )


def exact_noise(case: Case, limit: int) -> Exact:
    """The exact noise, and what the meter gives on average, if at most `limit` batches have to be enumerated."""
    with jax.enable_x64(True):
        made = setting(case)
        of = lambda batch: made.estimator.gradient(made.params, made.state, batch)[0]
        size = case.batch if case.joint else case.group
        moments = lambda function, episodes: jax.device_get(
            exact.estimator_moments(
                function, made.enumeration, made.probabilities, episodes, group_size=case.group, limit=10**6
            )
        )
        found = moments(of, size)
        mean = ravel_pytree(found.mean)[0]
        # Groups are independent of each other.
        variance, squared_norm = float(found.total_variance) * size / case.batch, float(mean @ mean)
        expected = {"variance": variance, "squared_norm": squared_norm}
        if exact.count_batches(made.enumeration, case.batch, group_size=case.group) <= limit:
            count = part_counts(case.batch, case.group)[0]
            look = lambda batch: diagnostics.batch_noise(
                estimators.part_gradients(made.estimator, made.params, made.state, batch, count)
            )
            expected = {name: float(x) for name, x in moments(look, case.batch).mean._asdict().items()}
    return Exact(variance=variance, squared_norm=squared_norm, expected=expected)


def measure(case: Case, num_batches: int, seed: int) -> Measured:
    """What the meter of a trainer measures in `num_batches` updates whose steps have length 0, so that θ stays."""
    trainer = training.make_trainer(
        case.problem.environment,
        case.policy,
        case.estimator,
        optax.set_to_zero(),
        num_episodes=case.batch,
        group_size=case.group,
        meter=1,
    )

    @jax.jit
    def train(key: jax.Array):
        update = lambda state, _: trainer.update(state)
        return jax.lax.scan(update, trainer.init(key), length=num_batches)[1]

    metrics = jax.device_get(train(jax.random.key(seed)))
    values = {name: metrics[PREFIX + name].astype(float) for name in NAMES}
    return Measured(values=values, num_parts=part_counts(case.batch, case.group)[0])


def mean_and_stderr(values: np.ndarray) -> tuple[float, float]:
    mean, stderr = diagnostics.mean_and_stderr(values)
    return float(mean), float(stderr)


def noise_scale(values: dict[str, np.ndarray], batch: int) -> tuple[float, float]:
    """B Σ_n variance / Σ_n ‖g‖² of N batches, and its standard error by the delta method."""
    variance, squared_norm = values["variance"], values["squared_norm"]
    ratio = variance.mean() / squared_norm.mean()
    _, stderr = diagnostics.mean_and_stderr((variance - ratio * squared_norm) / squared_norm.mean())
    return float(batch * ratio), float(batch * stderr)
