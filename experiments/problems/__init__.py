"""The problems that motivate policy gradients: random actions, a reference controller, and policies from reward alone.

Claim    With its preset, `experiments.train` beats a controller written by hand on problems with the structure of real
         ones: driving between obstacles, swimming, recommending, advertising, and cooling.
Source   pgjax/environments; each environment names its own.
Command  python -m experiments.train --env navigation       (and --env swimmer, slates, ads, cooling, maze, ...)
         python -m experiments.problems                     (then; it trains nothing)
         python -m experiments.problems --runs results/train/RUN results/train/OTHER
Shows    For each finished run of `experiments.train`: its measures of random actions, of the reference controllers and
         of the trained policies, with intervals over seeds, the value of each seed, a bound where one is known, and the
         CPU time of one run. The figure shows how far each seed came between random actions (0) and the best reference
         controller (1).
Expect   With the presets every seed passes the best controller on slates, swimmer and navigation. On cooling every seed
         passes the PI loop, and four of five pass airflow matching. On ads the regret is a twelfth of that of random
         ads, and a little above that of the most viewed product. Reading takes a second.
Departs  The reference controllers know more than the policies: a model of the hall, or which beams are obstacles.
"""

import dataclasses
import pathlib

import numpy as np

from experiments.harness import runner
from experiments.problems import reading
from experiments.problems.reading import Line
from pgjax import diagnostics

RESULTS = pathlib.Path("results") / "train"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment."""

    runs: tuple[pathlib.Path, ...] = ()
    """The folders of finished runs of experiments.train. Without this option they are the latest complete run of each
    environment in results/train."""


def run(config: Config, recorder: runner.Recorder) -> list[Line]:
    with runner.usage_errors():
        folders = config.runs or reading.latest(RESULTS)
        lines = [line for folder in folders for line in reading.lines(folder)]
    if not lines:
        raise runner.UsageError(
            f"{RESULTS} holds no complete run of experiments.train that was compared with other policies; train first "
            "without --tiny, with one learning rate and with --references, or give --runs"
        )
    for line in lines:
        record(line, recorder)
    headers = ["problem", "measure", "random", "reference", "trained", "each seed", "bound", "CPU s a seed"]
    recorder.table("Problems", headers, [cells(line) for line in lines], numeric=headers[4:5])
    if few := diagnostics.few_runs(min(len(line.seeds) for line in lines), "seeds"):
        recorder.note(few)
    if weak := [line.problem for line in counting(lines) if np.isnan(reading.shares(line)).any()]:
        recorder.note(
            f"No reference controller is better than random actions on {', '.join(weak)}; the figure leaves it out."
        )
    recorder.note(
        "The number after ± is half the width of a 95 % interval: over episodes for random actions and controllers, "
        "over seeds for trained policies. In each problem all policies were evaluated on the same starts, which no "
        "training used. No policy passes the bound, and it may be out of reach."
    )
    return lines


def counting(lines: list[Line]) -> list[Line]:
    """The first measure of each problem that has reference controllers; this is the measure that counts."""
    return list({line.problem: line for line in reversed(lines) if line.references}.values())[::-1]


def record(line: Line, recorder: runner.Recorder) -> None:
    others = {"random": line.random} | line.references
    for name, found in others.items():
        recorder.row(quantity=f"{line.problem}: {line.measure}", variant=name, ours=found.value, stderr=found.stderr)
    recorder.row(
        quantity=f"{line.problem}: {line.measure}",
        variant="trained",
        ours=line.trained.value,
        stderr=line.trained.stderr,
        exact=line.bound,
        seconds=line.cpu_seconds,
    )


def cells(line: Line) -> tuple[str, ...]:
    """One line of the table."""
    references = "\n".join(f"{name}: {interval(found)}" for name, found in line.references.items())
    return (
        line.problem,
        line.measure,
        interval(line.random),
        references,
        interval(line.trained),
        "  ".join(f"{seed:.5g}" for seed in line.seeds),
        "" if line.bound is None else f"{line.bound:.5g}",
        "" if line.cpu_seconds is None else f"{line.cpu_seconds:.3g}",
    )


def interval(found: diagnostics.Estimate) -> str:
    """`1.2042 ± 0.0003`, half the width of the interval after the sign."""
    return runner.format_number(found.value, (found.high - found.low) / 2)


def plot(lines: list[Line], recorder: runner.Recorder) -> None:
    """The share of the way from random actions to the best reference controller, one dot for each seed."""
    from experiments.harness import plots

    first = {line.problem: line for line in counting(lines)}
    shares = {problem: reading.shares(line) for problem, line in first.items()}
    shares = {problem: share for problem, share in shares.items() if not np.isnan(share).any()}
    if not shares:
        return
    beaten = sum(bool((share > 1.0).all()) for share in shares.values())
    title = f"Every seed beats the best reference controller on {beaten} of {len(shares)} problems"
    caption = "Dots: seeds. Interval: 95 %, over seeds, of the mean."
    figure, axes = plots.figure(title, caption, width=7.5, height=1.2 + 0.55 * len(shares))
    colour_of = plots.colours(shares)
    for height, (problem, share) in enumerate(shares.items()):
        found = diagnostics.mean_interval(share)
        axes.plot(share, [height] * len(share), "o", color=colour_of[problem], alpha=0.6, label=f"_{problem}")
        half = float(found.high - found.low) / 2
        axes.errorbar(float(found.value), height, xerr=half, fmt="|", color=plots.INK, capsize=4)
    axes.set_yticks(range(len(shares)), [f"{name}: {first[name].measure}" for name in shares])
    axes.set_ylim(len(shares) - 0.5, -0.5)
    axes.set_xlabel("share of the way from random actions (0) to the best reference controller (1)")
    plots.reference_line(axes, 1.0, "reference", axis="x")
    recorder.figure(figure, "problems")
