"""The folders of runs: their names, the working folder of a running run, and the earlier attempts of a resumed run.

`PARENT/.NAME.partial` is the folder of the run NAME while it runs, and after it was killed. It becomes `NAME` when the
run is complete, and `NAME-incomplete` when it fails or is interrupted. A resumed run keeps its name: the folders of
earlier attempts move to `earlier/1`, `earlier/2`, … inside its folder.
"""

import contextlib
import datetime
import glob
import os
import pathlib
import re
import secrets
import shlex
import shutil

try:
    import fcntl
except ImportError:  # Windows has no such locks
    fcntl = None

EARLIER = "earlier"
LONGEST_NAME = 200  # bytes; file systems allow 255, and ".partial" or "-incomplete-2" must fit too
# The files that every run has. A run that can be resumed has more.
COMMON = {"config.json", "environment.json", "metrics.jsonl", "summary.json", "summary.md", "error.txt", EARLIER}


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
    """The folder of the run with the path `.../NAME`, which may be unfinished; `path` itself if there is none.

    If there are several, the latest one that can be resumed is returned.
    """
    if path.is_dir():
        return path
    others = [*path.parent.glob(f"{glob.escape(path.name)}-incomplete*"), path.with_name(f".{path.name}.partial")]
    others = [other for other in others if other.is_dir() and name_of(other.name) == path.name]
    return max(others, key=lambda other: (holds_work(other), other.stat().st_mtime), default=path)


def holds_work(directory: pathlib.Path) -> bool:
    """Whether a run has saved something from which it can be resumed."""
    return any(path.name not in COMMON for path in directory.iterdir())


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


def free(path: pathlib.Path) -> pathlib.Path:
    """`path`, or the first of `path-2`, `path-3`, … that does not exist."""
    candidates = [path, *(path.with_name(f"{path.name}-{number}") for number in range(2, 1000))]
    return next(candidate for candidate in candidates if not candidate.exists())


class Workplace:
    """The folder of one run, from its opening to its closing.

    Attributes:
        directory: the folder of the files now.
        resumes: the folder of the run that this one resumes, or None.
    """

    def __init__(self, parent: pathlib.Path, name: str, resumes: pathlib.Path | None = None):
        self.parent, self.name, self.resumes = parent, name, resumes
        self.directory = parent / f".{name}.partial"
        self._made: list[pathlib.Path] = []
        self._held: int | None = None

    @property
    def _continues(self) -> bool:
        """Whether the resumed run has the name and the parent folder of this one, so that this one replaces it."""
        if self.resumes is None or name_of(self.resumes.name) != self.name:
            return False
        return self.resumes.is_dir() and self.resumes.parent.resolve() == self.parent.resolve()

    def open(self) -> None:
        """Make the folder.

        Raises:
            UsageError: the folder cannot be made, or another run has the name.
        """
        try:
            self._make_room()
            ancestors = [self.parent, *self.parent.parents]
            self._made = [path for path in ancestors if not path.exists()]
            self.directory.mkdir(parents=True)
        except OSError as error:
            raise UsageError(f"--output-dir: cannot make {self.directory}: {error.strerror}") from error
        self._held = _lock(self.directory)

    def _make_room(self) -> None:
        final, going_on = self.parent / self.name, self.directory
        if going_on.exists():
            if is_running(going_on):
                raise UsageError(f"--run-name {self.name}: {going_on} exists already, and its run is still running")
            if self._continues and self.resumes.resolve() == going_on.resolve():
                self.resumes = going_on.rename(free(self.parent / f"{self.name}-incomplete"))
            elif self._continues and not holds_work(going_on):
                going_on.rename(_next_earlier(self.resumes))
        for path in (final, going_on):
            if path.exists() and not (self._continues and path.resolve() == self.resumes.resolve()):
                raise UsageError(f"--run-name {self.name}: {path} exists already; choose another name")

    def remove(self) -> None:
        """Remove the folder and every parent folder that was made for it."""
        self._release()
        shutil.rmtree(self.directory, ignore_errors=True)
        for path in self._made:
            with contextlib.suppress(OSError):  # another run may have begun there
                path.rmdir()

    def close(self, complete: bool, resumable: bool) -> pathlib.Path:
        """Give the folder its final name.

        Args:
            complete: whether the run is complete.
            resumable: whether it has saved something from which it can be resumed. Without that, it does not replace
                the run that it resumed.
        """
        if self._continues:
            # What is complete gives way only to what is complete.
            was_complete = self.resumes.name == self.name
            if complete or (resumable and not was_complete):
                self._take_over()
            elif not resumable:
                self.directory = self.directory.rename(_next_earlier(self.resumes))
                self._release()
                return self.directory
        final = self.parent / (self.name if complete else f"{self.name}-incomplete")
        self.directory = self.directory.rename(free(final))
        self._release()
        return self.directory

    def _take_over(self) -> None:
        before = self.resumes / EARLIER
        if before.is_dir():
            before.rename(self.directory / EARLIER)
        self.resumes.rename(_next_earlier(self.directory))

    def _release(self) -> None:
        if self._held is not None and self._held >= 0:
            os.close(self._held)
        self._held = None


def _next_earlier(directory: pathlib.Path) -> pathlib.Path:
    place = directory / EARLIER
    place.mkdir(exist_ok=True)
    return place / str(1 + len(list(place.iterdir())))
