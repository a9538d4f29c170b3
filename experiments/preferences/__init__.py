"""A person's choices between answers: collect them on a local page or in the terminal, summarise and export them.

Command  python -m experiments.preferences collect --pairs pairs.jsonl
         python -m experiments.preferences collect --pairs pairs.jsonl --terminal
         python -m experiments.preferences inspect results/preferences/labels.jsonl --export labels-for-trl.jsonl
         python -m experiments.preferences agreement results/preferences/labels.jsonl
Shows    `collect` asks which of two answers is better and saves each choice before it asks again; without --pairs it
         makes example pairs. `inspect` counts the labels, shows how far the choices follow the length or the place of
         an answer, and exports them. `agreement` compares a person's answers to repeated pairs, and the answers of
         several persons, and predicts how many labels a reward model needs.
Expect   About 5 to 8 seconds a pair. `python -m experiments.preferences COMMAND --help` lists the options of a command.
Source   Bradley & Terry 1952; Cohen 1960; Ziegler et al. 2019 (Fine-tuning language models from human preferences).
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any

from experiments.harness import command_line, interruption, terminal
from experiments.harness.directories import UsageError

__all__ = ["COMMANDS", "Agreement", "Collect", "Inspect", "main"]

LABELS = pathlib.Path("results/preferences/labels.jsonl")


@dataclasses.dataclass(frozen=True)
class Collect:
    """Ask a person which of two answers is better, on a page that only this computer can open, or in the terminal.

    Every answer is on the disk before the next pair appears. The same command goes on where the last one ended.

    Keys: 1 or ← first, 2 or → second, t equal, b both bad, s skip, u undo.
    """

    pairs: pathlib.Path | None = None
    """The file of pairs: one JSON object a line, with a prompt and a list of two or more answers. Without a file, the
    command makes example pairs from Python's own documentation and writes them beside the labels."""
    labels: pathlib.Path = LABELS
    """The file to which the answers are appended."""
    annotator: str = "person"
    """A name for the person who answers. It stands in every label, so that persons can be compared."""
    terminal: bool = False
    """Ask in this terminal, without a page."""
    port: int = 0
    """The port of the page. 0 takes any free port."""
    open: bool = False
    """Open the page in the default browser."""
    question: str = "Which continuation is better?"
    """The question above each pair."""
    seed: int = 0
    """The seed of the order of the pairs and of the sides on which the answers stand."""
    repeat_share: float = 0.08
    """The share of pairs that are asked again, with exchanged sides, to measure how often the person agrees with
    himself or herself. 0 asks every pair once."""
    limit: int | None = None
    """Ask only this number of different pairs, the first ones in the shuffled order. The repeats of --repeat-share are
    asked in addition."""
    target: float = 0.9
    """The accuracy for which the number of needed labels is predicted: the share of new pairs in which a reward model
    picks the answer that the person would pick without noise."""
    features: int = 16
    """The number of features of that reward model."""


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Summarise files of labels: counts, times, and how far the choices follow the place or the length of an answer."""

    files: tuple[pathlib.Path, ...] = (LABELS,)
    """The files of labels, in any layout that pgjax.preferences reads."""
    export: pathlib.Path | None = None
    """Write the labels to this new file in the layout of TRL: one JSON object a line with prompt, chosen and rejected.
    Ties have no better answer, so they are left out."""


@dataclasses.dataclass(frozen=True)
class Agreement:
    """Compare repeated answers of each person, and the answers of several persons; predict how many labels are needed.

    The prediction simulates fits of the Bradley–Terry model to the choices of a person with this self-agreement.
    """

    files: tuple[pathlib.Path, ...] = (LABELS,)
    """The files of labels, in any layout that pgjax.preferences reads."""
    target: float = 0.9
    """The accuracy for which the number of needed labels is predicted."""
    features: int = 16
    """The number of features of the reward model."""
    figure: pathlib.Path | None = None
    """Draw the predicted accuracy over the number of labels into this PNG file, with its data beside it."""


def collect(asked: Collect) -> None:
    from experiments.preferences import collecting

    collecting.collect(asked)


def inspect(asked: Inspect) -> None:
    from experiments.preferences import summary

    summary.inspect(asked.files, asked.export)


def agreement(asked: Agreement) -> None:
    from experiments.preferences import reliability

    reliability.report(asked.files, asked.target, asked.features, asked.figure)


COMMANDS: dict[str, tuple[type, Callable[[Any], None], str | None]] = {
    "collect": (Collect, collect, None),
    "inspect": (Inspect, inspect, "files"),
    "agreement": (Agreement, agreement, "files"),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line.

    Raises:
        SystemExit: with code 2 and a message of one line, if an option or a file is refused.
    """
    arguments = sys.argv[1:] if arguments is None else list(arguments)
    program = "python -m experiments.preferences"
    with terminal.robust_output():
        if not arguments or arguments[0] not in COMMANDS:
            _explain(program, arguments)
            return
        name = arguments[0]
        kind, run, positional = COMMANDS[name]
        try:
            run(command_line.parse_command(f"{program} {name}", kind, arguments[1:], positional=positional))
        except UsageError as error:
            print(f"{program} {name}: error: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt:
            print("interrupted; everything that was answered is saved", file=sys.stderr)
            raise SystemExit(interruption.EX_TEMPFAIL) from None


def _explain(program: str, arguments: Sequence[str]) -> None:
    """Print the help, or refuse an unknown command."""
    parser = argparse.ArgumentParser(
        prog=program,
        usage=f"%(prog)s [-h] {{{','.join(COMMANDS)}}} ...",
        description=command_line.header(__file__),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _, unknown = parser.parse_known_args(arguments)
    if unknown:
        parser.error(f"{unknown[0]}: must be one of {', '.join(COMMANDS)}")
    parser.error(f"a command is missing: must be one of {', '.join(COMMANDS)}")
