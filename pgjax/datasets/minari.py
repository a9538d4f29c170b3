"""Data sets in Minari's HDF5 layout, read and written without Minari.

    PATH/data/metadata.json     spaces as JSON strings, numbers of episodes and steps, minari_version
    PATH/data/main_data.hdf5    groups episode_0 …: observations [T+1, ...], actions [T, ...], rewards [T],
                                terminations [T], truncations [T]; attributes id, total_steps, seed

Source: Minari 0.5.4 (Farama Foundation), `HDF5Storage`. Axes: T steps of an episode.
"""

import io
import json
import os
import pathlib
import re
import shutil
from typing import Any

import numpy as np

from pgjax import _sealed, writing
from pgjax._doors import readable
from pgjax._limits import DATA_BYTES
from pgjax.datasets import _minari_metadata
from pgjax.datasets._minari_episodes import SHA256, read_episodes
from pgjax.datasets._minari_metadata import FILES, SPACES, VERSIONS, plain_space, space_json, space_of
from pgjax.datasets.npz import errors_name, require_folder_of
from pgjax.datasets.record import DatasetError, ExpertDataset, ends_of_lengths, present
from pgjax.types import Box, Discrete

# The entry under which `save_minari` writes the metadata of a data set.
_OWN = "pgjax"


def _joined(episodes: list[dict[str, Any]], metadata: dict[str, Any]) -> ExpertDataset:
    for name in ("observations", "actions", "rewards"):
        kinds = [f"{episode[name].dtype}{list(episode[name].shape[1:])}" for episode in episodes]
        for number, kind in enumerate(kinds):
            if kind != kinds[0]:
                raise DatasetError(f"episode_{number}/{name}", expected=f"{kinds[0]}, as in episode_0", found=kind)
    # Metadata that another program wrote are kept, except the description of the spaces.
    own = metadata.get(_OWN, {name: value for name, value in metadata.items() if name not in SPACES})
    lengths = [len(episode["rewards"]) for episode in episodes]
    # Each array leaves its episode when it is joined, so memory holds the largest array twice and no other.
    taken = lambda name: [episode.pop(name) for episode in episodes]
    observations = taken("observations")
    return ExpertDataset(
        final_observations=np.stack([array[-1] for array in observations]),
        observations=np.concatenate([array[:-1] for array in observations]),
        actions=np.concatenate(taken("actions")),
        episode_ends=ends_of_lengths(lengths),
        rewards=np.concatenate(taken("rewards")),
        terminated=np.stack(taken("terminated")),
        metadata=own,
    )


@readable
def load_minari(
    path: str | os.PathLike,
    *,
    flatten_observations: bool = False,
    check_observations: bool = True,
    most_bytes: int = DATA_BYTES,
) -> ExpertDataset:
    """The episodes of a Minari data set on disk, in HDF5 format.

    Actions and observations are checked against the spaces of the file. `infos` and seeds are not read; images must be
    stored raw (`jpeg_encoding=False`). An episode whose last step has no flag counts as not terminated. Links to other
    places or files, storage in other files, chunks that were never written and unknown filters are refused.

    A data set that `save_minari` wrote holds a digest, so a flipped bit is found. One that Minari wrote holds none: a
    flipped bit is noticed if the file has HDF5's checksums, or if a number is then not finite or outside its space.

    Args:
        path: the data set's folder, which holds `data/`.
        flatten_observations: whether the parts of dict and tuple observations are joined to `[T + 1, D]`, in the order
            of their names (numbers by value); if not, such observations are refused.
        check_observations: whether observations outside the observation space of the file are refused. The digest of a
            data set that `save_minari` wrote makes this check needless, and it is then left out.
        most_bytes: the largest size of all arrays in memory.

    Raises:
        DatasetError: if a file is missing, cut short, damaged, too large or of an unknown version, or an episode does
            not have the layout above; the error names `episode_i/key`. It counts rows within the episode if the key
            names one, and over all episodes otherwise.
    """
    folder = pathlib.Path(path) / "data"
    with errors_name(pathlib.Path(path)):
        metadata = _minari_metadata.read(folder)
        action_space, space = plain_space(metadata, "action_space"), space_of(metadata, "observation_space")
        episodes, digest = read_episodes(
            folder / FILES[1], metadata["total_episodes"], space, flatten_observations, most_bytes
        )
        if (found := sum(len(episode["rewards"]) for episode in episodes)) != metadata["total_steps"]:
            raise DatasetError("metadata.json total_steps", expected=metadata["total_steps"], found=found)
        dataset = _joined(episodes, metadata)
        if action_space is not None:
            dataset.require_actions_in(action_space)
        if SHA256 in metadata or digest is not None:
            # Both files hold the digest, so that neither can lose it unseen.
            found = _digest(dataset, metadata)
            for wanted in (metadata.get(SHA256), digest):
                if found != wanted:
                    raise DatasetError(SHA256, expected=wanted, found=f"{found}: the data were changed")
        elif check_observations:
            for key in ("observations", "final_observations"):
                _minari_metadata.require_observations_in(getattr(dataset, key), space, key)
        return dataset


def _digest(dataset: ExpertDataset, metadata: dict[str, Any]) -> str:
    covered = {name: value for name, value in metadata.items() if name != SHA256}
    native = {name: array.astype(array.dtype.newbyteorder("=")) for name, array in present(dataset).items()}
    return _sealed.digest(native, covered)


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


@readable
def save_minari(
    path: str | os.PathLike, dataset: ExpertDataset, *, dataset_id: str, observation_space: Any, action_space: Any
) -> None:
    """Write a data set as a new folder in Minari's layout; the folder is complete as soon as it exists.

    Chunks have HDF5's Fletcher checksum, and metadata.json has a digest of everything under `pgjax_sha256`, so reading
    a damaged file fails; Minari can read such files. The metadata of the data set are written under the entry `pgjax`.

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
    metadata = {
        "total_episodes": dataset.num_episodes,
        "total_steps": dataset.num_rows,
        "data_format": "hdf5",
        "jpeg_encoding": False,
        "observation_space": space_json(observation_space),
        "action_space": space_json(action_space),
        "dataset_id": dataset_id,
        "minari_version": VERSIONS[-1],
        _OWN: dataset.metadata,
    }
    metadata = json.loads(json.dumps(metadata))
    metadata[SHA256] = _digest(dataset, metadata)
    content = io.BytesIO()
    with h5py.File(content, "w", track_order=True) as file:
        file.attrs[SHA256] = np.bytes_(metadata[SHA256])
        for number, episode in enumerate(dataset.episodes()):
            _write_episode(file.create_group(f"episode_{number}"), number, episode)
    writing.replace_file(partial / "data" / FILES[1], content.getbuffer())
    writing.replace_file(partial / "data" / FILES[0], json.dumps(metadata))
    writing.rename(partial, path)


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
