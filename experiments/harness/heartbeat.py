"""A sign of life: a line that says what a run does, whenever it has printed nothing for a while."""

import contextlib
import sys
import threading
import time
from collections.abc import Iterator

from experiments.harness.reports import format_duration

SILENCE = 10.0  # seconds without a line in the first minute of a part
LATER = 60.0  # seconds without a line afterwards


class Heartbeat:
    """A context manager that prints a line after `SILENCE` seconds without one, from a thread of its own.

    The line names the part that is at work, the innermost of `part`, and for how long it has been at work: a program
    that compiles, or a long step without a line of its own, does not look like one that hangs.

    Args:
        name: what is at work outside all parts, such as the name of the question.
        quiet: whether nothing is printed.
    """

    def __init__(self, name: str, quiet: bool = False):
        self._parts, self._quiet = [(name, time.perf_counter())], quiet
        self._heard = time.perf_counter()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)

    def __enter__(self) -> "Heartbeat":
        self.heard()
        if not self._quiet:
            self._thread.start()
        return self

    def __exit__(self, *error) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=1.0)

    def heard(self) -> None:
        """Know that something was printed just now."""
        self._heard = time.perf_counter()

    @contextlib.contextmanager
    def part(self, name: str, shown: bool = False) -> Iterator[None]:
        """While the block runs, lines name this part; with `shown` there are none, because a bar shows it."""
        self._parts.append(("" if shown else name, time.perf_counter()))
        try:
            yield
        finally:
            self._parts.pop()

    def due(self, now: float) -> float:
        """The seconds until the next line; 0 or less if it is time."""
        _, began = self._parts[-1]
        return (SILENCE if now - began < LATER else LATER) - (now - self._heard)

    def line(self, now: float) -> str:
        """The line; empty where a bar shows the part."""
        name, began = self._parts[-1]
        return f"{name}: at work for {format_duration(now - began)}" if name else ""

    def _watch(self) -> None:
        while not self._stopped.wait(max(self.due(time.perf_counter()), 0.05)):
            now = time.perf_counter()
            if self.due(now) > 0:
                continue
            self.heard()
            if (line := self.line(now)) and sys.stderr is not None:
                with contextlib.suppress(OSError, ValueError):
                    print(line, file=sys.stderr, flush=True)
