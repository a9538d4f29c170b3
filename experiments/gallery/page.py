"""The page itself: Markdown from the files in `experiments/figures/` and the headers of the experiments."""

import ast
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.gallery import reliability
from experiments.gallery.records import Group, Record, Section
from experiments.gallery.runs import read
from experiments.harness import reports

INTRODUCTION = """\
# Results

`python -m experiments.gallery` writes this page from the files that runs leave in `results/`. Do not edit it by hand:
the numbers are in [figures/](figures/), one JSON file for each run, and the words are in
[gallery/sections.py](gallery/sections.py) and in the header of each experiment.

A number behind ± is one standard error. Times include compilation, and other work on the machine lengthens them. Under
each table stand the command, the time, the date, the machine and the commit of its run. No GPU was at hand."""


def write(groups: Sequence[Group], experiments: pathlib.Path) -> str:
    """The whole page; `experiments` is the folder that holds the questions and `figures/`."""
    shown = [(group, [section for section in group.sections if _known(section, experiments)]) for group in groups]
    parts = [INTRODUCTION, _contents(shown, experiments)]
    for group, sections in shown:
        if sections:
            parts += [f"## {group.title}", *(_section(section, experiments) for section in sections)]
    return "\n\n".join([*parts, *reliability.section(experiments / "figures")]) + "\n"


def header_of(question: str, experiments: pathlib.Path) -> tuple[str, str]:
    """Title and claim of an experiment, read from its docstring without importing it."""
    folder = experiments / question / "__init__.py"
    path = folder if folder.is_file() else experiments / f"{question}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    claim = re.search(r"^Claim\s+(.*?)(?=^\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    return docstring.partition("\n")[0], " ".join(claim.group(1).split()) if claim else ""


def _known(section: Section, experiments: pathlib.Path) -> list[Record]:
    return [record for record in section.records if (experiments / "figures" / f"{record.name}.json").is_file()]


def _data(record: Record, experiments: pathlib.Path) -> Mapping[str, Any]:
    return read(experiments / "figures" / f"{record.name}.json")


def _contents(shown: Sequence[tuple[Group, Sequence[Section]]], experiments: pathlib.Path) -> str:
    lines = []
    for _, sections in shown:
        for section in sections:
            title, _ = header_of(section.question, experiments)
            seconds = sum(_data(record, experiments)["seconds"] for record in _known(section, experiments))
            name = f"[{section.question}](#{section.question})"
            lines.append([name, title.rstrip("."), reports.format_duration(seconds)])
    return reports.markdown_table(["question", "what it shows", "time"], lines)


def _section(section: Section, experiments: pathlib.Path) -> str:
    title, claim = header_of(section.question, experiments)
    parts = [f'### <a name="{section.question}"></a>{title}']
    parts += [f"**Claim.** {claim}"] if claim else []
    parts += [section.reading]
    for record in _known(section, experiments):
        parts += _record(record, experiments)
    return "\n\n".join(parts)


def _record(record: Record, experiments: pathlib.Path) -> list[str]:
    data = _data(record, experiments)
    parts = []
    for made in data["tables"]:
        parts += [made["title"]] if made["title"] else []
        parts += [reports.markdown_table(made["headers"], made["lines"])]
    parts += [f"![{title}](figures/{name}.png)" for name, title in data["figures"].items()]
    notes = "\n".join(f"- {note}" for note in data["notes"])
    parts += [notes] if notes else []
    took = reports.format_duration(data["seconds"])
    return [*parts, f"`{data['command']}` · {took} · {data['date'][:10]} · {data['machine']} · commit {data['commit']}"]
