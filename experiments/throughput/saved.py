"""--json: everything that was measured, in one file; and --compare: today's rates beside those of an earlier file."""

import json
import math
import os
import pathlib
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness import reports, runner
from experiments.harness.directories import UsageError
from experiments.throughput import rates, saturation
from experiments.throughput.limits import NARROW, Limits
from pgjax import writing

FORMAT = 1
UNSAID = "not said"
# What the limits of a machine depend on.
OF_LIMITS = ("device_kind", "device_count", "matmul_precision", "tiny")
LOSS, GAIN, SAME = "LOSS", "gain", "within the noise"


def load() -> list[float] | None:
    """How many processes wanted a core, on average over 1, 5 and 15 minutes."""
    return list(os.getloadavg()) if hasattr(os, "getloadavg") else None


def of_rates(config: Any, found: Sequence[rates.Rate]) -> dict[str, Any]:
    """The entries about the rates of all programs."""
    return {
        "config": config,
        "rates": {name: rate.measured.rates for name, rate in rates.by_key(found).items()},
        "programs": found,
        "saturation": saturation.saturations(map(rates.point, found)),
    }


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


def read(path: pathlib.Path, option: str = "--compare") -> dict[str, Any]:
    """The content of a file that `write` wrote; `option` is the option that names it.

    Raises:
        UsageError: there is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{option} {path}: cannot be read ({error})") from error
    known = isinstance(content, dict) and content.get("format") == FORMAT and isinstance(content.get("rates"), dict)
    if not known:
        raise UsageError(f"{option} {path}: must be a file that --json of this experiment wrote, in format {FORMAT}")
    return content


def read_run(path: pathlib.Path) -> dict[str, Any]:
    """As `read`, for a whole run: with its environment, its limits and its programs.

    Raises:
        UsageError: there is no such file.
    """
    content = read(path, "--json")
    kinds = {"environment": dict, "limits": dict, "programs": list, "config": dict}
    if not all(isinstance(content.get(name), kind) for name, kind in kinds.items()):
        raise UsageError(f"--json {path}: must hold {', '.join(kinds)}, as --json of this experiment writes them")
    return content


def read_limits(path: pathlib.Path) -> Limits:
    """The limits of the machine in a file that `write` wrote.

    Raises:
        UsageError: there is no such file.
    """
    found = read(path, "--limits").get("limits")
    known = isinstance(found, dict) and set(found) == set(Limits._fields) and all(map(_is_rates, found.values()))
    if not known or NARROW not in found["products"]:
        raise UsageError(f"--limits {path}: must hold the limits that --json of this experiment writes")
    return Limits(**found)


def differences(content: Mapping[str, Any], tiny: bool) -> list[str]:
    """In what an earlier run differs from today's among `OF_LIMITS`: `device_count was 2, and is 1 today`.

    Args:
        content: what `read` returned.
        tiny: whether today's run is tiny.
    """
    environment = content.get("environment")
    there = (environment if isinstance(environment, dict) else {}) | {"tiny": content.get("tiny", UNSAID)}
    here = reports.environment() | {"tiny": tiny}
    before = {name: there.get(name, UNSAID) for name in OF_LIMITS}
    return [f"{name} was {old}, and is {here[name]} today" for name, old in before.items() if old != here[name]]


def limits_of_this_machine(path: pathlib.Path, tiny: bool) -> Limits:
    """`read_limits` of a file that was measured with the devices and the precision of today. Starts JAX.

    Raises:
        UsageError: there is no such file, or it differs from today's run in one of `OF_LIMITS`.
    """
    found = differences(read(path, "--limits"), tiny)
    if found:
        raise UsageError(f"--limits {path}: must be of a run like today's: {'; '.join(found)}")
    return read_limits(path)


def _is_rates(numbers: Any) -> bool:
    """Whether this is a dictionary of names and finite numbers above 0, at least one."""
    positive = lambda x: isinstance(x, float | int) and not isinstance(x, bool) and 0 < x < math.inf
    return isinstance(numbers, dict) and len(numbers) > 0 and all(map(positive, numbers.values()))


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
    for name, now in today.items():
        before = earlier["rates"].get(name)
        if not before:
            continue
        verdict = judged(before, now)
        lost += [name] * (verdict == LOSS)
        ratio = statistics.median(now) / statistics.median(before)
        millions = lambda values: [x / 1e6 for x in values]
        middle = lambda values: f"{statistics.median(values) / 1e6:.3g} ({rates.span(millions(values))})"
        lines.append([name, middle(before), middle(now), f"{ratio:.2f}", verdict])
    made, date = earlier["environment"], earlier["environment"].get("date")
    headers = ["rate, M/s", "earlier: median (range)", "today: median (range)", "today / earlier", "verdict"]
    if lines:
        recorder.table(
            f"Today beside {date}, commit {str(made.get('commit'))[:7]}", headers, lines, numeric=headers[1:4]
        )
    there, here = reports.format_machine(made), reports.format_machine(reports.environment())
    if there != here:
        recorder.note(f"--compare: the earlier run was on another machine or JAX: {there}; today {here}.")
    others = [one for one in differences(earlier, recorder.tiny) if not one.startswith("device") and UNSAID not in one]
    if others:
        recorder.note(f"--compare: the earlier run was measured otherwise: {'; '.join(others)}.")
    verdict = f"{len(lost)} of {len(lines)} rates are lower than before, beyond the noise of both runs"
    recorder.note(f"--compare: {verdict}{': ' * bool(lost)}{'; '.join(lost)}.")
    return lost
