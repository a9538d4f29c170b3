"""Many updates of many runs: one compiled program, in chunks between which the host looks at the metrics."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_typed_key, require_integer, require_one_of
from pgjax.training.sharding import Device, RunMapping, choose_devices, choose_layout
from pgjax.training.trainer import Trainer
from pgjax.types import PyTree, TrainState

Metrics = dict[str, np.ndarray]

_PREFIX = "nonfinite_"  # of metrics that count numbers which are none
# What may stop being finite, and where to look. Of one update the first is named: the others follow from it.
_REASONS = {
    "observations": "as the environment shows them",
    "rewards": "as the environment pays them",
    "gradient": "θ was still finite, so a weight, an observation or an output of the policy is not, or is too large",
    "parameters": "the rewards and the gradient were finite, so the step was too large",
}


class TrainingRun(NamedTuple):
    """What `train` returns: S runs of U updates each.

    Attributes:
        states: the final `TrainState`, leaves `[S, ...]`, on one device.
        metrics: name → NumPy `[S, U]`.
        compile_seconds: initialising, tracing and compiling.
        seconds: running it, without compilation.
    """

    states: TrainState
    metrics: Metrics
    compile_seconds: float
    seconds: float


class NonFiniteError(ValueError):
    """Rewards, gradients, parameters or a loss stopped being numbers.

    Attributes:
        failures: run → what stopped being finite, and at which update.
        trained: the `TrainingRun` of all runs, those that did not fail among them; None where there are no runs.
    """

    def __init__(self, message: str, failures: dict[int, str] | None = None, trained: TrainingRun | None = None):
        super().__init__(message)
        self.failures = failures or {}
        self.trained = trained


class _Failure(NamedTuple):
    """`column` of the metrics `[S, U]` is that of the update at which a run failed."""

    column: int
    text: str


def _failures(metrics: Metrics, finite: np.ndarray, done: int, first: np.ndarray) -> dict[int, _Failure]:
    """The runs in which something of this chunk is not finite, each with what came first.

    Args:
        metrics: the chunk's, `[S, n]`.
        finite: bool `[S, n]`, whether θ is finite after each update.
        done: updates before this chunk.
        first: the number of each run's first update, `[S]`; above 0 in a run that goes on.
    """
    bad = {name.removeprefix(_PREFIX): count > 0 for name, count in metrics.items() if name.startswith(_PREFIX)}
    bad |= {"gradient": ~np.isfinite(metrics["gradient_norm"])} if "gradient_norm" in metrics else {}
    bad |= {"parameters": ~finite}
    names, where = list(bad), np.stack(list(bad.values()), axis=-1)
    found = {}
    for run in map(int, np.flatnonzero(where.any(axis=(1, 2)))):
        update, cause = np.argwhere(where[run])[0]
        name, number = names[cause], first[run] + done + update
        reason = f": {_REASONS[name]}" if name in _REASONS else ""
        text = f"{name} must be finite, got NaN or infinity in run {run} at update {number}{reason}"
        found[run] = _Failure(column=int(done + update), text=text)
    return found


def _blanked(metrics: Metrics, failed: dict[int, _Failure], done: int) -> Metrics:
    """NaN in the place of every real number that a run shows after it failed: a policy of NaNs plays on unabashed."""
    if not failed:
        return metrics
    metrics = {name: np.array(x) for name, x in metrics.items()}
    for x in metrics.values():
        for run, failure in failed.items():
            if np.issubdtype(x.dtype, np.floating):
                x[run, max(0, failure.column + 1 - done) :] = np.nan
    return metrics


def _error(failed: dict[int, _Failure], trained: TrainingRun) -> NonFiniteError:
    texts = {run: failure.text for run, failure in sorted(failed.items())}
    message, num_runs = "; ".join(texts.values()), len(trained.states.update)
    if num_runs > 1:
        others = "" if len(texts) == num_runs else " (the others are complete, in this error's `trained`)"
        message = f"{len(texts)} of {num_runs} runs failed{others}: {message}"
    return NonFiniteError(message, texts, trained)


def _require_runs(keys: Any, **trees: PyTree) -> None:
    """Typed keys `[S]`, and S rows in every leaf of the others."""
    shape = jnp.shape(keys)
    if not is_typed_key(keys) or len(shape) != 1 or not shape[0]:
        raise ValueError(
            f"keys must be typed keys of shape [S], one for each of S ≥ 1 runs, got {type(keys).__name__} of shape "
            f"{list(shape)}; jax.random.split(key, S) makes S of one"
        )
    for name, tree in trees.items():
        for leaf in jax.tree.leaves(tree):
            if jnp.shape(leaf)[:1] != shape:
                raise ValueError(
                    f"{name} must have {shape[0]} rows in every leaf, one for each of the keys, got a leaf of shape "
                    f"{list(jnp.shape(leaf))}"
                )


def _all_finite(tree: PyTree) -> jax.Array:
    reals = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(x)) for x in reals]))


def _run_chunk(build: Callable[[PyTree], Trainer], chunk: int) -> Callable:
    """`(state, hyperparams, count) → (state, (metrics [chunk], whether θ is finite [chunk]))` of one run."""

    def run_chunk(state: TrainState, hyperparams: PyTree, count: jax.Array):
        trainer = build(hyperparams)

        def update(state: TrainState):
            state, metrics = trainer.update(state)
            return state, (metrics, _all_finite(state.params))

        shapes = jax.eval_shape(update, state)[1]
        buffers = jax.tree.map(lambda x: jnp.zeros((chunk, *x.shape), x.dtype), shapes)

        def one(k, carry):
            state, buffers = carry
            state, found = update(state)
            return state, jax.tree.map(lambda buffer, x: buffer.at[k].set(x), buffers, found)

        return jax.lax.fori_loop(0, count, one, (state, buffers))

    return run_chunk


def _sizes(build: Callable[[PyTree], Trainer], hyperparams: PyTree) -> tuple[int, int]:
    """`num_episodes` and `group_size` of the trainers, which the hyper-parameters of a run cannot change."""
    found = []

    def look(one_hyperparams: PyTree) -> None:
        trainer = build(one_hyperparams)
        found.append((trainer.num_episodes, trainer.group_size))

    jax.eval_shape(look, jax.tree.map(lambda x: x[0], hyperparams))
    return found[0]


def train(
    build: Callable[[PyTree], Trainer],
    keys: jax.Array,
    hyperparams: PyTree = (),
    *,
    num_updates: int,
    chunk: int | None = None,
    mapping: RunMapping = "auto",
    devices: Sequence[Device] | int | None = None,
    deterministic: bool = True,
    on_chunk: Callable[[int, Metrics, TrainState], None] | None = None,
    states: TrainState | None = None,
) -> TrainingRun:
    """Trains S runs in one program, shared out over the devices, and looks at the host between chunks.

    Args:
        build: `hyperparams of one run → Trainer`; called while tracing, so that its numbers (a learning rate, γ, a
            decay) may differ from run to run without another compilation.
        keys: typed keys `[S]`, one per run.
        hyperparams: a pytree with leaves `[S]`.
        num_updates: U.
        chunk: updates between two returns to the host; U/20 if None.
        mapping: how a device goes through its runs: `"vmap"`, `"map"` (one run after another), or `"auto"`, map on CPUs
            and vmap elsewhere. Both draw the same random numbers. Their sums are rounded differently, though, and one
            action that falls otherwise makes another run of it: on CartPole they part after some sixty updates. Where
            the devices share the episodes, runs are always taken one after another.
        devices: the devices, or how many of this process's; all of them if None. Each trains ⌈S/D⌉ runs. Where S < D
            the devices share the episodes of one run after another, whole groups each, as far as their number allows.
            With `"map"` a run is the same bit for bit on however many; with `"vmap"` it is up to rounding, and so it is
            where episodes are shared and the estimator sums scores of single episodes (`per_parameter`, baselines that
            need scores, the natural norm).
        deterministic: whether devices that share episodes add up their gradients in an order that does not depend on
            how many they are. False saves the memory of up to eight gradients.
        on_chunk: called with the number of updates done, the chunk's metrics `[S, n]`, and the states; these are
            donated to the next chunk, so copy what is to be kept.
        states: go on from here instead of starting anew, also on another number of devices; `num_updates` more are
            made. Donated: not usable afterwards.

    Raises:
        NonFiniteError: if a run shows NaN or infinite rewards, gradients or parameters, its last included. The other
            runs are trained to their end first, and are in its `trained`; where no run is left, it comes after the
            chunk. What a failed run's metrics hold after its failure is NaN.
        ValueError: for a size below one, an unknown mapping, more devices than there are, or keys, hyper-parameters or
            states that are not S of each.
    """
    require_integer("num_updates", num_updates, 1, None)
    require_one_of("mapping", mapping, get_args(RunMapping))
    chunk = max(1, num_updates // 20) if chunk is None else min(chunk, num_updates)
    require_integer("chunk", chunk, 1, None)
    _require_runs(keys, hyperparams=hyperparams, states=states)
    start = time.perf_counter()
    shares = choose_layout(choose_devices(devices), len(keys), *_sizes(build, hyperparams), deterministic)
    hyperparams = shares.scatter(hyperparams)
    if states is None:
        initialise = shares.each(lambda key, one_hyperparams: build(one_hyperparams).init(key), mapping)
        current = shares.compiled(initialise, shares.scatter(keys), hyperparams)(shares.scatter(keys), hyperparams)
    else:
        current = shares.scatter(states)
    first = np.asarray(current.update)
    together = shares.each(_run_chunk(build, chunk), mapping, num_shared=1)
    compiled = shares.compiled(together, current, hyperparams, np.int32(chunk), donate_argnums=0)
    compile_seconds = time.perf_counter() - start

    parts, failed, seconds = [], {}, 0.0
    for done in range(0, num_updates, chunk):
        count = min(chunk, num_updates - done)
        start = time.perf_counter()
        # Waiting first: a failed allocation is then an exception, and not the end of the process.
        current, found = jax.block_until_ready(compiled(current, hyperparams, np.int32(count)))
        metrics, finite = jax.tree.map(lambda x: np.asarray(x)[: len(keys), :count], found)
        seconds += time.perf_counter() - start
        failed = _failures(metrics, finite, done, first) | failed
        parts.append(_blanked(metrics, failed, done))
        if len(failed) == len(keys):
            break
        if on_chunk is not None:
            on_chunk(done + count, parts[-1], shares.gather(current))
    metrics = {name: np.concatenate([part[name] for part in parts], axis=1) for name in parts[0]}
    trained = TrainingRun(
        states=shares.gather(current), metrics=metrics, compile_seconds=compile_seconds, seconds=seconds
    )
    if failed:
        raise _error(failed, trained)
    return trained
