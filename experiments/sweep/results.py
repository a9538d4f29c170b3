"""The results of a sweep: one record for each run, and what they say of each setting of each estimator."""

import csv
import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from experiments.shared import ranges
from experiments.shared.training import evaluating
from experiments.sweep.grid import Grid, word
from experiments.sweep.learning import Trained
from experiments.sweep.sizing import Problem
from pgjax import diagnostics
from pgjax.diagnostics import Estimate


class Result(NamedTuple):
    """One run.

    Attributes:
        estimator, setting, seed: its estimator, the number of its setting in the grid, and its seed.
        evaluated: the mean of the evaluated returns over episodes with its interval; NaN if the run failed.
        solved: the number of updates until it reached the threshold; infinite if it never did, NaN without a threshold.
        failure: the reason why it failed; empty if it did not.
    """

    estimator: str
    setting: int
    seed: int
    evaluated: Estimate
    solved: float
    failure: str


class Summary(NamedTuple):
    """The runs of one setting of one estimator; runs that failed count in `num_failed` only.

    Attributes:
        returns: the evaluated return of each seed, `[seeds]`; NaN for a failed run.
        mean: their mean with its t interval over seeds; NaN if all runs failed.
        solved: the updates of each seed until it reached the threshold, `[seeds]`.
        num_failed: the number of failed runs.
    """

    returns: np.ndarray
    mean: Estimate
    solved: np.ndarray
    num_failed: int


NOTHING = Estimate(value=math.nan, stderr=math.nan, low=math.nan, high=math.nan)


def limits(problem: Problem) -> ranges.Bounds:
    """The least and the greatest return of an episode of the evaluation."""
    options = next(iter(problem.options.values()))
    return ranges.returns(options["env"], problem.evaluated.horizon)


def evaluate(problem: Problem, grid: Grid, name: str, trained: Trained, solved: np.ndarray) -> list[Result]:
    """Evaluate every run of an estimator that did not fail, all on the same starts."""
    options = problem.options[name]
    evaluated, failures = evaluating.evaluate_runs(
        problem.evaluated,
        problem.policy,
        jax.device_get(trained.params),
        trained.failures,
        num_runs=grid.num_runs,
        seed=options["seed"],
        num_episodes=options["eval_episodes"],
    )
    found, bounds = [], limits(problem)
    for run in range(grid.num_runs):
        setting, seed = divmod(run, grid.num_seeds)
        of_run = evaluated.get(run)
        found.append(
            Result(
                estimator=name,
                setting=setting,
                seed=options["seed"] + seed,
                evaluated=NOTHING if of_run is None else diagnostics.within(of_run.estimate, bounds),
                solved=float(solved[run]),
                failure=failures.get(run, ""),
            )
        )
    return found


def summarise(results: Sequence[Result], name: str, grid: Grid, bounds: ranges.Bounds) -> list[Summary]:
    """The summary of each setting of an estimator; `bounds` are those of a return."""
    found = []
    for setting in range(len(grid.settings)):
        runs = [result for result in results if result.estimator == name and result.setting == setting]
        returns = np.array([run.evaluated.value for run in runs], float)
        good = returns[np.isfinite(returns)]
        mean = diagnostics.mean_interval(good, bounds=bounds) if len(good) else NOTHING
        solved = np.array([run.solved for run in runs])
        failed = sum(bool(run.failure) for run in runs)
        found.append(Summary(returns=returns, mean=mean, solved=solved, num_failed=failed))
    return found


def best_of(summaries: Sequence[Summary]) -> int | None:
    """The setting with the greatest mean return among those without failed runs, or among all if each has some."""
    whole = [n for n, summary in enumerate(summaries) if summary.num_failed == 0]
    among = whole or [n for n, summary in enumerate(summaries) if np.isfinite(summary.mean.value)]
    return max(among, key=lambda n: float(summaries[n].mean.value), default=None)


def difference(one: Summary, other: Summary) -> Estimate | None:
    """The mean of `one` minus `other` over the seeds that both finished, with its interval; None below two seeds."""
    differences = one.returns - other.returns
    differences = differences[np.isfinite(differences)]
    return diagnostics.mean_interval(differences) if len(differences) > 1 else None


def median_interval(values: np.ndarray, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of the median from order statistics, which may be infinite; NaN where too few values give none.

    P(X_(k) ≤ median ≤ X_(S+1−k)) = 1 − 2 P(Binomial(S, ½) < k) for any distribution; k is the largest number for which
    this is at least `confidence`. Six values are the fewest for 95 %.
    """
    count, ordered, tail, rank = len(values), np.sort(values), 0.0, 0
    while rank < count // 2:
        tail += math.comb(count, rank) / 2.0**count
        if 2 * tail > 1 - confidence:
            break
        rank += 1
    return (float(ordered[rank - 1]), float(ordered[count - rank])) if rank else (math.nan, math.nan)


def as_csv(results: Sequence[Result], grid: Grid) -> str:
    """One line for each run."""
    content, settings = io.StringIO(newline=""), grid.settings
    names = [word(name) for name in grid.values]
    columns = ["estimator", *names, "seed", "return", "stderr", "low", "high", "updates_to_threshold", "failure"]
    write = csv.writer(content)
    write.writerow(columns)
    cell = lambda x: "" if math.isnan(x) else repr(float(x))
    for run in results:
        values = [repr(value) for value in settings[run.setting].values()]
        numbers = [cell(float(x)) for x in (*run.evaluated, run.solved)]
        write.writerow([run.estimator, *values, run.seed, *numbers, run.failure])
    return content.getvalue()
