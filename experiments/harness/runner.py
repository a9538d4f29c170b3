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
        runner.main(__file__, __doc__, Config, run, plot)

Exit codes: 0 done, 1 failed (with a traceback), 2 refused (one line, nothing left behind) or failed in part (one line,
the rest is kept), 130 and 143 interrupted. Nothing here imports jax before the options have been accepted. Devices and
the compilation cache (`runtime.py`) are options of every experiment.
"""

import contextlib
import dataclasses
import os
import pathlib
import signal
import sys
import textwrap
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from experiments.harness import runtime
from experiments.harness.recorder import Recorder, UsageError
from experiments.harness.reports import format_number

__all__ = ["Recorder", "UsageError", "execute", "format_number", "main", "require", "usage_errors"]


def require(condition: bool, option: str, value: Any, allowed: str) -> None:
    """Refuses an option: `--episodes 1: must be at least 2`. Write conditions so that NaN fails them.

    Raises:
        UsageError: the condition is false.
    """
    if not condition:
        raise UsageError(f"{option} {value}: must be {allowed}")


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
) -> pathlib.Path:
    """Validates `config`, runs and plots, and returns the directory of the run.

    `start` is called in between: the configuration has been accepted, and JAX has not started.

    Raises:
        UsageError: the configuration, the run's name or the output directory is refused; or a part of what was asked
            for failed (`Recorder.failed`), and the rest is in the directory of the run.
    """
    with usage_errors():
        getattr(config, "validate", lambda: None)()
        start()
    with Recorder(experiment, config, output_dir=output_dir, run_name=run_name) as recorder:
        results = run(config, recorder)
        if plot is not None:
            plot(results, recorder)
    if recorder.failure is not None:
        raise UsageError(recorder.failure)
    return recorder.directory


def main(
    file: str,
    description: str,
    config_type: type,
    run: Callable[[Any, Recorder], Any],
    plot: Callable[[Any, Recorder], None] | None = None,
    *,
    arguments: Sequence[str] | None = None,
    cache: bool = True,
) -> None:
    """The command line of the experiment in `file`: every field of `config_type` is an option.

    Args:
        cache: whether compiled programs are kept on disk, unless the command line says otherwise.

    Raises:
        SystemExit: with the exit codes above, unless all went well or an exception explains itself.
    """
    name = question_of(file)
    program = f"python -m experiments.{name}"
    options = _parse(program, description, config_type, arguments, cache)
    start = lambda: runtime.start(options.devices, options.cache)
    previous = signal.signal(signal.SIGTERM, _terminate)
    try:
        execute(name, options.config, run, plot, output_dir=options.output_dir, run_name=options.run_name, start=start)
    except UsageError as error:
        _leave(2, [f"{program}: error: {' '.join(str(error).split())}", *getattr(error, "__notes__", [])])
    except KeyboardInterrupt as error:
        _leave(130, ["interrupted", *getattr(error, "__notes__", [])])
    except SystemExit as error:
        _leave(error.code, ["terminated", *getattr(error, "__notes__", [])])
    finally:
        signal.signal(signal.SIGTERM, previous)


def start(question: types.ModuleType, *, arguments: Sequence[str] | None = None, cache: bool = True) -> None:
    """`main` for a question that is a folder: its package has `Config`, `run` and, where it draws, `plot`."""
    plot = getattr(question, "plot", None)
    main(question.__file__, question.__doc__, question.Config, question.run, plot, arguments=arguments, cache=cache)


def question_of(file: str) -> str:
    """The name of a question by its file: `experiments/NAME.py`, or a file of the folder `experiments/NAME/`."""
    path = pathlib.Path(file)
    return path.parent.name if path.stem in ("__init__", "__main__") else path.stem


def _parse(program: str, description: str, config_type: type, arguments: Sequence[str] | None, cache: bool) -> Any:
    import tyro

    help_of = {
        "output_dir": "Results go to OUTPUT_DIR/EXPERIMENT/RUN_NAME.",
        "run_name": "The run's name; None: date, time and a short id.",
        "devices": "How many devices; None: all accelerators, or one CPU device for each core.",
        "cache": f"Keep compiled programs on disk, here in {runtime.cache_place()}.",
    }
    fields = {
        "output_dir": (pathlib.Path, pathlib.Path("results")),
        "run_name": (str | None, None),
        "devices": (int | None, None),
        "cache": (bool, cache),
    }
    options = dataclasses.make_dataclass(
        "Options",
        [("config", tyro.conf.OmitArgPrefixes[config_type], config_type())]
        + [
            (name, Annotated[kind, tyro.conf.arg(help=help_of[name])], default)
            for name, (kind, default) in fields.items()
        ],
    )
    return tyro.cli(options, prog=program, description=_help_text(description), args=arguments)


def _help_text(description: str) -> str:
    """An experiment's header as tyro prints it line by line: it joins to the line before what begins with a letter."""
    title, _, rest = description.strip().partition("\n")
    return f"{title}\n\n{textwrap.indent(rest.strip(), ' ')}" if rest.strip() else title


def _terminate(signal_number: int, frame: Any) -> None:
    """SIGTERM, what a cluster sends before it kills: unwinds, so that the run is closed as incomplete."""
    raise SystemExit(128 + signal_number)


def _leave(code: int | str | None, lines: Sequence[str]) -> None:
    print("\n".join(lines), file=sys.stderr)
    raise SystemExit(code) from None
