"""The variance of a one-step estimate, split by its sources: the state, the action, and the rest of the trajectory.

Axes: T time (the horizon), S states, A actions, P parameters in the order of `ravel_pytree`.
"""

from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_one_of
from pgjax._doors import readable
from pgjax.exact.mdp.averages import outcome_matrix, over_outcomes, running_probabilities
from pgjax.exact.mdp.dynamic_programming import Apply, action_values, visitation
from pgjax.exact.mdp.fisher import score_table
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.exact.moments.step_sums import per_step
from pgjax.types import PyTree, TimeWeights


class VarianceDecomposition(NamedTuple):
    """Var(h) = Σ_s + Σ_a + Σ_τ of a one-step estimate h: traces, or matrices if `matrices` was set.

    Attributes:
        state: Σ_s = Var(E[h | t, S]), a scalar or `[P, P]`.
        action: Σ_a = E[Var(E[h | t, S, A] | t, S)], likewise.
        trajectory: Σ_τ = E[Var(h | t, S, A)], likewise.
        total: their sum, Var(h).
        mean: E[h], `[P]`.
    """

    state: jax.Array
    action: jax.Array
    trajectory: jax.Array
    total: jax.Array
    mean: jax.Array


@readable
def return_variances(mdp: TabularMDP, probabilities: jax.Array, discount: ArrayLike = 1.0) -> jax.Array:
    """Var(G_t | S_t = s, A_t = a) `[T, S, A]` for π `[S, A]`, zero in terminal states.

    Var(G_t | s, a) = E[(R + γ V_{t+1}(s') − Q_t(s, a))² + γ² Var(G_{t+1} | s') | s, a] and
    Var(G_t | s) = Σ_a π(a|s) [Var(G_t | s, a) + (Q_t(s, a) − V_t(s))²].

    Raises:
        ValueError: for a discount outside [0, 1].

    Source: Sobel (1982).
    """
    gamma = checked_discount(mdp, discount)
    probabilities = jnp.where(mdp.terminal[:, None], 0.0, probabilities)
    return _return_variances(mdp, probabilities, gamma)


@jax.jit
def _return_variances(mdp: TabularMDP, probabilities: jax.Array, gamma: jax.Array) -> jax.Array:
    q = action_values(mdp, probabilities, gamma)
    v = jnp.sum(probabilities[None] * q, axis=-1)
    following = jnp.concatenate([v[1:], jnp.zeros_like(v[:1])])
    transitions = outcome_matrix(mdp, jnp.ones_like(mdp.rewards))

    def one_step_back(ahead: jax.Array, row: tuple) -> tuple[jax.Array, jax.Array]:
        q, v, following = row
        surprise = mdp.rewards + gamma * following[mdp.successors] - q[..., None]
        given_action = over_outcomes(mdp, surprise**2) + gamma**2 * transitions @ ahead
        given_action = jnp.where(mdp.terminal[:, None], 0.0, given_action)
        return jnp.sum(probabilities * (given_action + (q - v[:, None]) ** 2), axis=-1), given_action

    return jax.lax.scan(one_step_back, jnp.zeros_like(mdp.initial), (q, v, following), reverse=True)[1]


Estimated = Literal["return", "action_value", "all_action"]


@readable
def variance_decomposition(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    *,
    baseline: ArrayLike | None = None,
    estimate: Estimated = "return",
    discount: ArrayLike = 1.0,
    time_weights: TimeWeights = "none",
    matrices: bool = False,
) -> VarianceDecomposition:
    """The variance of h = ψ(S, A) (Ĝ − b_t(S)), split by its sources; (t, S) is drawn from the normalised visitation.

    (t, S) has probability w_t d_t(s) / Σ w d, A ~ π, and Ĝ is a return from there on. The mean of h is ∇ρ / Σ w d if
    the time weights are those of the objective.

    Args:
        apply, params, mdp: the policy and the problem.
        baseline: b, a number, b(s) `[S]`, b_t(s) `[T, S]`, or b_t(s, a) `[T, S, A]`, which is not corrected; None uses
            no baseline.
        estimate: `"return"`, Ĝ = G_t; `"action_value"`, Ĝ = Q_t(S, A), which makes Σ_τ = 0; `"all_action"`,
            h = Σ_a ∇π(a|S) (Q_t(S, a) − b), which makes Σ_a = 0 as well.
        discount: γ in [0, 1] of G_t.
        time_weights: `"none"`, w_t = 1, or `"discount"`, w_t = γᵗ.
        matrices: whether to return `[P, P]` covariance matrices instead of their traces.

    Raises:
        ValueError: for a discount outside [0, 1], an unknown convention, or a baseline of another shape.

    Source: Tucker, Bhupatiraju, Gu, Turner, Ghahramani & Levine (2018), equation 3.
    """
    require_one_of("estimate", estimate, get_args(Estimated))
    require_one_of("time_weights", time_weights, get_args(TimeWeights))
    gamma = checked_discount(mdp, discount)
    probabilities, scores = running_probabilities(apply, params, mdp), score_table(apply, params, mdp)
    powers = gamma ** jnp.arange(mdp.horizon, dtype=gamma.dtype)
    visits = visitation(mdp, probabilities)
    visits = visits * powers[:, None] if time_weights == "discount" else visits
    visits = visits / jnp.sum(visits)

    weights = action_values(mdp, probabilities, gamma) - per_step("baseline", baseline, mdp)
    given_state = jnp.einsum("sa,sap,tsa->tsp", probabilities, scores, weights)
    mean = jnp.einsum("ts,tsp->p", visits, given_state)
    centred = given_state - mean[None, None]
    average = _second_moment_trace if not matrices else _second_moment
    state = average("ts", visits, centred)
    trajectory = action = jnp.zeros_like(state)
    joint = visits[:, :, None] * probabilities[None]
    if estimate != "all_action":
        deviation = scores[None] * weights[..., None] - given_state[:, :, None]
        action = average("tsa", joint, deviation)
    if estimate == "return":
        spread = jnp.sum(joint * return_variances(mdp, probabilities, gamma), axis=0)
        trajectory = average("sa", spread, scores)
    return VarianceDecomposition(
        state=state, action=action, trajectory=trajectory, total=state + action + trajectory, mean=mean
    )


def _second_moment(axes: str, weights: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.einsum(f"{axes},{axes}i,{axes}j->ij", weights, x, x)


def _second_moment_trace(axes: str, weights: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.einsum(f"{axes},{axes}i,{axes}i->", weights, x, x)
