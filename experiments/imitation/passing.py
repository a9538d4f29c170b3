"""Policy gradients that go on from a copy, and the same from scratch.

Axes: S seeds, U updates.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.imitation import copying, problems, scoring
from experiments.imitation.plans import Ascent
from pgjax import diagnostics, training
from pgjax.types import PyTree

COPY, SCRATCH = "from the copy", "from scratch"


class Gone(NamedTuple):
    """Runs of the policy gradient.

    Attributes:
        returns: the mean return of the training episodes of each update, `[S, U]`.
        params: θ at the end, leaves `[S, ...]`.
    """

    returns: np.ndarray
    params: PyTree


def at_least(params: PyTree, least_std: float) -> PyTree:
    """θ whose Gaussian spread σ is at least `least_std`; θ of policies without a spread is unchanged."""
    if not least_std or not (isinstance(params, dict) and "log_std" in params):
        return params
    return params | {"log_std": jnp.maximum(params["log_std"], np.log(least_std))}


def go_on(
    problem: problems.Problem,
    ascent: Ascent,
    copies: PyTree,
    keys: jax.Array,
    num_updates: int,
    recorder: runner.Recorder,
) -> dict[str, Gone]:
    """Train from the copies (leaves `[S, ...]`) and from scratch, with the same keys `[S]`."""
    build = lambda _: ascent.trainer(problem.environment, problem.policy, problem.hidden, num_updates)
    fresh, gone = jax.jit(jax.vmap(build(()).init))(keys), {}
    copies = jax.tree.map(jnp.asarray, copies)
    starts = {COPY: fresh._replace(params=at_least(copies, ascent.least_std)), SCRATCH: fresh}
    with recorder.progress(2 * len(keys) * num_updates, "passing the expert", "updates") as progress:
        for name, states in starts.items():
            heard = lambda done, metrics, states: progress.advance(metrics["mean_return"].size)
            given = jax.tree.map(jnp.copy, states)  # the loop is given its states for good
            run = training.train(build, keys, num_updates=num_updates, states=given, on_chunk=heard)
            gone[name] = Gone(returns=run.metrics["mean_return"], params=run.states.params)
    return gone


def pass_the_expert(
    config: Any, score: scoring.Score, copies: PyTree, recorder: runner.Recorder
) -> tuple[dict[str, Gone], dict[str, scoring.Values]]:
    """Go on from the copies of the first seeds; the measures `[S]` of the greedy policies at the end."""
    seeds = config.pass_seeds
    keys = jax.random.split(jax.random.key(config.seed + 3), seeds)
    first = jax.tree.map(lambda x: x[:seeds], copies)
    gone = go_on(score.problem, config.plan.ascent, first, keys, config.pass_updates, recorder)
    at_end = lambda run: score.copies(jax.tree.map(lambda x: np.asarray(x)[:, None], run.params))
    values = {name: {key: x[:, 0] for key, x in at_end(run).items()} for name, run in gone.items()}
    for name, of_measure in values.items():
        for measure, reached in of_measure.items():
            scoring.record(f"{measure} after the policy gradient", name, diagnostics.mean_interval(reached), recorder)
    return gone, values


def pass_a_mediocre_expert(
    config: Any, fitting: copying.Fitting, recorder: runner.Recorder
) -> tuple[dict[str, Gone], float]:
    """Copy a mediocre expert of CartPole, then run REINFORCE from the copy and from scratch; and its return."""
    problem, expert_return = problems.mediocre_cartpole(config.hidden, config.seed)
    seeds = config.pass_seeds
    keys = jax.random.split(jax.random.key(config.seed + 3), seeds)
    one = copying.clones(problem, fitting.of(problem), config.episodes)
    last = lambda key: jax.tree.map(lambda x: x[-1], one(key))
    copies = jax.jit(lambda keys: jax.lax.map(last, keys))(keys)
    gone = go_on(problem, config.plan.ascent, copies, keys, config.pass_updates, recorder)
    lines, quantity = [], "updates until 25 % above the mediocre expert"
    for name, run in gone.items():
        first, reached = updates_until(run.returns, 1.25 * expert_return[0])
        lines.append((quantity, name, diagnostics.mean_interval(first)))
        if reached < seeds:
            missing = f"{seeds - reached} of {seeds}"
            recorder.note(
                f"{name}: {missing} seeds never reached this return and count as {config.pass_updates} updates."
            )
        lines.append(("return at the end", name, diagnostics.mean_interval(run.returns[:, -5:].mean(axis=1))))
    for line in lines:
        scoring.record(*line, recorder)
    recorder.row(quantity="return of the mediocre expert", ours=expert_return[0], stderr=expert_return[1])
    headers = ["quantity", "start", "value ± s.e.", "95 % interval"]
    made = [(quantity, name, *scoring.cells(found)) for quantity, name, found in lines]
    made.append(("return of the mediocre expert", "", runner.format_number(*expert_return), ""))
    recorder.table("Passing a mediocre expert", headers, made, numeric=headers[2:])
    return gone, expert_return[0]


def updates_until(returns: np.ndarray, level: float) -> tuple[np.ndarray, int]:
    """The number of updates `[S]` after which three successive batches average `level`, from returns `[S, U]`.

    Batch u is played after u updates. Three batches are needed so that one lucky batch does not count. A run that never
    reaches the level counts as U. The second result is the number of runs that reached it.
    """
    window = min(3, returns.shape[1])
    above = np.lib.stride_tricks.sliding_window_view(returns, window, axis=1).mean(axis=2) >= level
    first = np.where(above.any(axis=1), above.argmax(axis=1) + window - 1, returns.shape[1])
    return first.astype(float), int(above.any(axis=1).sum())
