"""The time to solve CartPole-v1, from the start of a Python process that imports only what it needs."""

import functools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.harness import verdicts
from experiments.harness.recorder import Recorder
from pgjax import baselines, environments, estimators, evaluation, networks, rollouts, training
from pgjax.types import Baseline, Policy, TrainState

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOLVED = 475.0
AIMS = {"empty cache": 4.5, "warm cache": 1.5}  # seconds from the start of the process
LEARNING_AIM = 0.3  # seconds


def make_trainer(
    policy: Policy, optimizer: optax.GradientTransformation, num_episodes: int, value: Baseline | None = None
) -> training.Trainer:
    """REINFORCE on CartPole-v1: G_t at γ = 0.99, standardised weights, ρ̂ or v(X_t) as the baseline."""
    estimator = estimators.make_estimator(
        policy,
        returns=estimators.reward_to_go(0.99),
        baseline=baselines.moving_average(0.9, "first") if value is None else value,
        standardise="population",
    )
    return training.make_trainer(
        environments.make("CartPole-v1"), policy, estimator, optimizer, num_episodes=num_episodes
    )


def solve(
    seed: int, hidden: tuple[int, ...], episodes: int, learning_rate: float, max_updates: int
) -> dict[str, float | bool]:
    """Learn until 100 greedy episodes, played after every update, average 475. Return the seconds of each part."""
    start = time.perf_counter()
    environment = environments.make("CartPole-v1")
    policy = networks.make_policy(environment, hidden=hidden)
    trainer = make_trainer(policy, optax.adam(learning_rate), episodes)

    def mean_return(state: TrainState) -> jax.Array:
        # Updates fold small numbers into the key of the run. They never reach this number.
        key = jax.random.fold_in(jax.random.fold_in(state.key, 2**31 - 1), state.update)
        keys = jax.random.split(key, 100)
        trajectory = rollouts.episodes(environment, evaluation.greedy(policy), state.params, keys)
        return jnp.mean(evaluation.episode_returns(trajectory)[0])

    # XLA compiles (or loads) a program while Python traces the next one.
    with ThreadPoolExecutor() as pool:
        lowered = jax.jit(lambda seed: trainer.init(jax.random.key(seed))).lower(seed)
        initialise = pool.submit(lowered.compile)
        update = pool.submit(jax.jit(trainer.update, donate_argnums=0).lower(lowered.out_info).compile)
        evaluate = pool.submit(jax.jit(mean_return).lower(lowered.out_info).compile)
    initialise, update, evaluate = (program.result() for program in (initialise, update, evaluate))
    state = initialise(seed)
    compile_seconds = time.perf_counter() - start

    learning, score, updates = 0.0, 0.0, 0
    while score < SOLVED and updates < max_updates:
        start = time.perf_counter()
        state, _ = jax.block_until_ready(update(state))
        learning += time.perf_counter() - start
        score, updates = float(evaluate(state)), updates + 1
    return {
        "solved": score >= SOLVED,
        "score": score,
        "updates": updates,
        "learning_seconds": learning,
        "compile_seconds": compile_seconds,
    }


def solve_in_a_new_process(arguments: dict[str, Any], cache: str) -> dict[str, Any]:
    """Call `solve` in a new Python process with the compilation cache `cache`; adds `seconds`, its total time."""
    code = (
        "import json, sys; from experiments.throughput.solve import solve; "
        "print(json.dumps(solve(**json.loads(sys.argv[1]))))"
    )
    settings = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # The parent process uses the accelerator too.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
    }
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(arguments)],
        cwd=ROOT,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RuntimeError(f"the process that solves seed {arguments['seed']} failed:\n{done.stderr}")
    return {"seconds": seconds, **json.loads(done.stdout.splitlines()[-1])}


def time_to_solve(seeds: range, options: dict[str, Any], recorder: Recorder) -> dict[str, list[dict]]:
    """State of the cache → the results of every seed. `options` are the other arguments of `solve`. Adds rows."""
    found: dict[str, list[dict]] = {name: [] for name in AIMS}
    with recorder.progress(len(AIMS) * len(seeds), "time to solve", "processes") as progress:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as cache:
                for name, runs in found.items():
                    runs.append(solve_in_a_new_process({"seed": seed, **options}, cache))
                    recorder.metrics({"seed": seed, "cache": name, **runs[-1]})
                    progress.advance()
    for name, runs in found.items():
        solved = sum(one["solved"] for one in runs)
        times = {
            "seconds from process start": ("seconds", AIMS[name]),
            "seconds of learning alone": ("learning_seconds", LEARNING_AIM),
            "compile seconds": ("compile_seconds", None),
            "updates": ("updates", None),
        }
        # If a seed is not solved, there is no time to solve, and every aim is missed.
        row = functools.partial(recorder.row, variant=name)
        judge = functools.partial(verdicts.of_aim, tiny=verdicts.is_tiny(recorder))
        every = solved == len(runs)
        row(quantity=f"(a) seeds solved of {len(runs)}", ours=solved, verdict=judge(every, "all"))
        for quantity, (key, aim) in times.items():
            median, judged = statistics.median(one[key] for one in runs), None
            if aim is not None:
                judged = judge(every and median < aim, f"< {aim:g}")
            row(quantity=f"(a) {quantity}, median", ours=median, verdict=judged)
    return found
