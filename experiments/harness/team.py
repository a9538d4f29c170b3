"""The processes that share one run (--distributed): what they agree on.

Process 0 writes the files and speaks; the others print errors only (`bystander.py`). All of them make the same calls
in the same order, because each update needs the gradients of all. How they end together is in `endings.py`.
"""

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any, NoReturn

import numpy as np

from experiments.harness import endings, interruption
from experiments.harness.directories import UsageError


class Team(endings.Member):
    """This process among those that share the run; without `client` it is alone, and every method is trivial."""

    def agreed(self, asked: str | None) -> str | None:
        """The name of a signal that has asked any of the processes to stop. All processes must call this together."""
        if self.count > 1:
            from jax.experimental import multihost_utils

            number = 0 if asked is None else 1 + interruption.NAMES.index(asked)
            found = int(np.max(multihost_utils.process_allgather(np.int32(number))))
            asked = interruption.NAMES[found - 1] if found else None
        self._agreed_to_stop = asked is not None
        return asked

    def meet(self) -> None:
        """Wait until all processes have come here. All of them must call this equally often."""
        if self.count > 1:
            self._meetings += 1
            self._client.wait_at_barrier(f"pgjax/{self._meetings}", endings.LISTENING)

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
            said = self._end.process == 0 and self._end.reason != endings.LOST  # by process 0 itself
            self.end(code, "" if said else f"error: {words}")
        raise UsageError(words) if code == endings.EX_USAGE else endings.Lost(words, code)

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


current = Team()
