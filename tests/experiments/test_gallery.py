"""The gallery takes the latest complete run with default options, and keeps what it has no run of."""

import json

import pytest
from matplotlib.figure import Figure
from PIL import Image

from experiments import gallery, wrong_reinforce
from experiments.gallery import page, runs
from experiments.gallery.records import Group, Record, Section
from experiments.harness import reports

RECORD = Record("museum", "wrong_reinforce", figures={"shown": "made"})
OTHER = Record("pendulum", "imitation", {"problem": "pendulum"})
GROUPS = (
    Group(
        "Gradients",
        (Section((RECORD,), "Read this."), Section((OTHER,), "Not yet.")),
    ),
)


def make_run(results, name, *, date="2026-11-28T10:00:00+00:00", ours=1.0, status="complete", config=None, place=""):
    """A run's directory as the recorder leaves it."""
    directory = results / (place or "wrong_reinforce") / name
    directory.mkdir(parents=True)
    row = dict.fromkeys(reports.COLUMNS) | {"quantity": "a number", "ours": ours, "stderr": 0.1, "verdict": "agrees"}
    summary = {"experiment": "wrong_reinforce", "status": status, "seconds": 65.0, "tables": [], "rows": [row]}
    environment = {"date": date, "commit": "0123456789", "uncommitted_changes": False, "device_count": 1}
    environment |= {"device_kind": "cpu", "threads": 2, "versions": {"jax": "0.10.1"}}
    files = {"summary": summary | {"notes": ["A note."]}, "environment": environment}
    files["config"] = reports.plain(wrong_reinforce.Config()) | (config or {})
    for file, content in files.items():
        (directory / f"{file}.json").write_text(json.dumps(content), encoding="utf-8")
    figure = Figure(figsize=(0.1, 0.1))
    figure.savefig(directory / "made.png", metadata={"Title": f"What {name} shows"})
    return directory


@pytest.fixture
def places(tmp_path):
    return tmp_path / "results", tmp_path / "figures"


def test_the_latest_complete_default_run_is_taken(places):
    results, _ = places
    make_run(results, "early", date="2026-11-27T10:00:00+00:00")
    wanted = make_run(results, "latest")
    late = "2026-11-29T10:00:00+00:00"
    make_run(results, "failed", date=late, status="failed")
    make_run(results, "odd", date=late, config={"discount": 0.5})
    make_run(results, "tiny", date=late, config={"tiny": True})
    (make_run(results, "killed", date=late) / "summary.json").write_text("", encoding="utf-8")
    assert runs.latest(RECORD, results) == wanted
    assert runs.latest(OTHER, results) is None


def test_a_run_inside_one_of_all_papers_counts(places):
    results, _ = places
    wanted = make_run(results, "run", place="papers/all/wrong_reinforce")
    assert runs.latest(RECORD, results) == wanted


def test_data_and_figures_are_copied_and_an_older_run_changes_nothing(places):
    results, figures = places
    assert runs.copy(RECORD, make_run(results, "new", ours=2.0), figures)
    assert not runs.copy(RECORD, make_run(results, "old", date="2026-11-20T10:00:00+00:00"), figures)
    found = runs.read(figures / "museum.json")
    assert found["figures"] == {"shown": runs.title_of(figures / "shown.png")} == {"shown": "What new shows"}
    assert found["tables"][0]["lines"] == [["a number", "2.00 ± 0.10", "agrees"]]
    assert found["command"] == "python -m experiments.wrong_reinforce" and found["commit"] == "0123456"


def test_the_middle_frame_of_an_animation_becomes_a_picture(places):
    results, figures = places
    directory = make_run(results, "moving")
    frames = [Image.new("RGB", (2, 2), (level, 0, 0)) for level in (0, 120, 240)]
    frames[0].save(directory / "policy.gif", save_all=True, append_images=frames[1:])
    record = Record("museum", "wrong_reinforce", frames={"moment": "policy", "absent": "missing"})
    assert runs.copy(record, directory, figures)
    with Image.open(figures / "moment.png") as picture:
        assert abs(picture.getpixel((0, 0))[0] - 120) < 8
    assert set(runs.read(figures / "museum.json")["figures"]) == {"moment"}


def test_a_papers_headline_is_its_table(places):
    results, _ = places
    directory = make_run(results, "paper")
    headline = [{"quantity": "v*", "published": "−11.6", "ours": "−11.66", "verdict": "agrees", "provenance": None}]
    (directory / "paper.json").write_text(json.dumps({"headline": headline}), encoding="utf-8")
    (table,) = runs.data_of(RECORD, directory)["tables"]
    assert table["headers"] == list(runs.HEADLINE.values())
    assert table["lines"] == [["v*", "−11.6", "−11.66", "agrees"]]
    assert "1 “agrees”" in table["title"]


def test_options_are_part_of_the_command():
    assert OTHER.command == "python -m experiments.imitation --problem pendulum"


@pytest.fixture
def house(tmp_path, monkeypatch):
    """A folder with one question of which there is a run and one of which there is none."""
    for name in ("wrong_reinforce", "imitation"):
        (tmp_path / f"{name}.py").write_text(f'"""Title of {name}.\n\nClaim    One\n         claim.\nCommand  x\n"""\n')
    monkeypatch.setattr(gallery, "GROUPS", GROUPS)
    make_run(tmp_path / "results", "one")
    return tmp_path


def test_the_command_writes_a_page_that_keeps_what_has_no_run(house, capsys):
    (house / "figures").mkdir()
    kept = {"command": "python -m experiments.imitation", "date": "2026-01-01", "machine": "m", "commit": "c"}
    kept |= {
        "seconds": 1.0,
        "notes": [],
        "figures": {},
        "tables": [{"title": "", "headers": ["q"], "lines": [["kept | number"]]}],
    }
    (house / "figures" / "pendulum.json").write_text(json.dumps(kept), encoding="utf-8")
    assert gallery.main(["--results", str(house / "results")], house) == 0
    text = (house / "README.md").read_text(encoding="utf-8")
    assert "kept \\| number" in text and "1.00 ± 0.10" in text and "![What one shows](figures/shown.png)" in text
    assert "**Claim.** One claim." in text and "| [wrong_reinforce](#wrong_reinforce) | Title" in text
    assert "`python -m experiments.wrong_reinforce` · 1 min 05 s · 2026-11-28" in text
    assert "museum: taken from" in capsys.readouterr().out
    assert gallery.main(["--check"], house) == 0
    (house / "README.md").write_text(text.replace("1.00", "2.00"), encoding="utf-8")
    assert gallery.main(["--check"], house) == 1


def test_the_page_shows_what_kills_damaged_files_and_generated_input_led_to(house, capsys):
    environment = {"date": "2026-11-28T10:00:00+00:00", "commit": "0123456789", "uncommitted_changes": False}
    environment |= {"device_kind": "cpu", "device_count": 2, "threads": 2, "versions": {"jax": "0.10.1"}}
    report = {"seconds": 0.25, "mebibytes": 64.0}
    file = {"kind": "npz", "name": "cut", "report": report, "outcome": "refused", "fault": ""}
    other = file | {"kind": "HDF5", "outcome": "other", "fault": "another content was loaded"}
    killed = {"training": "recall", "random": 25, "at phases": 19, "restarts": 46, "complete trainings": 4}
    written = {
        "soak_kill": {"trainings": [killed | {"equal": True, "differing": []}]},
        "damaged_files": {"results": [file, file, other]},
        "generated_input": {"calls": {"count": 10, "faults": [], "slowest_seconds": 0.5}},
    }
    for name, content in written.items():
        path = house / "results" / f"{name}.json"
        path.write_text(json.dumps(content | {"environment": environment}), encoding="utf-8")
    assert gallery.main(["--results", str(house / "results")], house) == 0
    text = (house / "README.md").read_text(encoding="utf-8")
    assert "| recall | 25 | 19 | 46 | 4 | yes |" in text and "| calls | 10 | 0 | 0.5 |" in text
    assert "| all kinds | 3 | 2 | 0 | 1 | 1 | 0.25 | 64 |" in text and "jax 0.10.1 · commit 0123456" in text
    assert "soak_kill: taken from" in capsys.readouterr().out
    assert gallery.main(["--results", str(house / "results")], house) == 0
    assert "soak_kill: taken from" not in capsys.readouterr().out


def test_a_question_without_data_has_no_section(house):
    text = page.write(GROUPS, house)
    assert "Gradients" not in text and "Title of" not in text


@pytest.mark.parametrize("path", sorted((gallery.EXPERIMENTS / "figures").glob("*.json")), ids=lambda path: path.stem)
def test_what_the_page_shows_comes_from_a_run_of_a_commit(path):
    """Numbers that were typed by hand have no time of day, and those of a changed tree no commit."""
    shown = json.loads(path.read_text(encoding="utf-8"))
    assert "T00:00:00" not in shown["date"] and len(shown["commit"]) == 7
