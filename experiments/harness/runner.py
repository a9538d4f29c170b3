"""How an experiment becomes a command: options, refusals, the run's directory, exit codes.

    @dataclasses.dataclass(frozen=True)
    class Config:
        episodes: int = 100
        \"\"\"Episodes per batch.\"\"\"

        def validate(self):
            runner.require(self.episodes >= 2, "--episodes", self.episodes, "at least 2")

    def run(config, recorder): ...       # returns what plot needs
    def plot(results, recorder): ...

    if __name__ == "__main__":
        runner.main(__file__, __doc__, Config, run, plot, tiny=TINY)

A folder's `__main__.py` calls `runner.start(package)`, which finds all of these, and `TINY`, in the package.

Exit codes: 0 means that the run is complete. 2 means that an option was refused (one line, and no files stay), or that
a part of the run failed, for example because it diverged (one line, and the rest is kept). 70 means an internal error,
whose traceback is in `error.txt`. 75 means that a signal or a full disk interrupted the run; the last line is the
command that resumes it. Nothing here imports jax before the options have been accepted. Every experiment also has the
options of `command_line.py`: figures for a paper, devices, the compilation cache, and --tiny, which uses small sizes.
"""

import contextlib
import dataclasses
import os
import pathlib
import sys
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from experiments.harness import (
    command_line,
    directories,
    distributed,
    figures,
    interruption,
    memory,
    paper_layout,
    team,
    terminal,
)
from experiments.harness.bystander import recorder_of
from experiments.harness.recorder import Recorder, UsageError
from experiments.harness.reports import format_interval, format_number
from pgjax import writing

__all__ = [
    "Recorder",
    "UsageError",
    "execute",
    "format_interval",
    "format_number",
    "main",
    "require",
    "require_counts",
    "require_rate",
    "usage_errors",
]


EX_SOFTWARE = 70  # "an internal software error", of sysexits.h
# Whether a figure that cannot be drawn becomes a note. The tests set it to False, so that none fails unseen.
FIGURES_MAY_FAIL = True
MOST = 2**30  # Sizes are int32 in JAX.
LEAST_RATE, LARGEST_RATE = 2.0**-126, (2.0 - 2.0**-23) * 2.0**127  # The normal numbers of float32 above 0.


def require(condition: bool, option: str, value: Any, allowed: str) -> None:
    """Refuses an option: `--episodes 1: must be at least 2`. Write conditions so that NaN fails them.

    Raises:
        UsageError: the condition is false.
    """
    if not condition:
        raise UsageError(f"{option} {value}: must be {allowed}")


def require_counts(config: Any, *names: str, least: int = 1, most: int = MOST) -> None:
    """Refuses fields of `config` that are below `least` or above `most`. A field may be None, or hold several numbers.

    Raises:
        UsageError: a number is outside the range.
    """
    for name in names:
        value = getattr(config, name)
        for number in value if isinstance(value, tuple) else (value,):
            allowed = number is None or least <= number <= most
            bound = "2³⁰" if most == MOST else most
            require(allowed, f"--{name.replace('_', '-')}", number, f"at least {least} and at most {bound}")


def require_rate(option: str, value: float) -> None:
    """Refuses a learning rate that is not above 0 and finite in float32.

    Raises:
        UsageError: the number is outside the range of float32.
    """
    allowed = f"in [{LEAST_RATE:.2g}, {LARGEST_RATE:.2g}], the range of float32"
    require(LEAST_RATE <= value <= LARGEST_RATE, option, value, allowed)


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """Around calls that check what the user chose, such as `environments.make`: ValueError → UsageError."""
    try:
        yield
    except ValueError as error:
        raise UsageError(str(error)) from error


def execute(
    experiment: str,
    config: Any,
    run: Callable[[Any, Recorder], Any],
    plot: Callable[[Any, Recorder], None] | None = None,
    *,
    output_dir: str | os.PathLike = "results",
    run_name: str | None = None,
    start: Callable[[], None] = lambda: None,
    paper: figures.Paper | None = None,
    tiny: bool = False,
    dry_run: bool = False,
) -> pathlib.Path | None:
    """Validates `config`, runs and plots, and returns the directory of the run.

    If `config` has a field `resume`, the path of an earlier run, this run continues the earlier one and keeps its name,
    unless `run_name` gives another name. If the earlier run was killed when it was complete and had no name yet, it
    gets its name, and nothing runs unless `config` asks for more: `config.only_resumes()`, if there is such a method,
    says that it does not.

    Args:
        start: a function that is called after the configuration has been accepted and before JAX starts.
        paper: the formats and the width of figures for a paper.
        tiny: whether the run only shows that everything works. It is then labelled as a tiny run. An experiment with a
            field `tiny` of its own sets it there.
        dry_run: whether only the resolved options and the estimated memory are printed; the result is then None.

    Raises:
        UsageError: the configuration, the run's name or the output directory is refused. Or a part of the run failed
            (`Recorder.failed`); the other parts are in the directory of the run.
    """
    resumes, tiny = getattr(config, "resume", None), tiny or getattr(config, "tiny", False)
    if resumes is not None:
        config = dataclasses.replace(config, resume=directories.found(resumes))
    with usage_errors():
        getattr(config, "validate", lambda: None)()
        memory.require_moderate(config)
        start()
        if resumes is not None and team.current.writes:
            resumes = directories.found(resumes)
            if not dry_run and (named := directories.finished(resumes)) is not None:
                if getattr(config, "only_resumes", lambda: config == type(config)(resume=config.resume))():
                    print(f"complete: {named}")
                    return named
                resumes = named
            if pathlib.Path(output_dir) == pathlib.Path("results"):  # the default: the run goes on where it lies
                output_dir = resumes.parent.parent
            config = dataclasses.replace(config, resume=resumes)
        with team.current.watching():
            config = distributed.agreed(config)
        parts = memory.estimate(config)
        if dry_run:
            print("\n".join([*resolved(config), *memory.described(parts)]))
            if resumes is not None:
                getattr(config, "require_resumable", lambda: None)()
        memory.require_fitting(config, parts)
    if dry_run:
        return None
    place = {"output_dir": output_dir, "run_name": run_name, "resumes": resumes}
    with recorder_of(experiment, config, **place, tiny=tiny, paper=paper) as recorder, team.current.watching():
        if recorder.resumes != resumes:  # a killed run's directory has another name now
            config = dataclasses.replace(config, resume=recorder.resumes)
        results = run(config, recorder)
        if plot is not None and recorder.writes:
            recorder.write_summary()
            _draw(plot, results, recorder, paper)
    if recorder.failure is not None:
        raise UsageError(recorder.failure)
    return recorder.directory


def _draw(plot: Callable, results: Any, recorder: Recorder, paper: figures.Paper | None) -> None:
    """Draw all figures. If that fails, the summary has a note of it, and the run is complete without them."""
    try:
        plot(results, recorder)
        if paper is not None and paper.formats:
            with paper_layout.for_paper(paper.width):
                plot(results, figures.PaperCopies(recorder, paper))
    except Exception as error:
        if not FIGURES_MAY_FAIL or isinstance(error, writing.WriteError):
            raise
        recorder.write("error.txt", "".join(traceback.format_exception(error)))
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        recorder.note(f"A figure could not be drawn, and those after it are missing ({reason}). See error.txt.")


def resolved(config: Any) -> list[str]:
    """Every option with its value in one line each: those of `config.resolved()`, or else the fields of `config`."""
    values = config.resolved() if hasattr(config, "resolved") else dataclasses.asdict(config)
    text = lambda value: " ".join(map(str, value)) or "none" if isinstance(value, tuple | list) else str(value)
    option = lambda name: f"--{name.rstrip('_').replace('_', '-')}"
    return [f"{option(name)} {text(value)}" for name, value in values.items()]


def main(
    file: str,
    description: str | None,
    config_type: type,
    run: Callable[[Any, Recorder], Any],
    plot: Callable[[Any, Recorder], None] | None = None,
    *,
    arguments: Sequence[str] | None = None,
    cache: bool = True,
    tiny: Any = None,
    shares: bool = False,
) -> None:
    """The command line of the experiment in `file`: every field of `config_type` is an option.

    Args:
        description: the header of the experiment, which is its docstring. None, as with `python -OO`, reads it from
            `file`.
        cache: whether compiled programs are kept on disk. The command line may change it.
        tiny: the configuration that --tiny uses.
        shares: whether several processes can share the experiment, so that it has --distributed.

    Raises:
        SystemExit: the run was refused, failed in part or was interrupted; the exit code is one of those above.
    """
    name = question_of(file)
    program = f"python -m experiments.{name}"
    if arguments is None:  # a process of its own, whose limits belong to this run
        arguments = sys.argv[1:]
        memory.limit_to_machine()
    described = command_line.header(file) if description is None else description
    with terminal.robust_output(), interruption.watched():
        try:
            given = {"cache": cache, "tiny": tiny, "shares": shares}
            options = command_line.parse(program, described, config_type, arguments, **given)
            execute(
                name,
                options.config,
                run,
                plot,
                output_dir=options.output_dir,
                run_name=options.run_name,
                start=distributed.starting(options),
                paper=options.paper,
                tiny=options.tiny,
                dry_run=options.dry_run,
            )
        except UsageError as error:
            _leave(2, f"{program}: error: {_one_line(error)}", error)
        except KeyboardInterrupt as error:
            code = getattr(error, "code", interruption.EX_TEMPFAIL)
            _leave(code, f"interrupted by {error}" if str(error) else "interrupted", error)
        except writing.WriteError as error:
            resumable = any(note.startswith("To resume it") for note in getattr(error, "__notes__", []))
            code = interruption.EX_TEMPFAIL if resumable else EX_SOFTWARE
            _leave(code, f"{program}: error: {_one_line(error)}", error)
        except FloatingPointError as error:
            _leave(2, f"{program}: error: --debug-nans: {_one_line(error)}", error)
        except Exception as error:
            exhausted = memory.is_exhausted(error)
            kept = any("everything that it" in note for note in getattr(error, "__notes__", []))
            if not exhausted and (not kept or team.current.joined):
                traceback.print_exception(error)
            kind = "error: the memory is exhausted" if exhausted else f"internal error: {type(error).__name__}"
            _leave(EX_SOFTWARE, f"{program}: {kind}: {_one_line(error) or 'an allocation failed'}", error)
        team.current.end(0, "")


def start(question: types.ModuleType, *, arguments: Sequence[str] | None = None, cache: bool = True) -> None:
    """Call `main` for a question that is a folder: a package with `Config`, `run` and perhaps `plot` and `TINY`.

    If it has `SHARES`, which is then True, several processes can share it.
    """
    plot, tiny = (getattr(question, name, None) for name in ("plot", "TINY"))
    header, of, more = question.__doc__, question.Config, {"shares": getattr(question, "SHARES", False)}
    main(question.__file__, header, of, question.run, plot, arguments=arguments, cache=cache, tiny=tiny, **more)


def question_of(file: str) -> str:
    """The name of a question by its file: `experiments/NAME.py`, or a file of the folder `experiments/NAME/`."""
    path = pathlib.Path(file)
    return path.parent.name if path.stem in ("__init__", "__main__") else path.stem


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _leave(code: int, line: str, error: BaseException) -> None:
    text = "\n".join([line, *getattr(error, "__notes__", [])])
    team.current.end(code, text)
    print(text, file=sys.stderr)
    raise SystemExit(code) from None
