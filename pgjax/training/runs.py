"""What a training gives back: the states and the metrics of its runs, and which of them failed, when and why."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


class FailedBuildsError(NonFiniteError):
    """Runs of `train_together` became NaN or infinite.

    Attributes:
        errors: name of a build → the error that `train` raises for it; only builds with failed runs are in it.
        runs: name of a build → its `TrainingRun`; all builds are in it.
    """

    def __init__(self, errors: dict[str, NonFiniteError], runs: dict[str, TrainingRun]):
        super().__init__("; ".join(f"{name}: {error}" for name, error in errors.items()))
        self.errors, self.runs = errors, runs


class Failure(NamedTuple):
    """Where a run failed: `column` is the column of that update in the metrics `[S, U]`."""

    column: int
    text: str


Failures = dict[int, Failure]


def failures_in(metrics: Metrics, finite: np.ndarray, done: int, first: np.ndarray) -> Failures:
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
        found[run] = Failure(column=int(done + update), text=text)
    return found


def blanked(metrics: Metrics, failed: Failures, done: int) -> Metrics:
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


def all_finite(tree: PyTree) -> jax.Array:
    """Whether every floating-point number in the tree is finite, bool `[]`; integers and keys do not count."""
    reals = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.inexact)]
    return jnp.all(jnp.asarray([jnp.all(jnp.isfinite(x)) for x in reals]))


def failed_runs(failed: Failures, trained: TrainingRun) -> NonFiniteError:
    """The error that names each failed run with its reason, and holds what was trained, for the caller to raise."""
    texts = {run: failure.text for run, failure in sorted(failed.items())}
    message, num_runs = "; ".join(texts.values()), len(trained.states.update)
    if num_runs > 1:
        others = "" if len(texts) == num_runs else " (the others are complete, in this error's `trained`)"
        message = f"{len(texts)} of {num_runs} runs failed{others}: {message}"
    return NonFiniteError(message, texts, trained)
