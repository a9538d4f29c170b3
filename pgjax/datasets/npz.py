"""Data sets as npz files: plain arrays and a JSON header with a schema version and a digest; no pickle."""

import contextlib
import io
import json
import os
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from pgjax import _json, _sealed, writing
from pgjax._doors import readable
from pgjax._limits import DATA_BYTES
from pgjax.datasets._archive import read_arrays
from pgjax.datasets.record import ARRAYS, DatasetError, ExpertDataset, present

SCHEMA, VERSION = "pgjax.ExpertDataset", 1
_HEADER = "header"


@contextlib.contextmanager
def errors_name(file: pathlib.Path) -> Iterator[None]:
    """Add the name of the file to a `DatasetError` that is raised inside the context."""
    try:
        yield
    except DatasetError as error:
        raise error.in_file(file) from error


def require_folder_of(path: pathlib.Path) -> None:
    """Raise a `DatasetError` that names `path` if its parent folder does not exist."""
    if not path.parent.is_dir():
        raise DatasetError("path", expected=f"a place in a folder, {path.parent}", found="no such folder", file=path)


def _write(path: pathlib.Path, arrays: dict[str, np.ndarray], header: dict[str, Any]) -> None:
    buffer = io.BytesIO()
    encoded = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(buffer, **{_HEADER: encoded, **arrays})  # pyright: ignore[reportArgumentType]  arrays are no allow_pickle
    writing.replace_file(path, buffer.getbuffer())


@readable
def save_npz(path: str | os.PathLike, dataset: ExpertDataset) -> None:
    """Write a data set to one npz file; a crash while writing never damages an older file.

    `numpy.load` can read it, too: the arrays by their names, and `header`, JSON as bytes.

    Raises:
        DatasetError: if `path` is a folder, or its parent folder does not exist.
        OSError: if the file cannot be written.
    """
    path = pathlib.Path(path)
    require_folder_of(path)
    if path.is_dir():
        raise DatasetError("path", expected="a file", found="a folder", file=path)
    native = lambda array: np.ascontiguousarray(array, array.dtype.newbyteorder("="))
    arrays = {name: native(array) for name, array in present(dataset).items()}
    digest = _sealed.digest(arrays, dataset.metadata)
    header = {"schema": SCHEMA, "version": VERSION, "sha256": digest, "metadata": dataset.metadata}
    _write(path, arrays, header)


def _header(arrays: dict[str, np.ndarray]) -> dict[str, Any]:
    if _HEADER not in arrays:
        raise DatasetError(_HEADER, expected=f"the header of {SCHEMA}", found=f"keys {sorted(arrays)}")
    try:
        header = _json.loads(arrays[_HEADER].tobytes())
        schema, version = header["schema"], header["version"]
        _ = header["sha256"], header["metadata"]
    except (ValueError, KeyError, TypeError) as error:
        raise DatasetError(_HEADER, expected=f"the header of {SCHEMA}", found=f"{type(error).__name__}") from error
    if (schema, version) != (SCHEMA, VERSION):
        raise DatasetError(_HEADER, expected=f"{SCHEMA} version {VERSION}", found=f"{schema} version {version}")
    return header


@readable
def load_npz(path: str | os.PathLike, *, action_space: Any = None, most_bytes: int = DATA_BYTES) -> ExpertDataset:
    """A data set that `save_npz` wrote, checked: header, digest, types, shapes, numbers, boundaries.

    Args:
        path: the file.
        action_space: a `Discrete` or `Box` that must contain the actions; None skips this check.
        most_bytes: the largest size of all arrays in memory. A compressed file may also not expand to more than 200
            times its own size, or 64 MiB.

    Raises:
        DatasetError: if the file is missing, cut short, damaged, of another format or version, too large, or holds
            pickled objects; or if a key is missing or unknown, or `ExpertDataset` refuses its array.
    """
    path = pathlib.Path(path)
    with errors_name(path):
        arrays = read_arrays(path, most_bytes)
        header = _header(arrays)
        del arrays[_HEADER]
        for name in ("observations", "actions", "episode_ends"):
            if name not in arrays:
                raise DatasetError(name, expected="an array", found=f"keys {sorted(arrays)}")
        if unknown := sorted(arrays.keys() - set(ARRAYS)):
            raise DatasetError(unknown[0], expected=f"no other keys than {', '.join(ARRAYS)}", found="an array")
        if (found := _sealed.digest(arrays, header["metadata"])) != header["sha256"]:
            raise DatasetError("sha256", expected=header["sha256"], found=f"{found}: the data were changed")
        native = {name: array.astype(array.dtype.newbyteorder("="), copy=False) for name, array in arrays.items()}
        dataset = ExpertDataset(**native, metadata=header["metadata"])
        if action_space is not None:
            dataset.require_actions_in(action_space)
        return dataset
