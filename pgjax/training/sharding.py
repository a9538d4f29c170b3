"""S runs on D devices of one or several processes, in one of two ways.

With `Shares` each device trains an equal share of the runs in one program, and the devices exchange nothing. Every
leaf `[S, ...]` is cut along its first axis, and each device trains its share as one device would train all runs. With
`SharedEpisodes`, for fewer runs than devices, the devices share the episodes of one run after another and add up their
gradients. The devices of several processes (`jax.distributed`) always share the episodes: every process then makes the
same calls and holds the same results.
"""

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pgjax._checks import is_typed_key, require_integer
from pgjax._platform import traced_for
from pgjax._shards import EPISODES_AXIS, ORDERED_BLOCKS, SHARES_AXIS, most_shards, summation
from pgjax.types import PyTree

# How a device goes through its runs.
RunMapping = Literal["auto", "map", "vmap"]

# The type stubs of jax declare this class as a variable of an untyped extension module.
Device: TypeAlias = jax.Device  # pyright: ignore[reportInvalidTypeForm]


def choose_devices(devices: Sequence[Device] | int | None) -> list[Device]:
    """The devices to use: those in a list, the first n of this process, or those of all processes if it is None.

    If `jax.default_device(...)` is set, None takes that device alone.

    Raises:
        ValueError: if there are fewer than n devices, if a device is listed twice, or if the list is empty.
    """
    default = jax.config.jax_default_device  # pyright: ignore[reportAttributeAccessIssue]  defined while jax is imported
    if devices is None and isinstance(default, jax.Device):
        return [default]
    backend = default if isinstance(default, str) else None
    if devices is None:
        return jax.devices(backend)
    local = jax.local_devices(backend=backend)
    if isinstance(devices, Sequence):
        if not devices or len(set(devices)) < len(devices):
            raise ValueError(f"devices must be different devices, at least one, got {list(devices)}")
        return list(devices)
    require_integer("devices", devices, 1, len(local))
    return local[:devices]


def choose_mapping(mapping: RunMapping, device: Device) -> RunMapping:
    """How a device goes through its runs; `"auto"` is one after another on a CPU, and all at once elsewhere."""
    if mapping != "auto":
        return mapping
    return "map" if device.platform == "cpu" else "vmap"


def searches_nans() -> bool:
    """Whether JAX looks for NaN. It then runs a program that gave one again, operation by operation, so the arguments
    must not be donated, and the program must not be compiled ahead of time."""
    return jax.config.jax_debug_nans  # pyright: ignore[reportAttributeAccessIssue]


class Shares(NamedTuple):
    """Where S runs are trained.

    Attributes:
        mesh: one axis over min(S, D) devices.
        num_runs: S.
        rows: S rounded up to a multiple of the devices; the rows from S on repeat the last run and are dropped at the
            end.
    """

    mesh: Mesh
    num_runs: int
    rows: int

    @classmethod
    def of(cls, devices: Sequence[Device], num_runs: int) -> "Shares":
        """`num_runs` runs on the first devices; there are at most as many devices as runs."""
        used = list(devices)[:num_runs]
        rows = -(-num_runs // len(used)) * len(used)
        return cls(mesh=Mesh(np.asarray(used), (SHARES_AXIS,)), num_runs=num_runs, rows=rows)

    @property
    def split(self) -> NamedSharding:
        """The sharding of arrays `[rows, ...]` of which every device holds its rows."""
        return NamedSharding(self.mesh, PartitionSpec(SHARES_AXIS))

    def scatter(self, tree: PyTree) -> PyTree:
        """Move leaves `[S, ...]` from any device to `[rows, ...]` on the devices of the mesh."""
        if self.rows > self.num_runs:
            # Through one device: cutting an array that lies on several makes them exchange it.
            tree = jax.device_put(tree, self.mesh.devices[0])
            source = np.minimum(np.arange(self.rows), self.num_runs - 1)
            tree = jax.tree.map(lambda x: x[source], tree)
        return jax.device_put(tree, self.split)

    def gather(self, tree: PyTree) -> PyTree:
        """Move leaves `[rows, ...]` to `[S, ...]` on the first device, without a copy if it is the only one."""
        tree = jax.device_put(tree, self.mesh.devices[0])
        return jax.tree.map(lambda x: x[: self.num_runs], tree) if self.rows > self.num_runs else tree

    def compiled(self, function: Callable, *arguments: PyTree, **options: Any) -> Callable:
        """`function` compiled for arguments like these; `options` are those of `jax.jit`."""
        if searches_nans():
            return _traced_in(self, jax.jit(function))
        with self.tracing():
            return jax.jit(function, **options).lower(*arguments).compile()

    def tracing(self) -> contextlib.AbstractContextManager[None]:
        """The context in which a program for these devices is traced."""
        return traced_for(self.mesh.devices.flat[0])

    def each(self, function: Callable, mapping: RunMapping, num_shared: int = 0) -> Callable:
        """`function` for every row of its arguments, the last `num_shared` of which are the same for all rows.

        Args:
            mapping: how a device goes through its share, `"map"`, `"vmap"` or `"auto"`, see `train`.
        """
        mapping = choose_mapping(mapping, self.mesh.devices[0])

        def share(*arguments):
            cut = len(arguments) - num_shared
            own, shared = arguments[:cut], arguments[cut:]
            if mapping == "vmap":
                return jax.vmap(lambda *row: function(*row, *shared))(*own)
            return jax.lax.map(lambda row: function(*row, *shared), own)

        def together(*arguments):
            specs = [PartitionSpec(SHARES_AXIS)] * (len(arguments) - num_shared) + [PartitionSpec()] * num_shared
            # The check would refuse scans that start from zeros, and it is of no use, because no result is replicated.
            return jax.shard_map(
                share, mesh=self.mesh, in_specs=tuple(specs), out_specs=PartitionSpec(SHARES_AXIS), check_vma=False
            )(*arguments)

        return together


class SharedEpisodes(NamedTuple):
    """S runs, one after the other, each with its episodes over all devices; the methods are those of `Shares`.

    Attributes:
        mesh: one axis over the devices, `episodes`.
        deterministic: whether sums are added up in an order that does not depend on the number of devices; for sums of
            more than four million numbers this holds for one and two devices.
    """

    mesh: Mesh
    deterministic: bool

    @classmethod
    def of(cls, devices: Sequence[Device], deterministic: bool) -> "SharedEpisodes":
        mesh = Mesh(np.asarray(devices), (EPISODES_AXIS,), axis_types=(AxisType.Auto,))
        return cls(mesh=mesh, deterministic=deterministic)

    @property
    def whole(self) -> NamedSharding:
        """The sharding of arrays of which every device holds a full copy."""
        return NamedSharding(self.mesh, PartitionSpec())

    @property
    def split(self) -> NamedSharding:
        """The sharding of the states: every device holds all of them, since the devices share episodes, not runs."""
        return self.whole

    def scatter(self, tree: PyTree) -> PyTree:
        """Copy the leaves to every device. Each process has the same leaves and copies them to its own devices."""
        if self.whole.is_fully_addressable:
            return jax.device_put(tree, self.whole)
        own = self.mesh.local_devices

        def copy(x: Any) -> jax.Array:
            if is_typed_key(x):
                return jax.random.wrap_key_data(copy(jax.random.key_data(x)), impl=jax.random.key_impl(x))
            return jax.make_array_from_single_device_arrays(
                np.shape(x), self.whole, [jax.device_put(x, device) for device in own]
            )

        return jax.tree.map(copy, tree)

    def gather(self, tree: PyTree) -> PyTree:
        """Move the leaves to the first device of this process."""
        if self.whole.is_fully_addressable:
            return jax.device_put(tree, self.mesh.devices[0])

        def own(x: jax.Array) -> jax.Array:
            if is_typed_key(x):
                return jax.random.wrap_key_data(own(jax.random.key_data(x)), impl=jax.random.key_impl(x))
            return x.addressable_data(0)

        return jax.tree.map(own, tree)

    def compiled(self, function: Callable, *arguments: PyTree, **options: Any) -> Callable:
        options = {"out_shardings": self.whole, **options}
        # JAX finds an earlier trace of the same function for the same devices, which may have another order of sums.
        anew = lambda *arguments: function(*arguments)
        if searches_nans():
            return _traced_in(self, jax.jit(anew, out_shardings=options["out_shardings"]))
        with self.tracing():
            return jax.jit(anew, **options).lower(*arguments).compile()

    @contextlib.contextmanager
    def tracing(self) -> Iterator[None]:
        """The context in which a program for these devices is traced."""
        device = self.mesh.local_devices[0]
        with traced_for(device), jax.set_mesh(self.mesh), summation(deterministic=self.deterministic):
            yield

    def each(self, function: Callable, mapping: RunMapping, num_shared: int = 0) -> Callable:
        del mapping

        def together(*arguments):
            cut = len(arguments) - num_shared
            return jax.lax.map(lambda row: function(*row, *arguments[cut:]), arguments[:cut])

        return together


def _traced_in(layout: Shares | SharedEpisodes, function: Callable) -> Callable:
    def call(*arguments: PyTree) -> PyTree:
        with layout.tracing():
            return function(*arguments)

    return call


def spans_processes(devices: Iterable[Device]) -> bool:
    """Whether some of the devices belong to another process (`jax.distributed`)."""
    return any(device.process_index != jax.process_index() for device in devices)


def _unshared(devices: Sequence[Device], num_episodes: int, group_size: int, deterministic: bool) -> str:
    """Why these devices of several processes cannot share the episodes."""
    count = len(devices)
    these = f"the {count} devices of {jax.process_count()} processes"
    if deterministic and count not in ORDERED_BLOCKS:
        return (
            f"devices that share episodes with sums in a fixed order (deterministic=True) must be 2, 4 or 8, got "
            f"{these}; with deterministic=False any number can share them"
        )
    multiple = count * (math.lcm(2, group_size) if deterministic else group_size)
    return (
        f"num_episodes must be a multiple of {multiple}, so that {these} can share it in whole groups of {group_size}, "
        f"got {num_episodes}"
    )


def choose_layout(
    devices: Sequence[Device], num_runs: int, num_episodes: int, group_size: int, deterministic: bool
) -> Shares | SharedEpisodes:
    """`SharedEpisodes` if there are fewer runs than devices and the episodes can be shared, otherwise `Shares`.

    The devices of several processes must all share the episodes.

    Raises:
        ValueError: they cannot.
    """
    if spans_processes(devices):
        if most_shards(len(devices), num_episodes, group_size, deterministic) < len(devices):
            raise ValueError(_unshared(devices, num_episodes, group_size, deterministic))
        return SharedEpisodes.of(devices, deterministic)
    shards = most_shards(len(devices), num_episodes, group_size, deterministic) if num_runs < len(devices) else 1
    if shards > num_runs:
        return SharedEpisodes.of(devices[:shards], deterministic)
    return Shares.of(devices, num_runs)
