"""Single scores ∇ ln f(X_t, θ)_{A_t}, for estimators and baselines that need more than the weighted sum of scores.

A score holds P numbers for each row, so single scores need about P times the memory of their sum. Axes: T time,
B episodes, P parameters.
"""

from typing import get_args

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax import acting
from pgjax._checks import require_one_of
from pgjax._linear import pseudo_inverse
from pgjax.types import Policy, PyTree, ScoreNorm, Trajectory

# The scores that are computed at the same time hold at most so many numbers, unless one score alone holds more.
_MOST_NUMBERS = 1 << 26


def step_scores(policy: Policy, params: PyTree, seen: acting.Inputs, actions: PyTree) -> jax.Array:
    """ψ_t = ∇ ln f(X_t, θ)_{A_t} of each row of one episode as flat vectors `[T, P]`; the arguments are `[T, ...]`.

    If the policy has memory, ψ_t depends on the rows before it, and each row costs a backward pass of the episode.
    """
    flat, unravel = ravel_pytree(params)
    if policy.memory is not None:
        return jax.jacrev(lambda theta: _log_probs(policy, unravel(theta), seen, actions))(flat)
    apply = acting.require_memoryless(policy, "the score of one row")
    of_row = lambda theta, obs, action: policy.distribution.log_prob(apply(unravel(theta), obs), action)
    return jax.vmap(jax.grad(of_row), (None, 0, 0))(flat, seen.obs, actions)


def episode_score(policy: Policy, params: PyTree, seen: acting.Inputs, actions: PyTree, alive: jax.Array) -> jax.Array:
    """S = Σ_t ψ_t over the live rows of one episode, `[P]`; the arguments are `[T, ...]`."""
    log_likelihood = lambda theta: jnp.sum(jnp.where(alive, _log_probs(policy, theta, seen, actions), 0.0))
    return ravel_pytree(jax.grad(log_likelihood)(params))[0]


def _log_probs(policy: Policy, params: PyTree, seen: acting.Inputs, actions: PyTree) -> jax.Array:
    carry = None if seen.carry is None else jax.tree.map(lambda x: x[0], seen.carry)
    outputs = acting.unroll(policy, params, seen.obs, seen.starts, carry)
    return jax.vmap(policy.distribution.log_prob)(outputs, actions)


def _episodes(policy: Policy, trajectory: Trajectory) -> tuple[acting.Inputs, PyTree, jax.Array]:
    """The inputs, the actions and `alive` with the axis of episodes first, leaves `[B, T, ...]`."""
    together = (acting.inputs(policy, trajectory), trajectory.actions, trajectory.alive)
    return jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), together)


def fisher_estimate(policy: Policy, params: PyTree, trajectory: Trajectory) -> jax.Array:
    """F̂ = (1/B) Σ_b Σ_t ψ_t ψ_tᵀ of the taken actions, `[P, P]`; E F̂ is the Fisher matrix of whole episodes."""

    def of_episode(total: jax.Array, episode: tuple) -> tuple[jax.Array, None]:
        seen, actions, alive = episode
        scores = jnp.where(alive[:, None], step_scores(policy, params, seen, actions), 0.0)
        return total + scores.T @ scores, None

    flat = ravel_pytree(params)[0]
    zeros = jnp.zeros((flat.shape[0], flat.shape[0]), flat.dtype)
    total, _ = jax.lax.scan(of_episode, zeros, _episodes(policy, trajectory))
    return total / trajectory.alive.shape[1]


def squared_score_norms(
    policy: Policy, params: PyTree, trajectory: Trajectory, *, whole_episode: bool, norm: ScoreNorm = "vanilla"
) -> jax.Array:
    """‖ψ_t‖² of each row, `[T, B]` and 0 where not alive; or ‖Σ_t ψ_t‖² of each episode, `[1, B]`.

    The norm of a whole episode has one row, so a sum over rows counts each episode once, however long it is.

    Args:
        policy: f(x, θ).
        params: θ.
        trajectory: T steps of B episodes.
        whole_episode: whether the result is about the score of the whole episode, which multiplies G_1.
        norm: `"vanilla"` is the Euclidean norm. `"natural"` is ‖F̂⁺ ψ‖², the squared length of a natural-gradient step,
            with the F̂ of this batch; the pseudo-inverse takes a time of order P³.

    Returns:
        `[T, B]` or `[1, B]`. The unit is 1/θ²; with the natural norm it is θ².
    """
    require_one_of("norm", norm, get_args(ScoreNorm))
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    if norm == "vanilla":
        length = lambda score: jnp.sum(jnp.square(score))
    else:
        inverse = pseudo_inverse(fisher_estimate(policy, params, trajectory))
        length = lambda score: jnp.sum(jnp.square(inverse @ score))

    def of_episode(episode: tuple) -> jax.Array:
        seen, actions, alive = episode
        if whole_episode:
            return length(episode_score(policy, params, seen, actions, alive))[None]
        squares = jax.vmap(length)(step_scores(policy, params, seen, actions))
        return jnp.where(alive, squares, jnp.zeros((), squares.dtype))

    # A large model has one score in memory at a time.
    at_once = max(1, min(64, _MOST_NUMBERS // count))
    return jax.lax.map(of_episode, _episodes(policy, trajectory), batch_size=at_once).T
