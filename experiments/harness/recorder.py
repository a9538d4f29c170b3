"""One run's directory: what is recorded while it goes on, and how it is closed."""

import contextlib
import json
import os
import pathlib
import shlex
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from experiments.harness import directories, reports, terminal, verdicts
from experiments.harness.directories import UsageError
from experiments.harness.progress import Progress

__all__ = ["Recorder", "Timer", "UsageError"]


class Timer:
    """What `Recorder.timed` yields; `seconds` is set when its block ends."""

    seconds: float | None = None


class Recorder:
    """Writes `OUTPUT_DIR/EXPERIMENT/RUN/`; use it as a context manager.

    While the run goes on the directory is called `.RUN.partial`. It becomes `RUN` only when the block ends
    well, and `RUN-incomplete`, with everything recorded so far, when it ends in an error or an interrupt. A
    `UsageError` before anything was recorded removes it. Files: `config.json`, `environment.json`,
    `metrics.jsonl` (flushed line by line), `summary.json`, `summary.md`, figures with their data, `error.txt` of a
    failure.

    A run that goes on with another (`resumes`) keeps its name, unless `run_name` gives it a new one, and takes its
    place: the directory of the earlier attempt is kept in `earlier/` of this one's.

    Attributes:
        directory: where the files are now; the final place once the block has ended.
        resumes: the directory of the run that this one goes on with, or None.
        tiny: whether the run is only to show that everything works; it is labelled so, and quiet.
        failure: the reason that `failed` was given, or None.
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
    ):
        self.experiment, self.config = experiment, config
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
        """Adds a row to the table: our number ± its standard error beside the exact and the published one.

        `printed` is the published number with the digits that it was printed with. `verdict` and `against_exact` begin
        with a word of `verdicts.Verdict`.

        Raises:
            ValueError: a text in the place of a number, a verdict that begins with another word, or a published number
                without its provenance: "text" (read in the publication), "code" (in the authors' code), "card" (quoted
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
        """Adds a table of ready-made cells; a run that has one shows it instead of its rows, which the files keep.

        Args:
            numeric: headers of the columns of numbers, which are never broken into lines; all but the first if None.
        """
        if any(len(line) != len(headers) for line in lines):
            raise ValueError(f"lines: each needs {len(headers)} cells, as headers")
        self._tables.append({"title": title, "headers": list(headers), "lines": [list(line) for line in lines]})
        self._numeric.append(headers[1:] if numeric is None else numeric)

    def note(self, text: str) -> None:
        """Adds a sentence that is shown under the table, for example why a published value differs."""
        self._notes.append(text)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Appends one line to `metrics.jsonl`, on disk when this returns; NaN and infinities become null."""
        if self._metrics is None:
            self._metrics = self.path("metrics.jsonl").open("a", encoding="utf-8")
        self._metrics.write(json.dumps(reports.plain(record), allow_nan=False) + "\n")
        self._metrics.flush()

    def resumable(self, option: str = "--resume") -> None:
        """From here on an early end says how to go on: the command with `option` and the run's directory."""
        self._to_go_on = f"python -m experiments.{self.experiment} {option}"

    def failed(self, reason: str) -> None:
        """The run ends as failed for this reason, once all that did not fail is recorded and drawn."""
        self.failure = reason

    def figure(self, figure: Any, name: str) -> pathlib.Path:
        """Writes a matplotlib figure as `NAME.png`, its title also as the file's `Title`, and its data as CSV."""
        from experiments.harness import figures

        path = self.path(name.removesuffix(".png") + ".png")
        figures.save(figure, path, footer=verdicts.TINY_NOTICE if self.tiny else "")
        self._figures.append(path.relative_to(self.directory).as_posix())
        return path

    def path(self, name: str) -> pathlib.Path:
        """Where a file of this run goes while the run goes on; folders in `name` are made.

        Raises:
            ValueError: a name that leads out of the run's directory.
        """
        path = self.directory / name
        if not path.resolve().is_relative_to(self.directory.resolve()):
            raise ValueError(f"name: must stay inside the run's directory, got {name!r}")
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[Timer]:
        """Measures a block, prints its seconds and adds them to the summary's `timings` under `name`."""
        timer, start = Timer(), time.perf_counter()
        yield timer
        timer.seconds = time.perf_counter() - start
        self._timings[name] = self._timings.get(name, 0.0) + timer.seconds
        if not self.tiny:
            self.say(f"{name}: {reports.format_duration(timer.seconds)}")

    def progress(self, total: int, description: str, unit: str = "steps") -> Progress:
        """A context manager with `advance(amount, note="")`, to be called between jitted chunks."""
        return Progress(total, description, unit, quiet=self.tiny)

    def say(self, text: str) -> None:
        """Prints a line for the person who watches."""
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
            error.add_note("The device is out of memory: fewer episodes, seeds or steps at once need less.")
        if not stopped:
            self.path("error.txt").write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        headline = str(error).strip().partition("\n")[0]
        reason = f"{type(error).__name__}: {headline}" if headline else type(error).__name__
        self._finish("interrupted" if stopped else "failed", reason)
        error.add_note(f"The run is incomplete; what it had recorded is in {self.directory}")
        if self._to_go_on and not isinstance(error, UsageError):
            elsewhere = self._output_dir
            place = "" if elsewhere == pathlib.Path("results") else f" --output-dir {shlex.quote(str(elsewhere))}"
            error.add_note(f"To go on: {self._to_go_on} {shlex.quote(str(self.directory))}{place}")

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
