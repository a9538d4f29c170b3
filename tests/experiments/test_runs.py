"""The list of runs and the comparison of some: damaged ones are named, differences are marked, curves are drawn."""

import csv
import dataclasses
import json
import subprocess
import sys

import pytest

from experiments import __main__ as commands
from experiments.harness import comparing, records, runner, runs


@dataclasses.dataclass(frozen=True)
class Config:
    value: float = 1.0
    seed: int = 0


def run(config, recorder):
    for step in range(1, 4):
        recorder.metrics({"update": step, "mean_return": [config.value * step, None], "flat": 0.0})
    recorder.row(quantity="return", variant="a", ours=config.value, stderr=0.1)
    recorder.row(quantity="exact", ours=2.0)
    if config.value > 100:
        raise KeyboardInterrupt


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("results")
    for index, (experiment, name, value) in enumerate(
        [("toy", "near", 1.0), ("toy", "far", 2.0), ("other", "near", 1.2), ("toy", "stopped", 101.0)]
    ):
        try:
            directory = runner.execute(experiment, Config(value=value), run, output_dir=place, run_name=name)
        except KeyboardInterrupt:
            directory = place / experiment / f"{name}-incomplete"
        environment = directory / "environment.json"
        read = json.loads(environment.read_text()) | {"date": f"2026-01-0{index + 1}T00:00:00+00:00"}
        environment.write_text(json.dumps(read))
    return place


@pytest.fixture
def damaged(tmp_path, place):
    for name, text in (("cut", "{"), ("null", "null"), ("bare", "{}"), ("deep", "[" * 100_000)):
        (tmp_path / "broken" / name).mkdir(parents=True)
        (tmp_path / "broken" / name / "summary.json").write_text(text)
    (tmp_path / "broken" / "empty").mkdir()
    (tmp_path / "broken" / ".dead.partial").mkdir()
    (tmp_path / "old-layout").mkdir()
    (tmp_path / "old-layout" / "options.json").write_text("{}")
    (tmp_path / "a file").write_text("")
    (tmp_path / "broken" / "bytes").mkdir()
    (tmp_path / "broken" / "bytes" / "summary.json").write_bytes(b"\0\xff")
    return tmp_path


def shown(capsys, *arguments):
    commands.main(list(arguments))
    return capsys.readouterr().out


def test_runs_are_listed_newest_first(place, capsys):
    lines = shown(capsys, "runs", "--output-dir", str(place)).splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["stopped-incomplete", "near", "far", "near"]
    assert "interrupted" in lines[1] and "KeyboardInterrupt" in lines[1]
    assert lines[3].split()[:2] == ["far", "toy"] and "return, a: 2.00 ± 0.10" in lines[3]


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--experiment", "other"], ["near"]),
        (["--status", "interrupted"], ["stopped-incomplete"]),
        (["far", "RETURN"], ["far"]),
        (["nothing like it"], []),
    ],
)
def test_runs_are_chosen(place, capsys, arguments, names):
    lines = shown(capsys, "runs", *arguments, "--output-dir", str(place)).splitlines()
    assert [line.split()[0] for line in lines[1:] if line] == names


def test_what_is_damaged_is_listed_with_what_is_wrong(damaged, capsys):
    listed = shown(capsys, "runs", "--output-dir", str(damaged))
    found = {run.name: run for run in runs.find(damaged)}
    assert found.keys() == {"cut", "null", "bare", "deep", "empty", "bytes", "dead", "old-layout"}
    assert all(run.status == ("killed" if name == "dead" else "damaged") for name, run in found.items())
    for name, words in {
        "cut": "summary.json cannot be read: it must hold JSON that can be read",
        "null": "summary.json cannot be read: it must hold a JSON object, got None",
        "deep": "summary.json cannot be read: it must hold JSON that can be read",
        "empty": "summary.json is missing; environment.json is missing",
        "bytes": "summary.json cannot be read",
    }.items():
        assert words in found[name].headline and words in listed


def test_an_older_summary_without_some_columns_is_read():
    rows = runs.rows({"rows": [{"quantity": "q", "ours": 1, "stderr": "?"}, {"ours": 2}, "text", None]})
    assert [(row["quantity"], row["ours"], row["stderr"], row["printed"]) for row in rows] == [("q", 1.0, None, None)]
    assert runs.rows({}) == runs.rows({"rows": None}) == []


def test_a_comparison_marks_what_differs(place, capsys):
    out = shown(capsys, "compare", "toy/near", "far", "other/near", "--output-dir", str(place))
    lines = {line.split("  ")[0]: line for line in out.splitlines()}
    assert "1.00 ± 0.14 *" in lines["return"] and "0.20 ± 0.14" in lines["return"] and lines["return"].count("*") == 1
    assert "*" not in lines["exact"]
    assert lines["value"].split() == ["value", "1.0", "2.0", "1.2"]
    assert not any(line.startswith("seed") for line in out.splitlines())


def row(ours, stderr=None):
    return {"ours": ours, "stderr": stderr}


@pytest.mark.parametrize(
    ("first", "other", "text"),
    [
        (row(1.0, 0.3), row(2.49, 0.4), "1.5 ± 0.5"),
        (row(1.0, 0.3), row(2.51, 0.4), "1.5 ± 0.5 *"),
        (row(1.0), row(1.0 + 1e-12), "0"),
        (row(1e-13), row(3e-13), "0"),
        (row(1e6), row(1e6 + 1e-4), "0"),
        (row(1.0), row(1.001), "0.001 *"),
        (row(1.0), None, ""),
        (row(None), row(1.0), ""),
    ],
)
def test_differences_are_measured_in_standard_errors(first, other, text):
    assert comparing.difference(first, other) == text


def test_the_curves_are_drawn_with_their_data(place, tmp_path, capsys):
    found = [runs.named(runs.find(place), name) for name in ("toy/near", "far")]
    path, left_out = comparing.draw(found, ["near", "far"], tmp_path, comparing.figures.Paper(formats=("svg",)))
    assert path == tmp_path / "compare-near-far.png" and left_out == []
    assert {"compare-near-far.png", "compare-near-far.svg"} <= {p.name for p in tmp_path.iterdir()}
    rows = list(csv.reader((tmp_path / "compare-near-far-1.csv").read_text(encoding="utf-8").splitlines()))
    assert rows[0][:3] == ["series", "update", "mean return"]
    path, left_out = comparing.draw(found, ["near", "far"], tmp_path, comparing.figures.Paper(), ["flat"])
    assert left_out == ["mean_return"] and (tmp_path / "compare-near-far.csv").exists()


def test_curves_are_those_of_each_variant_and_only_what_grows_is_a_clock(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines = [{"variant": name, "episodes": n, "return": n * 2.0, "word": "w"} for n in (1, 2, 3) for name in "ab"]
    path.write_text("\n".join(map(json.dumps, lines)) + '\n{"cut')
    found = comparing.curves(path)
    assert list(found) == ["return, a, w", "return, b, w"]
    assert found["return, b, w"].clock == "episodes" and found["return, b, w"].values.tolist() == [[2.0, 4.0, 6.0]]
    path.write_text("\n".join(json.dumps({"steps": s, "y": 1.0}) for s in (1, 2, 1)))
    assert comparing.curves(path) == {} == comparing.curves(tmp_path / "none")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["compare", "near"], "compare needs two runs or more, got 1"),
        (["compare", "near", "far"], "near: 2 runs have this name: other/near, toy/near; choose one of them"),
        (["compare", "fat", "far"], "fat: no run has this name; did you mean far?"),
        (["runs", "--experiment", "toys"], "--experiment toys: must be one of other, toy"),
    ],
)
def test_what_cannot_be_shown_is_refused_in_one_line(place, capsys, arguments, words):
    with pytest.raises(SystemExit) as stop:
        commands.main([*arguments, "--output-dir", str(place)])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and words in error and error.count("\n") == 1


def test_a_directory_that_is_not_there_is_refused(tmp_path, capsys):
    with pytest.raises(SystemExit):
        records.main("runs", ["--output-dir", str(tmp_path / "none")])
    assert "there are no runs yet" in capsys.readouterr().err


def test_the_list_starts_without_jax(place):
    program = "import sys; from experiments import __main__ as m; m.main(sys.argv[1:]); print('jax' in sys.modules)"
    command = [sys.executable, "-c", program, "runs", "--output-dir", str(place)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"
