"""Several processes of one machine that share a training, over the loopback interface."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = """
import sys
sys.path.insert(0, {root!r})
from experiments import train
from experiments.harness import runner, team
from experiments.train import keeping
{patch}
runner.start(train)
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(count, arguments, *, patch="", folders=(), own=None, port=None, only=None):
    """Start `experiments.train` in `count` processes, which know their `port`; one is started without --distributed.

    Args:
        patch: code that runs before the command.
        folders: the working folder of each process; by default the checkout.
        own: number of a process → further arguments of that process.
        only: the numbers of the processes that are started; by default all.
    """
    port = port or free_port()
    settings = {"JAX_PLATFORMS": "cpu", "PJRT_NPROC": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    settings |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
    program, made = PROGRAM.format(root=str(ROOT), patch=patch), []
    for index in range(count) if only is None else only:
        joined = ["--distributed", f"127.0.0.1:{port},{count},{index}"] if count > 1 else []
        words = [*map(str, arguments), *joined, "--devices", "1", *map(str, (own or {}).get(index, ()))]
        folder = folders[index] if folders else ROOT
        made.append(
            subprocess.Popen(
                [sys.executable, "-c", program, *words],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=os.environ | settings,
                cwd=folder,
                start_new_session=True,
            )
        )
        made[-1].port = port
    return made


def finished(processes, seconds=240):
    """(output, errors, exit code) of each process; those that still run after so many seconds are killed."""
    try:
        return [(*one.communicate(timeout=seconds), one.returncode) for one in processes]
    finally:
        end(processes)


def end(processes):
    for one in processes:
        if one.poll() is None:
            os.kill(one.pid, signal.SIGKILL)


def wait_until(true, seconds=120, processes=()):
    late = time.monotonic() + seconds
    while not true():
        dead = [one.communicate()[1] for one in processes if one.poll() is not None]
        if dead or time.monotonic() > late:
            end(processes)
            raise AssertionError(dead or "too late")
        time.sleep(0.05)


class Messages:
    """The messages of several processes in one: what one sets, all others may get."""

    def __init__(self, count=2):
        self.held, self.changed, self.count = {}, threading.Condition(), count

    def key_value_set(self, key, value):
        with self.changed:
            if key in self.held:
                raise RuntimeError("ALREADY_EXISTS")
            self.held[key] = value
            self.changed.notify_all()

    def blocking_key_value_get(self, key, milliseconds):
        with self.changed:
            if not self.changed.wait_for(lambda: key in self.held, min(milliseconds, 10_000) / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED")
            return self.held[key]

    def wait_at_barrier(self, key, milliseconds):
        with self.changed:
            self.held[key] = self.held.get(key, 0) + 1
            self.changed.notify_all()
            if not self.changed.wait_for(lambda: self.held[key] == self.count, min(milliseconds, 10_000) / 1000):
                raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out")

    def key_value_dir_get(self, prefix):
        return [(key, value) for key, value in self.held.items() if key.startswith(prefix)]
