"""The file metadata.json of a Minari data set: its entries are checked, and its spaces are read and written."""

import json
import math
import pathlib
from typing import Any

import numpy as np

from pgjax import _json
from pgjax._checks import shown
from pgjax._limits import MOST_AXES
from pgjax.datasets.record import DatasetError
from pgjax.types import Box, Discrete

# The versions that Minari 0.5.4 reads.
VERSIONS = ("0.4.0", "0.4.1", "0.4.2", "0.4.3", "0.5.0", "0.5.1", "0.5.2", "0.5.3", "0.5.4")
FILES = ("metadata.json", "main_data.hdf5")
SPACES = ("observation_space", "action_space")
_MOST_EPISODES = 1_000_000
_MOST_STEPS = 1 << 40
_MOST_NUMBERS = 1 << 24  # of one element of a space


def read(folder: pathlib.Path) -> dict[str, Any]:
    """The object in metadata.json; both files are there, and the numbers of episodes and steps are in range."""
    for name in FILES:
        if not (folder / name).is_file():
            raise DatasetError("file", expected=f"{folder / name}", found="no such file")
    try:
        metadata = _json.read_object(folder / FILES[0])
    except ValueError as error:
        raise DatasetError("metadata.json", expected="a JSON object", found=f"{error}") from error
    for name in ("minari_version", "total_episodes", "total_steps"):
        if name not in metadata:
            raise DatasetError(f"metadata.json {name}", expected="an entry", found="none")
    if metadata["minari_version"] not in VERSIONS:
        known = f"one of {', '.join(VERSIONS)}"
        raise DatasetError("metadata.json minari_version", expected=known, found=metadata["minari_version"])
    if (found := metadata.get("data_format", "hdf5")) != "hdf5":
        raise DatasetError("metadata.json data_format", expected="hdf5", found=found)
    for name, most in (("total_episodes", _MOST_EPISODES), ("total_steps", _MOST_STEPS)):
        # Minari wrote numpy integers as they are, and some versions wrote floats.
        found = metadata[name]
        is_number = isinstance(found, int | float) and not isinstance(found, bool)
        if not is_number or not 0 <= found <= most or found != int(found):
            raise DatasetError(f"metadata.json {name}", expected=f"an integer in [0, {most}]", found=found)
        metadata[name] = int(found)
    return metadata


def space_of(metadata: dict[str, Any], name: str) -> dict[str, Any] | None:
    """The description of a space with its numbers checked, or None if the file does not describe it."""
    if name not in metadata:
        return None
    wrong = lambda found: DatasetError(f"metadata.json {name}", expected="a space in JSON", found=found)
    if not isinstance(metadata[name], str):
        raise wrong(shown(metadata[name]))
    try:
        space = _json.loads(metadata[name], infinite=True)
        if space["type"] == "Discrete":
            space = {"shape": [], "start": 0} | space
            if type(space["n"]) is not int or type(space["start"]) is not int or not 0 < space["n"] < 1 << 62:
                raise wrong(f"n={shown(space['n'])}, start={shown(space['start'])}")
        elif space["type"] == "Box":
            space["low"], space["high"] = np.asarray(space["low"], float), np.asarray(space["high"], float)
        shape = space.get("shape", [])
        sizes = isinstance(shape, list) and len(shape) <= MOST_AXES and all(type(n) is int and n >= 0 for n in shape)
        if not sizes or math.prod(shape) > _MOST_NUMBERS:
            raise wrong(f"the shape {shown(shape)}")
        return space
    except DatasetError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise wrong(f"{error!r}") from error


def plain_space(metadata: dict[str, Any], name: str) -> Discrete | Box | None:
    """A space of numbers; None if the file does not describe one.

    Raises:
        DatasetError: if the description fits no `Discrete` from 0 and no `Box`.
    """
    space = space_of(metadata, name)
    if space is None:
        return None
    try:
        if space["type"] == "Discrete" and space["start"] == 0:
            return Discrete(n=space["n"])
        if space["type"] == "Box":
            return Box(low=space["low"], high=space["high"], shape=tuple(space["shape"]), dtype=space["dtype"])
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise DatasetError(f"metadata.json {name}", expected="a space in JSON", found=f"{error!r}") from error
    found = f"{shown(space['type'])}, start {space.get('start', 0)}"
    raise DatasetError(f"metadata.json {name}", expected="Box, or Discrete from 0", found=found)


def require_observations_in(observations: np.ndarray, space: dict[str, Any] | None, key: str) -> None:
    """Require observations inside the space of the file, up to the rounding of its bounds.

    Raises:
        DatasetError: names the first row outside.
    """
    if space is None or space["type"] not in ("Box", "Discrete"):
        return
    if space["type"] == "Box":
        low, high = space["low"], space["high"]
    else:
        low, high = np.asarray(space["start"], float), np.asarray(space["start"] + space["n"] - 1, float)
    if np.isneginf(low).all() and np.isposinf(high).all():
        return
    try:
        slack = [np.where(np.isfinite(bound), 1e-5 * np.maximum(np.abs(bound), 1e-3), 0.0) for bound in (low, high)]
        outside = ~((observations >= low - slack[0]) & (observations <= high + slack[1]))
    except ValueError as error:
        raise DatasetError(f"{key} and its space", expected="bounds of its shape", found=f"{error}") from error
    if outside.any():
        index = tuple(np.argwhere(outside)[0])
        expected = f"numbers in [{low.min()}, {high.max()}], the space of the file"
        raise DatasetError(key, expected=expected, found=observations[index], row=int(index[0]))


def space_json(space: Discrete | Box) -> str:
    """The description of a space as Minari writes it."""
    if isinstance(space, Discrete):
        return json.dumps({"type": "Discrete", "dtype": "int64", "start": 0, "n": space.n})
    bounds = {
        name: np.broadcast_to(np.asarray(getattr(space, name), float), space.shape).tolist() for name in ("low", "high")
    }
    return json.dumps({"type": "Box", "dtype": str(np.dtype(space.dtype)), "shape": list(space.shape), **bounds})
