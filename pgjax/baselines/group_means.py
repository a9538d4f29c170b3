"""Baselines that an episode gets from the other episodes of its group.

A batch of B episodes is B/k groups of k consecutive lanes. Training and the laboratory read `Baseline.needs` and let
the episodes of a group share one start (one prompt, one problem); nothing is biased where starts differ.
Axes: T time, B episodes, k episodes of a group.
"""

from typing import Literal, get_args

import jax

from pgjax import advantages
from pgjax._checks import require_integer, require_one_of
from pgjax.baselines.simple import returns_of, stateless
from pgjax.types import Baseline, Needs, Trajectory

Over = Literal["episodes", "live"]


def split_groups(x: jax.Array, group_size: int | None) -> jax.Array:
    """`[T, B]` as `[T, B/k, k]`; the whole batch is one group if `group_size` is None.

    Raises:
        ValueError: if k does not divide B.
    """
    num_episodes = x.shape[1]
    size = num_episodes if group_size is None else group_size
    if num_episodes % size:
        raise ValueError(f"group_size must divide num_episodes={num_episodes}, got {size}")
    return x.reshape(x.shape[0], num_episodes // size, size)


def _check(over: Over, group_size: int | None, least: int) -> None:
    require_one_of("over", over, get_args(Over))
    if group_size is not None:
        require_integer("group_size", group_size, least, None)


def batch_mean(over: Over = "episodes", group_size: int | None = None) -> Baseline:
    """b_t = the group's mean of G_t, the episode's own included.

    Biased: the episode's own return pulls b towards itself, and over all episodes the expected gradient is exactly
    (k − 1)/k of the true one. `leave_one_out` is the cure. With `total_return` this is Dr. GRPO, the group mean of GRPO
    without its division by the standard deviation (Liu et al. 2025).

    Args:
        over: `"episodes"` averages over all k episodes (a finished one counts its G_t, zero for reward-to-go);
            `"live"` over the episodes still running at t (no exact factor then).
        group_size: k consecutive episodes form a group and share a start; the whole batch, of any starts, if None.

    Raises:
        ValueError: for an unknown word, or a group size that does not divide the batch.
    """
    _check(over, group_size, 1)

    def predict(trajectory: Trajectory) -> jax.Array:
        counting = trajectory.alive.T if over == "live" else None
        return advantages.group_statistics(returns_of(trajectory).T, counting, group_size=group_size).mean.T

    return stateless(predict, needs=Needs(group_size=group_size))


def leave_one_out(over: Over = "episodes", group_size: int | None = None) -> Baseline:
    """b_t = the mean of G_t over the *other* episodes of the group. Unbiased.

    G^i − b^i = k/(k − 1) (G^i − mean G): RLOO (Kool, van Hoof & Welling 2019; Ahmadian et al. 2024). Needs k ≥ 2.

    Args:
        over: `"episodes"` averages over all k − 1 others (a finished one counts its G_t, zero for reward-to-go);
            `"live"` over the others still running at t, and b = 0 when there is none.
        group_size: k consecutive episodes form a group and share a start; the whole batch, of any starts, if None.

    Raises:
        ValueError: when a group has a single episode, or its size does not divide the batch.
    """
    _check(over, group_size, 2)

    def predict(trajectory: Trajectory) -> jax.Array:
        counting = trajectory.alive.T if over == "live" else None
        returns = returns_of(trajectory)
        return returns - advantages.leave_one_out(returns.T, counting, group_size=group_size).T

    return stateless(predict, needs=Needs(group_size=group_size))
