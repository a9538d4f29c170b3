"""Sweep estimators, hyper-parameters and seeds in one compiled program: which estimator is best, and at which value?

Claim    Estimators × seeds × values are one program: it is compiled once, all devices share its runs, and every run is
         bit for bit the run that `experiments.train` makes of the same options if only the learning rate varies.
Command  python -m experiments.sweep
         python -m experiments.sweep --env CartPole-v1 --estimators reinforce gpomdp rloo gpomdp_value gae
             --num-seeds 16 --vary lr=0.003,0.01,0.03,0.1
         python -m experiments.sweep --estimators gae ppo_gae --vary lr=0.003,0.01 --vary lambda=0.8,0.9,1   (a grid)
         python -m experiments.sweep --estimators rloo my_file:my_estimator --num-updates 100
         python -m experiments.sweep --dry-run                               (the options, the memory, and nothing else)
         python -m experiments.sweep --compare --no-cache     (the time of one program beside one for each estimator)
Shows    The evaluated return of each estimator and setting with its interval over seeds, the updates until the
         environment counts as solved, and the best setting of each estimator. runs.csv has one line for each run.
Expect   With the default options (320 runs of CartPole, seeds 0 to 15) rloo with lr 0.01 returns 500 in every run. Its
         latest 100 training episodes average 475 after 15.5 updates (median; 95 % interval 13 to 18), and gpomdp_value
         with lr 0.01 is as fast. gpomdp, gae and reinforce are best with lr 0.003: 488 ± 3, 486 ± 5 and 350 ± 40. With
         lr 0.1 no estimator returns more than 140. One program was compiled in 18 s of CPU time and five programs in
         41 s, and they gave the same parameters bit for bit. About 180 s of CPU time, all cores and compilation
         included.
Departs  All settings and estimators have the same seeds, so they are compared seed by seed. A sweep saves no
         checkpoints, so an interrupted one cannot be resumed; its metrics.jsonl holds the returns up to that moment.
         Estimators that do not fit into the memory together are trained one after another, and the run says so.
"""

import json

import jax
import numpy as np

from experiments.harness import interruption, runner
from experiments.shared import coinciding
from experiments.sweep import figures, learning, report, results, sizing
from experiments.sweep.grid import Grid, described
from experiments.sweep.options import TINY, Config

__all__ = ["TINY", "Config", "plot", "run"]

NOT_RESUMED = "A sweep cannot be resumed; metrics.jsonl and runs.csv hold what it has measured so far."


def run(config: Config, recorder: runner.Recorder) -> dict:
    with runner.usage_errors():
        problem, plan = sizing.problem(config), sizing.plan(config)
    interruption.current.last_words = NOT_RESUMED
    options = next(iter(problem.options.values()))
    grid, threshold = config.grid(), config.solved()
    if threshold is not None and not learning.can_solve(options):
        recorder.note(
            f"No column says when a run reaches {threshold:g}: that is a mean over {learning.EPISODES} training "
            f"episodes, and a run has {options['num_updates'] * options['num_episodes']} of them."
        )
        threshold = None
    recorder.say(
        f"{len(problem.builds)} estimators × {len(grid.settings)} settings × {grid.num_seeds} seeds = "
        f"{len(problem.builds) * grid.num_runs} runs"
    )
    if not plan.together:
        recorder.say(f"The estimators are trained one after another: {plan.reason}.")
    settings = [described(setting) for setting in grid.settings]
    recorder.write(
        "options.json", json.dumps({"settings": settings, "options": problem.options}, default=str, indent=2)
    )
    recorder.say("compiling…")
    curves, found, trained_of, prints = learning.Curves(grid, recorder), [], {}, {}
    try:
        for name, trained in learning.train(problem, grid, plan.together, curves, recorder):
            none = np.full(grid.num_runs, np.nan)
            solved = none if threshold is None else curves.solved(name, threshold)
            found += results.evaluate(problem, grid, name, trained, solved)
            prints[name] = coinciding.fingerprint(trained.params)
            trained_of[name] = trained if config.compare else trained._replace(params=())
            recorder.write("runs.csv", results.as_csv(found, grid))
    except interruption.Interrupted as error:
        error.add_note(NOT_RESUMED)
        raise
    failed = report.failures(found, grid)
    if all(result.failure for result in found):
        raise runner.UsageError(failed)
    summaries = {name: results.summarise(found, name, grid, results.limits(problem)) for name in problem.builds}
    report.report(summaries, grid, threshold, options["num_updates"], recorder)
    report.notes(summaries, grid, options, threshold, recorder)
    report.coincidences(prints, problem.options, recorder)
    report.report_times(list(trained_of.values()), plan.together, recorder)
    if config.compare:
        compare(problem, grid, plan.together, trained_of, recorder)
    if failed:
        recorder.failed(failed)
    drawn = {"found": summaries, "grid": grid, "env": problem.environment.name, "threshold": threshold}
    return drawn | {"num_updates": options["num_updates"]}


def compare(
    problem: sizing.Problem,
    grid: Grid,
    together: bool,
    first: dict[str, learning.Trained],
    recorder: runner.Recorder,
) -> None:
    """Train everything the other way, and report its times and whether it gave the same parameters."""
    second = dict(learning.train(problem, grid, not together, None, recorder))
    report.report_times(list(second.values()), not together, recorder)
    leaves = lambda trained: [np.asarray(x) for x in jax.tree.leaves(trained.params)]
    pairs = [pair for name in first for pair in zip(leaves(first[name]), leaves(second[name]), strict=True)]
    differing = sum(int(np.sum(~((x == y) | (np.isnan(x) & np.isnan(y))))) for x, y in pairs)
    total = sum(x.size for x, _ in pairs)
    recorder.note(f"One program and one for each estimator: {differing:,} of {total:,} final parameters differ.")


def plot(results: dict, recorder: runner.Recorder) -> None:
    """The evaluated return of each estimator over the values."""
    from experiments.harness import plots

    grid = results["grid"]
    seeds = f"Mean over {grid.num_seeds} seeds, {plots.bands(grid.num_seeds, 'seeds', 'intervals')}"
    caption = (
        f"{seeds}. Undiscounted returns of evaluation episodes after {results['num_updates']} updates. The points of "
        "the estimators are moved a little to the side, so that all intervals can be seen."
    )
    names = ("found", "grid", "env", "threshold")
    figures.draw(**{name: results[name] for name in names}, caption=caption, recorder=recorder)
