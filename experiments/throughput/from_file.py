"""Part (a): CartPole-v1 solved by a training that was exported to a file, in processes that import little but JAX."""

import importlib.util
import json
import os
import pathlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optax

from experiments.harness import verdicts
from experiments.harness.recorder import Recorder
from experiments.throughput.beside import FOLDER
from experiments.throughput.solve import EXPORTED, ROOT, SOLVED, in_a_new_process, make_trainer
from pgjax import environments, networks, training

BEYOND_JAX_AIM = 1.0  # seconds from the start of the process, without those of `import jax`
SKIPPED = f"(a) {EXPORTED}: skipped, because flatbuffers is missing: pip install 'pgjax[export]'."
_IMPORT = "import jax, json, time; print(json.dumps({'cpu_seconds': time.process_time()}), flush=True)"


def make_solver(options: dict[str, Any], folder: pathlib.Path) -> Callable[[int], dict[str, Any]] | None:
    """`seed → result` as `solve.solve_in_a_new_process` gives it, with `import_seconds` and CPU seconds beside.

    The training is exported once, for every seed, and a first process fills the compilation cache.

    Args:
        options: the arguments of `solve.solve`, without the seed.
        folder: an empty folder for the file and for the compilation cache.

    Returns:
        The function, or None if a package is missing that exporting needs.
    """
    if importlib.util.find_spec("flatbuffers") is None:
        return None
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=options["hidden"])
    build = lambda rate: make_trainer(policy, optax.adam(rate), options["episodes"])
    rate, file = options["learning_rate"], folder / "cartpole.safetensors"
    training.export(file, build, np.asarray([rate], np.float32), chunk=1, devices=1)
    given = {"file": str(file), "learning_rate": rate, "max_updates": options["max_updates"], "solved": SOLVED}
    script, cache = str(FOLDER / "exported_training.py"), str(folder / "cache")
    # The script stands beside the evaluation that it shares, so that Python must be told where pgjax is.
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))

    def solve(seed: int) -> dict[str, Any]:
        imported = in_a_new_process(["-c", _IMPORT], cache, f"the process that imports jax for seed {seed}")
        command = [script, json.dumps({"seed": seed, **given})]
        found = in_a_new_process(command, cache, f"the process that solves seed {seed}", {"PYTHONPATH": paths})
        return found | {"import_seconds": imported["seconds"], "import_cpu_seconds": imported["cpu_seconds"]}

    solve(0)
    return solve


def record(runs: Sequence[dict[str, Any]], recorder: Recorder) -> None:
    """The seconds beyond those that the import of JAX takes."""
    median = lambda key, less=None: statistics.median(one[key] - (one[less] if less else 0.0) for one in runs)
    beyond = median("seconds", less="import_seconds")
    met = all(one["solved"] for one in runs) and beyond <= BEYOND_JAX_AIM
    judged = verdicts.of_aim(met, f"≤ {BEYOND_JAX_AIM:g}", tiny=verdicts.is_tiny(recorder))
    row = lambda what, value, **more: recorder.row(quantity=f"(a) {what}, median", variant=EXPORTED, ours=value, **more)
    row("seconds beyond the import of JAX", beyond, verdict=judged)
    row("seconds of the import of JAX", median("import_seconds"))
    row("CPU seconds beyond the import of JAX", median("cpu_seconds", less="import_cpu_seconds"))
