"""The folder of one run: what is recorded during the run, and how the folder is closed."""

import contextlib
import json
import os
import pathlib
import shlex
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.harness import directories, figures, reports, terminal, verdicts
from experiments.harness.directories import UsageError
from experiments.harness.progress import Progress

__all__ = ["Recorder", "Timer", "UsageError"]


class Timer:
    """The value that `Recorder.timed` yields. `seconds` is set when the block ends."""

    seconds: float | None = None


class Recorder:
    """A context manager that writes the folder `OUTPUT_DIR/EXPERIMENT/RUN/`.

    During the run the folder is called `.RUN.partial`. It becomes `RUN` when the block ends without an error, and
    `RUN-incomplete`, with everything that was recorded, when it ends with an error or an interrupt. A `UsageError`
    before anything was recorded removes it. The files are `config.json`, `environment.json`, `metrics.jsonl` (written
    line by line), `summary.json`, `summary.md`, the figures with their data, and after a failure `error.txt`.

    A run that resumes another one (`resumes`) keeps its name, unless `run_name` gives a new one, and replaces it: the
    folder of the earlier attempt moves into `earlier/` of the new folder.

    Attributes:
        directory: the folder of the files now, and the final folder after the block has ended.
        resumes: the folder of the run that this one resumes, or None.
        tiny: whether the run only shows that everything works. It is then labelled so, and prints little.
        paper: the figures for a paper that were asked for, or None.
        failure: the reason that was given to `failed`, or None.
    """

    def __init__(
        self,
        experiment: str,
        config: Any,
        *,
        output_dir: str | os.PathLike = "results",
        run_name: str | None = None,
        resumes: pathlib.Path | None = None,
        tiny: bool = False,
        paper: figures.Paper | None = None,
    ):
        self.experiment, self.config, self.paper = experiment, config, paper
        self.tiny = tiny or (resumes is not None and reports.was_tiny(resumes))
        if run_name is not None:
            self.run = directories.checked_run_name(run_name)
        else:
            self.run = directories.name_of(resumes.resolve().name) if resumes else directories.default_run_name()
        self._output_dir = pathlib.Path(output_dir)
        self._place = directories.Workplace(self._output_dir / experiment, self.run, resumes)
        self._rows: list[reports.Row] = []
        self._notes: list[str] = []
        self._tables: list[dict[str, Any]] = []
        self._numeric: list[Sequence[str]] = []
        self._figures: list[str] = []
        self._timings: dict[str, float] = {}
        self._metrics = None
        self._to_go_on: str | None = None
        self.failure: str | None = None

    @property
    def directory(self) -> pathlib.Path:
        return self._place.directory

    @property
    def resumes(self) -> pathlib.Path | None:
        return self._place.resumes

    def __enter__(self) -> "Recorder":
        self._console = terminal.make_console()
        self._start = time.perf_counter()
        try:
            self._environment = reports.environment() | {"tiny": self.tiny}
        except RuntimeError as error:
            raise UsageError(f"JAX found no device to run on: {error}") from error
        self._place.open()
        try:
            self._write("config.json", reports.plain(self.config))
            self._write("environment.json", self._environment)
            label = " (a tiny run)" if self.tiny else ""
            self.say(f"{self.experiment}{label}: {reports.format_machine(self._environment)}")
        except BaseException:
            self._place.remove()
            raise
        return self

    def __exit__(self, kind, error, trace) -> None:
        if self._metrics is not None:
            self._metrics.close()
        described = {"config.json", "environment.json"}
        recorded = self._rows or self._notes or {path.name for path in self.directory.iterdir()} > described
        if isinstance(error, UsageError) and not recorded:
            self._place.remove()
        elif error is None:
            self._finish("failed" if self.failure else "complete", self.failure)
            self._show()
        else:
            self._finish_early(error)

    def row(
        self,
        *,
        quantity: str,
        variant: str | None = None,
        ours: float | None = None,
        stderr: float | None = None,
        exact: float | None = None,
        paper: float | None = None,
        printed: str | None = None,
        provenance: str | None = None,
        verdict: str | None = None,
        against_exact: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Add a row to the table: our number ± its standard error beside the exact and the published number.

        `printed` is the published number with its digits as they were printed. `verdict` and `against_exact` begin
        with a word of `verdicts.Verdict`.

        Raises:
            ValueError: a number is a text, a verdict begins with another word, or a published number lacks its
                provenance: "text" (read in the publication), "code" (in the authors' code), "card" (quoted
                elsewhere), "mem" (remembered) or "own" (a reference, computed independently and never published).
        """
        for text in filter(None, (verdict, against_exact)):
            verdicts.word_of(text)
        if (paper is not None or provenance is not None) and provenance not in reports.PROVENANCE:
            known = ", ".join(reports.PROVENANCE)
            raise ValueError(f"provenance: a published number needs one of {known}, got {provenance!r}")
        numbers = {"ours": ours, "stderr": stderr, "exact": exact, "paper": paper, "seconds": seconds}
        words = {"quantity": quantity, "variant": variant, "provenance": provenance, "verdict": verdict}
        words |= {"printed": printed, "against_exact": against_exact}
        row = {name: None if value is None else float(value) for name, value in numbers.items()} | words
        self._rows.append({name: row[name] for name in reports.COLUMNS})

    def table(
        self,
        title: str,
        headers: Sequence[str],
        lines: Sequence[Sequence[str]],
        numeric: Sequence[str] | None = None,
    ) -> None:
        """Add a table of finished cells. A run with such a table prints it instead of its rows; the files keep both.

        Args:
            numeric: headers of the columns of numbers, which are never broken into lines; if None, all but the first.
        """
        if any(len(line) != len(headers) for line in lines):
            raise ValueError(f"lines: each needs {len(headers)} cells, as headers")
        self._tables.append({"title": title, "headers": list(headers), "lines": [list(line) for line in lines]})
        self._numeric.append(headers[1:] if numeric is None else numeric)

    def note(self, text: str) -> None:
        """Add a sentence that is shown under the table, for example the reason why a published value differs."""
        self._notes.append(text)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl` and write it to disk. NaN and infinities become null."""
        if self._metrics is None:
            self._metrics = self.path("metrics.jsonl").open("a", encoding="utf-8")
        self._metrics.write(json.dumps(reports.plain(record), allow_nan=False) + "\n")
        self._metrics.flush()

    def resumable(self, option: str = "--resume") -> None:
        """Declare that the run can be resumed. An early end then prints the command that resumes it."""
        self._to_go_on = f"python -m experiments.{self.experiment} {option}"

    def failed(self, reason: str) -> None:
        """Let the run end as failed for this reason, after everything else has been recorded and drawn."""
        self.failure = reason

    def figure(self, figure: Any, name: str) -> pathlib.Path:
        """Write a matplotlib figure as `NAME.png`, with its title in the metadata of the file, and its data as CSV."""
        path = self.path(name.removesuffix(".png") + ".png")
        figures.save(figure, path, footer=verdicts.TINY_NOTICE if self.tiny else "")
        self._figures.append(path.relative_to(self.directory).as_posix())
        return path

    def path(self, name: str) -> pathlib.Path:
        """The path of a file in the folder of the run. Folders in `name` are made.

        Raises:
            ValueError: the path is outside the folder of the run.
        """
        path = self.directory / name
        if not path.resolve().is_relative_to(self.directory.resolve()):
            raise ValueError(f"name: must stay inside the run's directory, got {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[Timer]:
        """Measure a block, print its seconds and add them to `timings` of the summary under `name`."""
        timer, start = Timer(), time.perf_counter()
        yield timer
        timer.seconds = time.perf_counter() - start
        self._timings[name] = self._timings.get(name, 0.0) + timer.seconds
        if not self.tiny:
            self.say(f"{name}: {reports.format_duration(timer.seconds)}")

    def progress(self, total: int, description: str, unit: str = "steps") -> Progress:
        """A context manager that shows progress. Call its `advance(amount, note="")` after every jitted chunk."""
        return Progress(total, description, unit, quiet=self.tiny)

    def say(self, text: str) -> None:
        """Print a line on the console."""
        self._console.print(text, markup=False)

    def _finish(self, status: str, error: str | None) -> None:
        seconds = time.perf_counter() - self._start
        summary = {"experiment": self.experiment, "run": self.run, "status": status, "error": error}
        summary |= {"seconds": seconds, "timings": self._timings, "notes": self._notes, "rows": self._rows}
        summary |= {"tables": self._tables, "tiny": self.tiny}
        self._write("summary.json", summary)
        page = reports.summary_markdown(summary, self._environment, self._figures)
        self.path("summary.md").write_text(page, encoding="utf-8")
        self._place.close(status == "complete", resumable=self._to_go_on is not None)

    def _finish_early(self, error: BaseException) -> None:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        if "RESOURCE_EXHAUSTED" in str(error):
            error.add_note("The device is out of memory. Choose fewer episodes, seeds or steps at once.")
        if not stopped:
            self.path("error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        headline = str(error).strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {headline}" if headline else type(error).__name__
        self._finish("interrupted" if stopped else "failed", reason)
        error.add_note(f"The run is incomplete; everything that it recorded is in {self.directory}")
        if self._to_go_on and not isinstance(error, UsageError):
            elsewhere = self._output_dir
            place = "" if elsewhere == pathlib.Path("results") else f" --output-dir {shlex.quote(str(elsewhere))}"
            error.add_note(f"To resume it: {self._to_go_on} {shlex.quote(str(self.directory))}{place}")

    def _write(self, name: str, value: Any) -> None:
        text = json.dumps(reports.plain(value), indent=2, ensure_ascii=False, allow_nan=False)
        self.path(name).write_text(text + "\n", encoding="utf-8")

    def _show(self) -> None:
        for table, numeric in zip(self._tables, self._numeric, strict=True):
            terminal.show_table(self._console, table["title"], table["headers"], table["lines"], right=numeric)
        if self._rows and not self._tables:
            headers, cells = reports.table(self._rows)
            terminal.show_table(self._console, "", headers, cells, right=reports.NUMERIC)
        if self.tiny:
            self.say(verdicts.TINY_NOTICE)
        else:
            for note in self._notes:
                self.say(f"note: {note}")
        self.say(f"files: {self.directory}")
