"""The processes that share one run (--distributed): what they agree on, and how they end together.

Process 0 writes the files and speaks; the others print errors only (`bystander.py`). All of them make the same calls
in the same order, because each update needs the gradients of all. So no process may end alone: JAX would leave the
others waiting. A process that ends says so through the coordination service of `jax.distributed`, whose server is in
process 0; a thread of every other process listens for it. Each then ends within `GRACE` seconds, by `os._exit`, since
the usual end of Python would wait for processes that are gone. A process that is killed says nothing: the next exchange
of gradients then fails in all others, or JAX ends them after `distributed.HEARTBEAT` seconds.
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
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, NoReturn

import numpy as np

from experiments.harness import interruption
from experiments.harness.directories import UsageError

GRACE = 3.0  # seconds in which the main thread may end the process after another process has ended
ANSWER = 1.5  # seconds in which every process that lives answers
# What errors of JAX say when an exchange between processes has failed.
OF_EXCHANGE = ("gloo", "nccl", "connection", "socket closed", "unavailable", "coordination service")
TOGETHER = 5.0  # seconds in which all processes meet the same error
EX_USAGE = 2
LISTENING = 3_600_000  # milliseconds of one call


def _is_of_runtime(error: Exception) -> bool:
    """Whether the runtime of JAX has raised the error, which begins with a code such as "INTERNAL: "."""
    import jax

    has_code = str(error).partition(":")[0].isupper()
    return isinstance(error, jax.errors.JaxRuntimeError) or (isinstance(error, ValueError | RuntimeError) and has_code)


class End(NamedTuple):
    """How a process has ended, or what it has found lost.

    Attributes:
        process: its number; None for a process that the others have lost without a word.
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


class Team:
    """This process among those that share the run; without `client` it is alone, and every method is trivial.

    Attributes:
        index, count: the number of this process, and how many there are.
        patience: the seconds that a chunk of work may take before the watchdog ends all processes, or None.
    """

    def __init__(self, client: Any = None, index: int = 0, count: int = 1):
        self.index, self.count, self._client = index, count, client
        self._end: End | None = None
        self._ended = threading.Event()
        self._leaving = self._agreed_to_stop = self._alone_in_error = False
        self._folder: pathlib.Path | None = None
        self._lost: list[int] | None = None
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

    # What the processes agree on.

    def agreed(self, asked: str | None) -> str | None:
        """The name of a signal that has asked any of the processes to stop. All processes must call this together."""
        if self.count > 1:
            from jax.experimental import multihost_utils

            number = 0 if asked is None else 1 + interruption.NAMES.index(asked)
            found = int(np.max(multihost_utils.process_allgather(np.int32(number))))
            asked = interruption.NAMES[found - 1] if found else None
        self._agreed_to_stop = asked is not None
        return asked

    def publish(self, name: str, value: Any) -> None:
        """Let the other processes read a JSON value by its name, once."""
        if self.joined:
            self._set(name, json.dumps(value))

    def read(self, name: str) -> Any:
        """The value that another process publishes. This waits for it, and ends the process if the run ends before."""
        while True:
            with contextlib.suppress(Exception):  # not published yet
                return json.loads(self._client.blocking_key_value_get(f"pgjax/{name}", 500))
            self._require_going_on()

    def _require_going_on(self) -> None:
        """End this process if another one has ended."""
        if not self._ended.is_set():
            return
        assert self._end is not None
        code, words = self._end.code, self.sentence()
        if not self.writes:
            self.end(code, "" if self._end.process == 0 else f"error: {words}")
        raise UsageError(words) if code == EX_USAGE else Lost(words, code)

    def require_same(self, name: str, values: Mapping[str, Any]) -> None:
        """Check that all processes have the same values, as JSON. Process 0 waits until the others have looked.

        Raises:
            UsageError: this process has another value than process 0; the message names it.
        """
        if self.writes:
            self.publish(name, dict(values))
            same = lambda: len(self._client.key_value_dir_get(f"pgjax/same {name}/")) if self.joined else 0
            while same() < self.count - 1:
                self._require_going_on()
                time.sleep(0.02)
            return
        first, ours = self.read(name), json.loads(json.dumps(dict(values)))
        shown = lambda value: json.dumps(value, ensure_ascii=False)
        wrong = [
            f"{key} {shown(ours.get(key))} (process 0: {shown(first.get(key))})"
            for key in dict.fromkeys((*first, *ours))
            if first.get(key) != ours.get(key)
        ]
        if wrong:
            self.refuse(f"all processes must have the same {name}, and process {self.index} has {', '.join(wrong)}")
        self._set(f"same {name}/{self.index}", "1")

    def refuse(self, reason: str) -> NoReturn:
        """Refuse to go on, for a reason that the other processes do not see."""
        self._alone_in_error = True
        raise UsageError(f"--distributed: {reason}")

    # How the processes end.

    def watch(self) -> None:
        """Listen, in a thread, for the end of another process."""
        interruption.current.farewell = lambda: self._say_end(interruption.EX_TEMPFAIL, "was stopped by signals")
        threading.Thread(target=self._listen, daemon=True).start()

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
        reason = f"--distributed-watchdog: no chunk of updates has ended for {self.patience:g} s"
        self._print(f"error: {reason}\n{interruption.current.last_words}")
        self._say_end(interruption.EX_TEMPFAIL, f"has ended with: {reason}")
        self._exit(interruption.EX_TEMPFAIL)

    def _listen(self) -> None:
        found = None
        while found is None:
            try:
                found = End(*json.loads(self._client.blocking_key_value_get("pgjax/end", LISTENING)))
            except Exception as error:
                if "DEADLINE_EXCEEDED" not in str(error):  # the server, which is in process 0, is gone
                    found = End(0, interruption.EX_TEMPFAIL, "was lost")
        self._end = found
        if found.process != self.index:
            self._set(f"here/{self.index}", "1")
        self._ended.set()
        if found.process == self.index or self._leaving:
            return
        if found.process == 0 and found.reason == "was lost":
            time.sleep(0.05)
        else:
            time.sleep(GRACE)
        if not self._leaving:
            self._leaving = True
            self._print(f"error: {self.sentence()}\n{interruption.current.last_words}")
            self._exit(found.code)

    def sentence(self) -> str:
        """What is known about the end of another process, in one sentence."""
        end = self._end
        if end is None or end.process is None:
            self._lost = self._missing() if self._lost is None else self._lost
            who = " and ".join(f"process {i}" for i in self._lost)
            return f"{who} of {self.count} was lost" if who else "the connection to another process was lost"
        return f"process {end.process} of {self.count} {end.reason}"

    def _missing(self) -> list[int]:
        """The processes that have not answered; process 0 answers with its server."""
        time.sleep(ANSWER)
        with contextlib.suppress(Exception):
            answered = {int(key.rpartition("/")[2]) for key, _ in self._client.key_value_dir_get("pgjax/here/")}
            return sorted(set(range(1, self.count)) - answered - {self.index})
        return [0]

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
            raise Lost(f"the end of another process: {self.sentence()}", self._end.code) from error

    def _is_of_another(self, error: Exception) -> bool:
        """Whether the exchange with another process has failed. If that says nothing, all that live answer a call."""
        if not _is_of_runtime(error) or not any(word in str(error).lower() for word in OF_EXCHANGE):
            return False
        if not self._ended.wait(0.05):
            # At once, because JAX ends this process in an instant if process 0 is lost.
            self._print(f"error: the connection to another process was lost. {interruption.current.last_words}")
        if not self._ended.wait(0.5):
            self._set("end", json.dumps(End(None, interruption.EX_TEMPFAIL, "")))
        return self._ended.wait(ANSWER)

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
                if self._end.process == 0:  # which has said the same
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
        self._set(f"gone/{self.index}", "1")
        exit_now(code)

    def _let_others_leave(self) -> None:
        """Keep the server until the other processes have ended, or are late."""
        late, others = time.monotonic() + 1.5 * GRACE, self.count - 1 - len(self._lost or ())
        with contextlib.suppress(Exception):
            while time.monotonic() < late and len(self._client.key_value_dir_get("pgjax/gone/")) < others:
                time.sleep(0.02)

    def _print(self, text: str) -> None:
        if text:
            print(text, file=sys.stderr, flush=True)

    def _set(self, name: str, value: str) -> None:
        with contextlib.suppress(Exception):  # the first word counts, and the server may be gone
            self._client.key_value_set(f"pgjax/{name}", value)


current = Team()
