"""How fast is it: live environment steps per second, compile seconds, memory, share of the machine's arithmetic.

Claim    Complete episodes, weights first and one gradient in pieces that fit the cache make plain REINFORCE fast enough
         that CartPole-v1 is solved in less time than it takes to compile the program that learns it.
Command  python -m experiments.throughput
Shows    (a) seconds until 100 greedy evaluation episodes of CartPole-v1 average 475, from the start of a new Python
         process, with an empty and with a warm compilation cache, and the seconds of learning in them; (b) live steps
         per second of the environment, the rollout, and the update without and with a value network, at a policy that
         survives, with the compile seconds, the memory and the CPU time of each program; (c) the share of this
         machine's measured rate of matrix products that they reach. All devices share the episodes of an update; there
         is one CPU device for each core.
Expect   Aims on two CPU cores: 3.2 million live steps per second without a value network and 2.0 million with one; all
         seeds solved, in 0.3 s of learning, 4.5 s after the process began, 1.5 s with a warm cache. Other people's
         one-epoch actor-critics in JAX ran at 0.5–0.6 million steps per second on another two-core machine. Two to
         eight minutes on two CPU cores.
Defines  Live steps: those of episodes that still run; padding is not counted. Learning: the calls of the update
         (rollout, gradient, Adam), without imports, compilation and evaluation. A rate is the median of repetitions,
         beside the lowest and the highest; other work on the machine lowers all of them.
"""

import dataclasses
import math
import os
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner, verdicts
from experiments.throughput.solve import make_trainer, time_to_solve
from pgjax import baselines, environments, networks, rollouts, training
from pgjax.distributions import categorical
from pgjax.training import sharding
from pgjax.types import Policy

AIMS = {"REINFORCE": 3.2e6, "REINFORCE with a value network": 2.0e6}
ROLLOUT = "rollout"
BARE = "environment, random actions"


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of the experiment; the defaults are what the README shows."""

    batches: tuple[int, ...] = (64, 1024, 8192)
    """Episodes at once, one measurement of every program for each."""
    measure_seconds: float = 4.0
    """How long a program is repeated; three times at least."""
    hidden: tuple[int, ...] = (64, 64)
    """Widths of the dense layers of the policy and the value."""
    practice: int = 40
    """Updates of 64 episodes before the rates are measured, so that the policy survives."""
    seeds: int = 10
    """Runs of the time to solve, with a new process each; 0 leaves it out."""
    episodes: int = 64
    """Episodes in an update of the time to solve."""
    learning_rate: float = 0.02
    """Adam's η."""
    max_updates: int = 200
    """Updates after which a seed counts as not solved."""
    seed: int = 0
    """Of everything; the seeds of the time to solve count up from it."""

    def validate(self) -> None:
        runner.require(len(self.batches) > 0, "--batches", self.batches, "at least one number")
        runner.require(min(self.batches) >= 1, "--batches", self.batches, "at least 1 each")
        finite = 0 <= self.measure_seconds < math.inf
        runner.require(finite, "--measure-seconds", self.measure_seconds, "at least 0 and finite")
        runner.require(all(width >= 1 for width in self.hidden), "--hidden", self.hidden, "at least 1 each")
        runner.require(0 <= self.seed <= 2**30, "--seed", self.seed, "in [0, 2³⁰]")
        runner.require(self.practice >= 0, "--practice", self.practice, "at least 0")
        runner.require(self.seeds >= 0, "--seeds", self.seeds, "at least 0")
        runner.require(self.episodes >= 1, "--episodes", self.episodes, "at least 1")
        runner.require(0 < self.learning_rate < math.inf, "--learning-rate", self.learning_rate, "above 0 and finite")
        runner.require(self.max_updates >= 1, "--max-updates", self.max_updates, "at least 1")


TINY = Config(batches=(2,), measure_seconds=0.0, hidden=(4,), practice=0, seeds=0)


# (b) Rates.


class Measured(NamedTuple):
    """Live steps per second of every repetition, what the compiled program needs, and CPU seconds for a live step."""

    rates: list[float]
    compile_seconds: float
    mebibytes: float
    cpu_seconds: float


def compiled_for_all(program: Callable, carry: Any, batch: int) -> tuple[Callable, Any]:
    """The compiled program and its carry; the devices share the episodes where their number allows."""
    devices = sharding.choose_devices(None)
    layout = sharding.choose_layout(devices, 1, batch, 1, deterministic=True)
    if not isinstance(layout, sharding.SharedEpisodes):
        return jax.jit(program, donate_argnums=0).lower(carry).compile(), carry
    carry = layout.scatter(carry)
    return layout.compiled(program, carry, donate_argnums=0, out_shardings=(layout.whole, None, None)), carry


def measure(program: Callable, carry: Any, batch: int, seconds: float) -> Measured:
    """Repeats `carry → (carry, live steps, what must be computed too)`; its first carry is left intact."""
    carry = jax.tree.map(jnp.copy, carry)
    start = time.perf_counter()
    compiled, carry = compiled_for_all(program, carry, batch)
    compile_seconds = time.perf_counter() - start
    memory = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    carry = jax.block_until_ready(compiled(carry))[0]
    rates, total, begin, cpu = [], 0, time.perf_counter(), time.process_time()
    while len(rates) < 3 or time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        carry, num_steps, _ = jax.block_until_ready(compiled(carry))
        rates.append(int(num_steps) / (time.perf_counter() - start))
        total += int(num_steps)
    return Measured(
        rates=rates,
        compile_seconds=compile_seconds,
        mebibytes=(held + memory.temp_size_in_bytes) / 2**20,
        cpu_seconds=(time.process_time() - cpu) / total,
    )


def programs(config: Config, policy: Policy, params: Any, batch: int) -> dict[str, tuple[Callable, Any]]:
    """Name → (program, carry) of what is measured, for one number of episodes at once."""
    environment = environments.make("CartPole-v1")
    coin = lambda key, parameters: jax.random.bernoulli(key).astype(jnp.int32)
    random_policy = Policy(
        init=lambda key, obs: (), apply=lambda params, obs: (), distribution=categorical._replace(sample=coin)
    )
    # The update must do all its work and leave the policy as good as it is.
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
    """Parameters of a policy that survives, and the mean length of 64 of its episodes."""
    trainer = make_trainer(policy, optax.adam(0.01), 64)
    state = trainer.init(jax.random.key(config.seed))
    update = jax.jit(trainer.update)
    for _ in range(config.practice):
        state, metrics = update(state)
    return state.params, float(metrics["mean_length"]) if config.practice else math.nan


# (c) Arithmetic.


def matrix_product_rate() -> float:
    """Operations per second of `[N, 64] × [64, 64]` in float32, the best of several N: 2 · 64² for each row."""
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
    """Floating-point operations for one live step, from the compiler's count of loop-free pieces.

    The compiler counts the body of a loop once, however often it runs, so the whole programs cannot be asked: a forward
    pass and the gradient of a sum over rows are compiled without loops, and their counts divided by the rows. The
    environment, random numbers, tanh and the optimiser are left out.
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
    """Name → episodes at once → what was measured. Rows go to the recorder."""
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
    recorder.note(f"(b) After {config.practice} practice updates an episode lasts {length:.0f} steps.")
    recorder.note(f"(b) {jax.local_device_count()} devices (--devices) share the episodes where they can.")
    recorder.note(f"(c) 10³ operations for a live step, counted in loop-free pieces: {counted}.")
    if hasattr(os, "getloadavg"):
        load = ", ".join(f"{number:.1f}" for number in os.getloadavg())
        recorder.note(f"Load of {os.cpu_count()} cores after the measurements: {load} (1, 5, 15 minutes).")
    return found


def run(config: Config, recorder: runner.Recorder) -> dict[str, Any]:
    solved = {}
    if config.seeds:
        with recorder.timed("(a) time to solve"):
            options = {"hidden": config.hidden, "episodes": config.episodes, "learning_rate": config.learning_rate}
            options |= {"max_updates": config.max_updates}
            solved = time_to_solve(range(config.seed, config.seed + config.seeds), options, recorder)
    with recorder.timed("(b) and (c) rates"):
        return {"solved": solved, "rates": rates(config, recorder)}


def plot(results: dict[str, Any], recorder: runner.Recorder) -> None:
    from experiments.harness import plots

    title = "Live environment steps per second on CartPole-v1, learning included, and the seconds to solve it"
    caption = (
        "Left: medians with the lowest and the highest repetition; each name ends with the episodes at once. Right: "
        "seconds until 100 evaluation episodes average 475, medians and ranges over seeds."
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
