"""One person's work on one file of pairs: the next pair, the answers, and undo, for the page and for the terminal.

Every answer is on the disk before `answer` returns, so a killed process loses nothing. A new session with the same
files, annotator and seed goes on at the same pair.
"""

import contextlib
import json
import os
import pathlib
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from experiments.harness.directories import UsageError
from experiments.preferences import labels
from experiments.preferences.labels import Verdict
from experiments.preferences.plans import Plan, plan
from experiments.preferences.trials import Trial
from pgjax import _json, writing
from pgjax._limits import read_whole
from pgjax.preferences import Preference, records

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None


class AlreadyAnswered(ValueError):
    """The trial has an answer already, and it is another one."""


class Progress(NamedTuple):
    """How far the work has come.

    Attributes:
        done, skipped, total: the numbers of trials that are answered, that are skipped, and of all trials.
        labels, choices: the numbers of labels of this annotator in the file, and of those that prefer one answer.
    """

    done: int
    skipped: int
    total: int
    labels: int
    choices: int


class Session:
    """The state of the work; its methods may be called from several threads.

    Args:
        trials: the questions, in order.
        path: the file of labels, which is made with the first answer.
        annotator: the name that stands in every record.
        target: the accuracy of a reward model that the plan aims at.
        features: the number of features of that model.

    Raises:
        UsageError: the file cannot be read, or another session is writing to it.
    """

    def __init__(
        self, trials: Sequence[Trial], path: pathlib.Path, annotator: str, *, target: float = 0.9, features: int = 16
    ):
        self.path, self.annotator, self._target, self._features = path, annotator, target, features
        self._trials = {trial.name: trial for trial in trials}
        self._lock, self._locked = threading.Lock(), contextlib.ExitStack()
        with labels.refused():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._locked.enter_context(_alone(path))
        try:
            self._all, self.repaired = labels.read(path, repair=True) if path.exists() else ([], [])
            self._skips = self._read_skips()
        except BaseException:
            self._locked.close()
            raise

    def close(self) -> None:
        """Let other sessions write to the file."""
        self._locked.close()

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # What is known of the trials.

    @property
    def _own(self) -> list[Preference]:
        return [record for record in self._all if record.annotator == self.annotator]

    def _tried(self) -> tuple[dict[str, Preference], set[str]]:
        """The record of each trial that has an answer, and the trials that were skipped."""
        seen: Counter = Counter()
        answered = {}
        for record in self._own:
            name = labels.name_of(record)
            answered[f"{name}-{seen[name]}"] = record
            seen[name] += 1
        return answered, {skip["trial"] for skip in self._skips if skip["annotator"] == self.annotator}

    def current(self) -> Trial | None:
        """The first trial without an answer; None if all are answered. A pair that was skipped is not shown again."""
        with self._lock:
            return self._current()

    def _current(self) -> Trial | None:
        answered, skipped = self._tried()
        for name, trial in self._trials.items():
            first_skipped = trial.occurrence > 0 and f"{trial.pair.name}-0" not in answered
            if name not in answered and name not in skipped and not first_skipped:
                return trial
        return None

    def progress(self) -> Progress:
        with self._lock:
            answered, skipped = self._tried()
            done = sum(name in answered for name in self._trials)
            left_out = sum(name in skipped and name not in answered for name in self._trials)
            choices = sum(record.tie is None for record in self._own)
            return Progress(
                done=done, skipped=left_out, total=len(self._trials), labels=len(self._own), choices=choices
            )

    def plan(self) -> Plan:
        """How many labels are needed, from this annotator's answers to repeated pairs."""
        with self._lock:
            judged = labels.by_annotator(self._own).get(self.annotator, {})
        return plan(*labels.twice(judged), self._target, self._features)

    @property
    def target(self) -> float:
        return self._target

    @property
    def can_undo(self) -> bool:
        """Whether `undo` takes something back; it leaves answers to the pairs of another file."""
        with self._lock:
            return self._last_skip() is not None or self._last_answer() is not None

    def _last_skip(self) -> dict[str, Any] | None:
        """The latest skip of this annotator, if no answer came after it."""
        mine = [skip for skip in self._skips if skip["annotator"] == self.annotator]
        return mine[-1] if mine and mine[-1]["after"] >= len(self._own) else None

    def _last_answer(self) -> tuple[int, Trial] | None:
        """The place of the latest answer of this annotator among all records, and its trial; None if there is none."""
        places = [place for place, record in enumerate(self._all) if record.annotator == self.annotator]
        if not places:
            return None
        name = labels.name_of(self._all[places[-1]])
        count = sum(labels.name_of(record) == name for record in self._own)
        trial = self._trials.get(f"{name}-{count - 1}")
        return None if trial is None else (places[-1], trial)

    # What changes the files.

    def answer(self, name: str, verdict: Verdict, seconds: float) -> None:
        """Save an answer. The same answer to the same trial once more changes nothing.

        Raises:
            KeyError: there is no such trial.
            AlreadyAnswered: the trial has another answer, or was skipped, or is not the current one.
            OSError: the file cannot be written; nothing has changed then.
        """
        with self._lock:
            trial = self._trials[name]
            answered, _ = self._tried()
            record = labels.record_of(trial, verdict, seconds, self.annotator)
            if name in answered:
                same = lambda one: (one.chosen, one.rejected, one.tie)
                if same(answered[name]) == same(record):
                    return
                raise AlreadyAnswered(f"the pair {name} has another answer already")
            self._require_current(name)
            records.append(self.path, record)
            self._all.append(record)

    def skip(self, name: str) -> None:
        """Pass over a trial. A pair that was skipped when it was shown first is not shown again.

        Raises:
            KeyError, AlreadyAnswered, OSError: as `answer`.
        """
        with self._lock:
            trial = self._trials[name]
            if name in self._tried()[1]:
                return
            self._require_current(trial.name)
            skip = {"trial": name, "annotator": self.annotator, "after": len(self._own)}
            self._write_skips([*self._skips, skip])

    def undo(self) -> Trial | None:
        """Take back the latest answer or skip of this annotator, and return its trial; None if there is none.

        An answer to a pair that is not among the trials stays: it belongs to another file of pairs, and nobody would be
        asked for it again. The file of labels is replaced by one without the record, so that every reader finds either
        the old or the new file, whole.
        """
        with self._lock:
            if (skip := self._last_skip()) is not None:
                self._write_skips([other for other in self._skips if other is not skip])
                return self._trials.get(skip["trial"])
            if self._own:
                self._all = records.read(self.path)  # another program may have added labels
            if (last := self._last_answer()) is None:
                return None
            place, trial = last
            rest = self._all[:place] + self._all[place + 1 :]
            records.write(self.path, rest)
            self._all = rest
            return trial

    def _require_current(self, name: str) -> None:
        current = self._current()
        if current is None or current.name != name:
            raise AlreadyAnswered(f"the pair {name} is not the one that is asked now")

    # Skipped pairs are no labels; they stand in a file of their own.

    @property
    def _skips_path(self) -> pathlib.Path:
        return self.path.with_name(f"{self.path.name}.skipped.json")

    def _read_skips(self) -> list[dict[str, Any]]:
        if not self._skips_path.exists():
            return []
        try:
            found = _json.loads(read_whole(self._skips_path))
            skips = [{key: skip[key] for key in ("trial", "annotator", "after")} for skip in found]
            if not all(isinstance(skip["trial"], str) and type(skip["after"]) is int for skip in skips):
                raise TypeError("an entry has another type")
            return skips
        except (ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"{self._skips_path}: the list of skipped pairs cannot be read ({type(error).__name__}); "
                "without this file all skipped pairs are asked again"
            ) from error

    def _write_skips(self, skips: list[dict[str, Any]]) -> None:
        writing.replace_file(self._skips_path, json.dumps(skips, indent=0))
        self._skips = skips


@contextlib.contextmanager
def _alone(path: pathlib.Path) -> Iterator[None]:
    """No other session may write to `path` within this block. The system ends the lock when the process ends."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(f"--labels {path}: another collect is writing to this file; end it first") from None
        yield
    finally:
        os.close(descriptor)
