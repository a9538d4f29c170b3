"""The page of all papers: one HTML file with every figure in it, for a desk or a phone, by day or by night."""

import base64
import dataclasses
import html
import importlib
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness import reports, saved_files, verdicts
from experiments.harness.verdicts import Verdict
from experiments.papers.style import PAGE, STYLE


@dataclasses.dataclass(frozen=True)
class Found:
    """One module's finished run, as read from its directory.

    Attributes:
        name: the name of the module.
        paper: citation, claim, headline, verdicts and contradictions, as `targets.check` wrote them.
        summary: the rows, notes, tables and seconds of the run.
        figures: title → PNG.
        environment: versions, device, commit and date of this module's run.
        command: the command that repeats the run, with the options that differ from the default.
    """

    name: str
    paper: Mapping[str, Any]
    summary: Mapping[str, Any]
    figures: Mapping[str, bytes]
    environment: Mapping[str, Any]
    command: str

    @property
    def verdicts(self) -> list[str]:
        """The verdict of every target that the run was asked for."""
        return list(self.paper["verdicts"].values())


def load(directory: pathlib.Path) -> Found:
    """Read a module's run from its directory."""
    from PIL import Image

    read = lambda name: saved_files.read_object(directory / name)
    summary = read("summary.json")
    figures = {}
    for path in sorted(directory.glob("*.png")):
        with Image.open(path) as image:
            figures[image.info.get("Title") or path.stem] = path.read_bytes()
    return Found(
        name=summary["experiment"],
        paper=read("paper.json"),
        summary=summary,
        figures=figures,
        environment=read("environment.json"),
        command=shlex.join(
            ["python", *arguments(summary["experiment"], read("config.json"), tiny=summary.get("tiny", False))]
        ),
    )


def arguments(name: str, config: Mapping[str, Any], *, tiny: bool = False) -> list[str]:
    """Return Python's arguments that run a module with this configuration: `-m experiments.NAME` and the options.

    Args:
        tiny: whether the run is a tiny one; then `--tiny` and the options that differ from the tiny size are given.
    """
    module = importlib.import_module(f"experiments.{name}")
    default = reports.plain(module.TINY if tiny else module.Config())
    words = ["-m", f"experiments.{name}", *["--tiny"] * tiny]
    for key, value in config.items():
        if value != default.get(key):
            option = key.replace("_", "-")
            values = [] if isinstance(value, bool) else value if isinstance(value, list) else [value]
            words += [f"--no-{option}" if value is False else f"--{option}", *map(str, values)]
    return words


def standings(found: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    """Return headers and cells of paper | claim | verdicts | command | seconds, a line for each paper."""
    lines = [
        [
            each.paper["citation"],
            each.paper["claim"],
            verdicts.tally(each.verdicts),
            f"`{each.command}`",
            f"{each.summary['seconds']:.0f}",
        ]
        for each in found
    ]
    return ["paper", "claim", "verdicts", "command", "seconds"], lines


def headlines(found: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    """Return headers and cells of module | number or claim | published | ours | verdict, the best-known numbers."""
    lines = [
        [each.name, *(line[key] for key in ("quantity", "published", "ours", "verdict"))]
        for each in found
        for line in each.paper["headline"]
    ]
    return ["module", "number or claim", "published", "ours ± s.e.", "verdict"], lines


def write(found: Sequence[Found], failed: Sequence[str], environment: Mapping[str, Any], tiny: bool = False) -> str:
    """Return the page as HTML; it fetches no script, no font and no picture."""
    body = [
        "<header>",
        "<h1>Policy gradient papers, reproduced</h1>",
        f"<p><strong>{_text(verdicts.TINY_NOTICE)}</strong></p>" * tiny,
        f"<p>{_text(_standing(found, failed))}</p>",
        f"<p>{_text(_sources(found))}</p>",
        _facts(environment),
        "</header>",
        '<section id="overview"><h2>Paper by paper</h2>',
        _overview(found),
        "</section>",
        '<section id="headlines"><h2>The best-known numbers and claims</h2>',
        _headlines(found),
        "</section>",
        _contradictions(found),
        *(_paper(each, environment) for each in found),
        f"<footer><p>{_text(_legend())}</p><ul>{_words(found)}</ul></footer>",
    ]
    return PAGE.replace("STYLE", STYLE).replace("BODY", "\n".join(part for part in body if part))


def _standing(found: Sequence[Found], failed: Sequence[str]) -> str:
    every = [verdict for each in found for verdict in each.verdicts]
    modules = reports.format_count(len(found), "modules")
    words = f"{len(every)} numbers and claims of {modules}: {verdicts.tally(every)}."
    wrong = sum(verdicts.word_of(verdict) == Verdict.WRONG for verdict in every)
    differing = sum(verdicts.word_of(verdict) == Verdict.DIFFERS for verdict in every)
    words += f" Red marks the published numbers and claims that do not come out ({differing})"
    words += f" and those numbers of ours that are not the exact value ({wrong}); all else is green or grey."
    return words + (f" These modules failed and are missing here: {', '.join(failed)}." if failed else "")


def _sources(found: Sequence[Found]) -> str:
    """Say how many of the numbers are published."""
    rows = [row for each in found for row in each.summary["rows"] if row["verdict"] and row["provenance"]]
    count = lambda *sources: sum(row["paper"] is not None and row["provenance"] in sources for row in rows)
    claims = sum(row["paper"] is None and row["provenance"] != "own" for row in rows)
    return (
        f"Numbers from a publication, from its code or from a quotation of it: {count(*verdicts.PUBLISHED)}. "
        f"Remembered numbers: {count('mem')}. Claims without a number: {claims}. References, which were computed "
        f"independently of this code for what a publication only draws: {count('own')}. The others are mathematics."
    )


def _facts(environment: Mapping[str, Any]) -> str:
    commit = environment["commit"] or "not from a git checkout"
    changed = ", with uncommitted changes" if environment["uncommitted_changes"] else ""
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    facts = {
        "commit": commit + changed,
        "device": reports.format_machine(environment),
        "versions": f"Python {environment['python']}, {versions}",
        "date": environment["date"],
        "command": environment["command"],
    }
    lines = "".join(f"<dt>{name}</dt><dd>{_text(fact)}</dd>" for name, fact in facts.items())
    return f"<dl>{lines}</dl>"


def _overview(found: Sequence[Found]) -> str:
    headers, lines = standings(found)
    rows = []
    for each, line in zip(found, lines, strict=True):
        citation, claim, _, _, seconds = map(_text, line)
        cells = [f'<a href="#{each.name}">{citation}</a>', claim, _badge(each), _command(each), seconds]
        labelled = zip(headers, cells, strict=True)
        rows.append("<tr>" + "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in labelled) + "</tr>")
    return _table(headers, rows, "stacked")


def _headlines(found: Sequence[Found]) -> str:
    headers, lines = headlines(found)
    return _plain_table(headers, lines, [line["provenance"] for each in found for line in each.paper["headline"]])


def _contradictions(found: Sequence[Found]) -> str:
    """List what is red, with its reason, and below it in grey what was never published and is not as expected."""
    items = {True: [], False: []}
    for each in found:
        for entry in each.paper["contradictions"]:
            link = f'<a href="#{each.name}">{_text(each.name)}</a>'
            red = verdicts.colour_of(entry["verdict"]) == "bad"
            items[red].append(f"<li>{link} ({_source(entry)}): {_text(entry['text'])}</li>")
    parts = {
        "differs": ("Where a publication differs from ours, and where our number is wrong", items[True]),
        "unexpected": ("What was never published and is not as expected", items[False]),
    }
    return "\n".join(
        f'<section id="{name}"><h2>{title}</h2><ul>{"".join(lines)}</ul></section>'
        for name, (title, lines) in parts.items()
        if lines
    )


def _source(entry: Mapping[str, Any]) -> str:
    return {"own": "reference", "mem": "unverified", None: "expected"}.get(entry["provenance"], "published")


def _command(each: Found) -> str:
    """Return the command, which may break at dots and underscores."""
    return "<code>" + _text(each.command).replace(".", ".<wbr>").replace("_", "_<wbr>") + "</code>"


def _elsewhere(each: Found, environment: Mapping[str, Any]) -> str:
    """Say where an earlier run made this module's numbers, if that differs from what the page says of all."""
    # A module's own process has one of the devices, so their number says nothing.
    place = lambda e: [e[key] for key in ("commit", "uncommitted_changes", "device_kind", "threads", "versions")]
    if place(each.environment) == place(environment):
        return ""
    changed = "with uncommitted changes" * bool(each.environment["uncommitted_changes"])
    machine = reports.format_machine(each.environment)
    facts = [f"commit {each.environment['commit']}", changed, machine, each.environment["date"]]
    return f" From an earlier run: {', '.join(filter(None, facts))}."


def _paper(each: Found, environment: Mapping[str, Any]) -> str:
    figures = "".join(
        f'<figure class="scroll"><img alt="{_text(title)}" '
        f'src="data:image/png;base64,{base64.b64encode(image).decode()}"></figure>'
        for title, image in each.figures.items()
    )
    notes = "".join(f"<li>{_text(note)}</li>" for note in each.summary["notes"])
    tables = "".join(
        f"<h3>{_text(made['title'])}</h3>" + _plain_table(made["headers"], made["lines"])
        for made in each.summary["tables"]
    )
    headers, lines = reports.table(each.summary["rows"])
    sources = [row["provenance"] for row in each.summary["rows"]]
    took = reports.format_duration(each.summary["seconds"])
    return "\n".join(
        [
            f'<section class="paper" id="{each.name}">',
            f"<h2>{_text(each.paper['citation'])}</h2>",
            f"<p>{_text(each.paper['claim'])}</p>",
            f"<p>{_badge(each)} {_command(each)}, {took}.{_text(_elsewhere(each, environment))}</p>",
            figures,
            tables,
            f"<ul>{notes}</ul>" if notes else "",
            f"<details{' open' * (len(lines) <= 30)}><summary>{reports.format_count(len(lines), 'rows')}, number by "
            f"number</summary>{_plain_table(headers, lines, sources)}</details>",
            '<p><a href="#overview">Back to the table of all papers</a></p>',
            "</section>",
        ]
    )


def _plain_table(headers: Sequence[str], lines: Sequence[Sequence[str]], sources: Sequence[str | None] = ()) -> str:
    """Return a table with verdicts in their colours; a line whose source is a reference is grey."""

    def cell(text: str, name: str) -> str:
        text = text.strip()
        kind = "number" if name in reports.NUMERIC else ""
        if name in ("verdict", "against exact") and text:
            kind = verdicts.colour_of(text)
        return f'<td{f" class={kind!r}" * bool(kind)} data-label="{_text(name)}">{_text(text)}</td>'

    rows = []
    for number, line in enumerate(lines):
        grey = ' class="reference"' if number < len(sources) and sources[number] == "own" else ""
        rows.append(f"<tr{grey}>" + "".join(map(cell, line, headers)) + "</tr>")
    return _table(headers, rows, "wide")


def _table(headers: Sequence[str], rows: Sequence[str], kind: str) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in headers)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _badge(each: Found) -> str:
    kind = verdicts.colour_of_all(each.verdicts)
    return f'<span class="badge {kind}">{_text(verdicts.tally(each.verdicts))}</span>'


def _legend() -> str:
    marks = " ".join(f"“{name}”: {meaning}" for name, meaning in reports.PROVENANCE.items())
    return (
        "± is one standard error; for a published number it is the error by which it is judged. A mark, (code), "
        "(quoted), (unverified) or (reference), names the source of a number; a number without a mark was read in the "
        f"publication. The sources are these. {marks}"
    )


def _words(found: Sequence[Found]) -> str:
    used = {verdicts.word_of(verdict) for each in found for verdict in each.verdicts}
    words = [verdict for verdict in Verdict if verdict in used]
    return "".join(f'<li><span class="{word.colour}">{word}</span>: {_text(word.meaning)}</li>' for word in words)


def _text(text: str) -> str:
    return html.escape(str(text))
