"""The trainings of a sweep: all estimators in one program, or one after another; what is kept of their updates."""

import time
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import interruption, runner
from experiments.shared.training import build as build_options
from experiments.sweep.grid import Grid
from experiments.sweep.sizing import Problem
from pgjax import training
from pgjax.types import PyTree

# An environment counts as solved by the mean return of as many episodes.
EPISODES = 100


class Trained(NamedTuple):
    """The S runs of one estimator.

    Attributes:
        params: the final θ, leaves `[S, ...]`.
        failures: run → the reason why it failed.
        compile_seconds, seconds: the times of the program that trained them, which may have trained others too.
        cpu_seconds: both in seconds of all cores together, which depend less on what else the machine does.
    """

    params: PyTree
    failures: dict[int, str]
    compile_seconds: float
    seconds: float
    cpu_seconds: float


class Curves:
    """The returns of all updates: written to the log as means over seeds, and kept to find when a run solves.

    Args:
        grid: the settings, which order the numbers of a line.
        recorder: the recorder of the run.
    """

    def __init__(self, grid: Grid, recorder: runner.Recorder):
        self._grid, self._recorder, self._began = grid, recorder, time.perf_counter()
        self._returns: dict[str, list[np.ndarray]] = {}
        self._counts: dict[str, list[np.ndarray]] = {}

    def hear(self, name: str, metrics: Mapping[str, np.ndarray]) -> float:
        """Keep and write the metrics `[S, n]` of the next n updates of an estimator. Return their mean return."""
        returns, counts = metrics["mean_return"], metrics["num_finished"]
        done = sum(part.shape[1] for part in self._returns.setdefault(name, []))
        self._returns[name].append(returns)
        self._counts.setdefault(name, []).append(counts)
        known = np.isfinite(returns) & (counts > 0)
        by_setting = lambda x: x.reshape(len(self._grid.settings), self._grid.num_seeds, -1).sum(axis=1)
        with np.errstate(invalid="ignore"):
            means = by_setting(np.where(known, returns, 0.0)) / by_setting(known)
        elapsed = time.perf_counter() - self._began
        for column in range(returns.shape[1]):
            line = {"update": done + column + 1, "elapsed_seconds": elapsed, "estimator": name}
            self._recorder.metrics(line | {"mean_return": means[:, column]})
        return float(returns[known].mean()) if known.any() else np.nan

    def solved(self, name: str, threshold: float) -> np.ndarray:
        """See `updates_to`, for the runs of an estimator; infinite if all runs failed before they were heard of."""
        if name not in self._returns:
            return np.full(self._grid.num_runs, np.inf)
        join = lambda parts: np.concatenate(parts[name], axis=1)
        return updates_to(threshold, join(self._returns), join(self._counts))


def can_solve(options: Mapping[str, Any]) -> bool:
    """Whether a run plays enough episodes for the mean that counts as solved; windows may end any number of them."""
    return options["num_steps"] is not None or options["num_updates"] * options["num_episodes"] >= EPISODES


def updates_to(threshold: float, returns: np.ndarray, counts: np.ndarray, episodes: int = EPISODES) -> np.ndarray:
    """The first update of each run whose latest episodes, at least `episodes` of them, average `threshold` or more.

    Args:
        returns: the mean return of the episodes of each update, `[S, U]`.
        counts: the number of these episodes, `[S, U]`.

    Returns:
        float `[S]`, counted from 1; infinite for a run that never gets there.
    """
    ended = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(counts, axis=1, dtype=np.float64)], axis=1)
    paid = np.where(counts > 0, returns, 0.0).astype(np.float64) * counts
    paid = np.concatenate([np.zeros((len(counts), 1)), np.cumsum(paid, axis=1)], axis=1)
    found = np.full(len(returns), np.inf)
    for run in range(len(returns)):
        # The shortest window that holds enough episodes begins after update `first`.
        first = np.searchsorted(ended[run], ended[run, 1:] - episodes, side="right") - 1
        now = np.arange(1, returns.shape[1] + 1)
        enough = first >= 0
        first = np.maximum(first, 0)
        with np.errstate(invalid="ignore", divide="ignore"):
            means = (paid[run, now] - paid[run, first]) / (ended[run, now] - ended[run, first])
        reached = np.flatnonzero(enough & (means >= threshold))
        found[run] = now[reached[0]] if len(reached) else np.inf
    return found


def train(
    problem: Problem, grid: Grid, together: bool, curves: Curves | None, recorder: runner.Recorder
) -> Iterator[tuple[str, Trained]]:
    """Train all runs of all estimators, and yield each estimator's when they are trained.

    Args:
        together: whether one program trains all estimators.
        curves: hears of all updates; None if the training is only timed.

    Raises:
        Interrupted: a signal has asked the sweep to stop.
    """
    first = next(iter(problem.options.values()))
    keys, values = grid.keys(first["seed"]), grid.hyperparams()
    groups = [problem.builds] if together else [{name: build} for name, build in problem.builds.items()]
    for builds in groups:
        count = grid.num_runs * len(builds)
        title = f"training {count} runs" + ("" if together else f" of {next(iter(builds))}")
        with recorder.progress(first["num_updates"], title, "updates") as progress:
            hear = _hearing(curves, progress)
            how = {"num_updates": first["num_updates"], "on_chunk": hear, "keep_metrics": False}
            start = time.process_time()
            try:
                made = _together(builds, keys, values, how) if together else _alone(problem, builds, keys, values, how)
            finally:
                interruption.current.deferred = False
        interruption.current.check()
        cpu_seconds = time.process_time() - start
        yield from ((name, _kept(run, failures, cpu_seconds)) for name, (run, failures) in made.items())


def _hearing(curves: Curves | None, progress: Any):
    """`(updates done, name → metrics, states)`, which is called after each chunk of updates."""

    def hear(done: int, heard: dict[str, dict[str, np.ndarray]], states: PyTree) -> None:
        del done, states
        means = [curves.hear(name, metrics) for name, metrics in heard.items()] if curves is not None else []
        ended = [mean for mean in means if np.isfinite(mean)]
        metrics = next(iter(heard.values()))
        progress.advance(metrics["mean_return"].shape[1], f"return {np.mean(ended):.4g}" if ended else "")
        interruption.current.check()
        # From now on Python waits for a chunk, and the signal is asked for after it.
        interruption.current.deferred = True

    return hear


Made = dict[str, tuple[training.TrainingRun, dict[int, str]]]  # the runs and the failures of each estimator


def _together(builds: Mapping[str, Any], keys: jax.Array, values: PyTree, how: dict[str, Any]) -> Made:
    failures: dict[str, dict[int, str]] = {}
    try:
        runs = training.train_together(builds, keys, values, chunk_seconds=build_options.CHUNK_SECONDS, **how)
    except training.FailedBuildsError as error:
        runs, failures = error.runs, {name: one.failures for name, one in error.errors.items()}
    return {name: (run, failures.get(name, {})) for name, run in runs.items()}


def _alone(problem: Problem, builds: Mapping[str, Any], keys: jax.Array, values: PyTree, how: dict[str, Any]) -> Made:
    ((name, build),) = builds.items()
    hear = how["on_chunk"]
    how = how | {"on_chunk": lambda done, metrics, states: hear(done, {name: metrics}, states)}
    failures: dict[int, str] = {}
    try:
        run = build_options.training_of(problem.environment, problem.policy)(build, keys, values, **how)
    except training.NonFiniteError as error:
        if error.trained is None:
            raise
        run, failures = error.trained, error.failures
    return {name: (run, failures)}


def _kept(run: training.TrainingRun, failures: Mapping[int, str], cpu_seconds: float) -> Trained:
    """What is kept of the runs. A sweep names a run by its setting and its seed, and not by its number."""
    texts = {number: text.replace(f" in run {number} at update", " at update") for number, text in failures.items()}
    times = {"compile_seconds": run.compile_seconds, "seconds": run.seconds, "cpu_seconds": cpu_seconds}
    return Trained(params=run.states.params, failures=texts, **times)
