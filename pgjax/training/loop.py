"""Many updates of many runs in one compiled program; between chunks of updates the host reads the metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import jax.numpy as jnp

from pgjax._checks import is_typed_key, require_integer, require_one_of
from pgjax._doors import readable
from pgjax.training import _program
from pgjax.training._chunks import Pace
from pgjax.training.runs import FailedBuildsError, Metrics, TrainingRun, failed_runs
from pgjax.training.sharding import Device, RunMapping, spans_processes
from pgjax.training.trainer import Trainer
from pgjax.types import PyTree, TrainState

_ONLY = "build"  # the name of the one build of `train`


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
    on_compiled: Callable[[], None] | None = None,
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
            (`per_parameter`, baselines that need scores, the natural norm) or solves for a natural gradient, whose
            search amplifies rounding.
        deterministic: whether devices that share episodes add up their sums in an order that does not depend on the
            number of devices. Then 2, 4 or 8 devices can share them, and every device receives the rewards and the
            masks of all episodes and up to eight gradients. For a model of more than four million numbers the order is
            the same on one and two devices only. With False any number of devices that divides the groups can share
            the episodes; they exchange one sum of gradients, and the last bits depend on their number.
        on_start: called with the states before the first update of this call, before the updates are compiled.
        on_compiled: called when the updates are compiled, before the first of them. Several processes can wait here for
            the slowest compiler, because their first exchange has a limit of time. With `jax_debug_nans` the first
            update compiles, and this is called before it.
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
    require_one_of("mapping", mapping, get_args(RunMapping))
    require_runs(keys, hyperparams=hyperparams, states=states)
    require_integer("num_updates", num_updates, 1, None)
    builds = {_ONLY: build}
    layout = _program.layout_of(builds, hyperparams, len(keys), devices, deterministic)
    how = _program.How(
        pace=Pace(num_updates, len(keys), chunk, chunk_seconds, together=spans_processes(layout.mesh.devices)),
        mapping=mapping,
        layout=layout,
        on_start=None if on_start is None else lambda states: on_start(states[_ONLY]),
        on_compiled=on_compiled,
        on_chunk=None if on_chunk is None else lambda done, heard, states: on_chunk(done, heard[_ONLY], states[_ONLY]),
        keep_metrics=keep_metrics,
    )
    given = None if states is None else {_ONLY: states}
    trained, failed = _program.run(builds, keys, hyperparams, num_updates, given, how)
    if failed[_ONLY]:
        raise failed_runs(failed[_ONLY], trained[_ONLY])
    return trained[_ONLY]


def _unshared(tree: PyTree) -> PyTree:
    """The tree with a copy of each array that occurs in it again, because no array can be donated twice."""
    seen: set[int] = set()

    def own(x: jax.Array) -> jax.Array:
        known = id(x) in seen
        seen.add(id(x))
        return jnp.copy(x) if known else x

    return jax.tree.map(own, tree)


@readable
def train_together(
    builds: Mapping[str, Callable[[PyTree], Trainer]],
    keys: jax.Array,
    hyperparams: PyTree = (),
    *,
    num_updates: int,
    chunk: int | None = None,
    chunk_seconds: float | None = None,
    mapping: RunMapping = "auto",
    devices: Sequence[Device] | int | None = None,
    deterministic: bool = True,
    on_start: Callable[[dict[str, TrainState]], None] | None = None,
    on_compiled: Callable[[], None] | None = None,
    on_chunk: Callable[[int, dict[str, Metrics], dict[str, TrainState]], None] | None = None,
    keep_metrics: bool = True,
    states: Mapping[str, TrainState] | None = None,
) -> dict[str, TrainingRun]:
    """Train S runs of each of several builds, such as several estimators, in one compiled program.

    Each build is given the same keys and hyper-parameters, so run s of one build is paired with run s of another. Every
    run is bit for bit the run that `train` gives for its build alone with `mapping="map"`; with `"vmap"` it is the same
    up to rounding. The states of all builds are in memory together, and one build after the other makes its updates.

    Args:
        builds: name → build, a function `hyperparams of one run → Trainer` as in `train`.
        keys, hyperparams: as in `train`, the same for all builds.
        num_updates, chunk, chunk_seconds, mapping, devices, deterministic, keep_metrics: as in `train`. A chunk makes
            as many updates of every build.
        on_start: called with name → states, as in `train`.
        on_compiled: as in `train`.
        on_chunk: called with the number of updates done, name → metrics `[S, n]`, and name → states.
        states: name → the states from which the runs of this build continue.

    Returns:
        name → its `TrainingRun`. `compile_seconds` and `seconds` are those of the whole program, the same for all.

    Raises:
        FailedBuildsError: if a run shows NaN or infinite numbers, as in `train`. All other runs of all builds are
            trained to their end first.
        ValueError: for arguments that `train` refuses; without a build; for states of other builds; or if devices share
            the episodes of one build and not of another, which needs fewer runs than devices.

    Example: two estimators, each with two seeds.

        >>> import jax, optax
        >>> from pgjax import baselines, environments, estimators, networks, training
        >>> environment = environments.make("corridor", horizon=8)
        >>> policy = networks.make_policy(environment, hidden=(4,))
        >>> def build_with(baseline):
        ...     estimator = estimators.make_estimator(policy, baseline=baseline)
        ...     return lambda rate: training.make_trainer(
        ...         environment, policy, estimator, optax.adam(rate), num_episodes=4)
        >>> builds = {"none": build_with(None), "rloo": build_with(baselines.leave_one_out())}
        >>> keys, rates = jax.random.split(jax.random.key(0), 2), jax.numpy.array([0.01, 0.1])
        >>> runs = training.train_together(builds, keys, rates, num_updates=3, devices=1)
        >>> {name: run.metrics["mean_return"].shape for name, run in runs.items()}
        {'none': (2, 3), 'rloo': (2, 3)}
    """
    if not builds:
        raise ValueError("builds must have at least one name → build, got none")
    if states is not None and set(states) != set(builds):
        raise ValueError(f"states must have the names of the builds, {', '.join(builds)}, got {', '.join(states)}")
    require_one_of("mapping", mapping, get_args(RunMapping))
    require_runs(keys, hyperparams=hyperparams, **{f"states of {n}": tree for n, tree in (states or {}).items()})
    require_integer("num_updates", num_updates, 1, None)
    layout = _program.layout_of(builds, hyperparams, len(keys), devices, deterministic)
    num_runs, spans = len(keys) * len(builds), spans_processes(layout.mesh.devices)
    how = _program.How(
        pace=Pace(num_updates, num_runs, chunk, chunk_seconds, together=spans),
        mapping=mapping,
        layout=layout,
        on_start=on_start,
        on_compiled=on_compiled,
        on_chunk=on_chunk,
        keep_metrics=keep_metrics,
    )
    given = None if states is None else _unshared(dict(states))
    trained, failed = _program.run(builds, keys, hyperparams, num_updates, given, how)
    errors = {name: failed_runs(of_build, trained[name]) for name, of_build in failed.items() if of_build}
    if errors:
        raise FailedBuildsError(errors, trained)
    return trained
