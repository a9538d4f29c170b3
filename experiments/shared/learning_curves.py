"""Train one seed after the other with one program, and judge the policy along the way.

Axes: S seeds, E evaluations.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from experiments.harness import runner, verdicts
from experiments.shared import ranges
from pgjax import diagnostics, training
from pgjax.types import TrainState


class Learnt(NamedTuple):
    """The shares of right answers `[S, E]` at E evaluations, the first of which comes before any update.

    Attributes:
        shares: the shares of right answers, `[S, E]`.
        updates: the number of updates before each evaluation, `[E]`.
        seconds: the seconds that these updates took, `[S, E]`, without compilation and evaluations.
        cpu_seconds: the same in seconds of all cores together, which do not depend on what else the machine does.
        compile_seconds: the seconds of compilation, once for all seeds.
    """

    shares: np.ndarray
    updates: np.ndarray
    seconds: np.ndarray
    cpu_seconds: np.ndarray
    compile_seconds: float


def learn(
    trainer: training.Trainer,
    share: Callable[[TrainState], jax.Array],
    *,
    seeds: range,
    num_updates: int,
    every: int,
    name: str,
    recorder: runner.Recorder,
) -> Learnt:
    """Train every seed for `num_updates` updates on one device, and take its `share` after every `every` of them."""

    def several(state: TrainState) -> TrainState:
        return jax.lax.scan(lambda state, _: trainer.update(state), state, length=every)[0]

    start, initialise = time.perf_counter(), jax.jit(lambda seed: trainer.init(jax.random.key(seed)))
    state = initialise(seeds[0])
    update, judge = jax.jit(several, donate_argnums=0).lower(state).compile(), jax.jit(share).lower(state).compile()
    compile_seconds = time.perf_counter() - start
    updates = every * np.arange(num_updates // every + 1)
    shares, seconds, cpu_seconds = np.zeros((3, len(seeds), len(updates)))
    with recorder.progress(len(seeds) * int(updates[-1]), name, "updates") as progress:
        for row, seed in enumerate(seeds):
            state = jax.block_until_ready(initialise(seed))
            shares[row, 0] = judge(state)
            for column in range(1, len(updates)):
                start, cpu_start = time.perf_counter(), time.process_time()
                state = jax.block_until_ready(update(state))
                seconds[row, column] = seconds[row, column - 1] + time.perf_counter() - start
                cpu_seconds[row, column] = cpu_seconds[row, column - 1] + time.process_time() - cpu_start
                shares[row, column] = judge(state)
                progress.advance(every, f"seed {seed}: {shares[row, column]:.0%} right")
    return Learnt(
        shares=shares, updates=updates, seconds=seconds, cpu_seconds=cpu_seconds, compile_seconds=compile_seconds
    )


def until(found: Learnt, share: float, measured: np.ndarray) -> np.ndarray:
    """`measured` (updates `[E]` or seconds `[S, E]`) at each seed's first evaluation of at least `share`, `[S]`.

    It is infinite for a seed without such an evaluation.
    """
    right = found.shares >= share
    first = np.broadcast_to(measured, right.shape)[np.arange(len(right)), right.argmax(axis=1)]
    return np.where(right.any(axis=1), first, np.inf)


def row_of_runs(
    recorder: runner.Recorder, runs: np.ndarray, bounds: ranges.Bounds = diagnostics.UNBOUNDED, **row
) -> None:
    """Record the mean over runs, with its standard error and its t interval within `bounds`."""
    found = diagnostics.mean_interval(np.asarray(runs, float), bounds=bounds)
    interval = f"95 % t interval {runner.format_interval(found.low, found.high, digits=4)}"
    verdict = verdicts.say(verdicts.Verdict.NOT_JUDGED, interval)
    recorder.row(ours=float(found.value), stderr=float(found.stderr), verdict=verdict, **row)
