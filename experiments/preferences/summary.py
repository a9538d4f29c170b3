"""`inspect`: what files of labels contain, and the labels in the layout that TRL reads."""

import pathlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from experiments.harness import terminal
from experiments.harness.directories import UsageError
from experiments.harness.reports import format_duration
from experiments.preferences import labels
from experiments.preferences.agreement import wilson
from pgjax.preferences import Preference, records

Table = tuple[list[str], list[list[str]]]


def read_all(files: Sequence[pathlib.Path]) -> list[Preference]:
    """The records of several files, one after the other.

    Raises:
        UsageError: a file cannot be read, or there is no label in any of them.
    """
    found = [record for path in files for record in labels.read(path)[0]]
    if not found:
        raise UsageError(f"{', '.join(map(str, files))}: no labels; `collect` makes some")
    return found


def inspect(files: Sequence[pathlib.Path], export: pathlib.Path | None) -> None:
    """Print the summary, and write the export if there is a place for it."""
    found = read_all(files)
    if export is not None and any(export.resolve() == path.resolve() for path in files):
        raise UsageError(f"--export {export}: must be another file than the labels themselves")
    console = terminal.make_console()
    headers, cells = counts(found)
    terminal.show_table(console, "Labels", headers, cells, right=headers[1:])
    headers, cells = tendencies(found)
    terminal.show_table(
        console, "Tendencies (share of the choices with its 95 % interval)", headers, cells, right=["n"]
    )
    headers, cells = wins(found)
    if cells:
        terminal.show_table(console, "Choices by policy", headers, cells, right=headers[1:])
    if export is not None:
        with labels.refused():
            export.parent.mkdir(parents=True, exist_ok=True)
            written = strict(found)
            records.write(export, written)
        ties = len(found) - len(written)
        console.print(f"{len(written)} labels written to {export}; {ties} ties are left out", markup=False)


def strict(found: Iterable[Preference]) -> list[Preference]:
    """Prompt, chosen and rejected of every label that prefers one answer."""
    return [
        Preference(prompt=record.prompt, chosen=record.chosen, rejected=record.rejected)
        for record in found
        if record.tie is None
    ]


def counts(found: Sequence[Preference]) -> Table:
    """The numbers of labels of each annotator, and the seconds that a label took."""
    headers = ["annotator", "labels", "pairs", "choices", "equal", "both bad", "seconds a label", "time in all"]
    groups: dict[str, list[Preference]] = defaultdict(list)
    for record in found:
        groups[record.annotator or "(no name)"].append(record)
    cells = []
    for name, records_of in groups.items():
        ties = Counter(record.tie for record in records_of)
        seconds = np.array([record.time_s for record in records_of if record.time_s is not None])
        took = (
            "" if not seconds.size else "{1:.1f} ({0:.1f} to {2:.1f})".format(*np.quantile(seconds, [0.25, 0.5, 0.75]))
        )
        whole = "" if not seconds.size else format_duration(float(seconds.sum()))
        pairs_of = len({labels.name_of(record) for record in records_of})
        numbers = [len(records_of), pairs_of, ties[None], ties["equal"], ties["both_bad"]]
        cells.append([name, *map(str, numbers), took, whole])
    return headers, cells


def tendencies(found: Sequence[Preference]) -> Table:
    """How often the choices went to the answer that was shown first, and to the longer one.

    The places are random, so a share whose interval excludes one half shows a habit. A taste for length may be the
    person's true preference; a reward model will learn it in any case.
    """
    strict_ones = [record for record in found if record.tie is None]
    placed = [record for record in strict_ones if record.extra.get("shown_first") in ("chosen", "rejected")]
    unequal = [record for record in strict_ones if len(record.chosen) != len(record.rejected)]
    kinds: list[tuple[str, list[Preference], Callable[[Preference], bool]]] = [
        ("the answer that is shown first", placed, lambda record: record.extra["shown_first"] == "chosen"),
        ("the longer answer", unequal, lambda record: len(record.chosen) > len(record.rejected)),
    ]
    cells = []
    for name, considered, hit in kinds:
        if considered:
            share = wilson(sum(map(hit, considered)), len(considered))
            habit = "differs from one half" if not share.low <= 0.5 <= share.high else "one half is possible"
            text = f"{share.value:.0%} ({share.low:.0%} to {share.high:.0%})"
            cells.append([name, text, str(len(considered)), habit])
    return ["chosen is", "share", "n", "finding"], cells


def wins(found: Sequence[Preference]) -> Table:
    """For each policy, the share of its comparisons with other policies that it won; a tie counts one half."""
    points: dict[str, list[float]] = defaultdict(list)
    for record in found:
        chosen, rejected = labels.policies(record)
        if chosen is not None and rejected is not None and chosen != rejected:
            points[chosen].append(0.5 if record.tie else 1.0)
            points[rejected].append(0.5 if record.tie else 0.0)
    ordered = sorted(points.items(), key=lambda item: -float(np.mean(item[1])))
    cells = [[name, str(len(won)), f"{np.mean(won):.0%}"] for name, won in ordered]
    return ["policy", "comparisons", "won"], cells
