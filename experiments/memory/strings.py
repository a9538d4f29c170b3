"""Reverse a string with a transformer: the training, and tokens per second beside a hand-written JAX program."""

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.harness import runner, verdicts
from experiments.memory.peer import make_token_peer
from experiments.shared import learning_curves
from pgjax import baselines, estimators, evaluation, networks, rollouts, training
from pgjax.environments.reverse import all_right, make_reverse
from pgjax.types import Environment, Policy, TrainState

PGJAX, PEER, ALL = "pgjax, one device", "hand-written JAX, one device", "pgjax, all devices"
AIM = 1.0  # of the ratio pgjax / peer
VOCABULARY = 9
SOLVED, MOST_SECONDS = 0.99, 30.0  # the aims: share of right answers, and seconds a seed


class Recipe(NamedTuple):
    """The transformer and its training: RLOO in groups that share a prompt, and Adam."""

    hidden: tuple[int, ...]
    heads: int
    learning_rate: float
    group_size: int

    def policy(self, environment: Environment) -> Policy:
        options = {"heads": self.heads}
        return networks.make_policy(environment, network="transformer", hidden=self.hidden, network_options=options)

    def trainer(self, environment: Environment, episodes: int) -> training.Trainer:
        return make_rloo_trainer(environment, self.policy(environment), self.learning_rate, episodes, self.group_size)


def make_rloo_trainer(
    environment: Environment, policy: Policy, learning_rate: float, episodes: int, group_size: int | None = None
) -> training.Trainer:
    """A trainer with RLOO and Adam. Each return is compared with the others of its group, or of the batch if None."""
    baseline = baselines.leave_one_out(group_size=group_size)
    estimator = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=baseline)
    return training.make_trainer(environment, policy, estimator, optax.adam(learning_rate), num_episodes=episodes)


# Learning to reverse.


def learn_to_reverse(
    recipe: Recipe,
    length: int,
    recorder: runner.Recorder,
    *,
    episodes: int,
    num_updates: int,
    every: int,
    seeds: range,
    num_prompts: int,
) -> learning_curves.Learnt:
    """Train one seed after the other, and judge each on prompts that training never draws."""
    environment, asked = (make_reverse(length, VOCABULARY, prompts=part) for part in ("train", "held_out"))
    trainer, policy = recipe.trainer(environment, episodes), evaluation.greedy(recipe.policy(environment))

    def share(state: TrainState) -> jax.Array:
        # Updates fold small numbers into the key of the run. They never reach this number.
        keys = jax.random.split(jax.random.fold_in(state.key, 2**31 - 1), num_prompts)
        return jnp.mean(all_right(rollouts.episodes(asked, policy, state.params, keys).final_obs))

    how = {"seeds": seeds, "num_updates": num_updates, "every": every, "recorder": recorder}
    return learning_curves.learn(trainer, share, name=f"reverse {length} symbols", **how)


def record_reversed(found: dict[int, learning_curves.Learnt], recorder: runner.Recorder) -> None:
    tiny = verdicts.is_tiny(recorder)
    for length, one in found.items():
        variant, count = f"{length} symbols", len(one.shares)
        updates, seconds = (learning_curves.until(one, SOLVED, x) for x in (one.updates, one.seconds))
        for run, curve in enumerate(one.shares):
            recorder.metrics({"length": length, "run": run, "updates": one.updates, "right": curve})
        last = one.shares[:, -1]
        solved = int((last >= SOLVED).sum())
        all_solved = verdicts.of_aim(solved == count, "all", tiny=tiny)
        recorder.row(quantity=f"(b) seeds solved of {count}", variant=variant, ours=solved, verdict=all_solved)
        learning_curves.row_of_runs(
            recorder, last, quantity="(b) share of held-out prompts right everywhere", variant=variant
        )
        slowest = verdicts.say(verdicts.Verdict.NOT_JUDGED, f"{updates.min():g} to {updates.max():g}")
        quantity = f"(b) updates until {SOLVED:.0%}, median"
        recorder.row(quantity=quantity, variant=variant, ours=float(np.median(updates)), verdict=slowest)
        aim, taken = f"< {MOST_SECONDS:g} each", f"{seconds.min():.1f} to {seconds.max():.1f}"
        recorder.row(
            quantity=f"(b) seconds until {SOLVED:.0%}, median",
            variant=variant,
            ours=float(np.median(seconds)),
            verdict=verdicts.of_aim(seconds.max() < MOST_SECONDS, aim, taken, tiny=tiny),
        )
        recorder.row(quantity="(b) compile seconds", variant=variant, ours=one.compile_seconds)
    recorder.note(
        f"(b) A seed is solved if {SOLVED:.0%} of its answers are right at the end. Updates and seconds are counted up "
        f"to the first evaluation with {SOLVED:.0%}, on one device, without compilation and evaluation; they are "
        "infinite for a seed that never gets there. Ranges are over seeds."
    )


# Tokens per second.


class Rates(NamedTuple):
    """Program → sampled tokens per second of every repetition; the ratio of each pair; compile seconds."""

    tokens: dict[str, list[float]]
    ratios: list[float]
    compile_seconds: dict[str, float]


def _ours(trainer: training.Trainer, updates: int, seed: int) -> tuple[Any, Callable]:
    """A state, and a function `state → state` of `updates` updates."""
    run = lambda state: jax.lax.scan(lambda state, _: trainer.update(state), state, length=updates)[0]
    return jax.jit(trainer.init)(jax.random.key(seed)), run


def _theirs(init: Callable, run: Callable, updates: int, seed: int) -> tuple[Any, Callable]:
    key, run_key = jax.random.split(jax.random.key(seed))

    def several(carry: tuple) -> tuple:
        state, key = carry
        key, chunk_key = jax.random.split(key)
        return run(state, jax.random.split(chunk_key, updates))[0], key

    return (init(key), run_key), several


def _compiled(state: Any, run: Callable) -> tuple[Callable, float]:
    start = time.perf_counter()
    compiled = jax.jit(run, donate_argnums=0).lower(state).compile()
    return compiled, time.perf_counter() - start


def measure(recipe: Recipe, length: int, episodes: int, updates: int, repetitions: int, seed: int) -> Rates:
    """Measure one problem: pgjax and its peer take turns on the first device; then pgjax runs on all devices.

    A repetition is a program of `updates` updates: sampling, gradient and Adam. The first repetition does not count.
    """
    build = lambda _: recipe.trainer(make_reverse(length, VOCABULARY), episodes)
    peer = make_token_peer(
        length,
        VOCABULARY,
        episodes,
        recipe.group_size,
        width=recipe.hidden[0],
        layers=len(recipe.hidden),
        heads=recipe.heads,
        learning_rate=recipe.learning_rate,
    )
    tokens = updates * episodes * length
    found: dict[str, list[float]] = {PGJAX: [], PEER: [], ALL: []}
    with jax.default_device(jax.local_devices()[0]):
        states, programs, compile_seconds = {}, {}, {}
        for name, (state, run) in {PGJAX: _ours(build(()), updates, seed), PEER: _theirs(*peer, updates, seed)}.items():
            programs[name], compile_seconds[name] = _compiled(state, run)
            states[name] = jax.block_until_ready(programs[name](state))
        for repetition in range(repetitions):
            # The programs also take turns in going first, so that a machine that slows down favours neither.
            for name in (PGJAX, PEER) if repetition % 2 else (PEER, PGJAX):
                start = time.perf_counter()
                states[name] = jax.block_until_ready(programs[name](states[name]))
                found[name].append(tokens / (time.perf_counter() - start))
    ended: list[float] = []
    trained = training.train(
        build,
        jax.random.key(seed)[None],
        num_updates=updates * (repetitions + 1),
        chunk=updates,
        on_chunk=lambda *_: ended.append(time.perf_counter()),
    )
    found[ALL] = [tokens / (later - earlier) for earlier, later in itertools.pairwise(ended)]
    compile_seconds[ALL] = trained.compile_seconds
    ratios = [ours / theirs for ours, theirs in zip(found[PGJAX], found[PEER], strict=True)]
    return Rates(tokens=found, ratios=ratios, compile_seconds=compile_seconds)


def record_rates(rates: dict[tuple[int, int], Rates], recorder: runner.Recorder) -> None:
    """Record rows: medians with ranges, and the ratio, which is judged by its aim."""
    spread = lambda x, digits: f"{min(x):.{digits}f} to {max(x):.{digits}f}"
    tiny = verdicts.is_tiny(recorder)
    for (length, episodes), found in rates.items():
        problem = f"{length} symbols, {episodes} episodes"
        for name, values in found.tokens.items():
            thousands = [value / 1e3 for value in values]
            recorder.row(
                quantity=f"(c) 10³ tokens/s, {problem}",
                variant=name,
                ours=statistics.median(thousands),
                verdict=verdicts.say(verdicts.Verdict.NOT_JUDGED, spread(thousands, 1)),
                seconds=found.compile_seconds[name],
            )
        ratio = statistics.median(found.ratios)
        verdict = verdicts.of_aim(ratio >= AIM, f"≥ {AIM:g}", spread(found.ratios, 2), tiny=tiny)
        quantity, variant = f"(c) ratio, {problem}", "pgjax / hand-written JAX, one device"
        recorder.row(quantity=quantity, variant=variant, ours=ratio, verdict=verdict)
    recorder.note(
        "(c) Only sampled tokens are counted, not those of the prompt. Medians and ranges are over repetitions. The "
        f"two programs took turns on one of {jax.local_device_count()} devices. Seconds are those of compiling."
    )
