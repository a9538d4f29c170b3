"""The commands about what has been run: `python -m experiments runs` and `python -m experiments compare`."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from experiments.harness import terminal
from experiments.harness.directories import UsageError

Status = Literal["complete", "failed", "interrupted", "running", "killed", "damaged"]


@dataclasses.dataclass(frozen=True)
class List:
    """List the runs that lie under the output directory, newest first."""

    text: tuple[str, ...] = ()
    """Only runs in whose name, experiment, status or headline each of these words occurs."""
    output_dir: pathlib.Path = pathlib.Path("results")
    """Where the runs lie, as OUTPUT_DIR/EXPERIMENT/RUN_NAME."""
    experiment: str | None = None
    """Only runs of this experiment."""
    status: Status | None = None
    """Only runs that ended so; running and killed ones have not ended, damaged ones lack a file."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Show two or more runs side by side: numbers, options and learning curves."""

    runs: tuple[str, ...] = ()
    """The runs: paths, EXPERIMENT/NAME, or NAME, which may be cut short where it stays clear."""
    output_dir: pathlib.Path = pathlib.Path("results")
    """Where the runs lie; the figure is written there."""
    metrics: tuple[str, ...] = ()
    """Draw only the curves in whose name one of these words occurs; the first six if there are none."""
    figures: tuple[Literal["pdf", "svg"], ...] = ()
    """Draw the figure for a paper too, in these formats."""
    figure_width: Literal["single", "double"] = "single"
    """The width of the figure for a paper: single is one column, 3.25 inches; double is two, 6.75 inches."""


def list_runs(arguments: Sequence[str]) -> None:
    """`python -m experiments runs`."""
    from experiments.harness import runs

    asked = _parse("runs", List, arguments)
    found = runs.chosen(runs.find(asked.output_dir), asked.experiment, asked.status, asked.text)
    runs.show(found, asked.output_dir)


def compare_runs(arguments: Sequence[str]) -> None:
    """`python -m experiments compare`."""
    from experiments.harness import comparing, figures, runs

    asked = _parse("compare", Compare, arguments)
    if len(asked.runs) < 2:
        raise UsageError(f"compare takes two runs or more, got {len(asked.runs)}")
    found = runs.find(asked.output_dir) if asked.output_dir.is_dir() else []
    chosen = [runs.named(found, name) for name in asked.runs]
    paper = figures.Paper(formats=asked.figures, width=asked.figure_width)
    comparing.compare(chosen, asked.output_dir, paper, asked.metrics)


COMMANDS = {"runs": list_runs, "compare": compare_runs}


def main(command: str, arguments: Sequence[str]) -> None:
    """Runs one of `COMMANDS`.

    Raises:
        SystemExit: with code 2 and one line, where what was asked for is refused.
    """
    with terminal.robust_output():
        try:
            COMMANDS[command](arguments)
        except UsageError as error:
            print(f"python -m experiments {command}: error: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None


def _parse(command: str, kind: type, arguments: Sequence[str]):
    import tyro

    first = dataclasses.fields(kind)[0].name
    hints = {first: Annotated[tuple[str, ...], tyro.conf.Positional]}
    made = {"__annotations__": hints, "__doc__": kind.__doc__, "__module__": kind.__module__}
    asked = type(kind.__name__, (kind,), made)
    with terminal.help_width():
        return tyro.cli(asked, prog=f"python -m experiments {command}", description=kind.__doc__, args=arguments)
