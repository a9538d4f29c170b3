"""Peers beside pgjax: processes of another Python environment, which take turns with pgjax on the same machine."""

import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from experiments.throughput.peer_list import Peer

FOLDER = pathlib.Path(__file__).parent / "peers"
PATIENCE = 240.0  # seconds for one answer; a peer that needs longer is stopped


class PeerError(RuntimeError):
    """A peer could not be measured; the message says why."""


class Process:
    """A context manager: a peer's process, which answers with one line of JSON at a time."""

    def __init__(self, python: pathlib.Path, script: str, given: dict[str, Any]):
        self._command = [str(python), str(FOLDER / f"{script}.py"), json.dumps(given)]

    def __enter__(self) -> "Process":
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": self._errors}
        # Compilation is measured, so that no program may come from disk; and the peer shares an accelerator with pgjax.
        settings = {"JAX_ENABLE_COMPILATION_CACHE": "false", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        self.start = time.perf_counter()
        try:
            self._process = subprocess.Popen(self._command, text=True, env=os.environ | settings, **pipes)
        except OSError as error:
            self._errors.close()
            raise PeerError(f"{self._command[0]} could not be started: {error.strerror}") from error
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.communicate()
        self._errors.close()

    def answer(self, patience: float = PATIENCE) -> dict[str, Any]:
        """The next line that is a JSON object; other lines are skipped, because libraries print what they like."""
        late = threading.Timer(patience, self._process.kill)
        late.start()
        try:
            assert self._process.stdout is not None
            for line in self._process.stdout:
                if line.startswith("{"):
                    return json.loads(line)
        finally:
            late.cancel()
        raise PeerError(self._reason(patience))

    def _reason(self, patience: float) -> str:
        if self._process.wait() < 0:
            return f"no answer within {patience:.0f} s"
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines()
        return lines[-1] if lines else f"exit code {self._process.returncode}"

    def repeat(self, seconds: float) -> float:
        """The steps per second of one repetition of at least `seconds` seconds."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{seconds}\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise PeerError(self._reason(0.0)) from None
        found = self.answer()
        return found["steps"] / found["seconds"]


class Pairs(NamedTuple):
    """The repetitions of a peer and of pgjax, which took turns.

    Attributes:
        ours, theirs: steps per second of every repetition.
        first_result_seconds: the seconds of compilation and of the first result of the peer.
        versions: the packages of the peer.
        failure: the reason why there is no result, or None.
    """

    ours: list[float]
    theirs: list[float]
    first_result_seconds: float = 0.0
    versions: Mapping[str, str] = MappingProxyType({})
    failure: str | None = None

    @property
    def ratios(self) -> list[float]:
        """pgjax / peer of every pair of neighbours in time."""
        return [a / b for a, b in zip(self.ours, self.theirs, strict=True)]

    @property
    def median(self) -> float:
        return statistics.median(self.ratios)


def pairs(
    python: pathlib.Path, peer: Peer, ours: Callable[[float], float], seconds: float, repetitions: int, seed: int
) -> Pairs:
    """Let pgjax and a peer take turns; they also take turns in going first.

    Args:
        ours: `seconds → steps per second` of pgjax.
    """
    given = peer.given | {"work": "rate", "seed": seed}
    found = Pairs(ours=[], theirs=[])
    try:
        with Process(python, peer.script, given) as process:
            ready = process.answer()
            for repetition in range(repetitions):
                turns = [(found.ours, ours), (found.theirs, process.repeat)]
                for rates, repeat in reversed(turns) if repetition % 2 else turns:
                    rates.append(repeat(seconds))
    except PeerError as error:
        return Pairs(ours=[], theirs=[], failure=str(error))
    return found._replace(first_result_seconds=ready["first_result_seconds"], versions=ready["versions"])


def solve(python: pathlib.Path, peer: Peer, hidden: tuple[int, ...], seed: int, solved: float, limit: float):
    """What `serving.solve` answers, and `seconds` from the start of the process to the answer.

    Raises:
        PeerError: the peer could not be measured.
    """
    given = peer.given | {"work": "solve", "seed": seed, "hidden": hidden, "solved": solved, "limit": limit}
    with Process(python, peer.script, given) as process:
        # Evaluations and the compilation are not in the limit.
        found = process.answer(2 * limit + PATIENCE)
        return found | {"seconds": time.perf_counter() - process.start}


def best_of(found: Iterable[tuple[Peer, Pairs]], name: str) -> tuple[Peer, Pairs] | None:
    """The one-epoch setting with which a peer was fastest."""
    own = [(peer, pair) for peer, pair in found if peer.name == name and peer.one_epoch and pair.theirs]
    return max(own, key=lambda one: statistics.median(one[1].theirs), default=None)
