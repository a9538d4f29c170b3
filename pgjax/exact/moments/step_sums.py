"""Exact moments of estimates that are sums over the steps of one episode, without enumeration.

The estimates belong to one family, g = Σ_t c_t [ψ_t (κ G_t − b_t(S_t, A_t)) + φ_t(S_t)]. A backward dynamic program
computes the joint moments of G_t and of the rest of the sum from step t on. `named_sums` has the members of the family
that have names.

Axes: T time (the horizon), S states, A actions, K outcomes, P parameters in the order of `ravel_pytree`.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._doors import readable
from pgjax.exact.mdp.averages import (
    outcome_matrix,
    outer_average,
    over_outcomes,
    running_probabilities,
    symmetric_average,
)
from pgjax.exact.mdp.dynamic_programming import Apply
from pgjax.exact.mdp.fisher import score_table
from pgjax.exact.mdp.tabular import TabularMDP
from pgjax.exact.moments.summary import Moments, to_moments
from pgjax.types import PyTree


class StepSum(NamedTuple):
    """g = Σ_t c_t [ψ_t (κ G_t − b_t(S_t, A_t)) + φ_t(S_t)], with G_t = R̃_t + γ̃ G_{t+1} and c_t = δᵗ.

    Attributes:
        rewards: R̃_t(s, a, k), `[T, S, A, K]`.
        discount: γ̃ of G_t, a scalar.
        return_weight: κ, a scalar; with 0 the sum does not depend on the return.
        baseline: b_t(s, a), `[T, S, A]`.
        offset: φ_t(s), `[T, S, P]`.
        time_factor: δ, a scalar, 1 for no time weights.
    """

    rewards: jax.Array
    discount: jax.Array
    return_weight: jax.Array
    baseline: jax.Array
    offset: jax.Array
    time_factor: jax.Array


class _Ahead(NamedTuple):
    """Moments, given S_t = s, of G = G_t `[S]` and of U `[S, P]`, the sum from t on divided by c_t."""

    g: jax.Array
    gg: jax.Array
    u: jax.Array
    gu: jax.Array
    uu: jax.Array


@readable
def step_sum_moments(
    apply: Apply, params: PyTree, mdp: TabularMDP, terms: StepSum, *, covariance: bool = False
) -> Moments:
    """Exact moments of a `StepSum` of one episode, shaped as `params`; with `covariance` also the covariance matrix."""
    probabilities = running_probabilities(apply, params, mdp)
    mean, second = _backward(mdp, probabilities, score_table(apply, params, mdp), terms, full=covariance)
    return to_moments(params, mean, second)


@functools.partial(jax.jit, static_argnames="full")
def _backward(
    mdp: TabularMDP, probabilities: jax.Array, scores: jax.Array, terms: StepSum, *, full: bool
) -> tuple[jax.Array, jax.Array]:
    """E[g] `[P]` and E[g gᵀ] `[P, P]`, or its diagonal `[P]`; `probabilities` are 0 in terminal states.

    With H = R̃ + γ̃ G' given (s, a), h its mean and D = κ H − b, U = ψ D + φ + δ U'. H is split into its deviation H − h
    and h, so that D = κ (H − h) + (κ h − b) stays accurate if b is near H.
    """
    transitions = outcome_matrix(mdp, jnp.ones_like(mdp.rewards))
    terms = _centred(mdp, probabilities, transitions, terms)
    gamma, kappa, delta = terms.discount, terms.return_weight, terms.time_factor
    state_transitions = jnp.einsum("sa,saz->sz", probabilities, transitions)
    over_actions = lambda x: jnp.einsum("sa,sa...->s...", probabilities, x)

    def one_step_back(ahead: _Ahead, row: tuple) -> tuple[_Ahead, None]:
        rewards, b, phi = row
        h = over_outcomes(mdp, rewards) + gamma * transitions @ ahead.g
        surprise = rewards - h[..., None]
        surprised = outcome_matrix(mdp, surprise)
        spread = over_outcomes(mdp, surprise**2) + 2 * gamma * surprised @ ahead.g + gamma**2 * transitions @ ahead.gg
        u = delta * (transitions @ ahead.u)
        together = delta * (surprised @ ahead.u + gamma * transitions @ ahead.gu)

        d = kappa * h - b
        dd, hd = kappa**2 * spread + d**2, kappa * spread + h * d
        hu, du = together + h[..., None] * u, kappa * together + d[..., None] * u
        phi = jnp.broadcast_to(phi[:, None, :], scores.shape)
        uu = outer_average(probabilities * dd, scores, scores, full)
        uu += symmetric_average(probabilities, scores, phi * d[..., None] + du, full)
        uu += symmetric_average(probabilities, phi, u, full) + outer_average(probabilities, phi, phi, full)
        uu += delta**2 * jnp.einsum("sz,z...->s...", state_transitions, ahead.uu)
        return _Ahead(
            g=over_actions(h),
            gg=over_actions(spread + h**2),
            u=over_actions(scores * d[..., None] + phi + u),
            gu=over_actions(scores * hd[..., None] + phi * h[..., None] + hu),
            uu=uu,
        ), None

    nothing, vector = jnp.zeros_like(mdp.initial), jnp.zeros_like(scores[:, 0])
    square = jnp.zeros((*vector.shape, vector.shape[-1]), vector.dtype) if full else vector
    end = _Ahead(g=nothing, gg=nothing, u=vector, gu=vector, uu=square)
    rows = (terms.rewards, terms.baseline, terms.offset)
    start, _ = jax.lax.scan(one_step_back, end, rows, reverse=True)
    return mdp.initial @ start.u, jnp.einsum("s,s...->...", mdp.initial, start.uu)


def _centred(mdp: TabularMDP, probabilities: jax.Array, transitions: jax.Array, terms: StepSum) -> StepSum:
    """The same sum in G_t − v_t(S_t), v_t(s) = E[G_t | S_t = s]: R̃ + γ̃ v_{t+1}(s') − v_t(s) for R̃, b − κ v_t for b.

    The squares are then those of deviations, which stay accurate if a constant is added to all rewards or b is near G.
    """

    def one_step_back(ahead: jax.Array, rewards: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        given_action = over_outcomes(mdp, rewards) + terms.discount * transitions @ ahead
        here = jnp.sum(probabilities * given_action, axis=-1)
        surprise = rewards + terms.discount * ahead[mdp.successors] - here[:, None, None]
        return here, (here, surprise)

    _, (values, surprises) = jax.lax.scan(one_step_back, jnp.zeros_like(mdp.initial), terms.rewards, reverse=True)
    return terms._replace(rewards=surprises, baseline=terms.baseline - terms.return_weight * values[..., None])


def per_step(name: str, values: ArrayLike | None, mdp: TabularMDP) -> jax.Array:
    """Broadcast a number, `[S]`, `[T, S]` or `[T, S, A]` to `[T, S, A]`; None gives zeros.

    Raises:
        ValueError: for any other shape; the error names the argument `name`.
    """
    shape = (mdp.horizon, mdp.num_states, mdp.num_actions)
    values = jnp.zeros((), mdp.rewards.dtype) if values is None else jnp.asarray(values, mdp.rewards.dtype)
    if values.shape not in ((), shape[1:2], shape[:2], shape):
        raise ValueError(f"{name} has shape {values.shape}, must be a number, [S], [T, S] or [T, S, A] = {shape}")
    if values.ndim == 3:
        return values
    return jnp.broadcast_to(jnp.broadcast_to(values, shape[:2])[..., None], shape)
