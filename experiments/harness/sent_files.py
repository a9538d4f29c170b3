"""Files that process 0 sends to the other processes of its run, which may be on machines with other disks."""

import pathlib
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from experiments.harness import team

PIECE = 1 << 24  # bytes that are sent at once


def share(files: Mapping[str, pathlib.Path | Sequence[pathlib.Path]]) -> dict[str, pathlib.Path]:
    """Send the files of process 0 to the other processes.

    Args:
        files: name of an input → its file, or several files of one folder. Only those of process 0 count, but every
            process must have the same names.

    Returns:
        In the other processes, the copy of the file of each input, or the folder with the copies of its files; empty in
        process 0.

    Raises:
        UsageError: this process has other names than process 0.
    """
    us = team.current
    if us.writes:
        lists = {name: [found] if isinstance(found, pathlib.Path) else found for name, found in files.items()}
        sizes = {name: [(path.name, path.stat().st_size) for path in found] for name, found in lists.items()}
        alone = [name for name, found in files.items() if isinstance(found, pathlib.Path)]
        us.publish("inputs", (sizes, alone))
    else:
        lists, (sizes, alone) = {}, us.read("inputs")
    if sizes.keys() != files.keys():
        option = lambda name: f"--{name.replace('_', '-')}"
        ours, theirs = (" ".join(map(option, x)) or "no files to read" for x in (files, sizes))
        us.refuse(f"process {us.index} was started with {ours}, but process 0 with {theirs}")
    for name, of_name in sizes.items():
        for number, (file, size) in enumerate(of_name):
            if us.writes:
                _send(lists[name][number], size)
            else:
                _receive(_place(name) / file, size)
    if us.writes:
        return {}
    return {name: _place(name) / of_name[0][0] if name in alone else _place(name) for name, of_name in sizes.items()}


def _place(name: str) -> pathlib.Path:
    place = team.current.folder() / name / "run"
    place.mkdir(parents=True, exist_ok=True)
    return place


def _pieces(size: int) -> Iterator[int]:
    return iter([PIECE] * (size // PIECE) + [size % PIECE] * bool(size % PIECE))


def _send(path: pathlib.Path, size: int) -> None:
    from jax.experimental import multihost_utils

    with path.open("rb") as file:
        for count in _pieces(size):
            multihost_utils.broadcast_one_to_all(np.frombuffer(file.read(count), np.uint8), is_source=True)


def _receive(path: pathlib.Path, size: int) -> None:
    from jax.experimental import multihost_utils

    with path.open("wb") as file:
        for count in _pieces(size):
            got = multihost_utils.broadcast_one_to_all(np.zeros(count, np.uint8), is_source=False)
            file.write(np.asarray(got).tobytes())
