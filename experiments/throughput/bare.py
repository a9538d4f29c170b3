"""Part (d): bare environment steps per second of the seven problems, against the number of lanes. Axes: B lanes.

The recommendation problem has two environments, slates and ads, so there are eight entries.
"""

import statistics
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from experiments.harness import runner, verdicts
from experiments.throughput.measuring import Measured, Program, measure
from pgjax import environments, rollouts
from pgjax.types import Environment

PROBLEMS = ("maze", "navigation", "swimmer", "slates", "ads", "Breakout-MinAtar", "cooling", "reverse")
WINDOW = 32  # steps of every lane in one call
Found = dict[str, dict[int, Measured]]


def program_of(environment: Environment, lanes: int, seed: int) -> Program:
    """`lanes → (lanes, live steps, sum of rewards)` for 32 steps with random actions, and the first lanes.

    The program also returns the sum of the observations. Random actions do not depend on the observations, so without
    this sum nobody would read them, and the compiler would leave out the work of computing them.
    """
    policy = environments.random_policy(environment)

    def run(carry: rollouts.Lanes) -> tuple[rollouts.Lanes, jax.Array, tuple]:
        carry, played, _ = rollouts.window(environment, policy, (), carry, WINDOW)
        seen = sum(jnp.sum(x, dtype=jnp.float32) for x in jax.tree.leaves(played.obs))
        return carry, jnp.sum(played.alive), (jnp.sum(played.rewards), seen)

    start = rollouts.start_lanes(environment, policy, (), jax.random.split(jax.random.key(seed), lanes))
    return Program(run=run, carry=start)


def measure_problems(
    names: Sequence[str],
    lanes: Sequence[int],
    seconds: float,
    repetitions: int,
    seed: int,
    recorder: runner.Recorder,
) -> Found:
    """Name → number of lanes → measurements. Rows go to the recorder."""
    found: Found = {}
    with recorder.progress(len(names) * len(lanes), "problems", "programs") as progress:
        for name in names:
            environment = environments.make(name)
            for count in lanes:
                one = measure(program_of(environment, count, seed), count, seconds, repetitions)
                found.setdefault(name, {})[count] = one
                median = statistics.median(one.rates)
                recorder.row(
                    quantity=f"(d) 10⁶ steps/s, random actions, {count} lanes",
                    variant=name,
                    ours=median / 1e6,
                    verdict=verdicts.say(
                        verdicts.Verdict.NOT_JUDGED, f"{min(one.rates) / 1e6:.3g} to {max(one.rates) / 1e6:.3g}"
                    ),
                    seconds=one.compile_seconds,
                )
                progress.advance(1, f"{name}, {count} lanes: {median / 1e6:.3g} M steps/s")
    return found


def draw(found: Found, recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    rate = lambda one: statistics.median(one.rates) / 1e6
    best = {name: max(map(rate, by_lanes.values())) for name, by_lanes in found.items()}
    fastest, slowest = max(best, key=best.__getitem__), min(best, key=best.__getitem__)
    figure, axes = plots.figure(
        f"Random steps per second: from {best[slowest]:.2g} M on {slowest} to {best[fastest]:.2g} M on {fastest}",
        "Medians with the lowest and the highest repetition; each name ends with the number of lanes at once.",
        width=8,
        height=1.5 + 0.3 * sum(map(len, found.values())),
    )
    bars = {
        f"{name}, {count}": (rate(one), min(one.rates) / 1e6, max(one.rates) / 1e6)
        for name, by_lanes in found.items()
        for count, one in by_lanes.items()
    }
    plots.bars_with_intervals(axes, bars, scale="log")
    axes.set_xlabel("10⁶ steps per second (log scale)")
    recorder.figure(figure, "throughput_problems")
