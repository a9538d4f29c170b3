"""Imitation: how many episodes of an expert it takes to copy it, and how to pass it afterwards.

Claim    Copying an expert is supervised learning, and a copy is as good as its data: on CartPole one episode shows too
         few states, and twenty episodes are enough. A copy is only as good as its expert, until REINFORCE goes on from
         the copy.
Source   Pomerleau 1989 (cloning); Ross, Gordon & Bagnell 2011 (DAgger); Laskey et al. 2017 (DART).
Command  python -m experiments.imitation
         python -m experiments.imitation --problem pendulum
         python -m experiments.imitation --problem maze
         python -m experiments.imitation --dataset expert.npz          (or a folder in Minari's layout; cloning alone)
Shows    The return of the copy against the number of the expert's episodes, for cloning, DAgger and DART, with a line
         at the return of the expert. On CartPole also a copy of a mediocre expert, which REINFORCE then improves
         beyond the expert.
Expect   On CartPole a copy of 20 episodes reaches 475 or more, and a copy of one episode does not. On Pendulum a copy
         reaches the return of the controller within 5 %. Half a minute (maze) to two and a half minutes on two CPU
         cores, compilation included.
Departs  Copies are judged with greedy actions, as the experts act. The mediocre expert and its copy sample their
         actions. Every seed has expert episodes of its own, or an order of its own of the episodes in a file.
"""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner
from experiments.imitation import problems
from pgjax import datasets, diagnostics, estimators, evaluation, imitation, rollouts, training

ALGORITHMS = ("cloning", "dagger", "dart")


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    problem: Literal["cartpole", "pendulum", "maze"] = "cartpole"
    """The problem and its expert: cartpole has a trained policy, pendulum a hand-written swing-up controller, maze the
    best policy of a maze in which some moves slip."""
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
    seeds: int = 20
    """The number of runs, each with data and initial parameters of its own."""
    epochs: int = 40
    """The number of passes over the data in each fit."""
    batch_size: int = 256
    """The number of rows (observation and action) in a minibatch."""
    learning_rate: float = 0.003
    """The learning rate η of Adam in each fit."""
    hidden: tuple[int, ...] = (64, 64)
    """The widths of the dense layers of the policy."""
    eval_episodes: int = 50
    """The number of episodes of each evaluation. All copies are evaluated on the same starts."""
    pass_updates: int = 60
    """The number of updates of REINFORCE from the copy of a mediocre expert, for cartpole; 0 leaves this part out."""
    seed: int = 0
    """The seed of every random number in this experiment."""

    def default_words(self, arguments: Sequence[str]) -> dict[str, str]:
        """What --help shows for the options that depend on another one."""
        del arguments
        return {
            "algorithms": "cloning dagger dart, or cloning alone with --dataset",
            "episodes": "1 2 5 10 20, or 5 10 20 50 100 for pendulum",
        }

    def chosen(self) -> tuple[str, ...]:
        default = ALGORITHMS if self.dataset is None else ("cloning",)
        return default if self.algorithms is None else self.algorithms

    def sizes(self) -> tuple[int, ...]:
        default = (5, 10, 20, 50, 100) if self.problem == "pendulum" else (1, 2, 5, 10, 20)
        return default if self.episodes is None else self.episodes

    def validate(self) -> None:
        sizes = self.sizes()
        shown = " ".join(map(str, sizes))
        runner.require(
            len(sizes) >= 1 and list(sizes) == sorted(set(sizes)) and sizes[0] >= 1,
            "--episodes", shown, "one or more numbers, increasing, at least 1",
        )  # fmt: skip
        runner.require_counts(self, "rounds")
        asks = set(self.chosen()) - {"cloning"}
        divides = not asks or sizes[-1] % self.rounds == 0
        runner.require(divides, "--rounds", self.rounds, f"a divisor of {sizes[-1]}, the largest of --episodes")
        runner.require(self.seeds >= 2, "--seeds", self.seeds, "at least 2 (for an interval)")
        runner.require(self.eval_episodes >= 2, "--eval-episodes", self.eval_episodes, "at least 2")
        runner.require(self.pass_updates >= 0, "--pass-updates", self.pass_updates, "at least 0")
        runner.require_counts(self, "episodes", "rounds", "seeds", "epochs", "batch_size", "hidden", "eval_episodes")
        runner.require_rate("--learning-rate", self.learning_rate)
        if self.save_dataset is not None:
            runner.require(self.dataset is None, "--save-dataset", self.save_dataset, "left out with --dataset")
            free = self.save_dataset.parent.is_dir() and not self.save_dataset.exists()
            runner.require(free, "--save-dataset", self.save_dataset, "a new file in a folder that exists")
        chosen = self.chosen()
        known = 0 < len(chosen) == len(set(chosen)) and set(chosen) <= set(ALGORITHMS)
        allowed = f"among {', '.join(ALGORITHMS)}, each once"
        runner.require(known, "--algorithms", " ".join(chosen), allowed)
        alone = self.dataset is None or chosen == ("cloning",)
        runner.require(
            alone, "--algorithms", " ".join(chosen), "cloning with --dataset, because a file cannot answer questions"
        )
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")


TINY = Config(
    problem="maze",
    episodes=(1, 2),
    rounds=2,
    seeds=2,
    epochs=2,
    hidden=(4,),
    eval_episodes=2,
    algorithms=("cloning", "dagger"),
)


class Curve(NamedTuple):
    """The mean return of the copies of each seed `[S, K]` against K numbers of the expert's episodes."""

    episodes: np.ndarray
    returns: np.ndarray


def make_fit(config: Config, problem: problems.Problem) -> imitation.Fitter:
    return imitation.gradient_fit(
        problem.policy,
        optax.adam(config.learning_rate),
        loss=problem.loss,
        num_epochs=config.epochs,
        batch_size=config.batch_size,
    )


def make_score(config: Config, problem: problems.Problem):
    """A function from θ to the mean return of the greedy copy. All copies meet the same starts."""
    keys = jax.random.split(jax.random.key(config.seed + 10_000), config.eval_episodes)
    policy = evaluation.greedy(problem.policy)

    def score(params) -> jax.Array:
        episodes = rollouts.episodes(problem.environment, policy, params, keys)
        return jnp.mean(evaluation.episode_returns(episodes)[0])

    return score


def each_seed(one, keys: jax.Array, name: str, recorder: runner.Recorder) -> np.ndarray:
    """`one(key)` for every key, a few seeds at a time, so that the progress is shown. One program serves all."""
    chunk = max(size for size in range(1, 6) if len(keys) % size == 0)
    compiled, parts = jax.jit(lambda keys: jax.lax.map(one, keys)), []
    with recorder.progress(len(keys), name, "seeds") as progress:
        for start in range(0, len(keys), chunk):
            parts.append(np.asarray(compiled(keys[start : start + chunk])))
            progress.advance(chunk, f"return {parts[-1][:, -1].mean():.4g}")
    return np.concatenate(parts)


def clone(config: Config, problem: problems.Problem, keys: jax.Array, recorder: runner.Recorder) -> Curve:
    """Clone the first 1, 2, 5, … of the expert's episodes. Every seed has its own; one program serves all."""
    fit, score = make_fit(config, problem), make_score(config, problem)
    sizes = jnp.asarray(config.sizes())

    def one(key: jax.Array):
        data_key, init_key, fit_key = jax.random.split(key, 3)
        data = problem.demonstrate(data_key, config.sizes()[-1])
        start = problem.policy.init(init_key, jax.tree.map(lambda x: x[0], data.obs))

        def of_size(size: jax.Array) -> jax.Array:
            chosen = data._replace(weights=jnp.where(data.groups < size, data.weights, 0.0))
            return score(fit(fit_key, start, chosen))

        return jax.lax.map(of_size, sizes)

    return Curve(episodes=np.asarray(config.sizes()), returns=each_seed(one, keys, "cloning", recorder))


def ask(config: Config, problem: problems.Problem, algorithm: str, keys: jax.Array, recorder: runner.Recorder) -> Curve:
    """Run DAgger or DART and evaluate the copy of every round. One program serves all seeds."""
    fit, score = make_fit(config, problem), make_score(config, problem)
    each = config.sizes()[-1] // config.rounds
    options = {"num_rounds": config.rounds, "num_episodes": each}
    if algorithm == "dart":
        options["level"] = problem.noise
    method = getattr(imitation, algorithm)
    greedy = evaluation.greedy(problem.policy)  # as the copies are judged

    def one(key: jax.Array) -> jax.Array:
        run = method(key, problem.environment, problem.expert, greedy, fit, **options)
        return jax.lax.map(score, run.round_params)

    returns = each_seed(one, keys, algorithm, recorder)
    return Curve(episodes=each * (1 + np.arange(config.rounds)), returns=returns)


def record(curves: dict[str, Curve], expert: tuple[float, float], recorder: runner.Recorder) -> None:
    if np.isfinite(expert[0]):
        recorder.row(quantity="return of the expert", ours=expert[0], stderr=expert[1])
    for name, curve in curves.items():
        mean, stderr = diagnostics.mean_and_stderr(curve.returns)
        for n, value, error in zip(curve.episodes, mean, stderr, strict=True):
            quantity = f"return of a copy of {n} episode{'s' if n > 1 else ''}"
            recorder.row(quantity=quantity, variant=name, ours=float(value), stderr=float(error))


def pass_the_expert(config: Config, recorder: runner.Recorder) -> dict:
    """Copy a mediocre expert, then run REINFORCE from the copy and from scratch."""
    problem, expert_return = problems.mediocre_cartpole(config.hidden, config.seed)
    seeds = max(2, config.seeds // 2)
    keys = jax.random.split(jax.random.key(config.seed + 3), seeds)
    fit = make_fit(config, problem)

    @jax.jit
    def copies(keys: jax.Array):
        def one(key: jax.Array):
            data_key, init_key, fit_key = jax.random.split(key, 3)
            data = problem.demonstrate(data_key, config.sizes()[-1])
            start = problem.policy.init(init_key, jax.tree.map(lambda x: x[0], data.obs))
            return fit(fit_key, start, data)

        return jax.lax.map(one, keys)

    estimator = estimators.make_estimator(problem.policy, baseline=problem.value)
    build = lambda _: training.make_trainer(
        problem.environment, problem.policy, estimator, optax.adam(0.003), num_episodes=32
    )
    fresh = jax.jit(jax.vmap(build(()).init))(keys)
    starts = {"from the copy": fresh._replace(params=copies(keys)), "from scratch": fresh}
    curves = {}
    with recorder.progress(2 * seeds * config.pass_updates, "passing the expert", "updates") as progress:
        for name, states in starts.items():
            heard = lambda done, metrics, states: progress.advance(metrics["mean_return"].size)
            copied = jax.tree.map(jnp.copy, states)  # the loop is given its states for good
            run = training.train(build, keys, num_updates=config.pass_updates, states=copied, on_chunk=heard)
            curves[name] = run.metrics["mean_return"]
            first, reached = updates_until(curves[name], 1.25 * expert_return[0])
            mean, stderr = diagnostics.mean_and_stderr(first)
            quantity = "updates until 25 % above the mediocre expert"
            recorder.row(quantity=quantity, variant=name, ours=float(mean), stderr=float(stderr))
            if reached < seeds:
                missing = f"{seeds - reached} of {seeds}"
                recorder.note(
                    f"{name}: {missing} seeds never reached this return and count as {config.pass_updates} updates."
                )
            mean, stderr = diagnostics.mean_and_stderr(curves[name][:, -5:].mean(axis=1))
            recorder.row(quantity="return at the end", variant=name, ours=float(mean), stderr=float(stderr))
    recorder.row(quantity="return of the mediocre expert", ours=expert_return[0], stderr=expert_return[1])
    return {"curves": curves, "expert": expert_return[0]}


def updates_until(returns: np.ndarray, level: float) -> tuple[np.ndarray, int]:
    """The number of updates `[S]` after which three successive batches average `level`, from returns `[S, U]`.

    Batch u is played after u updates. Three batches are needed so that one lucky batch does not count. A run that never
    reaches the level counts as U. The second result is the number of runs that reached it.
    """
    window = min(3, returns.shape[1])
    above = np.lib.stride_tricks.sliding_window_view(returns, window, axis=1).mean(axis=2) >= level
    first = np.where(above.any(axis=1), above.argmax(axis=1) + window - 1, returns.shape[1])
    return first.astype(float), int(above.any(axis=1).sum())


def from_file(config: Config) -> problems.Problem:
    """The problem with the episodes of a file instead of an expert. Nobody can then be asked."""
    path = config.dataset
    with runner.usage_errors():
        data = datasets.load_minari(path) if path.is_dir() else datasets.load_npz(path)
        return problems.of_dataset(config.problem, data, config.hidden, config.sizes()[-1])


def run(config: Config, recorder: runner.Recorder) -> dict:
    with recorder.timed("expert"):
        fresh = lambda: problems.make_problem(config.problem, config.hidden, config.seed)
        problem = from_file(config) if config.dataset else fresh()
        expert = problem.expert_return(config.eval_episodes, jax.random.key(config.seed + 10_000))
    keys = jax.random.split(jax.random.key(config.seed + 1), config.seeds)
    curves = {}
    for name in config.chosen():
        with recorder.timed(name):
            if name == "cloning":
                curves[name] = clone(config, problem, keys, recorder)
            else:
                curves[name] = ask(config, problem, name, keys, recorder)
    record(curves, expert, recorder)
    if config.save_dataset is not None:
        labelled = jax.jit(problem.collect, static_argnums=1)(keys[0], config.sizes()[-1])
        about = {"problem": config.problem, "seed": config.seed, "expert_return": expert[0]}
        saved = datasets.from_trajectory(labelled.trajectory, expert_log_probs=labelled.log_probs, metadata=about)
        datasets.save_npz(config.save_dataset, saved)
        recorder.note(f"{config.save_dataset} holds {config.sizes()[-1]} of the expert's episodes.")
    passed = None
    if config.problem == "cartpole" and config.dataset is None and config.pass_updates:
        with recorder.timed("passing a mediocre expert"):
            passed = pass_the_expert(config, recorder)
    recorder.note(
        f"± of a copy is the standard error over {config.seeds} seeds, each evaluated on the same "
        f"{config.eval_episodes} starts; ± of an expert is that over its episodes."
    )
    if few := diagnostics.few_runs(config.seeds, "seeds"):
        recorder.note(few)
    return {"config": config, "curves": curves, "expert": expert[0], "passed": passed}


def plot(results: dict, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    config, curves, expert = results["config"], results["curves"], results["expert"]
    first = next(iter(curves.values()))
    few, many = first.returns.mean(axis=0)[[0, -1]]
    fewest, most = first.episodes[[0, -1]]
    title = (
        f"{config.problem}: a copy of {fewest} episode{'s' if fewest > 1 else ''} returns {few:.0f}, "
        f"of {most} {many:.0f}" + (f"; the expert {expert:.0f}" if np.isfinite(expert) else "")
    )
    caption = f"Mean over {config.seeds} seeds, {plots.bands(config.seeds, 'seeds')}; "
    caption += f"greedy copies on {config.eval_episodes} episodes."
    figure, axes = plots.figure(title, caption, width=8.5)
    axes.set(xlabel="episodes of the expert, or labelled by it", ylabel="return of an episode", xscale="log")
    axes.set_xticks(config.sizes(), list(map(str, config.sizes())))
    axes.minorticks_off()
    if np.isfinite(expert):
        plots.reference_line(axes, expert, "the expert")
    colour_of, ends = plots.colours(ALGORITHMS), {}
    for curve_name, curve in curves.items():
        ends |= plots.learning_curves(
            axes, curve.episodes, {curve_name: curve.returns}, colour_of=colour_of, named=False
        )
    plots.label_ends(axes, ends)
    recorder.figure(figure, f"imitation_{config.problem}")
    if results["passed"] is None:
        return
    passed = results["passed"]
    updates = np.arange(1, config.pass_updates + 1)
    start, end = passed["curves"]["from the copy"].mean(axis=0)[[0, -1]]
    title = f"A copy of an expert of {passed['expert']:.0f} starts at {start:.0f}; REINFORCE takes it to {end:.0f}"
    seeds = len(passed["curves"]["from the copy"])
    caption = f"CartPole-v1, 32 episodes an update; mean over {seeds} seeds, {plots.bands(seeds, 'seeds')}."
    figure, axes = plots.figure(title, caption, width=8.5)
    axes.set(xlabel="updates", ylabel="return of an episode (steps)", ylim=(0, 520))
    plots.reference_line(axes, passed["expert"], "the mediocre expert")
    plots.learning_curves(axes, updates, passed["curves"])
    recorder.figure(figure, "passing_the_expert")
