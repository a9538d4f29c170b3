"""The commands that show finished runs: `python -m experiments runs` and `python -m experiments compare`."""

import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from experiments.harness import command_line, terminal
from experiments.harness.directories import UsageError
from experiments.harness.figures import Format, Width
from experiments.harness.runs import Status


@dataclasses.dataclass(frozen=True)
class List:
    """List the runs in the output directory, newest first."""

    text: tuple[str, ...] = ()
    """Words that a run must contain in its name, experiment, status or headline to be listed."""
    output_dir: pathlib.Path = pathlib.Path("results")
    """The folder that holds the runs, as OUTPUT_DIR/EXPERIMENT/RUN_NAME."""
    experiment: str | None = None
    """List only the runs of this experiment."""
    status: Status | None = None
    """List only the runs with this status. Running and killed runs have not ended; damaged runs lack a file."""


@dataclasses.dataclass(frozen=True)
class Compare:
    """Show two or more runs side by side: numbers, options and learning curves."""

    runs: tuple[str, ...] = ()
    """Two or more runs, each as a path, as EXPERIMENT/NAME or as NAME. The first letters of a name are enough if no
    other run begins with them."""
    output_dir: pathlib.Path = pathlib.Path("results")
    """The folder that holds the runs. The figure is written there too."""
    metrics: tuple[str, ...] = ()
    """Draw only the curves whose name contains one of these words. Without words the first six curves are drawn."""
    figures: tuple[Format, ...] = ()
    """Also draw the figure for a paper, in one or both of these formats."""
    figure_width: Width = "single"
    """The width of the figure for a paper: single is one column (3.25 inches), double two columns (6.75 inches)."""


def list_runs(arguments: Sequence[str]) -> None:
    """`python -m experiments runs`."""
    from experiments.harness import runs

    asked = command_line.parse_command("python -m experiments runs", List, arguments, positional="text")
    found = runs.chosen(runs.find(asked.output_dir), asked.experiment, asked.status, asked.text)
    runs.show(found, asked.output_dir)


def compare_runs(arguments: Sequence[str]) -> None:
    """`python -m experiments compare`."""
    from experiments.harness import comparing, figures, runs

    asked = command_line.parse_command("python -m experiments compare", Compare, arguments, positional="runs")
    if len(asked.runs) < 2:
        raise UsageError(f"compare needs two runs or more, got {len(asked.runs)}")
    found = runs.find(asked.output_dir) if asked.output_dir.is_dir() else []
    chosen = [runs.named(found, name) for name in asked.runs]
    paper = figures.Paper(formats=asked.figures, width=asked.figure_width)
    comparing.compare(chosen, asked.output_dir, paper, asked.metrics)


COMMANDS = {"runs": list_runs, "compare": compare_runs}


def main(command: str, arguments: Sequence[str]) -> None:
    """Run one of `COMMANDS`.

    Raises:
        SystemExit: with code 2 and a message of one line, if an option is refused.
    """
    with terminal.robust_output():
        try:
            COMMANDS[command](arguments)
        except UsageError as error:
            print(f"python -m experiments {command}: error: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None
