"""Grades of library defaults: the exact mean and variance of each estimate against the exact gradient.

Axes: M batches, B answers of a batch, S states.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.library_defaults import counting
from experiments.library_defaults.counting import Batches, Task
from experiments.library_defaults.entry import Given, Library, kl_loss, penalty
from pgjax import baselines, estimators, exact, rewards
from pgjax.types import Estimator, Rewards, Trajectory


def unused_key() -> jax.Array:
    """A key for states that draw nothing. It is made when it is needed, because a key at import would start JAX."""
    return jax.random.key(0)


_AT_ONCE = 1024


class Grades(NamedTuple):
    """An estimate against the exact gradient of the library's own objective.

    Attributes:
        norm_ratio: ‖E ĝ‖ / ‖∇J‖, a factor that a learning rate compensates for.
        cosine: the cosine of E ĝ with ∇J.
        bias: ‖E ĝ − ∇J‖ / ‖∇J‖.
        variance: tr Var ĝ of a batch.
        noise: tr Var ĝ / ‖E ĝ‖², which no learning rate changes.
        kl_cosine, kl_norm_ratio: those of the KL term alone against ∇KL, with β = 1; NaN without a term or a direction.
    """

    norm_ratio: float
    cosine: float
    bias: float
    variance: float
    noise: float
    kl_cosine: float
    kl_norm_ratio: float


def built(library: Library, task: Task, group_size: int) -> tuple[Rewards, Estimator]:
    """The reward stage and the estimator of an entry; its critic is the exact value of what the stage pays."""
    stage = penalty(library, task.policy, task.reference)
    batch = estimators.record_behaviour(task.policy, task.params, task.every.trajectories)
    paid = stage.relabel(task.params, stage.init(unused_key(), task.params), batch)[0].rewards
    values = counting.values_of(task, paid)
    given = Given(
        policy=task.policy,
        reference=task.reference,
        group_size=group_size,
        value=baselines.state_values(lambda obs: obs @ values),
    )
    return stage, library.build(given)


def mean_of(estimator: Estimator, task: Task, batch: Trajectory) -> jax.Array:
    """The estimate from a batch: the mean of its summands, which compiles faster than `gradient` for tiny batches."""
    each = estimator.episode_gradients(task.params, estimator.init(unused_key(), batch), batch)
    return jnp.mean(each, axis=0)


def kl_part(library: Library, task: Task, batch: Trajectory) -> jax.Array | None:
    """The estimate of ∇KL by an entry's KL term alone, with β = 1: its loss, or the reward-to-go of its penalty.

    The term is added up over time as in the entry, without a baseline and without whitening.
    """
    kl = library.kl
    if kl is None:
        return None
    if kl.placement == "loss":
        loss = kl_loss(task.policy, task.reference, kl, 1.0)
        return -mean_of(loss, task, batch)
    nothing = rewards.relabel(batch, jnp.zeros_like(batch.rewards))
    stage = penalty(library, task.policy, task.reference, 1.0)
    paid, _ = stage.relabel(task.params, stage.init(unused_key(), task.params), nothing)
    over_time = "sum" if library.aggregation.startswith("sum") else "mean"
    return -mean_of(estimators.make_estimator(task.policy, over_time=over_time), task, paid)


def estimates_of(libraries: tuple[Library, ...], task: Task, group_size: int):
    """Return a function `batch → library → (ĝ, estimate of ∇KL)`."""
    made = {library.name: built(library, task, group_size) for library in libraries}

    def estimates(batch: Trajectory) -> dict[str, tuple[jax.Array, jax.Array]]:
        acted = estimators.record_behaviour(task.policy, task.params, batch)
        found = {}
        for library in libraries:
            stage, estimator = made[library.name]
            paid, _ = stage.relabel(task.params, stage.init(unused_key(), task.params), acted)
            gradient = mean_of(estimator, task, paid)
            term = kl_part(library, task, acted)
            found[library.name] = (gradient, jnp.zeros_like(gradient) if term is None else term)
        return found

    return estimates


def grade(libraries: tuple[Library, ...], task: Task, batches: Batches, group_size: int) -> dict[str, Grades]:
    """Return library → its grades; the batches have groups of `group_size` answers."""
    estimates = estimates_of(libraries, task, group_size)

    @jax.jit
    def measure(indices: jax.Array, weights: jax.Array) -> dict[str, exact.Moments]:
        of_batch = lambda chosen: estimates(exact.select_episodes(task.every.trajectories, chosen))
        each = jax.lax.map(of_batch, indices, batch_size=_AT_ONCE)
        return {
            name: (exact.moments_of(g, weights), exact.moments_of(term, weights)) for name, (g, term) in each.items()
        }

    found = jax.tree.map(np.asarray, measure(jnp.asarray(batches.indices), jnp.asarray(batches.weights)))
    of_score = np.asarray(exact.exact_gradient(task.policy.apply, task.params, task.every.mdp))
    of_kl = np.asarray(jax.grad(counting.divergence, argnums=1)(task, task.params))
    grades = {}
    for library in libraries:
        whole, term = found[library.name]
        truth = of_score - library.kl_coef * of_kl
        ratio, cosine = compared(whole.mean, truth)
        kl_ratio, kl_cosine = (np.nan, np.nan) if library.kl is None else compared(term.mean, of_kl)
        grades[library.name] = Grades(
            norm_ratio=ratio,
            cosine=cosine,
            bias=float(np.linalg.norm(whole.mean - truth) / np.linalg.norm(truth)),
            variance=float(whole.total_variance),
            noise=float(whole.total_variance / np.sum(whole.mean**2)),
            kl_cosine=kl_cosine,
            kl_norm_ratio=kl_ratio,
        )
    return grades


def compared(x: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Return ‖x‖ / ‖truth‖ and the cosine, NaN if x = 0."""
    norm, length = np.linalg.norm(x), np.linalg.norm(truth)
    cosine = np.nan if norm < 1e-12 * length else float(np.vdot(x, truth) / norm / length)
    return float(norm / length), cosine
