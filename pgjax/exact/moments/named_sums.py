"""The members of the family of `step_sums` that have names, by their exact moments.

They are the reward-to-go, exact action values instead of the return, the sum over all actions, and λ-returns. Each
function writes its estimate as a `StepSum`.

Axes: T time (the horizon), S states, A actions, K outcomes, P parameters in the order of `ravel_pytree`.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_one_of
from pgjax._doors import readable
from pgjax.exact.mdp.averages import running_probabilities
from pgjax.exact.mdp.dynamic_programming import Apply, action_values
from pgjax.exact.mdp.fisher import score_table
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.exact.moments.step_sums import StepSum, per_step, step_sum_moments
from pgjax.exact.moments.summary import Moments
from pgjax.types import PyTree, TimeWeights

Correction = Literal["none", "expected"]


@readable
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
        baseline: b, a number, b(s) `[S]`, b_t(s) `[T, S]` or b_t(s, a) `[T, S, A]`; None uses no baseline.
        discount: γ in [0, 1].
        time_weights: `"none"`, c_t = 1, or `"discount"`, c_t = γᵗ, whose mean is the exact gradient of the discounted
            objective.
        correction: `"none"`, or `"expected"`, which adds c_t φ_t(S_t) with φ_t(s) = Σ_a ∇π(a|s) b_t(s, a). Without this
            term a baseline that depends on the action has the bias −E[Σ_t c_t φ_t(S_t)].
        covariance: whether to return the covariance matrix, too; it takes O(S P²) numbers of memory.

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


@readable
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
    """Exact moments of g = Σ_t c_t ψ_t (Q_t(S_t, A_t) − b_t), with action values instead of the return.

    `values` is any Q, shaped as a baseline of `reward_to_go_moments`; None takes the exact Q_t. The other arguments,
    the result and the errors are those of `reward_to_go_moments`.
    """
    q = _exact_values(apply, params, mdp, discount) if values is None else per_step("values", values, mdp)
    b = per_step("baseline", baseline, mdp) - q
    terms = _terms(params, mdp, discount, time_weights, baseline=b)
    return step_sum_moments(
        apply, params, mdp, terms._replace(return_weight=jnp.zeros_like(terms.discount)), covariance=covariance
    )


@readable
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
    """Exact moments of g = Σ_t c_t Σ_a ∇π(a|S_t) Q_t(S_t, a), in which only the states are random.

    The arguments, the result and the errors are those of `action_value_moments`, without a baseline, which would
    cancel.

    Source: Sutton, Singh & McAllester (2001), the all-actions update.
    """
    q = _exact_values(apply, params, mdp, discount) if values is None else per_step("values", values, mdp)
    terms = _terms(params, mdp, discount, time_weights, offset=_expected(apply, params, mdp, q))
    return step_sum_moments(
        apply, params, mdp, terms._replace(return_weight=jnp.zeros_like(terms.discount)), covariance=covariance
    )


@readable
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
    """Exact moments of g = Σ_t c_t ψ_t (G_t^λ − b_t).

    G_t^λ − v_t(S_t) = Σ_k (γλ)ᵏ δ_{t+k}, δ_t = R_{t+1} + γ v_{t+1}(S_{t+1}) − v_t(S_t), where v of a terminal state is
    0 and an episode that the horizon cuts bootstraps from v_T(S_T), as in `returns.lambda_returns`.

    Args:
        apply, params, mdp: the policy and the problem.
        values: v(s) `[S]` or v_t(s) `[T + 1, S]`.
        lambda_: λ in [0, 1].
        baseline: b as in `reward_to_go_moments`, except that None takes v.
        discount, time_weights, covariance: as in `reward_to_go_moments`.

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


def _terms(
    params: PyTree,
    mdp: TabularMDP,
    discount: ArrayLike,
    time_weights: TimeWeights,
    *,
    baseline: jax.Array | None = None,
    offset: jax.Array | None = None,
) -> StepSum:
    """The terms of the reward-to-go; the other members of the family change some of them."""
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
