"""Imitation: how many episodes of an expert it takes to copy it, and how to pass it afterwards.

Claim    Copying an expert is supervised learning, and a copy is as good as its data: on CartPole one episode shows too
         few states, and twenty episodes are enough. A copy is only as good as its expert, until a policy gradient goes
         on from the copy.
Source   Pomerleau 1989 (cloning); Ross, Gordon & Bagnell 2011 (DAgger); Laskey et al. 2017 (DART).
Command  python -m experiments.imitation
         python -m experiments.imitation --problem navigation          (or pendulum, maze, random_maze, cooling)
         python -m experiments.imitation --dataset expert.npz          (or a folder in Minari's layout; cloning alone)
         python -m experiments.train --start-from results/imitation/RUN/copy.safetensors             (train on from it)
Shows    A table of random actions, the expert, the copies against the number of the expert's episodes for cloning,
         DAgger and DART, and the policies that a policy gradient makes from the copies and from scratch, with 95 %
         intervals, all on the same starts. The figures show the copies, with a line at the expert, and how the policy
         gradient goes on. On CartPole the expert that is passed is a mediocre one. The first seed's copy is saved in
         `copy.safetensors`, and what became of it in `passed.safetensors`.
Expect   On CartPole a copy of 20 episodes reaches 475 or more, and a copy of one episode does not. On Pendulum a copy
         reaches the return of the controller within 5 %. On navigation a copy of 100 episodes arrives as often as the
         potential field (0.91 ± 0.04 against 0.890), and 300 updates take it to 0.992 ± 0.005, with shorter ways and a
         return of 11.28 ± 0.07 against 10.22, better in all five seeds; from scratch they reach 0.83 ± 0.09. On cooling
         a copy of 20 days has the PUE of the PI loop, 1.226, and 100 updates take it to 1.2089 ± 0.0007 and from 5 %
         of the time above 27 °C to 0, better in all five seeds; from scratch they reach 1.254. On maze the copies
         return −22 ± 3, and 200 updates take all ten seeds to the −13.82 of the best policy. On random_maze a copy of
         500 episodes leaves 0.36 ± 0.02 of new mazes, and 60 updates take it to 0.42 ± 0.05; the shortest way leaves
         all of them (± are 95 % intervals). One to two minutes on two CPU cores, compilation included.
Departs  Copies and the policies made from them are judged with greedy actions, as most experts act. The mediocre expert
         and its copy sample their actions. Every seed has expert episodes of its own, or an order of its own of the
         episodes in a file. At first only the value network of the policy gradient learns, so that the weights of an
         untrained one cannot move the copy.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from experiments.harness import runner
from experiments.imitation import copying, passing, problems, scoring
from experiments.imitation.plans import PLANS, Name, Plan
from pgjax import datasets, diagnostics
from pgjax.saving import policies

ALGORITHMS = ("cloning", "dagger", "dart")
# The options whose defaults depend on the problem.
PLANNED = ("algorithms", "episodes", "seeds", "epochs", "hidden", "eval_episodes", "pass_updates", "pass_seeds")


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    problem: Name = "cartpole"
    """The problem and its expert: cartpole has a trained policy, pendulum a hand-written swing-up controller, maze the
    best policy of a maze in which some moves slip, random_maze (a new maze for each episode, seen as a map) a search
    for the shortest way, navigation a potential field, cooling a PI loop on the fans."""
    dataset: pathlib.Path | None = None
    """A file with an expert's episodes, used instead of an expert: an .npz file of pgjax.datasets, or a folder in
    Minari's layout."""
    save_dataset: pathlib.Path | None = None
    """A new .npz file for the expert's episodes, as many as the largest of --episodes."""
    algorithms: tuple[str, ...] | None = None
    """The algorithms that are compared, among cloning, dagger and dart. With --dataset only cloning is possible,
    because dagger and dart ask the expert, and a file cannot answer."""
    episodes: tuple[int, ...] | None = None
    """The numbers of expert episodes that are copied, increasing."""
    rounds: int = 5
    """The number of rounds of DAgger and DART. Together the rounds use the largest number of --episodes."""
    seeds: int | None = None
    """The number of runs, each with data and initial parameters of its own."""
    epochs: int | None = None
    """The number of passes over the data in each fit."""
    batch_size: int = 256
    """The number of rows (observation and action) in a minibatch."""
    learning_rate: float = 0.003
    """The learning rate η of Adam in each fit."""
    hidden: tuple[int, ...] | None = None
    """The widths of the dense layers of the policy."""
    eval_episodes: int | None = None
    """The number of episodes of each evaluation. All copies are evaluated on the same starts."""
    pass_updates: int | None = None
    """The number of updates of the policy gradient that goes on from the copy; 0 leaves this part out."""
    pass_seeds: int | None = None
    """The number of runs of the policy gradient. They go on from the copies of the first seeds (cartpole: from copies
    of a mediocre expert)."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def default_words(self, arguments: Sequence[str]) -> dict[str, str]:
        """What --help shows for the options that depend on another one."""
        del arguments
        words = {}
        for name in PLANNED:
            of_problem = {problem: _shown(getattr(plan, name)) for problem, plan in PLANS.items()}
            usual = of_problem["cartpole"]
            others = [f"{shown} for {problem}" for problem, shown in of_problem.items() if shown != usual]
            words[name] = ", or ".join([usual, *others])
        words["algorithms"] += ", and cloning alone with --dataset"
        return words

    @property
    def plan(self) -> Plan:
        return PLANS[self.problem]

    def settled(self) -> "Config":
        """The options with their values: those that were left out are the problem's."""
        given = {name: value for name in PLANNED if (value := getattr(self, name)) is not None}
        planned = {name: getattr(self.plan, name) for name in PLANNED}
        if self.dataset is not None:
            planned |= {"algorithms": ("cloning",), "pass_updates": 0}
        settled = dataclasses.replace(self, **planned | given)
        if self.pass_seeds is None:
            settled = dataclasses.replace(settled, pass_seeds=min(settled.pass_seeds, settled.seeds))
        return settled

    def validate(self) -> None:
        settled = self.settled()
        sizes = settled.episodes
        runner.require(
            len(sizes) >= 1 and list(sizes) == sorted(set(sizes)) and sizes[0] >= 1,
            "--episodes", _shown(sizes), "one or more numbers, increasing, at least 1",
        )  # fmt: skip
        runner.require_counts(settled, "rounds")
        asks = set(settled.algorithms) - {"cloning"}
        divides = not asks or sizes[-1] % self.rounds == 0
        runner.require(divides, "--rounds", self.rounds, f"a divisor of {sizes[-1]}, the largest of --episodes")
        runner.require(settled.seeds >= 2, "--seeds", settled.seeds, "at least 2 (for an interval)")
        runner.require(settled.eval_episodes >= 2, "--eval-episodes", settled.eval_episodes, "at least 2")
        runner.require_counts(settled, "episodes", "seeds", "epochs", "batch_size", "hidden", "eval_episodes")
        runner.require_rate("--learning-rate", self.learning_rate)
        self._validate_files(settled)
        chosen = settled.algorithms
        known = 0 < len(chosen) == len(set(chosen)) and set(chosen) <= set(ALGORITHMS)
        runner.require(known, "--algorithms", _shown(chosen), f"among {', '.join(ALGORITHMS)}, each once")
        alone = self.dataset is None or chosen == ("cloning",)
        runner.require(
            alone, "--algorithms", _shown(chosen), "cloning with --dataset, because a file cannot answer questions"
        )
        self._validate_passing(settled)
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")

    def _validate_files(self, settled: "Config") -> None:
        if self.save_dataset is None:
            return
        runner.require(self.dataset is None, "--save-dataset", self.save_dataset, "left out with --dataset")
        free = self.save_dataset.parent.is_dir() and not self.save_dataset.exists()
        runner.require(free, "--save-dataset", self.save_dataset, "a new file in a folder that exists")

    def _validate_passing(self, settled: "Config") -> None:
        updates, ascent = settled.pass_updates, self.plan.ascent
        runner.require(updates >= 0, "--pass-updates", updates, "at least 0")
        if not updates:
            return
        runner.require(ascent is not None, "--pass-updates", updates, f"0 with --problem {self.problem}")
        runner.require(self.dataset is None, "--pass-updates", updates, "0 with --dataset")
        if self.problem != "cartpole":
            clones = "cloning" in settled.algorithms
            runner.require(clones, "--pass-updates", updates, "0 without cloning among --algorithms")
        most = settled.seeds if self.problem != "cartpole" else max(settled.seeds, 2)
        runner.require(
            2 <= settled.pass_seeds <= most,
            "--pass-seeds",
            settled.pass_seeds,
            f"from 2 to {most}, the number of --seeds",
        )


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


TINY = Config(
    problem="maze",
    episodes=(1, 2),
    rounds=2,
    seeds=2,
    epochs=2,
    hidden=(4,),
    eval_episodes=2,
    algorithms=("cloning", "dagger"),
    pass_updates=2,
)


def from_file(config: Config) -> problems.Problem:
    """The problem with the episodes of a file instead of an expert. Nobody can then be asked."""
    path = config.dataset
    with runner.usage_errors():
        data = datasets.load_minari(path) if path.is_dir() else datasets.load_npz(path)
        return problems.of_dataset(config.problem, data, config.hidden, config.episodes[-1])


def record(
    curves: dict[str, copying.Curve], expert: dict[str, diagnostics.Estimate], recorder: runner.Recorder
) -> dict[str, scoring.Values]:
    """Rows of the expert and of every copy; the lines of the table, name → values `[S]`."""
    for measure, found in expert.items():
        if np.isfinite(found.value):
            scoring.record(f"{measure} of the expert", None, found, recorder)
    lines = {}
    for name, curve in curves.items():
        for k, episodes in enumerate(curve.episodes):
            of_size = {measure: values[:, k] for measure, values in curve.values.items()}
            counted = f"{episodes} episode{'s' if episodes > 1 else ''}"
            for measure, values in of_size.items():
                found = diagnostics.mean_interval(values)
                scoring.record(f"{measure} of a copy of {counted}", name, found, recorder)
            if name == "cloning" or episodes == curve.episodes[-1]:
                lines[f"{name}, {counted}"] = of_size
    return lines


def save(config: Config, problem: problems.Problem, curves: dict, gone: dict | None, recorder: runner.Recorder) -> None:
    """Save the policies of the first seed, and the expert's episodes if a file for them is given."""
    files = {}
    if "cloning" in curves:
        files["copy.safetensors"] = curves["cloning"].params
    if gone is not None:
        files["passed.safetensors"] = gone[passing.COPY].params
    for name, params in files.items():
        first = jax.tree.map(lambda x: x[0], params)
        policies.save_policy(recorder.path(name), first, environment=problem.name, hidden=problem.hidden)
    if config.save_dataset is None:
        return
    labelled = jax.jit(problem.collect, static_argnums=1)(seed_keys(config)[0], config.episodes[-1])
    expert_return = problem.expert_return(config.eval_episodes, jax.random.key(config.seed + 10_000))[0]
    about = {"problem": config.problem, "seed": config.seed, "expert_return": expert_return}
    saved = datasets.from_trajectory(labelled.trajectory, expert_log_probs=labelled.log_probs, metadata=about)
    datasets.save_npz(config.save_dataset, saved)
    recorder.note(f"{config.save_dataset} holds {config.episodes[-1]} of the expert's episodes.")


def seed_keys(config: Config) -> jax.Array:
    return jax.random.split(jax.random.key(config.seed + 1), config.seeds)


def copies_of(
    config: Config, problem: problems.Problem, score: scoring.Score, recorder: runner.Recorder
) -> dict[str, copying.Curve]:
    """The copies of every algorithm."""
    fit = copying.Fitting(config.learning_rate, config.epochs, config.batch_size).of(problem)
    keys, curves = seed_keys(config), {}
    for name in config.algorithms:
        with recorder.timed(name):
            if name == "cloning":
                curves[name] = copying.clone(problem, fit, config.episodes, keys, score, recorder)
            else:
                most = config.episodes[-1]
                curves[name] = copying.ask(problem, fit, name, config.rounds, most, keys, score, recorder)
    return curves


def run(config: Config, recorder: runner.Recorder) -> dict:
    config = config.settled()
    with recorder.timed("expert"):
        fresh = lambda: problems.make_problem(config.problem, config.hidden, config.seed)
        problem = from_file(config) if config.dataset else fresh()
        score = scoring.Score(problem, jax.random.key(config.seed + 10_000), config.eval_episodes)
        others, expert = score.others(), scoring.of_expert(score)
    curves = copies_of(config, problem, score, recorder)
    lines = record(curves, expert, recorder)
    results = {"config": config, "curves": curves, "gone": None, "passed": None, "mediocre": None}
    results["expert"] = {measure: float(found.value) for measure, found in expert.items()}
    if config.pass_updates and config.problem != "cartpole":
        with recorder.timed("policy gradient"):
            gone, values = passing.pass_the_expert(config, score, curves["cloning"].params, recorder)
        lines |= {f"policy gradient {name}": of_measure for name, of_measure in values.items()}
        scoring.compare(score, expert, values[passing.COPY], recorder)
        results |= {"gone": gone, "passed": values}
    scoring.table(score, others, lines, recorder)
    if config.pass_updates and config.problem == "cartpole":
        with recorder.timed("passing a mediocre expert"):
            fitting = copying.Fitting(config.learning_rate, config.epochs, config.batch_size)
            results["gone"], results["mediocre"] = passing.pass_a_mediocre_expert(config, fitting, recorder)
    save(config, problem, curves, results["gone"], recorder)
    note(config, recorder)
    return results


def note(config: Config, recorder: runner.Recorder) -> None:
    """How to read the table."""
    recorder.note(
        f"± and the interval of copies are over {config.seeds} seeds"
        + (f", of the policy gradient over {config.pass_seeds}" if config.pass_updates else "")
        + f", each evaluated on the same {config.eval_episodes} starts; those of other policies are over episodes."
    )
    if few := diagnostics.few_runs(config.seeds, "seeds"):
        recorder.note(few)
    if config.problem in ("maze", "random_maze"):
        recorder.note("The expert is the best policy, so a copy can reach it and not pass it.")


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.imitation import drawing

    drawing.draw_all(results, recorder)
