"""Inverses that are 0 where there is nothing to invert: of a symmetric matrix, and of a mean square."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range


def pseudo_inverse(matrix: jax.Array, damping: ArrayLike = 0.0) -> jax.Array:
    """Σ_i q_i q_iᵀ / (λ_i + c) over the positive eigenvalues of a symmetric `[P, P]` matrix Σ_i λ_i q_i q_iᵀ.

    Eigenvalues of at most 10 P ε times the largest (ε the float type's) count as zero: in a Fisher matrix their
    directions change no probability, so nothing is gained by a step there, damped or not. c = `damping` ≥ 0; c = 0 is
    Moore and Penrose's inverse of a positive semidefinite matrix.

    Raises:
        ValueError: for a negative damping.
    """
    require_in_range("damping", damping, 0.0, None)
    eigenvalues, vectors = jnp.linalg.eigh(matrix)
    cutoff = 10 * matrix.shape[0] * jnp.finfo(matrix.dtype).eps * jnp.max(jnp.abs(eigenvalues))
    kept = eigenvalues > cutoff
    damped = jnp.where(kept, eigenvalues, 1.0) + jnp.asarray(damping, matrix.dtype)
    return (vectors * jnp.where(kept, 1.0 / damped, 0.0)[None, :]) @ vectors.T


def ratio_or_zero(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator / denominator, 0 where the denominator, a mean square, is 0; of one shape or broadcast."""
    possible = denominator > 0
    return jnp.where(possible, numerator / jnp.where(possible, denominator, 1.0), 0.0)
