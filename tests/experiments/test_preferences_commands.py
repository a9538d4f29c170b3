"""The commands of `experiments.preferences` without a page: the terminal, the summary, the export and the agreement."""

import io
import json
import sys

import pytest

from experiments import preferences
from experiments.preferences import on_terminal, pairs, trials, wording
from experiments.preferences.session import Session
from pgjax.preferences import Preference, records

LINES = [
    {"prompt": "p", "answers": ["one", "two\x1b[31m", "three"], "policy": "run", "logp": [-1.0, -2.0, -3.0]},
    {"prompt": "q", "answer1": "left", "answer2": "right", "policy": ["a", "b"], "seed": 0, "step": 5},
    {"prompt": "r", "chosen": "left", "rejected": "right", "margin": 1},
    {"prompt": "r", "answers": ["right", "left"]},
    {"prompt": "s", "answers": ["same", "same"]},
]


@pytest.fixture
def written(tmp_path):
    path = tmp_path / "pairs.jsonl"
    pairs.write(path, LINES)
    return path


def test_all_pairs_of_a_file_are_read_once(written):
    found = pairs.read(written)
    assert [(pair.prompt, pair.answers) for pair in found] == [
        ("p", ("one", "two\x1b[31m")),
        ("p", ("one", "three")),
        ("p", ("two\x1b[31m", "three")),
        ("q", ("left", "right")),
        ("r", ("left", "right")),
    ]
    assert found[2].origins == ({"policy": "run", "logp": -2.0}, {"policy": "run", "logp": -3.0})
    assert found[3].origins == ({"policy": "a", "seed": 0, "step": 5}, {"policy": "b", "seed": 0, "step": 5})


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "line 2: JSON: expected valid syntax, found Expecting"),
        ("[1]", "line 2: must be a JSON object, got list"),
        ("[" * 100_000, "line 2:"),
        ('{"answers": ["a", "b"]}', "line 2: the field prompt must hold text, got NoneType"),
        ('{"prompt": "p", "answers": ["a"]}', "line 2: the field answers must list two or more answers"),
        ('{"prompt": "p", "answers": ["a", 3]}', "line 2: the field answers must hold text, got int"),
        ('{"prompt": "\\ud800", "answers": ["a", "b"]}', "line 2: the field prompt holds half a character"),
        (
            '{"prompt": "p", "answers": ["a", "%s"]}' % ("x" * 20_001),
            "line 2: the field answers must hold at most 20000",
        ),
        (
            '{"prompt": "p", "answers": ["a", "b"], "logp": [1]}',
            "line 2: the field logp must have one value for each of 2",
        ),
        ('{"prompt": "p", "answers": ["a", "b"], "logp": -1}', "line 2: the field logp must be a list"),
        (
            '{"prompt": "p", "answers": ["a", "b"], "logp": [NaN, 1]}',
            "line 2: JSON: expected finite numbers, found NaN",
        ),
        ('{"prompt": "p", "answers": ["a", "b"], "step": 1.5}', "line 2: the field step must hold whole numbers"),
        ('{"prompt": "p", "answers": ["a", "b"], "policy": 3}', "line 2: the field policy must hold a name"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, capsys, line, words):
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "p", "answers": ["a", "b"]}\n' + line + "\n")
    with pytest.raises(SystemExit) as left:
        preferences.main(["collect", "--pairs", str(path), "--labels", str(tmp_path / "labels.jsonl"), "--terminal"])
    error = capsys.readouterr().err
    assert left.value.code == 2 and words in error and "Traceback" not in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "a command is missing: must be one of collect, inspect, agreement"),
        (["colect"], "colect: must be one of collect, inspect, agreement"),
        (["collect", "--pairs", "none.jsonl"], "--pairs none.jsonl: path none.jsonl is not a file; without --pairs"),
        (["collect", "--port", "70000"], "--port 70000: must be between 0 and 65535"),
        (["collect", "--repeat-share", "0.6"], "--repeat-share 0.6: must be between 0 and 0.5"),
        (["collect", "--repeat-share", "nan"], "--repeat-share nan: must be between 0 and 0.5"),
        (["collect", "--limit", "0"], "--limit 0: must be at least 1"),
        (["collect", "--annotator", " "], "must be a name of visible characters"),
        (["collect", "--target", "1"], "--target 1.0: must lie between 0.5 and 1"),
        (["collect", "--features", "0"], "--features 0: must be between 1 and 256"),
        (["inspect", "none.jsonl"], "none.jsonl: path: expected a file of JSON lines, found no such file"),
        (["agreement", "none.jsonl", "--target", "0.5"], "--target 0.5: must lie"),
        (["agreement", "none.jsonl", "--figure", "a.pdf"], "--figure a.pdf: must end in .png"),
    ],
)
def test_bad_options_end_with_one_line_and_code_two(tmp_path, monkeypatch, capsys, arguments, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        preferences.main(arguments)
    error = capsys.readouterr().err
    assert left.value.code == 2 and words in error and "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["collect", "inspect", "agreement"])
def test_every_command_explains_itself(command, capsys):
    with pytest.raises(SystemExit) as left:
        preferences.main([command, "--help"])
    shown = capsys.readouterr().out
    assert left.value.code == 0 and f"python -m experiments.preferences {command}" in shown
    with pytest.raises(SystemExit) as left:
        preferences.main(["--help"])
    assert left.value.code == 0 and f"preferences {command}" in capsys.readouterr().out


def typed(monkeypatch, text):
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def collect(tmp_path, *more):
    preferences.main(["collect", "--terminal", "--labels", str(tmp_path / "labels.jsonl"), *more])


def test_the_terminal_asks_saves_and_goes_on(tmp_path, written, monkeypatch, capsys):
    typed(monkeypatch, "1\nwhat\nT\nu\nu\nu\n2\ns\n")
    collect(tmp_path, "--pairs", str(written))
    shown = capsys.readouterr().out
    assert "Type one of 1, 2, t, b, s, u, q" in shown and shown.count("The last answer is undone.") == 2
    assert "There is no answer to undo." in shown and "\x1b" not in shown
    (saved,) = records.read(tmp_path / "labels.jsonl")
    typed(monkeypatch, "b\nq\n")
    collect(tmp_path, "--pairs", str(written))
    assert "1 of 5 answered, 1 skipped" in capsys.readouterr().out
    first, second = records.read(tmp_path / "labels.jsonl")
    assert first == saved and second.tie == "both_bad"
    typed(monkeypatch, "1\n" * 9)
    collect(tmp_path, "--pairs", str(written))
    assert "4 of 5 answered, 1 skipped; 4 labels of person" in capsys.readouterr().out


def test_ctrl_c_leaves_the_terminal_without_a_trace(tmp_path, written, monkeypatch, capsys):
    def interrupted(prompt):
        raise KeyboardInterrupt

    monkeypatch.setattr("builtins.input", interrupted)
    collect(tmp_path, "--pairs", str(written))
    assert "0 of 5 answered; 0 labels" in capsys.readouterr().out and not (tmp_path / "labels.jsonl").exists()


def test_the_terminal_shows_every_character_in_any_width(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "24")
    pair = pairs.Pair(prompt="a b " * 20, answers=("x\ty\n\nz", "\x1b[2J\u202e"))
    with Session(trials.order([pair], 0, 0.0), tmp_path / "labels.jsonl", "ada") as session:
        on_terminal.show(session, session.current(), "Which?")
    shown = capsys.readouterr().out
    assert "<U+001B>[2J<U+202E>" in shown and max(map(len, shown.splitlines())) <= 24
    assert "".join(line[4:] for line in shown.splitlines() if line.startswith("    ")).startswith("a b " * 20)
    assert wording.visible("\u200dé\n😀\x7f\u2028") == "\u200dé\n😀<U+007F><U+2028>"


def test_example_pairs_are_made_once_where_no_file_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("experiments.preferences.collecting.EXAMPLES", 5)
    typed(monkeypatch, "1\n")
    collect(tmp_path)
    assert "examples from Python's documentation" in capsys.readouterr().out
    before = (tmp_path / "example-pairs.jsonl").read_bytes()
    typed(monkeypatch, "1\n")
    collect(tmp_path, "--limit", "2", "--repeat-share", "0")
    assert "2 of 2 answered" in capsys.readouterr().out
    assert (tmp_path / "example-pairs.jsonl").read_bytes() == before and before.count(b"\n") == 5


@pytest.fixture
def judged(tmp_path):
    """A file of two annotators: ada judged ten pairs, six of them twice and five of these alike; grace judged four."""
    path = tmp_path / "labels.jsonl"

    def add(number, better, annotator, tie=None, shown="chosen"):
        texts = [f"short {number}", f"a longer answer {number}"]
        policies = {"policy_chosen": f"policy {better}", "policy_rejected": f"policy {1 - better}"}
        record = Preference(
            prompt="p",
            chosen=texts[better],
            rejected=texts[1 - better],
            tie=tie,
            annotator=annotator,
            time_s=4.0 + number,
            extra={"shown_first": shown, **policies},
        )
        records.append(path, record)

    for number in range(10):
        add(
            number,
            number % 2,
            "ada",
            tie="equal" if number == 9 else None,
            shown="rejected" if number < 3 else "chosen",
        )
    for number in range(6):
        add(number, 1 if number == 0 else number % 2, "ada")
    for number in range(4):
        add(number, 1 - number % 2, "grace")
    return path


def test_the_summary_counts_and_shows_habits(judged, capsys, tmp_path):
    preferences.main(["inspect", str(judged), "--export", str(tmp_path / "new" / "trl.jsonl")])
    shown = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["ada", "16", "10", "15", "1", "0", "7.5", "(5.8", "to", "9.2)", "2", "min", "04", "s"] in shown
    assert any(line[:3] == ["grace", "4", "4"] for line in shown)
    (first,) = [line for line in shown if line[:4] == ["the", "answer", "that", "is"]]
    assert "84%" in first and "19" in first and first[-4:] == ["differs", "from", "one", "half"]  # 16 of 19
    (longer,) = [line for line in shown if line[:3] == ["the", "longer", "answer"]]
    assert "53%" in longer and longer[-4:] == ["one", "half", "is", "possible"]  # 10 of 19
    assert ["policy", "1", "20", "52%"] in shown
    exported = (tmp_path / "new" / "trl.jsonl").read_text().splitlines()
    assert len(exported) == 19 and all(json.loads(line).keys() == {"prompt", "chosen", "rejected"} for line in exported)


def test_the_export_never_replaces_the_labels(judged, capsys):
    before = judged.read_bytes()
    with pytest.raises(SystemExit):
        preferences.main(["inspect", str(judged), "--export", str(judged)])
    assert "must be another file" in capsys.readouterr().err and judged.read_bytes() == before


def test_the_agreement_is_shown_with_intervals_and_drawn(judged, tmp_path, capsys):
    figure = tmp_path / "figures" / "needed.png"
    preferences.main(["agreement", str(judged), "--features", "4", "--figure", str(figure)])
    shown = capsys.readouterr().out
    lines = [line.split() for line in shown.splitlines()]
    assert ["ada", "with", "himself", "or", "herself", "6", "83%", "(44%", "to", "97%)"] in [
        line[:10] for line in lines
    ]
    assert any(line[:5] == ["ada", "with", "grace", "4", "0%"] for line in lines)
    assert "The annotators made the same choice in 83% of the 6 pairs" in shown and "have made 19" in shown
    assert figure.stat().st_size > 10_000 and figure.with_suffix(".csv").is_file()


def test_an_empty_file_has_nothing_to_show(tmp_path, capsys):
    (tmp_path / "labels.jsonl").write_text("")
    for command in ("inspect", "agreement"):
        with pytest.raises(SystemExit) as left:
            preferences.main([command, str(tmp_path / "labels.jsonl")])
        assert left.value.code == 2 and "no labels; `collect` makes some" in capsys.readouterr().err
