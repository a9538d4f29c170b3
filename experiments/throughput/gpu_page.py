"""The README's table of rates on a GPU, from the files that `tests/gpu_check.sh` makes.

    python -m experiments.throughput.gpu_page FOLDER

It reads every file FOLDER/NAME.json that --json of this experiment wrote, and writes FOLDER/gpu.md and FOLDER/gpu.json.
It names the other JSON files and leaves them out. The files must come from the same machine, commit, precision of
matrix products and kind of run (tiny or not), because the page says these once.
"""

import json
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from experiments.harness import reports
from experiments.throughput import saturation, saved
from experiments.throughput.token_programs import RLOO
from experiments.throughput.workloads import ACTOR_CRITIC, CARTPOLE, CRITIC, PLAIN
from pgjax import writing

PAGE, DATA = "gpu.md", "gpu.json"
LEARNING = (PLAIN, CRITIC, ACTOR_CRITIC, RLOO)
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


def page(contents: Sequence[Mapping[str, Any]], exactness: str, kernel: str, foreign: Sequence[str] = ()) -> str:
    """The Markdown of files of --json, of the last line of the exactness tests, and of what `one_kernel` printed.

    Args:
        foreign: the names of the JSON files that --json did not write.
    """
    environment, limits = contents[0]["environment"], contents[0]["limits"]
    programs = [one for content in contents for one in content["programs"]]
    lines = [_cells(one) for one in programs]
    tiny = " This is a tiny run, whose numbers mean nothing." if contents[0].get("tiny") else ""
    giga = lambda numbers, unit: ", ".join(f"{name} {rate / 1e9:,.0f} {unit}" for name, rate in numbers.items())
    paragraphs = [
        f"Measured on {reports.format_machine(environment)}, commit {str(environment['commit'])[:7]}, "
        f"{environment['date'][:10]}.{tiny}",
        _precision(environment) + _complete(contents),
        reports.markdown_table(HEADERS, lines),
        *_saturation(programs),
        f"Limits of this machine: products of matrices {giga(limits['products'], 'GFLOP/s')}; memory "
        f"{giga(limits['bandwidths'], 'GB/s')}.",
        _aim(programs),
        f"One kernel for {CARTPOLE}: {kernel or 'not run'}",
        f"Exactness tests on this device: {exactness or 'not run'}.",
        *([f"Left out, because --json did not write them: {', '.join(foreign)}."] if foreign else []),
    ]
    return "\n\n".join(paragraphs) + "\n"


def _precision(environment: Mapping[str, Any]) -> str:
    asked = environment.get("matmul_precision")
    chosen = f"is {asked!r}" if asked else "is JAX's default, which is TF32 on recent NVIDIA GPUs and float32 on CPUs"
    return f"The precision of the matrix products in these programs {chosen}."


def _complete(contents: Sequence[Mapping[str, Any]]) -> str:
    """A sentence if a part was stopped; files of former versions do not say it."""
    cut = [", ".join(content["config"]["workloads"]) for content in contents if not content.get("complete", True)]
    return f" The measurement of {' and of '.join(cut)} was stopped before its end." if cut else ""


def _saturation(programs: Sequence[Mapping[str, Any]]) -> list[str]:
    """The table of the smallest batches near the best rate, and what they mean for `experiments.train`."""
    points = [
        saturation.Point(one["workload"], one["program"], one["batch"], one["measured"]["rates"]) for one in programs
    ]
    found = saturation.saturations(points)
    if not found:
        return []
    table = reports.markdown_table(saturation.HEADERS, [saturation.cells(one) for one in found])
    return [table, "\n".join(f"- {saturation.sentence(one)}" for one in found if one.program in LEARNING)]


def _kernel(path: pathlib.Path) -> str:
    """The table that `one_kernel` printed and its last line; a run that was stopped has no last line."""
    lines = path.read_text(encoding="utf-8").strip().splitlines() if path.is_file() else []
    table = [line for line in lines if line.startswith("|")]
    if not lines:
        return ""
    last = lines[-1] if "the kernel plays" in lines[-1] else "its run did not come to its end"
    return "\n\n".join([f"{last}.", *(["\n".join(table)] if table else [])])


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


def _origin(content: Mapping[str, Any]) -> dict[str, str]:
    """What must be equal in all files of a page."""
    environment = content["environment"]
    return {
        "machine": reports.format_machine(environment),
        "commit": str(environment.get("commit"))[:7],
        "matmul precision": str(environment.get("matmul_precision")),
        "tiny": str(content.get("tiny", saved.UNSAID)),
    }


def _require_one_origin(found: Mapping[pathlib.Path, Mapping[str, Any]]) -> None:
    first = next(iter(found), None)
    for path, content in found.items():
        ours, other = _origin(found[first or path]), _origin(content)
        for name, value in ours.items():
            if other[name] != value:
                raise saved.UsageError(
                    f"{path.parent}: {first and first.name} and {path.name} must have the same {name}, which is "
                    f"{value} in the first and {other[name]} in the second; remove the file that does not belong here"
                )


def write(folder: pathlib.Path) -> pathlib.Path:
    """Write both files and return the path of the table.

    Raises:
        UsageError: the folder holds no file that --json wrote, or files that differ in `_origin`.
    """
    found, foreign = {}, []
    for path in sorted(path for path in folder.glob("*.json") if path.name != DATA):
        try:
            found[path] = saved.read_run(path)
        except saved.UsageError:
            foreign.append(path.name)
    names, contents = list(found), list(found.values())
    _require_one_origin(found)
    if not contents:
        raise saved.UsageError(f"{folder}: holds no file that --json of experiments.throughput wrote")
    exactness, kernel = _last_line(folder / "exactness.txt").strip("= "), _kernel(folder / "kernel.txt")
    whole = {
        "exactness": exactness,
        "kernel": kernel,
        "runs": {path.stem: content for path, content in zip(names, contents)},
    }
    writing.replace_file(folder / DATA, json.dumps(whole, indent=1, ensure_ascii=False) + "\n")
    writing.replace_file(folder / PAGE, page(contents, exactness, kernel, foreign))
    return folder / PAGE


if __name__ == "__main__":
    try:
        print(write(pathlib.Path(sys.argv[1])).read_text(encoding="utf-8"))
    except saved.UsageError as error:
        sys.exit(str(error))
