"""Where a file holds its tensors, with the checks that come before anything is read or allocated."""

import math
import pathlib
from typing import NamedTuple

from pgjax._shown import shown


class Tensor(NamedTuple):
    """One tensor of a file.

    Attributes:
        kind: how its numbers are written, such as "F32" or "Q4_1".
        shape: the sizes of its axes, the last of which varies fastest.
        start: its first byte in the file.
        stop: the byte behind its last one.
    """

    kind: str
    shape: tuple[int, ...]
    start: int
    stop: int

    def __str__(self) -> str:
        return f"{self.kind}{list(self.shape)}"


def num_bytes(kind: str, shape: tuple[int, ...], block: tuple[int, int]) -> int | None:
    """The bytes of a tensor of blocks `(numbers, bytes)` along its last axis; None if its rows are no whole blocks."""
    numbers, size = block
    if numbers > 1 and (not shape or shape[-1] % numbers):
        return None
    return math.prod(shape) // numbers * size


def require_spans(path: pathlib.Path, tensors: dict[str, Tensor], first: int, file_size: int) -> None:
    """Require tensors that lie between the byte `first` and the end of the file, and do not overlap.

    Raises:
        ValueError: if a tensor lies outside, or two overlap; the error names the file and the tensors.
    """
    before, end = None, first
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].start, item[1].stop)):
        if tensor.start < first or tensor.stop > file_size:
            raise ValueError(
                f"path {path} is damaged or cut short: {shown(name)} must lie in the bytes {first} to {file_size}, "
                f"got {tensor.start} to {tensor.stop}"
            )
        if tensor.start < end:
            raise ValueError(
                f"path {path} is damaged: {shown(name)} must begin behind {shown(before)}, which ends at byte {end}, "
                f"got {tensor.start}"
            )
        before, end = name, tensor.stop
