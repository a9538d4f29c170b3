"""Write experiments/README.md: a section for each question, from the files of its latest run.

Claim    Every number of the page comes from a file that a run wrote, so no number becomes outdated unnoticed.
Command  python -m experiments.gallery
         python -m experiments.gallery --results results --check
Shows    For each question its claim, figure, table, command and time. The latest complete run with default options in
         results/NAME/ (or in results/papers/RUN/NAME/) is copied, its table and notes to experiments/figures/NAME.json
         and its figures beside them. A question without such a run keeps what experiments/figures/ holds of it.
Expect   A few seconds, and one line for each question that has a new run.
Departs  It measures nothing and writes into the checkout, not into results/.
"""

import argparse
import pathlib

from experiments.gallery import page, reliability, runs
from experiments.gallery.sections import GROUPS
from experiments.harness import command_line
from pgjax import writing

__all__ = ["main"]

EXPERIMENTS = pathlib.Path(__file__).resolve().parents[1]


def main(arguments: list[str] | None = None, experiments: pathlib.Path = EXPERIMENTS) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.gallery", description=command_line.header(__file__).splitlines()[0]
    )
    parser.add_argument(
        "--results", type=pathlib.Path, default=pathlib.Path("results"), help="The folder of the runs (results)."
    )
    parser.add_argument(
        "--check", action="store_true", help="Write nothing; exit with 1 if experiments/README.md is not up to date."
    )
    options = parser.parse_args(arguments)
    readme, figures = experiments / "README.md", experiments / "figures"
    if options.check:
        fresh = readme.is_file() and readme.read_text(encoding="utf-8") == page.write(GROUPS, experiments)
        print("up to date" if fresh else "experiments/README.md differs; write it with: python -m experiments.gallery")
        return 0 if fresh else 1
    for record in (record for group in GROUPS for section in group.sections for record in section.records):
        found = runs.latest(record, options.results)
        if found is not None and runs.copy(record, found, figures):
            print(f"{record.name}: taken from {found}")
    for name in reliability.copy(options.results, figures):
        print(f"{name}: taken from {options.results / name}.json")
    writing.replace_file(readme, page.write(GROUPS, experiments))
    print(f"written: {readme}")
    return 0
