"""Trained policies beside random actions and reference controllers, on the same starts."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from experiments.harness import runner
from experiments.shared import ranges, references
from experiments.train.report import Evaluated, run_name
from pgjax import diagnostics
from pgjax.diagnostics import Estimate
from pgjax.types import Environment


def report(
    options: Mapping[str, Any],
    environment: Environment,
    evaluated: Evaluated,
    rates: np.ndarray,
    recorder: runner.Recorder,
) -> None:
    """Record rows and a table: every measure of the environment, of the references and of every trained policy."""
    key = jax.random.key(options["seed"] + 10_000)  # that of `report.evaluate_runs`: the same starts
    others = references.evaluate(options["env"], environment, key, options["eval_episodes"])
    lines = []
    for measure in references.measures(options["env"]):
        bound = measure.optimum(environment)
        of_others = {name: measure.mean(found, environment) for name, found in others.items()}
        of_runs = {run: measure.mean(found, environment) for run, found in evaluated.results.items()}
        limits = measure.range(environment)
        of_seeds = {name: _over(of_runs, runs, limits) for name, runs in _rates(options, rates, evaluated).items()}
        named = {references.ONE_RUN + run_name(options, rates, run): found for run, found in of_runs.items()}
        for name, found in (of_others | of_seeds | named).items():
            recorder.row(
                quantity=measure.name, variant=name, ours=float(found.value), stderr=float(found.stderr), exact=bound
            )
        each = "  ".join(runner.format_number(float(found.value), float(found.stderr)) for found in of_runs.values())
        shown = "" if bound is None else f"{bound:.6g}"
        lines += [(measure.name, name, *_cells(found), "", "") for name, found in of_others.items()]
        lines += [(measure.name, name, *_cells(found), each, shown) for name, found in of_seeds.items()]
    headers = ["measure", "policy", "value ± s.e.", "95 % interval", "each seed", "bound"]
    recorder.table("Beside other policies", headers, lines, numeric=headers[2:4])
    recorder.note(_reading(options, lines))


def _reading(options: Mapping[str, Any], lines: Sequence[Sequence[str]]) -> str:
    bounded = " No policy passes the bound, and it may be out of reach." if any(line[-1] for line in lines) else ""
    return (
        f"All policies were evaluated on the same {options['eval_episodes']} starts, which no training used. Trained "
        "policies sample their actions. The interval of a mean over seeds is over seeds, and that of another policy is "
        f"over episodes.{bounded}"
    )


def _rates(options: Mapping[str, Any], rates: np.ndarray, evaluated: Evaluated) -> dict[str, list[int]]:
    """The runs of each learning rate that did not fail, by the name of their mean in the table."""
    made = {}
    for rate in options["lr"]:
        name = references.TRAINED if len(options["lr"]) == 1 else f"{references.TRAINED}, lr {rate:g}"
        made[name] = [run for run in evaluated.results if rates[run] == np.float32(rate)]
    return {name: runs for name, runs in made.items() if runs}


def _over(of_runs: Mapping[int, Estimate], runs: Sequence[int], limits: ranges.Bounds) -> Estimate:
    return diagnostics.mean_interval(np.array([float(of_runs[run].value) for run in runs]), bounds=limits)


def _cells(found: Estimate) -> tuple[str, str]:
    interval = runner.format_interval(found.low, found.high)
    return runner.format_number(float(found.value), float(found.stderr)), interval
