"""The memory of a training run, estimated before it starts."""

import numpy as np

from experiments.harness import team
from experiments.shared.training import build as build_options
from pgjax import training
from pgjax.environments import HostEnvironment
from pgjax.training._chunks import Pace

METRIC_BYTES = 3 * 16 * 4  # of an update: at most sixteen numbers, which the device, the host and a chunk's sums hold


def memory(options: dict) -> dict[str, float]:
    """The bytes of each part of a run.

    Raises:
        ValueError: options do not fit each other.
    """
    environment, policy = build_options.make_policy(options)
    num_runs = options["num_seeds"] * len(options["lr"])
    trainer = build_options.make_build(options, environment, policy)(np.float32(options["lr"][0]))
    devices = 1 if isinstance(environment, HostEnvironment) else None
    found = training.estimate_memory(trainer, num_runs, devices=devices, deterministic=options["deterministic"])
    here = 1 / team.current.count  # every process has as many devices
    of = f"{num_runs} run{'s' if num_runs > 1 else ''}"
    # The device holds the metrics of the largest chunk. The curves are thinned, so they do not grow.
    at_once = num_runs * Pace(options["num_updates"], num_runs, None, build_options.CHUNK_SECONDS).most
    return {
        f"parameters, optimiser and baseline of {of}": here * found.states,
        f"episodes and gradients of an update of {options['num_episodes']} episodes": here * found.update,
        "metrics of a chunk of updates": METRIC_BYTES * at_once,
    }
