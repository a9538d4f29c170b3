"""Functions for the elements of one space: random elements, and tests whether an array is an element.

A space has a `shape`, a `dtype` and `bounds`, two NumPy arrays of that shape and dtype.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._doors import readable


def own_type(space: Any) -> np.dtype:
    """The dtype of the elements that JAX can make: without x64, a 32-bit type replaces a 64-bit type."""
    return np.dtype(jax.dtypes.canonicalize_dtype(space.dtype))


def own_bounds(space: Any) -> tuple[np.ndarray, np.ndarray]:
    """The bounds in the type `own_type(space)`, cut to the range of this type."""
    dtype = own_type(space)
    if jnp.issubdtype(dtype, jnp.integer):
        least, greatest = jnp.iinfo(dtype).min, jnp.iinfo(dtype).max
        low, high = (np.clip(bound, least, greatest).astype(dtype) for bound in space.bounds)
    else:
        with np.errstate(over="ignore"):
            low, high = (bound.astype(dtype) for bound in space.bounds)
    return low, high


def integers(key: jax.Array, space: Any) -> jax.Array:
    """Uniform random integers from low to high, both included; for a space of bool, random bits."""
    dtype = own_type(space)
    integer = np.dtype(np.int8) if dtype.kind == "b" else dtype
    unsigned = np.dtype(f"uint{8 * integer.itemsize}")
    low, high = (bound.astype(integer).view(unsigned) for bound in own_bounds(space))
    with np.errstate(over="ignore"):
        width = high - low
    # If all bit patterns are elements, their number is one too large for the type.
    every = width == np.iinfo(unsigned).max
    count = np.add(width, np.logical_not(every), dtype=unsigned)
    offset = jax.random.randint(key, space.shape, 0, count, unsigned)
    if every.any():
        offset = jnp.where(every, jax.random.bits(key, space.shape, unsigned), offset)
    return jax.lax.bitcast_convert_type(offset + low, integer).astype(dtype)


def floats(key: jax.Array, space: Any) -> jax.Array:
    """Random floats: uniform between two finite bounds, low + Exp(1) or high − Exp(1) with one, N(0, 1) with none.

    Each entry is the inverse of its distribution function at one uniform number.
    """
    dtype, (low, high) = own_type(space), own_bounds(space)
    # Half precision has only some hundred different uniform numbers.
    wide = dtype if jnp.finfo(dtype).bits >= 32 else np.dtype(np.float32)
    u = jax.random.uniform(key, space.shape, wide)
    below, above = np.isfinite(low), np.isfinite(high)
    a, b = np.where(below, low, 0).astype(wide), np.where(above, high, 0).astype(wide)
    exponential = -jnp.log1p(-u)
    nearly_one = 1 - jnp.finfo(wide).epsneg
    normal = np.asarray(np.sqrt(2), wide) * jax.scipy.special.erfinv(jnp.clip(2 * u - 1, -nearly_one, nearly_one))
    # Not a + (b − a) u: the difference of two huge bounds overflows.
    drawn = jnp.where(below, a + exponential, jnp.where(above, b - exponential, normal))
    drawn = jnp.where(below & above, a * (1 - u) + b * u, drawn)
    return jnp.clip(drawn.astype(dtype), low, high)


@readable
def all_different(x: Any) -> Any:
    """Whether the k entries of each row of x `[..., k]` are different: bool `[...]`, a JAX or NumPy array as x is."""
    earlier = np.tri(x.shape[-1], k=-1, dtype=bool)
    repeats = (x[..., :, None] == x[..., None, :]) & np.broadcast_to(earlier, (*x.shape, x.shape[-1]))
    return ~repeats.any((-2, -1))


def inside(space: Any, x: Any) -> jax.Array:
    """Whether x has the shape and the kind of number of the space and lies within its bounds: bool `[]`."""
    x, dtype, (low, high) = jnp.asarray(x), own_type(space), own_bounds(space)
    kind = next(kind for kind in (jnp.bool_, jnp.integer, jnp.floating) if jnp.issubdtype(dtype, kind))
    if x.shape != space.shape or (kind != jnp.floating and not jnp.issubdtype(x.dtype, kind)):
        return jnp.zeros((), bool)
    if kind == jnp.floating:
        # The comparison uses the floats of the space, so that an entry 0.1 equals a bound 0.1.
        x = x.astype(dtype)
    elif kind == jnp.integer:
        least, greatest = jnp.iinfo(x.dtype).min, jnp.iinfo(x.dtype).max
        if (high < least).any() or (low > greatest).any():
            return jnp.zeros((), bool)
        low, high = (np.clip(bound, least, greatest).astype(x.dtype) for bound in (low, high))
    return jnp.all((x >= low) & (x <= high))
