"""Advantages of libraries that no baseline of pgjax gives, as rules for the return.

Axes: T time, B answers, k answers of a group.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import advantages
from pgjax.estimators import ReturnRule
from pgjax.rewards import relabel
from pgjax.types import Rewards, Trajectory


def _rule(compute: Callable[[Trajectory], jax.Array]) -> ReturnRule:
    """A rule whose "return" `[T, B]` is already an advantage, to be used without a baseline."""
    return ReturnRule(
        compute=lambda trajectory, values, following: jnp.broadcast_to(compute(trajectory), trajectory.rewards.shape),
        bootstraps=False,
        discount=1.0,
        from_start=True,
    )


def centred_per_token(group_size: int) -> ReturnRule:
    """A_i = (r_i − mean of the group) k / (tokens of the group)."""

    def compute(trajectory: Trajectory) -> jax.Array:
        centred = advantages.dr_grpo(jnp.sum(trajectory.rewards, axis=0), group_size=group_size)
        tokens = jnp.sum(trajectory.alive, axis=0).reshape(-1, group_size).sum(axis=1)
        return centred * jnp.repeat(group_size / tokens, group_size)

    return _rule(compute)


def standardised_by_others(group_size: int) -> ReturnRule:
    """A_i = (r_i − m_i) / s_i: mean and standard deviation of the others, divisor k − 2; not divided where s_i = 0."""
    of_others = np.array([np.delete(np.arange(group_size), i) for i in range(group_size)])

    def compute(trajectory: Trajectory) -> jax.Array:
        scores = jnp.sum(trajectory.rewards, axis=0).reshape(-1, group_size)
        others = scores[:, of_others]  # [G, k, k − 1]
        # Differences to one of the others: if all others are equal, they and the spread are exactly 0.
        shifted = others - others[..., :1]
        shift = jnp.mean(shifted, axis=-1)
        squares = jnp.sum(jnp.square(shifted - shift[..., None]), axis=-1)
        spread = jnp.sqrt(squares / max(group_size - 2, 1))
        apart = scores - others[..., 0] - shift
        return (apart / jnp.where(spread > 0, spread, 1.0)).reshape(-1)

    return _rule(compute)


def scores_then_penalties(group_size: int, penalty: Rewards) -> ReturnRule:
    """A_t = (r_i − mean of the others' scores) + Σ_{l≥t} of what the stage `penalty` pays at each token."""

    def compute(trajectory: Trajectory) -> jax.Array:
        scores = advantages.rloo(jnp.sum(trajectory.rewards, axis=0), group_size=group_size)
        nothing = relabel(trajectory, jnp.zeros_like(trajectory.rewards))
        paid = penalty.relabel((), penalty.init(jax.random.key(0), ()), nothing)[0].rewards
        return scores[None] + jnp.cumsum(paid[::-1], axis=0)[::-1]

    return _rule(compute)
