"""What a policy computes, with memory or without: one step of it, or the outputs for all rows of a batch.

Rollouts, gradients, scores and evaluation ask this module, so that each of them serves policies with memory. Rows of a
policy without memory are independent of each other; with memory a row needs the rows of its episode before it, so a
batch is cut into whole episodes. Axes: T time, B episodes, n episodes of one piece.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax.rows import map_over_rows
from pgjax.types import Policy, PyTree, Trajectory


class Inputs(NamedTuple):
    """What the outputs of a batch are a function of, besides θ.

    Attributes:
        obs: X_t, leaves `[T, B, ...]`.
        starts: bool `[T, B]`, the rows where a new episode begins inside a window; None in complete episodes.
        carry: the memory at row 0 of a window, leaves `[1, B, ...]`; None where row 0 is X_1.
    """

    obs: PyTree
    starts: jax.Array | None = None
    carry: PyTree | None = None


def require_memoryless(policy: Policy, who: str) -> Callable[[PyTree, PyTree], PyTree]:
    """`policy.apply`; refuses a policy that cannot be asked about one observation alone.

    Raises:
        ValueError: if the policy has no `apply`; `who` names what needs it.
    """
    if policy.apply is None:
        raise ValueError(
            f"{who} needs a policy whose outputs are a function of one observation (Policy.apply), got a policy that "
            "has memory only (Policy.apply is None)"
        )
    return policy.apply


def _apply_of(policy: Policy) -> Callable[[PyTree, PyTree], PyTree]:
    """`apply` of a policy without memory."""
    if policy.apply is None:
        raise ValueError("a policy must have apply or memory, got None for both")
    return policy.apply


def start(policy: Policy, params: PyTree, obs: PyTree) -> PyTree:
    """The memory at X_1 of one episode, `()` for a policy without memory."""
    return () if policy.memory is None else policy.memory.start(params, obs)


def step(policy: Policy, params: PyTree, carry: PyTree, obs: PyTree) -> tuple[PyTree, PyTree]:
    """The memory after X_t, and the distribution's parameters for A_t, of one episode."""
    if policy.memory is None:
        return carry, _apply_of(policy)(params, obs)
    return policy.memory.step(params, carry, obs)


def unroll(
    policy: Policy, params: PyTree, obs: PyTree, starts: jax.Array | None = None, carry: PyTree | None = None
) -> PyTree:
    """The distribution's parameters for every row of one sequence, leaves `[T, ...]`.

    Args:
        obs: X_t, leaves `[T, ...]`.
        starts: bool `[T]`, the rows that begin a new episode; None if only row 0 does, or none.
        carry: the memory at row 0; None if row 0 is X_1.
    """
    memory = policy.memory
    if memory is None:
        return jax.vmap(_apply_of(policy), (None, 0))(params, obs)
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


def inputs(policy: Policy, trajectory: Trajectory) -> Inputs:
    """What the policy looks at in a trajectory; only a policy with memory needs more than the observations."""
    if policy.memory is None or trajectory.next_obs is None:
        return Inputs(obs=trajectory.obs)
    ended = trajectory.terminated | trajectory.truncated
    starts = jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])
    if trajectory.carry is None:
        raise ValueError("trajectory.carry must hold what the policy remembers at row 0 of a window, got None")
    return Inputs(obs=trajectory.obs, starts=starts, carry=jax.tree.map(lambda x: x[None], trajectory.carry))


def outputs(policy: Policy, params: PyTree, seen: Inputs) -> PyTree:
    """The distribution's parameters of a piece, leaves `[N, ...]`.

    A piece has leaves `[N, ...]` for a policy without memory, and whole episodes `[T, n, ...]`, N = T n, for one with
    memory: `pieces.sum_over_rows(..., whole_episodes=policy.memory is not None)` cuts them.
    """
    if policy.memory is None:
        return jax.vmap(_apply_of(policy), (None, 0))(params, seen.obs)

    def lane(seen: Inputs) -> PyTree:
        carry = None if seen.carry is None else jax.tree.map(lambda x: x[0], seen.carry)
        return unroll(policy, params, seen.obs, seen.starts, carry)

    return rows_of(policy, jax.vmap(lane, 1, 1)(seen))


def rows_of(policy: Policy, tree: PyTree) -> PyTree:
    """The rows `[N, ...]` of a piece: the piece itself, or whole episodes `[T, n, ...]` laid flat."""
    if policy.memory is None:
        return tree
    return jax.tree.map(lambda x: x.reshape((-1, *x.shape[2:])), tree)


def log_probs(policy: Policy, params: PyTree, trajectory: Trajectory, rows_per_piece: int | None = None) -> jax.Array:
    """ln f(X_t, θ)_{A_t} of every row, `[T, B]`; zero where not `alive`."""

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
