"""Scores, the Fisher information of an episode, and the natural gradient, exactly.

Axes: T time (the horizon), S states, A actions, P parameters in the order of `ravel_pytree(params)`.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from pgjax._doors import readable
from pgjax._linear import pseudo_inverse, pseudo_inverse_of_rows
from pgjax.exact.mdp.averages import running_probabilities
from pgjax.exact.mdp.dynamic_programming import Apply, exact_gradient, log_probabilities_of, visitation
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.types import PyTree


@readable
def score_table(apply: Apply, params: PyTree, mdp: TabularMDP) -> jax.Array:
    """ψ(s, a) = ∇_θ ln π(a|s), `[S, A, P]`, of `apply(params, obs) → logits [A]` or of a `Policy` without memory.

    The rows of terminal states are computed, too; Σ_a π(a|s) ψ(s, a) = 0 in every state.

    Raises:
        ValueError: for a policy that needs its memory.
    """
    flat, unravel = ravel_pytree(params)
    log_probabilities = log_probabilities_of(apply, mdp.num_actions)
    scores = jax.jacrev(lambda theta, obs: log_probabilities(unravel(theta), obs))
    return jax.vmap(scores, (None, 0))(flat, mdp.observations)


@readable
def fisher_matrix(apply: Apply, params: PyTree, mdp: TabularMDP, *, discount: ArrayLike = 1.0) -> jax.Array:
    """F = Σ_t γᵗ Σ_s d_t(s) Σ_a π(a|s) ψ(s, a) ψ(s, a)ᵀ, `[P, P]`.

    At γ = 1 it is the Fisher information of one episode, E[S Sᵀ] = −E[∇² ln f(τ, θ)] with S = Σ_t ψ_t: the
    scores of different steps are uncorrelated. It is a sum over the episode, not a mean over steps.

    Args:
        apply, params, mdp: the policy and the problem.
        discount: γ in [0, 1], the weight γᵗ of step t.

    Raises:
        ValueError: for a discount outside [0, 1].

    Source: Kakade (2002); Bagnell & Schneider (2003) for the episode's distribution.
    """
    # One product sums over the states: a matrix for each state would need S times the memory.
    rows, weights = _weighted_scores(apply, params, mdp, discount)
    return jnp.matmul(rows.T, weights * rows, precision="highest")


def _weighted_scores(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """ψ(s, a), `[S A, P]`, and Σ_t γᵗ d_t(s) π(a|s), `[S A, 1]`."""
    gamma = checked_discount(mdp, discount)
    probabilities = running_probabilities(apply, params, mdp)
    powers = gamma ** jnp.arange(mdp.horizon, dtype=gamma.dtype)
    visits = powers @ visitation(mdp, probabilities)
    scores = score_table(apply, params, mdp)
    return scores.reshape(-1, scores.shape[-1]), (visits[:, None] * probabilities).reshape(-1, 1)


def inverse_fisher(
    apply: Apply, params: PyTree, mdp: TabularMDP, *, discount: ArrayLike = 1.0, damping: ArrayLike = 0.0
) -> Callable[[jax.Array], jax.Array]:
    """The function x ↦ F⁺ x along the last axis of x `[..., P]`, with F as in `fisher_matrix`.

    With damping c it is (F + c I)⁻¹ on the range of F. F is a sum of S A outer products. If a network has more
    parameters than that, neither F nor its inverse, both `[P, P]`, is computed.

    Raises:
        ValueError: for a discount outside [0, 1] or a negative damping.
    """
    rows, weights = _weighted_scores(apply, params, mdp, discount)
    if rows.shape[0] < rows.shape[1]:
        basis, inverse = pseudo_inverse_of_rows(jnp.sqrt(weights) * rows, damping)
        return lambda x: x @ basis @ inverse @ basis.T
    inverse = pseudo_inverse(jnp.matmul(rows.T, weights * rows, precision="highest"), damping)
    return lambda x: x @ inverse


@readable
def natural_gradient(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    *,
    discount: ArrayLike = 1.0,
    damping: ArrayLike = 0.0,
) -> PyTree:
    """F⁺ ∇ρ(θ), the shortest of the natural gradients, a pytree as `params`; (F + c I)⁻¹ ∇ρ with damping c.

    F and ρ have the same weights γᵗ. For a softmax table the natural gradient is, in each state, the mean advantage
    over the steps, minus its mean over actions, so a step of length α gives π ∝ π exp(α A). Which natural gradient is
    the shortest depends on the inner product of the parameters; the change of the policy does not.

    Raises:
        ValueError: for a discount outside [0, 1] or a negative damping.

    Source: Amari (1998); Kakade (2002).
    """
    gradient, unravel = ravel_pytree(exact_gradient(apply, params, mdp, discount))
    return unravel(inverse_fisher(apply, params, mdp, discount=discount, damping=damping)(gradient))
