"""The episodes of a Minari data set: their storage is looked at as a whole before the first number is read."""

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from pgjax._limits import most_expanded
from pgjax.datasets import _hdf5
from pgjax.datasets.record import DatasetError

_MOST_DEPTH, _MOST_PARTS = 16, 1000
SHA256 = "pgjax_sha256"
"""The name of the digest that `save_minari` writes, in metadata.json and in the HDF5 file."""
_NAMES = ("observations", "actions", "rewards", "terminations", "truncations")


def _parts(group: Any, key: str, depth: int = 0) -> Iterator[tuple[str, Any]]:
    """The leaves of a dict or tuple observation with their keys, in the order of their names, numbers by value."""
    natural = lambda name: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]
    if depth > _MOST_DEPTH or len(group) > _MOST_PARTS:
        expected = f"at most {_MOST_DEPTH} groups inside each other, of at most {_MOST_PARTS} entries"
        raise DatasetError(key, expected=expected, found="more")
    for name in sorted(group, key=natural):
        stored = _hdf5.child(group, name, f"{key}/{name}")
        if _hdf5.is_group(stored):
            yield from _parts(stored, f"{key}/{name}", depth + 1)
        else:
            yield f"{key}/{name}", stored


def _stored(group: Any, key: str, flatten: bool) -> Iterator[tuple[str, Any]]:
    """Every data set of an episode that is read, with its key."""
    for name in _NAMES:
        if name not in list(group):
            raise DatasetError(f"{key}/{name}", expected="a data set", found=f"keys {sorted(group)[:20]}")
        stored = _hdf5.child(group, name, f"{key}/{name}")
        if not _hdf5.is_group(stored):
            yield f"{key}/{name}", stored
        elif name == "observations" and flatten:
            yield from _parts(stored, f"{key}/{name}")
        else:
            hint = " (flatten_observations=True joins the parts of a dict or tuple)" * (name == "observations")
            found = f"a group of {', '.join(sorted(stored)[:20])}"
            raise DatasetError(f"{key}/{name}", expected=f"one array{hint}", found=found)


def _require_size(file: Any, total: int, flatten: bool, most_bytes: int) -> None:
    """Look at all data sets before the first is read: their storage, and their size together."""
    announced, seen = 0, 0
    for number in range(total):
        key = f"episode_{number}"
        episode = _hdf5.child(file, key, key)
        if not _hdf5.is_group(episode):
            raise DatasetError(key, expected="a group", found="an array")
        for name, stored in _stored(episode, key, flatten):
            announced, seen = announced + _hdf5.require_plain(stored, name), seen + 1
            if announced > most_bytes or seen > max(_MOST_PARTS, len(_NAMES)) * total:
                expected = f"arrays of at most {most_bytes} bytes (most_bytes, and the size of the file)"
                raise DatasetError(name, expected=expected, found=f"{announced} bytes up to here")


def _read_observations(group: Any, key: str, space: dict[str, Any] | None) -> np.ndarray:
    stored = _hdf5.child(group, "observations", key)
    if _hdf5.is_group(stored):
        parts = [_hdf5.read(part) for _, part in _parts(stored, key)]
        parts = [part.reshape(part.shape[0], -1) if part.ndim else part[None, None] for part in parts]
        if len({part.shape[0] for part in parts}) != 1:
            raise DatasetError(key, expected="leaves of one length", found=[part.shape[0] for part in parts])
        return np.concatenate(parts, axis=1)
    observations = _hdf5.read(stored)
    if space is not None and "shape" in space and list(observations.shape[1:]) != list(space["shape"]):
        # Encoded images are rows of bytes, so their shape differs from the space's.
        expected = f"shape {['T + 1', *space['shape']]} of the observation space, images not encoded"
        raise DatasetError(key, expected=expected, found=list(observations.shape))
    return observations


def _read_episode(group: Any, key: str, number: int, space: dict[str, Any] | None) -> dict[str, Any]:
    """The arrays of an episode that `_require_size` has looked at."""
    array = lambda name: _hdf5.read(_hdf5.child(group, name, f"{key}/{name}"))
    episode = {name: array(name) for name in ("actions", "rewards")}
    length = len(episode["rewards"]) if episode["rewards"].ndim else 0
    if length == 0:
        raise DatasetError(f"{key}/rewards", expected="at least one step", found="none")
    episode["observations"] = _read_observations(group, f"{key}/observations", space)
    ended = {name: array(name) for name in ("terminations", "truncations")}
    wanted = {"observations": length + 1, "actions": length, "terminations": length, "truncations": length}
    for name, rows in wanted.items():
        found = (episode | ended)[name]
        if found.ndim == 0 or len(found) != rows:
            raise DatasetError(f"{key}/{name}", expected=f"{rows} rows, for {length} rewards", found=list(found.shape))
    for name, wanted_value in (("total_steps", length), ("id", number)):
        _hdf5.require_attribute(group, key, name, wanted_value)
    for name, flags in ended.items():
        if flags.dtype != bool or flags.ndim != 1:
            raise DatasetError(f"{key}/{name}", expected="bool [T]", found=f"{flags.dtype}{list(flags.shape)}")
        if flags[:-1].any():
            row = int(np.flatnonzero(flags)[0])
            raise DatasetError(f"{key}/{name}", expected="an end in the last row only", found="an earlier one", row=row)
    return episode | {"terminated": ended["terminations"][-1]}


def read_episodes(
    path: pathlib.Path, total: int, space: dict[str, Any] | None, flatten: bool, most_bytes: int
) -> tuple[list[dict[str, Any]], str | None]:
    """The arrays of every episode, and the digest in the file if `save_minari` wrote it.

    Raises:
        DatasetError: if the file is cut short, damaged or larger than `most_bytes` in memory, or holds other episodes
            than `total` ones with numbers from 0.
    """
    import h5py

    number, episodes, digest = 0, [], None
    try:
        with h5py.File(path, "r") as file:
            if len(file) != total or not total or set(file) != {f"episode_{number}" for number in range(total)}:
                found = f"{len(file)} groups"
                raise DatasetError("episodes", expected=f"episode_0 … of {total} episodes, at least 1", found=found)
            digest = _hdf5.text_attribute(file, SHA256)
            _require_size(file, total, flatten, most_expanded(path.stat().st_size, most_bytes))
            for number in range(total):
                key = f"episode_{number}"
                episodes.append(_read_episode(_hdf5.child(file, key, key), key, number, space))
    except DatasetError:
        raise
    except Exception as error:
        # Reading a damaged file raises many kinds of errors (h5py, zlib, encodings, memory).
        at = f"{path.name} episode_{number}"
        found = f"{type(error).__name__}: {error}"
        raise DatasetError(at, expected="a whole HDF5 file of Minari's layout", found=found) from error
    return episodes, digest
