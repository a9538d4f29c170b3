"""Measures of experts and of their copies, on the same starts, and their table.

Axes: S seeds, K copies of a seed.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import numpy as np

from experiments.harness import runner
from experiments.imitation.problems import Problem
from experiments.shared import ranges, references
from pgjax import diagnostics, environments, evaluation
from pgjax.diagnostics import Estimate
from pgjax.imitation import experts
from pgjax.types import Policy, PyTree

FROM_COPY = "policy gradient from the copy"
Values = dict[str, np.ndarray]


class Score(NamedTuple):
    """The evaluation of a problem on `num_episodes` starts that `key` decides.

    The measures are those of `shared.references`; the return is always among them.
    """

    problem: Problem
    key: jax.Array
    num_episodes: int

    @property
    def measures(self) -> tuple[references.Measure, ...]:
        return references.measures(self.problem.name)

    def _played(self, policy: Policy, params: PyTree) -> evaluation.Evaluation:
        return evaluation.evaluate(self.problem.environment, policy, params, self.key, num_episodes=self.num_episodes)

    def of(self, policy: Policy, params: PyTree = ()) -> dict[str, Estimate]:
        """Measure → its mean over episodes, with its interval."""
        found = self._played(policy, params)
        return {measure.name: measure.mean(found, self.problem.environment) for measure in self.measures}

    def copies(self, params: PyTree) -> Values:
        """Measure → its mean for each greedy copy `[S, K]`; `params` has leaves `[S, K, ...]`."""
        greedy = evaluation.greedy(self.problem.policy)
        shape = jax.tree.leaves(params)[0].shape[:2]
        values = {measure.name: np.full(shape, np.nan) for measure in self.measures}
        for place in np.ndindex(shape):
            found = self._played(greedy, jax.tree.map(lambda x: x[place], params))
            for measure in self.measures:
                values[measure.name][place] = float(measure.mean(found, self.problem.environment).value)
        return values

    def others(self) -> dict[str, dict[str, Estimate]]:
        """Random actions, the expert, and the reference controllers that are not the expert: name → measures."""
        problem, found = self.problem, {}
        found["random"] = self.of(environments.random_policy(problem.environment))
        if problem.expert is not None:
            found[problem.expert_name] = self.of(experts.as_policy(problem.expert))
        for name, (policy, params) in references.policies(problem.name, problem.environment).items():
            if name not in (references.RANDOM, problem.controller):
                found[name] = self.of(policy, params)
        return found


def of_expert(score: Score) -> dict[str, Estimate]:
    """The measures of the expert; the return alone, without an interval, for the episodes of a file."""
    problem = score.problem
    if problem.expert is not None:
        return score.of(experts.as_policy(problem.expert))
    value, stderr = problem.expert_return(score.num_episodes, score.key)
    return {"return": Estimate(value=value, stderr=stderr, low=np.nan, high=np.nan)}


def record(quantity: str, variant: str | None, found: Estimate, recorder: runner.Recorder) -> None:
    recorder.row(quantity=quantity, variant=variant, ours=float(found.value), stderr=float(found.stderr))


def cells(found: Estimate) -> tuple[str, str]:
    interval = runner.format_interval(float(found.low), float(found.high))
    return runner.format_number(float(found.value), float(found.stderr)), interval


def table(
    score: Score,
    others: Mapping[str, Mapping[str, Estimate]],
    learners: Mapping[str, Values],
    recorder: runner.Recorder,
) -> None:
    """The table of all policies: `others` with intervals over episodes, `learners` (values `[S]`) over seeds."""
    lines = []
    for measure in score.measures:
        bound = measure.optimum(score.problem.environment)
        shown = "" if bound is None else f"{bound:.6g}"
        lines += [(measure.name, name, *cells(found[measure.name]), shown) for name, found in others.items()]
        for name, values in learners.items():
            limits = measure.range(score.problem.environment)
            found = diagnostics.mean_interval(values[measure.name], bounds=limits)
            lines.append((measure.name, name, *cells(found), shown))
    headers = ["measure", "policy", "value ± s.e.", "95 % interval", "bound"]
    recorder.table("Copies beside their expert", headers, lines, numeric=headers[2:])


def compare(score: Score, expert: Mapping[str, Estimate], passed: Values, recorder: runner.Recorder) -> None:
    """Rows and a note: what the policy gradient gains over the expert, measure by measure, and in how many seeds."""
    words = []
    for measure in score.measures:
        sign = 1.0 if measure.larger_is_better else -1.0
        gain = passed[measure.name] - float(expert[measure.name].value)
        limits = ranges.differences(measure.range(score.problem.environment))
        found = diagnostics.mean_interval(gain, bounds=limits)
        record(f"{measure.name}: difference from the expert", FROM_COPY, found, recorder)
        better, seeds = int((sign * gain > 0).sum()), len(gain)
        words.append(
            f"{measure.name} {runner.format_number(float(found.value), float(found.stderr))}, better in {better} of "
            f"{seeds} seeds"
        )
    recorder.note(f"{FROM_COPY.capitalize()} minus the expert, on the same starts (± over seeds): {'; '.join(words)}.")
