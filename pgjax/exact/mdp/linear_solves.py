"""Exact solutions without a horizon, by linear solves: (I − γ P_π) v = r_π.

There are two kinds of problems: discounted and endless (γ < 1), and undiscounted until a terminal state is reached
(γ = 1, a stochastic shortest path). `TabularMDP.horizon` is ignored here, so values and visitation have no time axis;
they are the limits of those of `dynamic_programming` for a long horizon.

A policy is proper from a state if it reaches a terminal state from there with probability one. Without a discount
other states have no value: they hold NaN, and an episode that may start in one is refused.

Axes: S states, A actions, K outcomes of one action in one state.
"""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import is_traced
from pgjax._doors import readable
from pgjax.exact.mdp.averages import outcome_matrix, over_outcomes
from pgjax.exact.mdp.dynamic_programming import Apply, policy_probabilities
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.types import PyTree


@readable
def stationary_state_values(mdp: TabularMDP, probabilities: jax.Array, discount: ArrayLike = 1.0) -> jax.Array:
    """v = (I − γ P_π)⁻¹ r_π, `[S]`: E[Σ_t γᵗ R_{t+1} | S_0 = s] without a horizon. `mdp.horizon` is ignored.

    Args:
        mdp: the problem.
        probabilities: π(a|s), `[S, A]`.
        discount: γ in [0, 1]; 1 needs a proper policy.

    Returns:
        v, zero in terminal states; at γ = 1 NaN in states from which the policy is not proper.

    Raises:
        ValueError: for a discount outside [0, 1]; and at γ = 1, if values are not traced, for an episode that may
            start in a state from which the policy is not proper.

    Source: Puterman (1994), theorem 6.1.1; Bertsekas & Tsitsiklis (1991) for stochastic shortest paths.
    """
    gamma = checked_discount(mdp, discount)
    solvable = _solvable(mdp, probabilities, gamma)
    system, rewards = _system(mdp, probabilities, gamma, solvable)
    return jnp.where(solvable, jnp.linalg.solve(system, rewards), jnp.nan)


@readable
def stationary_action_values(mdp: TabularMDP, probabilities: jax.Array, discount: ArrayLike = 1.0) -> jax.Array:
    """Q(s, a) = Σ_k P(k|s, a) (R + γ v(s')), `[S, A]`, zero in terminal states. `mdp.horizon` is ignored.

    Arguments, errors and source as in `stationary_state_values`; NaN where an outcome leads to a NaN of v.
    """
    gamma = checked_discount(mdp, discount)
    v = stationary_state_values(mdp, probabilities, gamma)
    targets = mdp.rewards + gamma * v[mdp.successors]
    q = over_outcomes(mdp, jnp.where(mdp.probabilities > 0, targets, 0.0))
    return jnp.where(mdp.terminal[:, None], 0.0, q)


@readable
def stationary_visitation(mdp: TabularMDP, probabilities: jax.Array, discount: ArrayLike = 1.0) -> jax.Array:
    """d = (I − γ P_πᵀ)⁻¹ d_0, `[S]`: d(s) = Σ_t γᵗ P(S_t = s, running), zero in terminal states.

    `mdp.horizon` is ignored. At γ = 1, Σ_s d(s) is the expected length of an episode; for γ < 1 without terminal
    states it is 1 / (1 − γ). Arguments and errors as in `stationary_state_values`.
    """
    gamma = checked_discount(mdp, discount)
    solvable = _solvable(mdp, probabilities, gamma)
    system, _ = _system(mdp, probabilities, gamma, solvable)
    started = jnp.where(mdp.initial > 0, solvable, True).all()
    return jnp.where(started, jnp.linalg.solve(system.T, jnp.where(solvable, mdp.initial, 0.0)), jnp.nan)


@readable
def stationary_objective(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike = 1.0) -> jax.Array:
    """ρ(θ) = Σ_s d_0(s) v(s), a scalar. `mdp.horizon` is ignored; errors as in `stationary_state_values`."""
    v = stationary_state_values(mdp, policy_probabilities(apply, params, mdp), discount)
    return jnp.sum(jnp.where(mdp.initial > 0, mdp.initial * v, 0.0))


@readable
def stationary_gradient(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike = 1.0) -> PyTree:
    """∇ρ(θ), a pytree as `params`, by differentiating the solve. `mdp.horizon` is ignored.

    Errors as in `stationary_state_values`.
    """
    # Checked here, because the solve that is differentiated has traced parameters, whose values are unknown.
    _solvable(mdp, policy_probabilities(apply, params, mdp), checked_discount(mdp, discount))
    return jax.grad(stationary_objective, argnums=1)(apply, params, mdp, discount)


@readable
def stationary_policy_gradient_theorem(
    apply: Apply,
    params: PyTree,
    mdp: TabularMDP,
    discount: ArrayLike = 1.0,
    visitation_discount: ArrayLike | None = None,
) -> PyTree:
    """∇ρ(θ) = Σ_s d(s) Σ_a ∇π(a|s) Q(s, a), a pytree as `params`; equals `stationary_gradient`.

    With a `visitation_discount` δ, d(s) = Σ_t δᵗ P(S_t = s) while Q keeps its γ. This is the mean of updates whose step
    t is multiplied by δᵗ; for δ ≠ γ it is not a gradient. `mdp.horizon` is ignored; errors as in
    `stationary_state_values`.

    Source: Sutton, McAllester, Singh & Mansour (2000), theorem 1.
    """
    probabilities, pull_back = jax.vjp(lambda theta: policy_probabilities(apply, theta, mdp), params)
    visits = stationary_visitation(
        mdp, probabilities, discount if visitation_discount is None else visitation_discount
    )[:, None]
    q = stationary_action_values(mdp, probabilities, discount)
    return pull_back(jnp.where(visits > 0, visits * q, 0.0))[0]


@readable
def proper_states(mdp: TabularMDP, probabilities: jax.Array) -> jax.Array:
    """Bool `[S]`: whether π `[S, A]` reaches a terminal state from s with probability one.

    That is true exactly if a terminal state can be reached from every state that can be reached from s.
    """
    steps = jnp.einsum("sa,saz->sz", probabilities, outcome_matrix(mdp, jnp.ones_like(mdp.rewards)))
    steps = jnp.where(mdp.terminal[:, None], 0.0, steps)
    reach = (steps > 0) | jnp.eye(mdp.num_states, dtype=bool)
    for _ in range(math.ceil(math.log2(mdp.num_states))):
        reach = (reach.astype(steps.dtype) @ reach.astype(steps.dtype)) > 0
    ends = jnp.any(reach & mdp.terminal[None, :], axis=1)
    return jnp.all(~reach | ends[None, :], axis=1)


def _solvable(mdp: TabularMDP, probabilities: jax.Array, gamma: jax.Array) -> jax.Array:
    """Bool `[S]`, where v exists; raises an error if an episode may start elsewhere and the values are not traced."""
    chex.assert_shape(probabilities, (mdp.num_states, mdp.num_actions))
    solvable = proper_states(mdp, jax.lax.stop_gradient(probabilities)) | (gamma < 1)
    lost = (mdp.initial > 0) & ~solvable
    if not is_traced(lost) and np.any(lost):
        first = int(np.argmax(lost))
        raise ValueError(
            f"the policy is improper: from state {first}, where episodes start, it does not reach a terminal state "
            "with probability one, so an undiscounted value does not exist; give a discount below 1"
        )
    return solvable


def _system(
    mdp: TabularMDP, probabilities: jax.Array, gamma: jax.Array, solvable: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """I − γ P_π `[S, S]` and r_π `[S]`; the identity and 0 in states without a value to solve for."""
    used = jnp.where((solvable & ~mdp.terminal)[:, None], probabilities, 0.0)
    steps = jnp.einsum("sa,saz->sz", used, outcome_matrix(mdp, jnp.ones_like(mdp.rewards)))
    steps = jnp.where(mdp.terminal[None, :], 0.0, steps)
    rewards = jnp.sum(used * over_outcomes(mdp, mdp.rewards), axis=-1)
    return jnp.eye(mdp.num_states, dtype=steps.dtype) - gamma * steps, rewards
