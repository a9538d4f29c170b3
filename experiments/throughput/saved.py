"""--json: everything that was measured, in one file; and --compare: today's rates beside those of an earlier file."""

import json
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness import reports, runner
from experiments.harness.directories import UsageError
from experiments.throughput.rates import span
from pgjax import writing

FORMAT = 1
LOSS, GAIN, SAME = "LOSS", "gain", "within the noise"


def load() -> list[float] | None:
    """How many processes wanted a core, on average over 1, 5 and 15 minutes."""
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def write(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Write the file; `content["rates"]` maps the name of a measurement to its repetitions.

    Raises:
        UsageError: the file cannot be written.
    """
    whole = {"format": FORMAT, "environment": reports.environment(), **content}
    text = json.dumps(reports.plain(whole), indent=1, ensure_ascii=False, allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        writing.replace_file(path, text + "\n")
    except OSError as error:
        raise UsageError(f"--json {path}: {error.strerror}") from error


def read(path: pathlib.Path) -> dict[str, Any]:
    """The content of a file that `write` wrote.

    Raises:
        UsageError: there is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--compare {path}: cannot be read ({error})") from error
    known = isinstance(content, dict) and content.get("format") == FORMAT and isinstance(content.get("rates"), dict)
    if not known:
        raise UsageError(f"--compare {path}: must be a file that --json of this experiment wrote, in format {FORMAT}")
    return content


def judged(earlier: Sequence[float], today: Sequence[float]) -> str:
    """A loss if even the highest repetition of today is below the lowest one of the earlier run; a gain likewise.

    The range of the repetitions is the measured noise. Where the ranges overlap, nothing is claimed.
    """
    if max(today) < min(earlier):
        return LOSS
    return GAIN if min(today) > max(earlier) else SAME


def compare(today: Mapping[str, Sequence[float]], earlier: Mapping[str, Any], recorder: runner.Recorder) -> list[str]:
    """Add a table of the measurements that both runs have, and return the names of those that lost."""
    lines, lost = [], []
    for name, rates in today.items():
        before = earlier["rates"].get(name)
        if not before:
            continue
        verdict = judged(before, rates)
        lost += [name] * (verdict == LOSS)
        ratio = statistics.median(rates) / statistics.median(before)
        millions = lambda values: [x / 1e6 for x in values]
        middle = lambda values: f"{statistics.median(values) / 1e6:.3g} ({span(millions(values))})"
        lines.append([name, middle(before), middle(rates), f"{ratio:.2f}", verdict])
    made, date = earlier["environment"], earlier["environment"].get("date")
    headers = ["rate, M/s", "earlier: median (range)", "today: median (range)", "today / earlier", "verdict"]
    if lines:
        recorder.table(
            f"Today beside {date}, commit {str(made.get('commit'))[:7]}", headers, lines, numeric=headers[1:4]
        )
    there, here = reports.format_machine(made), reports.format_machine(reports.environment())
    if there != here:
        recorder.note(f"--compare: the earlier run was on another machine or JAX: {there}; today {here}.")
    verdict = f"{len(lost)} of {len(lines)} rates are lower than before, beyond the noise of both runs"
    recorder.note(f"--compare: {verdict}{': ' * bool(lost)}{'; '.join(lost)}.")
    return lost
