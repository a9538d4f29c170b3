"""A model of the seconds of one update on many machines, with a latency and a bandwidth that are assumed."""

import math
from typing import NamedTuple

from experiments.scaling.exchanges import Groups

BLOCKS = 8  # of a sum over the episodes of an update, in a fixed order


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
    machines: int, compute: float, groups: Groups, network: Network, *, growing: bool, fixed_order: bool
) -> Seconds:
    """compute/N or compute, plus exchanges · latency · log₂ N, plus bytes · (N − 1)/N / bandwidth, for N machines.

    Args:
        compute: the measured seconds of an update of the whole batch on one device.
        groups: the exchanges in an update of that batch, with this order of sums.
        growing: whether every machine plays a batch of the measured size, so that the arrays `[T, B]` grow with N. If
            not, the machines share one batch.
        fixed_order: whether all machines receive a block of the gradient from every machine; the counted sums have
            `BLOCKS` blocks. Otherwise the gradient is added up along a ring of machines, which sends twice its bytes.
    """
    number = sum(count for count, _ in groups)
    gradient = groups.gradients[1] * (max(BLOCKS, machines) / BLOCKS if fixed_order else 2)
    size = groups.metrics[1] + gradient + groups.statistics[1] * (machines if growing else 1)
    return Seconds(
        compute=compute if growing else compute / machines,
        latency=number * network.latency * math.log2(machines),
        transfer=size * (machines - 1) / machines / network.bandwidth,
    )


def efficiency(machines: int, seconds: Seconds, compute: float, *, growing: bool) -> float:
    """The episodes per second of N machines over N times those of one machine."""
    return compute / seconds.total / (1 if growing else machines)
