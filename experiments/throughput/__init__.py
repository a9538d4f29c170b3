"""How fast is pgjax? Live environment steps per second, compile seconds, memory, and share of the arithmetic rate.

Claim    Plain REINFORCE is so fast that it solves CartPole-v1 in less time than the compilation of its program takes.
         It plays complete episodes, computes their weights, and then takes one gradient in pieces that fit the cache.
Command  python -m experiments.throughput
Shows    (a) The seconds until 100 greedy evaluation episodes of CartPole-v1 average 475, counted from the start of a
         new Python process, with an empty and with a warm compilation cache, and the seconds of learning among them.
         (b) The live steps per second of the environment, of the rollout, and of the update without and with a value
         network, for a policy whose episodes are long, with the compile seconds, the memory and the CPU time of each
         program. All devices share the episodes of an update. Every CPU core is one device.
         (c) The rate of arithmetic of these programs as a share of the measured rate of matrix products.
         (d) The live steps per second of the seven problems (recommendation has two environments, slates and ads) with
         random actions, against the number of lanes.
Expect   The aims on two CPU cores are 3.2 million live steps per second without a value network and 2.0 million with
         one, and that all seeds are solved with 0.3 s of learning, 4.5 s after the process began, or 1.5 s with a warm
         cache. Other people's one-epoch actor-critics in JAX ran at 0.5–0.6 million steps per second on another
         two-core machine. Two to eight minutes on two CPU cores.
Defines  A live step is a step of an episode that still runs; padding is not counted. Learning means the calls of the
         update (rollout, gradient, Adam), without imports, compilation and evaluation. A rate is the median of its
         repetitions, shown beside the lowest and the highest. Other work on the machine lowers all of them.
"""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner, verdicts
from experiments.shared import memory
from experiments.throughput import bare
from experiments.throughput.measuring import Measured, measure
from experiments.throughput.solve import make_trainer, time_to_solve
from pgjax import baselines, environments, networks, rollouts, training
from pgjax.distributions import categorical
from pgjax.types import Policy

AIMS = {"REINFORCE": 3.2e6, "REINFORCE with a value network": 2.0e6}
ROLLOUT = "rollout"
BARE = "environment, random actions"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of this experiment. The defaults give the results that experiments/README.md shows."""

    batches: tuple[int, ...] = (64, 1024, 8192)
    """The numbers of episodes at once. Every program is measured once for each of them."""
    measure_seconds: float = 4.0
    """The time in seconds during which a program is repeated. It runs at least three times."""
    problems: tuple[str, ...] = bare.PROBLEMS
    """The environments of part (d); none leaves it out."""
    lanes: tuple[int, ...] = (64, 1024)
    """Part (d): the numbers of lanes, whose episodes restart when they end."""
    hidden: tuple[int, ...] = (64, 64)
    """The widths of the dense layers of the policy and of the value network."""
    practice: int = 40
    """The number of updates of 64 episodes before the rates are measured. They train a policy whose episodes are
    long."""
    seeds: int = 10
    """The number of runs that measure the time to solve, each in a new process; 0 leaves this part out."""
    episodes: int = 64
    """The number of episodes in an update, for the time to solve."""
    learning_rate: float = 0.02
    """The learning rate η of Adam, for the time to solve."""
    max_updates: int = 200
    """The number of updates after which a seed counts as not solved."""
    seed: int = 0
    """The seed of every random number. The seeds of the time to solve count up from it."""

    BATCH: ClassVar[str] = "batches"

    def memory(self) -> dict[str, float]:
        """The bytes of the largest program: an update with a value network."""
        batch, environment = max(self.batches), environments.make("CartPole-v1")
        policy = networks.make_policy(environment, hidden=self.hidden)
        value = baselines.value_function(*networks.make_value(environment, hidden=self.hidden), optax.adam(1e-3))
        found = training.estimate_memory(make_trainer(policy, optax.adam(1e-3), batch, value))
        # The episodes are a result of the program that only plays them, and are held twice.
        episodes = memory.of_episodes(environment, batch)
        return {f"an update of {batch} episodes": found.total, "the episodes, as a result": episodes}

    def validate(self) -> None:
        runner.require(len(self.batches) > 0, "--batches", self.batches, "at least one number")
        runner.require_counts(self, "batches", "hidden", "episodes", "max_updates", "lanes")
        with runner.usage_errors():
            for name in self.problems:
                environments.make(name)
        runner.require_counts(self, "practice", "seeds", least=0)
        finite = 0 <= self.measure_seconds < math.inf
        runner.require(finite, "--measure-seconds", self.measure_seconds, "at least 0 and finite")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        runner.require_rate("--learning-rate", self.learning_rate)


TINY = Config(batches=(2,), problems=("maze",), lanes=(2,), measure_seconds=0.0, hidden=(4,), practice=0, seeds=0)


# (b) Rates.


def programs(config: Config, policy: Policy, params: Any, batch: int) -> dict[str, tuple[Callable, Any]]:
    """Name → (program, carry) of every program that is measured, for one number of episodes at once."""
    environment = environments.make("CartPole-v1")
    coin = lambda key, parameters: jax.random.bernoulli(key).astype(jnp.int32)
    random_policy = Policy(
        init=lambda key, obs: (), apply=lambda params, obs: (), distribution=categorical._replace(sample=coin)
    )
    # The update must do all its work, but must not change the policy.
    still = optax.adam(1e-12)
    value = baselines.value_function(*networks.make_value(environment, hidden=config.hidden), optax.adam(1e-3))
    key = jax.random.key(config.seed + 1)

    def rollout(one_policy: Policy) -> Callable:
        def program(carry):
            one_params, key = carry
            key, episodes_key = jax.random.split(key)
            keys = jax.random.split(episodes_key, batch)
            trajectory = rollouts.episodes(environment, one_policy, one_params, keys)
            return (one_params, key), jnp.sum(trajectory.alive), trajectory

        return program

    def update(trainer: training.Trainer) -> tuple[Callable, Any]:
        def program(state):
            state, metrics = trainer.update(state)
            return state, metrics["num_steps"], ()

        return program, trainer.init(key)._replace(params=params)

    names = iter(AIMS)
    return {
        BARE: (rollout(random_policy), ((), key)),
        ROLLOUT: (rollout(policy), (params, key)),
        next(names): update(make_trainer(policy, still, batch)),
        next(names): update(make_trainer(policy, still, batch, value)),
    }


def practised(config: Config, policy: Policy) -> tuple[Any, float]:
    """The parameters of a policy whose episodes are long, and the mean length of 64 of its episodes."""
    trainer = make_trainer(policy, optax.adam(0.01), 64)
    state = trainer.init(jax.random.key(config.seed))
    update = jax.jit(trainer.update)
    for _ in range(config.practice):
        state, metrics = update(state)
    return state.params, float(metrics["mean_length"]) if config.practice else math.nan


# (c) Arithmetic.


def matrix_product_rate() -> float:
    """The largest rate, over several N, of `[N, 64] × [64, 64]` in float32: 2 · 64² operations for each row."""
    total, best = 2**18, 0.0
    product = jax.jit(lambda x, w, times: jax.lax.fori_loop(0, times, lambda _, x: x @ w, x))
    for rows in (256, 1024, 4096, 16384):
        arguments = (jnp.ones((rows, 64)), jnp.eye(64), total // rows)
        jax.block_until_ready(product(*arguments))
        for _ in range(20):
            start = time.perf_counter()
            jax.block_until_ready(product(*arguments))
            best = max(best, total * 2 * 64**2 / (time.perf_counter() - start))
    return best


def operations_per_step(config: Config, policy: Policy, params: Any) -> dict[str, float]:
    """Floating-point operations for one live step, from the compiler's count of pieces without loops.

    The compiler counts the body of a loop once, however often it runs, so its count of a whole program is too low. A
    forward pass and the gradient of a sum over rows are therefore compiled without loops, and their counts are divided
    by the number of rows. The environment, random numbers, tanh and the optimiser are left out.
    """
    rows, environment = 256, environments.make("CartPole-v1")
    obs, actions = jnp.zeros((rows, 4)), jnp.zeros(rows, jnp.int32)
    init, apply_value = networks.make_value(environment, hidden=config.hidden)
    value_params = init(jax.random.key(0), obs[0])
    many = lambda function: jax.vmap(function, (None, 0))
    log_probs = lambda p: jax.vmap(policy.distribution.log_prob)(many(policy.apply)(p, obs), actions)
    count = lambda function, p: jax.jit(function).lower(p).compile().cost_analysis()["flops"] / rows
    forward = count(lambda p: many(policy.apply)(p, obs), params)
    gradient = count(jax.grad(lambda p: jnp.sum(log_probs(p))), params)
    predict = count(lambda p: many(apply_value)(p, obs), value_params)
    fit = count(jax.grad(lambda p: jnp.sum(jnp.square(many(apply_value)(p, obs)))), value_params)
    plain, critic = AIMS
    return {
        ROLLOUT: forward,
        plain: forward + gradient,
        critic: forward + gradient + predict + fit,
    }


def rates(config: Config, recorder: runner.Recorder) -> dict[str, dict[int, Measured]]:
    """Name → number of episodes at once → its measurements. Rows go to the recorder."""
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=config.hidden)
    params, length = practised(config, policy)
    operations, peak = operations_per_step(config, policy, params), matrix_product_rate()
    recorder.row(quantity="(c) matrix products, 10⁹ operations/s", variant="[N, 64] × [64, 64]", ours=peak / 1e9)
    found: dict[str, dict[int, Measured]] = {}
    with recorder.progress(4 * len(config.batches), "rates", "programs") as progress:
        for batch in config.batches:
            for name, (program, carry) in programs(config, policy, params, batch).items():
                one = measure(program, carry, batch, config.measure_seconds)
                found.setdefault(name, {})[batch] = one
                recorder.metrics({"program": name, "episodes": batch, "steps_per_second": one.rates})
                progress.advance(1, f"{name}: {statistics.median(one.rates) / 1e6:.2f} M steps/s")
    for name, by_batch in found.items():
        for batch, one in by_batch.items():
            where, median = f"{name}, {batch} episodes", statistics.median(one.rates)
            recorder.row(
                quantity="(b) 10⁶ live steps/s",
                variant=where,
                ours=median / 1e6,
                verdict=f"not judged: {min(one.rates) / 1e6:.2f} to {max(one.rates) / 1e6:.2f}",
                seconds=one.compile_seconds,
            )
            recorder.row(quantity="(b) CPU microseconds for a live step", variant=where, ours=one.cpu_seconds * 1e6)
            recorder.row(quantity="(b) memory of a device, MiB", variant=where, ours=one.mebibytes)
            if name in operations:
                share = median * operations[name] / peak
                recorder.row(quantity="(c) share of the matrix-product rate", variant=where, ours=share)
    for name, aim in AIMS.items():
        best = max(statistics.median(one.rates) for one in found[name].values())
        verdict = verdicts.of_aim(best >= aim, f"≥ {aim / 1e6:g}", tiny=verdicts.is_tiny(recorder))
        recorder.row(quantity="(b) 10⁶ live steps/s, best", variant=name, ours=best / 1e6, verdict=verdict)
    counted = ", ".join(f"{name} {number / 1e3:.0f}" for name, number in operations.items())
    recorder.note(f"(b) After {config.practice} updates of practice an episode lasts {length:.0f} steps.")
    recorder.note(f"(b) {jax.local_device_count()} devices (--devices) share the episodes, if their number allows it.")
    recorder.note(f"(c) Operations for a live step, in thousands, counted in pieces without loops: {counted}.")
    if hasattr(os, "getloadavg"):
        load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
        recorder.note(f"Load of the {os.cpu_count()} cores after the measurements, over 1, 5 and 15 minutes: {load}.")
    return found


def run(config: Config, recorder: runner.Recorder) -> dict[str, Any]:
    solved = {}
    if config.seeds:
        with recorder.timed("(a) time to solve"):
            options = {"hidden": config.hidden, "episodes": config.episodes, "learning_rate": config.learning_rate}
            options |= {"max_updates": config.max_updates}
            solved = time_to_solve(range(config.seed, config.seed + config.seeds), options, recorder)
    with recorder.timed("(b) and (c) rates"):
        found = rates(config, recorder)
    with recorder.timed("(d) problems"):
        bare_rates = bare.measure_problems(config.problems, config.lanes, config.measure_seconds, config.seed, recorder)
    return {"solved": solved, "rates": found, "bare": bare_rates}


def plot(results: dict[str, Any], recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    title = "Live environment steps per second on CartPole-v1, learning included, and the seconds to solve it"
    caption = (
        "Left: medians with the lowest and the highest repetition; each name ends with the number of episodes at once. "
        "Right: seconds until 100 evaluation episodes average 475, medians and ranges over seeds."
    )
    bars = {
        f"{name}, {batch}": [rate / 1e6 for rate in one.rates]
        for name, by_batch in results["rates"].items()
        for batch, one in by_batch.items()
    }
    spans = {
        f"{quantity}, {cache}": [one[key] for one in runs]
        for cache, runs in results["solved"].items()
        for quantity, key in (("from process start", "seconds"), ("learning alone", "learning_seconds"))
    }
    panels = {"10⁶ live steps per second": bars} | ({"seconds": spans} if spans else {})
    figure, axes = plots.figure(title, caption, columns=len(panels), width=6.5 * len(panels), height=5)
    for ax, (label, values) in zip(np.atleast_1d(axes), panels.items()):
        found = {name: (statistics.median(x), min(x), max(x)) for name, x in values.items()}
        plots.bars_with_intervals(ax, found, scale="log")
        ax.set_xlabel(label)
    recorder.figure(figure, "throughput")
    if results["bare"]:
        bare.draw(results["bare"], recorder)
