"""The exact table: the mean and the covariance of every cell against ∇(E[r] − β KL), and a sampled check of one cell.

Axes: E estimators, A ways of adding up, F forms, k answers of a group, P numbers of the table of logits.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.kl_placement.answers import log_probs
from experiments.kl_placement.cells import (
    BASE,
    ESTIMATORS,
    FIRST_EPOCH,
    FORMS,
    Setting,
    estimates_of,
    loss_of,
    made_for,
    paid_by,
    stage_of,
)
from experiments.kl_placement.forms import OVER_TIME, unused_key
from pgjax import estimators, exact, registry, rollouts
from pgjax.advantages.steps import OverTime

Cell = tuple[str, OverTime, str]  # estimator, way of adding up, form
# The cell of the sampled check: k3 in the loss and the mean over the batch's tokens, as GRPO is often shipped.
SAMPLED: Cell = ("grpo", "mean", "k3 in the loss")


class Table(NamedTuple):
    """Exact moments of every estimate, and the exact gradients.

    Attributes:
        means: cell → E ĝ, `[P]`.
        covariances: cell → the covariance matrix of ĝ from one batch of k answers, `[P, P]`.
        of_score, of_kl: ∇E[r] and ∇KL(π ‖ π_ref), `[P]`.
        kl_coef: β.
        group_size, length: k and T.
        divergence: KL(π ‖ π_ref) in nats.
    """

    means: dict[Cell, np.ndarray]
    covariances: dict[Cell, np.ndarray]
    of_score: np.ndarray
    of_kl: np.ndarray
    kl_coef: float
    group_size: int
    length: int
    divergence: float

    @property
    def truth(self) -> np.ndarray:
        """∇(E[r] − β KL), `[P]`."""
        return self.of_score - self.kl_coef * self.of_kl


def measure(
    setting: Setting,
    names: Sequence[str] = tuple(ESTIMATORS),
    ways: Sequence[OverTime] = tuple(OVER_TIME),
    *,
    batch_size: int = 128,
) -> Table:
    """Sum over all groups of k answers; each cell has its own covariance matrix, and all share one enumeration."""
    problem, estimates, size = setting.problem, estimates_of(setting, names, ways), setting.params.size
    cells = list(itertools.product(names, ways, FORMS))

    @jax.jit
    def moments(probabilities: jax.Array) -> exact.Moments:
        # Only the choice of the cell depends on the axis of this vmap, so each batch is evaluated once for all cells.
        def of_cell(cell: jax.Array) -> exact.Moments:
            return exact.estimator_moments(
                lambda batch: estimates(batch).reshape(-1, size)[cell],
                problem.every,
                probabilities,
                setting.group_size,
                group_size=setting.group_size,
                covariance=True,
                batch_size=batch_size,
            )

        return jax.vmap(of_cell)(jnp.arange(len(cells)))

    found = moments(setting.probabilities)
    score = lambda theta: exact.expected(log_probs(problem, theta), problem.scores)
    divergence = lambda theta: exact.kl_divergence(log_probs(problem, theta), log_probs(problem, setting.reference))
    return Table(
        means=dict(zip(cells, np.asarray(found.mean), strict=True)),
        covariances=dict(zip(cells, np.asarray(found.covariance), strict=True)),
        of_score=np.asarray(jax.grad(score)(setting.params)).ravel(),
        of_kl=np.asarray(jax.grad(divergence)(setting.params)).ravel(),
        kl_coef=setting.kl_coef,
        group_size=setting.group_size,
        length=problem.answers.max_new_tokens,
        divergence=float(divergence(setting.params)),
    )


def known_mean(table: Table, cell: Cell) -> np.ndarray | None:
    """E ĝ as theory gives it, `[P]`; None where theory gives no formula.

    With the term in the reward it is c_T c_k (∇E[r] − β ∇KL), and with the term in the loss c_T (c_k ∇E[r] − β ∇KL).
    Here c_T is 1/T if the steps are divided by T, else 1, and c_k is the factor of the estimator: (k − 1)/k for Dr.
    GRPO, else 1. A loss is not multiplied by c_k, so Dr. GRPO with the term in the loss follows the objective of a
    larger coefficient, k/(k − 1) β.
    """
    name, over_time, form = cell
    entry, kind = registry.ENTRIES[name], FORMS[form].expected
    scale = {"sum": 1.0, "horizon": 1.0 / table.length}.get(over_time)
    factor = 1.0 if entry.factor is None else entry.factor(table.group_size)
    unbiased = not entry.bias or entry.factor is not None or name == FIRST_EPOCH
    if scale is None or not unbiased or kind == "biased" or (kind == "in both" and factor != 1.0):
        return None
    pulls = 0.0 if kind == "zero" else factor
    if kind == "exact" and FORMS[form].parts[0].placement == "loss":
        pulls = 1.0
    return scale * (factor * table.of_score - pulls * table.kl_coef * table.of_kl)


class CellGrades(NamedTuple):
    """A cell against the exact gradient g = ∇(E[r] − β KL).

    Attributes:
        norm_ratio: ‖E ĝ‖ / ‖g‖, a factor that a learning rate compensates for.
        cosine: the cosine of E ĝ with g.
        bias: ‖E ĝ − g‖ / ‖g‖; a factor alone counts as bias here.
        variance: tr Cov ĝ over that of RLOO with k1 in the reward, added up.
        largest: the largest eigenvalue of Cov ĝ over that of the same cell.
        noise: (tr Cov ĝ / ‖E ĝ‖²) over that of the same cell; no learning rate changes it.
        gap: ‖E ĝ − known mean‖ / ‖g‖; NaN where theory gives no formula.
    """

    norm_ratio: float
    cosine: float
    bias: float
    variance: float
    largest: float
    noise: float
    gap: float


def grades_of(table: Table) -> dict[Cell, CellGrades]:
    """Return cell → grades."""
    truth = table.truth
    length = np.linalg.norm(truth)
    spread = lambda cell: np.trace(table.covariances[cell])
    largest = lambda cell: np.linalg.eigvalsh(table.covariances[cell])[-1]
    noise = lambda cell: spread(cell) / np.sum(table.means[cell] ** 2)

    def of(cell: Cell) -> CellGrades:
        mean, known = table.means[cell], known_mean(table, cell)
        norm = np.linalg.norm(mean)
        return CellGrades(
            norm_ratio=float(norm / length),
            cosine=float(mean @ truth / norm / length),
            bias=float(np.linalg.norm(mean - truth) / length),
            variance=float(spread(cell) / spread(BASE)),
            largest=float(largest(cell) / largest(BASE)),
            noise=float(noise(cell) / noise(BASE)),
            gap=np.nan if known is None else float(np.linalg.norm(mean - known) / length),
        )

    return {cell: of(cell) for cell in table.means}


class Sampled(NamedTuple):
    """A sampled cell against the exact table: E ĝ along its own exact direction, and tr Cov ĝ."""

    mean: float
    mean_stderr: float
    exact_mean: float
    variance: float
    variance_stderr: float
    exact_variance: float


def sample_cell(setting: Setting, table: Table, key: jax.Array, num_groups: int, cell: Cell = SAMPLED) -> Sampled:
    """Play `num_groups` batches of k answers in the environment and estimate as training does.

    The answers come from `rollouts.episodes`, the rewards from the reward stage, and the estimates from the `gradient`
    of `sum_of` the estimator and its losses.
    """
    name, over_time, form = cell
    policy, every = setting.problem.policy, setting.problem.every
    environment = exact.to_environment(every.mdp)
    first = next((part for part in FORMS[form].parts if part.placement == "reward"), None)
    losses = [loss_of(setting, part, over_time) for part in FORMS[form].parts if part.placement == "loss"]
    acted = estimators.record_behaviour(policy, setting.params, every.trajectories)
    made, state = made_for(setting, name, over_time, paid_by(setting, first, acted))
    whole, stage = estimators.sum_of(made, *losses), stage_of(setting, first)

    @jax.jit
    def sampled(keys: jax.Array) -> jax.Array:
        def of_group(keys: jax.Array) -> jax.Array:
            how = {"group_size": setting.group_size, "record_log_probs": True}
            batch = rollouts.episodes(environment, policy, setting.params, keys, **how)
            batch, _ = stage.relabel(setting.params, stage.init(unused_key(), setting.params), batch)
            states = (state, *(loss.init(unused_key(), batch) for loss in losses))
            return whole.gradient(setting.params, states, batch)[0].ravel()

        return jax.lax.map(of_group, keys, batch_size=1000)

    found = np.asarray(sampled(jax.random.split(key, (num_groups, setting.group_size))))
    mean, spread = table.means[cell], float(np.trace(table.covariances[cell]))
    along = found @ (mean / np.linalg.norm(mean))
    squares = np.sum((found - mean) ** 2, axis=1)
    stderr = lambda x: float(x.std(ddof=1) / np.sqrt(len(x)))
    return Sampled(
        mean=float(along.mean()),
        mean_stderr=stderr(along),
        exact_mean=float(np.linalg.norm(mean)),
        variance=float(squares.mean()),
        variance_stderr=stderr(squares),
        exact_variance=spread,
    )
