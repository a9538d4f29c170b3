"""Episodes on several devices: which arrays are split, which are whole on each device, and the order of sums.

Under a mesh with an axis `episodes` each device plays and differentiates its share of the episodes. A sum is taken over
a fixed number of blocks of episodes, which are added in a fixed order, so it does not depend on the number of devices;
the sum of a large gradient does not depend on it for one and two devices. Without such a mesh the same blocks are
computed one after another. Axes: T time, B episodes.
"""

import contextlib
import contextvars
from collections.abc import Callable, Iterator

import jax
from jax.sharding import PartitionSpec

from pgjax._records import PyTree

EPISODES_AXIS = "episodes"
# The axis of devices that train different runs. It is not that of runs that are vmapped together on one device.
SHARES_AXIS = "shares"
# The allowed numbers of blocks in a sum. A block must have an even number of episodes: products of one row are rounded
# differently, and with three or five episodes the last bits were found to depend on the number of devices.
ORDERED_BLOCKS = (8, 4, 2)
# With a sum of more numbers than this the pass over the memory that each block costs is worth saving; `rows` has the
# measured difference.
_LARGE_SUM, _BLOCKS_OF_LARGE = 1 << 22, (2,)
_deterministic = contextvars.ContextVar("deterministic", default=True)


@contextlib.contextmanager
def summation(*, deterministic: bool) -> Iterator[None]:
    """A context in which traced sums over episodes have blocks of a fixed order on any devices, if `deterministic`."""
    token = _deterministic.set(deterministic)
    try:
        yield
    finally:
        _deterministic.reset(token)


def is_deterministic() -> bool:
    """Whether sums over episodes have blocks of a fixed order."""
    return _deterministic.get()


def num_shards() -> int:
    """The number of devices that share the episodes; 1 without a mesh axis `episodes`."""
    return dict(jax.sharding.get_abstract_mesh().shape).get(EPISODES_AXIS, 1)


def _most_blocks(num_episodes: int, allowed: tuple[int, ...] = ORDERED_BLOCKS) -> int:
    return next((count for count in allowed if num_episodes % (2 * count) == 0), 1)


def is_large(sum_size: int) -> bool:
    """Whether a sum of so many numbers is large, so that it has few blocks."""
    return sum_size > _LARGE_SUM


def num_blocks(num_episodes: int, sum_size: int = 0) -> int:
    """The number of blocks of episodes with a fixed order: 8, 4 or 2, or 1 if the order does not matter.

    It depends only on the number of episodes and the numbers in the sum, unless there are more devices than blocks: a
    large sum has at most 2 blocks, so with more than 2 devices its order depends on the number of devices.
    """
    count = _most_blocks(num_episodes, _BLOCKS_OF_LARGE if is_large(sum_size) else ORDERED_BLOCKS)
    return count if _deterministic.get() and count % num_shards() == 0 else 1


def most_shards(num_devices: int, num_episodes: int, group_size: int, deterministic: bool) -> int:
    """The largest number of devices that can share the episodes in whole groups; without changing a sum if wished.

    A large sum (`is_large`) keeps its order on one and two devices only; with more devices its last bits may change.
    """
    blocks = _most_blocks(num_episodes)
    fits = lambda count: (num_episodes // group_size) % count == 0 and not (deterministic and blocks % count)
    return max(filter(fits, range(1, num_devices + 1)))


def _spec(axis: int | None) -> PartitionSpec:
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, EPISODES_AXIS)


def over_episode_shards(
    function: Callable, arguments: tuple, *, in_axes: tuple[int | None, ...], out_axes: PyTree, multiple: int = 1
) -> PyTree:
    """`function(*arguments)`; under a mesh axis `episodes` each device calls it with its share of the episodes.

    Args:
        function: the function of the arguments.
        arguments: its arguments.
        in_axes: for each argument, the axis of the episodes in its leaves; None if all devices get the whole argument.
        out_axes: the axis of the episodes in the result, as a pytree prefix; None for results that all devices share.
        multiple: the number of episodes on a device must be a multiple of this number, such as the size of a group.

    Raises:
        ValueError: if the devices cannot divide the episodes in this way.
    """
    shards = num_shards()
    if shards == 1:
        return function(*arguments)
    split = next(i for i, axis in enumerate(in_axes) if axis is not None)
    num_episodes = jax.tree.leaves(arguments[split])[0].shape[in_axes[split]]
    if num_episodes % (shards * multiple):
        of_groups = f" in groups of {multiple}" if multiple > 1 else ""
        raise ValueError(f"{shards} devices must divide the number of episodes{of_groups}, got {num_episodes} episodes")
    specs = jax.tree.map(_spec, out_axes, is_leaf=lambda axis: axis is None)
    sharded = jax.shard_map(function, in_specs=tuple(map(_spec, in_axes)), out_specs=specs, check_vma=False)
    return sharded(*arguments)


def sum_over_devices(sums: PyTree) -> PyTree:
    """The sum over all devices, inside `over_episode_shards`, in an order that XLA chooses."""
    return jax.lax.psum(sums, EPISODES_AXIS)


def everywhere(tree: PyTree) -> PyTree:
    """The arrays as a whole on each device, so that statistics of the batch are sums in a fixed order.

    If no order is asked for, the arrays stay where they are, and the devices exchange sums instead.
    """
    if num_shards() == 1 or not is_deterministic():
        return tree
    return jax.tree.map(lambda x: jax.lax.with_sharding_constraint(x, PartitionSpec()), tree)


def numbers_everywhere(rows: PyTree) -> PyTree:
    """The rows `[T, B, ...]`, with leaves of the shape `[T, B]` whole on each device; larger leaves are not moved.

    Otherwise the compiler may split these leaves, and sums over them then depend on the number of devices.
    """
    return jax.tree.map(lambda x: everywhere(x) if x.ndim == 2 else x, rows)
