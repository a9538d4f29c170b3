"""Exact moments of estimates that are sums over the steps of one episode, without enumeration.

One family, g = Σ_t c_t [ψ_t (κ G_t − b_t(S_t, A_t)) + φ_t(S_t)], and its members by name: reward-to-go,
exact action values in the place of G_t, the sum over all actions, and λ-returns. A backward dynamic program
carries the joint moments of G_t and of the part of the sum that is still to come.

Axes: T time (the horizon), S states, A actions, K outcomes, P parameters in the order of `ravel_pytree`.
"""

import functools
from typing import Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_one_of
from pgjax.exact.mdp.averages import (
    outcome_matrix,
    outer_average,
    over_outcomes,
    running_probabilities,
    symmetric_average,
)
from pgjax.exact.mdp.dynamic_programming import Apply, action_values
from pgjax.exact.mdp.fisher import score_table
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.exact.moments.summary import Moments, to_moments
from pgjax.types import PyTree, TimeWeights


class StepSum(NamedTuple):
    """g = Σ_t c_t [ψ_t (κ G_t − b_t(S_t, A_t)) + φ_t(S_t)], with G_t = R̃_t + γ̃ G_{t+1} and c_t = δᵗ.

    Attributes:
        rewards: R̃_t(s, a, k), `[T, S, A, K]`.
        discount: γ̃ of G_t, a scalar.
        return_weight: κ, a scalar; 0 leaves the return out.
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


def step_sum_moments(
    apply: Apply, params: PyTree, mdp: TabularMDP, terms: StepSum, *, covariance: bool = False
) -> Moments:
    """Exact moments of a `StepSum` of one episode, shaped as `params`; the covariance matrix too if asked."""
    probabilities = running_probabilities(apply, params, mdp)
    mean, second = _backward(mdp, probabilities, score_table(apply, params, mdp), terms, full=covariance)
    return to_moments(params, mean, second)


@functools.partial(jax.jit, static_argnames="full")
def _backward(
    mdp: TabularMDP, probabilities: jax.Array, scores: jax.Array, terms: StepSum, *, full: bool
) -> tuple[jax.Array, jax.Array]:
    """E[g] `[P]` and E[g gᵀ] `[P, P]`, or its diagonal `[P]`; `probabilities` are 0 in terminal states.

    With H = R̃ + γ̃ G' given (s, a), h its mean and D = κ H − b, U = ψ D + φ + δ U'. Products with H are those with its
    deviation H − h and with h, so that D = κ (H − h) + (κ h − b) keeps its digits where b is near H.
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

    What is squared are deviations then, which a constant on all rewards, or a b near G, does not drown.
    """

    def one_step_back(ahead: jax.Array, rewards: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        given_action = over_outcomes(mdp, rewards) + terms.discount * transitions @ ahead
        here = jnp.sum(probabilities * given_action, axis=-1)
        surprise = rewards + terms.discount * ahead[mdp.successors] - here[:, None, None]
        return here, (here, surprise)

    _, (values, surprises) = jax.lax.scan(one_step_back, jnp.zeros_like(mdp.initial), terms.rewards, reverse=True)
    return terms._replace(rewards=surprises, baseline=terms.baseline - terms.return_weight * values[..., None])


Correction = Literal["none", "expected"]


def reward_to_go_moments(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    *,
    baseline: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    time_weights: TimeWeights = "none",
    correction: Correction = "none",
    covariance: bool = False,
) -> Moments:
    """Exact moments of g = Σ_t c_t ψ_t (G_t − b_t), G_t = Σ_k γᵏ R_{t+k+1}, from one episode.

    Args:
        apply, params, mdp: the policy and the problem.
        baseline: b, a number, b(s) `[S]`, b_t(s) `[T, S]` or b_t(s, a) `[T, S, A]`; none if None.
        discount: γ in [0, 1].
        time_weights: `"none"`, c_t = 1, or `"discount"`, c_t = γᵗ: the exact gradient of the discounted objective.
        correction: `"none"`, or `"expected"`: adds c_t φ_t(S_t) with φ_t(s) = Σ_a ∇π(a|s) b_t(s, a), what an
            action-dependent baseline takes away; without it such a baseline is biased by −E[Σ_t c_t φ_t(S_t)].
        covariance: whether to return the covariance matrix too; it takes O(S P²) numbers of memory.

    Returns:
        `Moments` of g, shaped as `params`.

    Raises:
        ValueError: for a discount outside [0, 1], an unknown convention, or a baseline of another shape.

    Source: Baxter & Bartlett (2001), GPOMDP; Tucker et al. (2018), equation 4, for the correction.
    """
    require_one_of("correction", correction, get_args(Correction))
    b = per_step("baseline", baseline, mdp)
    offset = _expected(apply, params, mdp, b) if correction == "expected" else None
    terms = _terms(params, mdp, discount, time_weights, baseline=b, offset=offset)
    return step_sum_moments(apply, params, mdp, terms, covariance=covariance)


def action_value_moments(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    *,
    values: ArrayLike | None = None,
    baseline: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    time_weights: TimeWeights = "none",
    covariance: bool = False,
) -> Moments:
    """Exact moments of g = Σ_t c_t ψ_t (Q_t(S_t, A_t) − b_t): action values in the place of the return.

    `values` are any Q, shaped as a baseline of `reward_to_go_moments`, and the exact Q_t if None. The other
    arguments, what is returned and the errors are as there.
    """
    q = _exact_values(apply, params, mdp, discount) if values is None else per_step("values", values, mdp)
    b = per_step("baseline", baseline, mdp) - q
    terms = _terms(params, mdp, discount, time_weights, baseline=b)
    return step_sum_moments(
        apply, params, mdp, terms._replace(return_weight=jnp.zeros_like(terms.discount)), covariance=covariance
    )


def all_action_moments(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    *,
    values: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    time_weights: TimeWeights = "none",
    covariance: bool = False,
) -> Moments:
    """Exact moments of g = Σ_t c_t Σ_a ∇π(a|S_t) Q_t(S_t, a): nothing is left to chance but the states.

    Arguments, what is returned and the errors as in `action_value_moments`; a baseline would cancel.

    Source: Sutton, Singh & McAllester (2001), the all-actions update.
    """
    q = _exact_values(apply, params, mdp, discount) if values is None else per_step("values", values, mdp)
    terms = _terms(params, mdp, discount, time_weights, offset=_expected(apply, params, mdp, q))
    return step_sum_moments(
        apply, params, mdp, terms._replace(return_weight=jnp.zeros_like(terms.discount)), covariance=covariance
    )


def lambda_return_moments(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    values: ArrayLike,
    *,
    lambda_: ArrayLike = 0.95,
    baseline: ArrayLike | None = None,
    discount: ArrayLike = 1.0,
    time_weights: TimeWeights = "none",
    covariance: bool = False,
) -> Moments:
    """Exact moments of g = Σ_t c_t ψ_t (G_t^λ − b_t), with b = v if no other baseline is given.

    G_t^λ − v_t(S_t) = Σ_k (γλ)ᵏ δ_{t+k}, δ_t = R_{t+1} + γ v_{t+1}(S_{t+1}) − v_t(S_t), where v of a terminal
    state counts as 0 and the horizon's cut bootstraps from v_T(S_T), as `returns.lambda_returns` does.

    Args:
        apply, params, mdp: the policy and the problem.
        values: v(s) `[S]` or v_t(s) `[T + 1, S]`.
        lambda_: λ in [0, 1].
        baseline, discount, time_weights, covariance: as in `reward_to_go_moments`, except that None is v.

    Returns:
        `Moments` of g, shaped as `params`.

    Raises:
        ValueError: for λ or a discount outside [0, 1], an unknown convention, or arrays of another shape.

    Source: Schulman et al. (2016), equation 16.
    """
    require_in_range("lambda_", lambda_, 0.0, 1.0)
    v = jnp.asarray(values, mdp.rewards.dtype)
    if v.shape not in ((mdp.num_states,), (mdp.horizon + 1, mdp.num_states)):
        allowed = f"[S] = ({mdp.num_states},) or [T + 1, S] = ({mdp.horizon + 1}, {mdp.num_states})"
        raise ValueError(f"values has shape {v.shape}, must be {allowed}")
    v = jnp.where(mdp.terminal[None], 0.0, jnp.broadcast_to(v, (mdp.horizon + 1, mdp.num_states)))
    gamma = checked_discount(mdp, discount)
    here = v[:-1, :, None]
    b = None if baseline is None else per_step("baseline", baseline, mdp) - here
    terms = _terms(params, mdp, gamma, time_weights, baseline=b)
    terms = terms._replace(
        rewards=terms.rewards + gamma * v[1:][:, mdp.successors] - here[..., None],
        discount=gamma * jnp.asarray(lambda_, gamma.dtype),
    )
    return step_sum_moments(apply, params, mdp, terms, covariance=covariance)


def per_step(name: str, values: ArrayLike | None, mdp: TabularMDP) -> jax.Array:
    """A number, `[S]`, `[T, S]` or `[T, S, A]` as `[T, S, A]`; None as zeros. `name` is the argument's.

    Raises:
        ValueError: for any other shape.
    """
    shape = (mdp.horizon, mdp.num_states, mdp.num_actions)
    values = jnp.zeros((), mdp.rewards.dtype) if values is None else jnp.asarray(values, mdp.rewards.dtype)
    if values.shape not in ((), shape[1:2], shape[:2], shape):
        raise ValueError(f"{name} has shape {values.shape}, must be a number, [S], [T, S] or [T, S, A] = {shape}")
    if values.ndim == 3:
        return values
    return jnp.broadcast_to(jnp.broadcast_to(values, shape[:2])[..., None], shape)


def _terms(
    params: PyTree,
    mdp: TabularMDP,
    discount: ArrayLike,
    time_weights: TimeWeights,
    *,
    baseline: jax.Array | None = None,
    offset: jax.Array | None = None,
) -> StepSum:
    """The reward-to-go's terms, from which the other members of the family depart."""
    require_one_of("time_weights", time_weights, get_args(TimeWeights))
    gamma = checked_discount(mdp, discount)
    num_parameters = sum(jnp.size(leaf) for leaf in jax.tree.leaves(params))
    nothing = jnp.zeros((mdp.horizon, mdp.num_states, num_parameters), mdp.rewards.dtype)
    return StepSum(
        rewards=jnp.broadcast_to(mdp.rewards, (mdp.horizon, *mdp.rewards.shape)),
        discount=gamma,
        return_weight=jnp.ones_like(gamma),
        baseline=per_step("baseline", baseline, mdp),
        offset=nothing if offset is None else offset,
        time_factor=gamma if time_weights == "discount" else jnp.ones_like(gamma),
    )


def _expected(apply: Apply, params: PyTree, mdp: TabularMDP, values: jax.Array) -> jax.Array:
    """Σ_a ∇π(a|s) x_t(s, a), `[T, S, P]`, of x `[T, S, A]`."""
    probabilities = running_probabilities(apply, params, mdp)
    return jnp.einsum("sa,sap,tsa->tsp", probabilities, score_table(apply, params, mdp), values)


def _exact_values(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike) -> jax.Array:
    return action_values(mdp, running_probabilities(apply, params, mdp), discount)
