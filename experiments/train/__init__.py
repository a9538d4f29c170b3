"""Train any estimator on any environment: evaluation, learning curve, animation, and the policy in a file.

Claim    The estimator that is measured is the estimator that trains: `--estimator` takes the same names as the gradient
         laboratory (`python -m experiments.estimators` lists them). Options that are left out come from the preset of
         the environment (`presets.py`).
Command  python -m experiments.train --env CartPole-v1
         python -m experiments.train --env CartPole-v1 --estimator rloo
         python -m experiments.train --env CartPole-v1 --estimator my_file:my_estimator
         python -m experiments.train --env Pendulum-v1 --num-seeds 5
         python -m experiments.train --env CartPole-v1 --meter 5             (the noise of the gradient that trains)
         python -m experiments.train --env Breakout-MinAtar
         python -m experiments.train --env gymnasium:LunarLander-v3   (pip install -e ".[gymnasium]")
         python -m experiments.train --start-from results/imitation/RUN              (a saved policy, such as a copy)
         python -m experiments.train --render results/train/RUN
         python -m experiments.train --distributed HOST:1234,2,0                 (process 0 of 2; HOST is its machine)
         python -m experiments.train --resume results/train/RUN                     (after an interruption)
         python -m experiments.train --resume results/train/RUN --num-updates 100   (100 in all)
         python -m experiments.train --resume results/train/RUN --allow lr --lr 0.001   (after a divergence)
Shows    The evaluated return of every run with its 95 % interval, the learning curve, and an animation of the best run.
         The best policy is saved in `policy.safetensors`. With --meter N also the noise of the gradient that trains:
         its signal-to-noise ratio, its noise scale beside the size of the batch, and a figure of both over training.
Expect   The return of CartPole-v1 rises from 22 to 499.8 of 500 in half a minute to a minute, that of Pendulum-v1 from
         −1220 to −207 ± 13 in about a minute, and the fixed maze is left by a shortest way of 12 steps, in 20 seconds
         of CPU time for all five seeds. The times are those of two CPU cores, compilation included.
         The return of Breakout-MinAtar rises from 0.4 to 49 ± 9 (standard error over the seeds 0 to 4, which end
         between 29.0 and 82.4) in 88 seconds of CPU time for each seed.
         That of gymnasium:LunarLander-v3 rises from −181 to 273 and 279 (seeds 10 and 11; 200 counts as solved).
         reverse, addition and spell_backward hold prompts out and also report the share of them that the greedy policy
         answers right, from rewards alone: reverse 1.00 in 9 CPU seconds a seed, addition 0.97 ± 0.05 in 127 (95 %
         intervals over five seeds; four of the five seeds of addition reach 0.98 and more, one 0.90). The regret of
         ads falls from 0.474 clicks a session to 0.039 ± 0.001 in 43 seconds, and the share of fresh mazes
         (random_maze) that are left in time rises from 0.21 to 0.941 ± 0.008 in 258.
Departs  Adam replaces plain gradient ascent. Some presets make the gradient biased on purpose, and give the reason.
"""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import interruption, runner, team
from experiments.shared.training import build as build_options
from experiments.shared.training import presets
from experiments.train import dead, keeping, meter, report, resume
from experiments.train.options import TINY, Config, resolve
from experiments.train.report import plot
from pgjax import environments, evaluation, registry, training
from pgjax.saving import identity, policies
from pgjax.types import PyTree

__all__ = ["SHARES", "TINY", "Config", "plot", "resolve", "run"]

SHARES = True


def run(config: Config, recorder: runner.Recorder) -> dict:
    if config.render is not None:
        build_options.require_alone(f"--render {config.render}", "nothing is trained")
        return render(config, recorder)
    with runner.usage_errors():
        options = resolve(config)
        environment, policy = build_options.make_policy(options)
        asked = build_options.evaluation_environment(options, environment)
        policies.policy_header(environment, **build_options.network_arguments(options))
        build = build_options.make_build(options, environment, policy)
        rates = np.repeat(np.asarray(options["lr"], np.float32), options["num_seeds"])
        seeds = options["seed"] + jnp.tile(jnp.arange(options["num_seeds"]), len(options["lr"]))
        keys = jax.vmap(jax.random.key)(seeds)
        known = identity.identity(resume.results_options(options), build_options.own_code(options))
        team.current.require_same("versions and settings", {**known["versions"], **known["numerics"], **known["code"]})
        past = starting_point(config.resume, options, known, build, keys, rates, recorder)
    recorder.say(described(options))
    recorder.say(f"options: {', '.join(f'{k}={v}' for k, v in options.items() if v is not None)}")
    resume.start_log(recorder, past)
    # The file names the options that --allow lets change until a checkpoint has them.
    write_options(options, recorder)
    every = options.get("checkpoint_every", config.checkpoint_every)  # runs of former versions do not have the option
    keeper = keeping.Keeper(recorder, past.thinned, known, every, past.seconds)
    if past.states is not None:
        keeper.start(past.states)
    write_options(options | {"allow": ()}, recorder)
    recorder.resumable()
    keeping.copies(recorder, options, past.done + 1)
    train = build_options.training_of(environment, policy, options["deterministic"])
    in_jax = not isinstance(environment, environments.HostEnvironment)
    few = in_jax and build_options.unused_devices(build(rates[0]), len(rates), options["deterministic"])
    if few:
        recorder.say(few)
    trained, failures = learn(options, train, build, keys, rates, past, keeper, recorder)
    if not recorder.writes:  # process 0 evaluates and draws
        return {}
    recorder.say(f"compiled in {trained.compile_seconds:.1f} s, learned in {trained.seconds:.1f} s")
    dead.note_dead(options, environment, policy, trained.states.params, keeper.watch, rates, failures, recorder)
    seconds = keeper.seconds
    good, params = finish(options, asked, policy, trained._replace(seconds=seconds["wall"]), failures, rates, recorder)
    report.report_cpu_time(seconds["cpu"] / len(rates), presets.BUDGETS.get(options["env"]), recorder)
    drawn = report.Drawn(options, asked, policy, params)
    noise = meter.report(options, good, rates, recorder)
    return {"options": options, "rates": rates, "good": good, "curve": keeper.thinned, "noise": noise, "drawn": drawn}


def write_options(options: dict, recorder: runner.Recorder) -> None:
    """Write options.json once; a resumed run writes it again only if an option has another value."""
    text = json.dumps(options, default=str, indent=2) + "\n"
    path = recorder.path(resume.OPTIONS)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        recorder.write(resume.OPTIONS, text)


def described(options: dict) -> str:
    """The estimator in one line: its label, its stated bias, and the settings that differ from its own."""
    entry = registry.find(options["estimator"])
    if entry.is_own:
        return f"estimator: {entry.name}, your own"
    own = entry.settings.chosen()
    changed = [f"{name}={options[name]} instead of {value}" for name, value in own.items() if options[name] != value]
    with_own = f" (with its own settings; this run uses {', '.join(changed)})" if changed else ""
    return f"estimator: {entry.name}, {entry.label}, {entry.claim}{with_own}; source: {entry.source}"


def starting_point(
    path: pathlib.Path | None, options: dict, known: dict, build, keys: jax.Array, rates: np.ndarray, recorder
) -> resume.Saved:
    """The run that is resumed, or an empty one. Only shapes are traced, so that a misfit is refused early."""
    if path is None:
        return resume.nothing(len(rates))
    shapes = jax.eval_shape(jax.vmap(lambda key, rate: build(rate).init(key)), keys, rates)
    past = resume.restore(path, shapes, known, resume.allowed(options["allow"]), recorder.say)
    # A run that was interrupted after its last update still has to be evaluated.
    if options["num_updates"] < past.done + past.complete:
        raise ValueError(
            f"--num-updates {options['num_updates']}: the run has made {past.done} updates already; to train on, give "
            f"--num-updates a number above {past.done}"
        )
    return past


def learn(
    options: dict,
    train,
    build,
    keys: jax.Array,
    rates: np.ndarray,
    past: resume.Saved,
    keeper: keeping.Keeper,
    recorder: runner.Recorder,
) -> tuple[training.TrainingRun, dict[int, str]]:
    """Make the remaining updates with `train`, while `keeper` writes the log and the checkpoints.

    Returns:
        The trained runs, and run → reason for the runs that failed.

    Raises:
        UsageError: every run has failed.
        Interrupted: a signal has asked the run to stop. Every update so far is saved.
    """
    left, failures = options["num_updates"] - past.done, {}
    if left == 0:
        keeper.finish(past.states)
        return training.TrainingRun(states=past.states, metrics={}, compile_seconds=0.0, seconds=0.0), failures
    of = f"training {len(rates)} runs" if len(rates) > 1 else "training"
    recorder.say("compiling…")
    with recorder.progress(options["num_updates"], of, "updates", past.done) as progress:

        def heard(further: int, metrics: dict, states) -> None:
            returns, counts = metrics["mean_return"], metrics["num_finished"]
            ended = returns[(counts > 0) & np.isfinite(returns)]
            note = f"return {ended.mean():.4g}" if ended.size else "no episode has ended yet"
            progress.advance(returns.shape[1], note)
            keeper.hear(meter.only_measured(metrics, keeper.thinned.done, options["meter"]), states)

        hear = {"on_start": keeper.start, "on_compiled": team.current.meet, "on_chunk": heard, "keep_metrics": False}
        try:
            trained = train(build, keys, rates, num_updates=left, states=past.states, **hear)
        except training.NonFiniteError as error:
            if len(error.failures) == len(rates):
                raise all_failed(error, keeper, recorder) from error
            trained, failures = error.trained, error.failures
        finally:
            interruption.current.deferred = False
    keeper.finish(trained.states)
    return trained, failures


def all_failed(error: Exception, keeper: keeping.Keeper, recorder: runner.Recorder) -> runner.UsageError:
    """The end of a training in which every run has failed, with the command that goes on with smaller steps."""
    made, command = runner.UsageError(str(error)), recorder.command(recorder.directory.with_name(recorder.run))
    if not keeper.thinned.done:  # not even the first update was possible
        recorder.worthless()
        return made
    made.add_note(
        f"Update {keeper.saved} is saved. To go on from it with smaller steps: {command} --allow lr --lr RATE"
    )
    return made


def finish(options, environment, policy, trained, failures, rates, recorder) -> tuple[list[int], PyTree]:
    """Evaluate every run and save the best policy. Return the numbers of the runs that did not fail, and the best θ.

    `environment` is that of the evaluation.

    Raises:
        UsageError: every run has failed.
    """
    evaluated = report.evaluate_runs(options, environment, policy, trained.states.params, failures)
    failed = report.failure_sentence(evaluated, options, rates)
    if not evaluated.results:
        raise runner.UsageError(failed)
    right = report.greedy_answers(options, environment, policy, trained.states.params, evaluated)
    report.report_runs(options, environment, evaluated, right, rates, trained.seconds, recorder)
    if options.get("references", True):  # runs of former versions do not have the option
        from experiments.train import beside  # it loads with all of imitation, which the start of a run does without

        beside.report(options, environment, evaluated, rates, recorder)
    params = jax.tree.map(lambda x: x[evaluated.best], trained.states.params)
    path, arguments = recorder.path(policies.FILE_NAME), build_options.network_arguments(options)
    with runner.usage_errors():  # θ that is not finite
        policies.save_policy(path, params, environment=options["env"], **arguments)
    if failed:
        recorder.failed(failed)
    return sorted(evaluated.results), params


def render(config: Config, recorder: runner.Recorder) -> dict:
    with runner.usage_errors():
        environment, policy, params = policies.load_policy(config.render, config.env)
    environment = build_options.evaluation_environment({"env": config.env or environment.name}, environment)
    key = jax.random.key(config.seed + 10_000)
    result = evaluation.evaluate(environment, policy, params, key, num_episodes=config.eval_episodes or 100)
    report.report_policy(config.env or environment.name, environment, result, recorder)
    if environment.render is None:
        recorder.note(f"{environment.name} has no pictures to draw.")
    return {"drawn": report.Drawn({"gif": config.gif, "seed": config.seed}, environment, policy, params)}
