"""The list of experiments, what --help says of each, and that each has a tiny size."""

import ast
import dataclasses
import importlib
import pathlib
import subprocess
import sys

import pytest

from experiments import __main__ as listing
from experiments.harness import command_line, runner

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3


HEADERS = ("Claim", "Source", "Command", "Shows", "Expect", "Departs", "Defines")


LISTED = sorted(listing.summaries(ROOT / "experiments"))
# These write or print what the repository or finished runs hold, or ask a person; they have no size of their own.
QUESTIONS = [name for name in LISTED if name not in ("estimators", "gallery", "preferences", "problems")]


@pytest.mark.parametrize("name", QUESTIONS)
def test_help_keeps_every_line_of_the_header(name, capsys):
    folder = ROOT / "experiments" / name
    source = (folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")).read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(source))
    with pytest.raises(SystemExit):
        runner.main(f"{name}.py", docstring, Config, None, arguments=["--help"])
    shown = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert [line for line in docstring.splitlines() if line and line.strip() not in shown] == []
    assert sum(line.startswith(HEADERS) for line in shown) >= 4


@pytest.mark.parametrize("name", [name for name in QUESTIONS if name != "papers"])
def test_every_experiment_has_a_tiny_size(name):
    """`papers` has an option of this name of its own, which is handed on to its modules."""
    module = importlib.import_module(f"experiments.{name}")
    parse = lambda *words: command_line.parse(name, module.__doc__, module.Config, words, tiny=module.TINY)
    assert parse("--tiny").config == module.TINY and parse("--tiny").tiny
    assert parse().config == module.Config() and not parse().tiny


def test_the_list_is_read_without_importing(tmp_path, capsys):
    (tmp_path / "__init__.py").write_text("")
    (tmp_path / "_private.py").write_text('"""Not shown."""')
    (tmp_path / "second.py").write_text('"""Why?\n\nMore."""\nraise SystemExit("imported")')
    (tmp_path / "broken.py").write_text("def")
    (tmp_path / "bare.py").write_text("")
    listing.main([], directory=tmp_path)
    shown = capsys.readouterr().out
    assert "  second  Why?\n" in shown and "More." not in shown and "Not shown" not in shown
    assert "  broken  (line 1 is not valid Python)" in shown and "  bare    (no docstring)" in shown
    with pytest.raises(SystemExit) as stop:
        listing.main(["second", "--seed", "1"], directory=tmp_path)
    assert stop.value.code == 2
    assert "python -m experiments.second --seed 1" in capsys.readouterr().err


def test_the_list_as_a_command():
    listed = subprocess.run([sys.executable, "-m", "experiments"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0 and "python -m experiments.NAME --help" in listed.stdout
    for name in QUESTIONS:
        assert f"\n  {name} " in listed.stdout
    assert "python -m experiments runs" in listed.stdout
