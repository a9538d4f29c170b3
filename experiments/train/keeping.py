"""What a training writes while it runs: the lines of its log, and its checkpoints by time."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from experiments.harness import interruption, metric_log, team
from experiments.harness.recorder import Recorder
from experiments.train import dead
from experiments.train.thinning import Thinned
from pgjax.saving import rotation
from pgjax.types import PyTree, TrainState

FIRST_SECONDS = 5.0  # from the start to the first checkpoint, so that it exists within ten seconds
KEPT = 2


class Keeper:
    """Writes the log and the checkpoints of a training.

    A checkpoint is one file: the states, the intervals of the curves, the length and the digest of the log, and the
    identity of the program. So they always belong together.

    Attributes:
        thinned: the intervals so far.
        watch: which runs still have a gradient.
        saved: the number of updates in the newest checkpoint.

    Args:
        identity: `pgjax.saving.identity.identity` of this program.
        every: seconds between two checkpoints.
        seconds: what earlier attempts took, wall and CPU time.
    """

    def __init__(
        self,
        recorder: Recorder,
        thinned: Thinned,
        identity: Mapping[str, Any],
        every: float,
        seconds: Mapping[str, float],
    ):
        self.thinned, self.watch = thinned, dead.Watch(thinned.num_runs, thinned.done)
        self._recorder, self._identity, self._every = recorder, identity, every
        self._before, self._began, self._cpu_began = seconds, time.perf_counter(), time.process_time()
        self._next = self._began + min(every, FIRST_SECONDS)
        self.saved: int | None = None

    @property
    def seconds(self) -> dict[str, float]:
        """The time of training so far, with that of earlier attempts."""
        wall, cpu = time.perf_counter() - self._began, time.process_time() - self._cpu_began
        return {"wall": self._before.get("wall", 0.0) + wall, "cpu": self._before.get("cpu", 0.0) + cpu}

    def start(self, states: TrainState) -> None:
        """Save the states before the first update of this attempt, once."""
        if self.saved is None:
            self.save(states)
        team.current.heard()

    def hear(self, metrics: dict[str, np.ndarray], states: TrainState) -> None:
        """Write the lines of a chunk of updates, and a checkpoint if it is time for one.

        Raises:
            Interrupted: a signal has asked the run to stop. The chunk is saved.
        """
        team.current.heard()
        self.watch.see(metrics)
        self._write(self.thinned.add(metrics))
        stop = interruption.current
        stop.asked = team.current.agreed(stop.asked)
        if stop.asked or time.perf_counter() >= self._next:
            self.save(states)
            self._next = time.perf_counter() + self._every
        stop.check()
        # From now on the chunk of updates that is being made would be lost.
        stop.deferred = True

    def finish(self, states: TrainState) -> None:
        """Save the last states, and end the log with the interval that has begun.

        Raises:
            Interrupted: a signal has asked the run to stop. The states are saved.
        """
        team.current.heard(last=True)
        with interruption.current.defer():
            if self.saved != self.thinned.done:
                self.save(states)
            interruption.current.asked = team.current.agreed(interruption.current.asked)
        interruption.current.check()
        if team.current.count > 1:  # processors that round differently would part the processes
            team.current.require_same("parameters", {"the digest": _digest(states.params)})
        # After the checkpoint: a run that is made longer cuts the log here and goes on with the interval.
        self._write(self.thinned.last_line())
        self._recorder.metric_log().log.sync()

    def save(self, states: TrainState) -> None:
        """Write a checkpoint, if this process writes the results."""
        if self._recorder.writes:
            self._save(states)
        self.saved = self.thinned.done

    def _save(self, states: TrainState) -> None:
        log = self._recorder.metric_log().log
        log.sync()
        metadata = {
            "identity": self._identity,
            "log": {"size": log.size, "digest": log.digest},
            "seconds": self.seconds,
        }
        tree = {"states": states, "thinned": self.thinned.arrays()}
        rotation.save(self._recorder.directory, self.thinned.done, tree, metadata, keep=KEPT)

    def _write(self, lines: list[dict[str, Any]]) -> None:
        for line in lines:
            self._recorder.metrics({"update": line["update"], "elapsed_seconds": self.seconds["wall"]} | line)


def _digest(params: PyTree) -> str:
    return hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(params))).hexdigest()[:16]


def copies(recorder: Recorder, options: Mapping[str, Any], first: int) -> None:
    """Let the log be copied to what `--log-to` names."""
    for destination in (options.get("log_to") or ()) if recorder.writes else ():
        made = metric_log.make_copy(destination, recorder.directory, recorder.run, options, first)
        recorder.metric_log().copies.append(made)
