"""What kills, damaged files and generated input led to: the last results of three scripts, as a part of the page."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.gallery import runs
from experiments.harness import reports, saved_files
from pgjax import writing

TITLE = "Nothing lost: kills, damaged files and generated input"


class Script(NamedTuple):
    """A script whose last result the page shows; it writes `results/NAME.json`.

    Attributes:
        reading: what the table says, in sentences.
        headers: those of its table.
        lines: the lines of the table, from the content of the file.
    """

    name: str
    command: str
    reading: str
    headers: Sequence[str]
    lines: Any


def _kills(found: Mapping[str, Any]) -> list[list[str]]:
    keys = ("training", "random", "at phases", "restarts", "complete trainings")
    equal = lambda one: "yes" if one["equal"] else f"no: {', '.join(one['differing'])}"
    return [[*(str(one[key]) for key in keys), equal(one)] for one in found["trainings"]]


def _damaged(found: Mapping[str, Any]) -> list[list[str]]:
    lines = []
    kinds = list(dict.fromkeys(one["kind"] for one in found["results"]))
    for name, members in [*((kind, (kind,)) for kind in kinds), ("all kinds", kinds)]:
        own = [one for one in found["results"] if one["kind"] in members]
        counts = [sum(one["outcome"] == outcome for one in own) for outcome in ("refused", "whole", "other")]
        most = [max(one["report"][key] for one in own) for key in ("seconds", "mebibytes")]
        faults = sum(bool(one["fault"]) for one in own)
        lines.append([name, *map(str, (len(own), *counts, faults)), f"{most[0]:.2f}", f"{most[1]:.0f}"])
    return lines


def _generated(found: Mapping[str, Any]) -> list[list[str]]:
    kinds = [kind for kind in found if kind != "environment"]
    number = lambda kind: [str(found[kind]["count"]), str(len(found[kind]["faults"]))]
    return [[kind, *number(kind), f"{found[kind]['slowest_seconds']:.1f}"] for kind in kinds]


SCRIPTS = (
    Script(
        "soak_kill",
        "python tests/soak_kill.py --kills 50 --output results/soak_kill.json",
        "Two trainings are killed with SIGKILL at random moments, and once at each phase of a save, and resumed each "
        "time. Each restart goes on from the newest state that was saved. At the end parameters, optimiser, baseline, "
        "key and log are compared, bit for bit, with those of a training that nobody interrupted.",
        ("training", "kills at random", "kills at phases", "restarts", "complete trainings", "equal bit for bit"),
        _kills,
    ),
    Script(
        "damaged_files",
        "python tests/damaged_files.py --mutants 2000 --output results/damaged_files.json",
        "Damaged files of every kind that pgjax reads. *Whole* files were loaded with their undamaged content. *Other* "
        "files were loaded with another content that is valid, which a format without a digest cannot tell. A fault "
        "would be another content in a format with a digest, code that ran, a traceback, more than 5 s, or more than "
        "1 GiB.",
        ("kind", "files", "refused", "whole", "other", "faults", "most seconds", "most MiB"),
        _damaged,
    ),
    Script(
        "generated_input",
        "python tests/generated_input.py --out results/generated_input.json",
        "Generated command lines of all experiments, and calls of all public functions with arguments of wrong kinds. "
        "A fault would be a traceback, an exit code that is neither 0 nor 2, a refusal that names neither option nor "
        "value or takes more than 5 s, a file that is left behind, or an error that does not come from a check.",
        ("input", "generated", "faults", "slowest s"),
        _generated,
    ),
)


def copy(results: pathlib.Path, figures: pathlib.Path) -> list[str]:
    """Keep what the page shows of new results, and return the names of their scripts."""
    taken = []
    for script in SCRIPTS:
        source, target = results / f"{script.name}.json", figures / f"{script.name}.json"
        if not source.is_file():
            continue
        found = saved_files.read_object(source)
        kept = {"lines": script.lines(found), **runs.provenance(found["environment"])}
        if not target.is_file() or saved_files.read_object(target)["date"] < kept["date"]:
            writing.replace_file(target, reports.encoded(target.name, kept))
            taken.append(script.name)
    return taken


def section(figures: pathlib.Path) -> list[str]:
    """The paragraphs of the page; none if there is no result."""
    parts = []
    for script in SCRIPTS:
        path = figures / f"{script.name}.json"
        if path.is_file():
            kept = saved_files.read_object(path)
            parts += [script.reading, reports.markdown_table(script.headers, kept["lines"])]
            parts += [f"`{script.command}` · {kept['date'][:10]} · {kept['machine']} · commit {kept['commit']}"]
    return [f"## {TITLE}", *parts] if parts else []
