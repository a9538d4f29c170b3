"""Resuming a run of `experiments.train`: its directory, its options, its state and its measurements so far."""

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
    """A run as it was when it stopped.

    Attributes:
        states: leaves `[S, ...]`.
        history: `num_steps` and `mean_return` of every update so far, `[S, U]`.
        records: the lines of its `metrics.jsonl` so far.
        complete: whether the run had also been evaluated.
    """

    states: TrainState | None
    history: History
    records: list[dict[str, Any]]
    complete: bool

    @property
    def done(self) -> int:
        """The number of updates so far."""
        return self.history["num_steps"].shape[1]


def find(path: pathlib.Path) -> pathlib.Path:
    """The directory of the run with the path `.../NAME`: NAME, NAME-incomplete, or `.NAME.partial`.

    An interrupted run leaves the second, a killed run the third. If there are several, the latest is returned.

    Raises:
        ValueError: none of them holds a run that can be resumed.
    """
    others = [*path.parent.glob(f"{glob.escape(path.name)}-incomplete*"), path.with_name(f".{path.name}.partial")]
    others = [other for other in others if (other / OPTIONS).is_file()]
    if (path / OPTIONS).is_file():
        return path
    if others:
        return max(others, key=lambda other: (other / OPTIONS).stat().st_mtime)
    raise ValueError(
        f"--resume {path}: this folder holds no run of experiments.train that can be resumed, and neither do "
        f"{path.name}-incomplete and .{path.name}.partial beside it. A run can be resumed as soon as its first updates "
        f"are saved; it then has a file {OPTIONS}"
    )


def options(path: pathlib.Path) -> dict[str, Any]:
    """All options of the run that `find` returns."""
    as_given = lambda value: tuple(value) if isinstance(value, list) else value
    read = json.loads((find(path) / OPTIONS).read_text(encoding="utf-8"))
    return {name: as_given(value) for name, value in read.items()}


def nothing(num_runs: int) -> Saved:
    """The empty record with which a new run begins."""
    history = {name: np.zeros((num_runs, 0), dtype) for name, dtype in MEASURED.items()}
    return Saved(states=None, history=history, records=[], complete=False)


def extended(history: History, metrics: dict[str, np.ndarray]) -> History:
    """`history` `[S, U]` and a chunk's metrics `[S, n]`: `[S, U + n]`."""
    return {name: np.concatenate([past, metrics[name]], axis=1, dtype=past.dtype) for name, past in history.items()}


def save(recorder: Recorder, options: dict[str, Any], saved: Saved) -> None:
    """Write the files that `restore` reads. The state comes last, so a kill never leaves it without its history."""
    recorder.path(OPTIONS).write_text(json.dumps(options, default=str, indent=2) + "\n", encoding="utf-8")
    checkpoints.save(recorder.path(HISTORY), saved.history, {"shape": saved.history["num_steps"].shape})
    checkpoints.save(recorder.path(STATE), saved.states)
    recorder.resumable()


def restore(path: pathlib.Path, shapes: TrainState) -> Saved:
    """The run that `find` returns, up to the last saved update; `shapes` is a `TrainState` of shapes `[S, ...]`.

    Raises:
        ValueError: a file is missing or damaged, or its shapes are not those of `shapes`.
    """
    directory = find(path)
    states = checkpoints.restore(directory / STATE, shapes)
    done = int(states.update[0])
    shape = tuple(checkpoints.metadata(directory / HISTORY)["shape"])
    like = {name: jax.ShapeDtypeStruct(shape, dtype) for name, dtype in MEASURED.items()}
    history = checkpoints.restore(directory / HISTORY, like)
    lines = (directory / METRICS).read_text(encoding="utf-8").splitlines()
    # A kill can cut a line short. That line and all later ones belong to updates after the saved state.
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
