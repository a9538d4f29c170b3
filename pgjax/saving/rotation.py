"""The newest checkpoints of a run, `state-NUMBER.safetensors` in one folder. An older one is read if one is damaged."""

import os
import pathlib
import re
from collections.abc import Callable
from typing import Any

from pgjax import writing
from pgjax._doors import readable
from pgjax.saving import checkpoints
from pgjax.types import PyTree

_NAME = re.compile(r"state-(\d{1,18})\.safetensors")


@readable
def numbered(folder: str | os.PathLike) -> dict[int, pathlib.Path]:
    """Number → file of each checkpoint in a folder, in rising order; empty if there is no such folder."""
    folder = pathlib.Path(folder)
    found = {int(m[1]): folder / name for name in _names(folder) if (m := _NAME.fullmatch(name))}
    return dict(sorted(found.items()))


def _names(folder: pathlib.Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


@readable
def save(
    folder: str | os.PathLike, number: int, tree: PyTree, metadata: dict[str, Any] | None = None, *, keep: int = 2
) -> pathlib.Path:
    """Write `state-NUMBER.safetensors`, and then remove all but the newest `keep` checkpoints.

    A checkpoint with a later number belongs to updates that the run makes again. It is renamed to `damaged-state-…`.

    Raises:
        ValueError: a number is out of range, or the tree cannot be saved, see `checkpoints.save`.
        WriteError: the file cannot be written; the older checkpoints are then untouched.
    """
    if number < 0 or keep < 1:
        raise ValueError(f"number must be at least 0 and keep at least 1, got {number} and {keep}")
    folder = pathlib.Path(folder)
    for later, path in numbered(folder).items():
        if later > number:
            writing.rename(path, path.with_name(f"damaged-{path.name}"))
    path = folder / f"state-{number}.safetensors"
    checkpoints.save(path, tree, metadata)
    for old in list(numbered(folder).values())[:-keep]:
        writing.remove(old)
    return path


@readable
def newest(
    folder: str | os.PathLike, on_damaged: Callable[[pathlib.Path, str], None] = lambda path, reason: None
) -> checkpoints.Checkpoint:
    """The newest checkpoint that is whole.

    Args:
        on_damaged: called with the file and the reason for each newer one that is damaged.

    Raises:
        ValueError: there is no checkpoint, or all are damaged.
    """
    reasons = []
    for path in reversed(numbered(folder).values()):
        try:
            return checkpoints.read(path)
        except ValueError as error:
            reasons.append(str(error))
            on_damaged(path, str(error))
    raise ValueError("; ".join(reasons) or f"folder {folder} holds no file state-NUMBER.safetensors")
