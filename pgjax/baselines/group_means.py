"""Baselines that an episode gets from the other episodes of its group.

A batch of B episodes holds B/k groups of k consecutive episodes. Training and the diagnostics read `Baseline.needs` and
let the episodes of a group share one start (one prompt, one problem). If the starts differ, nothing becomes biased.
Axes: T time, B episodes, k episodes of a group.
"""

from typing import Literal, get_args

import jax

from pgjax import advantages
from pgjax._checks import require_integer, require_one_of
from pgjax._doors import readable
from pgjax.baselines.simple import returns_of, stateless
from pgjax.types import Baseline, Needs, Trajectory

Over = Literal["episodes", "live"]


def split_groups(x: jax.Array, group_size: int | None) -> jax.Array:
    """x `[T, B]` in the shape `[T, B/k, k]`; the whole batch is one group if `group_size` is None.

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


@readable
def batch_mean(over: Over = "episodes", group_size: int | None = None) -> Baseline:
    """b_t = the mean of G_t over the group, which includes the episode itself. Biased by a known factor.

    With `over="episodes"` the expected gradient is exactly (k − 1)/k of the true one, because the mean contains the
    episode's own return. `leave_one_out` is unbiased. With `total_return` this baseline is Dr. GRPO (Liu et al. 2025):
    the group mean of GRPO without the division by the standard deviation.

    Args:
        over: `"episodes"` averages over all k episodes; a finished episode counts with its G_t, which is 0 for
            `reward_to_go`. `"live"` averages over the episodes that still run at t; the factor above is then not exact.
        group_size: k, the number of consecutive episodes that form a group and share a start. If None, the whole batch
            is one group, and its starts may differ.

    Raises:
        ValueError: if `over` is an unknown word; when the baseline is used, if `group_size` does not divide the batch.

    Example:
        >>> from pgjax import baselines
        >>> baselines.batch_mean(group_size=4)
        Baseline(batch_mean, needs=Needs(group_size=4))
    """
    _check(over, group_size, 1)

    def predict(trajectory: Trajectory) -> jax.Array:
        counting = trajectory.alive.T if over == "live" else None
        return advantages.group_statistics(returns_of(trajectory).T, counting, group_size=group_size).mean.T

    return stateless(predict, needs=Needs(group_size=group_size))


@readable
def leave_one_out(over: Over = "episodes", group_size: int | None = None) -> Baseline:
    """b_t = the mean of G_t over the *other* episodes of the group. Unbiased.

    G^i − b^i = k/(k − 1) (G^i − mean G). With `total_return` this is RLOO (Kool, van Hoof & Welling 2019; Ahmadian
    et al. 2024). A group needs k ≥ 2 episodes.

    Args:
        over: `"episodes"` averages over all k − 1 other episodes; a finished one counts with its G_t, which is 0 for
            `reward_to_go`. `"live"` averages over the others that still run at t; b = 0 if there is none.
        group_size: k, the number of consecutive episodes that form a group and share a start. If None, the whole batch
            is one group, and its starts may differ.

    Raises:
        ValueError: if `over` is an unknown word or `group_size` < 2; when the baseline is used, if a group has a single
            episode or `group_size` does not divide the batch.

    Example:
        >>> from pgjax import baselines
        >>> baselines.leave_one_out(group_size=4)
        Baseline(leave_one_out, needs=Needs(group_size=4))
    """
    _check(over, group_size, 2)

    def predict(trajectory: Trajectory) -> jax.Array:
        counting = trajectory.alive.T if over == "live" else None
        returns = returns_of(trajectory)
        return returns - advantages.leave_one_out(returns.T, counting, group_size=group_size).T

    return stateless(predict, needs=Needs(group_size=group_size))
