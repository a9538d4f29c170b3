"""Optimal policies without a horizon, by policy iteration on linear solves; `TabularMDP.horizon` is ignored.

With a horizon the best action may depend on the time that is left: `optimal_action_values` has it, `[T, S, A]`.

Axes: S states, A actions.
"""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_one_of
from pgjax.exact.mdp.linear_solves import stationary_action_values
from pgjax.exact.mdp.tabular import TabularMDP, checked_discount

Ties = Literal["lowest", "uniform"]


def stationary_optimal_action_values(mdp: TabularMDP, discount: ArrayLike = 1.0) -> jax.Array:
    """Q*(s, a) = Σ_k P(k|s, a) (R + γ max_a' Q*(s', a')), `[S, A]`, zero in terminal states.

    Policy iteration from the uniform policy: evaluate by a linear solve, change the action wherever another is better
    by more than rounding, until none is. Runs on the host. At γ = 1 it solves a stochastic shortest path, in which
    going round for ever must be worse than ending; states from which the uniform policy does not surely end hold NaN.

    All is solved in float64, and two values are equal but for rounding up to max(64 ε, √ε₆₄) max(|Q|, |R|): ε of the
    type of `mdp.rewards`, to which the numbers of the problem were rounded, and ε₆₄ that of float64, for the solve. So
    it is 7.6e-6 of the largest value or reward in float32, and 1.5e-8 in float64.

    Raises:
        ValueError: for a discount outside [0, 1]; at γ = 1, if the uniform policy does not surely end from where
            episodes start, or if never ending is better than ending.

    Source: Howard (1960); Bertsekas & Tsitsiklis (1991) for γ = 1.
    """
    given = np.asarray(mdp.rewards)
    with jax.enable_x64(True):
        wide = lambda x: jnp.asarray(x, float) if jnp.issubdtype(x.dtype, jnp.floating) else jnp.asarray(x)
        q = _policy_iteration(jax.tree.map(wide, mdp), discount, given)
    return jnp.asarray(q.astype(given.dtype))


def _policy_iteration(mdp: TabularMDP, discount: ArrayLike, given: np.ndarray) -> np.ndarray:
    """Q* `[S, A]` of a problem in float64, whose rewards were `given` in the type to which it was rounded."""
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
    """By how much two action values differ that are equal but for rounding, see `stationary_optimal_action_values`."""
    # Values that cancel to nothing are as uncertain as the rewards that they are sums of.
    largest = max(np.abs(q[np.isfinite(q)]).max(initial=0.0), np.abs(rewards).max())
    return float(max(64 * np.finfo(rewards.dtype).eps, np.sqrt(np.finfo(np.float64).eps)) * largest)


def optimal_probabilities(
    mdp: TabularMDP, discount: ArrayLike = 1.0, *, softness: float = 0.0, ties: Ties = "lowest"
) -> jax.Array:
    """π*(a|s) of a best stationary policy, `[S, A]`, or of one that is softly so, π(a|s) ∝ exp(Q*(s, a) / τ).

    The soft policy is a fallible expert, whose errors are the rarer the more they cost; its Q* is still that of the
    best policy, not its own.

    Args:
        discount: γ.
        softness: τ ≥ 0, in units of reward; 0 is the best policy.
        ties: among equally good actions (up to rounding, as above) the `"lowest"` index, or `"uniform"` over all of
            them. Only where τ = 0.

    Returns:
        Rows that sum to 1; uniform in terminal states and, at γ = 1, where episodes do not surely end.

    Raises:
        ValueError: for softness < 0, an unknown word, and as `stationary_optimal_action_values`.
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
