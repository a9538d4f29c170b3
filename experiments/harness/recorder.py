"""The folder of one run: what is recorded during the run, and how the folder is closed."""

import contextlib
import errno
import os
import pathlib
import shlex
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from experiments.harness import directories, figures, interruption, reports, runs, team, terminal, verdicts
from experiments.harness.directories import UsageError
from experiments.harness.heartbeat import Heartbeat
from experiments.harness.metric_log import NAME as METRICS
from experiments.harness.metric_log import MetricLog
from experiments.harness.progress import Progress
from experiments.harness.tables import Tables
from pgjax import writing

__all__ = ["Recorder", "Timer", "UsageError"]


class Timer:
    """The value that `Recorder.timed` yields. `seconds` is set when the block ends."""

    seconds: float | None = None


class Recorder(Tables):
    """A context manager that writes the folder `OUTPUT_DIR/EXPERIMENT/RUN/`.

    During the run the folder is called `.RUN.partial`. It becomes `RUN` when the block ends without an error, and
    `RUN-incomplete`, with everything that was recorded, when it ends with an error or an interrupt. A `UsageError`
    before anything was recorded removes it. The files are `config.json`, `environment.json`, `metrics.jsonl` (written
    line by line), `summary.json`, `summary.md`, the figures with their data, and after a failure `error.txt`.

    A run that resumes another one (`resumes`) keeps its name, unless `run_name` gives a new one, and goes on in its
    folder, see `directories`. `config.json` stays that of the first attempt, and `earlier/` describes the others.

    Attributes:
        directory: the folder of the files now, and the final folder after the block has ended.
        resumes: the folder of the run that this one resumes, or None.
        tiny: whether the run only shows that everything works. It is then labelled so, and prints little.
        paper: the figures for a paper that were asked for, or None.
        failure: the reason that was given to `failed`, or None.
        writes: whether the files stay; of several processes that share a run only those of process 0 do.
        seconds_before: the seconds that earlier attempts of this run took.
    """

    writes = True

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
        super().__init__()
        self._figures: list[str] = []
        self._timings: dict[str, float] = {}
        self._metrics: MetricLog | None = None
        self._heart = Heartbeat(experiment, quiet=not self.writes)
        self._begun = self._is_worthless = False
        self._to_go_on: str | None = None
        self.failure: str | None = None
        self.seconds_before = 0.0

    @property
    def directory(self) -> pathlib.Path:
        return self._place.directory

    @property
    def resumes(self) -> pathlib.Path | None:
        return self._place.resumes

    def __enter__(self) -> "Recorder":
        self._console, self._start = terminal.make_console(), time.perf_counter()
        try:
            self._environment = reports.environment() | {"tiny": self.tiny}
        except RuntimeError as error:
            raise UsageError(f"JAX found no device to run on: {error}") from error
        self._place.open()
        try:
            if self._place.in_place:
                self.seconds_before = _seconds(self.directory)
                self.resumable()
            else:
                self._begin()
            self.say(f"{self.experiment}{' (a tiny run)' * self.tiny}: {reports.format_machine(self._environment)}")
        except BaseException:
            self._place.give_back()
            raise
        self._heart.__enter__()
        return self

    def _begin(self) -> None:
        """Describe this attempt in the folder. A refusal before the first file leaves a resumed run as it was."""
        if self._begun:
            return
        self._begun = True
        self._place.set_aside()
        if not (self.directory / "config.json").exists():
            self.write("config.json", self.config)
        self.write("environment.json", self._environment)

    def __exit__(self, kind, error, trace) -> None:
        self._heart.__exit__(kind, error, trace)
        with interruption.current.defer():  # a first signal does not stop the last steps
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        try:
            if self._metrics is not None:
                self._metrics.close()
            if isinstance(error, UsageError) and not self._recorded():
                self._place.give_back()
            elif error is None:
                self._finish("failed" if self.failure else "complete", self.failure)
                self._show()
            else:
                self._finish_early(error)
        except OSError as trouble:  # a full disk, or a folder that somebody has removed
            if error is None:
                trouble.add_note(f"What the run saved before is in {self.directory}")
                self._say_how_to_resume(trouble)
                raise
            if not isinstance(error, writing.WriteError):  # which says the same
                error.add_note(f"The summary could not be written: {trouble}")
        finally:
            self._place.release()

    def _recorded(self) -> bool:
        if self._is_worthless or self._rows or self._notes:
            return not self._is_worthless
        if self._place.in_place:
            return self._begun
        described = {"config.json", "environment.json", directories.CONTINUES}
        return bool({path.name for path in self.directory.iterdir()} - described)

    def metrics(self, record: Mapping[str, Any]) -> None:
        """Append one line to `metrics.jsonl`. NaN and infinities become null."""
        self.metric_log().write(record)

    def metric_log(self) -> MetricLog:
        """The log `metrics.jsonl`, which is opened at its end."""
        if self._metrics is None:
            self._metrics = MetricLog(self.path(METRICS))
        return self._metrics

    def cut_metrics(self, size: int = 0, digest: str | None = None) -> bool:
        """Cut `metrics.jsonl` after `size` bytes, so that a resumed run writes every line once.

        The result is False, and nothing is cut, if the SHA-256 of these bytes is not `digest`.
        """
        return self.metric_log().log.cut(size, digest)

    def resumable(self, option: str = "--resume") -> None:
        """Declare that the run can be resumed. An early end then prints the command that resumes it."""
        self._to_go_on = f"python -m experiments.{self.experiment} {option}"
        interruption.current.last_words = f"To resume it: {self.command()}"
        team.current.publish("to resume", interruption.current.last_words)

    def command(self, directory: pathlib.Path | None = None) -> str:
        """The command that resumes the run, whose folder is now, or will be, `directory`."""
        usual = self._output_dir == pathlib.Path("results")
        place = "" if usual else f" --output-dir {shlex.quote(str(self._output_dir))}"
        return f"{self._to_go_on} {shlex.quote(str(directory or self.directory))}{place}"

    def _say_how_to_resume(self, error: BaseException) -> None:
        if self._to_go_on and self.directory.is_dir():
            error.add_note(f"To resume it: {self.command()}")

    def worthless(self) -> None:
        """Let a refusal remove the files that this run has written, because they hold no result."""
        self._is_worthless = True

    def failed(self, reason: str) -> None:
        """Let the run end as failed for this reason, after everything else has been recorded and drawn."""
        self.failure = reason

    def figure(self, figure: Any, name: str) -> pathlib.Path:
        """Write a matplotlib figure as `NAME.png`, with its title in the metadata of the file, and its data as CSV."""
        path = self.path(name.removesuffix(".png") + ".png")
        figures.save(figure, path, footer=verdicts.TINY_NOTICE if self.tiny else "")
        self._figures.append(path.relative_to(self.directory).as_posix())
        return path

    def animation(self, save: Callable[[pathlib.Path], None], name: str) -> None:
        """Call `save` with the path of an animation. Figures for a paper leave it out."""
        save(self.path(name))

    def path(self, name: str) -> pathlib.Path:
        """The path of a file in the folder of the run. Folders in `name` are made.

        Raises:
            ValueError: the path is outside the folder of the run.
        """
        path = self.directory / name
        if not path.resolve().is_relative_to(self.directory.resolve()):
            raise ValueError(f"name: must stay inside the run's directory, got {name!r}")
        if not self.directory.is_dir():
            raise writing.WriteError(errno.ENOENT, f"cannot write {path}: the folder of the run is gone")
        self._begin()
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def write(self, name: str, content: Any) -> pathlib.Path:
        """Write a file in the folder of the run, whole or not at all, and return its path.

        Args:
            name: its path in the folder.
            content: a text, bytes, named arrays if the name ends with .npz, or a value that is written as JSON.
        """
        path = self.path(name)
        writing.replace_file(path, reports.encoded(name, content))
        return path

    @contextlib.contextmanager
    def timed(self, name: str) -> Iterator[Timer]:
        """Measure a block, print its seconds and add them to `timings` of the summary under `name`."""
        timer, start = Timer(), time.perf_counter()
        with self._heart.part(name):
            yield timer
        timer.seconds = time.perf_counter() - start
        self._timings[name] = self._timings.get(name, 0.0) + timer.seconds
        if not self.tiny:
            self.say(f"{name}: {reports.format_duration(timer.seconds)}")

    def progress(self, total: int, description: str, unit: str = "steps", done: int = 0) -> Progress:
        """A context manager that shows progress. Call its `advance(amount, note="")` after every jitted chunk.

        `done` of the `total` units were done before, in an earlier attempt of the run.
        """
        return Progress(total, description, unit, quiet=self.tiny, done=done, heart=self._heart)

    def say(self, text: str) -> None:
        """Print a line on the console."""
        self._console.print(text, markup=False)
        self._heart.heard()

    def write_summary(self, status: str = "drawing", error: str | None = None) -> None:
        """Write `summary.json` and `summary.md` with everything so far. This is done before anything is drawn."""
        seconds = self.seconds_before + time.perf_counter() - self._start
        summary = {"experiment": self.experiment, "run": self.run, "status": status, "error": error}
        summary |= {"seconds": seconds, "timings": self._timings, "notes": self._notes, "rows": self._rows}
        summary |= {"tables": self._tables, "tiny": self.tiny}
        self._begin()
        # The page comes first, because a run is complete as soon as `summary.json` says so.
        self.write("summary.md", reports.summary_markdown(summary, self._environment, self._figures))
        self.write("summary.json", summary)

    def _finish(self, status: str, error: str | None) -> None:
        self.write_summary(status, error)
        self._place.close(status == "complete", resumable=self._to_go_on is not None)

    def _finish_early(self, error: BaseException) -> None:
        stopped = isinstance(error, KeyboardInterrupt | SystemExit)
        if "RESOURCE_EXHAUSTED" in str(error):
            error.add_note("The device is out of memory. Choose fewer episodes, seeds or steps at once.")
        try:
            if not stopped:
                self.write("error.txt", "".join(traceback.format_exception(error)))
            headline = str(error).strip().partition("\n")[0]
            reason = f"{type(error).__name__}: {headline}" if headline else type(error).__name__
            self._finish("interrupted" if stopped else "failed", reason)
        finally:
            if self.directory.is_dir():
                error.add_note(f"The run is incomplete; everything that it recorded is in {self.directory}")
            if not isinstance(error, UsageError):
                self._say_how_to_resume(error)

    def _show(self) -> None:
        self.show_tables(self._console)
        if self.tiny:
            self.say(verdicts.TINY_NOTICE)
        else:
            for note in self._notes:
                self.say(f"note: {note}")
        self.say(f"files: {self.directory}")


def _seconds(directory: pathlib.Path) -> float:
    """The seconds that a run took until its latest attempt ended; 0 if the attempt was killed."""
    seconds = runs.read_json(directory / "summary.json").get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0
