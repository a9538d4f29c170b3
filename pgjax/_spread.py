"""Mean and spread (standard deviation) of values; the spread of equal values is exactly 0.

Rounding in a mean would give equal values a tiny spread, and a division by it would make numbers near ±1 of rounding
errors. So the moments are those of differences to one of the values, which are exactly 0 for equal values. Squares are
taken in units of the largest deviation, because in float32 the square of 10¹⁹ overflows and the square of 10⁻²³ is 0.
No absolute ε is added, so a factor on the values is a factor on the mean and the spread.
"""

import jax
import jax.numpy as jnp

from pgjax import _shards


def ordered_sum(x: jax.Array, axis: int | None = None) -> jax.Array:
    """Σ x along one axis or over all axes (dimensions kept), by adding the second half to the first until one is left.

    `jnp.sum` adds numbers in the order in which the compiler lays them out in memory. This order, and with it the last
    bits of the sum, may depend on the number of devices. The additions here are elementwise, so no layout changes them.
    Devices that share episodes need not keep the order of sums if the user says so; then they add up their own parts.
    """
    if _shards.num_shards() > 1 and not _shards.is_deterministic():
        return jnp.sum(x, axis=axis, keepdims=True)
    shape = (1,) * x.ndim if axis is None else tuple(1 if i == axis % x.ndim else n for i, n in enumerate(x.shape))
    # A product merged into an addition would be rounded differently.
    x = jax.lax.optimization_barrier(jnp.ravel(x) if axis is None else jnp.moveaxis(x, axis, 0))
    while x.shape[0] > 1:
        half = (x.shape[0] + 1) // 2
        second = x[half:]
        x = x[:half] + jnp.pad(second, [(0, 2 * half - x.shape[0])] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(shape)


def centre_and_spread(
    x: jax.Array, mask: jax.Array | None = None, *, axis: int | None = None, ddof: int = 0
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Mean m, deviations x − m and standard deviation s of the values inside a mask, along `axis` (dimensions kept).

    m = x₀ + (1/n) Σ (x_i − x₀),   s² = Σ (x_i − m)² / max(n − ddof, 1),   x₀ one of the values

    Args:
        x: values of a float type.
        mask: bool, of the shape of x, true for the n values that count; all count if None.
        axis: one axis, or None for all axes.
        ddof: 0 for the divisor n, 1 for n − 1.

    Returns:
        m and s, whose reduced axes have length 1, and x − m in the shape of x, 0 outside the mask. s and x − m are
        exactly 0 if all values that count are equal.
    """
    mask = jnp.ones(x.shape, jnp.bool_) if mask is None else mask
    count = jnp.sum(mask, axis=axis, keepdims=True).astype(x.dtype)
    # The largest value serves as x₀: it is one of the values, whatever the mask.
    largest = jnp.max(x, axis=axis, keepdims=True, where=mask, initial=-jnp.inf)
    origin = jnp.where(count > 0, largest, jnp.zeros_like(largest))
    shifted = jnp.where(mask, x - origin, jnp.zeros_like(x))
    shift = ordered_sum(shifted, axis) / jnp.maximum(count, 1)
    deviations = jnp.where(mask, shifted - shift, jnp.zeros_like(x))
    # float32 cannot hold squares of deviations below 1e-23 or above 1e19, but it holds those of ratios to the largest.
    scale = jnp.max(jnp.abs(deviations), axis=axis, keepdims=True)
    unequal = scale > 0
    ratios = deviations / jnp.where(unequal, scale, jnp.ones_like(scale))
    variance = ordered_sum(jnp.square(ratios), axis) / jnp.maximum(count - ddof, 1)
    # The root of 0 has no derivative.
    root = jnp.sqrt(jnp.where(unequal, variance, jnp.ones_like(variance)))
    return origin + shift, deviations, jnp.where(unequal, scale * root, jnp.zeros_like(scale))


def standardised(x: jax.Array, mask: jax.Array | None = None, *, axis: int | None = None, ddof: int = 0) -> jax.Array:
    """(x − m) / s of `centre_and_spread`, in the shape of x; exactly 0 if all values that count are equal."""
    _, deviations, spread = centre_and_spread(x, mask, axis=axis, ddof=ddof)
    return deviations / jnp.where(spread > 0, spread, jnp.ones_like(spread))
