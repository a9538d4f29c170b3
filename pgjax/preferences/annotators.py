"""Synthetic annotators: they compare answers by a gold score, with noise and biases whose effect is known exactly.

An annotator is a record of numbers, so `jax.vmap` sweeps any of them. Its probabilities are exact, and with them the
entropy of its labels, below which no reward model's expected loss can fall. Axes: `[...]` comparisons, k answers.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range
from pgjax._doors import readable
from pgjax.preferences.losses import davidson_log_probs

FIRST, SECOND, EQUAL, BOTH_BAD = range(4)


class Annotator(NamedTuple):
    """How a synthetic annotator compares two answers with the scores s_1, s_2 and the lengths n_1, n_2.

        u_i = s_i / τ + λ n_i + b [i = 1],    p = the probabilities of `davidson_log_probs` of u_1, u_2
        P(first) = (1 − ε) p_1 + ε p_2,    P(second) = (1 − ε) p_2 + ε p_1,    P(tie) = p_3

    With the default of all numbers this is exactly Bradley–Terry of the scores.

    Attributes:
        temperature: τ > 0, in units of the score; a small one gives labels almost without noise.
        flip: ε in [0, 1], the probability that a choice is noted the wrong way round.
        position_bias: b, in nats, what it is worth to be shown first.
        length_taste: λ, in nats per token, what a longer answer is worth, beyond its score.
        log_tie: ln ν of the ties; −∞ for none.
        bar: a tie of two answers whose scores are both below this one is called "both bad" instead of "equal".
    """

    temperature: ArrayLike = 1.0
    flip: ArrayLike = 0.0
    position_bias: ArrayLike = 0.0
    length_taste: ArrayLike = 0.0
    log_tie: ArrayLike = -jnp.inf
    bar: ArrayLike = -jnp.inf


@readable
def utilities(annotator: Annotator, scores: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """u_i `[..., k]` of k answers, as in `Annotator`; the answer 0 is the one that is shown first.

    Args:
        scores: s_i, floats `[..., k]`.
        lengths: n_i, in tokens `[..., k]`; None if the annotator has no taste for length.

    Raises:
        ValueError: if the temperature is not positive, or there is a taste for length without lengths.
    """
    require_in_range("temperature", annotator.temperature, float(jnp.finfo(scores.dtype).tiny), None)
    number = lambda value: jnp.asarray(value, scores.dtype)
    found = scores / number(annotator.temperature)
    if lengths is not None:
        found = found + number(annotator.length_taste) * lengths.astype(scores.dtype)
    elif not isinstance(annotator.length_taste, int | float) or annotator.length_taste != 0:
        raise ValueError(f"lengths must be given for length_taste={annotator.length_taste}, got None")
    return found.at[..., 0].add(number(annotator.position_bias))


@readable
def probabilities(annotator: Annotator, scores: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """The exact probabilities `[..., 3]` that the first answer is chosen, that the second is, and of a tie.

    Args:
        scores: the gold scores of both answers `[..., 2]`.
        lengths: their lengths `[..., 2]`, or None.

    Raises:
        ValueError: if a number of the annotator is outside its range.

    Example: a difference of ln 3 at temperature 1.

        >>> import jax.numpy as jnp
        >>> from pgjax.preferences import annotators
        >>> p = annotators.probabilities(annotators.Annotator(), jnp.array([jnp.log(3.0), 0.0]))
        >>> [round(float(x), 3) for x in p]
        [0.75, 0.25, 0.0]
    """
    require_in_range("flip", annotator.flip, 0.0, 1.0)
    u = utilities(annotator, scores, lengths)
    p = jnp.exp(davidson_log_probs(u[..., 0], u[..., 1], annotator.log_tie))
    wrong = jnp.stack([p[..., 1], p[..., 0], p[..., 2]], axis=-1)
    flip = jnp.asarray(annotator.flip, p.dtype)
    return (1.0 - flip) * p + flip * wrong


@readable
def compare(key: jax.Array, annotator: Annotator, scores: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """Labels int32 `[...]`: 0 if the first answer is chosen, 1 if the second is, 2 "equal", 3 "both bad".

    Args:
        scores: the gold scores of both answers `[..., 2]`.
        lengths: their lengths `[..., 2]`, or None.

    Raises:
        ValueError: if a number of the annotator is outside its range.
    """
    p = probabilities(annotator, scores, lengths)
    labels = jax.random.categorical(key, jnp.log(p), axis=-1).astype(jnp.int32)
    bad = (labels == EQUAL) & jnp.all(scores < jnp.asarray(annotator.bar, scores.dtype), axis=-1)
    return jnp.where(bad, BOTH_BAD, labels)


@readable
def rank(key: jax.Array, annotator: Annotator, scores: jax.Array, lengths: jax.Array | None = None) -> jax.Array:
    """The order int32 `[..., k]` of k answers, the best first, drawn from the Plackett–Luce distribution of u_i.

    Answers are ordered by u_i plus independent standard Gumbel numbers, which is exact (Yellott 1977). Flips and ties
    are properties of pairs and have no effect here.

    Args:
        scores: the gold scores `[..., k]`.
        lengths: the lengths `[..., k]`, or None.
    """
    u = utilities(annotator, scores, lengths)
    noisy = u + jax.random.gumbel(key, u.shape, u.dtype)
    return jnp.argsort(-noisy, axis=-1).astype(jnp.int32)


@readable
def entropy(chances: jax.Array) -> jax.Array:
    """−Σ p ln p `[...]`, in nats, of the probabilities `[..., outcomes]` of a label.

    Its mean over the comparisons is the entropy floor: the expected loss of every model is at least this, and the
    difference is the mean divergence KL(label ‖ model).
    """
    return jnp.sum(jax.scipy.special.entr(chances), axis=-1)
