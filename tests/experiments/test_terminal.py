"""What is printed reaches every terminal: any encoding, any width, and after the reader has gone."""

import io
import os
import pathlib
import subprocess
import sys

import pytest
from rich.console import Console

from experiments.harness import terminal

ROOT = pathlib.Path(__file__).resolve().parents[2]
# An experiment that needs no JAX program, with every letter that ours use.
TOY = '''"""Wie groß ist ρ̂ − ρ ± √2, gemessen?

Claim    It is −11.66 ± 0.01 → see.
"""
import dataclasses
from experiments.harness import runner

@dataclasses.dataclass(frozen=True)
class Config:
    """Options."""
    steps: int = 3
    """Number of steps; γ stays."""

TINY = Config(steps=1)

def run(config, recorder):
    recorder.row(quantity="ρ̂ − ρ", variant="“θ”", ours=-11.66, stderr=0.01)
    recorder.note("∇ρ ≠ 0")
    recorder.say("line\\n" * 200)

if __name__ == "__main__":
    runner.main(__file__, __doc__, Config, run, tiny=TINY)
'''


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    path = tmp_path_factory.mktemp("toy") / "toy.py"
    path.write_text(TOY, encoding="utf-8")
    return path


def start(toy, directory, *options, flags=(), **more):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"} | more.pop("environment", {})
    command = [sys.executable, *flags, str(toy), "--output-dir", str(directory), "--run-name", "one", *options]
    return subprocess.Popen(command, env=environment, cwd=ROOT, **more)


def ended_well(directory) -> bool:
    """Whether the run came to its end, and nothing is left of a run that did not."""
    return [path.name for path in (directory / "toy").iterdir()] == ["one"]


@pytest.mark.parametrize("encoding", ["ascii", "cp1252"])
def test_a_terminal_without_our_letters_is_given_others(toy, tmp_path, encoding):
    environment = {"PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    with start(toy, tmp_path, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    assert "rho" in out.decode(encoding) and "grad rho != 0" in out.decode(encoding)
    assert ended_well(tmp_path)


@pytest.mark.parametrize("flags", [(), ("-OO",)])
def test_a_reader_that_goes_does_not_end_the_run(toy, tmp_path, flags):
    with start(toy, tmp_path, flags=flags, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.readline()
        process.stdout.close()
        err = process.stderr.read()
    assert process.returncode == 0 and b"Error" not in err and ended_well(tmp_path)


def test_streams_that_were_closed_before_do_not_end_the_run(toy, tmp_path):
    closed = f'"$@" >&- 2>&-; echo $? > {tmp_path / "code"}'
    command = [sys.executable, str(toy), "--output-dir", str(tmp_path), "--run-name", "one"]
    subprocess.run(["bash", "-c", closed, "bash", *command], env=os.environ | {"PYTHONPATH": str(ROOT)}, check=True)
    assert (tmp_path / "code").read_text() == "0\n" and ended_well(tmp_path)


def test_help_has_the_header_without_docstrings_and_a_readable_width(toy, tmp_path):
    streams = {"stdout": subprocess.PIPE, "text": True, "encoding": "utf-8", "environment": {"COLUMNS": "24"}}
    with start(toy, tmp_path, "--help", flags=("-OO",), **streams) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    assert "Claim    It is −11.66 ± 0.01 → see." in out and "Number of steps; γ stays. (default:" in out


def test_the_listing_ends_quietly_where_nobody_reads():
    command = [sys.executable, "-m", "experiments"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        err = process.stderr.read()
    assert (process.returncode, err) == (0, b"")


class Full(io.StringIO):
    def write(self, text):
        raise OSError(28, "No space left on device")


def test_other_errors_of_a_stream_are_not_hidden():
    with pytest.raises(OSError, match="No space left"):
        terminal.Output(Full()).write("x")


def test_streams_are_as_they_were_afterwards():
    before = sys.stdout, sys.stderr
    with terminal.robust_output():
        assert isinstance(sys.stdout, terminal.Output)
    assert (sys.stdout, sys.stderr) == before


@pytest.mark.parametrize(
    ("letters", "ascii_"), [("−11 ± 2", "-11 +- 2"), ("ρ̂θ₁²", "rhotheta12"), ("é", "e"), ("╭│☃", "+|?")]
)
def test_letters_have_readable_stand_ins(letters, ascii_):
    assert letters.encode("ascii", "readable").decode() == ascii_


HEADERS = ["quantity", "run", "value ± s.e."]
LINES = [["evaluated return, mean over seeds", "lr 0.01", "499.8 ± 0.1"], ["", "lr 0.1", "22 ± 3"]]


@pytest.mark.parametrize("width", [24, 40, 80])
def test_a_table_keeps_its_words_and_numbers_at_every_width(width):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    terminal.show_table(console, "Evaluation", HEADERS, LINES, right=HEADERS[2:])
    shown = console.file.getvalue()
    words = " ".join(shown.split())
    for word in ("evaluated", "return,", "mean", "seeds", "lr 0.01", "499.8 ± 0.1", "lr 0.1", "22 ± 3"):
        assert word in words
    assert max(map(len, shown.splitlines())) <= width
    assert ("value ± s.e.: 499.8 ± 0.1" in words) == (width < 40)
