"""A run that goes on keeps its name and its place, and nothing of its earlier attempts is lost."""

import dataclasses
import itertools
import json
import os
import pathlib

import pytest

from experiments.harness import directories, runner
from pgjax import writing


@dataclasses.dataclass(frozen=True)
class Config:
    resume: pathlib.Path | None = None
    until: int = 3
    trouble: str = ""


def count(config, recorder):
    """Counts to `until`, and goes on where the earlier attempt was."""
    if config.trouble == "early":
        raise RuntimeError("nothing was saved")
    done = int((config.resume / "state.txt").read_text()) if config.resume else 0
    while done < config.until:
        done += 1
        recorder.write("state.txt", str(done))
        recorder.resumable()
        if config.trouble == "interrupt":
            raise KeyboardInterrupt
    recorder.row(quantity="count", ours=done)


def execute(place, **options):
    name = options.pop("run_name", None)
    return runner.execute("toy", Config(**options), count, output_dir=place, run_name=name)


def interrupted(place, error=KeyboardInterrupt, **options):
    with pytest.raises(error):
        execute(place, **options)


def names(place):
    return sorted(path.name for path in (place / "toy").iterdir())


def test_a_resumed_run_keeps_its_name_and_its_past(tmp_path):
    interrupted(tmp_path, trouble="interrupt", run_name="one")
    assert names(tmp_path) == ["one-incomplete"]
    interrupted(tmp_path, trouble="interrupt", resume=tmp_path / "toy" / "one")
    assert names(tmp_path) == ["one-incomplete"]
    directory = execute(tmp_path, resume=tmp_path / "toy" / "one-incomplete")
    assert names(tmp_path) == ["one"] and directory == tmp_path / "toy" / "one"
    assert json.loads((directory / "summary.json").read_text())["rows"][0]["ours"] == 3
    attempts = [json.loads((directory / f"earlier/{number}/summary.json").read_text()) for number in (1, 2)]
    assert [attempt["status"] for attempt in attempts] == ["interrupted"] * 2
    assert json.loads((directory / "config.json").read_text()) == {"resume": None, "until": 3, "trouble": "interrupt"}


def test_a_complete_run_goes_on_under_its_name(tmp_path):
    first = execute(tmp_path, run_name="one")
    second = execute(tmp_path, resume=first, until=5)
    assert second == first and names(tmp_path) == ["one"]
    assert (second / "state.txt").read_text() == "5"
    assert json.loads((second / "earlier/1/summary.json").read_text())["rows"][0]["ours"] == 3


def test_a_complete_run_stays_where_it_is_when_its_continuation_is_interrupted(tmp_path):
    first = execute(tmp_path, run_name="one")
    interrupted(tmp_path, trouble="interrupt", resume=first, until=5)
    assert names(tmp_path) == ["one", "one-incomplete"] and (first / "state.txt").read_text() == "3"
    assert (tmp_path / "toy" / "one-incomplete" / "state.txt").read_text() == "4"


def test_without_an_output_folder_a_run_goes_on_where_it_lies(tmp_path, monkeypatch):
    interrupted(tmp_path / "elsewhere", trouble="interrupt", run_name="one")
    monkeypatch.chdir(tmp_path)
    resumed = tmp_path / "elsewhere" / "toy" / "one"
    assert runner.execute("toy", Config(resume=resumed), count) == resumed and not (tmp_path / "results").exists()


def test_an_attempt_that_saved_nothing_does_not_hide_the_one_that_did(tmp_path):
    interrupted(tmp_path, trouble="interrupt", run_name="one")
    interrupted(tmp_path, RuntimeError, trouble="early", resume=tmp_path / "toy" / "one")
    assert names(tmp_path) == ["one-incomplete"]
    kept = tmp_path / "toy" / "one-incomplete"
    assert (kept / "state.txt").read_text() == "1" and "nothing was saved" in (kept / "error.txt").read_text()
    assert execute(tmp_path, resume=tmp_path / "toy" / "one").name == "one"


@pytest.mark.parametrize("asked", ["one", ".one.partial"])
def test_a_killed_run_goes_on(tmp_path, asked):
    killed = tmp_path / "toy" / ".one.partial"
    killed.mkdir(parents=True)
    (killed / "state.txt").write_text("2")
    directory = execute(tmp_path, resume=tmp_path / "toy" / asked)
    assert names(tmp_path) == ["one"] and (directory / "state.txt").read_text() == "3"


@pytest.mark.skipif(directories.fcntl is None, reason="no locks here")
def test_a_run_that_is_still_going_on_is_left_alone(tmp_path):
    with runner.Recorder("toy", Config(), output_dir=tmp_path, run_name="one") as recorder:
        assert directories.is_running(recorder.directory)
        with pytest.raises(runner.UsageError, match="another process is going on with this run"):
            execute(tmp_path, resume=recorder.directory)
        with pytest.raises(runner.UsageError, match="its run is still running"):
            execute(tmp_path, run_name="one")
    assert not directories.is_running(recorder.directory)


def test_another_name_or_place_leaves_the_earlier_run_where_it_is(tmp_path):
    first = execute(tmp_path, run_name="one")
    assert execute(tmp_path, resume=first, until=4, run_name="two").name == "two"
    assert execute(tmp_path / "elsewhere", resume=first, until=4) == tmp_path / "elsewhere/toy/one"
    assert names(tmp_path) == ["one", "two"] and not (first / "earlier").exists()


def test_another_run_of_the_name_is_never_replaced(tmp_path):
    interrupted(tmp_path, trouble="interrupt", run_name="one")
    execute(tmp_path, run_name="one")
    with pytest.raises(runner.UsageError, match=r"--run-name one: .* exists already"):
        execute(tmp_path, resume=tmp_path / "toy" / "one-incomplete")
    assert names(tmp_path) == ["one", "one-incomplete"]


def test_names_with_brackets_are_names(tmp_path):
    interrupted(tmp_path, trouble="interrupt", run_name="a[1]")
    assert execute(tmp_path, resume=tmp_path / "toy" / "a[1]").name == "a[1]"


def test_of_several_attempts_the_latest_that_can_go_on_is_found(tmp_path):
    for age, name in enumerate(("one-incomplete-2", ".one.partial", "one-incomplete", "one-incompletely")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "state.txt").write_text("1")
        os.utime(tmp_path / name, (1000 - age, 1000 - age))
    (tmp_path / "one-incomplete-3").mkdir()  # the newest, and empty
    assert directories.found(tmp_path / "one") == tmp_path / "one-incomplete-2"
    assert directories.found(tmp_path / "other") == tmp_path / "other"
    assert directories.found(pathlib.Path()) == pathlib.Path.cwd()
    with pytest.raises(directories.UsageError, match=r"--resume x+…: File name too long"):
        directories.found(pathlib.Path("x" * 300))


@pytest.mark.parametrize("name", ["", "a\nb", "a/b", "x-incomplete-2", " a", "a*", ".a"])
def test_names_that_are_none_are_refused(name):
    with pytest.raises(runner.UsageError, match="--run-name"):
        directories.checked_run_name(name)
    with pytest.raises(runner.UsageError, match="at most 200 bytes, got 600"):
        directories.checked_run_name("é" * 300)


class Killed(BaseException):
    """The end of the process, between two system calls."""


def killed_at(number, act):
    """Whether `act` ended by itself before its system call `number`, which otherwise is never made."""
    left = itertools.count()

    def step(name, path):
        if next(left) >= number:  # nothing is written after the end
            raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writing, "on_step", step)
        try:
            act()
        except Killed:
            return False
    return True


@pytest.mark.parametrize("extended", [False, True])
def test_a_run_that_is_killed_at_any_system_call_goes_on(tmp_path, extended):
    """Also a complete run that is made longer, and one that is complete and lacks its name."""
    for number in itertools.count():
        place = tmp_path / str(number)
        if extended:
            execute(place, run_name="one")
        until = {"until": 5} if extended else {}
        resume = {"resume": place / "toy" / "one"} if extended else {"run_name": "one"}
        ended = killed_at(number, lambda: execute(place, **resume, **until))
        kept = (place / "toy").is_dir() and directories.found(place / "toy" / "one")
        if kept and not ended and kept.is_dir() and directories.holds_work(kept):
            execute(place, resume=place / "toy" / "one", **until)
        if ended or (kept and kept.is_dir() and directories.holds_work(kept)):
            assert names(place) == ["one"]
            assert (place / "toy/one/state.txt").read_text() == ("5" if extended else "3")
            assert json.loads((place / "toy/one/summary.json").read_text())["status"] == "complete"
            assert not list((place / "toy").rglob("*.partial"))
        if ended:
            break
    assert number > 20


@pytest.mark.skipif(directories.fcntl is None, reason="no locks here")
def test_a_look_at_a_folder_does_not_refuse_the_run_in_it(tmp_path, monkeypatch):
    interrupted(tmp_path, trouble="interrupt", run_name="one")
    looking = directories._lock(tmp_path / "toy" / "one-incomplete", shared=True)
    monkeypatch.setattr(directories.time, "sleep", lambda seconds: os.close(looking))
    assert execute(tmp_path, resume=tmp_path / "toy" / "one").name == "one"
    monkeypatch.setattr(directories, "_lock", lambda directory: -1)
    monkeypatch.setattr(directories.time, "sleep", lambda seconds: None)
    with pytest.raises(runner.UsageError, match="another process is writing into"):
        execute(tmp_path, run_name="two")
