"""The outputs of a policy, with or without memory: for one step, or for all rows of a batch.

Rollouts, gradients, scores and evaluation use this module, so all of them work for policies with memory. Without memory
the rows are independent of each other. With memory a row needs the earlier rows of its episode, so a batch is cut into
whole episodes. Axes: T time, B episodes, n episodes of one piece.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax import distributions
from pgjax._doors import readable
from pgjax.rows import map_over_rows
from pgjax.types import Memory, Policy, PyTree, Trajectory


class Inputs(NamedTuple):
    """The inputs of a policy for a batch, in addition to θ.

    Attributes:
        obs: X_t, leaves `[T, B, ...]`.
        starts: bool `[T, B]`, true for the rows where a new episode begins inside a window; None in complete episodes.
        carry: the memory at row 0 of a window, leaves `[1, B, ...]`; None if row 0 is X_1.
    """

    obs: PyTree
    starts: jax.Array | None = None
    carry: PyTree | None = None


@readable
def require_memoryless(policy: Policy, who: str) -> Callable[[PyTree, PyTree], PyTree]:
    """`policy.apply`; an error for a policy that needs its memory.

    Args:
        policy: the policy.
        who: the subject of the error, which needs `apply`.

    Raises:
        ValueError: if `policy.apply` is None.
    """
    if policy.apply is None:
        raise ValueError(
            f"{who} needs a policy whose outputs are a function of one observation (Policy.apply), got a policy that "
            "has only a memory (Policy.apply is None)"
        )
    return policy.apply


def _apply_of(policy: Policy) -> Callable[[PyTree, PyTree], PyTree]:
    """`apply` of a policy without memory."""
    if policy.apply is None:
        raise ValueError("a policy must have apply or memory, got None for both")
    return policy.apply


@readable
def start(policy: Policy, params: PyTree, obs: PyTree) -> PyTree:
    """The memory at X_1 of one episode; `()` for a policy without memory."""
    return () if policy.memory is None else policy.memory.start(params, obs)


@readable
def step(policy: Policy, params: PyTree, carry: PyTree, obs: PyTree) -> tuple[PyTree, PyTree]:
    """The memory after X_t and the distribution's parameters for A_t, for one episode."""
    if policy.memory is None:
        return carry, _apply_of(policy)(params, obs)
    return policy.memory.step(params, carry, obs)


@readable
def unroll(
    policy: Policy, params: PyTree, obs: PyTree, starts: jax.Array | None = None, carry: PyTree | None = None
) -> PyTree:
    """The distribution's parameters for each row of one sequence, leaves `[T, ...]`.

    Args:
        policy: f(x, θ).
        params: θ.
        obs: X_t, leaves `[T, ...]`.
        starts: bool `[T]`, true for the rows that begin a new episode; None if no row after row 0 begins one.
        carry: the memory at row 0; None if row 0 is X_1.
    """
    if policy.memory is None:
        return jax.vmap(_apply_of(policy), (None, 0))(params, obs)
    return unroll_memory(policy.memory, params, obs, starts, carry)


@readable
def unroll_memory(
    memory: Memory, params: PyTree, obs: PyTree, starts: jax.Array | None = None, carry: PyTree | None = None
) -> PyTree:
    """The outputs of a memory for each row of one sequence, leaves `[T, ...]`; the arguments are those of `unroll`."""
    if memory.unroll is not None:
        return memory.unroll(params, carry, obs, starts)
    carry = memory.start(params, jax.tree.map(lambda x: x[0], obs)) if carry is None else carry

    def one(carry: PyTree, row: tuple[PyTree, jax.Array | None]) -> tuple[PyTree, PyTree]:
        x, begins = row
        if begins is not None:
            fresh = memory.start(params, x)
            carry = jax.tree.map(lambda new, old: jnp.where(begins, new, old), fresh, carry)
        return memory.step(params, carry, x)

    return jax.lax.scan(one, carry, (obs, starts))[1]


@readable
def inputs(policy: Policy, trajectory: Trajectory) -> Inputs:
    """The inputs of the policy from a trajectory; only a policy with memory needs more than the observations."""
    if policy.memory is None or trajectory.next_obs is None:
        return Inputs(obs=trajectory.obs)
    ended = trajectory.terminated | trajectory.truncated
    starts = jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])
    if trajectory.carry is None:
        raise ValueError("trajectory.carry must hold the memory of the policy at row 0 of a window, got None")
    return Inputs(obs=trajectory.obs, starts=starts, carry=jax.tree.map(lambda x: x[None], trajectory.carry))


@readable
def outputs(policy: Policy, params: PyTree, seen: Inputs) -> PyTree:
    """The distribution's parameters for the rows of a piece, leaves `[N, ...]`.

    For a policy without memory a piece has leaves `[N, ...]`. For a policy with memory it holds whole episodes
    `[T, n, ...]` with N = T n; `rows.sum_over_rows(..., whole_episodes=policy.memory is not None)` cuts such pieces.
    """
    if policy.memory is None:
        return jax.vmap(_apply_of(policy), (None, 0))(params, seen.obs)

    def lane(seen: Inputs) -> PyTree:
        carry = None if seen.carry is None else jax.tree.map(lambda x: x[0], seen.carry)
        return unroll(policy, params, seen.obs, seen.starts, carry)

    return rows_of(policy, jax.vmap(lane, 1, 1)(seen))


@readable
def rows_of(policy: Policy, tree: PyTree) -> PyTree:
    """The rows `[N, ...]` of a piece: the piece itself, or its whole episodes `[T, n, ...]` in one axis."""
    if policy.memory is None:
        return tree
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), tree)


@readable
def log_probs(policy: Policy, params: PyTree, trajectory: Trajectory, rows_per_piece: int | None = None) -> jax.Array:
    """ln f(X_t, θ)_{A_t} of each row, `[T, B]`; 0 where not `alive`."""

    def of_piece(piece: tuple[Inputs, PyTree]) -> jax.Array:
        seen, actions = piece
        return jax.vmap(policy.distribution.log_prob)(outputs(policy, params, seen), rows_of(policy, actions))

    return map_over_rows(
        of_piece,
        (inputs(policy, trajectory), trajectory.actions),
        trajectory.alive,
        rows_per_piece,
        whole_episodes=policy.memory is not None,
    )


@readable
def divergences(
    policy: Policy, params: PyTree, reference: PyTree, trajectory: Trajectory, rows_per_piece: int | None = None
) -> jax.Array:
    """KL(f(X_t, θ) ‖ f(X_t, θ_ref)) of each row, over all actions, `[T, B]`; 0 where not `alive`.

    Raises:
        ValueError: if the distribution has no `kl`.
    """
    kl = distributions.require(policy.distribution, "kl", "the divergence over all actions")

    def of_piece(seen: Inputs) -> jax.Array:
        return jax.vmap(kl)(outputs(policy, params, seen), outputs(policy, reference, seen))

    return map_over_rows(
        of_piece,
        inputs(policy, trajectory),
        trajectory.alive,
        rows_per_piece,
        whole_episodes=policy.memory is not None,
    )
