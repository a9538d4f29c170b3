"""Training on environments that run on the host: episodes are played in Python, and each update learns in JAX."""

import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from pgjax import rollouts
from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.environments.foreign import HostEnvironment
from pgjax.training._chunks import joined
from pgjax.training.loop import require_runs
from pgjax.training.runs import Metrics, TrainingRun, all_finite, blanked, failed_runs, failures_in
from pgjax.training.trainer import Trainer, episode_metrics
from pgjax.types import Policy, PyTree, TrainState


@readable
def train_on_host(
    environment: HostEnvironment,
    policy: Policy,
    build: Callable[[PyTree], Trainer],
    keys: jax.Array,
    hyperparams: PyTree = (),
    *,
    num_updates: int,
    chunk: int = 1,
    on_start: Callable[[TrainState], None] | None = None,
    on_compiled: Callable[[], None] | None = None,
    on_chunk: Callable[[int, Metrics, TrainState], None] | None = None,
    keep_metrics: bool = True,
    states: TrainState | None = None,
) -> TrainingRun:
    """Train S runs on an environment of the host; it is `train` with `Trainer.learn` in place of `Trainer.update`.

    Each update plays `Trainer.num_episodes` complete episodes with `rollouts.host_episodes` and gives them to
    `Trainer.learn`; the episodes hold `behaviour_log_probs` if the reward stage needs them. The keys
    are those of `Trainer.update`, so a run continues as if it had not been interrupted. The runs take turns, and one
    compiled program learns for all of them.

    Args:
        environment: from `environments.from_gymnasium`.
        policy: the policy that the trainers train.
        build: `hyperparams of one run → Trainer`, made with this environment, without `num_steps` and `microbatches`,
            and with an estimator that needs no greedy episodes.
        keys: typed keys `[S]`, one per run.
        hyperparams: a pytree with leaves `[S]`.
        num_updates: U.
        chunk: the number of updates of each run between two calls of `on_chunk`.
        on_start, on_compiled, on_chunk, keep_metrics: as in `train`; `on_compiled` is called before the first update,
            which compiles.
        states: the states from which the runs continue; None starts new runs.

    Raises:
        NonFiniteError: as in `train`; a run that failed stops, and the others are trained to their end.
        ValueError: for a size below one, keys, hyper-parameters or states that do not have S rows, or a trainer with
            `num_steps`, `microbatches` above 1, or an estimator that needs greedy episodes.
    """
    require_integer("num_updates", num_updates, 1, None)
    require_integer("chunk", chunk, 1, None)
    require_runs(keys, hyperparams=hyperparams, states=states)
    start, num_runs = time.perf_counter(), len(keys)
    rows_of = lambda tree: [jax.tree.map(lambda x: x[run], tree) for run in range(num_runs)]
    one_each = rows_of(hyperparams)
    update = _make_update(environment, policy, build, one_each[0])
    init = jax.jit(lambda key, one_hyperparams: build(one_hyperparams).init(key))
    current = [init(*pair) for pair in zip(keys, one_each)] if states is None else rows_of(states)
    first = np.array([int(state.update) for state in current])
    if on_start is not None:
        on_start(_stacked(current))
    if on_compiled is not None:
        on_compiled()
    compile_seconds, start = time.perf_counter() - start, time.perf_counter()

    parts, failed, last = [], {}, {}
    for done in range(0, num_updates, chunk):
        count, found = min(chunk, num_updates - done), []
        for run in range(num_runs):
            for _ in range(count):
                # A run that failed plays no more episodes, because a θ that is not finite draws actions that no
                # environment takes. Its last metrics are repeated up to the end of the chunk, and `blanked` then
                # replaces their real numbers with NaN.
                if run not in failed and (run not in last or last[run][1]):
                    current[run], last[run] = update(current[run], one_each[run])
                found.append(last[run])
        stack = lambda *leaves: np.stack(leaves).reshape(num_runs, -1)
        metrics, finite = jax.tree.map(stack, *found)
        failed = failures_in(metrics, finite, done, first) | failed
        metrics = blanked(metrics, failed, done)
        if keep_metrics:
            parts.append(metrics)
        if len(failed) == num_runs:
            break
        if on_chunk is not None:
            on_chunk(done + count, metrics, _stacked(current))
    seconds = time.perf_counter() - start
    trained = TrainingRun(
        states=_stacked(current), metrics=joined(parts), compile_seconds=compile_seconds, seconds=seconds
    )
    if failed:
        raise failed_runs(failed, trained)
    return trained


def _make_update(
    environment: HostEnvironment, policy: Policy, build: Callable[[PyTree], Trainer], hyperparams: PyTree
) -> Callable[[TrainState, PyTree], tuple[TrainState, tuple[Metrics, np.ndarray]]]:
    """`(state, hyperparams) → (state, (metrics, whether θ is finite))`, one update of one run."""
    built = []
    jax.eval_shape(lambda given: built.append(build(given)), hyperparams)
    trainer = built[0]
    if trainer.only_update:
        raise ValueError(
            f"train_on_host must have a trainer that learns from one batch of complete episodes, but build gave one "
            f"with {' and '.join(trainer.only_update)}"
        )

    @jax.jit
    def learn(state: TrainState, one_hyperparams: PyTree, trajectory):
        state, more = build(one_hyperparams).learn(state, trajectory)
        return state, ({**episode_metrics(trajectory), **more}, all_finite(state.params))

    episode_keys = jax.jit(
        lambda state: jax.random.split(jax.random.fold_in(state.key, state.update), trainer.num_episodes)
    )

    def update(state: TrainState, one_hyperparams: PyTree):
        trajectory = rollouts.host_episodes(
            environment,
            policy,
            state.params,
            episode_keys(state),
            group_size=trainer.group_size,
            record_log_probs=trainer.record_log_probs,
        )
        state, found = learn(state, one_hyperparams, trajectory)
        return state, jax.device_get(found)

    return update


def _stacked(states: list[TrainState]) -> TrainState:
    """The states of all runs with leaves `[S, ...]`."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
