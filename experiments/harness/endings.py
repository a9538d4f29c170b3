"""How the processes of one run (--distributed) end together.

No process may end alone, because JAX would leave the others waiting. A process that ends says so through the
coordination service of `jax.distributed`, whose server is in process 0; a thread of every other process listens for it.
A process that is killed says nothing: its connection to the door (`door.py`) ends, and process 0 says it instead. The
main thread of each process then has `GRACE` seconds to end the process, by `os._exit`, since the usual end of Python
would wait for processes that are gone.
"""

import contextlib
import json
import os
import pathlib
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, NoReturn

from experiments.harness import interruption

GRACE = 3.0  # seconds in which the main thread may end the process after another process has ended
ANSWER = 1.5  # seconds from a failed exchange until it is known which process is lost
# What errors of JAX say when an exchange between processes has failed.
OF_EXCHANGE = ("gloo", "nccl", "connection", "socket closed", "unavailable", "coordination service", "barrier")
TOGETHER = 5.0  # seconds in which all processes meet the same error
EX_USAGE = 2
LISTENING = 3_600_000  # milliseconds of one call
LOST = "was lost"
LONGEST = 400  # characters of an error of JAX that are told


class End(NamedTuple):
    """How a process has ended.

    Attributes:
        process: its number; None if two processes cannot reach each other, and both live.
        code: its exit code.
        reason: one line.
    """

    process: int | None
    code: int
    reason: str


class Lost(interruption.Interrupted):
    """Another process has ended, so this one cannot go on. The message continues "interrupted by"."""

    def __init__(self, message: str, code: int):
        super().__init__(message)
        self.code = code


def exit_now(code: int) -> NoReturn:
    """End the process without waiting for other processes or threads."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


class Member:
    """This process among those that share the run; without `client` it is alone, and every method is trivial.

    Attributes:
        index, count: the number of this process, and how many there are.
        patience: the seconds that a chunk of work may take before the watchdog ends all processes, or None.
    """

    def __init__(self, client: Any = None, index: int = 0, count: int = 1):
        self.index, self.count, self._client = index, count, client
        self._end: End | None = None
        self._ended, self._first = threading.Event(), threading.Lock()
        self._leaving = self._agreed_to_stop = self._alone_in_error = False
        self._folder: pathlib.Path | None = None
        self._gone: set[int] = set()
        self._meetings = 0
        self.patience: float | None = None
        self._watchdog: threading.Timer | None = None

    @property
    def joined(self) -> bool:
        """Whether the process was started with --distributed."""
        return self._client is not None

    @property
    def writes(self) -> bool:
        """Whether this process writes the results."""
        return self.index == 0

    def folder(self) -> pathlib.Path:
        """A folder of this process alone, which is removed at its end."""
        if self._folder is None:
            self._folder = pathlib.Path(tempfile.mkdtemp(prefix="pgjax-process-"))
        return self._folder

    # How this process learns that another one has ended.

    def watch(self) -> None:
        """Listen, in a thread, for the end of another process."""
        interruption.current.farewell = lambda: self._say_end(interruption.EX_TEMPFAIL, "was stopped by signals")
        threading.Thread(target=self._listen, daemon=True).start()

    def lose(self, index: int) -> None:
        """Hear that the connection to a process has ended. If it has not said why, it is lost, and so is the run."""
        if self.writes:
            self._gone.add(index)
            self._set("end", json.dumps(End(index, interruption.EX_TEMPFAIL, LOST)))
        else:
            self._hear(End(0, interruption.EX_TEMPFAIL, LOST))

    def _listen(self) -> None:
        found = None
        while found is None:
            try:
                found = End(*json.loads(self._client.blocking_key_value_get("pgjax/end", LISTENING)))
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):  # the server, which is in process 0, is gone
                    found = End(0, interruption.EX_TEMPFAIL, LOST)
        self._hear(found)

    def _hear(self, found: End) -> None:
        """Let the main thread end this process, and end it here if that does not happen."""
        with self._first:
            if self._end is not None:
                return
            self._end = found
        self._ended.set()
        if found.process == self.index or self._leaving:
            return
        time.sleep(GRACE)
        if not self._leaving:
            self._leaving = True
            self._print(f"error: {self.sentence()}\n{interruption.current.last_words}")
            self._exit(found.code)

    def sentence(self) -> str:
        """What is known about the end of another process, in one sentence."""
        if self._end is None or self._end.process is None:
            return f"the connection to another process was lost: {self._end.reason if self._end else 'no reason'}"
        return f"process {self._end.process} of {self.count} {self._end.reason}"

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Around the work of the run: an error that another process has caused becomes `Lost`.

        Raises:
            Lost: another process has ended.
        """
        try:
            yield
        except Exception as error:
            if not self.joined or self.count == 1 or not self._is_of_another(error):
                raise
            assert self._end is not None
            lost = Lost(f"the end of another process: {self.sentence()}", self._end.code)
            if not self.writes and interruption.current.last_words:
                lost.add_note(interruption.current.last_words)
            raise lost from error

    def _is_of_another(self, error: Exception) -> bool:
        """Whether the exchange with another process has failed."""
        if not _is_of_runtime(error) or not any(word in str(error).lower() for word in OF_EXCHANGE):
            return False
        if not self._ended.wait(ANSWER):
            reason = f"process {self.index} of {self.count}: {' '.join(str(error).split())[:LONGEST]}"
            self._set("end", json.dumps(End(None, interruption.EX_TEMPFAIL, reason)))
        return self._ended.wait(ANSWER)

    # How this process ends.

    def heard(self, *, last: bool = False) -> None:
        """Say that a chunk of work has ended. The watchdog, if there is one, waits for the next chunk from now on."""
        if self._watchdog is not None:
            self._watchdog.cancel()
            self._watchdog = None
        if self.joined and self.patience is not None and not last:
            self._watchdog = threading.Timer(self.patience, self._bite)
            self._watchdog.daemon = True
            self._watchdog.start()

    def _bite(self) -> None:
        if self._ended.is_set() or self._leaving:  # it ends already, and may be writing its files
            return
        reason = f"--distributed-watchdog: no chunk of updates has ended for {self.patience:g} s"
        self._print(f"error: {reason}\n{interruption.current.last_words}")
        self._say_end(interruption.EX_TEMPFAIL, f"has ended with: {reason}")
        self._exit(interruption.EX_TEMPFAIL)

    def end(self, code: int, text: str) -> None:
        """End this process with its exit code, together with the others. Without a team this does nothing.

        Args:
            text: what to print; its first line is the reason. Process 0 prints what all processes have in common.
        """
        if not self.joined:
            return
        self._leaving = True
        with interruption.current.defer():
            of_all = (code in (0, EX_USAGE) or self._agreed_to_stop) and not self._alone_in_error
            if not self.writes and of_all and self._ended.wait(None if code == 0 else TOGETHER):
                assert self._end is not None
                if self._end.process == 0 and self._end.reason != LOST:  # which has said the same
                    self._exit(self._end.code)
                code = code or self._end.code
                text = text or f"error: {self.sentence()}"
            self._print(text)
            self._say_end(code, f"has ended with: {text.partition(chr(10))[0]}" if text else "has ended")
            self._exit(code)

    def _say_end(self, code: int, reason: str) -> None:
        self._leaving = True
        self._set("end", json.dumps(End(self.index, code, reason)))

    def _exit(self, code: int) -> NoReturn:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self.writes:
            self._let_others_leave()
        exit_now(code)

    def _let_others_leave(self) -> None:
        """Keep the server until the other processes have ended, or are late."""
        late = time.monotonic() + 1.5 * GRACE
        while time.monotonic() < late and len(self._gone) < self.count - 1:
            time.sleep(0.02)

    def _print(self, text: str) -> None:
        if text:
            print(text, file=sys.stderr, flush=True)

    def _set(self, name: str, value: str) -> None:
        if not self.writes and self._end is not None and self._end[::2] == (0, LOST):
            return  # the server is gone with process 0, and JAX would wait for it
        with contextlib.suppress(Exception):  # the first word counts
            self._client.key_value_set(f"pgjax/{name}", value)


def _is_of_runtime(error: Exception) -> bool:
    """Whether the runtime of JAX has raised the error, which begins with a code such as "INTERNAL: "."""
    import jax

    has_code = str(error).partition(":")[0].isupper()
    return isinstance(error, jax.errors.JaxRuntimeError) or (isinstance(error, ValueError | RuntimeError) and has_code)
