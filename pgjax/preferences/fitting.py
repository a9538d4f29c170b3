"""Fits of reward models to comparisons and rankings, ensembles of them, and how good they are on held-out labels.

A fit is a pure function of its key and arrays, so seeds, members and numbers of labels can be batch axes of one
compiled program; weights of 0 and 1 choose the labels that count. Axes: N comparisons, k answers, M members.
"""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.preferences.annotators import entropy
from pgjax.preferences.losses import davidson_loss, half_win_loss, plackett_luce_loss
from pgjax.preferences.reward_models import RewardModel
from pgjax.training import fit as minimise
from pgjax.training.fit import Fit
from pgjax.types import PyTree


class Comparisons(NamedTuple):
    """N comparisons of two answers each.

    Attributes:
        first, second: observations of the answers, leaves `[N, ...]`.
        outcomes: int32 `[N]`: 0 if the first is better, 1 if the second is, 2 "equal", 3 "both bad".
        margins: float `[N]`, by how much the better answer is better; 0 where nobody said so.
    """

    first: PyTree
    second: PyTree
    outcomes: jax.Array
    margins: jax.Array


class Rankings(NamedTuple):
    """N rankings of up to k answers each.

    Attributes:
        answers: observations, the best first, leaves `[N, k, ...]`.
        mask: bool `[N, k]`, true for the answers that exist; they come first.
        places: int32 `[N]`, how many first places are known; 1 for a choice of the best.
    """

    answers: PyTree
    mask: jax.Array
    places: jax.Array


Labels = Comparisons | Rankings


@readable
def losses(model: RewardModel, params: PyTree, labels: Labels, log_tie: float | None = None) -> jax.Array:
    """The loss `[N]` of each comparison or ranking.

    Args:
        labels: comparisons or rankings.
        log_tie: ln ν of Davidson's model of ties. None counts a tie as half a win of each answer. Margins have no
            place in Davidson's model and are then not used.
    """
    score = jax.vmap(model.apply, (None, 0))
    if isinstance(labels, Rankings):
        rewards = jax.vmap(score, (None, 0))(params, labels.answers)
        return plackett_luce_loss(rewards, labels.mask, labels.places)
    first, second = score(params, labels.first), score(params, labels.second)
    if log_tie is None:
        return half_win_loss(first, second, labels.outcomes, labels.margins)
    return davidson_loss(first, second, labels.outcomes, log_tie)


# One function object for each model, because `training.fit` compiles once for each object.
@functools.lru_cache(maxsize=64)
def _loss_of(model: RewardModel, log_tie: float | None):
    return lambda params, rows: losses(model, params, rows, log_tie)


@readable
def fit(
    key: jax.Array,
    model: RewardModel,
    labels: Labels,
    optimizer: optax.GradientTransformation,
    *,
    params: PyTree | None = None,
    log_tie: float | None = None,
    **settings: Any,
) -> Fit:
    """Fit a reward model to labels by minibatches; `training.fit` does the work and explains the settings.

    The number of labels can be an axis of one program: `weights=jnp.arange(N) < n` fits to the first n labels alone.
    Comparisons of the answers to one prompt should have one number in `groups`, so that no prompt is both trained on
    and held out.

    Args:
        key: a typed key; φ at the start and the order of the minibatches depend on it.
        model: the reward model.
        labels: comparisons or rankings.
        optimizer: an optax optimiser.
        params: φ at the start; `model.init` makes it if it is None.
        log_tie: as in `losses`.
        **settings: `num_epochs`, `batch_size`, `weights`, `groups`, `validation_fraction` and `patience`.

    Raises:
        ValueError: as `training.fit`.
        NonFiniteError: as `training.fit`.

    Example: one feature, which the better answer has more of in three of four comparisons.

        >>> import jax, jax.numpy as jnp, optax
        >>> from pgjax.preferences import fitting, reward_models
        >>> labels = fitting.Comparisons(first=jnp.ones((4, 1)), second=jnp.zeros((4, 1)),
        ...                              outcomes=jnp.array([0, 0, 0, 1]), margins=jnp.zeros(4))
        >>> found = fitting.fit(jax.random.key(0), reward_models.linear(), labels, optax.sgd(1.0), num_epochs=200,
        ...                     batch_size=4)
        >>> round(float(jax.nn.sigmoid(found.params[0])), 3)
        0.75
    """
    init_key, fit_key = jax.random.split(key)
    if params is None:
        params = model.init(init_key, _first_observation(labels))
    return minimise(fit_key, params, _loss_of(model, log_tie), labels, optimizer, **settings)


def _first_observation(labels: Labels) -> PyTree:
    if isinstance(labels, Rankings):
        return jax.tree.map(lambda x: x[0, 0], labels.answers)
    return jax.tree.map(lambda x: x[0], labels.first)


@readable
def fit_ensemble(
    key: jax.Array,
    model: RewardModel,
    labels: Labels,
    optimizer: optax.GradientTransformation,
    *,
    num_members: int,
    **settings: Any,
) -> Fit:
    """M fits to the same labels, which differ in φ at the start and in the order of the minibatches.

    Args:
        num_members: M.
        **settings: as in `fit`.

    Returns:
        A `Fit` whose leaves have a leading axis `[M]`; its `params` are those of `reward_models.ensemble`.

    Raises:
        ValueError: if `num_members` is no integer of at least 1, or as `fit`.
    """
    require_integer("num_members", num_members, 1, None)
    one = lambda key: fit(key, model, labels, optimizer, **settings)
    return jax.vmap(one)(jax.random.split(key, num_members))


@readable
def evaluate(
    model: RewardModel,
    params: PyTree,
    labels: Labels,
    *,
    weights: jax.Array | None = None,
    chances: jax.Array | None = None,
    log_tie: float | None = None,
) -> dict[str, jax.Array]:
    """How good a reward model is on labels, which should be held out.

    Args:
        weights: of the labels `[N]`, such as `Fit.held_out`; equal weights if None.
        chances: the probabilities `[N, 3]` of the labels of comparisons, where they are known
            (`annotators.probabilities`); margins must then be 0.
        log_tie: as in `losses`.

    Returns:
        Weighted means in nats, all NaN if no label has weight. `loss` is that of the labels. `accuracy` is the share of
        the pairs with a better answer in which this answer has the higher reward; equal rewards count one half, and in
        a ranking these are the pairs of its best answer with each other answer. With `chances` there are also
        `expected_loss`, over all labels that might have been given; `entropy_floor`, the entropy of the labels, below
        which it cannot fall; and `excess_loss`, their difference, which is the mean of KL(label ‖ model) and is free of
        the noise of the labels. If the labels have ties, this holds with `log_tie` only.

    Raises:
        ValueError: if `chances` are given for rankings.
    """
    found = losses(model, params, labels, log_tie)
    weights = jnp.ones_like(found) if weights is None else jnp.asarray(weights, found.dtype)
    mean = lambda x: jnp.sum(weights * x) / jnp.sum(weights)
    margins, counts = _margins(model, params, labels)
    right = jnp.where(margins == 0, 0.5, (margins > 0).astype(found.dtype))
    counts = counts * weights.reshape(weights.shape + (1,) * (counts.ndim - 1))
    metrics = {"loss": mean(found), "accuracy": jnp.sum(counts * right) / jnp.sum(counts)}
    if chances is not None:
        metrics["expected_loss"] = mean(_expected_losses(model, params, labels, chances, log_tie))
        metrics["entropy_floor"] = mean(entropy(chances))
        metrics["excess_loss"] = metrics["expected_loss"] - metrics["entropy_floor"]
    return metrics


def _expected_losses(
    model: RewardModel, params: PyTree, labels: Labels, chances: jax.Array, log_tie: float | None
) -> jax.Array:
    if isinstance(labels, Rankings):
        raise ValueError("chances must be None for rankings: their probabilities are those of comparisons")
    total = jnp.zeros(chances.shape[:1], chances.dtype)
    for outcome in range(3):
        of_outcome = losses(model, params, labels._replace(outcomes=jnp.full_like(labels.outcomes, outcome)), log_tie)
        chance = chances[:, outcome]
        # A label that cannot occur may have an infinite loss.
        total += jnp.where(chance > 0, chance * of_outcome, 0.0)
    return total


def _margins(model: RewardModel, params: PyTree, labels: Labels) -> tuple[jax.Array, jax.Array]:
    """The reward of the better answer minus that of the worse one, and whether the pair counts."""
    score = jax.vmap(model.apply, (None, 0))
    if isinstance(labels, Rankings):
        rewards = jax.vmap(score, (None, 0))(params, labels.answers)
        return rewards[:, :1] - rewards[:, 1:], labels.mask[:, 1:].astype(rewards.dtype)
    difference = score(params, labels.first) - score(params, labels.second)
    decided = (labels.outcomes < 2).astype(difference.dtype)
    return jnp.where(labels.outcomes == 1, -difference, difference), decided
