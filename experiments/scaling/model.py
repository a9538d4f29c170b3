"""A model of the seconds of one update on many machines, with a latency and a bandwidth that are assumed."""

import math
from typing import NamedTuple

from experiments.scaling.exchanges import Groups

BLOCKS = 8  # of a sum over the episodes of an update


class Network(NamedTuple):
    """The assumed network between machines.

    Attributes:
        latency: seconds for one step of an exchange.
        bandwidth: bytes per second that a machine receives.
    """

    latency: float
    bandwidth: float


class Seconds(NamedTuple):
    """The parts of the seconds of one update: computing, waiting for messages, and receiving bytes."""

    compute: float
    latency: float
    transfer: float

    @property
    def total(self) -> float:
        return self.compute + self.latency + self.transfer

    @property
    def bound(self) -> str:
        """The name of the largest part."""
        return max(self._fields, key=lambda name: getattr(self, name))


def update_seconds(
    machines: int,
    compute: float,
    groups: Groups,
    network: Network,
    *,
    growing: bool,
    statistics: bool = True,
) -> Seconds:
    """compute/N or compute, plus exchanges · latency · log₂ N, plus bytes · (N − 1)/N / bandwidth, for N machines.

    Args:
        compute: the measured seconds of an update of the whole batch on one device.
        groups: the exchanges in an update of that batch, whose sums have `BLOCKS` blocks.
        growing: whether every machine plays a batch of the measured size, so that the arrays `[T, B]` grow with N. If
            not, the machines share one batch.
        statistics: whether all machines receive the arrays `[T, B]` and, for a fixed order of sums, a block of the
            gradient from every machine. Without them the gradient is added up along a ring of machines, which sends
            twice its bytes.
    """
    number = sum(count for count, _ in groups) - (0 if statistics else groups.statistics[0])
    block = groups.gradients[1] / BLOCKS
    size = groups.metrics[1] + (block * max(BLOCKS, machines) if statistics else 2 * block)
    size += groups.statistics[1] * (machines if growing else 1) * statistics
    return Seconds(
        compute=compute if growing else compute / machines,
        latency=number * network.latency * math.log2(machines),
        transfer=size * (machines - 1) / machines / network.bandwidth,
    )


def efficiency(machines: int, seconds: Seconds, compute: float, *, growing: bool) -> float:
    """The episodes per second of N machines over N times those of one machine."""
    return compute / seconds.total / (1 if growing else machines)
