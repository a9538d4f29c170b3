"""Returns compared with those of the other episodes of a group. Axes: B episodes, N groups, k episodes of a group.

Axis 0 holds the episodes. Other axes may follow; the functions then compare the episodes separately for each index of
those axes. Pass the `returns [T, B]` of a time-major trajectory as `returns.T` to compare them step by step.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax._spread import centre_and_spread
from pgjax.advantages._arrays import as_floats, as_mask


class GroupStatistics(NamedTuple):
    """Statistics of the group of each entry; all fields have the shape of the returns, `[B, ...]`.

    Attributes:
        mean: m, the mean of the entries of the group that count.
        deviations: G − m; 0 outside the mask, and exactly 0 if all entries of the group that count are equal.
        spread: s, the standard deviation of those entries; exactly 0 if they are equal.
        count: n, the number of those entries, as a float.
    """

    mean: jax.Array
    deviations: jax.Array
    spread: jax.Array
    count: jax.Array


class _Layout(NamedTuple):
    """`split` maps `[B, ...]` to `[N, M, ...]`, one group in each row; `join` maps it and `[N, 1, ...]` back."""

    split: Callable[[jax.Array], jax.Array]
    join: Callable[[jax.Array], jax.Array]


def _consecutive(shape: tuple[int, ...], group_size: int) -> _Layout:
    split_shape = (shape[0] // group_size, group_size, *shape[1:])
    return _Layout(
        split=lambda x: x.reshape(split_shape), join=lambda x: jnp.broadcast_to(x, split_shape).reshape(shape)
    )


def _by_id(shape: tuple[int, ...], group_ids: jax.Array, num_groups: int) -> _Layout:
    """A layout in which each group has a row of all B episodes; the episodes of other groups are 0 (False) in it."""
    members = group_ids.astype(jnp.int32)[None] == jnp.arange(num_groups, dtype=jnp.int32)[:, None]
    members = members.reshape(*members.shape, *(1 for _ in shape[1:]))
    of_members = lambda x: jnp.where(members, x, jnp.zeros_like(x))
    return _Layout(split=lambda x: of_members(x[None]), join=lambda x: jnp.sum(of_members(x), axis=0))


def require_members(least: int, num_episodes: int, group_size: int | None, group_ids: jax.Array | None) -> None:
    """Require at least `least` episodes in each group. Groups from `group_ids` are not checked, as they are data.

    Raises:
        ValueError: if a group is too small.
    """
    if group_size is not None:
        require_integer("group_size", group_size, least, None)
    elif group_ids is None and num_episodes < least:
        raise ValueError(f"a batch that forms one group must hold at least {least} episodes, got {num_episodes}")


def _layout(
    shape: tuple[int, ...], group_size: int | None, group_ids: jax.Array | None, num_groups: int | None
) -> _Layout:
    if group_ids is None and num_groups is None:
        return _consecutive_groups(shape, group_size)
    if group_ids is None or num_groups is None:
        raise ValueError(
            f"group_ids and num_groups must be given together, got group_ids={group_ids}, num_groups={num_groups}"
        )
    if group_size is not None:
        raise ValueError(f"group_size must be None if group_ids are given, got {group_size}")
    require_integer("num_groups", num_groups, 1, None)
    group_ids = jnp.asarray(group_ids)
    if group_ids.shape != shape[:1] or not jnp.issubdtype(group_ids.dtype, jnp.integer):
        raise ValueError(
            f"group_ids must be integers of the shape {shape[:1]}, got {group_ids.dtype} {group_ids.shape}"
        )
    require_in_range("group_ids", group_ids, 0, num_groups - 1)
    return _by_id(shape, group_ids, num_groups)


def _consecutive_groups(shape: tuple[int, ...], group_size: int | None) -> _Layout:
    num_episodes = shape[0]
    require_members(1, num_episodes, group_size, None)
    size = num_episodes if group_size is None else group_size
    if num_episodes % size:
        raise ValueError(f"group_size must divide the number of episodes {num_episodes}, got {size}")
    return _consecutive(shape, size)


@readable
def group_statistics(
    returns: jax.Array,
    mask: jax.Array | None = None,
    *,
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
    ddof: int = 0,
) -> GroupStatistics:
    """Mean, deviations, standard deviation and count of the group of each entry.

    m = (1/n) Σ_j G_j,    s² = Σ_j (G_j − m)² / (n − ddof),    j over the n entries of the group that count

    Args:
        returns: G `[B, ...]`.
        mask: bool `[B, ...]`, true for the entries that count; all count if None.
        group_size: k, the number of consecutive rows in a group. If neither this nor `group_ids` is given, the whole
            batch is one group.
        group_ids: the group of each row, int `[B]`, in 0 … N − 1. They cost N times the work and memory of
            `group_size`.
        num_groups: N, a number that is known when the function is compiled; needed with `group_ids`.
        ddof: 0 for the divisor n, 1 for n − 1.

    Returns:
        The statistics, each `[B, ...]`.

    Raises:
        ValueError: if a type or shape is wrong, the group size does not divide B, `group_ids` comes without
            `num_groups`, an id lies outside 0 … N − 1 (tracers are not checked), or ddof is neither 0 nor 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import advantages
        >>> print(advantages.group_statistics(jnp.array([1.0, 3.0, 5.0, 5.0]), group_size=2).spread)
        [1. 1. 0. 0.]
    """
    require_integer("ddof", ddof, 0, 1)
    returns = as_floats("returns", returns)
    if returns.ndim == 0:
        raise ValueError("returns must have the shape [B, ...], got ()")
    mask = as_mask(mask, returns.shape)
    layout = _layout(returns.shape, group_size, group_ids, num_groups)
    counting = layout.split(mask)
    mean, deviations, spread = centre_and_spread(layout.split(returns), counting, axis=1, ddof=ddof)
    count = jnp.sum(counting, axis=1, keepdims=True).astype(returns.dtype)
    return GroupStatistics(
        mean=layout.join(mean),
        deviations=layout.join(deviations),
        spread=layout.join(spread),
        count=layout.join(count),
    )


@readable
def leave_one_out(
    returns: jax.Array,
    mask: jax.Array | None = None,
    *,
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
) -> jax.Array:
    """Each entry minus the mean of the other entries of its group that count.

    G_i − (1/(n − 1)) Σ_{j≠i} G_j = n/(n − 1) (G_i − m)

    The result is exactly 0 if all entries of the group are equal. If an entry is the only one of its group that counts,
    it keeps its value: no other entry can be its baseline, and b = 0 is unbiased.

    Args:
        returns: G `[B, ...]`.
        mask: bool `[B, ...]`, true for the entries that count; all count if None.
        group_size, group_ids, num_groups: as in `group_statistics`; k ≥ 2.

    Returns:
        An array `[B, ...]`, in units of the returns; 0 outside the mask.

    Raises:
        ValueError: as in `group_statistics`, and for a group size of 1.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax import advantages
        >>> print(advantages.leave_one_out(jnp.array([1.0, 3.0, 5.0, 5.0]), group_size=2))
        [-2.  2.  0.  0.]
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}
    require_members(2, jnp.shape(returns)[0], group_size, group_ids)
    _, deviations, _, n = group_statistics(returns, mask, **groups)
    alone = jnp.where(as_mask(mask, deviations.shape), returns, 0.0)
    return jnp.where(n > 1, n / jnp.maximum(n - 1, 1) * deviations, alone)


@readable
def standardise_groups(
    returns: jax.Array,
    mask: jax.Array | None = None,
    *,
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
    ddof: int = 0,
) -> jax.Array:
    """Each entry minus the mean of its group, divided by the standard deviation of its group.

    (G_i − m) / s, and exactly 0 if all entries of the group that count are equal

    Args:
        returns: G `[B, ...]`.
        mask: bool `[B, ...]`, true for the entries that count; all count if None.
        group_size, group_ids, num_groups: as in `group_statistics`; k ≥ 2.
        ddof: 0 for the divisor n of s², 1 for n − 1.

    Returns:
        An array `[B, ...]`, without a unit; 0 outside the mask.

    Raises:
        ValueError: as in `group_statistics`, and for a group size of 1.
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}
    require_members(2, jnp.shape(returns)[0], group_size, group_ids)
    _, deviations, spread, _ = group_statistics(returns, mask, **groups, ddof=ddof)
    return deviations / jnp.where(spread > 0, spread, 1.0)
