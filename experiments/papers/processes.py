"""Commands in processes of their own, a few at once."""

import pathlib
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05
PATIENCE_SECONDS = 30.0  # how long a process may take to end: a chunk of a compiled program ends first


def run(
    commands: Mapping[str, Sequence[str]], outputs: Mapping[str, pathlib.Path], at_once: int
) -> Iterator[tuple[str, int]]:
    """Start the commands in their order, and yield the name and the exit code of each command when it ends.

    What a command prints goes to its file. If the iteration stops early, the running commands are ended.
    """
    waiting, running = list(commands), {}
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                name = waiting.pop(0)
                with outputs[name].open("wb") as output:
                    running[name] = subprocess.Popen(
                        commands[name], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT
                    )
            for name in [name for name, process in running.items() if process.poll() is not None]:
                yield name, running.pop(name).returncode
            time.sleep(POLL_SECONDS)
    finally:
        end(list(running.values()))


def end(processes: Sequence[subprocess.Popen]) -> None:
    """Ask the processes to end, and kill those that do not."""
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + PATIENCE_SECONDS
    for process in processes:
        try:
            process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
