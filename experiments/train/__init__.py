"""Train any estimator on any environment: evaluation, learning curve, animation, and the policy in a file.

Claim    The estimator that is measured is the estimator that trains: `--estimator` takes the same names as the gradient
         laboratory (`python -m experiments.estimators` lists them). Options that are left out come from the preset of
         the environment (`presets.py`).
Command  python -m experiments.train --env CartPole-v1
         python -m experiments.train --env CartPole-v1 --estimator rloo
         python -m experiments.train --env CartPole-v1 --estimator my_file:my_estimator
         python -m experiments.train --env Pendulum-v1 --num-seeds 5
         python -m experiments.train --env Breakout-MinAtar
         python -m experiments.train --env gymnasium:LunarLander-v3   (pip install -e ".[gymnasium]")
         python -m experiments.train --start-from results/imitation/RUN              (a saved policy, such as a copy)
         python -m experiments.train --render results/train/RUN
         python -m experiments.train --resume results/train/RUN                     (after an interruption)
         python -m experiments.train --resume results/train/RUN --num-updates 100   (100 in all)
Shows    The evaluated return of every run with its 95 % interval, the learning curve, and an animation of the best run.
         The best policy is saved in `policy.safetensors`.
Expect   The return of CartPole-v1 rises from 22 to 499.8 of 500 in half a minute to a minute, that of Pendulum-v1 from
         −1220 to −207 ± 13 in about a minute, that of Breakout-MinAtar from 0.5 to 5.63 ± 0.13 in about two minutes,
         and the fixed maze is left by a shortest way of 12 steps, in 20 seconds of CPU time for all five seeds.
         The times are those of two CPU cores, compilation included.
         That of gymnasium:LunarLander-v3, measured with one seed, rises from −176 to 262 ± 3 in the first 88 of its 120
         updates, which took a minute and a half of CPU time; 200 counts as solved.
         reverse, addition and spell_backward hold prompts out and also report the share of them that the greedy policy
         answers right, from rewards alone: reverse 1.00 in 9 CPU seconds a seed, addition 0.89 ± 0.11 in 60 (95 %
         intervals over five seeds).
Departs  Adam replaces plain gradient ascent. Some presets make the gradient biased on purpose, and give the reason.
"""

import time

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.train import beside, presets, report, resume
from experiments.train import build as build_options
from experiments.train.options import TINY, Config, resolve
from experiments.train.report import plot
from pgjax import evaluation, registry, training
from pgjax.saving import policies

__all__ = ["TINY", "Config", "plot", "resolve", "run"]


def run(config: Config, recorder: runner.Recorder) -> dict | None:
    if config.render is not None:
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
        past = starting_point(config, options, build, keys, rates)
    recorder.say(described(options))
    recorder.say(f"options: {', '.join(f'{k}={v}' for k, v in options.items() if v is not None)}")
    if past.states is not None:
        for record in past.records:
            recorder.metrics(record)
        resume.save(recorder, options, past)
    train = build_options.training_of(environment, policy)
    began = time.process_time()
    trained, history, failures = learn(options, train, build, keys, rates, past, recorder)
    cpu_seconds = time.process_time() - began
    recorder.say(f"compiled in {trained.compile_seconds:.1f} s, learned in {trained.seconds:.1f} s")
    good = finish(options, asked, policy, trained, failures, rates, recorder)
    if past.done == 0:
        report.report_cpu_time(cpu_seconds / len(rates), presets.BUDGETS.get(options["env"]), recorder)
    measured = {"steps": history["num_steps"], "returns": history["mean_return"]}
    return {"options": options, "rates": rates, "good": good, **measured}


def described(options: dict) -> str:
    """The estimator in one line: its label, its stated bias, and the settings that differ from its own."""
    entry = registry.find(options["estimator"])
    if entry.is_own:
        return f"estimator: {entry.name}, your own"
    own = entry.settings.chosen()
    changed = [f"{name}={options[name]} instead of {value}" for name, value in own.items() if options[name] != value]
    with_own = f" (with its own settings; this run uses {', '.join(changed)})" if changed else ""
    return f"estimator: {entry.name}, {entry.label}, {entry.claim}{with_own}; source: {entry.source}"


def starting_point(config: Config, options: dict, build, keys: jax.Array, rates: np.ndarray) -> resume.Saved:
    """The run that is resumed, or an empty one. Only shapes are traced, so that a misfit is refused early."""
    shapes = jax.eval_shape(jax.vmap(lambda key, rate: build(rate).init(key)), keys, rates)
    jax.eval_shape(jax.vmap(lambda state, rate: build(rate).update(state)), shapes, rates)
    if config.resume is None:
        return resume.nothing(len(rates))
    past = resume.restore(config.resume, shapes)
    # A run that was interrupted after its last update still has to be evaluated.
    if options["num_updates"] < past.done + past.complete:
        raise ValueError(f"--num-updates {options['num_updates']}: must be above {past.done}, the updates already done")
    return past


def learn(
    options: dict, train, build, keys: jax.Array, rates: np.ndarray, past: resume.Saved, recorder: runner.Recorder
) -> tuple[training.TrainingRun, resume.History, dict[int, str]]:
    """Make the remaining updates with `train`. Every chunk of them is saved as soon as it is done.

    Returns:
        The trained runs, the history of all updates, and run → reason for the runs that failed.

    Raises:
        UsageError: every run has failed.
    """
    left, history = options["num_updates"] - past.done, past.history
    if left == 0:
        return training.TrainingRun(states=past.states, metrics={}, compile_seconds=0.0, seconds=0.0), history, {}
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
            trained = train(build, keys, rates, num_updates=left, on_chunk=heard, states=past.states)
        except training.NonFiniteError as error:
            if len(error.failures) == len(rates):
                raise runner.UsageError(str(error)) from error
            return error.trained, history, error.failures
    return trained, history, {}


def returns_of_finished(metrics: dict) -> np.ndarray:
    """The mean return `[S]` of the episodes that ended in a chunk. Each episode counts once; NaN if none ended."""
    counts = metrics["num_finished"]
    total = np.sum(np.where(counts > 0, metrics["mean_return"] * np.maximum(counts, 1), 0.0), axis=1)
    with np.errstate(invalid="ignore"):
        return total / counts.sum(axis=1)


def finish(options, environment, policy, trained, failures, rates, recorder) -> list[int]:
    """Evaluate every run, save the best policy and draw it. Return the numbers of the runs that did not fail.

    `environment` is that of the evaluation.

    Raises:
        UsageError: every run has failed.
    """
    evaluated = report.evaluate_runs(options, environment, policy, trained.states.params, failures)
    failed = report.failure_sentence(evaluated, options, rates)
    if not evaluated.results:
        raise runner.UsageError(failed)
    right = report.greedy_answers(options, environment, policy, trained.states.params, evaluated)
    report.report_runs(options, evaluated, right, rates, trained.seconds, recorder)
    if options.get("references", True):  # runs of former versions do not have the option
        beside.report(options, environment, evaluated, rates, recorder)
    params = jax.tree.map(lambda x: x[evaluated.best], trained.states.params)
    path, arguments = recorder.path(policies.FILE_NAME), build_options.network_arguments(options)
    with runner.usage_errors():  # θ that is not finite
        policies.save_policy(path, params, environment=options["env"], **arguments)
    report.draw(options, environment, policy, params, recorder)
    if failed:
        recorder.failed(failed)
    return sorted(evaluated.results)


def render(config: Config, recorder: runner.Recorder) -> None:
    with runner.usage_errors():
        environment, policy, params = policies.load_policy(config.render, config.env)
    environment = build_options.evaluation_environment({"env": config.env or environment.name}, environment)
    key = jax.random.key(config.seed + 10_000)
    result = evaluation.evaluate(environment, policy, params, key, num_episodes=config.eval_episodes or 100)
    report.report_policy(environment, result, recorder)
    if environment.render is None:
        recorder.note(f"{environment.name} has no pictures to draw.")
    report.draw({"gif": config.gif, "seed": config.seed}, environment, policy, params, recorder)
