"""The natural gradient of any estimator: (F + δI)⁻¹ ∇̂ρ, F the Fisher information of an episode.

Axes: T time, B episodes, P parameters.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax import acting, distributions
from pgjax._checks import is_traced, require_in_range, require_integer, require_kind
from pgjax._linear import conjugate_gradients, pseudo_inverse
from pgjax.rows import sum_over_rows
from pgjax.types import Estimator, Policy, PyTree, Trajectory


def fisher_vector_product(
    policy: Policy, params: PyTree, trajectory: Trajectory, vector: PyTree, rows_per_piece: int | None = None
) -> PyTree:
    """F̂ v with F̂ = (1/B) Σ_b Σ_t Σ_a f(X_t, θ)_a ψ ψᵀ, a pytree as `params`; F̂ itself is never formed.

    It is the Hessian of (1/B) Σ_{b,t} KL(f(X_t, θ) ‖ f(X_t, θ')) in θ' at θ, times v: expected over actions and
    summed over the live steps of an episode, so E F̂ is the Fisher information of whole episodes on-policy
    (`exact.fisher_matrix`). Costs about two gradients.

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


def softmax_inverse_fisher(logits: jax.Array, gradient: jax.Array) -> jax.Array:
    """F⁺ g of softmax tables, row by row: (I − 11ᵀ/A) diag(1/π) g, `[..., A]`, without forming F = diag(π) − ππᵀ.

    For g = w ∇ ln π_a = w (e_a − π) it is w (e_a − 1/A) / π_a: the shortest of the natural directions. Each row's
    Fisher information is that of its own softmax; how often a state is visited is left out, as Chung et al. 2021 do.

    Args:
        logits: `[..., A]`, π = softmax over the last axis; NaN where π underflows to 0.
        gradient: g, as `logits`; its rows sum to zero, as those of every gradient through a softmax do.

    Source: Kakade 2002; Agarwal, Kakade, Lee & Mahajan 2021, lemma 15.
    """
    divided = gradient / jax.nn.softmax(logits, axis=-1)
    return divided - jnp.mean(divided, axis=-1, keepdims=True)


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
    """(F + δI)⁻¹ ∇̂ρ for the ∇̂ρ of any estimator; the weights, the state and its update stay the estimator's.

    With `fisher` given the mean is (F + δI)⁻¹ E ∇̂ρ: as unbiased for the natural gradient as ∇̂ρ is for ∇ρ. Without, F̂
    is estimated from the same episodes, and E[F̂⁻¹ ∇̂ρ] differs from F⁻¹ ∇ρ by order 1/B. With δ = 0 the solution is
    the shortest, F⁺ ∇̂ρ; δ > 0 shortens the step, most in directions that hardly change the policy, where noise is
    greatest. A step of length α along F⁻¹ ∇ρ does not depend, to first order in α, on how θ parametrises the policy.

    F is that of a whole episode, a *sum* over time as ∇ρ is: with an estimator that averages over time the result is
    that much smaller, and δ is to be compared with T. From windows it is that of T steps.

    Args:
        estimator: of ∇ρ(θ).
        policy: f(x, θ), whose `distribution.kl` gives F̂.
        damping: δ ≥ 0.
        fisher: `params → F [P, P]` in the order of `ravel_pytree(params)`, such as the oracle's; then solved densely,
            by the pseudo-inverse if δ is the number 0, in P³. If None: conjugate gradients on
            `fisher_vector_product`, each iteration about two gradients of the batch.
        solve: `(params, ∇̂ρ) → x` where the solution is known in closed form, in place of `fisher`, without damping and
            iterations. `softmax_inverse_fisher` for softmax tables: with one state F⁻¹ ∇̂ρ, with several each state by
            its own F_s, whatever the visits.
        iterations: of conjugate gradients at most; exact after as many as F̂ has distinct eigenvalues, and ended by
            rounding before it spoils x. The metric `natural_residual` is ‖∇̂ρ − (F̂ + δI) x‖ / ‖∇̂ρ‖ of what they
            return. It says how far the equation is solved, not how near x is: with eigenvalues λ from small to large
            the relative error of x may be λ_max / λ_min times it.
        rows_per_piece: how many rows a product works on at a time.

    `episode_gradients` multiplies the summand of each episode by the inverse of the batch's F̂, B systems of the cost
    of one; their mean is `gradient` up to the residuals.

    Raises:
        ValueError: if `damping` < 0 or `iterations` < 1, or for `solve` beside `fisher` or a damping.

    Source: Amari 1998; Kakade 2002; Schulman et al. 2015 (conjugate gradients).
    """
    require_kind("estimator", estimator, Estimator, "estimators.make_estimator(policy)")
    require_kind("policy", policy, Policy, "networks.make_policy(environment)")
    require_in_range("damping", damping, 0.0, None)
    require_integer("iterations", iterations, 1, None)
    if fisher is None and solve is None:
        distributions.require(policy.distribution, "kl", "the natural gradient by conjugate gradients")
    pseudo = not is_traced(damping) and float(damping) == 0.0
    if solve is not None and not (fisher is None and pseudo):
        raise ValueError("solve must come without fisher and without damping, which it stands for")

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

    return estimator._replace(gradient=gradient, episode_gradients=episode_gradients)
