"""Numbers compared with the others of their group, along axis 0. Axes: B episodes, N groups, k episodes of a group.

Any axes may follow the first; each of their entries is compared on its own. `returns [T, B]` of a time-major trajectory
are compared step by step as `returns.T`.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax._checks import require_in_range, require_integer
from pgjax._spread import centre_and_spread
from pgjax.advantages._arrays import as_floats, as_mask


class GroupStatistics(NamedTuple):
    """What each entry's group looks like; all fields have the shape of the returns, `[B, ...]`.

    Attributes:
        mean: m, the mean of the entries of the group that count.
        deviations: G − m; 0 outside the mask, and exactly 0 where all that count are equal.
        spread: their standard deviation s, exactly 0 where all that count are equal.
        count: n, how many of them count, as a float.
    """

    mean: jax.Array
    deviations: jax.Array
    spread: jax.Array
    count: jax.Array


class _Layout(NamedTuple):
    """`split`: `[B, ...] → [N, M, ...]`, a group in each row; `join` is the way back, and takes `[N, 1, ...]` too."""

    split: Callable[[jax.Array], jax.Array]
    join: Callable[[jax.Array], jax.Array]


def _consecutive(shape: tuple[int, ...], group_size: int) -> _Layout:
    split_shape = (shape[0] // group_size, group_size, *shape[1:])
    return _Layout(
        split=lambda x: x.reshape(split_shape), join=lambda x: jnp.broadcast_to(x, split_shape).reshape(shape)
    )


def _by_id(shape: tuple[int, ...], group_ids: jax.Array, num_groups: int) -> _Layout:
    """Every group has a row of all B episodes; those of other groups are 0 (False) in it."""
    members = group_ids.astype(jnp.int32)[None] == jnp.arange(num_groups, dtype=jnp.int32)[:, None]
    members = members.reshape(*members.shape, *(1 for _ in shape[1:]))
    of_members = lambda x: jnp.where(members, x, jnp.zeros_like(x))
    return _Layout(split=lambda x: of_members(x[None]), join=lambda x: jnp.sum(of_members(x), axis=0))


def require_members(least: int, num_episodes: int, group_size: int | None, group_ids: jax.Array | None) -> None:
    """Groups of at least `least` episodes, as far as it is known before the data are (not with `group_ids`).

    Raises:
        ValueError: otherwise.
    """
    if group_size is not None:
        require_integer("group_size", group_size, least, None)
    elif group_ids is None and num_episodes < least:
        raise ValueError(f"a batch that is one group must hold at least {least} episodes, got {num_episodes}")


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
        raise ValueError(f"group_size must be None where group_ids are given, got {group_size}")
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


def group_statistics(
    returns: jax.Array,
    mask: jax.Array | None = None,
    *,
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
    ddof: int = 0,
) -> GroupStatistics:
    """Mean, deviations, standard deviation and count of each entry's group.

    m = (1/n) Σ_j G_j,    s² = Σ_j (G_j − m)² / (n − ddof),    j over the entries of the group that count

    Args:
        returns: G `[B, ...]`.
        mask: bool `[B, ...]`, which entries count; all if None.
        group_size: k consecutive rows are a group; the whole batch if neither this nor `group_ids` is given.
        group_ids: the group of each row, int `[B]`, in 0 … N − 1. The work and the memory are N times those of
            `group_size`.
        num_groups: N, known when the function is compiled; needed with `group_ids`.
        ddof: 0 for the divisor n, 1 for n − 1.

    Returns:
        The statistics, each `[B, ...]`.

    Raises:
        ValueError: for a wrong type or shape, a group size that does not divide B, `group_ids` without
            `num_groups` or outside 0 … N − 1 (where they are no tracers), or a ddof other than 0 and 1.
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


def leave_one_out(
    returns: jax.Array,
    mask: jax.Array | None = None,
    *,
    group_size: int | None = None,
    group_ids: jax.Array | None = None,
    num_groups: int | None = None,
) -> jax.Array:
    """Each entry minus the mean of the others of its group that count.

    G_i − (1/(n − 1)) Σ_{j≠i} G_j = n/(n − 1) (G_i − m)

    Exactly 0 where all are equal. An entry that counts alone in its group keeps its value: there is no other to compare
    it with, and b = 0 is unbiased.

    Args:
        returns: G `[B, ...]`.
        mask: bool `[B, ...]`, which entries count; all if None.
        group_size, group_ids, num_groups: as in `group_statistics`; k ≥ 2.

    Returns:
        An array `[B, ...]`, in units of the returns; 0 outside the mask.

    Raises:
        ValueError: as `group_statistics`, and for a group size of 1.
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}
    require_members(2, jnp.shape(returns)[0], group_size, group_ids)
    _, deviations, _, n = group_statistics(returns, mask, **groups)
    alone = jnp.where(as_mask(mask, deviations.shape), returns, 0.0)
    return jnp.where(n > 1, n / jnp.maximum(n - 1, 1) * deviations, alone)


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

    (G_i − m) / s, and exactly 0 where all that count are equal

    Args:
        returns: G `[B, ...]`.
        mask: bool `[B, ...]`, which entries count; all if None.
        group_size, group_ids, num_groups: as in `group_statistics`; k ≥ 2.
        ddof: 0 for the divisor n of s², 1 for n − 1.

    Returns:
        An array `[B, ...]`, without a unit; 0 outside the mask.

    Raises:
        ValueError: as `group_statistics`, and for a group size of 1.
    """
    groups = {"group_size": group_size, "group_ids": group_ids, "num_groups": num_groups}
    require_members(2, jnp.shape(returns)[0], group_size, group_ids)
    _, deviations, spread, _ = group_statistics(returns, mask, **groups, ddof=ddof)
    return deviations / jnp.where(spread > 0, spread, 1.0)
