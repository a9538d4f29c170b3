"""From the folder of a run of `experiments.train` to lines of the table of problems."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import runs, saved_files
from experiments.shared import ranges, references
from pgjax import diagnostics, environments
from pgjax.diagnostics import Estimate


class Line(NamedTuple):
    """One measure of one problem.

    Attributes:
        problem: the name of the environment.
        measure: what is measured; the first measure of a problem is the one that counts.
        random: of random actions.
        references: of the reference controllers, by name.
        trained: the mean over seeds.
        seeds: the mean of each seed, `[S]`.
        bound: what no policy's mean passes, or None.
        cpu_seconds: the CPU time of the training of one seed, or None.
        larger_is_better: whether a larger value of the measure is the better one.
    """

    problem: str
    measure: str
    random: Estimate
    references: Mapping[str, Estimate]
    trained: Estimate
    seeds: np.ndarray
    bound: float | None
    cpu_seconds: float | None
    larger_is_better: bool


def latest(results: pathlib.Path) -> list[pathlib.Path]:
    """The folder of the latest complete run of each environment in `results`, in the order of their names."""
    newest: dict[str, pathlib.Path] = {}
    for path in sorted(results.glob("*/summary.json"), key=lambda path: path.stat().st_mtime):
        summary = runs.read_json(path)
        compared = any(row["variant"] == references.TRAINED for row in runs.rows(summary))
        if summary.get("status") == "complete" and not summary.get("tiny") and compared:
            newest[_options(path.parent)["env"]] = path.parent
    return [newest[name] for name in sorted(newest)]


def lines(folder: pathlib.Path) -> list[Line]:
    """The lines of a run, one for each measure.

    Raises:
        ValueError: the folder holds no finished run of `experiments.train` that was compared with other policies, or a
            measure that the environment does not have.
    """
    try:
        options = _options(folder)
        rows: list[Any] = list(runs.rows(saved_files.read_object(folder / "summary.json")))
    except ValueError as error:
        raise ValueError(
            f"--runs {folder}: must be the folder of a finished run of experiments.train; {error}"
        ) from error
    measured = dict.fromkeys(row["quantity"] for row in rows if row["variant"] == references.TRAINED)
    if not measured:
        raise ValueError(
            f"--runs {folder}: must be a run with one learning rate and with --references, which compares it with "
            "other policies"
        )
    cpu = next((row["seconds"] for row in rows if row["quantity"] == references.CPU_TIME), None)
    return [_line(options, name, [row for row in rows if row["quantity"] == name], cpu) for name in measured]


def shares(line: Line) -> np.ndarray:
    """(seed − random) / (best reference − random), `[S]`: 0 is random actions, and above 1 the reference is beaten.

    A seed that is worse than random actions has a negative share. If no reference is better than random actions, there
    is no way to share, and all shares are NaN.
    """
    sign = 1.0 if line.larger_is_better else -1.0
    best = max(sign * (found.value - line.random.value) for found in line.references.values())
    return sign * (line.seeds - line.random.value) / (best if best > 0 else np.nan)


def _options(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / "options.json"
    found = saved_files.read_object(path)
    saved_files.entries(found, path, env=str, eval_episodes=int)
    return found


def _line(options: Mapping[str, Any], measure: str, rows: Sequence[Mapping[str, Any]], cpu: float | None) -> Line:
    found = {row["variant"]: row for row in rows}
    if references.RANDOM not in found or len(found) < 3:
        raise ValueError(f"the run must compare {measure} with random actions and one other policy, got {list(found)}")
    trained = found.pop(references.TRAINED)
    seeds = np.array([row["ours"] for name, row in found.items() if name.startswith(references.ONE_RUN)], float)
    limits = _limits(options["env"], measure)
    others = {
        name: _estimate(row, options["eval_episodes"] - 1, limits)
        for name, row in found.items()
        if not name.startswith(references.ONE_RUN)
    }
    return Line(
        problem=options["env"],
        measure=measure,
        random=others.pop(references.RANDOM),
        references=others,
        trained=_estimate(trained, max(len(seeds) - 1, 1), limits),
        seeds=seeds,
        bound=trained["exact"],
        cpu_seconds=cpu,
        larger_is_better=_larger_is_better(options["env"], measure),
    )


def _larger_is_better(environment: str, measure: str) -> bool:
    directions = {known.name: known.larger_is_better for known in references.measures(environment)}
    if measure not in directions:
        raise ValueError(f"the measures of {environment} must be among {list(directions)}, but the run has {measure!r}")
    return directions[measure]


def _limits(environment: str, measure: str) -> ranges.Bounds:
    """The range in which the measure must lie; nothing is known of environments that pgjax and gymnax do not ship."""
    known = {one.name: one for one in references.measures(environment)}
    if ":" in environment.removeprefix("gymnax:") or measure not in known:
        return diagnostics.UNBOUNDED
    return known[measure].range(environments.make_shipped(environment))


def _estimate(row: Mapping[str, Any], freedom: int, limits: ranges.Bounds) -> Estimate:
    number = lambda name: np.nan if row[name] is None else float(row[name])
    return Estimate(*map(float, diagnostics.t_interval(number("ours"), number("stderr"), freedom, bounds=limits)))
