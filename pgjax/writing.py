"""One way of writing files: after a kill or a power failure, a reader finds the old file or the new one, never a part.

A file is written under a temporary name of its own in the same folder and flushed to the disk. Then it takes its name
in one step, and the folder is flushed too. A log only grows at its end, and what a kill left half written is cut off.
Every function tells `on_step` which system call comes next, so that a test can end the process there. No function needs
jax.
"""

import contextlib
import functools
import hashlib
import os
import pathlib
import re
import secrets
import socket
from collections.abc import Callable, Iterator

# Called with the name and the path of every system call before it is made.
on_step: Callable[[str, pathlib.Path], None] | None = None

_LEFTOVER = re.compile(r"\.(.+)\.([0-9a-f]{8})-(\d+)-[0-9a-f]{8}\.partial", re.DOTALL)
_LONGEST = 150  # characters of a name that its temporary name repeats; file systems allow 255 bytes


class WriteError(OSError):
    """A file or a folder cannot be written; the message names it, with the reason that the system gives."""

    def __str__(self) -> str:
        return str(self.args[1]) if len(self.args) > 1 else super().__str__()


def _step(name: str, path: pathlib.Path) -> None:
    if on_step is not None:
        on_step(name, path)


@contextlib.contextmanager
def _explained(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except WriteError:
        raise
    except OSError as error:
        raise WriteError(error.errno, f"cannot write {path}: {error.strerror or error}") from error


def _path(path: str | os.PathLike, name: str = "path") -> pathlib.Path:
    """The path, which no system call has seen yet."""
    if not isinstance(path, str | os.PathLike) or "\0" in str(os.fspath(path)):
        raise ValueError(f"{name} must be a path without the character 0, got {ascii(path)[:100]}")
    return pathlib.Path(path)


@functools.cache
def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def replace_file(path: str | os.PathLike, content: bytes | memoryview | str) -> None:
    """Write a file as a whole; text is written as UTF-8.

    Raises:
        WriteError: the file cannot be written. An older file at `path` is then untouched, and nothing else is left.
    """
    path = _path(path)
    if not isinstance(content, str | bytes | bytearray | memoryview):
        raise ValueError(f"content must be a text or bytes, got {type(content).__name__}")
    content = content.encode() if isinstance(content, str) else content
    with _explained(path):
        remove_leftovers(path.parent, of=path.name)
        name = f".{path.name[:_LONGEST]}.{_host()}-{os.getpid()}-{secrets.token_hex(4)}.partial"
        partial = path.with_name(name)
        try:
            _step("open", partial)
            with partial.open("wb", buffering=0) as file:
                _write(file.fileno(), content, partial)
                _step("fsync", partial)
                os.fsync(file.fileno())
            _step("replace", path)
            partial.replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise
        sync_folder(path.parent)


def _write(descriptor: int, content: bytes | memoryview, path: pathlib.Path) -> None:
    left = memoryview(content).cast("B")
    while len(left):
        _step("write", path)
        left = left[os.write(descriptor, left) :]


def sync_folder(folder: pathlib.Path) -> None:
    """Flush the names in a folder to the disk, where the system can do it."""
    folder = _path(folder, "folder")
    _step("fsync of the folder", folder)
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def rename(source: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Rename a file or a folder in one step, and return `target`."""
    source, target = _path(source, "source"), _path(target, "target")
    with _explained(target):
        _step("rename", target)
        source.rename(target)
        for folder in {source.parent, target.parent}:
            sync_folder(folder)
    return target


def make_folder(path: pathlib.Path) -> None:
    """Make a folder with its parents.

    Raises:
        FileExistsError: the folder exists already.
        WriteError: the folder cannot be made.
    """
    path = _path(path)
    try:
        _step("mkdir", path)
        path.mkdir(parents=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise WriteError(error.errno, f"cannot make {path}: {error.strerror}") from error
    sync_folder(path.parent)


def remove(path: pathlib.Path) -> None:
    """Remove a file; nothing happens if there is none."""
    path = _path(path)
    with _explained(path):
        _step("unlink", path)
        path.unlink(missing_ok=True)


def remove_leftovers(folder: pathlib.Path, *, of: str | None = None, everything: bool = False) -> None:
    """Remove the temporary files that killed processes of this machine left in a folder.

    Args:
        of: only those of the file with this name.
        everything: also those of processes that may be alive, for a folder into which nobody else writes.
    """
    folder = _path(folder, "folder")
    try:
        names = os.listdir(folder)
    except OSError:
        return
    for name in names:
        found = name.endswith(".partial") and _LEFTOVER.fullmatch(name)
        if not found or (of is not None and found[1] != of[:_LONGEST]):
            continue
        if everything or (found[2] == _host() and not _is_alive(int(found[3]))):
            with contextlib.suppress(OSError):
                (folder / name).unlink()


def _is_alive(process: int) -> bool:
    if os.name == "nt":  # there os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


class Log:
    """A file that only grows at its end, such as one JSON object on each line.

    Attributes:
        path: the file.
        size: its length in bytes.
        digest: the SHA-256 of these bytes, as hexadecimal digits.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = path = _path(path)
        with _explained(path):
            content = path.read_bytes() if path.exists() else b""
            self._hash, self.size = hashlib.sha256(content), len(content)
            _step("open", path)
            self._descriptor: int | None = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def append(self, content: bytes) -> None:
        """Write at the end. A kill may leave a part of `content`."""
        with _explained(self.path):
            _write(self._file(), content, self.path)
        self._hash.update(content)
        self.size += len(content)

    def sync(self) -> None:
        """Flush what was appended to the disk."""
        with _explained(self.path):
            _step("fsync", self.path)
            os.fsync(self._file())

    def cut(self, size: int, digest: str | None = None) -> bool:
        """Cut off everything after the first `size` bytes. If their digest is another one, return False."""
        content = self.path.read_bytes()[:size]
        hashed = hashlib.sha256(content)
        if len(content) < size or (digest is not None and hashed.hexdigest() != digest):
            return False
        if size < self.size:
            with _explained(self.path):
                _step("cut", self.path)
                os.ftruncate(self._file(), size)
        self._hash, self.size = hashed, size
        return True

    def close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = None

    def _file(self) -> int:
        if self._descriptor is None:
            raise ValueError(f"the log {self.path} is closed")
        return self._descriptor
