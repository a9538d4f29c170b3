"""Solutions of symmetric systems that may be singular, and quotients that are 0 where the divisor is 0."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range


def pseudo_inverse(matrix: jax.Array, damping: ArrayLike = 0.0) -> jax.Array:
    """Σ_i q_i q_iᵀ / (λ_i + c) over the positive eigenvalues of a semidefinite `[P, P]` matrix F = Σ_i λ_i q_i q_iᵀ.

    c = `damping` ≥ 0; c = 0 gives the Moore–Penrose inverse. Directions with λ_i = 0 are left out for every c: in a
    Fisher matrix they change no probability. The rows of F may have very different sizes. So F is first scaled to ones
    on its diagonal, and a state that is visited once in a million episodes is solved as well as the others.

    Numbers that may be rounding errors of 0 count as 0. With the ε of the float type, these are eigenvalues of the
    *scaled* matrix of at most 10 P ε times its largest eigenvalue, and diagonal entries of at most (4 ε)² times the
    largest entry (they are squares of rounding errors).

    If G is an inverse of F + c I on the range of F and Π is the projection on this range, the result is Π G Π. G is
    computed from the scaled matrix S (F + c I) S, and the null space of F is S times the null space of S F S.

    Raises:
        ValueError: for a negative damping.
    """
    require_in_range("damping", damping, 0.0, None)
    diagonal = jnp.diagonal(matrix)
    eigenvalues, vectors, scale = _scaled_eigenvectors(matrix, diagonal)
    null = eigenvalues <= _cutoff(eigenvalues, diagonal.size)
    # Eigenvalues ascend, so the null space comes first, and the columns of zeros after it do not change its basis.
    basis = jnp.linalg.qr(jnp.where(null[None, :], scale[:, None] * vectors, 0.0))[0]
    basis = jnp.where(null[None, :], basis, 0.0)
    damping = jnp.asarray(damping, matrix.dtype)
    damped = matrix + damping * jnp.eye(matrix.shape[0], dtype=matrix.dtype)
    eigenvalues, vectors, scale = _scaled_eigenvectors(damped, diagonal + damping)
    kept = eigenvalues > _cutoff(eigenvalues, diagonal.size)
    weights = jnp.where(kept, jax.lax.rsqrt(jnp.where(kept, eigenvalues, 1.0)), 0.0)
    half = scale[:, None] * vectors * weights[None, :]
    half = half - basis @ (basis.T @ half)
    return half @ half.T


def pseudo_inverse_of_rows(rows: jax.Array, damping: ArrayLike = 0.0) -> tuple[jax.Array, jax.Array]:
    """Q `[P, N]` and M `[N, N]` with Q M Qᵀ = `pseudo_inverse(F, damping)` of F = Σ_n x_n x_nᵀ, from the x_n `[N, P]`.

    Use it for N < P: it makes no `[P, P]` matrix and costs N² P instead of P³. The columns of Q are orthonormal and
    span the range of F; the columns beyond the rank of F are 0. M is the pseudo-inverse of Qᵀ F Q. The rows are scaled
    as `pseudo_inverse` scales F; their singular values are the roots of its eigenvalues, with the same cutoff.

    Raises:
        ValueError: for a negative damping.
    """
    require_in_range("damping", damping, 0.0, None)
    scale = _scale(jnp.sum(jnp.square(rows), axis=0))
    _, singular, vectors = jnp.linalg.svd(scale[None, :] * rows, full_matrices=False)
    kept = jnp.square(singular) > _cutoff(jnp.square(singular), rows.shape[1])
    # Singular values descend, so the range comes first, and the columns of zeros after it do not change its basis.
    basis = jnp.linalg.qr(jnp.where(kept[None, :], vectors.T / scale[:, None], 0.0))[0]
    basis = jnp.where(kept[None, :], basis, 0.0)
    within = jnp.matmul(rows, basis, precision="highest")
    return basis, pseudo_inverse(jnp.matmul(within.T, within, precision="highest"), damping)


def _scaled_eigenvectors(matrix: jax.Array, diagonal: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The eigenvalues (ascending) and eigenvectors of S F S, and the diagonal of S."""
    scale = _scale(diagonal)
    return *jnp.linalg.eigh(scale[:, None] * matrix * scale[None, :]), scale


def _scale(diagonal: jax.Array) -> jax.Array:
    """The diagonal of S = 1/√F_ii; entries F_ii = 0 are not scaled up."""
    largest = jnp.max(diagonal)
    sure = diagonal > jnp.square(4 * jnp.finfo(diagonal.dtype).eps) * largest
    return jax.lax.rsqrt(jnp.where(sure, diagonal, jnp.where(largest > 0, largest, 1.0)))


def _cutoff(eigenvalues: jax.Array, size: int) -> jax.Array:
    """The bound up to which eigenvalues of a `[size, size]` matrix count as 0."""
    return 10 * size * jnp.finfo(eigenvalues.dtype).eps * jnp.max(jnp.abs(eigenvalues))


class _Search(NamedTuple):
    """The state of conjugate gradients: x, the residual r, the direction p, ‖r‖², the largest pᵀAp / pᵀp so far."""

    solution: jax.Array
    residual: jax.Array
    direction: jax.Array
    square: jax.Array
    largest: jax.Array
    steps: jax.Array
    done: jax.Array


def conjugate_gradients(product: Callable[[jax.Array], jax.Array], target: jax.Array, iterations: int) -> jax.Array:
    """x `[P]` with A x = g for a positive semidefinite A, from x = 0 and with at most `iterations` products v ↦ A v.

    In exact arithmetic each step brings x nearer to the shortest solution. Rounding errors end this. They leave a part
    of r in the null space of A, which no step can remove. The directions turn into the null space, and the step sizes
    rᵀr / pᵀAp grow without bound. The residual does not show this, because A does not see its null space. So the search
    stops

        at ‖r‖ ≤ 10 ε (‖A‖ ‖x‖ + ‖g‖), where x solves this system up to rounding of its entries (Rigal & Gaches 1967),
        or before a step along a direction with pᵀAp ≤ 100 ε ‖A‖ pᵀp, which may lie in the null space of A.

    ε is that of the float type, and ‖A‖ is the largest pᵀAp / pᵀp seen.

    Source: Hestenes & Stiefel 1952; Kaasschieter 1988 (singular systems).
    """
    epsilon = jnp.finfo(target.dtype).eps
    largest_entry = jnp.max(jnp.abs(target))
    unit = jnp.where(largest_entry > 0, largest_entry, 1.0)
    target = target / unit
    length = jnp.linalg.norm(target)

    def step(at: _Search) -> _Search:
        image = product(at.direction)
        curvature, size = jnp.vdot(at.direction, image), jnp.vdot(at.direction, at.direction)
        largest = jnp.maximum(at.largest, curvature / size)
        flat = curvature <= 100.0 * epsilon * largest * size
        rate = jnp.where(flat, 0.0, at.square / jnp.where(flat, 1.0, curvature))
        solution, residual = at.solution + rate * at.direction, at.residual - rate * image
        square = jnp.vdot(residual, residual)
        noise = 10.0 * epsilon * (largest * jnp.linalg.norm(solution) + length)
        return _Search(
            solution=solution,
            residual=residual,
            direction=residual + square / at.square * at.direction,
            square=square,
            largest=largest,
            steps=at.steps + 1,
            done=flat | (jnp.sqrt(square) <= noise),
        )

    start = _Search(
        solution=jnp.zeros_like(target),
        residual=target,
        direction=target,
        square=jnp.vdot(target, target),
        largest=jnp.zeros_like(length),
        steps=jnp.int32(0),
        done=length == 0,
    )
    found = jax.lax.while_loop(lambda at: ~at.done & (at.steps < iterations), step, start)
    return unit * found.solution


def ratio_or_zero(numerator: jax.Array, denominator: jax.Array) -> jax.Array:
    """numerator / denominator, and 0 where the denominator (a mean square) is 0; the shapes may broadcast."""
    possible = denominator > 0
    return jnp.where(possible, numerator / jnp.where(possible, denominator, 1.0), 0.0)
