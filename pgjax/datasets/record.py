"""The record of an expert's episodes, with its checks. Axes: N rows of all episodes, one after another; E episodes."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from pgjax import _json, spaces
from pgjax._checks import shown
from pgjax._doors import readable
from pgjax.types import Trajectory


class DatasetError(ValueError):
    """The error for wrong data in a data set.

    Attributes:
        key: the name of the array or entry.
        row: the number of its first wrong row, or None.
        expected, found: what was expected and what was found, in words.
        file: the file from which the data came, or None.
    """

    def __init__(self, key: str, *, expected: Any, found: Any, row: int | None = None, file: Any = None):
        self.key, self.row, self.expected, self.found, self.file = key, row, expected, found, file
        where = key if row is None else f"{key}, row {row}"
        where, expected, found = shown(where), shown(str(expected)), shown(str(found))
        super().__init__(f"{'' if file is None else f'{file}: '}{where}: expected {expected}, found {found}")

    def in_file(self, file: Any) -> "DatasetError":
        """The same error with the name of the file."""
        return DatasetError(self.key, expected=self.expected, found=self.found, row=self.row, file=file)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class ExpertDataset:
    """E complete episodes of an expert, N rows in all; NumPy arrays, checked when the record is made.

    Attributes:
        observations: X_t `[N, ...]`, bool, integers or floats.
        actions: A_t, or what the expert would do at X_t, `[N, ...]`, integers or floats.
        episode_ends: bool `[N]`, true in the last row of each episode; the last of all rows must end an episode.
        rewards: R_{t+1}, float `[N]`, or None.
        expert_log_probs: ln f*(X_t), float `[N, A]`, −∞ for probability 0, or None.
        final_observations: the observation after each episode's last action, `[E, ...]`, or None.
        terminated: bool `[E]`, true if the problem ended the episode and false if the time limit did, or None.
        metadata: a dict that JSON can hold.

    Raises:
        DatasetError: if there is no row, lengths or shapes differ, a type is wrong, a number is NaN or infinite, the
            last row ends no episode, or probabilities do not sum to 1.
    """

    observations: np.ndarray
    actions: np.ndarray
    episode_ends: np.ndarray
    rewards: np.ndarray | None = None
    expert_log_probs: np.ndarray | None = None
    final_observations: np.ndarray | None = None
    terminated: np.ndarray | None = None
    metadata: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        for name in ARRAYS:
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, np.asarray(value))
        _check(self)

    @property
    def num_rows(self) -> int:
        return self.episode_ends.shape[0]

    @property
    def num_episodes(self) -> int:
        return int(self.episode_ends.sum())

    @property
    def episode_lengths(self) -> np.ndarray:
        """The number of rows of each episode, int64 `[E]`."""
        return np.diff(np.flatnonzero(self.episode_ends), prepend=-1)

    @property
    def episode_numbers(self) -> np.ndarray:
        """The number of each row's episode, from 0, int32 `[N]`, to be used as `groups` of `training.fit`."""
        return np.repeat(np.arange(self.num_episodes, dtype=np.int32), self.episode_lengths)

    def select_episodes(self, episodes: Sequence[int] | np.ndarray) -> "ExpertDataset":
        """The episodes with the given numbers, in this order, or those that a bool mask `[E]` selects.

        Raises:
            DatasetError: if no episode is selected, a number is outside 0 … E − 1, or the mask has another length.
        """
        chosen = np.asarray(episodes)
        if chosen.dtype == bool:
            _require_shape("episodes", chosen, (self.num_episodes,))
            chosen = np.flatnonzero(chosen)
        if chosen.ndim != 1 or chosen.size == 0 or not np.issubdtype(chosen.dtype, np.integer):
            raise DatasetError("episodes", expected="a list of at least one episode's number", found=repr(episodes))
        if (bad := (chosen < 0) | (chosen >= self.num_episodes)).any():
            allowed = f"numbers in [0, {self.num_episodes - 1}]"
            raise DatasetError("episodes", expected=allowed, found=chosen[bad][0], row=int(np.flatnonzero(bad)[0]))
        ends = np.flatnonzero(self.episode_ends) + 1
        rows = np.concatenate([np.arange(ends[e] - self.episode_lengths[e], ends[e]) for e in chosen])
        pick = lambda name: chosen if name in _OF_EPISODES else rows
        arrays = {name: array[pick(name)] for name, array in present(self).items()}
        return ExpertDataset(**arrays, metadata=self.metadata)

    def episodes(self) -> Iterator["ExpertDataset"]:
        """One data set for each episode."""
        for episode in range(self.num_episodes):
            yield self.select_episodes([episode])

    def require_actions_in(self, space: Any) -> None:
        """Check that the actions lie in one space of `pgjax.spaces`, or in a space that `spaces.as_space` can convert.

        Raises:
            DatasetError: if an action is outside, where the error names the first such row; or if `space` is not such a
                space.
        """
        try:
            known = spaces.as_space(space)
        except ValueError as error:
            raise DatasetError("action space", expected=_ONE_SPACE, found=space) from error
        if not spaces.is_space(known):
            raise DatasetError("action space", expected=_ONE_SPACE, found=space)
        if isinstance(known, spaces.Discrete) and self.expert_log_probs is not None:
            _require_shape("expert_log_probs", self.expert_log_probs, (self.num_rows, known.n))
        _require_shape("actions", self.actions, (self.num_rows, *known.shape))
        kind, what = ("iu", "integers") if known.dtype.kind in "iu" else ("f", "floats")
        if self.actions.dtype.kind not in kind:
            raise DatasetError("actions", expected=what, found=self.actions.dtype)
        low, high = known.bounds
        outside = ~((self.actions >= low) & (self.actions <= high))
        _refuse_rows("actions", outside, self.actions, f"actions in [{low.min()}, {high.max()}]")
        if isinstance(known, spaces.Slate):
            _refuse_rows("actions", ~spaces.all_different(self.actions), self.actions, "different items in a slate")


ARRAYS = tuple(field.name for field in dataclasses.fields(ExpertDataset) if field.name != "metadata")
_ONE_SPACE = "one Discrete, Box, MultiDiscrete or Slate"
_OF_EPISODES = ("final_observations", "terminated")
_KINDS = {"observations": "biuf", "actions": "iuf", "rewards": "f", "expert_log_probs": "f"}
_KINDS |= {"episode_ends": "b", "terminated": "b", "final_observations": "biuf"}
_WORDS = {"b": "bool", "i": "integers", "u": "unsigned integers", "f": "floats"}


def present(dataset: ExpertDataset) -> dict[str, np.ndarray]:
    """The arrays that the data set has, by name."""
    return {name: value for name in ARRAYS if (value := getattr(dataset, name)) is not None}


def _require_shape(key: str, array: np.ndarray, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise DatasetError(key, expected=f"shape {list(shape)}", found=list(array.shape))


def _refuse_rows(key: str, bad: np.ndarray, array: np.ndarray, expected: str) -> None:
    """Raise an error for the first row with a bad entry."""
    if bad.any():
        index = tuple(np.argwhere(bad)[0])
        raise DatasetError(key, expected=expected, found=array[index], row=int(index[0]))


def _check(dataset: ExpertDataset) -> None:
    arrays = present(dataset)
    for name, array in arrays.items():
        if array.dtype.kind not in _KINDS[name]:
            raise DatasetError(name, expected=" or ".join(_WORDS[kind] for kind in _KINDS[name]), found=array.dtype)
    ends = dataset.episode_ends
    if ends.ndim != 1 or ends.size == 0:
        raise DatasetError("episode_ends", expected="shape [N] with N at least 1", found=list(ends.shape))
    if not ends[-1]:
        row = ends.size - 1
        raise DatasetError("episode_ends", expected="the last row to end an episode", found=ends[-1], row=row)
    for name, array in arrays.items():
        length, what = (int(ends.sum()), "episodes") if name in _OF_EPISODES else (ends.size, "rows")
        found = array.shape[0] if array.ndim else "a scalar"
        if found != length:
            raise DatasetError(name, expected=f"{length} {what}", found=found)
    for name in ("rewards", "terminated"):
        if name in arrays:
            _require_shape(name, arrays[name], arrays[name].shape[:1])
    _check_numbers(arrays)
    try:
        same = _json.loads(json.dumps(dataset.metadata, allow_nan=False)) == dataset.metadata
    except (TypeError, ValueError, RecursionError):
        same = False
    if not same or not isinstance(dataset.metadata, dict):
        raise DatasetError("metadata", expected="a dict that JSON gives back equal", found=shown(dataset.metadata))


def _check_numbers(arrays: dict[str, np.ndarray]) -> None:
    for name, array in arrays.items():
        if array.dtype.kind == "f" and name != "expert_log_probs":
            _refuse_rows(name, ~np.isfinite(array), array, "finite numbers")
    if (final := arrays.get("final_observations")) is not None:
        _require_shape("final_observations", final, (final.shape[0], *arrays["observations"].shape[1:]))
        if final.dtype != arrays["observations"].dtype:
            raise DatasetError("final_observations", expected=arrays["observations"].dtype, found=final.dtype)
    if (log_probs := arrays.get("expert_log_probs")) is not None:
        if log_probs.ndim != 2:
            raise DatasetError("expert_log_probs", expected="shape [N, A]", found=list(log_probs.shape))
        # This comparison refuses NaN and allows −∞.
        _refuse_rows("expert_log_probs", ~(log_probs <= 1e-3), log_probs, "logarithms of probabilities")
        total = np.exp(log_probs.astype(np.float64)).sum(axis=1)
        _refuse_rows("expert_log_probs", ~(np.abs(total - 1) < 1e-3), total, "probabilities that sum to 1")


@readable
def ends_of_lengths(episode_lengths: Sequence[int] | np.ndarray) -> np.ndarray:
    """`episode_ends`, bool `[N]`, of episodes with these lengths `[E]`.

    Raises:
        DatasetError: if there is no episode, or an episode has no row.

    Example:
        >>> from pgjax.datasets import record
        >>> record.ends_of_lengths([2, 1]).tolist()
        [False, True, True]
    """
    lengths = np.asarray(episode_lengths)
    if lengths.ndim != 1 or lengths.size == 0 or not np.issubdtype(lengths.dtype, np.integer):
        raise DatasetError("episode_lengths", expected="integers [E] with E at least 1", found=repr(episode_lengths))
    _refuse_rows("episode_lengths", lengths < 1, lengths, "at least 1")
    ends = np.zeros(int(lengths.sum()), bool)
    ends[np.cumsum(lengths) - 1] = True
    return ends


@readable
def from_trajectory(
    trajectory: Trajectory, *, expert_log_probs: np.ndarray | None = None, metadata: dict[str, Any] | None = None
) -> ExpertDataset:
    """The live rows of a trajectory, one lane after another, and within each lane in order of time.

    An episode ends where the problem ended it or the horizon cut it, and in a window also at the last step, as if it
    were cut there. For DAgger pass `trajectory._replace(actions=…)` with what the expert would have done.

    Args:
        trajectory: `[T, B, ...]`; its observations must be one array.
        expert_log_probs: ln f*(X_t) `[T, B, A]`, or None.
        metadata: the metadata of the data set.

    Raises:
        DatasetError: if the observations are not one array, no row is alive, or the data do not pass the checks of
            `ExpertDataset`.
    """
    for name in ("obs", "actions"):
        if not hasattr(getattr(trajectory, name), "shape"):
            raise DatasetError(name, expected="one array", found=type(getattr(trajectory, name)).__name__)
    alive = np.asarray(trajectory.alive)
    if not alive.any():
        raise DatasetError("alive", expected="at least one live row", found="none")
    lanes, times = np.nonzero(alive.T)
    rows = lambda x: np.asarray(x)[times, lanes]
    is_last_of_lane = np.append(lanes[1:] != lanes[:-1], True)
    terminated = rows(trajectory.terminated)
    ends = terminated | rows(trajectory.truncated) | is_last_of_lane
    if trajectory.next_obs is not None:
        final = rows(trajectory.next_obs)[ends]
    elif (ends != is_last_of_lane).any():
        row = int(np.flatnonzero(ends != is_last_of_lane)[0])
        raise DatasetError("next_obs", expected="X_{t+1} where lanes hold several episodes", found=None, row=row)
    else:
        final = np.asarray(trajectory.final_obs)[lanes[ends]]
    return ExpertDataset(
        observations=rows(trajectory.obs),
        actions=rows(trajectory.actions),
        episode_ends=ends,
        rewards=rows(trajectory.rewards),
        expert_log_probs=None if expert_log_probs is None else rows(expert_log_probs),
        final_observations=final,
        terminated=terminated[ends],
        metadata=metadata or {},
    )


@readable
def concatenate(datasets: Sequence[ExpertDataset], *, metadata: dict[str, Any] | None = None) -> ExpertDataset:
    """The episodes of all data sets, one data set after another, as DAgger aggregates them.

    Args:
        datasets: at least one data set; all have the same optional arrays, shapes of a row and types.
        metadata: the metadata of the result; those of the parts are not used.

    Raises:
        DatasetError: if there is no data set, or they differ; `row` is then the number of the data set.
    """
    if not datasets:
        raise DatasetError("datasets", expected="at least one", found="none")
    parts = [present(dataset) for dataset in datasets]
    describe = lambda part, name: f"{part[name].dtype}{list(part[name].shape[1:])}" if name in part else None
    for number, part in enumerate(parts):
        for name in ARRAYS:
            if (found := describe(part, name)) != (expected := describe(parts[0], name)):
                raise DatasetError(name, expected=expected, found=found, row=number)
    arrays = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return ExpertDataset(**arrays, metadata=metadata or {})
