"""Measure the update of CartPole on some devices of some processes; `main` is the program of each process."""

import json
import os
import pathlib
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = "import json, sys; from experiments.scaling import measured; measured.main(json.loads(sys.argv[1]))"
LIMIT = 900.0  # seconds for one layout


class Layout(NamedTuple):
    """Where the episodes of an update are: `devices` in each of `processes`; and whether sums may take any order."""

    devices: int
    processes: int
    any_order: bool = False

    @property
    def total(self) -> int:
        return self.devices * self.processes

    @property
    def name(self) -> str:
        if self.processes > 1:
            return f"{self.processes} processes{', sums in any order' if self.any_order else ''}"
        return "one device" if self.devices == 1 else f"{self.devices} devices in one process"


class Measured(NamedTuple):
    """The measurements of a layout.

    Attributes:
        seconds: seconds per update, of every chunk of updates but the first.
        cpu_seconds: CPU seconds per update, of all processes together.
        exchanges: of a fixed order of sums, and of any order: the fields of each `exchanges.Exchange` of an update, if
            they were counted.
        digest: of θ after the last update.
    """

    seconds: list[float]
    cpu_seconds: float
    exchanges: list[list[list[Any]]]
    digest: str


def measure(layout: Layout, sizes: Mapping[str, int], *, counted: bool = False) -> Measured:
    """Start the processes of a layout on the CPU of this machine, and read what they have measured.

    Args:
        sizes: `episodes`, `updates`, `chunk` and `seed`.
        counted: whether the exchanges are counted, for which the update is compiled twice more.

    Raises:
        RuntimeError: a process has failed; the message holds the end of its errors.
    """
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    started = []
    try:
        for index in range(layout.processes):
            asked = json.dumps({**layout._asdict(), **sizes, "index": index, "port": port, "counted": counted})
            words = [sys.executable, "-c", PROGRAM, asked]
            started.append(subprocess.Popen(words, cwd=ROOT, env=environment, **pipes))
        with ThreadPoolExecutor(len(started)) as readers:  # a pipe that nobody reads would stop its process
            ends = list(readers.map(lambda one: one.communicate(timeout=LIMIT), started))
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"a process of {layout.name} has not ended after {LIMIT} seconds") from error
    finally:
        for one in started:
            one.kill()
            one.wait()
    for one, (_, errors) in zip(started, ends, strict=True):
        if one.returncode:
            raise RuntimeError(f"a process of {layout.name} has ended with code {one.returncode}: {errors[-2000:]}")
    found = [Measured(**json.loads(output.splitlines()[-1])) for output, _ in ends]
    return found[0]._replace(cpu_seconds=sum(one.cpu_seconds for one in found))


def main(asked: dict[str, Any]) -> None:
    """The program of one process, whose last line is JSON."""
    import jax

    jax.config.update("jax_num_cpu_devices", asked["devices"])
    if asked["processes"] > 1:
        jax.config.update("jax_enable_preemption_service", False)
        jax.distributed.initialize(
            f"127.0.0.1:{asked['port']}", asked["processes"], asked["index"], heartbeat_timeout_seconds=10
        )
    from experiments.harness import runtime

    runtime.use_cache()
    try:
        found = _measured(asked)
    except BaseException:  # the usual end of Python would wait for the other processes
        import traceback

        traceback.print_exc()
        sys.stderr.flush()
        os._exit(70)
    print(json.dumps(found._asdict()), flush=True)


def _measured(asked: Mapping[str, Any]) -> Measured:
    import hashlib

    import jax
    import numpy as np
    import optax

    from experiments.harness import jax_processes
    from experiments.scaling.exchanges import exchanges
    from pgjax import environments, networks, registry, training
    from pgjax.training import sharding

    environment = environments.make("CartPole-v1")
    policy = networks.make_policy(environment)
    estimator = registry.make("reinforce_moving_average", registry.Parts(policy=policy))
    build = lambda rate: training.make_trainer(
        environment, policy, estimator, optax.adam(rate), num_episodes=asked["episodes"]
    )
    key, rate = jax.random.key(asked["seed"]), np.float32(0.01)
    # The first exchange has a limit of time, and eight processes compile on the same cores.
    meet = lambda: jax_processes.client().wait_at_barrier("compiled", round(1000 * LIMIT))
    counted, times, cpu = [], [], []
    for deterministic in (True, False) if asked["counted"] else ():
        layout = sharding.SharedEpisodes.of(jax.devices(), deterministic)
        text = layout.compiled(build(rate).update, layout.scatter(build(rate).init(key))).as_text()
        counted.append([list(one) for one in exchanges(text)])
    trained = training.train(
        build,
        key[None],
        rate[None],
        num_updates=asked["updates"],
        chunk=asked["chunk"],
        on_chunk=lambda done, metrics, states: (times.append(time.perf_counter()), cpu.append(time.process_time())),
        keep_metrics=False,
        deterministic=not asked["any_order"],
        on_compiled=meet if asked["processes"] > 1 else None,
    )
    leaves = [np.asarray(x).tobytes() for x in jax.tree.leaves(trained.states.params)]
    return Measured(
        seconds=(np.diff(times) / asked["chunk"]).tolist(),
        cpu_seconds=(cpu[-1] - cpu[0]) / (asked["updates"] - asked["chunk"]),
        exchanges=counted,
        digest=hashlib.sha256(b"".join(leaves)).hexdigest(),
    )
