"""Resuming a run of `experiments.train`: its folder, its options, its states and its measurements so far."""

import contextlib
import json
import pathlib
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import directories, runs
from experiments.harness.recorder import Recorder
from experiments.train.thinning import Thinned
from pgjax.saving import checkpoints, identity, rotation
from pgjax.types import TrainState

OPTIONS = "options.json"
# The files of runs of former versions: one state, and the measurements of every update.
FORMER_STATE, FORMER_HISTORY = "state.safetensors", "history.safetensors"
# The options that change no number of the training. A resumed run may have other values of them.
FREE = (
    "num_updates", "eval_episodes", "gif", "references", "render", "resume", "checkpoint_every", "log_to", "allow",
    "meter",
)  # fmt: skip
PLAIN = ("precision", "float32")


class Saved(NamedTuple):
    """A run as it was when it stopped.

    Attributes:
        states: leaves `[S, ...]`; None in a run that begins.
        thinned: the intervals of its log and its curves so far.
        log: the length and the digest of its `metrics.jsonl` so far, or None if they are not known.
        seconds: the wall and the CPU time of the training so far.
        complete: whether the run had also been evaluated.
    """

    states: TrainState | None
    thinned: Thinned
    log: Mapping[str, Any] | None
    seconds: Mapping[str, float]
    complete: bool

    @property
    def done(self) -> int:
        """The number of updates so far."""
        return self.thinned.done


def find(path: pathlib.Path) -> pathlib.Path:
    """The folder of the run with the path `.../NAME`: NAME, NAME-incomplete, or `.NAME.partial`.

    An interrupted run leaves the second, a killed run the third. If there are several, the latest is returned.

    Raises:
        ValueError: none of them holds a run that can be resumed.
    """
    found = directories.found(path)
    if (found / OPTIONS).is_file():
        return found
    raise ValueError(
        f"--resume {path}: this folder holds no run of experiments.train that can be resumed, and neither do "
        f"{path.name}-incomplete and .{path.name}.partial beside it. A run can be resumed as soon as it has a file "
        f"{OPTIONS}"
    )


def options(path: pathlib.Path) -> dict[str, Any]:
    """All options of the run that `find` returns.

    Raises:
        ValueError: its file of options is missing or damaged.
    """
    wrong: list[str] = []
    read = runs.read_json(find(path) / OPTIONS, wrong)
    if wrong or not read:
        raise ValueError(f"--resume {path}: {wrong[0] if wrong else f'{OPTIONS} is empty'}")
    as_given = lambda value: tuple(value) if isinstance(value, list) else value
    return {name: as_given(value) for name, value in read.items()}


def carried(path: pathlib.Path) -> list[pathlib.Path]:
    """The files from which another process can go on with the run that `find` returns.

    Raises:
        ValueError: there is no run that can be resumed.
    """
    folder = find(path)
    states = []
    with contextlib.suppress(ValueError):  # none, or all damaged: `restore` says so
        states = [rotation.newest(folder).path]
    former = [folder / name for name in (FORMER_STATE, FORMER_HISTORY)]
    others = [folder / name for name in (OPTIONS, "summary.json")]
    return [file for file in (*states, *others, *former) if file.is_file()]


def nothing(num_runs: int) -> Saved:
    """The empty record with which a new run begins."""
    return Saved(states=None, thinned=Thinned(num_runs), log=None, seconds={}, complete=False)


def allowed(names: Collection[str]) -> set[str]:
    """The fields that --allow names, also as they are typed: `schedule-updates`, `lambda`."""
    return {found for name in names for found in (name.replace("-", "_"), f"{name.replace('-', '_')}_")}


def results_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that change results, as a file of JSON gives them back.

    Float32 products are left out, because the runs of former versions do not have the option `precision`.
    """
    kept = {name: value for name, value in options.items() if name not in FREE and (name, value) != PLAIN}
    return json.loads(json.dumps(kept, default=str))


def restore(
    path: pathlib.Path,
    shapes: TrainState,
    present: Mapping[str, Any],
    allow: Collection[str],
    say: Callable[[str], None],
) -> Saved:
    """The run that `find` returns, as in its newest checkpoint that is whole.

    Args:
        shapes: a `TrainState` of shapes `[S, ...]`.
        present: the identity of this program.
        allow: fields or groups in which the identity of the checkpoint may differ.
        say: prints a line, for example that a checkpoint is damaged.

    Raises:
        ValueError: all checkpoints are damaged, or the newest has other shapes than `shapes` or another identity.
    """
    directory = find(path)
    if not rotation.numbered(directory) and (directory / FORMER_STATE).is_file():
        return _restored_from_former_files(directory, shapes)
    found = newest(path, present, allow, say)
    if found is None:
        return nothing(len(shapes.update))
    states = _part(found, "['states']").restore(shapes)
    return Saved(
        states=states,
        thinned=Thinned.of(_thinned(_part(found, "['thinned']").arrays), int(states.update[0])),
        log=found.metadata.get("log"),
        seconds=found.metadata.get("seconds", {}),
        complete=_is_complete(directory),
    )


def newest(
    path: pathlib.Path, present: Mapping[str, Any], allow: Collection[str], say: Callable[[str], None]
) -> checkpoints.Checkpoint | None:
    """The newest checkpoint that is whole, of the run that `find` returns; None if the run has not saved any state.

    Args:
        present, allow, say: those of `restore`.

    Raises:
        ValueError: all checkpoints are damaged, or the newest has another identity.
    """
    directory = find(path)
    if not rotation.numbered(directory):
        say("No state was saved, so the run begins again.")
        return None
    warn = lambda file, reason: say(f"warning: {file.name} is damaged, so the run goes on from an older one ({reason})")
    try:
        found = rotation.newest(directory, warn)
    except ValueError as error:
        raise ValueError(f"--resume {path}: {error}") from error
    differing = identity.differences(found.metadata.get("identity", {}), present)
    if wrong := identity.refused(differing, allow):
        names = " ".join(dict.fromkeys(d.field if d.group == "options" else d.group for d in wrong))
        raise ValueError(
            f"--resume {path}: {found.path.name} was saved with other settings: {'; '.join(map(str, wrong))}. "
            f"To go on with the present ones, add --allow {names}"
        )
    for difference in differing:
        say(f"changed: {difference}")
    return found


def check(options: Mapping[str, Any], own_code: Mapping[str, str]) -> None:
    """Raise what `restore` would, without shapes: the run of these options has to be the one that was saved."""
    if rotation.numbered(find(options["resume"])):
        known = identity.identity(results_options(options), own_code)
        newest(options["resume"], known, allowed(options["allow"]), print)


def _part(found: checkpoints.Checkpoint, prefix: str) -> checkpoints.Checkpoint:
    """The leaves of a checkpoint whose paths begin with `prefix`, without it."""
    cut = lambda named: {name.removeprefix(prefix): x for name, x in named.items() if name.startswith(prefix)}
    generators = None if found.generators is None else cut(found.generators)
    return found._replace(arrays=cut(found.arrays), generators=generators)


def _thinned(arrays: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The arrays of `Thinned.arrays`, from leaves with the paths `['name']` and `['sums']['name']`."""
    sums = {name[len("['sums']['") : -2]: x for name, x in arrays.items() if name.startswith("['sums']")}
    return {name: arrays[f"['{name}']"] for name in ("updates", "steps", "returns")} | {"sums": sums}


def _restored_from_former_files(directory: pathlib.Path, shapes: TrainState) -> Saved:
    states = checkpoints.restore(directory / FORMER_STATE, shapes)
    arrays = checkpoints.read(directory / FORMER_HISTORY).arrays
    steps, returns = (arrays[f"['{name}']"] for name in ("num_steps", "mean_return"))
    done = int(states.update[0])
    thinned = Thinned(steps.shape[0])
    counts = np.isfinite(returns[:, :done]).astype(np.int32)
    thinned.add({"num_steps": steps[:, :done], "mean_return": returns[:, :done], "num_finished": counts})
    return Saved(states=states, thinned=thinned, log=None, seconds={}, complete=_is_complete(directory))


def _is_complete(directory: pathlib.Path) -> bool:
    return runs.read_json(directory / "summary.json").get("status") == "complete"


def start_log(recorder: Recorder, past: Saved) -> None:
    """Cut what the log holds beyond the checkpoint, or copy the log of a run that goes on in another folder."""
    source = None if recorder.resumes is None else recorder.resumes / "metrics.jsonl"
    log = recorder.metric_log().log
    if source is not None and source.is_file() and source.resolve() != log.path.resolve():
        log.cut(0)
        size = None if past.log is None else past.log["size"]
        log.append(source.read_bytes()[:size])
    if past.log is not None and log.cut(past.log["size"], past.log["digest"]):
        return
    if past.log is not None:
        recorder.say(
            "warning: metrics.jsonl is not as the run left it; the lines before the first damaged one are kept"
        )
    _keep_readable(log, past.done)


def _keep_readable(log: Any, done: int) -> None:
    """Cut the log before its first line that is cut short, is no JSON, or belongs to a later update."""
    kept = 0
    for line in log.path.read_bytes().splitlines(keepends=True):
        try:
            if not line.endswith(b"\n") or json.loads(line)["update"] > done:
                break
        except (ValueError, KeyError, TypeError, RecursionError):
            break
        kept += len(line)
    log.cut(kept)
