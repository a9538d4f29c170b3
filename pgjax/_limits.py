"""Limits of what pgjax reads from files. Each reader checks them before it takes memory for what a file announces.

A file from a stranger may announce more than it holds. So a reader first looks at the size of the file, then at its
head, then at what the head announces, and only then reads numbers. A file that is beyond a limit is refused with the
limit in the error.
"""

import pathlib

HEAD_BYTES = 1 << 25
"""The largest head of a file of tensors: 32 MiB."""
JSON_BYTES = 1 << 24
"""The largest file of JSON that is read as a whole, such as a configuration or the metadata of a data set: 16 MiB."""
JSON_DEPTH = 64
"""How many lists and objects of JSON may stand inside each other."""
JSON_VALUES = 1 << 22
"""The largest number of values in one text of JSON; each takes about 80 bytes of memory."""
DATA_BYTES = 1 << 29
"""The largest size of the arrays of a data set in memory if the caller sets no other limit: 512 MiB."""
MOST_EXPANSION = 200
"""How many times its own size a compressed file may take in memory, above `FREE_BYTES`."""
FREE_BYTES = 1 << 26
"""The size in memory up to which a compressed file may expand as it likes: 64 MiB."""
MOST_TENSORS = 100_000
"""The largest number of tensors in a file."""
MOST_AXES = 32
"""The largest number of axes of an array in a file."""
NAME_BYTES = 4096
"""The longest name of a tensor or of an entry."""


def most_expanded(file_bytes: int, most_bytes: int = DATA_BYTES) -> int:
    """The most memory that the arrays of a compressed file may take, in bytes.

    A file of a few kilobytes cannot announce gigabytes of zeros: it may take at most `MOST_EXPANSION` times its own
    size, or `FREE_BYTES` if that is more, and never more than `most_bytes`.
    """
    return min(most_bytes, max(FREE_BYTES, MOST_EXPANSION * file_bytes))


def file_size(path: pathlib.Path, most_bytes: int | None = None) -> int:
    """The size of a regular file in bytes.

    Raises:
        ValueError: if there is no such file, it is a folder or a device, it cannot be looked at, or it has more than
            `most_bytes`.
    """
    try:
        if not path.is_file():
            raise ValueError(f"path {path} is not a file")
        size = path.stat().st_size
    except OSError as error:
        raise ValueError(f"path {path} cannot be read: {error.strerror}") from error
    if most_bytes is not None and size > most_bytes:
        raise ValueError(f"path {path} must have at most {most_bytes} bytes, got {size}")
    return size


def read_whole(path: pathlib.Path, most_bytes: int = JSON_BYTES) -> bytes:
    """All bytes of a file of limited size.

    Raises:
        ValueError: as `file_size`, also if the file grows while it is read, or if the system cannot read it.
    """
    file_size(path, most_bytes)
    try:
        with path.open("rb") as file:
            content = file.read(most_bytes + 1)
    except OSError as error:
        raise ValueError(f"path {path} cannot be read: {error.strerror}") from error
    if len(content) > most_bytes:
        raise ValueError(f"path {path} must have at most {most_bytes} bytes, got more")
    return content
