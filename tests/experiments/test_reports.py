"""Numbers with their errors, tables, strict JSON, durations, and the progress of long work."""

import dataclasses
import pathlib

import numpy as np
import pytest

from experiments.harness import progress, reports, runner


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3
    discount: float = 0.9
    trouble: str = ""


@pytest.mark.parametrize(
    ("value", "stderr", "text"),
    [
        (0.0123, 0.0004, "0.0123 ± 0.0004"),
        (12.3456, 0.234, "12.35 ± 0.23"),
        (-11.65, 0.0096, "-11.650 ± 0.010"),
        (3.2, 12.0, "3 ± 12"),
        (1234567.0, 8900.0, "(1.235 ± 0.009)e6"),
        (445957.0, 142750.0, "(4.5 ± 1.4)e5"),
        (2.08e6, 0.33e6, "(2.08 ± 0.33)e6"),
        (12345.0, 89.0, "12340 ± 90"),
        (-0.0001, 0.02, "0.000 ± 0.020"),
        (123456.0, None, "1.2346e5"),
        (1e-7, None, "1e-7"),
        (-0.0, None, "0"),
        (1.5e-7, 2e-8, "(1.50 ± 0.20)e-7"),
        (5.0, 0.0, "5 ± 0"),
        (1.0, float("nan"), "1"),
        (float("nan"), 0.1, "nan ± 0.1"),
        (-11.656854, None, "-11.657"),
        (None, None, ""),
    ],
)
def test_numbers_show_the_digits_they_know(value, stderr, text):
    assert runner.format_number(value, stderr) == text


def test_fewer_digits_where_nothing_is_known_of_the_error():
    assert [reports.format_number(x, digits=3) for x in (0.0125, 1234.0, 16432.0)] == ["0.0125", "1.23e3", "1.64e4"]
    assert reports.format_interval(0.98, 1.0234567) == "0.98 to 1.0235"
    assert reports.format_interval(float("nan"), float("nan")) == ""


def test_plus_minus_signs_stand_below_each_other():
    row = dict.fromkeys(reports.COLUMNS)
    numbers = [(12.5, 0.4), (0.00123, 0.00045), (-3.0, None)]
    headers, cells = reports.table([row | {"quantity": "q", "ours": a, "stderr": b} for a, b in numbers])
    assert headers == ["quantity", "ours ± s.e."]
    assert [line[1] for line in cells] == ["  12.5 ± 0.4   ", "0.0012 ± 0.0004", "    -3         "]


def test_plain_makes_strict_json_of_records():
    value = {
        1: (float("inf"), {"b", "a"}),
        "config": Config(steps=2),
        "path": pathlib.Path("x"),
        "flag": np.True_,
    }
    assert reports.plain(value) == {
        "1": [None, ["a", "b"]],
        "config": {"steps": 2, "discount": 0.9, "trouble": ""},
        "path": "x",
        "flag": True,
    }


def test_the_rate_leaves_the_compilation_out(monkeypatch, capsys):
    now = iter([0.0, 60.0, 61.0, 62.0, 63.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(now))
    with progress.Progress(4_000_000, "training") as bar:
        for _ in range(3):
            bar.advance(1_000_000, note="return 5")
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "training: 1,000,000 of 4,000,000 steps, return 5"
    ending = "not counting the first ones, which include compilation"
    assert lines[1] == f"training: 3,000,000 steps in 1 min 03 s, 667 k steps/s, {ending}"
    assert len(lines) == 2  # one line every ten seconds, and one at the end


def test_the_time_left_is_that_of_the_chunks_after_the_first(monkeypatch, capsys):
    # 60 s with the compilation, then 15 s a chunk: 30 s are left after the second of four, not 75.
    now = iter([0.0, 60.0, 75.0, 90.0, 105.0, 105.0])
    monkeypatch.setattr(progress.time, "perf_counter", lambda: next(now))
    with progress.Progress(4, "training", "updates") as bar:
        for _ in range(4):
            bar.advance()
    shown = capsys.readouterr().err.splitlines()
    assert shown[0] == "training: 1 of 4 updates" and shown[1].endswith(", 30 s left") and len(shown) == 5


@pytest.mark.parametrize(
    ("count", "unit", "text"),
    [
        (1, "estimators", "1 estimator"),
        (1, "processes", "1 process"),
        (0, "steps", "0 steps"),
        (1200, "steps", "1,200 steps"),
    ],
)
def test_one_of_a_unit_is_singular(count, unit, text):
    assert reports.format_count(count, unit) == text


@pytest.mark.parametrize(
    ("seconds", "text"), [(3.21, "3.2 s"), (45.4, "45 s"), (200, "3 min 20 s"), (7500, "2 h 05 min")]
)
def test_durations(seconds, text):
    assert reports.format_duration(seconds) == text
