"""Quadratic functions of Gaussian vectors: exact substitution, averages, variances and moments of products.

Axes: N the length of the vector.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike


class Quadratic(NamedTuple):
    """q(z) = zᵀ M z + lᵀ z + c, or a stack of them with leading axes.

    Attributes:
        matrix: M, symmetric `[..., N, N]`.
        vector: l, `[..., N]`.
        constant: c, `[...]`.
    """

    matrix: jax.Array
    vector: jax.Array
    constant: jax.Array

    def __call__(self, z: jax.Array) -> jax.Array:
        """q(z) of z `[..., N]`; its leading axes are those of the stack."""
        square = jnp.einsum("...i,...ij,...j->...", z, self.matrix, z)
        return square + jnp.einsum("...i,...i->...", self.vector, z) + self.constant


def combine(*terms: tuple[ArrayLike, Quadratic]) -> Quadratic:
    """The quadratic Σ_i w_i q_i, from pairs (w_i, q_i)."""
    scaled = [jax.tree.map(lambda x, w=weight: w * x, quadratic) for weight, quadratic in terms]
    return jax.tree.map(lambda *leaves: sum(leaves[1:], leaves[0]), *scaled)


def substitute(q: Quadratic, matrix: jax.Array, shift: jax.Array | None = None) -> Quadratic:
    """The quadratic z ↦ q(F z + f)."""
    f = jnp.zeros_like(matrix[:, 0]) if shift is None else shift
    return Quadratic(
        matrix=matrix.T @ q.matrix @ matrix,
        vector=matrix.T @ (2.0 * q.matrix @ f + q.vector),
        constant=q(f),
    )


def averaged(q: Quadratic, covariance: jax.Array) -> Quadratic:
    """The quadratic z ↦ E q(z + e), e ~ N(0, S)."""
    return q._replace(constant=q.constant + jnp.trace(q.matrix @ covariance))


def variance(q: Quadratic, covariance: jax.Array) -> Quadratic:
    """The quadratic z ↦ Var q(z + e) = (2Mz + l)ᵀ S (2Mz + l) + 2 tr(MSMS), e ~ N(0, S)."""
    half = q.matrix @ covariance
    constant = q.vector @ covariance @ q.vector + 2.0 * jnp.trace(half @ half)
    return Quadratic(matrix=4.0 * half @ q.matrix, vector=4.0 * half @ q.vector, constant=constant)


def moment(mean: jax.Array, covariance: jax.Array, *quadratics: Quadratic) -> jax.Array:
    """E Π_i q_i(z) of one, two or three quadratics, z ~ N(m, S); S may be singular.

    With the slopes d_i = 2 M_i m + l_i the joint cumulants are κ_i = q_i(m) + tr(M_i S), κ_ij = 2 tr(M_i S M_j S) +
    d_iᵀ S d_j and κ_123 = 8 tr(M_1 S M_2 S M_3 S) + 2 Σ_j d_iᵀ S M_j S d_k.
    """
    chex.assert_equal_shape([q.matrix for q in quadratics])
    halves = [q.matrix @ covariance for q in quadratics]
    slopes = [2.0 * q.matrix @ mean + q.vector for q in quadratics]
    first = [q(mean) + jnp.trace(half) for q, half in zip(quadratics, halves)]

    def second(i: int, j: int) -> jax.Array:
        return 2.0 * jnp.sum(halves[i] * halves[j].T) + slopes[i] @ covariance @ slopes[j]

    if len(quadratics) == 1:
        return first[0]
    if len(quadratics) == 2:
        return first[0] * first[1] + second(0, 1)
    bent = sum(slopes[i] @ covariance @ halves[j] @ slopes[k] for i, j, k in ((1, 0, 2), (0, 1, 2), (0, 2, 1)))
    third = 8.0 * jnp.trace(halves[0] @ halves[1] @ halves[2]) + 2.0 * bent
    pairs = sum(second(i, j) * first[k] for i, j, k in ((0, 1, 2), (0, 2, 1), (1, 2, 0)))
    return third + pairs + first[0] * first[1] * first[2]
