"""A file is the old one or the new one, whole, wherever the process ends."""

import errno
import itertools
import os
import subprocess
import sys

import pytest

from pgjax import writing


class Killed(BaseException):
    """The end of the process, before a system call."""


def killed_before(number, act, monkeypatch):
    """Whether `act` came to its end; it is stopped before its system call `number`, without any clearing up."""
    left = itertools.count()

    def step(name, path):
        if next(left) == number:
            raise Killed

    monkeypatch.setattr(writing, "on_step", step)
    try:
        act()
    except Killed:
        return False
    finally:
        monkeypatch.setattr(writing, "on_step", None)
    return True


def test_a_file_is_old_or_new_at_every_step(tmp_path, monkeypatch):
    path, steps = tmp_path / "file", 0
    for number in itertools.count():
        writing.replace_file(path, b"old")
        ended = killed_before(number, lambda: writing.replace_file(path, "new ∇"), monkeypatch)
        assert path.read_bytes() in (b"old", "new ∇".encode()) and [path] == list(tmp_path.iterdir())
        if ended:
            break
        steps += 1
    assert steps == 5 and path.read_text(encoding="utf-8") == "new ∇"


def test_leftovers_of_dead_processes_are_removed_and_those_of_the_living_stay(tmp_path):
    program = (
        "import os, sys; from pgjax import writing\n"
        "def step(name, path):\n    if name == 'replace': os.kill(os.getpid(), 9)\n"
        "writing.on_step = step; writing.replace_file(sys.argv[1], b'x' * 1000)"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "file")])
        assert done.returncode == -9
    # The second process has removed what the first one left.
    (leftover,) = tmp_path.iterdir()
    living = leftover.with_name(leftover.name.replace(leftover.name.split("-")[1], str(os.getpid())))
    living.write_bytes(b"")
    other_host = leftover.with_name(leftover.name.replace(leftover.name.split(".")[-2][:8], "0" * 8))
    other_host.write_bytes(b"")
    (tmp_path / "mine.partial").write_bytes(b"")
    writing.remove_leftovers(tmp_path, of="another")
    assert leftover.exists()
    writing.replace_file(tmp_path / "file", b"y")
    assert {path.name for path in tmp_path.iterdir()} == {"file", living.name, other_host.name, "mine.partial"}
    writing.remove_leftovers(tmp_path, everything=True)
    assert {path.name for path in tmp_path.iterdir()} == {"file", "mine.partial"}


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path, monkeypatch):
    path = tmp_path / "file"
    writing.replace_file(path, b"old")

    def full(descriptor, content):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(writing.os, "write", full)
    with pytest.raises(writing.WriteError, match=f"cannot write {path}: No space left on device") as caught:
        writing.replace_file(path, b"new")
    assert caught.value.errno == errno.ENOSPC and path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


def test_long_names_have_temporary_names_too(tmp_path):
    for name in ("a" * 240, "a" * 150 + "b"):
        writing.replace_file(tmp_path / name, b"1")
    assert len(list(tmp_path.iterdir())) == 2


def test_a_log_grows_and_is_cut_where_its_digest_fits(tmp_path):
    log = writing.Log(tmp_path / "log")
    log.append(b"one\n")
    size, digest = log.size, log.digest
    log.append(b"two\n")
    log.sync()
    log.close()
    with pytest.raises(ValueError, match="closed"):
        log.append(b"three\n")
    again = writing.Log(tmp_path / "log")
    assert (again.size, again.digest) == (log.size, log.digest)
    assert not again.cut(size, "0" * 64) and not again.cut(99, digest) and again.size == 8
    assert again.cut(size, digest) and again.path.read_bytes() == b"one\n"
    again.append(b"2\n")
    assert again.path.read_bytes() == b"one\n2\n" and again.digest == writing.Log(again.path).digest


@pytest.mark.parametrize("wrong", [3, None, b"log", "a\0b"])
def test_the_path_of_a_log_must_be_one(wrong):
    with pytest.raises(ValueError, match=r"^path must be a path without the character 0, got "):
        writing.Log(wrong)


def test_a_log_takes_a_path_as_text(tmp_path):
    log = writing.Log(str(tmp_path / "log"))
    log.append(b"one")
    log.close()
    assert (tmp_path / "log").read_bytes() == b"one"
