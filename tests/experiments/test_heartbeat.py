"""A run that prints nothing for a while says that it is at work, and with what."""

import dataclasses
import time

import pytest

from experiments.harness import heartbeat
from experiments.harness.progress import Progress
from experiments.harness.recorder import Recorder


@dataclasses.dataclass(frozen=True)
class Config:
    pass


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(heartbeat, "SILENCE", 0.2)


def test_silence_is_broken_by_the_innermost_part(capsys):
    with heartbeat.Heartbeat("question") as heart, heart.part("measuring"):
        time.sleep(0.5)
    time.sleep(0.3)  # after its end it is silent
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all(line.startswith("measuring: at work for 0.") for line in lines)


def test_what_was_printed_counts(capsys):
    with heartbeat.Heartbeat("question") as heart:
        for _ in range(5):
            time.sleep(0.1)
            heart.heard()
    assert capsys.readouterr().err == ""


def test_lines_are_rarer_after_a_minute():
    heart = heartbeat.Heartbeat("question")
    _, began = heart._parts[0]
    heart._heard = began + 70.0
    assert heart.due(began + 80.0) == pytest.approx(50.0)
    heart._heard = began + 30.0
    assert heart.due(began + 30.1) == pytest.approx(0.1)


@pytest.mark.parametrize("tiny", [False, True])
def test_a_long_chunk_is_named_also_in_a_tiny_run(tiny, tmp_path, capsys):
    """Progress says nothing before the first chunk has ended, and a tiny run shows no progress at all."""
    with Recorder("question", Config(), output_dir=tmp_path, run_name="one", tiny=tiny) as recorder:
        with recorder.progress(3, "training", "updates") as progress:
            time.sleep(0.45)
            progress.advance(3)
        with recorder.timed("drawing"):
            time.sleep(0.3)
    said = capsys.readouterr().err
    assert said.count("training: at work for") == 2 and said.count("drawing: at work for") == 1


def test_a_process_that_shall_be_quiet_is_quiet(capsys):
    with heartbeat.Heartbeat("question", quiet=True) as heart, Progress(2, "a", quiet=True, heart=heart) as progress:
        time.sleep(0.3)
        progress.advance(2)
    assert capsys.readouterr().err == ""
