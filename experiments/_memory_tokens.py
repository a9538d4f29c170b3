"""Tokens per second of pgjax and of hand-written JAX on `reverse`, in turns on the same device."""

import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from experiments import _runner as runner
from experiments._token_peer import make_token_peer
from pgjax import baselines, estimators, networks, training
from pgjax.environments.reverse import make_reverse
from pgjax.types import Environment

PGJAX, PEER, ALL = "pgjax, one device", "hand-written JAX, one device", "pgjax, all devices"
AIM = 1.0  # of the ratio pgjax / peer
VOCABULARY = 9


class Rates(NamedTuple):
    """Sampled tokens per second of every repetition of one problem, by program; the ratio of each pair in turn."""

    tokens: dict[str, list[float]]
    ratios: list[float]
    compile_seconds: dict[str, float]


def make_rloo_trainer(
    environment: Environment, learning_rate: float, episodes: int, group_size: int | None, **options: Any
) -> training.Trainer:
    """RLOO: the total return minus the mean of the others of its group (of the batch if None), and Adam.

    `options` are those of `networks.make_policy`.
    """
    policy = networks.make_policy(environment, **options)
    estimator = estimators.make_estimator(
        policy, returns=estimators.total_return(), baseline=baselines.leave_one_out(group_size=group_size)
    )
    optimizer = optax.adam(learning_rate)
    return training.make_trainer(environment, policy, estimator, optimizer, num_episodes=episodes)


def _ours(trainer: training.Trainer, updates: int, seed: int) -> tuple[Any, Callable]:
    """A state, and `state → state` of so many updates."""
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


def measure(
    length: int, episodes: int, group_size: int, learning_rate: float, updates: int, repetitions: int, seed: int
) -> Rates:
    """One problem: pgjax and its peer in turns on the first device, and pgjax on all devices afterwards.

    A repetition is a program of `updates` updates: sampling, gradient and Adam. The first of each is not counted.
    """
    build = lambda _: make_rloo_trainer(
        make_reverse(length, VOCABULARY), learning_rate, episodes, group_size, network="transformer"
    )
    peer = make_token_peer(length, VOCABULARY, episodes, group_size, learning_rate=learning_rate)
    tokens = updates * episodes * length
    found: dict[str, list[float]] = {PGJAX: [], PEER: [], ALL: []}
    with jax.default_device(jax.local_devices()[0]):
        states, programs, compile_seconds = {}, {}, {}
        for name, (state, run) in {PGJAX: _ours(build(()), updates, seed), PEER: _theirs(*peer, updates, seed)}.items():
            programs[name], compile_seconds[name] = _compiled(state, run)
            states[name] = jax.block_until_ready(programs[name](state))
        for repetition in range(repetitions):
            # Who begins changes too, so that a machine that slows down favours neither.
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


def record(rates: dict[tuple[int, int], Rates], recorder: runner.Recorder) -> None:
    """Rows: medians with ranges, and the ratio judged by its aim."""
    spread = lambda x, digits: f"{min(x):.{digits}f} to {max(x):.{digits}f}"
    for (length, episodes), found in rates.items():
        problem = f"{length} symbols, {episodes} episodes"
        for name, values in found.tokens.items():
            thousands = [value / 1e3 for value in values]
            recorder.row(
                quantity=f"(c) 10³ tokens/s, {problem}",
                variant=name,
                ours=statistics.median(thousands),
                verdict=spread(thousands, 1),
                seconds=found.compile_seconds[name],
            )
        ratio = statistics.median(found.ratios)
        word = "reached" if ratio >= AIM else "missed"
        verdict = f"{word} (aim ≥ {AIM:g}); {spread(found.ratios, 2)}"
        row = functools.partial(recorder.row, quantity=f"(c) ratio, {problem}", variant="pgjax / hand-written JAX")
        row(ours=ratio, verdict=verdict)
    recorder.note(
        "(c) Tokens are the sampled ones, those of the prompt are not counted; medians with ranges over repetitions, "
        f"the two programs in turns on one device of {jax.local_device_count()}; seconds are those of compiling."
    )
