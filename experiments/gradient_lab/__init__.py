"""The gradient laboratory: every estimator against the exact gradient, and yours beside them.

Claim    The laboratory answers for every estimator: is it biased, by how much, how noisy is it, where does the noise
         come from, and how much does one step along it gain?
Command  python -m experiments.gradient_lab
         python -m experiments.gradient_lab --problem large --batch 16
         python -m experiments.gradient_lab --problem random --batch 4 --group-size 2
         python -m experiments.gradient_lab --estimator my_file:my_baseline
         python -m experiments.gradient_lab --estimator reinforce rloo gpomdp_value
         python -m experiments.gradient_lab --problem CartPole-v1 --policy trained
         python -m experiments.gradient_lab --checkpoint results/train/RUN/policy.safetensors
Shows    The bias and the mean squared error relative to the gradient, the total variance, the signal-to-noise ratio,
         the cosine of one estimate with the gradient, the noise scale (the number of episodes at which noise equals
         signal), and the gain of one step of the best size. These numbers are exact, by enumeration or dynamic
         programming, where the problem is tabular and small. They are also measured, with intervals, on the same
         episodes for all estimators. Without an oracle the estimates are compared with a large sample.
Expect   Every estimator has the bias that it states; the column “finding” checks this. Under a minute on two CPU cores.
Source   Greensmith et al. 2004 (baselines and variance); McCandlish et al. 2018 (noise scale); Tucker et al. 2018 (the
         parts of the variance); the source of each estimator is in its docstring.
Departs  A baseline sees twenty batches of the same policy, and then its state is kept fixed while the estimate is
         measured.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from experiments.gradient_lab import exact_part as lab_exact
from experiments.gradient_lab import laboratory, report, selection, sizing
from experiments.harness import runner
from experiments.shared import coinciding, problems
from pgjax import exact, registry
from pgjax.variance import decomposition


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the laboratory. The defaults give the results that experiments/README.md shows."""

    problem: str | None = None
    """The problem on which the estimators are measured. bandit, corridor, large, maze and random are tables of
    probabilities, so that an oracle knows their exact gradient. Every name of an environment is allowed too, and
    package.module:name for an environment of your own; that module is imported and its code runs."""
    policy: Literal["fresh", "random", "trained"] | None = None
    """The parameters θ of the policy. fresh takes the initial ones, random draws a table, trained trains it for
    --updates updates. random needs a tabular problem."""
    batch: int = 2
    """B, the number of episodes of one estimate."""
    group_size: int = 1
    """k, the number of consecutive episodes of an estimate that share a start, as the answers to one prompt do.
    Estimators that compare episodes (Dr. GRPO, GRPO, RLOO) then compare the episodes of a group. With 1 every episode
    has a start of its own, and these estimators compare all episodes of the batch."""
    estimator: tuple[str, ...] = ()
    """The estimators that are measured, by the names that `python -m experiments.estimators` lists; all of them if no
    name is given. A module:function adds an estimator of your own: that module is imported and its code runs. The
    function takes the policy and returns an Estimator, or takes nothing and returns a Baseline, which is subtracted
    from G_t."""
    checkpoint: pathlib.Path | None = None
    """A policy that experiments.train has saved, given by its file or by the folder of its run. It is measured in the
    environment in which it was trained."""
    env: str | None = None
    """The environment of the --checkpoint as package.module:name, if it is an environment of your own. That module is
    imported and its code runs."""
    episodes: int = 16384
    """The number of episodes on which all estimators are measured. Without an oracle a quarter of them is used."""
    updates: int = 10
    """The number of updates of training before the measurement, for --policy trained."""
    hidden: tuple[int, ...] = (32, 32)
    """The widths of the dense layers, if the policy is a network."""
    limit: int = 1_000_000
    """The largest number of batches that may be enumerated for exact moments."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def default_words(self, arguments: Sequence[str]) -> dict[str, str]:
        """What --help shows for the options that depend on another one."""
        del arguments
        return {"problem": "corridor", "policy": "random for a tabular problem, trained for every other"}

    BATCH: ClassVar[str] = "episodes"

    def memory(self) -> dict[str, float]:
        return sizing.memory(self)

    def validate(self) -> None:
        selection.check_names(self.estimator)
        runner.require(self.batch >= 1, "--batch", self.batch, "at least 1")
        fits = self.group_size >= 1 and self.batch % self.group_size == 0
        runner.require(fits, "--group-size", self.group_size, f"at least 1 and divide --batch {self.batch}")
        runner.require(self.episodes >= 40 * self.batch, "--episodes", self.episodes, "at least 40 batches")
        runner.require(self.episodes % self.batch == 0, "--episodes", self.episodes, "a multiple of --batch")
        runner.require_counts(self, "updates", least=0)
        runner.require_counts(self, "batch", "episodes", "limit", "hidden")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        for name in ("problem", "policy"):
            value = getattr(self, name)
            alone = not (self.checkpoint and value)
            runner.require(alone, f"--{name}", value, "left out with --checkpoint, which names its own")
        runner.require(
            self.env is None or self.checkpoint,
            "--env",
            self.env,
            "used together with --checkpoint; without it use --problem",
        )


TINY = Config(problem="bandit", episodes=256, estimator=("reinforce", "dr_grpo", "gpomdp_value"))
# The number of samples of the measured size whose mean is the reference gradient, if there is no oracle.
REFERENCE = 16
# The estimators in the figure over batch sizes.
FIGURED = ("reinforce", "reinforce_moving_average", "gpomdp_value", "gpomdp_leave_one_out", "grpo", "trajectory_wise")


def make_problem(config: Config) -> problems.Problem:
    """The problem and the policy that the options name, with their groups."""
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
    """The numbers of every estimator, the variance of some at several batch sizes, and the first one of the ratios."""
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
            f"There is no oracle: ∇ρ is the mean of {REFERENCE * count} other episodes, and its error is {share:.1%}."
        )
    elif gained:
        most = gained["∇ρ"][0]
        recorder.note(
            f"The best step along the exact gradient raises ρ by {most:.4g}, from ρ(θ) = {truth.objective:.5g}."
        )
    return lines, curves, first


def decompose(config: Config, problem: problems.Problem, recorder: runner.Recorder) -> None:
    """Record a table of the parts of the variance of ψ(S, A)(Ĝ − b): from the state, the action and the future."""
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
    selection.wanted(config.estimator)  # A name that cannot be imported is refused before any work.
    with recorder.timed("problem and policy"):
        problem = make_problem(config)
    lines, curves, first = measure(config, problem, recorder)
    report.record(problem.name, config.batch, first, lines, recorder, config.group_size)
    entries = {name: line.entry for name, line in lines.items()}
    for group in coinciding.groups({name: line.found.estimates for name, line in lines.items()}):
        recorder.note(coinciding.sentence(group, entries, {}, "estimate from every batch"))
    with recorder.timed("parts of the variance"):
        decompose(config, problem, recorder)
    return {"config": config, "problem": problem, "lines": lines, "curves": curves}


def plot(results: dict, recorder: runner.Recorder) -> None:
    config, lines, curves = results["config"], results["lines"], results["curves"]
    report.plot_plane(results["problem"].name, config.batch, lines, recorder, config.group_size)
    if curves:
        report.plot_batches(results["problem"].name, lines, curves, recorder)
