"""Runs side by side: tables that mark differences, the options that differ, and the learning curves in one figure."""

import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.harness import figures, paper_layout, reports, runs, saved_files, terminal
from experiments.harness.directories import LONGEST_NAME
from experiments.harness.runs import Run

ERRORS = 3.0  # a difference of more standard errors is marked
MARK = " *"
EXACT = 1e-9  # the largest distance of equal numbers without an error, relative to numbers above 1
TIMES = (
    "steps",
    "episodes",
    "update",
    "updates",
    "step",
    "elapsed_seconds",
)  # the names of counters that grow from the start of a run
MOST_PANELS = 6


class Curve(NamedTuple):
    """A curve of one run: the name of its counter, the counter `x [N]`, and `values [S, N]` of S seeds."""

    clock: str
    x: np.ndarray
    values: np.ndarray


def compare(chosen: Sequence[Run], output_dir: pathlib.Path, paper: figures.Paper, metrics: Sequence[str] = ()) -> None:
    """Print the differences between the runs, draw their curves, and print the path of the figure."""
    console, names = terminal.make_console(), short_names(chosen)
    for name, run in zip(names, chosen, strict=True):
        tiny = " (a tiny run)" if run.summary.get("tiny") else ""
        console.print(f"{name}: {run.directory}, {run.status}{tiny}", markup=False)
    console.print()
    headers, cells = result_table(chosen, names)
    if cells:
        terminal.show_table(console, "Results", headers, cells, right=headers[2:])
        console.print(
            f"* differs by more than {ERRORS:g} standard errors, or is not equal although both numbers are exact\n"
        )
    headers, cells = option_table(chosen, names)
    if cells:
        terminal.show_table(console, "Options and facts about the machines that differ", headers, cells, right=())
    else:
        console.print("The runs have the same options and ran on the same kind of machine.")
    path, left_out = draw(chosen, names, output_dir, paper, metrics)
    if path is None:
        wanted = " with that name" if metrics else ""
        console.print(f"The runs have no learning curve{wanted} in common.", markup=False)
    else:
        console.print(f"curves: {path}", markup=False)
    if left_out:
        console.print(f"These curves are drawn only if --metrics names them: {'; '.join(left_out)}", markup=False)


def short_names(chosen: Sequence[Run]) -> list[str]:
    """The names of the runs, with the experiment or the whole path if the names alone are not different."""
    for name in (lambda run: run.name, lambda run: f"{run.experiment}/{run.name}", lambda run: str(run.directory)):
        names = [name(run) for run in chosen]
        if len(set(names)) == len(names):
            return names
    return [f"{name} ({number})" for number, name in enumerate(names, start=1)]


def result_table(chosen: Sequence[Run], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """*quantity | variant | A | B | B − A | …*: the number of every run and its difference from the first run."""
    tables = [_keyed(runs.rows(run.summary)) for run in chosen]
    keys = list(dict.fromkeys(key for table in tables for key in table))
    headers = ["quantity", "variant", names[0]]
    for name in names[1:]:
        headers += [name, f"{name} − {names[0]}"]
    cells = []
    for key in keys:
        first, *others = (table.get(key) for table in tables)
        line = [key[0], key[1] or "", _number(first)]
        for other in others:
            line += [_number(other), difference(first, other)]
        cells.append(line)
    return headers, cells


def _keyed(rows: Sequence[reports.Row]) -> dict[tuple[str, str | None, int], reports.Row]:
    """(quantity, variant, number of earlier rows with the same name) → row."""
    keyed: dict[tuple[str, str | None, int], reports.Row] = {}
    for row in rows:
        key = (row["quantity"], row["variant"])
        keyed[(*key, sum(other[:2] == key for other in keyed))] = row
    return keyed


def _number(row: reports.Row | None) -> str:
    return "" if row is None else reports.format_number(row["ours"], row["stderr"])


def difference(first: reports.Row | None, other: reports.Row | None) -> str:
    """`other` − `first` with the error of independent numbers, and a mark if it exceeds `ERRORS` standard errors."""
    if first is None or other is None or first["ours"] is None or other["ours"] is None:
        return ""
    gap, stderr = other["ours"] - first["ours"], math.hypot(first["stderr"] or 0.0, other["stderr"] or 0.0)
    slack = ERRORS * stderr if stderr > 0 else EXACT * max(1.0, abs(first["ours"]))
    if abs(gap) <= slack and stderr == 0:
        return "0"
    return reports.format_number(gap, stderr or None) + MARK * (not abs(gap) <= slack)


def option_table(chosen: Sequence[Run], names: Sequence[str]) -> tuple[list[str], list[list[str]]]:
    """The options and the facts about the machine that differ between the runs."""
    about = [_settings(run) for run in chosen]
    keys = dict.fromkeys(key for each in about for key in each)
    lines = [[key, *(_word(each.get(key)) for each in about)] for key in keys]
    return ["option", *names], [line for line in lines if len(set(line[1:])) > 1]


def _settings(run: Run) -> dict[str, Any]:
    """The options in `config.json`, the values that presets add in `options.json`, and facts about the machine."""
    config, options, environment = (
        runs.read_json(run.directory / name) for name in ("config.json", "options.json", "environment.json")
    )
    versions = environment.get("versions")
    versions = versions if isinstance(versions, dict) else {}
    machine = {key: environment.get(key) for key in ("commit", "device_kind", "device_count", "enable_x64")}
    machine |= {f"{name} version": version for name, version in versions.items()}
    return config | options | machine


def _word(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(_word, value))
    return "" if value is None else str(value)


def draw(
    chosen: Sequence[Run],
    names: Sequence[str],
    output_dir: pathlib.Path,
    paper: figures.Paper,
    wanted: Sequence[str] = (),
) -> tuple[pathlib.Path | None, list[str]]:
    """Draw the learning curves in one figure: PNG, data, and the formats of `paper`.

    Args:
        wanted: only curves whose name contains one of these words are drawn; without words the first `MOST_PANELS`.

    Returns:
        The file, and the names of the curves that are not drawn. The file is None if no wanted curve is in all runs.
    """
    tables = [curves(run.directory / "metrics.jsonl") for run in chosen]
    clock = lambda table, name: table[name].clock if name in table else None
    shared = [name for name in tables[0] if len({clock(table, name) for table in tables}) == 1]
    flat = lambda name: all(np.ptp(np.nan_to_num(table[name].values)) == 0 for table in tables)
    shared.sort(key=lambda name: ("return" not in name, flat(name)))
    kept = [name for name in shared if not wanted or any(word in name for word in wanted)]
    kept = kept if wanted else kept[:MOST_PANELS]
    left_out = [name for name in shared if name not in kept]
    if not kept:
        return None, left_out
    # The same runs give the same figure, which may take the place of an earlier one.
    path = output_dir / f"compare-{'-'.join(names).replace('/', '-')[:LONGEST_NAME]}.png"
    made = lambda: _figure(tables, names, kept)
    figures.save(made(), path)
    if paper.formats:
        with paper_layout.for_paper(paper.width):
            figures.save_for_paper(made(), path, paper)
    return path, left_out


def _figure(tables: Sequence[Mapping[str, Curve]], names: Sequence[str], kept: Sequence[str]) -> Any:
    from experiments.harness import plots

    # A dollar sign in a name would begin a formula.
    plain = lambda text: text.replace("$", r"\$")
    names = [plain(name) for name in names]
    columns = min(len(kept), 2)
    rows = math.ceil(len(kept) / columns)
    figure, panels = plots.figure(
        " beside ".join(names),
        "Each line is one run: the mean over its seeds and its sweep. Runs with several seeds have 95 % t bands.",
        rows=rows,
        columns=columns,
        width=6.5 * columns,
        height=1.0 + 3.4 * rows,
    )
    panels = np.ravel(panels)
    colour_of = plots.colours(names)
    for axes, kind in zip(panels, kept, strict=False):
        ends = {}
        for name, table in zip(names, tables, strict=True):
            curve = table[kind]
            ends |= plots.learning_curves(axes, curve.x, {name: curve.values}, colour_of=colour_of, named=False)
        axes.set(xlabel=tables[0][kind].clock.replace("_", " "), ylabel=plain(kind.replace("_", " ")))
        plots.label_ends(axes, ends)
    for spare in panels[len(kept) :]:
        spare.set_visible(False)
    return figure


def curves(path: pathlib.Path) -> dict[str, Curve]:
    """The curves in a `metrics.jsonl`: one for every number, or list of numbers over seeds, of every variant.

    Lines that contain the same words belong together. One line alone, or lines in which no counter of `TIMES` grows,
    make no curve. Incomplete lines, and lines that are no JSON object, are ignored.
    """
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for record in saved_files.read_lines(path):
        groups.setdefault(tuple(str(value) for value in record.values() if isinstance(value, str)), []).append(record)
    found = {}
    for words, records in groups.items():
        columns = _columns(records)
        times = [name for name in TIMES if name in columns]
        clock = next((name for name in times if (np.diff(columns[name].mean(axis=0)) > 0).all()), None)
        if len(records) < 2 or (times and clock is None):
            continue
        count = np.arange(1, len(records) + 1)
        x = count if clock is None else columns[clock].mean(axis=0)
        for name in columns.keys() - set(TIMES):
            key = ", ".join((name, *words))
            found[key] = Curve(clock=clock or "line of metrics.jsonl", x=x, values=columns[name])
    return dict(sorted(found.items()))


def _columns(records: Sequence[dict[str, Any]]) -> dict[str, np.ndarray]:
    """Name → `[S, N]`, for every name that is a number, or a list of S numbers, in all N records."""
    found = {}
    for name in records[0]:
        values = [np.atleast_1d(_numbers(record.get(name))) for record in records]
        if all(value.shape == values[0].shape and value.size for value in values):
            found[name] = np.stack(values, axis=1)
    return found


def _numbers(value: Any) -> np.ndarray:
    """A number, or a list of numbers, as floats; null becomes NaN. The result is empty for everything else."""
    items = value if isinstance(value, list) else [value]
    if not all(item is None or (isinstance(item, int | float) and not isinstance(item, bool)) for item in items):
        return np.zeros(0)
    return np.array([np.nan if item is None else item for item in items], float)
