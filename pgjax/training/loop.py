"""Many updates of many runs: one compiled program, in chunks between which the host looks at the metrics."""

import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer, require_one_of
from pgjax.pieces import RUNS_AXIS
from pgjax.training.trainer import Trainer
from pgjax.types import TrainState

PyTree = Any


class TrainingRun(NamedTuple):
    """What `train` returns: S runs of U updates each.

    Attributes:
        states: the final `TrainState`, leaves `[S, ...]`.
        metrics: name → NumPy `[S, U]`.
        compile_seconds: initialising, tracing and compiling.
        seconds: running it, without compilation.
    """

    states: TrainState
    metrics: dict[str, np.ndarray]
    compile_seconds: float
    seconds: float


class NonFiniteError(ValueError):
    """Rewards or gradients stopped being numbers."""


def _refuse_non_finite(metrics: dict[str, np.ndarray], done: int) -> None:
    for name, meaning in (("nonfinite_rewards", "rewards"), ("gradient_norm", "gradient")):
        bad = metrics[name] > 0 if name == "nonfinite_rewards" else ~np.isfinite(metrics[name])
        if bad.any():
            run, update = np.argwhere(bad)[0]
            raise NonFiniteError(
                f"{meaning} must be finite, got NaN or infinity in run {run} at update {done + update}"
                + (", as the environment pays it" if meaning == "rewards" else ": too large a step, or a bad weight")
            )


def _mapped(function: Callable, mapping: str) -> Callable:
    """`function` over the leading axis of all its arguments: vmapped, or one after another."""
    if mapping == "auto":
        mapping = "map" if jax.default_backend() == "cpu" else "vmap"
    if mapping == "vmap":
        return jax.vmap(function, axis_name=RUNS_AXIS)
    return lambda *args: jax.lax.map(lambda xs: function(*xs), args)


def train(
    build: Callable[[PyTree], Trainer],
    keys: jax.Array,
    hyperparams: PyTree = (),
    *,
    num_updates: int,
    chunk: int | None = None,
    mapping: str = "auto",
    on_chunk: Callable[[int, dict[str, np.ndarray], TrainState], None] | None = None,
    states: TrainState | None = None,
) -> TrainingRun:
    """Trains S runs in one program and looks at the host between chunks.

    Args:
        build: `hyperparams of one run → Trainer`; called while tracing, so that its numbers (a learning rate, γ, a
            decay) may differ from run to run without another compilation.
        keys: typed keys `[S]`, one per run.
        hyperparams: a pytree with leaves `[S]`.
        num_updates: U.
        chunk: updates between two returns to the host; U/20 if None.
        mapping: `"vmap"`, `"map"` (one run after another), or `"auto"`: map on CPUs, vmap elsewhere. The runs see the
            same episodes either way; their sums are rounded differently.
        on_chunk: called with the number of updates done, the chunk's metrics `[S, n]`, and the states; these are
            donated to the next chunk, so copy what is to be kept.
        states: go on from here instead of starting anew; `num_updates` more are made. Donated: not usable afterwards.

    Raises:
        NonFiniteError: as soon as a chunk shows NaN or infinite rewards or gradients.
        ValueError: for a size below one or an unknown mapping.
    """
    require_integer("num_updates", num_updates, 1, None)
    require_one_of("mapping", mapping, ("auto", "map", "vmap"))
    chunk = max(1, num_updates // 20) if chunk is None else min(chunk, num_updates)
    require_integer("chunk", chunk, 1, None)

    def run_chunk(state: TrainState, one_hyperparams: PyTree, count: jax.Array):
        trainer = build(one_hyperparams)
        shapes = jax.eval_shape(trainer.update, state)[1]
        buffers = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), shapes)

        def one(k, carry):
            state, buffers = carry
            state, metrics = trainer.update(state)
            return state, jax.tree.map(lambda buffer, x: buffer.at[k].set(x), buffers, metrics)

        return jax.lax.fori_loop(0, count, one, (state, buffers))

    start = time.perf_counter()
    if states is None:
        initialise = _mapped(lambda key, one_hyperparams: build(one_hyperparams).init(key), mapping)
        states = jax.jit(initialise)(keys, hyperparams)
    together = lambda states, hyperparams, count: _mapped(
        lambda state, one_hyperparams: run_chunk(state, one_hyperparams, count), mapping
    )(states, hyperparams)
    compiled = jax.jit(together, donate_argnums=0).lower(states, hyperparams, jnp.int32(chunk)).compile()
    compile_seconds = time.perf_counter() - start

    parts, seconds = [], 0.0
    for done in range(0, num_updates, chunk):
        count = min(chunk, num_updates - done)
        start = time.perf_counter()
        states, metrics = compiled(states, hyperparams, jnp.int32(count))
        metrics = {name: np.asarray(x)[:, :count] for name, x in metrics.items()}
        seconds += time.perf_counter() - start
        _refuse_non_finite(metrics, done)
        parts.append(metrics)
        if on_chunk is not None:
            on_chunk(done + count, metrics, states)
    metrics = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    return TrainingRun(states=states, metrics=metrics, compile_seconds=compile_seconds, seconds=seconds)
