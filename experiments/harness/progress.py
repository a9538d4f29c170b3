"""Progress of long work: done, rate and time left, printed by the host between jitted chunks."""

import contextlib
import sys
import time

from experiments.harness.heartbeat import Heartbeat
from experiments.harness.reports import format_count, format_duration, format_rate

PLAIN_INTERVAL = 10.0  # seconds between two lines, if there is no terminal for a bar


class Progress:
    """A context manager that shows how much of `total` is done: a bar on a terminal, otherwise a line now and then.

    The first chunk usually contains the compilation. The rate and the time left are therefore counted from its end and
    shown from the second chunk on. With `quiet` nothing is shown. `done` units were done before, in an earlier attempt.
    `heart` names the work while a chunk takes long.
    """

    def __init__(
        self,
        total: int,
        description: str,
        unit: str = "steps",
        quiet: bool = False,
        done: int = 0,
        heart: Heartbeat | None = None,
    ):
        self.total, self.description, self.unit, self.quiet = total, description, unit, quiet
        self.done = self._before = done
        self._first: tuple[float, int] | None = None
        self._bar, self._heart, self._part = None, heart, contextlib.ExitStack()

    def __enter__(self) -> "Progress":
        self._start = self._printed = time.perf_counter()
        if not self.quiet and sys.stderr is not None and sys.stderr.isatty():
            self._bar = _bar()
            self._bar.start()
            self._task = self._bar.add_task(self.description, total=self.total, completed=self.done, status="")
        if self._heart is not None:
            self._part.enter_context(self._heart.part(self.description, shown=self._bar is not None))
        return self

    def advance(self, amount: int = 1, note: str = "") -> None:
        """Add `amount` to the work that is done. `note` ends the line, for example with the current return."""
        self.done += amount
        now = time.perf_counter()
        if self._bar is not None:
            self._bar.update(self._task, completed=self.done, status=self._status(now, note))
        elif now - self._printed >= PLAIN_INTERVAL:
            self._printed = now
            done = f"{self.done:,} of {format_count(self.total, self.unit)}"
            self._say(", ".join(filter(None, [done, self._status(now, note)])))
        if self._first is None:
            self._first = (now, self.done)

    def __exit__(self, kind, error, traceback) -> None:
        self._part.close()
        if self._bar is not None:
            self._bar.stop()
        elif kind is None:
            now = time.perf_counter()
            rate = format_rate(self.rate(now), self.unit)
            # The first chunk is not counted, because it waits for the compiler.
            rate += ", not counting the first ones, which include compilation" * bool(
                self._first and self.done > self._first[1]
            )
            self._say(
                f"{format_count(self.done - self._before, self.unit)} in {format_duration(now - self._start)}, {rate}"
            )

    def rate(self, now: float) -> float:
        """Units per second up to `now`, without the first chunk if there are more."""
        start, skipped = self._first if self._first and self.done > self._first[1] else (self._start, self._before)
        return (self.done - skipped) / max(now - start, 1e-9)

    def _status(self, now: float, note: str) -> str:
        if self._first is None:
            return note
        rate = self.rate(now)
        left = format_duration(max(self.total - self.done, 0) / max(rate, 1e-9))
        return ", ".join(filter(None, [format_rate(rate, self.unit), f"{left} left", note]))

    def _say(self, text: str) -> None:
        if self.quiet:
            return
        print(f"{self.description}: {text}", file=sys.stderr, flush=True)
        if self._heart is not None:
            self._heart.heard()


def _bar():
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[status]}", markup=False),
        console=Console(stderr=True),
    )
