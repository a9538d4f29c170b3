"""The parts of a report: numbers with their uncertainty, tables, strict JSON, the environment of the run."""

import dataclasses
import datetime
import importlib.metadata
import io
import json
import math
import os
import pathlib
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.harness import verdicts
from experiments.harness.runtime import usable_cores

Row = dict[str, Any]

COLUMNS = (
    "quantity", "variant", "ours", "stderr", "exact", "paper", "provenance", "verdict", "seconds", "printed",
    "against_exact",
)  # fmt: skip
NUMERIC = ("ours ± s.e.", "exact", "paper", "seconds")
PROVENANCE = {
    "text": "The number or the claim was read in the publication.",
    "code": "The number was read in the authors' code.",
    "card": "The number is quoted in another publication.",
    "mem": "The number or the claim was remembered and not verified.",
    "own": "The number is a reference. It was computed independently of this code and never published.",
}
PROVENANCE_MARKS = {"code": " (code)", "card": " (quoted)", "mem": " (unverified)", "own": " (reference)"}

PACKAGES = ("pgjax", "jax", "jaxlib", "flax", "optax", "chex", "gymnax", "numpy")


def format_number(value: float | None, stderr: float | None = None, *, digits: int = 5) -> str:
    """Format a number as everywhere in tables, figures, notes and pages: `0.0123 ± 0.0004`, `(4.5 ± 1.4)e5`.

    The error has two digits up to 35, otherwise one, and the value ends at the same digit. Without a standard error
    (None, or NaN as for one run) the value has `digits` significant digits. Numbers from 10⁵ on and below 10⁻⁴ are
    written with a power of ten. The text is empty for None.
    """
    if value is None:
        return ""
    if stderr is None or math.isnan(stderr):
        return _significant(value, digits)
    size = abs(value) + stderr
    if not math.isfinite(size) or stderr <= 1e-9 * size:
        return f"{_significant(value, digits)} ± {_significant(stderr, 1)}"
    power = 0 if 1e-4 <= size < 1e5 else math.floor(math.log10(size))
    value, stderr = value / 10**power, stderr / 10**power
    exponent = math.floor(math.log10(stderr))
    places = (stderr < 3.55 * 10**exponent) - exponent
    value, stderr = round(value, places) + 0.0, round(stderr, places)  # + 0.0: −0 becomes 0
    text = f"{value:.{max(places, 0)}f} ± {stderr:.{max(places, 0)}f}"
    return f"({text})e{power}" if power else text


def format_interval(low: float, high: float, *, digits: int = 5) -> str:
    """`0.98 to 1.02`; empty if there is no interval."""
    return f"{_significant(low, digits)} to {_significant(high, digits)}" if math.isfinite(low + high) else ""


def _significant(value: float, digits: int) -> str:
    """`value` to that many digits: `123.46`, `1.2346e5`, `1e-7`."""
    mantissa, _, exponent = f"{value + 0.0:.{digits}g}".partition("e")
    return f"{mantissa}e{int(exponent)}" if exponent else mantissa


def table(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of *quantity | variant | paper | ours ± s.e. | exact | against exact | verdict | seconds*.

    Empty columns are left out. The signs ± of a column are aligned.
    """
    columns = {
        "quantity": [row["quantity"] for row in rows],
        "variant": [row["variant"] or "" for row in rows],
        "paper": [_paper(row) for row in rows],
        "ours ± s.e.": _aligned([format_number(row["ours"], row["stderr"]) for row in rows]),
        "exact": [format_number(row["exact"]) for row in rows],
        "against exact": [row.get("against_exact") or "" for row in rows],
        "verdict": [row["verdict"] or "" for row in rows],
        "seconds": ["" if row["seconds"] is None else f"{row['seconds']:.1f}" for row in rows],
    }
    kept = {name: cells for name, cells in columns.items() if any(cells)}
    return list(kept), [list(cells) for cells in zip(*kept.values())]


def _paper(row: Row) -> str:
    mark = "" if row["paper"] is None else PROVENANCE_MARKS.get(row["provenance"], "")
    return (row["printed"] or format_number(row["paper"])) + mark


def _aligned(cells: Sequence[str]) -> list[str]:
    parts = [cell.partition(" ± ") for cell in cells]
    left, right = (max((len(part[i]) for part in parts), default=0) for i in (0, 2))
    return [(a.rjust(left) + (sign or " " * 3 * bool(right)) + b.ljust(right)) for a, sign, b in parts]


def markdown_table(headers: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    lines = [headers, ["---"] * len(headers), *cells]
    escaped = [[cell.strip().replace("|", "\\|") for cell in line] for line in lines]
    return "\n".join(f"| {' | '.join(line)} |" for line in escaped)


def summary_markdown(summary: Mapping[str, Any], environment: Mapping[str, Any], figures: Sequence[str]) -> str:
    """The first page for a reader: the command and its circumstances, the tables, the notes, the figures."""
    status = summary["status"] + (f": {summary['error']}" if summary["error"] else "")
    commit = environment["commit"] or "not from a git checkout"
    changed = ", with uncommitted changes" if environment["uncommitted_changes"] else ""
    rows = summary["rows"]
    sources = sorted({row["provenance"] for row in rows if row["provenance"]})
    parts = [
        f"# {summary['experiment']} / {summary['run']}",
        f"- status: {status}\n- command: `{environment['command']}`\n- date: {environment['date']}\n"
        f"- took: {format_duration(summary['seconds'])}\n"
        f"- machine: {format_machine(environment)}\n"
        f"- commit: {commit}{changed}",
        f"**{verdicts.TINY_NOTICE}**" if summary["tiny"] else "",
        *(f"{made['title']}\n\n{markdown_table(made['headers'], made['lines'])}" for made in summary["tables"]),
        markdown_table(*table(rows)) if rows else "No rows were recorded.",
        "\n".join(f"- {note}" for note in summary["notes"]),
        "\n".join(f"- paper, `{source}`: {PROVENANCE[source]}" for source in sources),
        "\n".join(f"- verdict, {line}" for line in verdicts.legend(row["verdict"] for row in rows)),
        "\n".join(f"![{name}]({name})" for name in figures),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def format_machine(environment: Mapping[str, Any]) -> str:
    """`1 × cpu, 2 threads, jax 0.10.1`."""
    devices = f"{environment['device_count']} × {environment['device_kind']}"
    if environment.get("process_count", 1) > 1:
        devices += f" in {environment['process_count']} processes"
    return f"{devices}, {environment['threads']} threads, jax {environment['versions']['jax']}"


def format_duration(seconds: float) -> str:
    """`3.2 s`, `45 s`, `3 min 20 s`, `2 h 05 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest} s"
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def format_count(count: int, unit: str) -> str:
    """`1 process`, `2 processes`, `1,200 steps`; `unit` is a plural."""
    singular = unit.removesuffix("es") if unit.endswith("sses") else unit.removesuffix("s")
    return f"{count:,} {singular if count == 1 else unit}"


def format_rate(rate: float, unit: str) -> str:
    """`1.2 M steps/s`."""
    scale, prefix = next(((s, p) for s, p in ((1e9, "G "), (1e6, "M "), (1e3, "k ")) if rate >= s), (1.0, ""))
    return f"{rate / scale:.{1 if rate < 10 * scale else 0}f} {prefix}{unit}/s"


def plain(value: Any) -> Any:
    """Convert `value` to strict JSON: arrays become lists, records become objects, NaN and infinities become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    return plain(value.tolist()) if hasattr(value, "tolist") else str(value)


def encoded(name: str, content: Any) -> str | bytes | memoryview:
    """What a file of this name holds: see `Recorder.write`."""
    if isinstance(content, str | bytes | memoryview):
        return content
    if name.endswith(".npz"):
        file, arrays = io.BytesIO(), {key: np.asarray(array) for key, array in content.items()}
        np.savez_compressed(file, **arrays)  # pyright: ignore[reportArgumentType]  arrays are no allow_pickle
        return file.getbuffer()
    return json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def environment() -> dict[str, Any]:
    """Versions, devices, flags and commit, which are needed to get the same numbers again. Imports jax."""
    import jax

    devices = jax.devices()
    commit, changed = _commit(pathlib.Path(__file__).resolve().parents[2])
    return {
        "command": shlex.join([pathlib.Path(sys.executable).name, *sys.orig_argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit,
        "uncommitted_changes": changed,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
        "operating_system": platform.platform(),
        "platform": devices[0].platform,
        "device_kind": devices[0].device_kind,
        "device_count": len(devices),
        "process_count": jax.process_count(),
        "threads": usable_cores(),
        "xla_flags": os.environ.get("XLA_FLAGS"),
        "matmul_precision": jax.config.jax_default_matmul_precision,
        "enable_x64": jax.config.jax_enable_x64,
        "prng": jax.config.jax_default_prng_impl,
    }


def was_tiny(directory: pathlib.Path) -> bool:
    """Whether the run in a folder was a tiny one; False if no readable file says so."""
    try:
        return json.loads((directory / "environment.json").read_text(encoding="utf-8")).get("tiny") is True
    except (OSError, ValueError, AttributeError, RecursionError):
        return False


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit(root: pathlib.Path) -> tuple[str | None, bool | None]:
    """The commit of the checkout at `root` and whether its files differ from it; (None, None) outside git."""

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(root), "--no-optional-locks", *arguments],
            check=True,
            capture_output=True,
            text=True,
            timeout=20,
        ).stdout.strip()

    try:
        # An installed copy inside somebody else's repository is not that repository.
        if pathlib.Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return None, None
        return git("rev-parse", "HEAD"), bool(git("status", "--porcelain"))
    except (OSError, subprocess.SubprocessError):
        return None, None
