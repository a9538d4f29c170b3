"""Synthetic annotators: exact probabilities, and labels that follow them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.preferences import annotators
from pgjax.preferences.annotators import Annotator

SCORES = jnp.array([1.0, 0.25])
LENGTHS = jnp.array([2, 6])


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize(
    ("annotator", "first"),
    [
        (Annotator(), sigmoid(0.75)),
        (Annotator(temperature=0.5), sigmoid(1.5)),
        (Annotator(flip=0.1), 0.9 * sigmoid(0.75) + 0.1 * sigmoid(-0.75)),
        (Annotator(flip=0.5), 0.5),
        (Annotator(position_bias=0.2), sigmoid(0.95)),
        (Annotator(length_taste=0.3), sigmoid(0.75 - 1.2)),
    ],
)
def test_every_number_has_its_stated_effect(annotator, first):
    p = annotators.probabilities(annotator, SCORES, LENGTHS)
    np.testing.assert_allclose(p, [first, 1 - first, 0], rtol=1e-5)


def test_labels_follow_their_probabilities_and_records_can_be_swept():
    flips = jnp.array([0.0, 0.25])
    many = jnp.broadcast_to(SCORES, (20_000, 2))

    def share(key, flip):
        annotator = Annotator(flip=flip, log_tie=0.0, bar=2.0)
        labels = annotators.compare(key, annotator, many)
        return jnp.bincount(labels, length=4) / 20_000, annotators.probabilities(annotator, SCORES)

    found, p = jax.jit(jax.vmap(share))(jax.random.split(jax.random.key(0), 2), flips)
    # Both scores are below the bar, so every tie is "both bad".
    assert (found[:, annotators.EQUAL] == 0).all()
    errors = np.sqrt(p * (1 - p) / 20_000)
    assert (np.abs(found[:, jnp.array([0, 1, 3])] - p) < 4 * errors).all()


def test_a_ranking_begins_with_the_softmax_of_the_scores():
    scores = jnp.broadcast_to(jnp.array([0.0, 1.0, -1.0]), (20_000, 3))
    order = annotators.rank(jax.random.key(1), Annotator(temperature=2.0), scores)
    p = jax.nn.softmax(scores[0] / 2)
    share = np.bincount(order[:, 0], minlength=3) / 20_000
    assert (np.abs(share - p) < 4 * np.sqrt(p * (1 - p) / 20_000)).all()


def test_entropy():
    np.testing.assert_allclose(
        annotators.entropy(jnp.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]])), [np.log(2), 0], rtol=1e-6
    )


def test_wrong_numbers_are_refused():
    with pytest.raises(ValueError, match="temperature must be at least"):
        annotators.probabilities(Annotator(temperature=0.0), SCORES)
    with pytest.raises(ValueError, match=r"flip must be in \[0, 1\], got 1.5"):
        annotators.probabilities(Annotator(flip=1.5), SCORES)
    with pytest.raises(ValueError, match="lengths must be given"):
        annotators.probabilities(Annotator(length_taste=1.0), SCORES)
