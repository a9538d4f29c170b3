"""Data sets in Minari's HDF5 layout, read and written without Minari.

    PATH/data/metadata.json     spaces as JSON strings, numbers of episodes and steps, minari_version
    PATH/data/main_data.hdf5    groups episode_0 …: observations [T+1, ...], actions [T, ...], rewards [T],
                                terminations [T], truncations [T]; attributes id, total_steps, seed

Source: Minari 0.5.4 (Farama Foundation), `HDF5Storage`. Axes: T steps of an episode.
"""

import json
import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from pgjax.datasets.npz import errors_name, require_folder_of
from pgjax.datasets.record import DatasetError, ExpertDataset, ends_of_lengths
from pgjax.types import Box, Discrete

# The versions that Minari 0.5.4 reads.
VERSIONS = ("0.4.0", "0.4.1", "0.4.2", "0.4.3", "0.5.0", "0.5.1", "0.5.2", "0.5.3", "0.5.4")
_FILES = ("metadata.json", "main_data.hdf5")
_SPACES = ("observation_space", "action_space")
# The entry under which `save_minari` writes the metadata of a data set.
_OWN = "pgjax"


def _read_metadata(folder: pathlib.Path) -> dict[str, Any]:
    for name in _FILES:
        if not (folder / name).is_file():
            raise DatasetError("file", expected=f"{folder / name}", found="no such file")
    try:
        metadata = json.loads((folder / _FILES[0]).read_text())
    except ValueError as error:
        raise DatasetError("metadata.json", expected="JSON", found=f"{error}") from error
    for name in ("minari_version", "total_episodes", "total_steps"):
        if not isinstance(metadata, dict) or name not in metadata:
            raise DatasetError(f"metadata.json {name}", expected="an entry", found="none")
    if metadata["minari_version"] not in VERSIONS:
        known = f"one of {', '.join(VERSIONS)}"
        raise DatasetError("metadata.json minari_version", expected=known, found=metadata["minari_version"])
    if (found := metadata.get("data_format", "hdf5")) != "hdf5":
        raise DatasetError("metadata.json data_format", expected="hdf5", found=found)
    return metadata


def _space(metadata: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The description of a space, or None if the file does not describe it."""
    if name not in metadata:
        return None
    try:
        space = json.loads(metadata[name])
        if space["type"] == "Discrete":
            space = {"shape": [], "start": 0, "n": int(space["n"])} | space
        elif space["type"] == "Box":
            space["low"], space["high"] = np.asarray(space["low"], float), np.asarray(space["high"], float)
        return space
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(f"metadata.json {name}", expected="a space in JSON", found=f"{error!r}") from error


def _action_space(metadata: dict[str, Any]) -> Discrete | Box | None:
    space = _space(metadata, "action_space")
    if space is None:
        return None
    try:
        if space["type"] == "Discrete" and space["start"] == 0:
            return Discrete(n=space["n"])
        if space["type"] == "Box":
            return Box(low=space["low"], high=space["high"], shape=tuple(space["shape"]), dtype=space["dtype"])
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError("metadata.json action_space", expected="a space in JSON", found=f"{error!r}") from error
    found = f"{space['type']}, start {space.get('start', 0)}"
    raise DatasetError("metadata.json action_space", expected="Box, or Discrete from 0", found=found)


def _flattened(group: Any, key: str) -> np.ndarray:
    """The leaves of a dict or tuple observation, joined to one row of numbers per step, in the order of their names."""
    natural = lambda name: [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    parts = []
    for name in sorted(group, key=natural):
        child = group[name]
        array = _flattened(child, f"{key}/{name}") if hasattr(child, "keys") else _array(child, f"{key}/{name}")
        parts.append(array.reshape(array.shape[0], -1) if array.ndim else array[None, None])
    if len({part.shape[0] for part in parts}) != 1:
        raise DatasetError(key, expected="leaves of one length", found=[part.shape[0] for part in parts])
    return np.concatenate(parts, axis=1)


def _array(stored: Any, key: str) -> np.ndarray:
    if stored.dtype.kind not in "biuf":
        raise DatasetError(key, expected="plain numbers", found=f"{stored.dtype} (text, or encoded images)")
    return stored[()]


def _read_observations(group: Any, key: str, space: dict[str, Any] | None, flatten: bool) -> np.ndarray:
    stored = group["observations"]
    if hasattr(stored, "keys"):
        if not flatten:
            raise DatasetError(
                f"{key}/observations",
                expected="one array (flatten_observations=True joins the parts of a dict or tuple)",
                found=f"a group of {', '.join(sorted(stored))}",
            )
        return _flattened(stored, f"{key}/observations")
    observations = _array(stored, f"{key}/observations")
    if space is not None and "shape" in space and list(observations.shape[1:]) != list(space["shape"]):
        # Encoded images are rows of bytes, so their shape differs from the space's.
        expected = f"shape {['T + 1', *space['shape']]} of the observation space, images not encoded"
        raise DatasetError(f"{key}/observations", expected=expected, found=list(observations.shape))
    return observations


def _read_episode(group: Any, key: str, number: int, space: dict[str, Any] | None, flatten: bool) -> dict[str, Any]:
    for name in ("observations", "actions", "rewards", "terminations", "truncations"):
        if name not in group:
            raise DatasetError(f"{key}/{name}", expected="a data set", found=f"keys {sorted(group)}")
        if name != "observations" and hasattr(group[name], "keys"):
            raise DatasetError(f"{key}/{name}", expected="one array", found=f"a group of {', '.join(group[name])}")
    episode = {name: _array(group[name], f"{key}/{name}") for name in ("actions", "rewards")}
    length = len(episode["rewards"]) if episode["rewards"].ndim else 0
    if length == 0:
        raise DatasetError(f"{key}/rewards", expected="at least one step", found="none")
    episode["observations"] = _read_observations(group, key, space, flatten)
    ended = {name: _array(group[name], f"{key}/{name}") for name in ("terminations", "truncations")}
    wanted = {"observations": length + 1, "actions": length, "terminations": length, "truncations": length}
    for name, rows in wanted.items():
        array = (episode | ended)[name]
        if array.ndim == 0 or len(array) != rows:
            raise DatasetError(f"{key}/{name}", expected=f"{rows} rows, for {length} rewards", found=list(array.shape))
    for name, wanted_value in (("total_steps", length), ("id", number)):
        if name in group.attrs and group.attrs[name] != wanted_value:
            raise DatasetError(f"{key} attribute {name}", expected=wanted_value, found=group.attrs[name])
    for name, flags in ended.items():
        if flags.dtype != bool or flags.ndim != 1:
            raise DatasetError(f"{key}/{name}", expected="bool [T]", found=f"{flags.dtype}{list(flags.shape)}")
        if flags[:-1].any():
            row = int(np.flatnonzero(flags)[0])
            raise DatasetError(f"{key}/{name}", expected="an end in the last row only", found="an earlier one", row=row)
    return episode | {"terminated": ended["terminations"][-1]}


def _joined(episodes: list[dict[str, Any]], metadata: dict[str, Any]) -> ExpertDataset:
    for name in ("observations", "actions", "rewards"):
        kinds = [f"{episode[name].dtype}{list(episode[name].shape[1:])}" for episode in episodes]
        for number, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise DatasetError(f"episode_{number}/{name}", expected=f"{kinds[0]}, as in episode_0", found=kind)
    # Metadata that another program wrote are kept, except the description of the spaces.
    own = metadata.get(_OWN, {name: value for name, value in metadata.items() if name not in _SPACES})
    return ExpertDataset(
        observations=np.concatenate([episode["observations"][:-1] for episode in episodes]),
        actions=np.concatenate([episode["actions"] for episode in episodes]),
        episode_ends=ends_of_lengths([len(episode["rewards"]) for episode in episodes]),
        rewards=np.concatenate([episode["rewards"] for episode in episodes]),
        final_observations=np.stack([episode["observations"][-1] for episode in episodes]),
        terminated=np.stack([episode["terminated"] for episode in episodes]),
        metadata=own,
    )


def load_minari(path: str | os.PathLike, *, flatten_observations: bool = False) -> ExpertDataset:
    """The episodes of a Minari data set on disk, in HDF5 format.

    Actions are checked against the action space of the file. `infos` and seeds are not read; images must be stored raw
    (`jpeg_encoding=False`). An episode whose last step has no flag counts as not terminated.

    Args:
        path: the data set's folder, which holds `data/`.
        flatten_observations: whether the parts of dict and tuple observations are joined to `[T + 1, D]`, in the order
            of their names (numbers by value); if not, such observations are refused.

    Raises:
        DatasetError: if a file is missing, cut short, damaged or of an unknown version, or an episode does not have the
            layout above; the error names `episode_i/key`. It counts rows within the episode if the key names one, and
            over all episodes otherwise.
    """
    import h5py

    folder = pathlib.Path(path) / "data"
    with errors_name(pathlib.Path(path)):
        metadata = _read_metadata(folder)
        action_space, space = _action_space(metadata), _space(metadata, "observation_space")
        number, total, episodes = 0, metadata["total_episodes"], []
        try:
            with h5py.File(folder / _FILES[1], "r") as file:
                if set(file) != {f"episode_{number}" for number in range(total)} or not total:
                    found = f"{len(file)} groups"
                    raise DatasetError("episodes", expected=f"episode_0 … of {total} episodes, at least 1", found=found)
                for number in range(total):
                    key = f"episode_{number}"
                    episodes.append(_read_episode(file[key], key, number, space, flatten_observations))
        except (OSError, RuntimeError, KeyError, TypeError, AttributeError) as error:
            at = f"{_FILES[1]} episode_{number}"
            raise DatasetError(at, expected="a whole HDF5 file of Minari's layout", found=f"{error}") from error
        if (found := sum(len(episode["rewards"]) for episode in episodes)) != metadata["total_steps"]:
            raise DatasetError("metadata.json total_steps", expected=metadata["total_steps"], found=found)
        dataset = _joined(episodes, metadata)
        if action_space is not None:
            dataset.require_actions_in(action_space)
        return dataset


def _space_json(space: Discrete | Box) -> str:
    if isinstance(space, Discrete):
        return json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": space.n})
    bounds = {
        name: np.broadcast_to(np.asarray(getattr(space, name), float), space.shape).tolist() for name in ("low", "high")
    }
    return json.dumps({"type": "Box", "dtype": str(np.dtype(space.dtype)), "shape": list(space.shape), **bounds})


def _require_writable(dataset: ExpertDataset, dataset_id: str, observation_space: Any, action_space: Any) -> None:
    for name in ("rewards", "final_observations", "terminated"):
        if getattr(dataset, name) is None:
            raise DatasetError(name, expected="an array, which Minari's layout holds", found=None)
    if dataset.expert_log_probs is not None:
        raise DatasetError("expert_log_probs", expected="None, Minari's layout has no place for it", found="an array")
    if not re.fullmatch(r"([-\w]+/)*[-\w]+-v\d+", dataset_id):
        raise DatasetError("dataset_id", expected="(namespace/)name-vN", found=repr(dataset_id))
    for name, space in (("observation_space", observation_space), ("action_space", action_space)):
        if not isinstance(space, Discrete | Box):
            raise DatasetError(name, expected="Discrete or Box, which can be written", found=space)
    dataset.require_actions_in(action_space)
    shape, found = list(observation_space.shape), list(dataset.observations.shape[1:])
    if shape != found:
        raise DatasetError("observations", expected=f"shape {['N', *shape]} of their space", found=["N", *found])


def save_minari(
    path: str | os.PathLike, dataset: ExpertDataset, *, dataset_id: str, observation_space: Any, action_space: Any
) -> None:
    """Write a data set as a new folder in Minari's layout; the folder is complete as soon as it exists.

    Chunks have HDF5's Fletcher checksum, so reading a damaged file fails; Minari can read such files. The metadata of
    the data set are written under the entry `pgjax`.

    Args:
        path: the folder to make, in a folder that exists; Minari finds it as `MINARI_DATASETS_PATH/dataset_id`.
        dataset: a data set with rewards, final observations and `terminated`, and without `expert_log_probs`.
        dataset_id: `(namespace/)name-vN`.
        observation_space, action_space: `Discrete` or `Box`.

    Raises:
        DatasetError: if the data set lacks something that the layout needs or has something that it cannot hold, the
            actions are outside their space, the shape of the observations is not that of their space, or the name does
            not have the form above; or if `path` exists, or its parent folder does not.
        OSError: if the folder cannot be written.
    """
    import h5py

    path = pathlib.Path(path)
    _require_writable(dataset, dataset_id, observation_space, action_space)
    require_folder_of(path)
    if path.exists():
        raise DatasetError("path", expected="a new folder", found="one that exists already, or a file", file=path)
    partial = path.with_name(path.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    (partial / "data").mkdir(parents=True)
    with h5py.File(partial / "data" / _FILES[1], "w", track_order=True) as file:
        for number, episode in enumerate(dataset.episodes()):
            _write_episode(file.create_group(f"episode_{number}"), number, episode)
    metadata = {
        "total_episodes": dataset.num_episodes,
        "total_steps": dataset.num_rows,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": _space_json(observation_space),
        "action_space": _space_json(action_space),
        "dataset_id": dataset_id,
        "minari_version": VERSIONS[-1],
        _OWN: dataset.metadata,
    }
    (partial / "data" / _FILES[0]).write_text(json.dumps(metadata))
    partial.rename(path)


def _write_episode(group: Any, number: int, episode: ExpertDataset) -> None:
    assert episode.terminated is not None and episode.final_observations is not None, "required of what is written"
    terminated = bool(episode.terminated[0])
    arrays = {
        "observations": np.concatenate([episode.observations, episode.final_observations]),
        "actions": episode.actions,
        "rewards": episode.rewards,
        "terminations": episode.episode_ends & terminated,
        "truncations": episode.episode_ends & (not terminated),
    }
    for name, array in arrays.items():
        maxshape = (None, *array.shape[1:])
        group.create_dataset(name, data=array, chunks=True, maxshape=maxshape, fletcher32=True)
    group.attrs["id"], group.attrs["total_steps"] = number, episode.num_rows
