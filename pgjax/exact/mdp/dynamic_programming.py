"""Exact solutions of a `TabularMDP`: values, visitation, the objective ρ(θ) and its gradient.

Axes: T time (the horizon), S states, A actions, K outcomes of one action in one state. Policies see the
observation alone and not the time; values and visitation depend on the time, because the horizon is finite.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._doors import readable
from pgjax.acting import require_memoryless
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount
from pgjax.types import Policy, PyTree

# What dynamic programs take as `apply`: a function (params, obs) → logits [A] of a softmax policy, or a whole `Policy`,
# whose distribution then gives the probabilities of the actions 0, …, A − 1.
Apply = Callable[[PyTree, jax.Array], jax.Array] | Policy


@readable
def policy_probabilities(apply: Apply, params: PyTree, mdp: TabularMDP) -> jax.Array:
    """π(a|s), `[S, A]`, of `apply(params, obs) → logits [A]` or of a `Policy` without memory.

    Raises:
        ValueError: for a policy that needs its memory.
    """
    return jnp.exp(policy_log_probabilities(apply, params, mdp))


@readable
def policy_log_probabilities(apply: Apply, params: PyTree, mdp: TabularMDP) -> jax.Array:
    """ln π(a|s), `[S, A]`, as in `policy_probabilities`; of a function, −∞ where a logit is −∞.

    Raises:
        ValueError: for a policy that needs its memory.
    """
    table = jax.vmap(log_probabilities_of(apply, mdp.num_actions), (None, 0))(params, mdp.observations)
    chex.assert_shape(table, (mdp.num_states, mdp.num_actions))
    return table


def log_probabilities_of(apply: Apply, num_actions: int) -> Callable[[PyTree, jax.Array], jax.Array]:
    """(params, obs) → ln π(a | obs) of every action, `[A]`.

    Raises:
        ValueError: for a policy that needs its memory.
    """
    if not isinstance(apply, Policy):
        return lambda params, obs: jax.nn.log_softmax(apply(params, obs))
    outputs = require_memoryless(apply, "a dynamic program")
    log_probs = jax.vmap(apply.distribution.log_prob, (None, 0))
    return lambda params, obs: log_probs(outputs(params, obs), jnp.arange(num_actions))


@readable
def state_values(mdp: TabularMDP, probabilities: jax.Array, discount: ArrayLike = 1.0) -> jax.Array:
    """Values of a policy by backward dynamic programming, V_t(s) = Σ_a π(a|s) Q_t(s, a), V_T = 0.

    Args:
        mdp: the problem.
        probabilities: π(a|s), `[S, A]`.
        discount: γ in [0, 1]; it counts from t, V_t(s) = E[Σ_{i≥t} γ^{i−t} R_{i+1} | S_t = s].

    Returns:
        V `[T + 1, S]`, zero in terminal states.

    Raises:
        ValueError: for a discount outside [0, 1].

    Source: Bellman (1957); Puterman (1994), section 4.2.

    Example: a policy that takes the arm of reward 1 with probability 1/4 and the arm of reward 0 else.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> bandit = exact.make_bandit([0.0, 1.0])  # state 0, then the terminal state 1
        >>> probabilities = jnp.array([[0.75, 0.25], [0.5, 0.5]])
        >>> exact.state_values(bandit, probabilities).tolist()
        [[0.25, 0.0], [0.0, 0.0]]
    """
    return _evaluate(mdp, probabilities, checked_discount(mdp, discount))[0]


@readable
def action_values(mdp: TabularMDP, probabilities: jax.Array, discount: ArrayLike = 1.0) -> jax.Array:
    """Q_t(s, a) = Σ_k P(k|s, a) (R + γ V_{t+1}(s')), `[T, S, A]`, zero in terminal states.

    Arguments, errors and source as in `state_values`.
    """
    return _evaluate(mdp, probabilities, checked_discount(mdp, discount))[1]


@readable
def optimal_action_values(mdp: TabularMDP, discount: ArrayLike = 1.0) -> jax.Array:
    """Q*_t(s, a) = Σ_k P(k|s, a) (R + γ max_a' Q*_{t+1}(s', a')), `[T, S, A]`, zero in terminal states.

    V*_t(s) is its maximum over a, and the best policy takes an argmax. It is optimal among all policies that see the
    state and the time.

    Raises:
        ValueError: for a discount outside [0, 1].

    Source: Bellman (1957); Puterman (1994), section 4.3.
    """
    return _optimise(mdp, checked_discount(mdp, discount))


@jax.jit
def _evaluate(mdp: TabularMDP, probabilities: jax.Array, discount: jax.Array) -> tuple[jax.Array, jax.Array]:
    chex.assert_shape(probabilities, (mdp.num_states, mdp.num_actions))
    return _backward(mdp, discount, lambda q: jnp.sum(probabilities * q, axis=-1))


@jax.jit
def _optimise(mdp: TabularMDP, discount: jax.Array) -> jax.Array:
    return _backward(mdp, discount, lambda q: jnp.max(q, axis=-1))[1]


def _backward(
    mdp: TabularMDP, discount: jax.Array, value_of: Callable[[jax.Array], jax.Array]
) -> tuple[jax.Array, jax.Array]:
    """V `[T + 1, S]` and Q `[T, S, A]` with V_t = value_of(Q_t), from the last step to the first."""

    def one_step_back(next_values: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        targets = mdp.rewards + discount * next_values[mdp.successors]
        q = jnp.where(mdp.terminal[:, None], 0.0, jnp.sum(mdp.probabilities * targets, axis=-1))
        v = value_of(q)
        return v, (v, q)

    end = jnp.zeros_like(mdp.initial)
    _, (v, q) = jax.lax.scan(one_step_back, end, None, length=mdp.horizon, reverse=True)
    return jnp.concatenate([v, end[None]]), q


@jax.jit
def visitation(mdp: TabularMDP, probabilities: jax.Array) -> jax.Array:
    """d_t(s) = P(S_t = s and the episode still runs at t), `[T, S]`, by forward dynamic programming.

    d_{t+1}(s') = Σ_{s,a,k: s→s'} d_t(s) π(a|s) P(k|s, a) if s' is not terminal, else 0. Σ_{t,s} d_t(s) is the expected
    length of an episode. `probabilities` is π(a|s), `[S, A]`.
    """
    chex.assert_shape(probabilities, (mdp.num_states, mdp.num_actions))

    def one_step_on(alive: jax.Array, _: None) -> tuple[jax.Array, jax.Array]:
        flow = (alive[:, None] * probabilities)[:, :, None] * mdp.probabilities
        arrived = jnp.zeros_like(alive).at[mdp.successors].add(flow)
        return jnp.where(mdp.terminal, 0.0, arrived), alive

    return jax.lax.scan(one_step_on, mdp.initial, None, length=mdp.horizon)[1]


@readable
def objective(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike = 1.0) -> jax.Array:
    """ρ(θ) = E[Σ_t γ^t R_{t+1}] = Σ_s d_0(s) V_0(s), a scalar; t counts from 0.

    Example: logits 0 and ln 3 give the arm of reward 1 the probability 3/4.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> logits_of = lambda params, obs: params  # a policy without state: θ holds the logits
        >>> theta = jnp.log(jnp.array([1.0, 3.0]))
        >>> round(float(exact.objective(logits_of, theta, exact.make_bandit([0.0, 1.0]))), 4)
        0.75
    """
    probabilities = policy_probabilities(apply, params, mdp)
    return jnp.sum(mdp.initial * state_values(mdp, probabilities, discount)[0])


@readable
def exact_gradient(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike = 1.0) -> PyTree:
    """∇ρ(θ), a pytree with the structure of `params`, by differentiating the dynamic program.

    Example: for two arms and p = f(x, θ)_1 the gradient is p (1 − p) (−1, 1), here with p = 1/2.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> logits_of = lambda params, obs: params  # a policy without state: θ holds the logits
        >>> exact.exact_gradient(logits_of, jnp.zeros(2), exact.make_bandit([0.0, 1.0])).tolist()
        [-0.25, 0.25]
    """
    return jax.grad(objective, argnums=1)(apply, params, mdp, discount)


@readable
def policy_gradient_theorem(apply: Apply, params: PyTree, mdp: TabularMDP, discount: ArrayLike = 1.0) -> PyTree:
    """∇ρ(θ) = Σ_t γ^t Σ_s d_t(s) Σ_a ∇π(a|s) Q_t(s, a), a pytree as `params`; equals `exact_gradient`.

    Source: Sutton, McAllester, Singh & Mansour (2000), theorem 1, with time-dependent d and Q.
    """
    probabilities, pull_back = jax.vjp(lambda theta: policy_probabilities(apply, theta, mdp), params)
    gamma = checked_discount(mdp, discount)
    powers = gamma ** jnp.arange(mdp.horizon, dtype=gamma.dtype)
    weights = (powers[:, None] * visitation(mdp, probabilities))[:, :, None]
    return pull_back(jnp.sum(weights * action_values(mdp, probabilities, gamma), axis=0))[0]
