"""Episodes over several devices: what is split, what every device holds, and in which order sums are taken.

Under a mesh with an axis `episodes` every device plays and differentiates its share of the episodes. Sums are taken
over a fixed number of blocks of episodes, added in a fixed order, so that they do not depend on the number of devices.
Without such a mesh the same blocks are taken one after another. Axes: T time, B episodes.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
from jax.sharding import PartitionSpec

from pgjax.types import PyTree

EPISODES_AXIS = "episodes"
# How many blocks a sum may have. A block has an even number of episodes: products of one row are rounded differently,
# and with three or five the last bits were found to depend on the number of devices.
_BLOCKS = (8, 4, 2)
_deterministic = contextvars.ContextVar("deterministic", default=True)


@contextlib.contextmanager
def summation(*, deterministic: bool) -> Iterator[None]:
    """While tracing inside: whether sums over episodes are taken in blocks of a fixed order, whatever the devices."""
    token = _deterministic.set(deterministic)
    try:
        yield
    finally:
        _deterministic.reset(token)


def num_shards() -> int:
    """The number of devices that share the episodes; 1 without a mesh axis `episodes`."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(EPISODES_AXIS, 1)


def _most_blocks(num_episodes: int) -> int:
    return next((count for count in _BLOCKS if num_episodes % (2 * count) == 0), 1)


def num_blocks(num_episodes: int) -> int:
    """How many blocks of a fixed order the episodes are cut into: 8, 4 or 2; 1 where the order does not count.

    It depends on the number of episodes alone, unless there are more devices than blocks.
    """
    count = _most_blocks(num_episodes)
    return count if _deterministic.get() and count % num_shards() == 0 else 1


def most_shards(num_devices: int, num_episodes: int, group_size: int) -> int:
    """How many of the devices can share the episodes, whole groups each, without changing a sum."""
    fits = lambda count: _most_blocks(num_episodes) % count == 0 and (num_episodes // group_size) % count == 0
    return max(filter(fits, range(1, num_devices + 1)))


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, EPISODES_AXIS)


def over_episode_shards(
    function: Callable, arguments: tuple, *, in_axes: tuple[int | None, ...], out_axes: PyTree, multiple: int = 1
) -> PyTree:
    """`function(*arguments)`; under a mesh axis `episodes` each device calls it with its share of the episodes.

    Args:
        in_axes: for each argument, on which axis of its leaves the episodes stand; None where it is shared.
        out_axes: the same of the result, a pytree prefix.
        multiple: the episodes of a device must be a multiple of it, such as a group.

    Raises:
        ValueError: if the devices do not divide the episodes into such multiples.
    """
    shards = num_shards()
    if shards == 1:
        return function(*arguments)
    split = next(i for i, axis in enumerate(in_axes) if axis is not None)
    num_episodes = jax.tree.leaves(arguments[split])[0].shape[in_axes[split]]
    if num_episodes % (shards * multiple):
        of_groups = f" in groups of {multiple}" if multiple > 1 else ""
        raise ValueError(f"{shards} devices must divide the number of episodes{of_groups}, got {num_episodes} episodes")
    specs = jax.tree.map(_spec, out_axes)
    sharded = jax.shard_map(function, in_specs=tuple(map(_spec, in_axes)), out_specs=specs, check_vma=False)
    return sharded(*arguments)


def everywhere(tree: PyTree) -> PyTree:
    """The arrays, whole on every device: for statistics of the batch."""
    if num_shards() == 1:
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def numbers_everywhere(rows: PyTree) -> PyTree:
    """Rows `[T, B, ...]` whose numbers `[T, B]` are whole on every device; what is larger stays where it is.

    Without it the compiler may split the numbers, and their sums then depend on the number of devices.
    """
    return jax.tree.map(lambda x: everywhere(x) if x.ndim == 2 else x, rows)
