"""Optimal policies without a horizon, by policy iteration on linear solves; `TabularMDP.horizon` is ignored.

With a horizon the best action may depend on the remaining time; for this case use `optimal_action_values`, `[T, S, A]`.

Axes: S states, A actions.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_one_of
from pgjax._doors import readable
from pgjax.exact.mdp.linear_solves import stationary_action_values
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount

Ties = Literal["lowest", "uniform"]


@readable
def stationary_optimal_action_values(mdp: TabularMDP, discount: ArrayLike = 1.0) -> jax.Array:
    """Q*(s, a) = Σ_k P(k|s, a) (R + γ max_a' Q*(s', a')), `[S, A]`, zero in terminal states.

    It runs policy iteration on the host, from the uniform policy: evaluate the policy by a linear solve, and change the
    action wherever another one is better by more than rounding, until no action changes. At γ = 1 the problem is a
    stochastic shortest path, in which never ending must be worse than ending; states from which the uniform policy does
    not end with probability one hold NaN.

    All solves use float64. Two values count as equal if they differ by at most max(64 ε, √ε₆₄) max(|Q|, |R|), where ε
    is the rounding of the type of `mdp.rewards`, and ε₆₄ is that of float64. This is 7.6e-6 of the largest value or
    reward in float32, and 1.5e-8 in float64.

    Raises:
        ValueError: for a discount outside [0, 1]; at γ = 1, if the uniform policy does not end with probability one
            from every start, or if never ending is at least as good as ending.

    Source: Howard (1960); Bertsekas & Tsitsiklis (1991) for γ = 1.
    """
    given = np.asarray(mdp.rewards)
    with jax.enable_x64(True):
        wide = lambda x: jnp.asarray(x, float) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.asarray(x)
        q = _policy_iteration(jax.tree.map(wide, mdp), discount, given)
    return jnp.asarray(q.astype(given.dtype))


def _policy_iteration(mdp: TabularMDP, discount: ArrayLike, given: np.ndarray) -> np.ndarray:
    """Q* `[S, A]` of a problem in float64; `given` are its rewards in their original float type."""
    gamma = checked_discount(mdp, discount)
    shape = (mdp.num_states, mdp.num_actions)
    q = np.asarray(stationary_action_values(mdp, jnp.full(shape, 1.0 / shape[1], mdp.rewards.dtype), gamma))
    ends = np.isfinite(q).all(axis=1)
    evaluate = jax.jit(stationary_action_values)
    actions = np.full(shape[0], -1)
    while True:
        chosen = np.take_along_axis(q, np.maximum(actions, 0)[:, None], axis=1)[:, 0]
        better = (actions < 0) | (ends & (q.max(axis=1) > chosen + _rounding(q, given)))
        if not better.any():
            return q
        actions = np.where(better, q.argmax(axis=1), actions)
        q = np.asarray(evaluate(mdp, jnp.asarray(np.eye(shape[1])[actions], mdp.rewards.dtype), gamma))
        if not np.isfinite(q[ends]).all():
            raise ValueError(
                f"discount must be below 1 for {mdp.name}: undiscounted, never ending is at least as good as ending"
            )


def _rounding(q: np.ndarray, rewards: np.ndarray) -> float:
    """The difference up to which two action values count as equal, see `stationary_optimal_action_values`."""
    # Values near 0 are sums of rewards that cancel, so they are as uncertain as these rewards.
    largest = max(np.abs(q[np.isfinite(q)]).max(initial=0.0), np.abs(rewards).max())
    return float(max(64 * np.finfo(rewards.dtype).eps, np.sqrt(np.finfo(np.float64).eps)) * largest)


@readable
def optimal_probabilities(
    mdp: TabularMDP, discount: ArrayLike = 1.0, *, softness: float = 0.0, ties: Ties = "lowest"
) -> jax.Array:
    """π*(a|s) of a best stationary policy, `[S, A]`, or of a softly optimal one, π(a|s) ∝ exp(Q*(s, a) / τ).

    The soft policy is an expert that makes errors; an error is rarer if it costs more. Its Q* belongs to the best
    policy and not to the soft policy.

    Args:
        discount: γ.
        softness: τ ≥ 0, in units of reward; 0 is the best policy.
        ties: the choice among equally good actions (up to rounding) if τ = 0: the `"lowest"` index, or `"uniform"` over
            all of them.

    Returns:
        Rows that sum to 1; they are uniform in terminal states and, at γ = 1, in states from which the uniform policy
        does not end with probability one.

    Raises:
        ValueError: for softness < 0, an unknown choice of ties, and as `stationary_optimal_action_values`.
    """
    require_in_range("softness", softness, 0.0, None)
    require_one_of("ties", ties, get_args(Ties))
    q = np.asarray(stationary_optimal_action_values(mdp, discount))
    unused = np.asarray(mdp.terminal) | ~np.isfinite(q).all(axis=1)
    q = np.where(unused[:, None], 0.0, q)
    if softness > 0:
        return jax.nn.softmax(jnp.asarray(q) / softness)
    best = q >= q.max(axis=1, keepdims=True) - _rounding(q, np.asarray(mdp.rewards))
    if ties == "lowest":
        best &= (np.cumsum(best, axis=1) == 1) | unused[:, None]
    return jnp.asarray(best / best.sum(axis=1, keepdims=True), q.dtype)
