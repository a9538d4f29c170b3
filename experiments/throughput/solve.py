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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from experiments.harness import verdicts
from experiments.harness.recorder import Recorder
from experiments.throughput.peers import cartpole
from pgjax import baselines, environments, estimators, networks, training
from pgjax._platform import platform
from pgjax.types import Baseline, Policy

ROOT = pathlib.Path(__file__).resolve().parents[2]
SOLVED = 475.0
LIMIT = 120.0  # seconds of learning, after which a peer gives up
EMPTY, QUICK, WARM = "empty cache", "empty cache, few optimisations", "warm cache"
EXPORTED = "exported program, warm cache"
AIMS = {EMPTY: 4.5, QUICK: None, WARM: 1.5, EXPORTED: None}  # seconds from the start of the process
LEARNING_AIM = 0.3  # seconds, with all optimisations


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
    """Learn until 100 greedy episodes, played after every update, average 475. Return the seconds of each part.

    The evaluation is that of the peers: the environment in NumPy, with the same starts every time.
    """
    start = time.perf_counter()
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=hidden)
    trainer = make_trainer(policy, optax.adam(learning_rate), episodes)
    greedy = lambda params, obs: jnp.argmax(jax.vmap(policy.apply, (None, 0))(params, obs), axis=-1)
    observed = jax.ShapeDtypeStruct((cartpole.EPISODES, 4), jnp.float32)

    # XLA compiles (or loads) a program while Python traces the next one.
    with ThreadPoolExecutor() as pool:
        lowered = jax.jit(lambda seed: trainer.init(jax.random.key(seed))).lower(seed)
        # It runs once: less optimisation halves its compilation.
        quickly = {"xla_backend_optimization_level": 0} if platform() == "cpu" else None
        initialise = pool.submit(lowered.compile, quickly)
        update = pool.submit(jax.jit(trainer.update, donate_argnums=0).lower(lowered.out_info).compile)
        act = pool.submit(jax.jit(greedy).lower(lowered.out_info.params, observed).compile)
    initialise, update, act = (program.result() for program in (initialise, update, act))
    state = initialise(seed)
    compile_seconds = time.perf_counter() - start

    learning, evaluating, score, updates, steps = 0.0, 0.0, 0.0, 0, 0
    while score < SOLVED and updates < max_updates:
        start = time.perf_counter()
        state, metrics = jax.block_until_ready(update(state))
        middle = time.perf_counter()
        updates, steps = updates + 1, steps + int(metrics["num_steps"])
        score = cartpole.mean_return(lambda obs: act(state.params, obs), seed)
        learning, evaluating = learning + middle - start, evaluating + time.perf_counter() - middle
    return {
        "solved": bool(score >= SOLVED),
        "score": float(score),
        "updates": updates,
        "steps": steps,
        "learning_seconds": learning,
        "evaluation_seconds": evaluating,
        "compile_seconds": compile_seconds,
    }


def few_optimisations() -> dict[str, str]:
    """The environment of a process in which XLA optimises little, for programs that run for less than a second."""
    flags = os.environ.get("XLA_FLAGS", "")
    if jax.__version_info__ < (0, 11):  # A later XLA stops at this flag.
        flags += " --xla_cpu_use_fusion_emitters=false"
    return {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "XLA_FLAGS": flags.strip()}


def solve_in_a_new_process(arguments: dict[str, Any], cache: str, optimise: bool = True) -> dict[str, Any]:
    """Call `solve` in a new Python process with the compilation cache `cache`; adds `seconds`, until its answer."""
    code = (
        "import json, sys; from experiments.throughput.solve import solve; "
        "print(json.dumps(solve(**json.loads(sys.argv[1]))), flush=True)"
    )
    what = f"the process that solves seed {arguments['seed']}"
    return in_a_new_process(["-c", code, json.dumps(arguments)], cache, what, {} if optimise else few_optimisations())


def in_a_new_process(
    command: list[str], cache: str, what: str, settings: Mapping[str, str] = MappingProxyType({})
) -> dict[str, Any]:
    """The line of JSON that a new Python process prints, with `seconds` from its start until then.

    Args:
        command: the arguments of Python.
        cache: the folder of the compilation cache.
        what: the name of the process for an error.
        settings: environment variables beside those of the cache.
    """
    settings = {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
        # The parent process uses the accelerator too.
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        **settings,
    }
    start = time.perf_counter()
    with tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace") as errors:
        command = [sys.executable, *command]
        pipes = {"stdout": subprocess.PIPE, "stderr": errors}
        with subprocess.Popen(command, cwd=ROOT, env=os.environ | settings, text=True, **pipes) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            seconds = time.perf_counter() - start
        errors.seek(0)
        if process.returncode:
            raise RuntimeError(f"{what} failed:\n{errors.read()}")
    return {"seconds": seconds, **json.loads(line)}


def without_evaluation(one: dict[str, Any]) -> float:
    """The seconds from the start of the process to the solution, without those of the evaluations."""
    return one["seconds"] - one["evaluation_seconds"]


def time_to_solve(
    seeds: range,
    options: dict[str, Any],
    recorder: Recorder,
    peers: dict[str, Callable[[int], dict[str, Any]]] | None = None,
    exported: Callable[[int], dict[str, Any]] | None = None,
) -> dict[str, list[dict]]:
    """Way of compiling, or name of a peer → the results of every seed. Adds the rows of pgjax.

    Args:
        options: the other arguments of `solve`.
        peers: name → `seed → result`, with the entries `seconds`, `evaluation_seconds` and `solved`, or `failure`.
            They take turns with pgjax. A peer that failed is not asked again.
        exported: `seed → result` of an exported training; None leaves it out.
    """
    solvers = {EXPORTED: exported} if exported is not None else {}
    solvers |= peers or {}
    found: dict[str, list[dict]] = {name: [] for name in (EMPTY, QUICK, WARM, *solvers)}
    with recorder.progress(len(found) * len(seeds), "time to solve", "processes") as progress:
        for seed in seeds:
            with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as other:
                for name, runs in found.items():
                    if name not in solvers:
                        how = {"cache": other, "optimise": False} if name == QUICK else {"cache": cache}
                        runs.append(solve_in_a_new_process({"seed": seed, **options}, **how))
                    elif not any("failure" in one for one in runs):
                        runs.append(solvers[name](seed))
                    recorder.metrics({"seed": seed, "solver": name, **runs[-1]})
                    progress.advance()
    record(found, recorder)
    return found


def record(found: Mapping[str, Sequence[dict[str, Any]]], recorder: Recorder) -> None:
    """The rows of pgjax."""
    for name in (name for name in found if name in AIMS):
        runs = found[name]
        solved = sum(one["solved"] for one in runs)
        times = {
            "seconds from process start": ("seconds", AIMS[name]),
            "seconds of learning alone": ("learning_seconds", None if name == QUICK else LEARNING_AIM),
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
