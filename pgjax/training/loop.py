"""Many updates of many runs in one compiled program; between chunks of updates the host reads the metrics."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_typed_key, require_integer, require_one_of
from pgjax._doors import readable
from pgjax.training._chunks import Pace, joined
from pgjax.training.sharding import Device, RunMapping, choose_devices, choose_layout, spans_processes
from pgjax.training.trainer import Trainer
from pgjax.types import PyTree, TrainState

Metrics = dict[str, np.ndarray]

_PREFIX = "nonfinite_"  # metrics with this prefix count NaN and infinite numbers
# What may stop being finite, and where to look. The error names the first that fails in an update: the others follow.
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
        metrics: name → NumPy array `[S, U]`.
        compile_seconds: the time for initialising, tracing and compiling.
        seconds: the time for running the program, without compilation.
    """

    states: TrainState
    metrics: Metrics
    compile_seconds: float
    seconds: float


class NonFiniteError(ValueError):
    """Rewards, gradients, parameters or a loss became NaN or infinite.

    Attributes:
        failures: run → what stopped being finite, and at which update.
        trained: the `TrainingRun` of all runs, both those that failed and those that did not; None if the error comes
            from a `fit`, which has no runs.
    """

    def __init__(self, message: str, failures: dict[int, str] | None = None, trained: TrainingRun | None = None):
        super().__init__(message)
        self.failures = failures or {}
        self.trained = trained


class _Failure(NamedTuple):
    """Where a run failed: `column` is the column of that update in the metrics `[S, U]`."""

    column: int
    text: str


def failures_in(metrics: Metrics, finite: np.ndarray, done: int, first: np.ndarray) -> dict[int, _Failure]:
    """The runs in which something of this chunk is not finite, each with its first failure.

    Args:
        metrics: the metrics of the chunk, `[S, n]`.
        finite: bool `[S, n]`, whether θ is finite after each update.
        done: the number of updates before this chunk.
        first: the number of each run's first update, `[S]`; above 0 in a run that continues an earlier one.
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


def blanked(metrics: Metrics, failed: dict[int, _Failure], done: int) -> Metrics:
    """The metrics with NaN for every real number after a run failed: a policy whose θ is NaN still acts and is paid."""
    if jax.config.jax_debug_nans:  # pyright: ignore[reportAttributeAccessIssue]
        metrics = _with_nothing(metrics)
    if not failed:
        return metrics
    metrics = {name: np.array(x) for name, x in metrics.items()}
    for x in metrics.values():
        for run, failure in failed.items():
            if np.issubdtype(x.dtype, np.floating):
                x[run, max(0, failure.column + 1 - done) :] = np.nan
    return metrics


def _with_nothing(metrics: Metrics) -> Metrics:
    """The metrics with NaN for the means of no episode, which `jax_debug_nans` keeps out of the program."""
    none = metrics["num_finished"] == 0 if "num_finished" in metrics else False
    means = {name: np.where(none, np.nan, metrics[name]) for name in ("mean_return", "mean_length") if name in metrics}
    return {**metrics, **means}


def failed_runs(failed: dict[int, _Failure], trained: TrainingRun) -> NonFiniteError:
    """The error that names each failed run with its reason, and holds what was trained, for the caller to raise."""
    texts = {run: failure.text for run, failure in sorted(failed.items())}
    message, num_runs = "; ".join(texts.values()), len(trained.states.update)
    if num_runs > 1:
        others = "" if len(texts) == num_runs else " (the others are complete, in this error's `trained`)"
        message = f"{len(texts)} of {num_runs} runs failed{others}: {message}"
    return NonFiniteError(message, texts, trained)


def require_runs(keys: Any, **trees: PyTree) -> None:
    """Require typed keys `[S]`, and S rows in every leaf of the other arguments."""
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


def all_finite(tree: PyTree) -> jax.Array:
    """Whether every floating-point number in the tree is finite, bool `[]`; integers and keys do not count."""
    reals = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(x)) for x in reals]))


def make_init(build: Callable[[PyTree], Trainer]) -> Callable[[jax.Array, PyTree], TrainState]:
    """`(key, hyperparams) → state` of one run."""
    return lambda key, hyperparams: build(hyperparams).init(key)


def make_chunk(build: Callable[[PyTree], Trainer], chunk: int) -> Callable:
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


def sizes_of(build: Callable[[PyTree], Trainer], hyperparams: PyTree) -> tuple[int, int]:
    """`num_episodes` and `group_size` of the trainers; they cannot depend on the hyper-parameters of a run."""
    found = []

    def look(one_hyperparams: PyTree) -> None:
        trainer = build(one_hyperparams)
        found.append((trainer.num_episodes, trainer.group_size))

    jax.eval_shape(look, jax.tree.map(lambda x: x[0], hyperparams))
    return found[0]


@readable
def train(
    build: Callable[[PyTree], Trainer],
    keys: jax.Array,
    hyperparams: PyTree = (),
    *,
    num_updates: int,
    chunk: int | None = None,
    chunk_seconds: float | None = None,
    mapping: RunMapping = "auto",
    devices: Sequence[Device] | int | None = None,
    deterministic: bool = True,
    on_start: Callable[[TrainState], None] | None = None,
    on_chunk: Callable[[int, Metrics, TrainState], None] | None = None,
    keep_metrics: bool = True,
    states: TrainState | None = None,
) -> TrainingRun:
    """Train S runs in one program, which the devices share; the host reads the metrics between chunks of updates.

    Args:
        build: `hyperparams of one run → Trainer`. It is called while tracing, so its numbers (a learning rate, γ, a
            decay) may differ from run to run without another compilation.
        keys: typed keys `[S]`, one per run.
        hyperparams: a pytree with leaves `[S]`.
        num_updates: U.
        chunk: the number of updates between two returns to the host; None takes U/20. No number depends on it.
        chunk_seconds: a chunk then holds the updates of about so many seconds, at most `chunk` of them and at least
            one. The first chunks are shorter. All sizes share one compiled program. Of several processes that train
            together, all follow the clock of the first.
        mapping: how a device goes through its runs: `"vmap"`, `"map"` (one run after another), or `"auto"`, which is
            map on CPUs and vmap elsewhere. Both draw the same random numbers, but they round sums differently, and a
            single other action changes all that follows: on CartPole the two differ after some sixty updates. Devices
            that share episodes always take the runs one after another.
        devices: the devices, or how many of this process's devices; None takes all of them. Each trains ⌈S/D⌉ runs. If
            S < D, the devices share the episodes of one run after another, in whole groups, if the number of groups
            allows it. With `"map"` a run is bit for bit the same on any number of devices. With `"vmap"` it is the same
            up to rounding, as it is where devices share episodes and the estimator sums scores of single episodes
            (`per_parameter`, baselines that need scores, the natural norm).
        deterministic: whether devices that share episodes add up their gradients in an order that does not depend on
            the number of devices. False saves the memory of up to eight gradients. For a model of more than four
            million numbers the order is the same on one and two devices only.
        on_start: called with the states before the first update of this call, before the updates are compiled.
        on_chunk: called with the number of updates done, the chunk's metrics `[S, n]`, and the states. The states are
            donated to the next chunk, so copy what you keep.
        keep_metrics: whether the result holds the metrics. Without them a long run needs no more memory than a short
            one.
        states: the states from which the runs continue, on any number of devices; None starts new runs. `num_updates`
            more updates are made. The states are donated and cannot be used afterwards.

    Raises:
        NonFiniteError: if a run shows NaN or infinite rewards, gradients or parameters, also after its last update. The
            other runs are trained to their end first, and are in the error's `trained`; if all runs fail, the error
            comes after the chunk. The metrics of a failed run are NaN after its failure.
        ValueError: for a size below one, an unknown mapping, more devices than there are, or keys, hyper-parameters or
            states that do not have S rows.
    """
    require_integer("num_updates", num_updates, 1, None)
    require_one_of("mapping", mapping, get_args(RunMapping))
    require_runs(keys, hyperparams=hyperparams, states=states)
    start = time.perf_counter()
    shares = choose_layout(choose_devices(devices), len(keys), *sizes_of(build, hyperparams), deterministic)
    pace = Pace(num_updates, len(keys), chunk, chunk_seconds, together=spans_processes(shares.mesh.devices))
    hyperparams = shares.scatter(hyperparams)
    if states is None:
        initialise = shares.each(make_init(build), mapping)
        current = shares.compiled(initialise, shares.scatter(keys), hyperparams)(shares.scatter(keys), hyperparams)
    else:
        current = shares.scatter(states)
    first = np.asarray(current.update)
    if on_start is not None:
        on_start(shares.gather(current))
    together = shares.each(make_chunk(build, pace.most), mapping, num_shared=1)
    compiled = shares.compiled(together, current, hyperparams, np.int32(pace.most), donate_argnums=0)
    compile_seconds = time.perf_counter() - start

    parts, failed, seconds, done = [], {}, 0.0, 0
    while done < num_updates and len(failed) < len(keys):
        count = pace.size(num_updates - done)
        start = time.perf_counter()
        # Wait first, so that a failed allocation raises an exception here and does not end the process.
        current, found = jax.block_until_ready(compiled(current, hyperparams, np.int32(count)))
        metrics, finite = jax.tree.map(lambda x: np.asarray(x)[: len(keys), :count], found)
        took = time.perf_counter() - start
        seconds += took
        pace.took(count, took)
        failed = failures_in(metrics, finite, done, first) | failed
        metrics = blanked(metrics, failed, done)
        if keep_metrics:
            parts.append(metrics)
        done += count
        if on_chunk is not None and len(failed) < len(keys):
            on_chunk(done, metrics, shares.gather(current))
    trained = TrainingRun(
        states=shares.gather(current), metrics=joined(parts), compile_seconds=compile_seconds, seconds=seconds
    )
    if failed:
        raise failed_runs(failed, trained)
    return trained
