"""The runs in `results/`: what each of them was, how it ended, and what it found. Damaged runs are listed too."""

import datetime
import difflib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from experiments.harness import directories, reports, saved_files, terminal
from experiments.harness.directories import UsageError

Status = Literal["complete", "failed", "interrupted", "running", "killed", "damaged"]
HEADERS = ("run", "experiment", "date", "status", "took", "headline")
# A folder with one of these files is that of a run.
SIGNS = ("config.json", "environment.json", "summary.json", "options.json", "metrics.jsonl")


class Run(NamedTuple):
    """A run, read from its folder.

    Attributes:
        name, experiment, directory: its name, its experiment and its folder.
        date: the start of the run, with a time zone; the last change of its folder if no file gives the start.
        status: one of `Status`.
        seconds: the duration of the run; None if it has not ended.
        headline: its first result, or the reason why it is damaged or failed.
        summary: the content of `summary.json`, or an empty mapping.
    """

    name: str
    experiment: str
    directory: pathlib.Path
    date: datetime.datetime
    status: str
    seconds: float | None
    headline: str
    summary: Mapping[str, Any]


def find(output_dir: pathlib.Path) -> list[Run]:
    """Every run under `output_dir`, newest first.

    Raises:
        UsageError: the directory cannot be read.
    """
    if not output_dir.exists():
        raise UsageError(f"--output-dir {output_dir}: there are no runs yet; `python -m experiments` lists what to run")
    try:
        return sorted((read(path) for path in _directories(output_dir)), key=lambda run: run.date, reverse=True)
    except OSError as error:
        raise UsageError(f"--output-dir {output_dir}: {error.strerror}") from error


def _directories(output_dir: pathlib.Path) -> Iterator[pathlib.Path]:
    """The folders `OUTPUT_DIR/EXPERIMENT/RUN`, and the folders directly in `OUTPUT_DIR` that look like a run."""
    for outer in sorted(output_dir.iterdir()):
        if not outer.is_dir():
            continue
        if any((outer / sign).is_file() for sign in SIGNS):
            yield outer
            continue
        yield from (inner for inner in sorted(outer.iterdir()) if inner.is_dir())


def read(directory: pathlib.Path) -> Run:
    """Read one run. Its headline names every file that is missing or damaged."""
    wrong: list[str] = []
    unfinished = directory.name.startswith(".") and directory.name.endswith(".partial")
    summary = {} if unfinished else read_json(directory / "summary.json", wrong)
    environment = read_json(directory / "environment.json", wrong)
    if unfinished:
        status = "running" if directories.is_running(directory) else "killed"
    else:
        status = summary.get("status") if summary.get("status") in get_args(Status) else "damaged"
        if summary and status == "damaged":
            wrong.append(f"summary.json has the unknown status {summary.get('status')!r}")
    if wrong and not unfinished:
        status = "damaged"
    seconds = summary.get("seconds")
    return Run(
        name=directory.name if not unfinished else directories.name_of(directory.name),
        experiment=str(summary.get("experiment") or directory.parent.name),
        directory=directory,
        date=_date(environment.get("date"), directory),
        status=status,
        seconds=float(seconds) if isinstance(seconds, int | float) else None,
        headline="; ".join(wrong) if wrong else _headline(directory, summary),
        summary=summary,
    )


def read_json(path: pathlib.Path, wrong: list[str] | None = None) -> dict[str, Any]:
    """The JSON object in a file. If there is none, the result is empty and the reason is added to `wrong`."""
    wrong = [] if wrong is None else wrong
    if not path.exists():
        wrong.append(f"{path.name} is missing")
        return {}
    try:
        return saved_files.read_object(path)
    except ValueError as error:
        wrong.append(f"{path.name} cannot be read: it {str(error).removeprefix(f'path {path} ')}")
    return {}


def _date(text: Any, directory: pathlib.Path) -> datetime.datetime:
    try:
        return datetime.datetime.fromisoformat(text).astimezone()
    except (TypeError, ValueError, OverflowError):
        return datetime.datetime.fromtimestamp(directory.stat().st_mtime).astimezone()


def _headline(directory: pathlib.Path, summary: Mapping[str, Any]) -> str:
    """The most important result: why the run failed, or the best-known numbers of a paper, or the first row."""
    label = "tiny; " if summary.get("tiny") else ""
    if summary.get("error"):
        return label + str(summary["error"])
    if (directory / "paper.json").is_file():
        lines = read_json(directory / "paper.json").get("headline")
        if isinstance(lines, list) and all(isinstance(line, dict) for line in lines):
            told = [f"{line.get('quantity')}: {line.get('ours')} ({line.get('verdict')})" for line in lines]
            if told:
                return label + "; ".join(told)
    row = next((row for row in rows(summary) if row["ours"] is not None), None)
    if row is None:
        return label.removesuffix("; ")
    name = ", ".join(filter(None, (row["quantity"], row["variant"])))
    return f"{label}{name}: {reports.format_number(row['ours'], row['stderr'])}"


def rows(summary: Mapping[str, Any]) -> list[reports.Row]:
    """The rows of a summary, each with every column, also those of older runs. Damaged rows are left out."""
    made = []
    listed = summary.get("rows")
    for row in listed if isinstance(listed, list) else []:
        named = isinstance(row, dict) and isinstance(row.get("quantity"), str)
        if named and isinstance(row.get("variant"), str | None):
            whole = dict.fromkeys(reports.COLUMNS) | row
            for name in ("ours", "stderr", "exact", "paper", "seconds"):
                whole[name] = float(whole[name]) if isinstance(whole[name], int | float) else None
            made.append(whole)
    return made


def chosen(found: Sequence[Run], experiment: str | None, status: str | None, words: Sequence[str]) -> list[Run]:
    """The runs of an experiment that have a status and contain each of `words`.

    Raises:
        UsageError: there is no run of that experiment.
    """
    known = sorted({run.experiment for run in found})
    if experiment is not None and experiment not in known:
        raise UsageError(f"--experiment {experiment}: must be one of {', '.join(known) or '(there are no runs)'}")
    text = lambda run: " ".join((run.name, run.experiment, run.status, run.headline)).lower()
    return [
        run
        for run in found
        if experiment in (None, run.experiment)
        and status in (None, run.status)
        and all(word.lower() in text(run) for word in words)
    ]


def named(found: Sequence[Run], name: str) -> Run:
    """The run with a path, with EXPERIMENT/NAME, with NAME, or with the first letters of NAME.

    Raises:
        UsageError: no run has this name, or more than one run has it.
    """
    path = pathlib.Path(name)
    if path.is_dir() and any((path / sign).is_file() for sign in SIGNS):
        return read(path)
    full = lambda run: f"{run.experiment}/{run.name}"
    exact = [run for run in found if name in (run.name, full(run))]
    meant = exact or [run for run in found if run.name.startswith(name) or full(run).startswith(name)]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise UsageError(
            f"{name}: {len(meant)} runs have this name: {', '.join(map(full, meant[:5]))}; choose one of them"
        )
    close = difflib.get_close_matches(name, [run.name for run in found], n=3)
    raise UsageError(f"{name}: no run has this name" + (f"; did you mean {' or '.join(close)}?" if close else ""))


def show(found: Sequence[Run], output_dir: pathlib.Path) -> None:
    """Print the list of runs."""
    console = terminal.make_console()
    if not found:
        console.print(f"There is no such run in {output_dir}.", markup=False)
        return
    cells = [
        [
            run.name,
            run.experiment,
            f"{run.date:%Y-%m-%d %H:%M}",
            run.status,
            "" if run.seconds is None else reports.format_duration(run.seconds),
            run.headline,
        ]
        for run in found
    ]
    terminal.show_table(console, "", HEADERS, cells, right=("took",), whole=("run", "date", "status"))
