"""From the command line to the files of a run: complete, refused, failed, interrupted."""

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments.harness import reports, runner, verdicts

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILE = "/somewhere/toy.py"  # main takes only the experiment's name from it
DESCRIPTION = "Does a toy settle down?\n\nClaim: it does."


@dataclasses.dataclass(frozen=True)
class Config:
    steps: int = 3
    """Number of steps."""
    discount: float = 0.9
    """Discount factor."""
    trouble: str = ""
    """What goes wrong."""

    def validate(self):
        runner.require(self.steps >= 1, "--steps", self.steps, "at least 1")
        runner.require(0 <= self.discount <= 1, "--discount", self.discount, "from 0 to 1")


def run(config, recorder):
    if config.trouble == "early":
        with runner.usage_errors():
            raise ValueError("name: unknown environment 'early';\nknown: corridor")
    with recorder.timed("compile") as timer, recorder.timed("compile"):
        pass
    assert timer.seconds >= 0
    with recorder.progress(config.steps, "training", unit="updates") as bar:
        for step in range(config.steps):
            recorder.metrics({"step": np.int32(step), "loss": np.float32("nan"), "norms": np.arange(2.0)})
            bar.advance(note=f"step {step}")
    recorder.row(quantity="tr Var(g)", variant="[B] | a", ours=np.float32(0.25), stderr=0.004, exact=0.25)
    recorder.row(quantity="return", ours=float("nan"), stderr=float("inf"), paper=-11.6, provenance="mem")
    recorder.note("The published value was measured otherwise.")
    recorder.path("data/extra.txt").write_text("extra")
    match config.trouble:
        case "bug":
            raise RuntimeError("it broke\nbadly")
        case "memory":
            raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 byte")
        case "interrupt":
            raise KeyboardInterrupt
        case "SIGINT" | "SIGTERM" | "SIGHUP":
            os.kill(os.getpid(), getattr(signal, config.trouble))
            time.sleep(5)
        case "late":
            raise runner.UsageError("--trouble late: refused too late")
    return config.steps


def plot(results, recorder):
    from experiments.harness import plots

    figure, axes = plots.figure(f"{results} steps")
    axes.plot([0, results])
    recorder.figure(figure, "curve")


TINY = Config(steps=1, discount=0.5)


def main(*arguments: str, directory: pathlib.Path) -> None:
    given = ["--output-dir", str(directory / "out"), *arguments]
    runner.main(FILE, DESCRIPTION, Config, run, plot, arguments=given, tiny=TINY)


def strict_json(path: pathlib.Path):
    def refuse(constant):
        raise AssertionError(f"{constant} in {path.name}")

    return json.loads(path.read_text(), parse_constant=refuse)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return runner.execute("toy", Config(), run, plot, output_dir=tmp_path_factory.mktemp("results"), run_name="one")


def test_a_complete_run_has_all_its_files(finished):
    assert {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()} == {
        "config.json",
        "environment.json",
        "metrics.jsonl",
        "summary.json",
        "summary.md",
        "curve.png",
        "curve.csv",
        "data/extra.txt",
    }
    assert [path.name for path in finished.parent.iterdir()] == ["one"]
    assert finished.parent.name == "toy"
    assert strict_json(finished / "config.json") == {"steps": 3, "discount": 0.9, "trouble": ""}
    assert (finished / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_the_summary_is_strict_and_has_every_column(finished):
    summary = strict_json(finished / "summary.json")
    assert summary["experiment"] == "toy" and summary["status"] == "complete" and summary["error"] is None
    assert summary["timings"]["compile"] >= 0 and summary["seconds"] > 0
    assert [list(row) for row in summary["rows"]] == [list(reports.COLUMNS)] * 2
    variance, value = summary["rows"]
    assert variance["ours"] == 0.25 and variance["variant"] == "[B] | a" and variance["paper"] is None
    assert value["ours"] is None and value["stderr"] is None and value["provenance"] == "mem"


def test_metrics_are_one_strict_object_a_line(finished):
    lines = (finished / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": step, "loss": None, "norms": [0.0, 1.0]} for step in range(3)
    ]
    assert "NaN" not in "".join(lines)


def test_the_environment_says_what_to_reproduce(finished):
    environment = strict_json(finished / "environment.json")
    assert set(environment["versions"]) == {*reports.PACKAGES}
    assert environment["versions"]["jax"] and environment["device_count"] >= 1 and environment["threads"] >= 1
    for key in (
        "command",
        "date",
        "commit",
        "uncommitted_changes",
        "xla_flags",
        "matmul_precision",
        "python",
    ):
        assert key in environment


def test_the_page_shows_table_notes_and_figures(finished):
    page = (finished / "summary.md").read_text()
    assert "| quantity | variant | paper | ours ± s.e. | exact |" in page
    assert "| tr Var(g) | [B] \\| a |  | 0.250 ± 0.004 | 0.25 |" in page
    assert "-11.6 (unverified)" in page and "remembered" in page
    assert "- The published value was measured otherwise." in page
    assert "![curve.png](curve.png)" in page
    assert "| verdict" not in page  # a column without entries is left out


def test_the_command_line_runs_and_reports(tmp_path, capsys):
    main("--steps", "2", "--run-name", "mine", directory=tmp_path)
    shown = capsys.readouterr()
    assert "0.250 ± 0.004" in shown.out and "[B] | a" in shown.out
    assert f"files: {tmp_path / 'out' / 'toy' / 'mine'}" in shown.out
    assert "training: 2 updates in" in shown.err
    main(directory=tmp_path)
    assert len(list((tmp_path / "out" / "toy").iterdir())) == 2


def test_a_tiny_run_is_labelled_everywhere_and_quiet(tmp_path, capsys):
    main("--tiny", "--discount", "0.75", "--run-name", "mine", directory=tmp_path)
    shown, directory = capsys.readouterr(), tmp_path / "out" / "toy" / "mine"
    assert strict_json(directory / "config.json") == {"steps": 1, "discount": 0.75, "trouble": ""}
    assert strict_json(directory / "summary.json")["tiny"] is True
    assert f"**{verdicts.TINY_NOTICE}**" in (directory / "summary.md").read_text()
    assert (
        shown.out.startswith("toy (a tiny run): ")
        and verdicts.TINY_NOTICE in shown.out
        and "0.250 ± 0.004" in shown.out
    )
    assert "note" not in shown.out and "compile" not in shown.out and shown.err == ""
    main("--run-name", "whole", directory=tmp_path)
    assert "tiny run" not in capsys.readouterr().out
    assert strict_json(tmp_path / "out/toy/whole/summary.json")["tiny"] is False


def test_a_failing_tiny_run_is_labelled_too(tmp_path):
    with pytest.raises(SystemExit) as stop:
        main("--tiny", "--trouble", "bug", "--run-name", "mine", directory=tmp_path)
    assert stop.value.code == 70
    assert strict_json(tmp_path / "out/toy/mine-incomplete/summary.json")["tiny"] is True


def test_help_puts_defaults_of_none_into_words(capsys):
    @dataclasses.dataclass(frozen=True)
    class Left:
        rate: float | None = None
        """The learning rate."""
        path: str | None = None
        """A path."""
        count: int = 3
        """A count."""

        def default_words(self, arguments):
            assert "--help" in arguments
            return {"rate": "0.01, the preset's"}

    for arguments in (["--help"], ["--tiny", "--help"]):
        with pytest.raises(SystemExit):
            runner.main(FILE, DESCRIPTION, Left, run, arguments=arguments, tiny=Left(count=1))
        shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
        assert "The learning rate. (default: 0.01, the preset's)" in shown and "A path. (may be left out)" in shown
        assert f"(default: {1 if '--tiny' in arguments else 3})" in shown and "default: None" not in shown
        assert "The name of the run. (default: the date, the time and a short id)" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--steps", "0"], "--steps 0: must be at least 1"),
        (["--discount", "nan"], "--discount nan: must be from 0 to 1"),
        (["--trouble", "early"], "name: unknown environment 'early'; known: corridor"),
        (["--run-name", "../up"], "--run-name ../up: must be a plain directory name"),
        (["--run-name", "x-incomplete"], "--run-name x-incomplete: must be"),
    ],
)
def test_a_refusal_is_one_line_and_leaves_nothing(tmp_path, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(*arguments, directory=tmp_path)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith(f"python -m experiments.toy: error: {message}") and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["--steps", "many"], ["--stepz", "3"], ["extra"]])
def test_what_cannot_be_parsed_is_refused_too(tmp_path, capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(*arguments, directory=tmp_path)
    assert stop.value.code == 2
    assert arguments[0] in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_run_never_overwrites_another(tmp_path, capsys):
    (tmp_path / "out" / "toy" / "mine").mkdir(parents=True)
    (tmp_path / "out" / "toy" / ".killed.partial").mkdir()
    for name in ("mine", "killed"):
        with pytest.raises(SystemExit) as stop:
            main("--run-name", name, directory=tmp_path)
        assert stop.value.code == 2
        assert "exists already" in capsys.readouterr().err
    (tmp_path / "blocked").write_text("a file")
    with pytest.raises(runner.UsageError, match="--output-dir"):
        runner.execute("toy", Config(), run, output_dir=tmp_path / "blocked")


@pytest.mark.parametrize(
    ("trouble", "error", "status"),
    [
        ("bug", RuntimeError, "failed"),
        ("interrupt", KeyboardInterrupt, "interrupted"),
        ("late", runner.UsageError, "failed"),
    ],
)
def test_an_early_end_keeps_what_was_recorded(tmp_path, trouble, error, status):
    for number in ("", "-2"):
        with pytest.raises(error) as caught:
            runner.execute("toy", Config(trouble=trouble), run, plot, output_dir=tmp_path, run_name="one")
        kept = tmp_path / "toy" / f"one-incomplete{number}"
        assert str(kept) in caught.value.__notes__[-1]
        summary = strict_json(kept / "summary.json")
        assert summary["status"] == status and summary["error"].startswith(error.__name__)
        assert "badly" not in summary["error"] and len(summary["rows"]) == 2
        assert len((kept / "metrics.jsonl").read_text().splitlines()) == 3
        assert (kept / "error.txt").exists() == (status == "failed")
    assert sorted(path.name for path in (tmp_path / "toy").iterdir()) == [
        "one-incomplete",
        "one-incomplete-2",
    ]


@pytest.mark.parametrize("trouble", ["interrupt", "SIGINT", "SIGTERM", "SIGHUP"])
def test_interrupts_end_without_a_traceback(tmp_path, capsys, trouble):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        main("--trouble", trouble, "--run-name", "one", directory=tmp_path)
    error = capsys.readouterr().err
    assert stop.value.code == 75 and "one-incomplete" in error and "Traceback" not in error
    assert trouble == "interrupt" or f"interrupted by {trouble}\n" in error
    assert signal.getsignal(signal.SIGTERM) is before
    assert strict_json(tmp_path / "out/toy/one-incomplete/summary.json")["status"] == "interrupted"


def test_an_internal_error_is_one_line_with_its_traceback_in_a_file(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main("--trouble", "bug", "--run-name", "one", directory=tmp_path)
    error = capsys.readouterr().err
    assert stop.value.code == 70 and "internal error: RuntimeError: it broke badly\n" in error
    assert "Traceback" not in error
    assert "Traceback" in (tmp_path / "out/toy/one-incomplete/error.txt").read_text()


def test_a_figure_that_fails_is_a_note_and_not_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(runner, "FIGURES_MAY_FAIL", True)
    before = []

    def broken(results, recorder):
        before.append(strict_json(recorder.directory / "summary.json"))
        raise ZeroDivisionError("no picture")

    directory = runner.execute("toy", Config(), run, broken, output_dir=tmp_path, run_name="one")
    summary = strict_json(directory / "summary.json")
    assert before[0]["status"] == "drawing" and before[0]["rows"] == summary["rows"] != []
    assert summary["status"] == "complete" and "(ZeroDivisionError: no picture). See error.txt" in summary["notes"][-1]


@pytest.mark.parametrize(("place", "option"), [("results", ""), ("else where", " --output-dir 'else where'")])
def test_an_interrupted_run_says_how_to_go_on(tmp_path, monkeypatch, capsys, place, option):
    def run_for_ever(config, recorder):
        recorder.resumable()
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        arguments = ["--output-dir", place, "--run-name", "one"]
        runner.main(FILE, DESCRIPTION, Config, run_for_ever, arguments=arguments)
    directory = f"{place}/toy/one-incomplete"
    quoted = f"'{directory}'" if " " in directory else directory
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"To resume it: python -m experiments.toy --resume {quoted}{option}"


def test_running_out_of_memory_is_one_line_that_says_what_helps(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main("--trouble", "memory", directory=tmp_path)
    said = capsys.readouterr().err
    assert caught.value.code == 70 and "Traceback" not in said
    assert "the memory is exhausted: RESOURCE_EXHAUSTED" in said and "fewer episodes" in said


def test_rows_are_checked(tmp_path):
    with runner.Recorder("toy", Config(), output_dir=tmp_path) as recorder:
        with pytest.raises(ValueError, match=r"provenance.*text, code, card, mem.*None"):
            recorder.row(quantity="q", paper=1.0)
        with pytest.raises(ValueError, match=r"provenance.*'ours'"):
            recorder.row(quantity="q", paper=1.0, provenance="ours")
        with pytest.raises(ValueError, match="inside the run's directory"):
            recorder.path("../elsewhere")


def test_a_verdict_begins_with_a_word_of_the_one_vocabulary(tmp_path):
    with runner.Recorder("e", None, output_dir=tmp_path) as recorder:
        recorder.row(quantity="q", verdict="agrees: aim ≥ 1", against_exact="wrong")
        for words in ({"verdict": "reached"}, {"against_exact": "exact"}):
            with pytest.raises(ValueError, match="verdict: must begin with one of agrees, differs, wrong"):
                recorder.row(quantity="q", **words)
    page = (recorder.directory / "summary.md").read_text(encoding="utf-8")
    assert "| q | wrong | agrees: aim ≥ 1 |" in page and "- verdict, `agrees`: Our number agrees" in page


def test_options_are_refused_before_jax_is_imported(tmp_path):
    module = tmp_path / "toy.py"
    module.write_text(
        '"""Does a toy settle down?"""\n'
        "import dataclasses, sys\n"
        "from experiments.harness import runner\n"
        "@dataclasses.dataclass(frozen=True)\n"
        "class Config:\n"
        "    steps: int = 0\n"
        "    def validate(self):\n"
        "        assert 'jax' not in sys.modules and 'matplotlib' not in sys.modules\n"
        "        runner.require(self.steps >= 1, '--steps', self.steps, 'at least 1')\n"
        "runner.main(__file__, __doc__, Config, None)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    refused = subprocess.run(
        [sys.executable, str(module)], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert refused.stderr == "python -m experiments.toy: error: --steps 0: must be at least 1\n"
    assert refused.returncode == 2 and list(tmp_path.iterdir()) == [module]
