"""One compiled program that makes the updates of several builds, each with S runs, and the chunks of its updates.

Every row of the program holds the state of one run of each build, and makes the updates of these runs one build after
the other. So each run goes through the operations that it goes through in a program of its own.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.training._chunks import Pace, joined
from pgjax.training.runs import Failures, Metrics, TrainingRun, all_finite, blanked, failures_in
from pgjax.training.sharding import Device, RunMapping, SharedEpisodes, Shares, choose_devices, choose_layout
from pgjax.training.trainer import Trainer
from pgjax.types import PyTree, TrainState

Build = Callable[[PyTree], Trainer]
Hear = Callable[[int, dict[str, Metrics], dict[str, TrainState]], None]


class How(NamedTuple):
    """The options of `train` that say where the runs are trained and who hears of them."""

    pace: Pace
    mapping: RunMapping
    layout: Shares | SharedEpisodes
    on_start: Callable[[dict[str, TrainState]], None] | None
    on_compiled: Callable[[], None] | None
    on_chunk: Hear | None
    keep_metrics: bool


def make_init(build: Build) -> Callable[[jax.Array, PyTree], TrainState]:
    """`(key, hyperparams) → state` of one run."""
    return lambda key, hyperparams: build(hyperparams).init(key)


def make_chunk(build: Build, chunk: int) -> Callable:
    """`(state, hyperparams, count) → (state, (metrics [chunk], whether θ is finite [chunk]))` of one run."""

    def run_chunk(state: TrainState, hyperparams: PyTree, count: jax.Array):
        trainer = build(hyperparams)

        def update(state: TrainState):
            state, metrics = trainer.update(state)
            return state, (metrics, all_finite(state.params))

        shapes = jax.eval_shape(update, state)[1]
        buffers = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), shapes)

        def one(k, carry):
            state, buffers = carry
            state, found = update(state)
            return state, jax.tree.map(lambda buffer, x: buffer.at[k].set(x), buffers, found)

        return jax.lax.fori_loop(0, count, one, (state, buffers))

    return run_chunk


def sizes_of(build: Build, hyperparams: PyTree) -> tuple[int, int]:
    """`num_episodes` and `group_size` of the trainers; they cannot depend on the hyper-parameters of a run."""
    found = []

    def look(one_hyperparams: PyTree) -> None:
        trainer = build(one_hyperparams)
        found.append((trainer.num_episodes, trainer.group_size))

    jax.eval_shape(look, jax.tree.map(lambda x: x[0], hyperparams))
    return found[0]


def layout_of(
    builds: Mapping[str, Build],
    hyperparams: PyTree,
    num_runs: int,
    devices: Sequence[Device] | int | None,
    deterministic: bool,
) -> Shares | SharedEpisodes:
    """Where the runs of all builds are trained.

    Raises:
        ValueError: if the devices share the episodes of one build and not of another, or on another number of devices.
    """
    chosen = choose_devices(devices)
    sizes = {name: sizes_of(build, hyperparams) for name, build in builds.items()}
    found = {name: choose_layout(chosen, num_runs, *of_build, deterministic) for name, of_build in sizes.items()}
    first = next(iter(found))
    for name, layout in found.items():
        if layout != found[first]:
            raise ValueError(
                f"builds must all share their episodes between the same devices if there are fewer runs ({num_runs}) "
                f"than devices ({len(chosen)}), got (num_episodes, group_size) = {sizes[first]} of {first!r} and "
                f"{sizes[name]} of {name!r}"
            )
    return found[first]


def _begin(builds: Mapping[str, Build], keys: jax.Array, hyperparams: PyTree, how: How) -> dict[str, TrainState]:
    """The first states of all runs, on their devices."""
    init = lambda key, of_run: {name: make_init(build)(key, of_run) for name, build in builds.items()}
    keys = how.layout.scatter(keys)
    return how.layout.compiled(how.layout.each(init, how.mapping), keys, hyperparams)(keys, hyperparams)


def _compile(builds: Mapping[str, Build], states: dict[str, TrainState], hyperparams: PyTree, how: How) -> Callable:
    """`(states, hyperparams, count) → (states, name → (metrics, whether θ is finite))` of all runs, compiled."""
    chunks = {name: make_chunk(build, how.pace.most) for name, build in builds.items()}

    def row(states: dict[str, TrainState], of_run: PyTree, count: jax.Array):
        made = {name: run_chunk(states[name], of_run, count) for name, run_chunk in chunks.items()}
        return {name: state for name, (state, _) in made.items()}, {name: found for name, (_, found) in made.items()}

    together = how.layout.each(row, how.mapping, num_shared=1)
    return how.layout.compiled(together, states, hyperparams, np.int32(how.pace.most), donate_argnums=0)


def run(
    builds: Mapping[str, Build],
    keys: jax.Array,
    hyperparams: PyTree,
    num_updates: int,
    states: dict[str, TrainState] | None,
    how: How,
) -> tuple[dict[str, TrainingRun], dict[str, Failures]]:
    """The S runs of each build after `num_updates` more updates, and the failures of each build.

    The training ends earlier if all runs of all builds have failed.
    """
    start, shares, pace = time.perf_counter(), how.layout, how.pace
    hyperparams = shares.scatter(hyperparams)
    current = _begin(builds, keys, hyperparams, how) if states is None else shares.scatter(states)
    first = {name: np.asarray(state.update) for name, state in current.items()}
    if how.on_start is not None:
        how.on_start(shares.gather(current))
    compiled = _compile(builds, current, hyperparams, how)
    compile_seconds = time.perf_counter() - start
    if how.on_compiled is not None:
        how.on_compiled()

    parts: dict[str, list[Metrics]] = {name: [] for name in builds}
    failed: dict[str, Failures] = {name: {} for name in builds}
    some_left = lambda: any(len(of_build) < len(keys) for of_build in failed.values())
    seconds, done = 0.0, 0
    while done < num_updates and some_left():
        count = pace.size(num_updates - done)
        start = time.perf_counter()
        # Wait first, so that a failed allocation raises an exception here and does not end the process.
        current, found = jax.block_until_ready(compiled(current, hyperparams, np.int32(count)))
        found = jax.tree.map(lambda x: np.asarray(x)[: len(keys), :count], found)
        took = time.perf_counter() - start
        seconds += took
        pace.took(count, took)
        heard = {}
        for name, (metrics, finite) in found.items():
            failed[name] = failures_in(metrics, finite, done, first[name]) | failed[name]
            heard[name] = blanked(metrics, failed[name], done)
            if how.keep_metrics:
                parts[name].append(heard[name])
        done += count
        if how.on_chunk is not None and some_left():
            how.on_chunk(done, heard, shares.gather(current))
    times = {"compile_seconds": compile_seconds, "seconds": seconds}
    gathered = shares.gather(current)
    return {n: TrainingRun(states=gathered[n], metrics=joined(parts[n]), **times) for n in builds}, failed
