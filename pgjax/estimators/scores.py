"""Scores ∇ ln f(X_t, θ)_{A_t} one by one, for estimators and baselines that need more than their weighted sum.

A score has P numbers for every row, so this costs P times the memory of the hot path for what it keeps. Axes: T time,
B episodes, P parameters.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree

from pgjax._checks import require_one_of
from pgjax._linear import pseudo_inverse
from pgjax.types import Policy, Trajectory

PyTree = Any
NORMS = ("vanilla", "natural")


def step_score(policy: Policy, params: PyTree, obs: PyTree, action: jax.Array) -> jax.Array:
    """ψ = ∇ ln f(x, θ)_a of one row, flat, `[P]`."""
    gradient = jax.grad(lambda theta: policy.distribution.log_prob(policy.apply(theta, obs), action))(params)
    return ravel_pytree(gradient)[0]


def episode_score(policy: Policy, params: PyTree, obs: PyTree, actions: jax.Array, alive: jax.Array) -> jax.Array:
    """S = Σ_t ψ_t over the live rows of one episode, `[P]`; arguments `[T, ...]`."""

    def log_likelihood(theta: PyTree) -> jax.Array:
        outputs = jax.vmap(policy.apply, (None, 0))(theta, obs)
        return jnp.sum(jnp.where(alive, jax.vmap(policy.distribution.log_prob)(outputs, actions), 0.0))

    return ravel_pytree(jax.grad(log_likelihood)(params))[0]


def fisher_estimate(policy: Policy, params: PyTree, trajectory: Trajectory) -> jax.Array:
    """F̂ = (1/B) Σ_b Σ_t ψ_t ψ_tᵀ of the actions taken, `[P, P]`: E of it is the Fisher matrix of whole episodes."""

    def of_episode(total: jax.Array, episode: tuple) -> tuple[jax.Array, None]:
        obs, actions, alive = episode
        scores = jax.vmap(lambda x, a: step_score(policy, params, x, a))(obs, actions)
        scores = jnp.where(alive[:, None], scores, 0.0)
        return total + scores.T @ scores, None

    size = ravel_pytree(params)[0].shape[0]
    episodes = jax.tree.map(
        lambda x: jnp.moveaxis(x, 1, 0), (trajectory.obs, trajectory.actions, trajectory.alive)
    )
    total, _ = jax.lax.scan(of_episode, jnp.zeros((size, size), ravel_pytree(params)[0].dtype), episodes)
    return total / trajectory.alive.shape[1]


def squared_score_norms(
    policy: Policy, params: PyTree, trajectory: Trajectory, *, whole_episode: bool, norm: str = "vanilla"
) -> jax.Array:
    """‖ψ_t‖² of every live row, `[T, B]` and zero where not alive, or ‖Σ_t ψ_t‖² of every episode, `[1, B]`.

    One row for a whole episode: a sum over rows then counts every episode once, however long it is.

    Args:
        whole_episode: whether the score of the whole episode is meant, which multiplies G_1.
        norm: `"vanilla"` is Euclidean; `"natural"` is ‖F̂⁺ ψ‖², the length of the step of a natural gradient, with F̂ of
            this batch. The pseudo-inverse costs P³.

    Returns:
        `[T, B]` or `[1, B]`; in 1/θ², with the natural norm in θ².
    """
    require_one_of("norm", norm, NORMS)
    if norm == "vanilla":
        length = lambda score: jnp.sum(jnp.square(score))
    else:
        inverse = pseudo_inverse(fisher_estimate(policy, params, trajectory))
        length = lambda score: jnp.sum(jnp.square(inverse @ score))

    def of_episode(episode: tuple) -> jax.Array:
        obs, actions, alive = episode
        if whole_episode:
            return length(episode_score(policy, params, obs, actions, alive))[None]
        squares = jax.vmap(lambda x, a: length(step_score(policy, params, x, a)))(obs, actions)
        return jnp.where(alive, squares, jnp.zeros((), squares.dtype))

    episodes = jax.tree.map(
        lambda x: jnp.moveaxis(x, 1, 0), (trajectory.obs, trajectory.actions, trajectory.alive)
    )
    return jax.lax.map(of_episode, episodes, batch_size=64).T
