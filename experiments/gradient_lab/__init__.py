"""The gradient laboratory: every estimator against the exact gradient, and yours beside them.

Claim    Of any estimator: is it biased, by how much, how noisy is it, where does the noise come from, does it help?
Command  python -m experiments.gradient_lab
         python -m experiments.gradient_lab --problem large --batch 16
         python -m experiments.gradient_lab --problem random --batch 4 --group-size 2
         python -m experiments.gradient_lab --estimator my_file:my_baseline
         python -m experiments.gradient_lab --estimator reinforce rloo gpomdp_value
         python -m experiments.gradient_lab --problem CartPole-v1 --policy trained
         python -m experiments.gradient_lab --checkpoint results/train/RUN/policy.safetensors
Shows    bias and mean squared error relative to the gradient, total variance, signal-to-noise ratio, cosine of one
         estimate with the gradient, noise scale (the batch in which noise and signal are alike), and the gain of one
         step of the best size. Exact by enumeration or dynamic programming where the problem is tabular and small, and
         measured with intervals from the same episodes for all; where there is no oracle, against a large sample.
Expect   Every estimator is what it says of itself; the verdict column checks. Under a minute on two CPU cores.
Source   Greensmith et al. 2004 (baselines and variance); McCandlish et al. 2018 (noise scale); Tucker et al. 2018 (the
         parts of the variance); each estimator's own source is in its docstring.
Departs  A baseline's state is frozen after twenty batches of the same policy: what is measured is the estimate.
"""

import dataclasses
import functools
import pathlib
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.gradient_lab import exact_part as lab_exact
from experiments.gradient_lab import laboratory, problems, report, selection
from experiments.harness import runner
from pgjax import exact, registry
from pgjax.variance import decomposition


@dataclasses.dataclass(frozen=True)
class Config:
    """Options; the defaults are what the README shows."""

    problem: str | None = None
    """corridor (if left open), bandit, maze, random, large: tabular, with an oracle; or any environment's name
    (one of your own, package.module:name, is imported and its code runs)."""
    policy: Literal["fresh", "random", "trained"] | None = None
    """The policy's θ: fresh, random (tables only, the default there) or trained (the default elsewhere)."""
    batch: int = 2
    """B, episodes of one estimate."""
    group_size: int = 1
    """k, consecutive episodes of an estimate that share a start, as the answers to one prompt do; the estimators that
    compare episodes (RLOO, GRPO, Dr. GRPO) then compare those of a group. 1: every start its own, and they compare the
    whole batch."""
    estimator: tuple[str, ...] = ()
    """Which estimators are measured, by the names that `python -m experiments.estimators` lists; all of them if no name
    is given. A module:function adds an estimator of your own: a function of the policy that returns an Estimator, or of
    nothing that returns a Baseline, which is subtracted from G_t. The module is imported and its code runs."""
    checkpoint: pathlib.Path | None = None
    """A policy that experiments.train has saved, its file or the folder of its run, in its environment."""
    env: str | None = None
    """The environment of the --checkpoint, where the file names none that pgjax ships; package.module:name is imported
    and its code runs."""
    episodes: int = 16384
    """Episodes that are measured, the same for all; without an oracle a quarter of them."""
    updates: int = 10
    """Updates of training before the measurement, for --policy trained."""
    hidden: tuple[int, ...] = (32, 32)
    """Widths of the networks, where the policy is one."""
    limit: int = 1_000_000
    """The most batches that are enumerated."""
    seed: int = 0
    """The seed of every random number."""

    def validate(self) -> None:
        selection.check_names(self.estimator)
        runner.require(self.batch >= 1, "--batch", self.batch, "at least 1")
        fits = self.group_size >= 1 and self.batch % self.group_size == 0
        runner.require(fits, "--group-size", self.group_size, f"at least 1 and divide --batch {self.batch}")
        runner.require(self.episodes >= 40 * self.batch, "--episodes", self.episodes, "at least 40 batches")
        runner.require(self.episodes % self.batch == 0, "--episodes", self.episodes, "a multiple of --batch")
        runner.require(self.updates >= 0, "--updates", self.updates, "at least 0")
        runner.require(self.limit >= 1, "--limit", self.limit, "at least 1")
        runner.require(all(width >= 1 for width in self.hidden), "--hidden", self.hidden, "at least 1 each")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        for name in ("problem", "policy"):
            value = getattr(self, name)
            alone = not (self.checkpoint and value)
            runner.require(alone, f"--{name}", value, "used without --checkpoint, which has its own")
        runner.require(self.env is None or self.checkpoint, "--env", self.env, "used with --checkpoint; see --problem")


TINY = Config(problem="bandit", episodes=256, estimator=("reinforce", "dr_grpo", "gpomdp_value"))
# Samples of the measured size that make the reference gradient, where there is no oracle.
REFERENCE = 16
# Those of the figure over batch sizes: one colour each.
FIGURED = ("reinforce", "reinforce_moving_average", "gpomdp_value", "gpomdp_leave_one_out", "grpo", "trajectory_wise")


def make_problem(config: Config) -> problems.Problem:
    """The problem, with the groups that the options ask for."""
    return _make_problem(config).in_groups(config.group_size)


def _make_problem(config: Config) -> problems.Problem:
    with runner.usage_errors():
        if config.checkpoint is not None:
            return problems.load_problem(config.checkpoint, config.env, config.hidden)
        name = config.problem or "corridor"
        policy = config.policy or ("random" if name in problems.TABULAR else "trained")
        return problems.make_problem(name, policy, config.seed, config.hidden, config.updates)


def measure(
    config: Config, problem: problems.Problem, recorder: runner.Recorder
) -> tuple[dict[str, report.Line], dict[str, list], str]:
    """Every estimator's numbers, the variance of some at several batch sizes, and whom the ratios compare with."""
    entries, left_out = selection.chosen(problem, config.batch, config.estimator)
    if left_out:
        recorder.note("Left out: " + "; ".join(f"“{name}” {reason}" for name, reason in left_out.items()) + ".")
    truth = problem.truth
    keys = jax.random.split(jax.random.key(config.seed + 1), 3)
    count = config.episodes if truth else max(config.episodes // 4, 40 * config.batch) // config.batch * config.batch
    greedy = laboratory.needs_greedy(problem, entries)
    episodes = laboratory.sample(problem, keys[0], count, greedy=greedy)
    warm = laboratory.sample(problem, keys[1], laboratory.WARM_BATCHES * config.batch, greedy=greedy)
    errors = np.zeros(ravel_pytree(problem.params)[0].shape)
    if truth is None:
        with recorder.timed(f"reference gradient, {REFERENCE * count} episodes"):
            entry = registry.ENTRIES["gpomdp_value"]
            gradient, errors = laboratory.large_sample(problem, entry, warm, keys[2], config.batch, count, REFERENCE)
    exact_target = lambda entry: truth.natural_gradient if entry.natural else truth.gradient
    target = lambda entry: jnp.asarray(gradient if truth is None else exact_target(entry), jnp.float32)
    with recorder.progress(len(entries), "measuring", "estimators") as progress:
        heard = lambda name: progress.advance(1, name)
        found, states = laboratory.measured(problem, entries, episodes, warm, config.batch, target, heard)
    figured = {name: entry for name, entry in entries.items() if entry.name in FIGURED or entry.is_own}
    with recorder.timed("variance against batch size"):
        curves = laboratory.against_batch(problem, figured, episodes, warm, found, config.batch)
    first, ratios = laboratory.paired_ratios(entries, found)
    known, gained = {}, {}
    if truth is not None:
        with recorder.timed("exact moments"):
            known = lab_exact.exact_moments(problem, entries, states, config.batch, config.limit, recorder.say)
        with recorder.timed("gain of one step"):
            gained = laboratory.gains(problem, found)
    lines = {
        name: report.Line(
            entry=entry,
            exact=known.get(name),
            found=found[name],
            target=np.asarray(target(entry), np.float64) if truth is None else exact_target(entry),
            reference_errors=errors,
            ratio=ratios.get(name),
            gain=gained.get(name),
        )
        for name, entry in entries.items()
    }
    if truth is None:
        share = errors.sum() ** 0.5 / np.linalg.norm(gradient)
        recorder.note(
            f"No oracle: ∇ρ is the mean of {REFERENCE * count} other episodes, its own error {share:.1%} of its length."
        )
    elif gained:
        most = gained["∇ρ"][0]
        recorder.note(f"One step along the exact gradient gains {most:.4g}; ρ(θ) = {truth.objective:.5g}.")
    return lines, curves, first


def decompose(config: Config, problem: problems.Problem, recorder: runner.Recorder) -> None:
    """Where the variance of one step's ψ(S, A)(Ĝ − b) comes from: the state, the action, the rest of the episode."""
    title = "Where the variance of one step's estimate comes from"
    if problem.truth is None:
        found = decomposition.variance_decomposition(
            problem.environment, problem.policy, problem.params, jax.random.key(config.seed + 2), 1024
        )
        number = lambda x: runner.format_number(float(x.value), float(x.stderr))
        cells = [["Gₜ", *map(number, (found.state, found.action, found.trajectory, found.total))]]
    else:
        with jax.enable_x64(True):
            params = jax.tree.map(lambda x: jnp.asarray(np.asarray(x, np.float64)), problem.params)
            # One program: compiled one by one, some hundred operations would leave more memory behind than they need.
            found = jax.jit(functools.partial(_parts_of_variance, problem.policy.apply))(
                params, problem.parts.oracle.mdp
            )
            parts = {name: (x.state, x.action, x.trajectory, x.total) for name, x in found.items()}
            cells = [[name, *(f"{float(x):.4g}" for x in numbers)] for name, numbers in parts.items()]
    recorder.table(title, ["Ĝ − b", "Σ state", "Σ action", "Σ future", "total"], cells)


def _parts_of_variance(apply, params, mdp: exact.TabularMDP) -> dict[str, exact.VarianceDecomposition]:
    values = exact.state_values(mdp, exact.policy_probabilities(apply, params, mdp))[:-1]
    options = {
        "Gₜ": {},
        "Gₜ − Vₜ(Xₜ)": {"baseline": values},
        "Qₜ(Xₜ, Aₜ) − Vₜ(Xₜ)": {"baseline": values, "estimate": "action_value"},
        "all actions, Qₜ": {"estimate": "all_action"},
    }
    return {name: exact.variance_decomposition(apply, params, mdp, **chosen) for name, chosen in options.items()}


def run(config: Config, recorder: runner.Recorder) -> dict:
    selection.wanted(config.estimator)  # what cannot be imported is refused before any work
    with recorder.timed("problem and policy"):
        problem = make_problem(config)
    lines, curves, first = measure(config, problem, recorder)
    report.record(problem.name, config.batch, first, lines, recorder, config.group_size)
    with recorder.timed("parts of the variance"):
        decompose(config, problem, recorder)
    return {"config": config, "problem": problem, "lines": lines, "curves": curves}


def plot(results: dict, recorder: runner.Recorder) -> None:
    config, lines, curves = results["config"], results["lines"], results["curves"]
    report.plot_plane(results["problem"].name, config.batch, lines, recorder, config.group_size)
    if curves:
        report.plot_batches(results["problem"].name, lines, curves, recorder)
