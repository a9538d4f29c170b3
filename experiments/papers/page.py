"""The page of all papers: one HTML file with every figure in it, for a desk or a phone, by day or by night."""

import base64
import dataclasses
import html
import importlib
import json
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness import reports
from experiments.harness import targets as papers
from experiments.papers.style import PAGE, STYLE


@dataclasses.dataclass(frozen=True)
class Found:
    """One module's finished run, as read from its directory.

    Attributes:
        name: of the module.
        paper: citation, claim, headline, verdicts and contradictions, as `_papers.check` wrote them.
        summary: of the run: rows, notes, tables, seconds.
        figures: title → PNG.
        environment: versions, device, commit and date of this module's run.
        command: what repeats it, with the options that differ from the default.
    """

    name: str
    paper: Mapping[str, Any]
    summary: Mapping[str, Any]
    figures: Mapping[str, bytes]
    environment: Mapping[str, Any]
    command: str

    @property
    def verdict(self) -> str:
        """`28 of 30`, and what the others are."""
        verdicts = list(self.paper["verdicts"].values())
        good = sum(verdict in ("agrees", "holds") for verdict in verdicts)
        others = {"differ": sum(map(papers.bad, verdicts)), papers.NOT_MEASURED: verdicts.count(papers.NOT_MEASURED)}
        rest = [f"{count} {word}" for word, count in others.items() if count]
        return ", ".join([f"{good} of {len(verdicts)} agree", *rest])


def load(directory: pathlib.Path) -> Found:
    """A module's run from its directory."""
    from PIL import Image

    read = lambda name: json.loads((directory / name).read_text(encoding="utf-8"))
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
        command=shlex.join(["python", *arguments(summary["experiment"], read("config.json"))]),
    )


def arguments(name: str, config: Mapping[str, Any]) -> list[str]:
    """What Python is given to run a module with this configuration: `-m experiments.NAME`, and what is not default."""
    default = reports.plain(importlib.import_module(f"experiments.{name}").Config())
    words = ["-m", f"experiments.{name}"]
    for key, value in config.items():
        if value != default.get(key):
            option = key.replace("_", "-")
            values = [] if isinstance(value, bool) else value if isinstance(value, list) else [value]
            words += [f"--no-{option}" if value is False else f"--{option}", *map(str, values)]
    return words


def overview(found: Sequence[Found]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of paper | claim | published | ours | verdict | command | seconds, a line for each paper."""
    lines = []
    for each in found:
        headline = each.paper["headline"]
        named = lambda key, headline=headline: "; ".join(
            f"{line['quantity']}: {line[key]}" for line in headline if line[key]
        )
        seconds = f"{each.summary['seconds']:.0f}"
        cells = [each.paper["citation"], each.paper["claim"], named("published"), named("ours")]
        lines.append([*cells, each.verdict, f"`{each.command}`", seconds])
    return ["paper", "claim", "published", "ours ± s.e.", "verdict", "command", "seconds"], lines


def write(found: Sequence[Found], failed: Sequence[str], environment: Mapping[str, Any], tiny: bool = False) -> str:
    """The page. Nothing in it is fetched: no script, no font, no picture from elsewhere."""
    body = [
        "<header>",
        "<h1>Policy gradient papers, reproduced</h1>",
        "<p><strong>A tiny run: it shows that everything works, and its differences mean nothing.</strong></p>" * tiny,
        f"<p>{_text(_standing(found, failed))}</p>",
        f"<p>{_text(_sources(found))}</p>",
        _facts(environment),
        "</header>",
        '<section id="overview"><h2>In one table</h2>',
        _overview(found),
        "</section>",
        _contradictions(found),
        *(_paper(each, environment) for each in found),
        f"<footer><p>{_text(_legend())}</p></footer>",
    ]
    return PAGE.replace("STYLE", STYLE).replace("BODY", "\n".join(part for part in body if part))


def _standing(found: Sequence[Found], failed: Sequence[str]) -> str:
    verdicts = [verdict for each in found for verdict in each.paper["verdicts"].values()]
    good = sum(verdict in ("agrees", "holds") for verdict in verdicts)
    differing = sum(map(papers.bad, verdicts))
    modules = reports.format_count(len(found), "modules")
    words = f"{good} of {len(verdicts)} numbers and orderings of {modules} come out as stated"
    sources = [entry["provenance"] for each in found for entry in each.paper["contradictions"]]
    expected, own = sources.count(None), sources.count("own")
    published = differing - expected - own
    words += f", {differing} do not ({published} published, {own} of an independent reference, {expected} expected)"
    unmeasured = verdicts.count(papers.NOT_MEASURED)
    words += f", {unmeasured} were not measured at this size." if unmeasured else "."
    return words + (f" Failed, and missing here: {', '.join(failed)}." if failed else "")


def _sources(found: Sequence[Found]) -> str:
    """How many of the numbers are published ones."""
    rows = [row for each in found for row in each.summary["rows"] if row["verdict"] and row["provenance"]]
    count = lambda *sources: sum(row["paper"] is not None and row["provenance"] in sources for row in rows)
    claims = sum(row["paper"] is None and row["provenance"] != "own" for row in rows)
    return (
        f"{count('text', 'code', 'card')} numbers stand in the publications, in their code or in quotations of them, "
        f"{count('mem')} more from memory, and {claims} claims name no number; {count('own')} are references, computed "
        "independently of this code for what a publication only draws. The others are what mathematics demands."
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
    headers, lines = overview(found)
    rows = []
    for each, line in zip(found, lines, strict=True):
        cells = [_text(cell) for cell in line]
        cells[0] = f'<a href="#{each.name}">{cells[0]}</a>'
        for i, key in ((2, "published"), (3, "ours")):
            entries = [(entry["quantity"], entry[key]) for entry in each.paper["headline"] if entry[key]]
            cells[i] = "".join(f"<div><small>{_text(name)}</small> {_text(value)}</div>" for name, value in entries)
        cells[4] = _badge(each)
        cells[5] = _command(each)
        labelled = zip(headers, cells, strict=True)
        rows.append("<tr>" + "".join(f'<td data-label="{name}">{cell}</td>' for name, cell in labelled) + "</tr>")
    return _table(headers, rows, "stacked")


def _contradictions(found: Sequence[Found]) -> str:
    items = [
        f'<li><a href="#{each.name}">{_text(each.name)}</a> ({_source(entry)}): {_text(entry["text"])}</li>'
        for each in found
        for entry in each.paper["contradictions"]
    ]
    if not items:
        return ""
    return f'<section id="differs"><h2>What came out otherwise, and why</h2><ul>{"".join(items)}</ul></section>'


def _source(entry: Mapping[str, Any]) -> str:
    return {"own": "reference", "mem": "unverified", None: "expected"}.get(entry["provenance"], "published")


def _command(each: Found) -> str:
    """The command, which may be broken where a name is."""
    return "<code>" + _text(each.command).replace(".", ".<wbr>").replace("_", "_<wbr>") + "</code>"


def _elsewhere(each: Found, environment: Mapping[str, Any]) -> str:
    """Where a module that an earlier run finished was run, if not as the page says."""
    standing = lambda e: (f"commit {e['commit']}", "with uncommitted changes" * bool(e["uncommitted_changes"]))
    ours, whole = ((*standing(e), reports.format_machine(e)) for e in (each.environment, environment))
    if ours == whole:
        return ""
    return f" Taken over: {', '.join(filter(None, ours))}, {each.environment['date']}."


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
            f"number</summary>{_plain_table(headers, lines)}</details>",
            '<p><a href="#overview">to the table</a></p>',
            "</section>",
        ]
    )


def _plain_table(headers: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    numbers = [name in reports.NUMERIC for name in headers]
    verdicts = [name == "verdict" for name in headers]

    def cell(text: str, name: str, is_number: bool, is_verdict: bool) -> str:
        style = ' class="number"' if is_number else ' class="bad"' if is_verdict and papers.bad(text.strip()) else ""
        return f'<td{style} data-label="{_text(name)}">{_text(text.strip())}</td>'

    rows = ["<tr>" + "".join(map(cell, line, headers, numbers, verdicts)) + "</tr>" for line in lines]
    return _table(headers, rows, "wide")


def _table(headers: Sequence[str], rows: Sequence[str], kind: str) -> str:
    head = "".join(f'<th scope="col">{_text(name)}</th>' for name in headers)
    return (
        f'<div class="scroll"><table class="{kind}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _badge(each: Found) -> str:
    kind = "badge bad" if each.paper["contradictions"] else "badge"
    return f'<span class="{kind}">{_text(each.verdict)}</span>'


def _legend() -> str:
    marks = ", ".join(f"“{name}”: {meaning}" for name, meaning in reports.PROVENANCE.items())
    return (
        f"± is a standard error; that of a published number is what it is judged with. Sources: {marks}. They are "
        "marked (code), (quoted), (unverified) and (reference); a number without a mark was read in the publication."
    )


def _text(text: str) -> str:
    return html.escape(str(text))
