"""Signals: the first one ends a run in order, the second one at once.

SIGINT (Ctrl-C), SIGTERM (a cluster that ends a job) and SIGHUP (a closed terminal) raise `Interrupted` at the line that
runs. A run that trains in chunks defers this: it asks `Interruption.asked` between two chunks, saves and then raises.
Python sees no signal while it waits for a compiler, so a thread then ends the process after `PATIENCE` seconds, unless
the run defers signals.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator

EX_TEMPFAIL = 75  # "try again later", of sysexits.h
PATIENCE = 1.5  # seconds until a program that does not see a signal is ended
TOGETHER = 0.2  # seconds; a terminal that closes sends several signals, which count as one
NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


class Interrupted(KeyboardInterrupt):
    """A signal asked the run to stop; the message is the name of the signal."""


class Interruption:
    """What signals have asked for.

    Attributes:
        asked: the name of the first signal, or None.
        deferred: whether the run asks for `asked` itself.
        last_words: the line that is printed if the process has to be ended at once.
        farewell: called before the process is ended at once; it tells the other processes of the run.
    """

    def __init__(self) -> None:
        self.asked: str | None = None
        self.deferred = False
        self.last_words = ""
        self.farewell: Callable[[], None] = lambda: None
        self._seen = threading.Event()

    @contextlib.contextmanager
    def defer(self) -> Iterator[None]:
        """Within this block a first signal only sets `asked`."""
        self.deferred = True
        try:
            yield
        finally:
            self.deferred = False

    def check(self) -> None:
        """Raise `Interrupted` if a signal has asked for it."""
        if self.asked is not None:
            raise Interrupted(self.asked)

    def handle(self, number: int, frame: object) -> None:
        """The handler of the signals."""
        self._seen.set()
        if self.asked is None:
            self.asked = signal.Signals(number).name
            if not self.deferred:
                raise Interrupted(self.asked)

    def leave(self) -> None:
        """End the process at once. What was saved stays, and the folder looks like that of a killed run."""
        with contextlib.suppress(OSError):
            os.write(2, f"\nleft at once\n{self.last_words}\n".encode(errors="replace"))
        self.farewell()
        os._exit(EX_TEMPFAIL)

    def wait(self, numbers: int) -> None:
        """Read the numbers of signals from a descriptor until it is closed; end the process at a second signal.

        The process is also ended if it has not seen the first signal after `PATIENCE` seconds and does not defer it.
        """
        first, timeout = None, None
        while True:
            if not select.select([numbers], [], [], timeout)[0]:
                if not self._seen.is_set() and not self.deferred:
                    self.leave()
                timeout = None
                continue
            number = os.read(numbers, 1)
            if not number:
                return
            if number[0] not in _numbers():
                continue
            now = time.monotonic()
            if first is None:
                first, timeout = now, PATIENCE
            elif now - first > TOGETHER:
                self.leave()


current = Interruption()


def _numbers() -> list[int]:
    return [int(getattr(signal, name)) for name in NAMES if hasattr(signal, name)]


@contextlib.contextmanager
def watched() -> Iterator[Interruption]:
    """Within this block the signals act as described above. Signals that the caller ignores stay ignored, as by nohup.

    Only the main thread of a program can watch signals; elsewhere nothing changes.
    """
    global current
    before, current = current, Interruption()
    if threading.current_thread() is not threading.main_thread():
        try:
            yield current
        finally:
            current = before
        return
    handled = [number for number in _numbers() if signal.getsignal(number) not in (signal.SIG_IGN, None)]
    former = {number: signal.signal(number, current.handle) for number in handled}
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    waked = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    thread = threading.Thread(target=current.wait, args=(reading,), daemon=True)
    thread.start()
    try:
        yield current
    finally:
        signal.set_wakeup_fd(waked)
        for number, handler in former.items():
            signal.signal(number, handler)
        os.close(writing)
        thread.join(1.0)
        os.close(reading)
        current = before
