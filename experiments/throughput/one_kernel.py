"""Complete episodes of CartPole-v1 from one kernel (`rollouts.fused`) beside those of the scan (`rollouts.episodes`).

    python -m experiments.throughput.one_kernel [--tiny]

It first plays the same episodes in both ways and compares them, and then measures both. On a GPU the kernel is
compiled. Elsewhere only --tiny makes sense: JAX plays the kernel operation by operation, and its rate says nothing.
"""

import functools
import statistics
import sys
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp

from experiments.throughput.measuring import measure
from experiments.throughput.workloads import CARTPOLE, played_by, practised
from pgjax import environments, networks, rollouts
from pgjax.types import Trajectory


class Size(NamedTuple):
    """What is measured: the numbers of episodes at once, their horizon, the policy, its updates of practice, and the
    least seconds of each repetition."""

    batches: tuple[int, ...] = (65536, 262144)
    horizon: int = 500
    hidden: tuple[int, ...] = (64, 64)
    practice: int = 40
    block: int = 128
    repetitions: int = 3
    seconds: float = 0.3


TINY = Size(batches=(16,), horizon=4, hidden=(4,), practice=0, block=16, repetitions=1, seconds=0.0)


def equal_lanes(scan: Trajectory, fused: Trajectory) -> jax.Array:
    """The share of the episodes with equal lengths and actions in both trajectories."""
    same = (scan.alive == fused.alive) & ((scan.actions == fused.actions) | ~scan.alive)
    return jnp.mean(jnp.all(same, axis=0))


def lines(size: Size) -> Iterator[str]:
    """The measurements, one line of Markdown for each number of episodes, and a last line that sums them up.

    Each line comes as soon as it is measured, so that a run that is stopped has shown what it has measured.
    """
    environment = environments.make(CARTPOLE, horizon=size.horizon)
    # JAX would compute the products of the scan in TF32 on a GPU. The kernel computes them in float32.
    policy = networks.with_precision(networks.make_policy(environment, hidden=size.hidden), "float32")
    params, _ = practised(size.hidden, size.practice, 0)
    scan = functools.partial(rollouts.episodes, environment, policy)
    fused = functools.partial(rollouts.fused, environment, policy, block=size.block)
    keys = jax.random.split(jax.random.key(0), size.batches[0])
    share = jax.jit(lambda params, keys: equal_lanes(scan(params, keys), fused(params, keys)))(params, keys)
    yield from ("| at once | scan, M steps/s | one kernel, M steps/s | ratio |", "|---|---|---|---|")
    ratios = []
    for batch in size.batches:
        programs = [played_by(play, params, jax.random.key(1), batch) for play in (scan, fused)]
        # The kernel runs on one device. One lane cannot be shared, and so the scan runs on one device, too.
        measured = [measure(program, 1, size.seconds, size.repetitions) for program in programs]
        rates = [statistics.median(one.rates) for one in measured]
        ratios.append(rates[1] / rates[0])
        yield f"| {batch:,} | {rates[0] / 1e6:.3g} | {rates[1] / 1e6:.3g} | {ratios[-1]:.2f} |"
    yield ""
    yield (
        f"{100 * float(share):.2f} % of {size.batches[0]:,} episodes have the actions of the scan; the kernel plays "
        f"{min(ratios):.2f} to {max(ratios):.2f} times as many live steps per second as the scan"
    )


if __name__ == "__main__":
    for line in lines(TINY if "--tiny" in sys.argv[1:] else Size()):
        print(line, flush=True)
