"""From a run's directory to the small file that the page is made of."""

import collections
import importlib
import json
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.gallery.records import Record
from experiments.harness import reports, saved_files
from pgjax import writing

# What a paper's module says of each of its best-known numbers → the header of its column.
HEADLINE = {"quantity": "number or claim", "published": "published", "ours": "ours ± s.e.", "verdict": "verdict"}


def latest(record: Record, results: pathlib.Path) -> pathlib.Path | None:
    """The directory of the latest run in `results` that is complete and has the record's options; None without one."""
    places = [
        *results.glob(f"{record.question}/*/summary.json"),
        *results.glob(f"papers/*/{record.question}/*/summary.json"),
    ]
    fitting = [path.parent for path in places if _fits(record, path.parent)]
    return max(fitting, key=_date, default=None)


def copy(record: Record, directory: pathlib.Path, figures: pathlib.Path) -> bool:
    """Writes `figures/NAME.json` and the figures of the run in `directory`; False if they are those of a later run."""
    path = figures / f"{record.name}.json"
    if path.is_file() and read(path)["date"] >= _date(directory):
        return False
    figures.mkdir(parents=True, exist_ok=True)
    for shown, made in _figures(record, directory).items():
        shutil.copyfile(made, figures / f"{shown}.png")
    for shown, made in _animations(record, directory).items():
        save_frame(made, figures / f"{shown}.png")
    text = json.dumps(data_of(record, directory), indent=1, ensure_ascii=False)
    writing.replace_file(path, text + "\n")
    return True


def data_of(record: Record, directory: pathlib.Path) -> dict[str, Any]:
    """What the page needs to know of a run: command, date, machine, commit, seconds, tables, figures and notes."""
    summary, environment = read(directory / "summary.json"), read(directory / "environment.json")
    return {
        "command": record.command,
        **provenance(environment),
        "seconds": summary["seconds"],
        "tables": [_stripped(made) for made in _tables(directory, summary)],
        "figures": {
            name: title_of(path) or name.replace("_", " ") for name, path in _figures(record, directory).items()
        }
        | dict.fromkeys(_animations(record, directory), "One moment of an episode of the best policy"),
        "notes": summary["notes"],
    }


def provenance(environment: Mapping[str, Any]) -> dict[str, str]:
    """Date, machine and commit of a run, from what `reports.environment` gave."""
    commit = (environment["commit"] or "unknown")[:7] + ", changed" * bool(environment["uncommitted_changes"])
    return {"date": environment["date"], "machine": reports.format_machine(environment), "commit": commit}


def title_of(figure: pathlib.Path) -> str:
    """What the figure shows, in a sentence: the title that the recorder wrote into the file; empty without one."""
    from PIL import Image

    with Image.open(figure) as image:
        return image.info.get("Title", "")


def _figures(record: Record, directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name on the page → file of the run, of the figures that the run made."""
    made = {shown: directory / f"{name}.png" for shown, name in record.figures.items()}
    return {shown: path for shown, path in made.items() if path.is_file()}


def save_frame(animation: pathlib.Path, path: pathlib.Path) -> None:
    """Writes the frame in the middle of an animation; the whole animation would be too large for the page."""
    from PIL import Image

    with Image.open(animation) as image:
        image.seek(getattr(image, "n_frames", 1) // 2)
        image.convert("RGB").save(path)


def _animations(record: Record, directory: pathlib.Path) -> dict[str, pathlib.Path]:
    """Name on the page → file of the run, of the animations that the run made."""
    made = {shown: directory / f"{name}.gif" for shown, name in record.frames.items()}
    return {shown: path for shown, path in made.items() if path.is_file()}


def read(path: pathlib.Path) -> dict[str, Any]:
    """The object in a file; raises ValueError, which names the file, if there is none."""
    return saved_files.read_object(path)


def _date(directory: pathlib.Path) -> str:
    path = directory / "environment.json"
    return saved_files.entries(read(path), path, date=str)[0]


def _fits(record: Record, directory: pathlib.Path) -> bool:
    """Whether the run came to its end with the default options and those of the record: no tiny or odd run."""
    try:
        summary, used = read(directory / "summary.json"), read(directory / "config.json")
        _date(directory)
        data_of(record, directory)
    except (ValueError, LookupError, TypeError, AttributeError, OSError):  # A killed run may leave half a file.
        return False
    if summary.get("status") != "complete" or summary.get("tiny") or used.get("tiny"):
        return False
    default = reports.plain(importlib.import_module(f"experiments.{record.question}").Config())
    wanted = default | reports.plain(record.options)
    # A run that is older than an option was made as the option's default makes it.
    return all((default | used).get(name) == value for name, value in wanted.items())


def _tables(directory: pathlib.Path, summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A paper's headline numbers; else the run's own tables; else its rows."""
    paper = directory / "paper.json"
    headline = read(paper).get("headline") if paper.is_file() else None
    if headline:
        lines = [[line[key] or "" for key in HEADLINE] for line in headline]
        return [{"title": _verdicts(summary["rows"]), "headers": list(HEADLINE.values()), "lines": lines}]
    if summary["tables"]:
        return summary["tables"]
    headers, lines = reports.table(summary["rows"])
    return [{"title": "", "headers": headers, "lines": lines}] if lines else []


def _verdicts(rows: Sequence[reports.Row]) -> str:
    """`Verdicts of all 38 rows: 36 agrees, 2 differs. The best-known numbers:`"""
    counts = collections.Counter(row["verdict"] for row in rows if row["verdict"])
    words = ", ".join(f"{count} “{verdict}”" for verdict, count in counts.most_common())
    return f"Verdicts of all {counts.total()} numbers and orderings: {words}. The best-known of them:"


def _stripped(made: Mapping[str, Any]) -> dict[str, Any]:
    """The table without the spaces that align its cells in a terminal."""
    lines = [[cell.strip() for cell in line] for line in made["lines"]]
    return {"title": made["title"], "headers": made["headers"], "lines": lines}
