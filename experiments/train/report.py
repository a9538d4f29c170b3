"""The report of `experiments.train` on trained policies: returns with intervals, the learning curve, an animation."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness import runner
from experiments.shared import ranges
from experiments.shared.training import evaluating, presets
from experiments.train import meter_figure
from pgjax import diagnostics, evaluation, registry
from pgjax.diagnostics import Estimate
from pgjax.environments import rendering
from pgjax.types import Environment, Policy, PyTree


class Evaluated(NamedTuple):
    """S runs after training.

    Attributes:
        results: run → its evaluation, for the runs that did not fail.
        failures: run → the reason why it failed, in training or in its evaluation.
    """

    results: dict[int, evaluation.Evaluation]
    failures: dict[int, str]

    @property
    def best(self) -> int:
        """The run of the greatest mean return."""
        return max(self.results, key=lambda run: self.results[run].mean)


def run_name(options: Mapping[str, Any], rates: np.ndarray, run: int) -> str:
    return f"lr {float(rates[run]):g}, seed {options['seed'] + run % options['num_seeds']}"


def evaluate_runs(
    options: Mapping[str, Any], environment: Environment, policy: Policy, params: PyTree, failures: Mapping[int, str]
) -> Evaluated:
    """Evaluate every run that has not failed, all on the same starts; `params` has leaves `[S, ...]`."""
    results, failures = evaluating.evaluate_runs(
        environment,
        policy,
        params,
        failures,
        num_runs=options["num_seeds"] * len(options["lr"]),
        seed=options["seed"],
        num_episodes=options["eval_episodes"],
    )
    return Evaluated(results=results, failures=failures)


def greedy_answers(
    options: Mapping[str, Any], environment: Environment, policy: Policy, params: PyTree, evaluated: Evaluated
) -> dict[int, Estimate]:
    """Run → the share of held-out prompts that the greedy policy answers without a fault.

    It is empty for an environment without held-out prompts, and otherwise holds the runs that did not fail.
    """
    if options["env"] not in presets.HELD_OUT:
        return {}
    key, found = jax.random.key(options["seed"] + 10_000), {}
    for run in evaluated.results:
        of_run = jax.tree.map(lambda x: x[run], params)
        result = evaluation.evaluate(
            environment, evaluation.greedy(policy), of_run, key, num_episodes=options["eval_episodes"]
        )
        found[run] = result.metrics["all_right"].final
    return found


def report_runs(
    options: Mapping[str, Any],
    environment: Environment,
    evaluated: Evaluated,
    right: Mapping[int, Estimate],
    rates: np.ndarray,
    seconds: float,
    recorder: runner.Recorder,
) -> None:
    """Record rows and a table: returns and `greedy_answers`, of every run and their means over seeds; then the metrics
    of the best run."""
    lines, results, limits = [], evaluated.results, ranges.returns(options["env"], environment.horizon)
    for rate in options["lr"]:
        means = [result.mean for run, result in results.items() if rates[run] == np.float32(rate)]
        if means:
            found = diagnostics.mean_interval(np.array(means), bounds=limits)
            lines.append(("evaluated return, mean over seeds", f"lr {rate:g}", found))
            _row(recorder, *lines[-1], seconds=seconds)
    for run in range(len(rates)):
        name = run_name(options, rates, run)
        found = diagnostics.within(results[run].estimate, limits) if run in results else None
        lines.append(("evaluated return", name, found))
        _row(recorder, *lines[-1])
    of_best = _metric_lines(results[evaluated.best], run_name(options, rates, evaluated.best))
    for line in (*_lines_of_answers(options, right, rates), *of_best):
        lines.append(line)
        _row(recorder, *line)
    _table(recorder, lines)
    recorder.note(how_to_read(options, len(results)))
    if few := diagnostics.few_runs(options["num_seeds"], "seeds"):
        recorder.note(few)
    for run, reason in evaluated.failures.items():
        recorder.note(f"{run_name(options, rates, run)} failed: {reason}.")


def report_cpu_time(seconds: float, budget: float | None, recorder: runner.Recorder) -> None:
    """Record the CPU time of one run, with its share of the compilation, and the preset's budget if it has one."""
    from experiments.shared import references  # it loads with all of imitation, which the start of a run does without

    recorder.row(quantity=references.CPU_TIME, variant="each run", seconds=seconds)
    of_budget = "" if budget is None else f" The budget of the preset is {budget} s."
    recorder.note(
        f"Training took {seconds:.3g} s of CPU time for each run, all cores and its share of the compilation "
        f"included.{of_budget}"
    )


def _lines_of_answers(
    options: Mapping[str, Any], right: Mapping[int, Estimate], rates: np.ndarray
) -> list[tuple[str, str, Estimate | None]]:
    """The shares of right answers: their mean over seeds for each learning rate, and that of each run."""
    quantity, lines = "held-out prompts answered right (greedy policy)", []
    for rate in options["lr"]:
        shares = [float(share.value) for run, share in right.items() if rates[run] == np.float32(rate)]
        if shares:
            found = diagnostics.mean_interval(np.array(shares), bounds=ranges.SHARE)
            lines.append((f"{quantity}, mean over seeds", f"lr {rate:g}", found))
    cut = lambda share: diagnostics.within(share, ranges.SHARE)
    return lines + [(quantity, run_name(options, rates, run), cut(share)) for run, share in right.items()]


def report_policy(
    name: str, environment: Environment, result: evaluation.Evaluation, recorder: runner.Recorder
) -> None:
    """Record rows and a table of one policy; `name` is what --env says."""
    limits = ranges.returns(name, environment.horizon)
    found = diagnostics.within(result.estimate, limits)
    lines = [("evaluated return", environment.name, found), *_metric_lines(result, environment.name)]
    for line in lines:
        _row(recorder, *line)
    _table(recorder, lines)


def failure_sentence(evaluated: Evaluated, options: Mapping[str, Any], rates: np.ndarray) -> str:
    """One line that names the failed runs; empty if there are none."""
    if not evaluated.failures:
        return ""
    reasons = "; ".join(f"{run_name(options, rates, run)}: {why}" for run, why in sorted(evaluated.failures.items()))
    kept = "; the others are evaluated, and the best policy among them is saved" if evaluated.results else ""
    return f"{len(evaluated.failures)} of {len(rates)} runs failed{kept}: {reasons}"


def _metric_lines(result: evaluation.Evaluation, run: str) -> list[tuple[str, str, Estimate]]:
    words = {"final": "at the end", "total": "sum over an episode", "mean": "mean over its steps"}
    return [
        (f"{name}, {words[kind]}", run, diagnostics.within(estimate, ranges.metric(name, kind)))
        for name, summary in result.metrics.items()
        for kind, estimate in summary._asdict().items()
    ]


def _row(
    recorder: runner.Recorder, quantity: str, run: str, estimate: Estimate | None, seconds: float | None = None
) -> None:
    if estimate is None:
        recorder.row(quantity=quantity, variant=run, verdict="not measured: the run failed")
    else:
        value, stderr = float(estimate.value), float(estimate.stderr)
        recorder.row(quantity=quantity, variant=run, ours=value, stderr=stderr, seconds=seconds)


def _table(recorder: runner.Recorder, lines: Sequence[tuple[str, str, Estimate | None]]) -> None:
    def cells(estimate: Estimate | None) -> tuple[str, str]:
        if estimate is None:
            return "failed", ""
        interval = runner.format_interval(estimate.low, estimate.high)
        return runner.format_number(float(estimate.value), float(estimate.stderr)), interval

    headers = ["quantity", "run", "value ± s.e.", "95 % interval"]
    made = [(quantity, run, *cells(estimate)) for quantity, run, estimate in lines]
    recorder.table("Evaluation", headers, made, numeric=headers[2:])


def how_to_read(options: Mapping[str, Any], num_runs: int) -> str:
    """A note on the meaning of ± and of the intervals, and on the choice of the saved policy."""
    episodes = options["eval_episodes"]
    if num_runs == 1:
        return (
            f"The number after ± is the standard error over {episodes} episodes. One run does not show how much the "
            "return differs between seeds."
        )
    over_seeds = " and that of a mean is over seeds" if options["num_seeds"] > 1 else ""
    return (
        f"The number after ± is a standard error: that of a run is over {episodes} episodes{over_seeds}. Intervals are "
        "those of Student's t, without the part where no return can lie. All runs were evaluated on the same starts. "
        f"policy.safetensors holds the best of the {num_runs} runs. It was chosen by these episodes, so they "
        "overestimate its return."
    )


class Drawn(NamedTuple):
    """What an animation shows: an episode of one policy."""

    options: Mapping[str, Any]
    environment: Environment
    policy: Policy
    params: PyTree


def draw(drawn: Drawn, recorder: runner.Recorder) -> None:
    """Draw an episode as an animation, if the environment can be drawn."""
    options, environment, policy, params = drawn
    if environment.render is None or not options["gif"]:
        return
    key = jax.random.key(options["seed"] + 20_000)
    recorder.animation(
        lambda path: rendering.save_gif(evaluation.frames(environment, policy, params, key), path), "policy.gif"
    )


def caption(options: Mapping[str, Any], num_failed: int = 0) -> str:
    from experiments.harness import plots

    seeds = options["num_seeds"]
    runs = f"Mean over {seeds} seeds, {plots.bands(seeds, 'seeds')}" if seeds > 1 else "One seed, so there is no band"
    failed = f"; failed runs that are left out: {num_failed}" if num_failed else ""
    windows = "; a window shows the episodes that ended in it, at first the short ones" if options["num_steps"] else ""
    return f"{runs}{failed}. Undiscounted returns of the training episodes{windows}."


def plot(results: dict, recorder: runner.Recorder) -> None:
    """The learning curve of the runs that did not fail, the noise of their gradients, and an animation."""
    if "curve" in results:
        draw_curve(results, recorder)
        meter_figure.draw(results["noise"], results["options"], recorder)
    draw(results["drawn"], recorder)


def draw_curve(results: dict, recorder: runner.Recorder) -> None:
    """The learning curve; each of its points is an interval of `thinning.Thinned`."""
    from experiments.harness import plots

    options, good, curve = results["options"], results["good"], results["curve"]
    updates, rates = np.array(curve.updates), results["rates"][good]
    returns, steps = (np.array(values).T[good] for values in (curve.returns, curve.steps))
    keep = np.isfinite(returns).all(axis=0)
    if not keep.any():
        recorder.note("There is no learning curve, because in no update an episode ended in every run.")
        return
    tenth = max(1, updates[-1] // 10)
    weights = np.broadcast_to(np.diff(updates, prepend=0), returns.shape)
    of_first, of_last = updates <= max(tenth, updates[0]), updates > updates[-1] - tenth
    first, last = (_mean_of_finite(returns[:, part], weights[:, part]) for part in (of_first, of_last))
    how = registry.find(options["estimator"]).label
    began = f"{first:.4g} in the first tenth of training, " if np.isfinite(first) else ""
    title = f"{options['env']}: return {began}{last:.4g} in the last{'' if began else ' tenth of training'} ({how})"
    num_failed = len(results["rates"]) - len(good)
    figure, axes = plots.figure(title, caption(options, num_failed), width=7.5)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of an episode")
    curves = {f"lr {rate:g}": returns[rates == np.float32(rate)][:, keep] for rate in options["lr"]}
    curves = {name: runs for name, runs in curves.items() if len(runs)}
    limits = ranges.returns(options["env"], results["drawn"].environment.horizon)
    plots.learning_curves(axes, steps.mean(axis=0).cumsum()[keep], curves, bounds=limits)
    recorder.figure(figure, "learning_curve")


def _mean_of_finite(values: np.ndarray, weights: np.ndarray) -> float:
    finite = np.isfinite(values)
    return np.average(values[finite], weights=weights[finite]) if finite.any() else np.nan
