"""Thousands of generated command lines and calls: what each led to, as a table and as a file.

    python tests/generated_input.py                    2 000 command lines, 60 processes and 10 000 calls
    python tests/generated_input.py --commands 200 --processes 0 --calls 1000 --out found.json

A command line must be accepted, or be refused with exit code 2 and one line that names an option or a value, within
five seconds, and must leave nothing in the folder. A call must return, or raise a ValueError or TypeError of pgjax. The
exit code is 1 if anything else happened.
"""
# ruff: noqa: E402  the folders of the tests come first

import argparse
import collections
import contextlib
import json
import os
import pathlib
import random
import sys
import tempfile
from collections.abc import Iterator

TESTS = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(TESTS.parent), str(TESTS / "shared")]

import experiments  # noqa: F401  before jax, whose log level it sets

# isort: split
import generated_calls
import generated_commands
import jax

from experiments.harness import reports, runtime

MOST_SECONDS = 2.0  # of CPU time for the calls of one function


@contextlib.contextmanager
def users_folder() -> Iterator[pathlib.Path]:
    """A temporary folder with a user's files, as the current one."""
    with tempfile.TemporaryDirectory() as name:
        folder, before = pathlib.Path(name).resolve(), pathlib.Path.cwd()
        generated_commands.prepare(folder)
        os.chdir(folder)
        sys.path.insert(0, str(folder))
        try:
            yield folder
        finally:
            sys.path.remove(str(folder))
            os.chdir(before)


def command_outcomes(seed: int, commands: int, processes: int) -> list[generated_commands.Outcome]:
    """The outcomes of generated command lines, the last of them as processes."""
    jax.devices()  # so that --devices finds JAX running
    draw, questions, found = random.Random(seed), generated_commands.questions(), []
    with users_folder() as folder:
        for number in range(commands + processes):
            name = draw.choice(sorted(questions))
            question = questions[name]
            has_tiny = getattr(question, "TINY", None) is not None
            words = generated_commands.generate(draw, question.Config, has_tiny=has_tiny)
            if number < commands:
                found.append(generated_commands.run_here(name, question, words, folder))
                jax.config.update("jax_debug_nans", False)
                if number % 50 == 49:
                    jax.clear_caches()  # traces of thousands of configurations take gigabytes
            else:
                found.append(generated_commands.run_process(name, [w for w in words if "\0" not in w], folder))
    return found


def call_outcomes(seed: int, calls: int, most_seconds: float = MOST_SECONDS) -> list[generated_calls.Outcome]:
    return list(generated_calls.generate(random.Random(seed), calls, most_seconds))


def summary(kind: str, outcomes: list, seconds: str = "seconds") -> dict:
    """The counts by fault, and every outcome with one."""
    counts = collections.Counter(outcome.fault or "as it should be" for outcome in outcomes)
    print(f"{kind}: {len(outcomes)}")
    for fault, count in counts.most_common():
        print(f"  {count:6d}  {fault}")
    slowest = max((getattr(outcome, seconds) for outcome in outcomes), default=0.0)
    print(f"  slowest: {slowest:.1f} s")
    faults = [outcome._asdict() for outcome in outcomes if outcome.fault]
    return {"count": len(outcomes), "by_fault": dict(counts), "slowest_seconds": slowest, "faults": faults}


def main() -> int:
    read = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in (("commands", 2000), ("processes", 60), ("calls", 10_000), ("seed", 0)):
        read.add_argument(f"--{name}", type=int, default=usual)
    read.add_argument("--out", type=pathlib.Path, default=pathlib.Path("generated_input.json"))
    asked = read.parse_args()
    runtime.use_cache()
    lines = command_outcomes(asked.seed, asked.commands, asked.processes)
    here, apart = lines[: asked.commands], lines[asked.commands :]
    found = {"command lines": here, "processes": apart, "calls": call_outcomes(asked.seed, asked.calls)}
    result = {kind: summary(kind, outcomes) for kind, outcomes in found.items()}
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    content = result | {"environment": reports.environment()}
    asked.out.write_text(json.dumps(content, indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
    return int(any(part["faults"] for part in result.values()))


if __name__ == "__main__":
    raise SystemExit(main())
