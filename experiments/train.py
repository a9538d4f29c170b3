"""Train any estimator on any environment: evaluation, learning curve, animation, and the policy in a file.

Claim    The estimator that is measured is the estimator that trains: `--estimator`, `--baseline` and the conventions
         are those of `pgjax.estimators`, and what is left open comes from the environment's preset (`_presets.py`).
Command  python -m experiments.train --env CartPole-v1
         python -m experiments.train --env Pendulum-v1 --num-seeds 5
         python -m experiments.train --env Breakout-MinAtar
         python -m experiments.train --render results/train/RUN
         python -m experiments.train --resume results/train/RUN                     (after an interruption)
         python -m experiments.train --resume results/train/RUN --num-updates 100   (100 in all)
Expect   CartPole-v1: from 22 to 499.8 of 500 in half a minute to a minute. Pendulum-v1: from −1220 to −207 ± 13, about
         a minute. Breakout-MinAtar: 5.63 ± 0.13 from 0.5, about two. On two CPU cores, compilation included.
Departs  Adam instead of plain ascent; biased conventions only where a preset says so and why.
"""

import dataclasses
import pathlib
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments import _build as build_options
from experiments import _presets
from experiments import _resume as resume
from experiments import _runner as runner
from pgjax import diagnostics, evaluation, policies, training
from pgjax.environments import rendering
from pgjax.types import Environment, Policy


@dataclasses.dataclass(frozen=True)
class Config:
    """Options; None takes the environment's preset. Every run prints all values that it uses, presets' included, at its
    start and keeps them in options.json; experiments/_presets.py lists the presets with their reasons."""

    env: str | None = None
    """One of pgjax.environments.available() (an unknown name lists them), CartPole-v1 if left open; or
    package.module:name for an environment of one's own: the module is imported and its code runs. With --render, the
    environment of a file that names none that pgjax ships."""
    returns: Annotated[
        Literal[
            "total_return",
            "reward_to_go",
            "lambda_return",
            "all_action",
            "action_dependent",
            "trajectory_wise",
            "per_parameter",
            "importance_weighted",
        ]
        | None,
        tyro.conf.arg(name="estimator"),
    ] = None
    """What stands for the return (G_1, G_t, the λ-return of an actor-critic), or an estimator of another form."""
    baseline: (
        Literal[
            "none",
            "moving_average",
            "batch_mean",
            "leave_one_out",
            "time_dependent",
            "optimal_constant",
            "optimal_time",
            "greedy",
            "value",
        ]
        | None
    ) = None
    """What is subtracted from it; not for per_parameter and the forms of a critic, which learn their own."""
    loss: Literal["score_function", "importance_weighted", "clipped"] | None = None
    """The surrogate; the last two are for --epochs above 1 (clipped is PPO's)."""
    clip: float | None = None
    """ε of the clipped surrogate."""
    epochs: int | None = None
    """Steps on each batch; above 1 with a --loss that has a ratio, or with --estimator importance_weighted."""
    natural: float | None = None
    """Follow the natural gradient with this damping of the Fisher matrix, in plain steps instead of Adam's."""
    num_seeds: int | None = None
    """Runs with different seeds, all in one program."""
    num_updates: int | None = None
    """Updates of each run in all; with --resume, those already done included."""
    num_episodes: int | None = None
    """B: episodes, or lanes, of an update."""
    num_steps: int | None = None
    """Steps of a continuing window; complete episodes if the preset leaves it open."""
    lr: tuple[float, ...] | None = None
    """Adam's η; several make a sweep, all in one program."""
    lr_left: float | None = None
    """The fraction of η that is left in the end, falling linearly."""
    schedule_updates: int | None = None
    """Updates over which η falls; num_updates if None. A resumed run keeps it."""
    value_lr: float | None = None
    """Adam's η of the value network."""
    value_steps: int | None = None
    """Gradient steps of the value network per update."""
    discount: float | None = None
    """γ."""
    lambda_: float | None = None
    """λ."""
    decay: float | None = None
    """β of the moving averages."""
    entropy_coef: float | None = None
    """Weight of the entropy bonus."""
    over_time: Literal["sum", "mean", "episode_mean"] | None = None
    """Sum over an episode's steps, mean over the batch's live steps, or mean over each episode's own."""
    standardise: Literal["none", "population", "group_population", "group_sample"] | None = None
    """Whether weights are standardised: over live steps, or over episodes row by row (GRPO)."""
    max_grad_norm: float | None = None
    """Clip the gradient's norm."""
    hidden: tuple[int, ...] | None = None
    """Widths of the dense layers."""
    distribution: Literal["auto", "categorical", "gaussian", "squashed_gaussian"] | None = None
    """Of the actions."""
    eval_episodes: int | None = None
    """Episodes of the evaluation of each run, on the same starts for all."""
    seed: int = 0
    """The first run's seed."""
    gif: bool = True
    """Draw an episode of the best run, where the environment can be drawn."""
    render: pathlib.Path | None = None
    """Evaluate and draw a saved policy instead of training: its file, or the folder of the run that saved it."""
    resume: pathlib.Path | None = None
    """Go on from this run's directory, with its options (NAME also finds NAME-incomplete and .NAME.partial)."""

    def validate(self) -> None:
        sizes = ("num_seeds", "num_updates", "num_episodes", "num_steps", "value_steps", "schedule_updates", "epochs")
        for name in sizes:
            value = getattr(self, name)
            runner.require(value is None or value >= 1, option(name), value, "at least 1")
        for name in ("discount", "lambda_", "decay", "lr_left"):
            value = getattr(self, name)
            runner.require(value is None or 0 <= value <= 1, option(name), value, "in [0, 1]")
        for name in ("value_lr", "max_grad_norm"):
            value = getattr(self, name)
            runner.require(value is None or 0 < value < float("inf"), option(name), value, "above 0 and finite")
        for name in ("clip", "natural"):
            value = getattr(self, name)
            runner.require(value is None or 0 <= value < float("inf"), option(name), value, "at least 0 and finite")
        for name in ("lr", "hidden"):
            values = getattr(self, name)
            runner.require(values is None or len(values) >= 1, option(name), values, "at least one number")
        for value in self.lr or ():
            runner.require(0 < value < float("inf"), "--lr", value, "above 0 and finite")
        for value in self.hidden or ():
            runner.require(value >= 1, "--hidden", value, "at least 1")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        runner.require(self.entropy_coef is None or self.entropy_coef >= 0, "--entropy-coef", self.entropy_coef, ">= 0")
        count = self.eval_episodes
        runner.require(count is None or count >= 2, "--eval-episodes", count, "at least 2")
        runner.require(not (self.render and self.resume), "--render", self.render, "used without --resume")


TINY = Config(env="corridor", num_seeds=2, num_updates=4, num_episodes=4, eval_episodes=4, lr=(0.01, 0.1))


DEFAULT_ENV = "CartPole-v1"
# The options that say what network the policy is.
NETWORK = ("distribution", "hidden")


def option(name: str) -> str:
    return "--" + name.rstrip("_").replace("_", "-")


def resolve(config: Config) -> dict:
    """Every option with its value: the command line's, else that of the resumed run, else the preset's.

    Raises:
        ValueError: for a baseline that is asked for and would not be used, and for what a resumed run does not allow.
    """
    options = _resolve(config)
    kind = options["returns"]
    # A preset's baseline stands for the estimators that take one, so only the command line's is refused.
    if config.baseline is not None and kind in build_options.WITHOUT_BASELINE:
        raise ValueError(
            f"--baseline {config.baseline}: must be left out with --estimator {kind}, which learns its own; allowed "
            f"with --estimator {', '.join(build_options.RETURNS)} or importance_weighted"
        )
    return options


def _resolve(config: Config) -> dict:
    given = {name: value for name, value in dataclasses.asdict(config).items() if value is not None}
    if config.resume is None:
        env = config.env or DEFAULT_ENV
        options = _presets.preset(env) | {"env": env} | given
        return {"schedule_updates": options["num_updates"]} | options
    fixed = _presets.DEFAULT | resume.options(config.resume)
    free = ("num_updates", "eval_episodes", "gif", "resume")
    defaults = dataclasses.asdict(Config())
    for name, value in given.items():
        if name not in free and value != defaults[name] and value != fixed.get(name):
            raise ValueError(f"{option(name)} {value}: a resumed run keeps its options, here {fixed.get(name)}")
    return fixed | {name: given[name] for name in free if name in given and given[name] != defaults[name]}


def run(config: Config, recorder: runner.Recorder) -> dict | None:
    if config.render is not None:
        return render(config, recorder)
    with runner.usage_errors():
        options = resolve(config)
        environment, policy = build_options.make_policy(options)
        policies.policy_header(environment, **network_arguments(options))
        build = build_options.make_build(options, environment, policy)
        rates = jnp.repeat(jnp.asarray(options["lr"], jnp.float32), options["num_seeds"])
        seeds = options["seed"] + jnp.tile(jnp.arange(options["num_seeds"]), len(options["lr"]))
        keys = jax.vmap(jax.random.key)(seeds)
        past = starting_point(config, options, build, keys, rates)
    recorder.say(f"options: {', '.join(f'{k}={v}' for k, v in options.items() if v is not None)}")
    if past.states is not None:
        for record in past.records:
            recorder.metrics(record)
        resume.save(recorder, options, past)
    trained, history = learn(options, build, keys, rates, past, recorder)
    recorder.say(f"compiled in {trained.compile_seconds:.1f} s, learned in {trained.seconds:.1f} s")
    finish(options, environment, policy, trained, rates, recorder)
    steps = history["num_steps"].mean(axis=0).cumsum()
    return {"options": options, "steps": steps, "returns": history["mean_return"], "rates": np.asarray(rates)}


def starting_point(config: Config, options: dict, build, keys: jax.Array, rates: jax.Array) -> resume.Saved:
    """The run that is resumed, or nothing yet. Shapes alone: what does not fit is refused before anything compiles."""
    shapes = jax.eval_shape(jax.vmap(lambda key, rate: build(rate).init(key)), keys, rates)
    jax.eval_shape(jax.vmap(lambda state, rate: build(rate).update(state)), shapes, rates)
    if config.resume is None:
        return resume.nothing(len(rates))
    past = resume.restore(config.resume, shapes)
    # What was interrupted after its last update has still to be evaluated.
    if options["num_updates"] < past.done + past.complete:
        raise ValueError(f"--num-updates {options['num_updates']}: must be above the {past.done} already done")
    return past


def learn(
    options: dict, build, keys: jax.Array, rates: jax.Array, past: resume.Saved, recorder: runner.Recorder
) -> tuple[training.TrainingRun, resume.History]:
    """The updates that are left, and the history of all; everything is on disk after each chunk."""
    left, history = options["num_updates"] - past.done, past.history
    if left == 0:
        return training.TrainingRun(states=past.states, metrics={}, compile_seconds=0.0, seconds=0.0), history
    with recorder.progress(left * len(rates), "training", "updates") as progress:

        def heard(further: int, metrics: dict, states) -> None:
            nonlocal history
            history = resume.extended(history, metrics)
            returns = returns_of_finished(metrics)
            mean = {name: values.mean(axis=1) for name, values in metrics.items()} | {"mean_return": returns}
            recorder.metrics({"update": past.done + further, **mean})
            resume.save(recorder, options, past._replace(states=states, history=history))
            ended = returns[np.isfinite(returns)]
            note = f"return {ended.mean():.4g}" if ended.size else "no episode has ended yet"
            progress.advance(metrics["mean_return"].size, note)

        try:
            trained = training.train(build, keys, rates, num_updates=left, on_chunk=heard, states=past.states)
        except training.NonFiniteError as error:
            raise runner.UsageError(f"--env {options['env']}: {error}") from error
    return trained, history


def returns_of_finished(metrics: dict) -> np.ndarray:
    """The mean return of the episodes that ended in a chunk, `[S]`: each counts once, NaN where none did."""
    counts = metrics["num_finished"]
    total = np.sum(np.where(counts > 0, metrics["mean_return"] * np.maximum(counts, 1), 0.0), axis=1)
    with np.errstate(invalid="ignore"):
        return total / counts.sum(axis=1)


def finish(options, environment, policy, trained, rates, recorder) -> None:
    """Evaluates every run, saves the best policy, draws it."""
    of = lambda index: jax.tree.map(lambda x: x[index], trained.states.params)
    key = jax.random.key(options["seed"] + 10_000)
    found = [
        evaluation.evaluate(environment, policy, of(s), key, num_episodes=options["eval_episodes"])
        for s in range(len(rates))
    ]
    means = np.array([result.mean for result in found])
    for rate in options["lr"]:
        chosen = np.isclose(rates, rate)
        mean, stderr = diagnostics.mean_and_stderr(means[chosen])
        recorder.row(
            quantity="evaluated return, mean over seeds",
            variant=f"lr {rate:g}",
            ours=float(mean),
            stderr=float(stderr),
            seconds=trained.seconds,
        )
    for s, result in enumerate(found):
        variant = f"lr {float(rates[s]):g}, seed {options['seed'] + s % options['num_seeds']}"
        recorder.row(quantity="evaluated return", variant=variant, ours=result.mean, stderr=result.stderr)
    best = int(np.argmax(means))
    recorder.note(how_to_read(options, len(rates)))
    path = recorder.path(policies.FILE_NAME)
    with runner.usage_errors():  # θ that is not finite
        policies.save_policy(path, of(best), environment=options["env"], **network_arguments(options))
    draw(options, environment, policy, of(best), recorder)


def network_arguments(options: dict) -> dict:
    """Those of `networks.make_policy`."""
    return {name: options[name] for name in NETWORK}


def how_to_read(options: dict, num_runs: int) -> str:
    episodes = options["eval_episodes"]
    if num_runs == 1:
        return f"± of the seed is the standard error over {episodes} episodes; one seed cannot tell how seeds differ."
    over_seeds = ", ± of the mean that over seeds" if options["num_seeds"] > 1 else ""
    return (
        f"± of a seed is the standard error over {episodes} episodes{over_seeds}; all runs met the same starts. "
        f"policy.safetensors is the best of the {num_runs}, so its own number flatters."
    )


def draw(options: dict, environment: Environment, policy: Policy, params, recorder: runner.Recorder) -> None:
    if environment.render is None or not options["gif"]:
        return
    frames = evaluation.frames(environment, policy, params, jax.random.key(options["seed"] + 20_000))
    rendering.save_gif(frames, recorder.path("policy.gif"))


def render(config: Config, recorder: runner.Recorder) -> None:
    with runner.usage_errors():
        environment, policy, params = policies.load_policy(config.render, config.env)
    key = jax.random.key(config.seed + 10_000)
    result = evaluation.evaluate(environment, policy, params, key, num_episodes=config.eval_episodes or 100)
    recorder.row(
        quantity="evaluated return", variant=environment.name, ours=result.mean, stderr=result.stderr
    )
    if environment.render is None:
        recorder.note(f"{environment.name} has no pictures to draw.")
    draw({"gif": config.gif, "seed": config.seed}, environment, policy, params, recorder)


def caption(options: dict) -> str:
    many = options["num_seeds"] > 1
    runs = f"Mean over {options['num_seeds']} seeds, 95 % bootstrap bands" if many else "One seed, hence no band"
    windows = "; of the episodes that ended in each window, at first the short ones" if options["num_steps"] else ""
    return f"{runs}; undiscounted returns of the training episodes{windows}."


def plot(results: dict | None, recorder: runner.Recorder) -> None:
    if results is None:
        return
    from experiments import _plots as plots

    options, returns = results["options"], results["returns"]
    tenth = max(1, returns.shape[1] // 10)
    first, last = (np.nanmean(part) for part in (returns[:, :tenth], returns[:, -tenth:]))
    how = f"{options['returns']}, baseline {options['baseline']}"
    title = f"{options['env']}: return {first:.4g} in the first tenth of training, {last:.4g} in the last ({how})"
    figure, axes = plots.figure(title, caption(options), width=7.5)
    axes.set_xlabel("environment steps")
    axes.set_ylabel("return of an episode")
    keep = np.isfinite(returns).all(axis=0)
    curves = {f"lr {rate:g}": returns[np.isclose(results["rates"], rate)][:, keep] for rate in options["lr"]}
    plots.learning_curves(axes, results["steps"][keep], curves)
    recorder.figure(figure, "learning_curve")


if __name__ == "__main__":
    runner.main(__file__, __doc__, Config, run, plot)
