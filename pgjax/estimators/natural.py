"""The natural gradient of any estimator: (F + δI)⁻¹ ∇̂ρ, where F is the Fisher information of an episode.

Axes: T time, B episodes, P parameters.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax import acting, distributions
from pgjax._checks import is_traced, require_in_range, require_integer, require_kind
from pgjax._doors import readable
from pgjax._linear import conjugate_gradients, pseudo_inverse
from pgjax.estimators import parts
from pgjax.rows import sum_over_rows
from pgjax.types import Estimator, Policy, PyTree, Trajectory


@readable
def fisher_vector_product(
    policy: Policy, params: PyTree, trajectory: Trajectory, vector: PyTree, rows_per_piece: int | None = None
) -> PyTree:
    """F̂ v with F̂ = (1/B) Σ_b Σ_t Σ_a f(X_t, θ)_a ψ ψᵀ, a pytree like `params`; the matrix F̂ is never formed.

    F̂ is the Hessian of (1/B) Σ_{b,t} KL(f(X_t, θ) ‖ f(X_t, θ')) in θ' at θ' = θ. It is an expectation over actions
    and a sum over the live steps of an episode. So on-policy E F̂ is the Fisher information of whole episodes
    (`exact.fisher_matrix`). The product costs about two gradients.

    Source: Pearlmutter 1994, Martens 2010 (the product); Schulman et al. 2015, appendix C.
    """

    kl = distributions.require(policy.distribution, "kl", "a product with the Fisher matrix")

    def of_piece(seen: acting.Inputs, mask: jax.Array, params: PyTree, vector: PyTree) -> PyTree:
        fixed, mask = acting.outputs(policy, params, seen), acting.rows_of(policy, mask)

        def divergence(theta: PyTree) -> jax.Array:
            each = jax.vmap(kl)(fixed, acting.outputs(policy, theta, seen))
            return jnp.sum(jnp.where(mask, each, 0.0))

        return jax.jvp(jax.grad(divergence), (params,), (vector,))[1]

    total = sum_over_rows(
        of_piece,
        acting.inputs(policy, trajectory),
        trajectory.alive,
        rows_per_piece,
        whole_episodes=policy.memory is not None,
        shared=(params, vector),
    )
    return jax.tree.map(lambda x: x / trajectory.alive.shape[1], total)


@readable
def softmax_inverse_fisher(logits: jax.Array, gradient: jax.Array) -> jax.Array:
    """F⁺ g for softmax tables, row by row: (I − 11ᵀ/A) diag(1/π) g, `[..., A]`; F = diag(π) − ππᵀ is never formed.

    For g = w ∇ ln π_a = w (e_a − π) the result is w (e_a − 1/A) / π_a, the shortest natural direction. The Fisher
    information of a row is that of its own softmax. It ignores how often a state is visited, as in Chung et al. 2021.

    Args:
        logits: `[..., A]`, π is the softmax over the last axis. The result is NaN where π underflows to 0.
        gradient: g, of the shape of `logits`. Each row must sum to 0, as every gradient through a softmax does.

    Source: Kakade 2002; Agarwal, Kakade, Lee & Mahajan 2021, lemma 15.
    """
    divided = gradient / jax.nn.softmax(logits, axis=-1)
    return divided - jnp.mean(divided, axis=-1, keepdims=True)


@readable
def natural(
    estimator: Estimator,
    policy: Policy,
    *,
    damping: float = 0.0,
    fisher: Callable[[PyTree], jax.Array] | None = None,
    solve: Callable[[PyTree, PyTree], PyTree] | None = None,
    iterations: int = 10,
    rows_per_piece: int | None = None,
) -> Estimator:
    """(F + δI)⁻¹ ∇̂ρ for the ∇̂ρ of any estimator; the weights, the state and its update stay those of the estimator.

    If `fisher` is given, the expectation is (F + δI)⁻¹ E ∇̂ρ, so an unbiased ∇̂ρ gives an unbiased natural gradient. If
    not, F̂ is estimated from the same episodes, and E[F̂⁻¹ ∇̂ρ] differs from F⁻¹ ∇ρ by an amount of order 1/B. With δ = 0
    the solution is the shortest one, F⁺ ∇̂ρ. δ > 0 shortens the step, mostly in directions that hardly change the
    policy, where the noise is greatest. To first order in α, a step of length α along F⁻¹ ∇ρ does not depend on how θ
    parametrises the policy.

    F belongs to a whole episode and is a *sum* over time, as ∇ρ is. So an estimator that averages over time gives a
    result that is smaller by that factor. F grows with T; choose δ accordingly. From windows F is that of T steps.

    `episode_gradients` multiplies the summand of each episode by the inverse of the batch's F̂. This solves B systems,
    each at the cost of one. Their mean is `gradient`, up to the residuals.

    Args:
        estimator: an estimator of ∇ρ(θ).
        policy: f(x, θ), whose `distribution.kl` gives F̂.
        damping: δ ≥ 0.
        fisher: `params → F [P, P]` in the order of `ravel_pytree(params)`, such as an exact F. The system is then
            solved densely in a time of order P³, by the pseudo-inverse if δ is the number 0. If None, conjugate
            gradients solve it with `fisher_vector_product`; an iteration costs about two gradients of the batch.
        solve: `(params, ∇̂ρ) → x`, a solution in closed form. It replaces `fisher`, damping and iterations.
            `softmax_inverse_fisher` solves softmax tables: F⁻¹ ∇̂ρ with one state; with several states, it uses the F_s
            of each state and ignores how often the state is visited.
        iterations: the greatest number of iterations of conjugate gradients. The solution is exact after as many
            iterations as F̂ has distinct eigenvalues; the search ends earlier when rounding would spoil x. The metric
            `natural_residual` is ‖∇̂ρ − (F̂ + δI) x‖ / ‖∇̂ρ‖. It measures the error of the equation and not that of x:
            the relative error of x may be larger by a factor of λ_max / λ_min, the ratio of the extreme eigenvalues.
        rows_per_piece: the number of rows that a product is computed for at a time; chosen by the device if None.

    Raises:
        ValueError: if `damping` < 0, `iterations` < 1, or `solve` is given together with `fisher` or a damping.

    Source: Amari 1998; Kakade 2002; Schulman et al. 2015 (conjugate gradients).

    Example:
        >>> from pgjax import baselines, environments, estimators, networks
        >>> policy = networks.make_policy(environments.make("corridor"))
        >>> vanilla = estimators.make_estimator(policy, baseline=baselines.leave_one_out())
        >>> estimators.natural(vanilla, policy, damping=0.01)
        Estimator(natural, leave_one_out, fits_windows=False)
    """
    require_kind("estimator", estimator, Estimator, "estimators.make_estimator(policy)")
    require_kind("policy", policy, Policy, "networks.make_policy(environment)")
    require_in_range("damping", damping, 0.0, None)
    require_integer("iterations", iterations, 1, None)
    if fisher is None and solve is None:
        distributions.require(policy.distribution, "kl", "the natural gradient by conjugate gradients")
    pseudo = not is_traced(damping) and float(damping) == 0.0
    if solve is not None and not (fisher is None and pseudo):
        raise ValueError("solve must be given without fisher and without damping, because it replaces both")

    def damped(params: PyTree, trajectory: Trajectory) -> Callable[[PyTree], PyTree]:
        def product(vector: PyTree) -> PyTree:
            image = fisher_vector_product(policy, params, trajectory, vector, rows_per_piece)
            return jax.tree.map(lambda x, v: x + jnp.asarray(damping, v.dtype) * v, image, vector)

        return product

    def inverse_of(matrix: jax.Array) -> jax.Array:
        if pseudo:
            return pseudo_inverse(matrix)
        identity = jnp.eye(matrix.shape[0], dtype=matrix.dtype)
        return jnp.linalg.inv(matrix + jnp.asarray(damping, matrix.dtype) * identity)

    def solver(params: PyTree, trajectory: Trajectory) -> Callable[[PyTree], PyTree]:
        if solve is not None:
            return functools.partial(solve, params)
        flat, unravel = ravel_pytree(params)
        if fisher is not None:
            inverse = inverse_of(fisher(params)).astype(flat.dtype)
            return lambda gradient: unravel(inverse @ ravel_pytree(gradient)[0])
        product = damped(params, trajectory)
        flat_product = lambda vector: ravel_pytree(product(unravel(vector)))[0]
        return lambda gradient: unravel(conjugate_gradients(flat_product, ravel_pytree(gradient)[0], iterations))

    def residual(params: PyTree, trajectory: Trajectory, gradient: PyTree, solution: PyTree) -> jax.Array:
        norm = lambda tree: jnp.linalg.norm(ravel_pytree(tree)[0])
        difference = jax.tree.map(jnp.subtract, gradient, damped(params, trajectory)(solution))
        length = norm(gradient)
        return norm(difference) / jnp.where(length > 0, length, 1.0)

    def gradient(params: PyTree, state: PyTree, trajectory: Trajectory):
        vanilla, state, metrics = estimator.gradient(params, state, trajectory)
        estimate = solver(params, trajectory)(vanilla)
        if fisher is None and solve is None:
            metrics = {**metrics, "natural_residual": residual(params, trajectory, vanilla, estimate)}
        return estimate, state, metrics

    def episode_gradients(params: PyTree, state: PyTree, trajectory: Trajectory) -> PyTree:
        each = estimator.episode_gradients(params, state, trajectory)
        return jax.vmap(solver(params, trajectory))(each)

    def part_gradients(params: PyTree, state: PyTree, trajectory: Trajectory, num_parts: int) -> PyTree:
        each = parts.part_gradients(estimator, params, state, trajectory, num_parts)
        return jax.vmap(solver(params, trajectory))(each)

    return estimator._replace(gradient=gradient, episode_gradients=episode_gradients, part_gradients=part_gradients)
