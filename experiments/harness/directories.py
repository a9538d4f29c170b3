"""The folders of runs: their names, the working folder of a running run, and the earlier attempts of a resumed run.

`PARENT/.NAME.partial` is the folder of the run NAME while it runs, and after it was killed. It becomes `NAME` when the
run is complete, and `NAME-incomplete` when it fails or is interrupted. A run that is resumed goes on in its folder,
and what described its earlier attempts moves to `earlier/1`, `earlier/2`, … inside it. A complete run that is resumed
stays as it is until its continuation, in a folder of its own, is complete; then it moves there to `earlier`. Each step
is one rename, so a run that was killed between two of them can go on.
"""

import contextlib
import datetime
import glob
import json
import os
import pathlib
import re
import secrets
import shlex
import shutil
import time

from pgjax import writing

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

EARLIER = "earlier"
# The file that marks the continuation of a complete run.
CONTINUES = "continues.json"
# The files that describe one attempt of a run.
OF_ATTEMPT = ("summary.json", "summary.md", "error.txt", "environment.json")
LONGEST_NAME = 200  # bytes; file systems allow 255, and ".partial" or "-incomplete-2" must fit too
OPTIONS = "options.json"  # of a run that is resumed with its options
# The files that a run may have before it has saved any work.
COMMON = {*OF_ATTEMPT, "config.json", "metrics.jsonl", OPTIONS, EARLIER, CONTINUES}


class UsageError(ValueError):
    """The user asked for something that is not allowed: the run ends with one line and exit code 2, without files."""


def default_run_name() -> str:
    return f"{datetime.datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def checked_run_name(name: str) -> str:
    """Return `name`, if every system allows it as a folder and it is not that of an unfinished run.

    Raises:
        UsageError: the name is not allowed.
    """
    odd = set(name) & set('/\\:*?"<>|') or not name.isprintable() or name != name.strip()
    if not name or odd or name.startswith(".") or name_of(name) != name:
        raise UsageError(
            f'--run-name {shlex.quote(name)}: must be a plain directory name without line breaks and /\\:*?"<>|; '
            "it must not begin with a dot or end with -incomplete"
        )
    if len(name.encode()) > LONGEST_NAME:
        raise UsageError(f"--run-name {name[:20]}…: must have at most {LONGEST_NAME} bytes, got {len(name.encode())}")
    return name


def name_of(directory: str) -> str:
    """The name of the run in a folder: `NAME-incomplete-2` and `.NAME.partial` → `NAME`."""
    for pattern in (r"\.(.+)\.partial", r"(.+)-incomplete(?:-\d+)?"):
        if found := re.fullmatch(pattern, directory, re.DOTALL):
            return found[1]
    return directory


def found(path: pathlib.Path) -> pathlib.Path:
    """The folder of the run with the path `.../NAME`, which may be unfinished; `.../NAME` itself if there is none.

    If there are several, the latest one that can be resumed is returned. The unfinished continuation of a complete run
    comes before the complete run.

    Raises:
        UsageError: no file system can have the path.
    """
    path = path if path.name else path.resolve()
    try:
        exists = path.exists()
    except OSError as error:
        raise UsageError(f"--resume {str(path)[:60]}…: {error.strerror}") from error
    if not exists:
        path = path.with_name(name_of(path.name))
    others = [*path.parent.glob(f"{glob.escape(path.name)}-incomplete*"), path.with_name(f".{path.name}.partial")]
    others = [other for other in others if other.is_dir() and name_of(other.name) == path.name]
    if path.is_dir():
        others = [other for other in others if (other / CONTINUES).is_file() and holds_work(other)]
    return max(others, key=lambda other: (holds_work(other), other.stat().st_mtime), default=path)


def holds_work(directory: pathlib.Path) -> bool:
    """Whether a run has saved something from which it can be resumed."""
    return any(path.name not in COMMON and not path.name.endswith(".partial") for path in directory.iterdir())


def finished(directory: pathlib.Path) -> pathlib.Path | None:
    """Give a run its name that was killed after it was complete and before it had its name; None for other runs."""
    parent, name = directory.parent, name_of(directory.name)
    if not directory.is_dir() or directory.name == name or is_running(directory):
        return None
    try:
        status = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["status"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    if status != "complete" or ((parent / name).exists() and not (directory / CONTINUES).exists()):
        return None
    writing.remove_leftovers(directory)
    return _named(directory, parent / name)


def _named(directory: pathlib.Path, final: pathlib.Path) -> pathlib.Path:
    """Give a complete run its name. The complete run that it continues moves into its folder."""
    if (directory / CONTINUES).exists():
        if final.exists():
            writing.rename(final, _next_earlier(directory))
        writing.remove(directory / CONTINUES)
    return writing.rename(directory, final)


def is_running(directory: pathlib.Path) -> bool:
    """Whether a process is writing into the folder now; False on systems without locks."""
    lock = _lock(directory, shared=True)
    if lock is not None and lock >= 0:
        os.close(lock)
    return lock is not None and lock < 0


def _lock(directory: pathlib.Path, shared: bool = False) -> int | None:
    """A descriptor that holds the lock of the folder; −1 if another process holds it, None on systems without locks."""
    if fcntl is None:
        return None
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        return -1 if isinstance(error, BlockingIOError) else None
    return descriptor


def _hold(directory: pathlib.Path) -> int | None:
    """As `_lock`, but a process that holds the lock for an instant, because it asks `is_running`, is waited for."""
    for _ in range(10):
        if (held := _lock(directory)) != -1:
            return held
        time.sleep(0.01)
    return -1


def free(path: pathlib.Path) -> pathlib.Path:
    """`path`, or the first of `path-2`, `path-3`, … that does not exist."""
    candidates = [path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000))]
    return next(candidate for candidate in candidates if not candidate.exists())


class Workplace:
    """The folder of one run, from its opening to its closing.

    Attributes:
        directory: the folder of the files now.
        resumes: the folder of the run that this one resumes, or None.
        in_place: whether this run goes on in the folder of the one that it resumes.
    """

    def __init__(self, parent: pathlib.Path, name: str, resumes: pathlib.Path | None = None):
        self.parent, self.name, self.resumes = parent, name, resumes
        self.directory = parent / f".{name}.partial"
        self._former = resumes
        self._made: list[pathlib.Path] = []
        self._held: int | None = None
        of_the_name = resumes is not None and resumes.is_dir() and name_of(resumes.resolve().name) == name
        ours = of_the_name and resumes.resolve().parent == parent.resolve()
        self._continues = ours and resumes.resolve().name == name
        self.in_place = ours and not self._continues

    def open(self) -> None:
        """Make the folder, or take the folder of the run that is resumed.

        Raises:
            UsageError: the folder cannot be made, another run has the name, or a process writes into the folder.
        """
        try:
            if self.in_place:
                self._take()
            else:
                self._make()
        except BaseException as error:
            self.release()
            if isinstance(error, OSError):
                reason = error.strerror or error
                raise UsageError(f"--output-dir: cannot make {self.directory}: {reason}") from error
            raise
        writing.remove_leftovers(self.directory, everything=self._held is not None)

    def _take(self) -> None:
        busy = UsageError(f"--resume {self.resumes}: another process is going on with this run")
        if self.parent.joinpath(self.name).exists() and not (self.resumes / CONTINUES).exists():
            raise self._taken(self.parent / self.name)
        try:
            self._held = _hold(self.resumes)
        except FileNotFoundError:
            raise busy from None
        same = self._held is None or (self._held >= 0 and _is_still(self.resumes, self._held))
        if not same:
            raise busy
        self._move_to_partial()
        self.resumes = self.directory

    def _move_to_partial(self) -> None:
        if self.resumes.resolve() == self.directory.resolve():
            return
        if self.directory.exists():
            self._set_aside_empty(self.resumes)
        writing.rename(self.resumes, self.directory)

    def _set_aside_empty(self, into: pathlib.Path) -> None:
        """Move the folder of a killed attempt that saved nothing out of the way."""
        if is_running(self.directory) or holds_work(self.directory):
            raise self._taken(self.directory)
        writing.rename(self.directory, _next_earlier(into))

    def _make(self) -> None:
        final = self.parent / self.name
        if self.directory.exists() and self._continues:
            self._set_aside_empty(self.resumes)
        for path in (final, self.directory):
            if path.exists() and not (self._continues and path == final):
                raise self._taken(path)
        self._made = [path for path in (self.parent, *self.parent.parents) if not path.exists()]
        writing.make_folder(self.directory)
        self._held = _hold(self.directory)
        if self._held == -1:
            raise UsageError(f"--run-name {self.name}: another process is writing into {self.directory}")
        if self._continues:
            writing.replace_file(self.directory / CONTINUES, json.dumps({"run": self.name}))

    def _taken(self, path: pathlib.Path) -> UsageError:
        goes_on = path.name != self.name and (path / OPTIONS).is_file()
        advice = f"go on with its run by --resume {shlex.quote(str(path))}, or " if goes_on else ""
        advice = ", and its run is still running" if is_running(path) else f"; {advice}choose another name"
        return UsageError(f"--run-name {self.name}: {path} exists already{advice}")

    def set_aside(self) -> None:
        """Move the files that describe the latest attempt of a run that goes on in its folder to `earlier`."""
        left = [name for name in OF_ATTEMPT if (self.directory / name).exists()]
        if self.in_place and left:
            place = _next_earlier(self.directory)
            place.mkdir()
            for name in left:
                writing.rename(self.directory / name, place / name)

    def give_back(self) -> None:
        """Leave everything as it was before `open`."""
        if self.in_place:
            if self._former.resolve() != self.directory.resolve():
                writing.rename(self.directory, self._former)
            self.release()
            return
        self.release()
        shutil.rmtree(self.directory, ignore_errors=True)
        for path in self._made:
            with contextlib.suppress(OSError):  # another run may have begun there
                path.rmdir()

    def close(self, complete: bool, resumable: bool) -> pathlib.Path:
        """Give the folder its final name.

        Args:
            complete: whether the run is complete.
            resumable: whether it has saved something from which it can be resumed.
        """
        final = self.parent / self.name
        if complete:
            may_take = not final.exists() or (self.directory / CONTINUES).exists()
            self.directory = _named(self.directory, final if may_take else free(final))
        elif self._continues and not resumable:
            self.directory = writing.rename(self.directory, _next_earlier(self.resumes))
        else:
            self.directory = writing.rename(self.directory, free(self.parent / f"{self.name}-incomplete"))
        self.release()
        return self.directory

    def release(self) -> None:
        """Let other processes write into the folder."""
        if self._held is not None and self._held >= 0:
            os.close(self._held)
        self._held = None


def _is_still(directory: pathlib.Path, descriptor: int) -> bool:
    """Whether the path still leads to the open folder, which another process may have renamed."""
    try:
        found, held = directory.stat(), os.fstat(descriptor)
    except OSError:
        return False
    return (found.st_dev, found.st_ino) == (held.st_dev, held.st_ino)


def _next_earlier(directory: pathlib.Path) -> pathlib.Path:
    place = directory / EARLIER
    place.mkdir(exist_ok=True)
    numbers = [int(path.name) for path in place.iterdir() if path.name.isdecimal()]
    return place / str(1 + max(numbers, default=0))
