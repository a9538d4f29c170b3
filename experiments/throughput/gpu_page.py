"""The README's table of rates on a GPU, from the files that `tests/gpu_check.sh` makes.

    python -m experiments.throughput.gpu_page FOLDER

It reads every file FOLDER/NAME.json that --json of this experiment wrote, and writes FOLDER/gpu.md and FOLDER/gpu.json.
"""

import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness import reports
from experiments.throughput import saved
from experiments.throughput.workloads import CARTPOLE, CRITIC, PLAIN
from pgjax import writing

PAGE, DATA = "gpu.md", "gpu.json"
AIM = 1e8  # live steps per second of CartPole-v1, learning included
HEADERS = (
    "workload",
    "program",
    "at once",
    "M/s",
    "lowest to highest",
    "compile s",
    "arrays MiB",
    "share of the limit",
)


def page(contents: Sequence[Mapping[str, Any]], exactness: str, kernel: str) -> str:
    """The Markdown of files of --json, and of the last lines that the exactness tests and `one_kernel` printed."""
    environment, limits = contents[0]["environment"], contents[0]["limits"]
    lines = [_cells(one) for content in contents for one in content["programs"]]
    giga = lambda numbers, unit: ", ".join(f"{name} {rate / 1e9:,.0f} {unit}" for name, rate in numbers.items())
    return "\n\n".join(
        [
            f"Measured on {reports.format_machine(environment)}, commit {str(environment['commit'])[:7]}, "
            f"{environment['date'][:10]}.",
            reports.markdown_table(HEADERS, lines),
            f"Limits of this machine: products of matrices {giga(limits['products'], 'GFLOP/s')}; memory "
            f"{giga(limits['bandwidths'], 'GB/s')}.",
            _aim([one for content in contents for one in content["programs"]]),
            f"One kernel for {CARTPOLE}: {kernel or 'not run'}.",
            f"Exactness tests on this device: {exactness or 'not run'}.\n",
        ]
    )


def _cells(one: Mapping[str, Any]) -> list[str]:
    measured, share = one["measured"], one["share"]
    rates = [rate / 1e6 for rate in measured["rates"]]
    return [
        one["workload"],
        one["program"],
        f"{one['batch']:,}",
        f"{statistics.median(rates):.3g}",
        f"{min(rates):.3g} to {max(rates):.3g}",
        f"{measured['compile_seconds']:.1f}",
        f"{measured['mebibytes']:,.0f}",
        "" if share is None else f"{100 * share:.1f} %, {one['limit']}",
    ]


def _aim(programs: Sequence[Mapping[str, Any]]) -> str:
    learning = [one for one in programs if one["workload"] == CARTPOLE and one["program"] in (PLAIN, CRITIC)]
    if not learning:
        return f"{CARTPOLE} was not measured."
    rate = max(statistics.median(one["measured"]["rates"]) for one in learning)
    reached = "reached" if rate >= AIM else "not reached"
    return f"{CARTPOLE}, learning included: at best {rate / 1e6:.3g} M live steps/s; the aim of {AIM:.0e} is {reached}."


def _last_line(path: pathlib.Path) -> str:
    lines = path.read_text(encoding="utf-8").strip().splitlines() if path.is_file() else []
    return lines[-1] if lines else ""


def write(folder: pathlib.Path) -> pathlib.Path:
    """Write both files and return the path of the table.

    Raises:
        UsageError: the folder holds no file that --json wrote.
    """
    names = sorted(path for path in folder.glob("*.json") if path.name != DATA)
    contents = [saved.read(path) for path in names]
    if not contents:
        raise saved.UsageError(f"{folder}: holds no file that --json of experiments.throughput wrote")
    exactness, kernel = _last_line(folder / "exactness.txt").strip("= "), _last_line(folder / "kernel.txt")
    whole = {
        "exactness": exactness,
        "kernel": kernel,
        "runs": {path.stem: content for path, content in zip(names, contents)},
    }
    writing.replace_file(folder / DATA, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    writing.replace_file(folder / PAGE, page(contents, exactness, kernel))
    return folder / PAGE


if __name__ == "__main__":
    print(write(pathlib.Path(sys.argv[1])).read_text(encoding="utf-8"))
