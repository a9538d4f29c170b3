"""Going on with a run of `experiments.train`: where it lies, its options, its state and what it had measured."""

import glob
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.harness.recorder import Recorder
from pgjax.saving import checkpoints
from pgjax.types import TrainState

OPTIONS, STATE, HISTORY, METRICS = "options.json", "state.safetensors", "history.safetensors", "metrics.jsonl"
MEASURED = {"num_steps": np.dtype(np.int32), "mean_return": np.dtype(np.float32)}
History = dict[str, np.ndarray]


class Saved(NamedTuple):
    """A run as it was left.

    Attributes:
        states: leaves `[S, ...]`.
        history: `num_steps` and `mean_return` of every update so far, `[S, U]`.
        records: the lines of its `metrics.jsonl` so far.
        complete: whether it had been evaluated too.
    """

    states: TrainState | None
    history: History
    records: list[dict[str, Any]]
    complete: bool

    @property
    def done(self) -> int:
        """Updates so far."""
        return self.history["num_steps"].shape[1]


def find(path: pathlib.Path) -> pathlib.Path:
    """The directory of a run, by the path that it has or was to have: NAME, NAME-incomplete, or `.NAME.partial`.

    The second is that of a run which was interrupted, the third of one that was killed; of several the latest.

    Raises:
        ValueError: if none of them holds a run that can go on.
    """
    others = [*path.parent.glob(f"{glob.escape(path.name)}-incomplete*"), path.with_name(f".{path.name}.partial")]
    others = [other for other in others if (other / OPTIONS).is_file()]
    if (path / OPTIONS).is_file():
        return path
    if others:
        return max(others, key=lambda other: (other / OPTIONS).stat().st_mtime)
    raise ValueError(
        f"--resume {path}: no run of this experiment is there, nor in {path.name}-incomplete or .{path.name}.partial "
        f"beside it (a run has {OPTIONS} as soon as its first updates are saved)"
    )


def options(path: pathlib.Path) -> dict[str, Any]:
    """The options of the run that `find` finds, complete."""
    as_given = lambda value: tuple(value) if isinstance(value, list) else value
    read = json.loads((find(path) / OPTIONS).read_text(encoding="utf-8"))
    return {name: as_given(value) for name, value in read.items()}


def nothing(num_runs: int) -> Saved:
    """What a new run begins with."""
    history = {name: np.zeros((num_runs, 0), dtype) for name, dtype in MEASURED.items()}
    return Saved(states=None, history=history, records=[], complete=False)


def extended(history: History, metrics: dict[str, np.ndarray]) -> History:
    """`history` `[S, U]` and a chunk's metrics `[S, n]`: `[S, U + n]`."""
    return {name: np.concatenate([past, metrics[name]], axis=1, dtype=past.dtype) for name, past in history.items()}


def save(recorder: Recorder, options: dict[str, Any], saved: Saved) -> None:
    """Writes what `restore` needs. The state comes last, so that a kill leaves too much, never too little."""
    recorder.path(OPTIONS).write_text(json.dumps(options, default=str, indent=2) + "\n", encoding="utf-8")
    checkpoints.save(recorder.path(HISTORY), saved.history, {"shape": saved.history["num_steps"].shape})
    checkpoints.save(recorder.path(STATE), saved.states)
    recorder.resumable()


def restore(path: pathlib.Path, shapes: TrainState) -> Saved:
    """The run that `find` finds, up to the update of its state; `shapes` is a `TrainState` of shapes `[S, ...]`.

    Raises:
        ValueError: if a file is missing or damaged, or fits another program.
    """
    directory = find(path)
    states = checkpoints.restore(directory / STATE, shapes)
    done = int(states.update[0])
    shape = tuple(checkpoints.metadata(directory / HISTORY)["shape"])
    like = {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype in MEASURED.items()}
    history = checkpoints.restore(directory / HISTORY, like)
    lines = (directory / METRICS).read_text(encoding="utf-8").splitlines()
    # A line that a kill cut short belongs to an update after the state's, like every line after it.
    whole = [json.loads(line) for line in lines if line.endswith("}")]
    return Saved(
        states=states,
        history={name: np.asarray(x)[:, :done] for name, x in history.items()},
        records=[record for record in whole if record["update"] <= done],
        complete=_is_complete(directory),
    )


def _is_complete(directory: pathlib.Path) -> bool:
    summary = directory / "summary.json"
    return summary.is_file() and json.loads(summary.read_text(encoding="utf-8"))["status"] == "complete"
