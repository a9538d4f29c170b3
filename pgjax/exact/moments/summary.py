"""Means and variances of values with probabilities, of a whole table or merged from several blocks.

Axes: N values, n values of one block, P numbers of a value.
"""

import operator
from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax._doors import readable
from pgjax.types import PyTree


class Moments(NamedTuple):
    """Exact moments of a random pytree X.

    Attributes:
        mean: E[X], a pytree as X.
        variance: E[(X − E[X])²] of each coordinate, a pytree as X.
        total_variance: tr Var(X) = E‖X − E[X]‖², a scalar, the sum of `variance`.
        second_moment: E‖X‖² = tr Var(X) + ‖E[X]‖², a scalar.
        covariance: the covariance matrix of the flattened X, `[P, P]`, or None if it was not asked for.
    """

    mean: PyTree
    variance: PyTree
    total_variance: jax.Array
    second_moment: jax.Array
    covariance: jax.Array | None = None


@readable
def moments_of(estimates: PyTree, probabilities: jax.Array) -> Moments:
    """The moments of a random X that takes the value `estimates[n]` (leaves `[N, ...]`) with `probabilities [N]`.

    The probabilities must sum to 1; the mean is Σ_n p_n X_n.

    Example: a fair coin that pays 0 or 2.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> found = exact.moments_of(estimates=jnp.array([0.0, 2.0]), probabilities=jnp.array([0.5, 0.5]))
        >>> float(found.mean), float(found.total_variance)
        (1.0, 1.0)
    """
    chex.assert_rank(probabilities, 1)
    chex.assert_equal_shape_prefix([probabilities, *jax.tree.leaves(estimates)], 1)

    def expect(values: jax.Array) -> jax.Array:
        weights = jnp.expand_dims(probabilities, tuple(range(1, values.ndim)))
        return jnp.sum(weights * values, axis=0)

    mean = jax.tree.map(expect, estimates)
    variance = jax.tree.map(lambda x, m: expect((x - m[None]) ** 2), estimates, mean)
    return Moments(
        mean=mean,
        variance=variance,
        total_variance=_sum_of_leaves(variance),
        second_moment=_sum_of_leaves(jax.tree.map(lambda x: expect(x**2), estimates)),
    )


def _sum_of_leaves(tree: PyTree) -> jax.Array:
    return jax.tree.reduce(operator.add, jax.tree.map(jnp.sum, tree))


class Sums(NamedTuple):
    """Sums over values x with weights p: Σ p, the mean Σ p x / Σ p `[P]`, and the spread.

    The spread is Σ p (x − mean)(x − mean)ᵀ `[P, P]`, or its diagonal `[P]`.
    """

    weight: jax.Array
    mean: jax.Array
    spread: jax.Array


def _products(weights: jax.Array, deviations: jax.Array, full: bool) -> jax.Array:
    """Σ_n w_n d dᵀ of `[n]` and `[n, P]`: `[P, P]`, or its diagonal `[P]`."""
    weighted = weights[:, None] * deviations
    if full:
        return jnp.einsum("ni,nj->ij", weighted, deviations, precision="highest")
    return jnp.sum(weighted * deviations, axis=0)


def sums_of(weights: jax.Array, values: jax.Array, full: bool) -> Sums:
    """The sums over the values `[n, P]` of one block with `weights [n]`.

    One of the values is subtracted from all of them first, so that equal values have a spread of exactly 0.
    """
    origin, total = values[0], jnp.sum(weights)
    shares = weights / jnp.where(total > 0, total, jnp.ones_like(total))
    shifted = values - origin[None]
    shift = jnp.sum(shares[:, None] * shifted, axis=0)
    return Sums(weight=total, mean=origin + shift, spread=_products(weights, shifted - shift[None], full))


def merged(a: Sums, b: Sums, full: bool) -> Sums:
    """The sums over both blocks: spread = spread_a + spread_b + p_a p_b / (p_a + p_b) (mean_b − mean_a)².

    All terms are at least 0, so no digits cancel.

    Source: Chan, Golub & LeVeque (1979).
    """
    total = a.weight + b.weight
    share = b.weight / jnp.where(total > 0, total, jnp.ones_like(total))
    step = b.mean - a.mean
    between = _products((a.weight * share)[None], step[None], full)
    return Sums(weight=total, mean=a.mean + share * step, spread=a.spread + b.spread + between)


def moments_of_sums(sums: Sums, unravel: Callable[[jax.Array], PyTree]) -> Moments:
    """The moments of all values, if Σ p = 1; `unravel` gives a vector `[P]` the structure of one value."""
    full = sums.spread.ndim == 2
    variance = jnp.diagonal(sums.spread) if full else sums.spread
    total_variance = jnp.sum(variance)
    return Moments(
        mean=unravel(sums.weight * sums.mean),
        variance=unravel(variance),
        total_variance=total_variance,
        second_moment=total_variance + sums.weight * jnp.sum(sums.mean**2),
        covariance=sums.spread if full else None,
    )


def to_moments(params: PyTree, mean: jax.Array, second: jax.Array) -> Moments:
    """`Moments` shaped as `params` from E[X] `[P]` and E[X Xᵀ] `[P, P]` or its diagonal `[P]`."""
    flat, unravel = ravel_pytree(params)
    full = second.ndim == 2
    covariance = second - mean[:, None] * mean[None, :] if full else None
    squares = jnp.diagonal(second) if full else second
    # If nothing varies, rounding may give a difference below zero.
    variance = jnp.maximum(squares - mean**2, 0.0)
    return Moments(
        mean=unravel(mean.astype(flat.dtype)),
        variance=unravel(variance.astype(flat.dtype)),
        total_variance=jnp.sum(variance),
        second_moment=jnp.sum(squares),
        covariance=covariance,
    )
