"""Damaged files of every kind that pgjax reads, and how their readers take them: `python tests/damaged_files.py`.

Each file is loaded in a process that may take one GiB more memory than it has, and has five seconds for it. A file is
either refused with one line that names it, or it is loaded with its whole undamaged content. In formats without a
digest a damage can also give another content that is valid; the last column of the table counts these files, and only
files of the seeded program may be among them. Nothing in a file may run.

    python tests/damaged_files.py                      the files made by hand, and 12 of each kind by the program
    python tests/damaged_files.py --mutants 2000       2 000 of each kind by the program
    python tests/damaged_files.py --kinds npz GGUF     some kinds only
    python tests/damaged_files.py --output FILE        where the result is written as JSON
"""

import argparse
import json
import pathlib
import random
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "shared")]

import damage  # noqa: E402
import damaged_by_hand  # noqa: E402
from damaged_kinds import KINDS  # noqa: E402
from watched import MOST_BYTES, MOST_SECONDS, Report, Watched  # noqa: E402

OUTPUT = pathlib.Path("damaged_files.json")


class Result(NamedTuple):
    """One damaged file: its kind, its name, how its loading went, and what is wrong with that; "" for nothing."""

    kind: str
    name: str
    report: Report
    outcome: str
    fault: str


def judged(report: Report, path: pathlib.Path, whole: str, may_differ: bool) -> tuple[str, str]:
    """What became of a file, and what is wrong with it.

    Args:
        report: how the loading went.
        path: the file.
        whole: the fingerprint of the undamaged file.
        may_differ: whether another content than the undamaged one is allowed.
    """
    if report.ran:
        return "ran code", f"it made the process do: {'; '.join(report.ran)}"
    if report.seconds > MOST_SECONDS or report.outcome == "hung":
        return "hung", f"it took {report.seconds:.1f} s"
    if report.mebibytes > MOST_BYTES / 2**20:
        return "took memory", f"it took {report.mebibytes:.0f} MiB"
    if report.outcome in ("raised", "died"):
        return report.outcome, report.told
    if report.outcome == "loaded":
        if report.told == whole:
            return "whole", ""
        return "other", "" if may_differ else "another content was loaded"
    named = path.name in report.told or path.parent.name in report.told
    if not named or "\n" in report.told or len(report.told) > 2000 or not report.told.isprintable():
        return "refused", f"the error is not one line that names the file: {report.told[:300]!r}"
    return "refused", ""


def by_program(kind_name: str, count: int, seed: int) -> Iterator[tuple[str, damage.Damage, random.Random]]:
    """Damages of the seeded program."""
    for number in range(count):
        rng = random.Random(f"{kind_name} {seed + number}")
        chosen = rng.choice(KINDS[kind_name].damages)
        yield f"{chosen.__name__} {seed + number}", chosen, rng


def run(kinds: Sequence[str], mutants: int, seed: int = 0, every: int = 1) -> Iterator[Result]:
    """Damage and load the files of these kinds; of those that were made by hand, one in `every`."""
    watched = Watched()
    try:
        with tempfile.TemporaryDirectory() as folder:
            for kind_name in kinds:
                yield from _of_kind(watched, pathlib.Path(folder) / kind_name, kind_name, mutants, seed, every)
    finally:
        watched.close()


def _of_kind(
    watched: Watched, folder: pathlib.Path, kind_name: str, mutants: int, seed: int, every: int
) -> Iterator[Result]:
    kind = KINDS[kind_name]
    whole = watched.load(kind_name, kind.make(folder / "whole"))
    if whole.outcome != "loaded":
        yield Result(kind_name, "undamaged", whole, whole.outcome, f"the undamaged file was refused: {whole.told}")
        return
    of_hand = damaged_by_hand.DAMAGES.get(kind_name, {})
    for number, (name, change) in enumerate(of_hand.items()):
        if number % every:
            continue
        path = kind.make(folder / "by_hand")
        change(path)
        report = watched.load(kind_name, path)
        yield Result(kind_name, name, report, *judged(report, path, whole.told, may_differ=False))
        shutil.rmtree(folder / "by_hand")
    path = kind.make(folder / "by_program")
    file = kind.file(path)
    content = file.read_bytes()
    for name, chosen, rng in by_program(kind_name, mutants, seed):
        file.write_bytes(chosen(content, rng))
        report = watched.load(kind_name, path)
        yield Result(kind_name, name, report, *judged(report, path, whole.told, may_differ=not kind.has_digest))


COLUMNS = ("refused", "whole", "other")


def table(results: Sequence[Result]) -> str:
    """Kind × outcome, with the longest time and the largest memory."""
    lines = [f"{'kind':24}{'files':>7}{'refused':>9}{'whole':>7}{'other':>7}{'faults':>8}{'s':>7}{'MiB':>7}"]
    for kind in [*dict.fromkeys(result.kind for result in results), "all"]:
        own = [result for result in results if kind in (result.kind, "all")]
        counts = [sum(result.outcome == name for result in own) for name in COLUMNS]
        faults = sum(bool(result.fault) for result in own)
        most = [max((getattr(result.report, name) for result in own), default=0.0) for name in ("seconds", "mebibytes")]
        lines.append(
            f"{kind:24}{len(own):7}{counts[0]:9}{counts[1]:7}{counts[2]:7}{faults:8}{most[0]:7.2f}{most[1]:7.0f}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; the exit code is 1 if a file was not taken as it must be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), help="The kinds to damage.")
    parser.add_argument("--mutants", type=int, default=12, help="The number of files of each kind by the program (12).")
    parser.add_argument("--seed", type=int, default=0, help="The seed of the first of them (0).")
    parser.add_argument("--output", type=pathlib.Path, default=OUTPUT, help=f"The file of the result ({OUTPUT}).")
    options = parser.parse_args(arguments)
    results = []
    for result in run(options.kinds, options.mutants, options.seed):
        results.append(result)
        if result.fault:
            print(f"FAULT {result.kind}, {result.name}: {result.outcome}: {result.fault}", flush=True)
    print(table(results))
    kept = [{**result._asdict(), "report": result.report._asdict()} for result in results]
    from experiments.harness import reports  # starts JAX, and the readers have their own process

    options.output.parent.mkdir(parents=True, exist_ok=True)
    content = {"results": kept, "table": table(results), "environment": reports.environment()}
    options.output.write_text(json.dumps(content, indent=1) + "\n")
    return int(any(result.fault for result in results))


if __name__ == "__main__":
    sys.exit(main())
