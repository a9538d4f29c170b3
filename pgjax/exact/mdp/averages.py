"""Averages over actions and outcomes that the exact moments share.

Axes: T time (the horizon), S states, A actions, K outcomes of one action in one state, P parameters.
"""

import jax
import jax.numpy as jnp

from pgjax.exact.mdp.dynamic_programming import Apply, policy_probabilities
from pgjax.exact.mdp.tabular import TabularMDP
from pgjax.types import PyTree


def running_probabilities(apply: Apply, params: PyTree, mdp: TabularMDP) -> jax.Array:
    """π(a|s) `[S, A]`, and 0 in terminal states, so that averages over actions are 0 there."""
    return jnp.where(mdp.terminal[:, None], 0.0, policy_probabilities(apply, params, mdp))


def over_outcomes(mdp: TabularMDP, weights: jax.Array) -> jax.Array:
    """Σ_k P(k|s, a) w_k, `[S, A]`, of `weights [S, A, K]`."""
    return jnp.sum(mdp.probabilities * weights, axis=-1)


def outcome_matrix(mdp: TabularMDP, weights: jax.Array) -> jax.Array:
    """M(s, a, s') = Σ_{k: s→s'} P(k|s, a) w_k, `[S, A, S]`, of `weights [S, A, K]`: E[w f(s') | s, a] = M f."""
    states, actions, _ = jnp.indices(mdp.successors.shape, sparse=True)
    shape = (mdp.num_states, mdp.num_actions, mdp.num_states)
    empty = jnp.zeros(shape, mdp.probabilities.dtype)
    return empty.at[states, actions, mdp.successors].add(mdp.probabilities * weights)


def outer_average(weights: jax.Array, x: jax.Array, y: jax.Array, full: bool) -> jax.Array:
    """Σ_a w(s, a) x yᵀ of `weights [S, A]` and `x`, `y [S, A, P]`: `[S, P, P]`, or its diagonal `[S, P]`."""
    return jnp.einsum("sa,sai,saj->sij" if full else "sa,sai,sai->si", weights, x, y)


def symmetric_average(weights: jax.Array, x: jax.Array, y: jax.Array, full: bool) -> jax.Array:
    """Σ_a w (x yᵀ + y xᵀ), axes as in `outer_average`."""
    product = outer_average(weights, x, y, full)
    return product + (jnp.swapaxes(product, -1, -2) if full else product)
