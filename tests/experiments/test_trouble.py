"""Full disks, folders that vanish, signals, closed output: one line, and nothing is lost that was saved."""

import dataclasses
import errno
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest

from experiments.harness import directories, reports, runner
from pgjax import writing

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    resume: pathlib.Path | None = None
    """The run to go on with."""
    until: int = 3
    """The last number."""


def count(config, recorder):
    """Counts to `until`, and goes on where the earlier attempt was."""
    done = int((config.resume / "state.txt").read_text()) if config.resume else 0
    while done < config.until:
        done += 1
        recorder.metrics({"step": done})
        recorder.write("state.txt", str(done))
        recorder.resumable()
    recorder.row(quantity="count", ours=done)


def main(place, *arguments, run=count):
    """The exit code of the command."""
    given = ["--output-dir", str(place), "--no-cache", *arguments]
    try:
        runner.main("/somewhere/toy.py", "A toy.", Config, run, arguments=given)
    except SystemExit as stop:
        return stop.code
    return 0


def test_a_disk_that_fills_up_at_any_moment_costs_nothing_that_was_saved(tmp_path, capsys, monkeypatch):
    """From its first to its last system call, every write fails from one moment on, until there is room again."""
    monkeypatch.setattr(reports, "_commit", lambda root: (None, None))  # it takes most of the time
    codes = set()
    for first in itertools.count():
        number = (errno.ENOSPC, errno.EROFS, errno.EDQUOT)[first % 3]
        place, left = tmp_path / str(first), itertools.count()

        def step(name, path, left=left, first=first):
            if next(left) >= first and name in ("open", "write", "mkdir", "replace", "rename"):
                raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(writing, "on_step", step)
            code = main(place, "--run-name", "one")
        error = capsys.readouterr().err
        if code == 0:
            break
        codes.add(code)
        assert "Traceback" not in error and os.strerror(number) in error.splitlines()[0]
        kept = directories.found(place / "toy" / "one")
        if kept.is_dir() and (kept / "state.txt").exists():
            saved = int((kept / "state.txt").read_text())
            assert code == 75 and error.splitlines()[-1].startswith("To resume it: python -m experiments.toy --resume")
            assert main(place, "--resume", str(place / "toy" / "one")) == 0
            assert (place / "toy/one/state.txt").read_text() == "3" and saved >= 1
            assert not list((place / "toy/one").rglob("*.partial"))
        else:
            assert code in (2, 70)
    assert first > 20 and codes == {2, 70, 75}


def test_a_folder_that_is_removed_in_mid_run_is_named_and_not_made_again(tmp_path, capsys):
    def run(config, recorder):
        count(config, recorder)
        shutil.rmtree(recorder.directory)
        recorder.write("more.txt", "more")

    assert main(tmp_path, "--run-name", "one", run=run) == 70
    error = capsys.readouterr().err
    assert re.search(r"cannot write .*more\.txt: the folder of the run is gone", error.splitlines()[0])
    assert "Traceback" not in error and "To resume" not in error and list((tmp_path / "toy").iterdir()) == []


def test_two_processes_cannot_go_on_with_the_same_run(tmp_path, capsys):
    def interrupted(config, recorder):
        count(dataclasses.replace(config, until=1), recorder)
        raise KeyboardInterrupt

    assert main(tmp_path, "--run-name", "one", run=interrupted) == 75
    inside = []

    def other(config, recorder):
        inside.append(main(tmp_path, "--resume", str(tmp_path / "toy" / "one")))
        inside.append(main(tmp_path, "--run-name", "one"))
        count(config, recorder)

    capsys.readouterr()
    assert main(tmp_path, "--resume", str(tmp_path / "toy" / "one-incomplete"), run=other) == 0
    error = capsys.readouterr().err
    assert inside == [2, 2] and "another process is going on with this run" in error and "exists already" in error
    assert (tmp_path / "toy/one/state.txt").read_text() == "3"


PROGRAM = """
import os, sys, time, lzma
from experiments.harness import interruption
content = os.urandom(100_000_000) if sys.argv[2] == "library" else b""
with interruption.watched() as signals:
    signals.last_words = "To resume it: COMMAND"
    signals.deferred = sys.argv[1] == "deferred"
    print("ready", flush=True)
    try:
        if sys.argv[2] == "python":
            end = time.time() + 60
            while time.time() < end:
                time.sleep(0.01)
                signals.check()
        else:  # a library that gives Python no chance to see the signal
            lzma.compress(content)
    except KeyboardInterrupt as error:
        sys.exit(f"interrupted by {error}")
"""


@pytest.mark.skipif(os.name == "nt", reason="there are no such signals")
@pytest.mark.parametrize(
    ("deferred", "where", "signals", "code", "words"),
    [
        ("deferred", "python", [signal.SIGHUP], 1, "interrupted by SIGHUP"),
        ("at once", "python", [signal.SIGTERM], 1, "interrupted by SIGTERM"),
        ("at once", "library", [signal.SIGTERM], 75, "To resume it: COMMAND"),
        ("deferred", "library", [signal.SIGINT, signal.SIGINT], 75, "To resume it: COMMAND"),
    ],
)
def test_the_first_signal_is_seen_and_the_second_leaves_at_once(deferred, where, signals, code, words):
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, deferred, where],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)
        start = time.monotonic()
        for number in signals:
            process.send_signal(number)
            time.sleep(0.4)
        error = process.communicate(timeout=30)[1]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == code and words in error and "Traceback" not in error
    assert time.monotonic() - start < 8.0  # measured: 2 s on an idle machine


def test_neither_a_home_nor_a_terminal_is_needed(tmp_path):
    """The run ends well with closed output, and without a folder for compiled programs."""
    program = (
        "import sys, test_trouble as t; from experiments.harness import runner;"
        "runner.main('toy.py', 'A toy.', t.Config, t.count, arguments=['--run-name', 'one'])"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("XDG", "JAX"))}
    environment |= {"HOME": "/nowhere", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests/experiments'}"}
    done = subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -c "{program}" >&- 2>&-'], cwd=tmp_path, env=environment
    )
    summary = json.loads((tmp_path / "results/toy/one/summary.json").read_text())
    assert done.returncode == 0 and summary["status"] == "complete" and summary["rows"][0]["ours"] == 3
