"""Exact baselines of least variance, for the total return and for the reward-to-go.

A baseline does not change the mean of an estimate, and the variance is a quadratic in b, so the best b is a ratio of
two expectations, which dynamic programming gives. The baselines minimise tr Var(g) (`norm="vanilla"`), or tr Var(F⁺ g),
the variance of the estimate of the natural gradient (`norm="natural"`), with F as in `fisher_matrix`.

Axes: T time (the horizon), S states, A actions, P parameters in the order of `ravel_pytree`.
"""

import functools
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jax.typing import ArrayLike

from pgjax._checks import require_one_of
from pgjax._doors import readable
from pgjax._linear import ratio_or_zero
from pgjax.exact.mdp.averages import outcome_matrix, running_probabilities
from pgjax.exact.mdp.dynamic_programming import Apply, action_values, visitation
from pgjax.exact.mdp.fisher import inverse_fisher, score_table
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.exact.moments.joint_moments import JointMoments, backward_joint_moments
from pgjax.types import PyTree, ScoreNorm, TimeWeights

DependsOn = Literal["time_state", "time", "state", "constant"]
# The axes of [T, S] over which each kind of baseline averages.
_GROUPS: dict[DependsOn, tuple[int, ...]] = {"time_state": (), "time": (1,), "state": (0,), "constant": (0, 1)}


@readable
def optimal_constant_baseline(
    apply: Apply, params: PyTree, mdp: TabularMDP, *, discount: ArrayLike = 1.0, norm: ScoreNorm = "vanilla"
) -> jax.Array:
    """b* = E[‖S‖² G] / E[‖S‖²], the number that minimises tr Var of g = (G − b) S, S = Σ_t ψ_t, a scalar.

    tr Var(b) = tr Var(b*) + (b − b*)² E‖S‖². b* equals E[G] only if ‖S‖² and G are uncorrelated.

    Args:
        apply, params, mdp: the policy and the problem.
        discount: γ in [0, 1] of G = Σ_t γᵗ R_{t+1}.
        norm: `"vanilla"`, ‖S‖, or `"natural"`, ‖F⁺ S‖.

    Returns:
        b*, in units of reward; 0 if the score is always 0.

    Raises:
        ValueError: for a discount outside [0, 1] or an unknown norm.

    Source: Weaver & Tao (2001); Greensmith, Bartlett & Baxter (2004).

    Example: if the arm that pays 1 is taken with probability 3/4, the best baseline is 1/4 and not the mean 3/4.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> logits_of = lambda params, obs: params  # a policy without state: θ holds the logits
        >>> theta = jnp.log(jnp.array([1.0, 3.0]))
        >>> round(float(exact.optimal_constant_baseline(logits_of, theta, exact.make_bandit([0.0, 1.0]))), 4)
        0.25
    """
    squares = _joint_moments(apply, params, mdp, discount, norm).squares.sum(axis=-1)
    return ratio_or_zero(squares[1], squares[0])


@readable
def optimal_parameter_baseline(
    apply: Apply, params: PyTree, mdp: TabularMDP, *, discount: ArrayLike = 1.0, norm: ScoreNorm = "vanilla"
) -> PyTree:
    """b*_i = E[S_i² G] / E[S_i²], one number per parameter, shaped as `params`; it minimises every Var(g_i).

    The natural norm replaces S by F⁺ S, and b*_i then belongs to coordinate i of F⁺ g. Arguments and errors are as in
    `optimal_constant_baseline`.

    Source: Peters & Schaal (2008), equation 20.
    """
    flat, unravel = ravel_pytree(params)
    squares = _joint_moments(apply, params, mdp, discount, norm).squares
    return unravel(ratio_or_zero(squares[1], squares[0]).astype(flat.dtype))


@readable
def optimal_step_baseline(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    *,
    depends_on: DependsOn = "time_state",
    discount: ArrayLike = 1.0,
    time_weights: TimeWeights = "none",
    norm: ScoreNorm = "vanilla",
) -> jax.Array:
    """The b that minimises tr Var of the whole estimate g = Σ_t c_t ψ_t (G_t − b_t).

        b*_t(s) = E[ψ_t · Σ_i c_i ψ_i G_i | S_t = s] / (c_t E[‖ψ_t‖² | S_t = s])

    The quadratic part separates into steps, since E[ψ_t · ψ_i b_t b_i] = 0 for i ≠ t, but the linear part does not: the
    returns of other steps depend on A_t, those of later steps through the state, and those of earlier steps because
    they contain R_{t+1}. `one_step_baseline` leaves these parts out.

    Args:
        apply, params, mdp: the policy and the problem.
        depends_on: what b may depend on: `"time_state"`, `"time"`, `"state"`, or `"constant"`.
        discount: γ in [0, 1] of G_t.
        time_weights: `"none"`, c_t = 1, or `"discount"`, c_t = γᵗ.
        norm: `"vanilla"` or `"natural"`; F has the weights γᵗ if the estimate has them.

    Returns:
        b* `[T, S]`, `[T]`, `[S]` or a scalar, in units of reward; 0 where b has no effect, because no episode runs
        there or the score is 0.

    Raises:
        ValueError: for a discount outside [0, 1] or an unknown convention.

    Source: Greensmith, Bartlett & Baxter (2004) for the principle.
    """
    require_one_of("depends_on", depends_on, get_args(DependsOn))
    require_one_of("time_weights", time_weights, get_args(TimeWeights))
    gamma = checked_discount(mdp, discount)
    delta = gamma if time_weights == "discount" else jnp.ones_like(gamma)
    probabilities = running_probabilities(apply, params, mdp)
    scores = _scores(apply, params, mdp, delta, norm)
    linear = _linear_part(mdp, probabilities, scores, gamma, weighted=time_weights == "discount")
    quadratic = jnp.sum(probabilities[:, :, None] * scores**2, axis=(1, 2))
    weights = (delta ** (2 * jnp.arange(mdp.horizon, dtype=delta.dtype)))[:, None]
    alive = visitation(mdp, probabilities)
    axes = _GROUPS[depends_on]
    return ratio_or_zero(jnp.sum(weights * linear, axis=axes), jnp.sum(weights * alive * quadratic[None], axis=axes))


@readable
def one_step_baseline(
    apply: Apply, params: PyTree, mdp: TabularMDP, *, discount: ArrayLike = 1.0, norm: ScoreNorm = "vanilla"
) -> jax.Array:
    """b_t(s) = E[‖ψ_t‖² G_t | S_t = s] / E[‖ψ_t‖² | S_t = s], `[T, S]`: the best baseline for each step alone.

    It minimises E‖ψ_t (G_t − b_t)‖² and not the variance of the sum over steps; the two agree if an episode has one
    step. It equals V_t(s) if ‖ψ‖² and Q_t are uncorrelated given s. Arguments and errors are those of
    `optimal_constant_baseline`; b is 0 where the score is 0.
    """
    gamma = checked_discount(mdp, discount)
    probabilities = running_probabilities(apply, params, mdp)
    scores = _scores(apply, params, mdp, jnp.ones_like(gamma), norm)
    weights = probabilities * jnp.sum(scores**2, axis=-1)
    q = action_values(mdp, probabilities, gamma)
    return ratio_or_zero(jnp.sum(weights[None] * q, axis=-1), jnp.sum(weights, axis=-1)[None])


@functools.partial(jax.jit, static_argnames="weighted")
def _linear_part(
    mdp: TabularMDP, probabilities: jax.Array, scores: jax.Array, gamma: jax.Array, *, weighted: bool
) -> jax.Array:
    """E[ψ_t · Σ_i (c_i / c_t) ψ_i G_i; S_t = s] `[T, S]`, an expectation over the episodes that are in s at t."""
    later_weight = gamma if weighted else jnp.ones_like(gamma)
    # An earlier G_i holds γ^{t−i} G_t; with c_i = γⁱ the two powers cancel, also where γ = 0.
    earlier_weight = jnp.ones_like(gamma) if weighted else gamma
    transitions = outcome_matrix(mdp, jnp.ones_like(mdp.rewards))
    over_actions = lambda x: jnp.einsum("sa,sa...->s...", probabilities, x)

    def one_step_back(ahead: jax.Array, q: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        own = scores * q[..., None]
        both = own + later_weight * (transitions @ ahead)
        return over_actions(both), (over_actions(jnp.sum(scores * both, axis=-1)), over_actions(own))

    def one_step_on(past: jax.Array, alive: jax.Array) -> tuple[jax.Array, jax.Array]:
        joint = probabilities[..., None] * (past[:, None, :] + alive[:, None, None] * scores)
        arrived = earlier_weight * jnp.einsum("saz,sap->zp", transitions, joint)
        return jnp.where(mdp.terminal[:, None], 0.0, arrived), past

    nothing = jnp.zeros_like(scores[:, 0])
    q, alive = action_values(mdp, probabilities, gamma), visitation(mdp, probabilities)
    _, (from_here, own) = jax.lax.scan(one_step_back, nothing, q, reverse=True)
    _, past = jax.lax.scan(one_step_on, nothing, alive)
    return alive * from_here + jnp.sum(past * own, axis=-1)


def _scores(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike, norm: ScoreNorm) -> jax.Array:
    """ψ, or F⁺ ψ for the natural norm, `[S, A, P]`."""
    require_one_of("norm", norm, get_args(ScoreNorm))
    scores = score_table(apply, params, mdp)
    if norm == "vanilla":
        return scores
    return inverse_fisher(apply, params, mdp, discount=discount)(scores)


def _joint_moments(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike, norm: ScoreNorm) -> JointMoments:
    gamma = checked_discount(mdp, discount)
    probabilities = running_probabilities(apply, params, mdp)
    scores = _scores(apply, params, mdp, gamma, norm)
    return backward_joint_moments(mdp, probabilities, scores, gamma, full=False)
