"""List all estimators with the names that --estimator takes.

Command  python -m experiments.estimators
         python -m experiments.estimators gae rloo    (only these two, with their settings)
         python -m experiments.estimators --markdown  (the table, for a document)
"""

import argparse
import textwrap
from collections.abc import Iterable, Sequence

from experiments.harness import command_line, terminal
from experiments.harness.reports import markdown_table
from pgjax import registry
from pgjax.registry import Entry

HEADERS = ("name", "label", "needs", "stated bias", "exact moments", "source")
WIDTH = 96


def needs(entry: Entry) -> str:
    """What the estimator needs besides a policy and its episodes."""
    found = [registry.NEEDS[need] for need in entry.needs]
    if entry.compares:
        found.append("two or more episodes")
    if entry.behaviour:
        found.append("ln f of the policy that acted")
    return "; ".join(found)


def settings(entry: Entry) -> str:
    """The settings of the estimator as options of `experiments.train`, with their values."""
    option = lambda name: "--" + name.rstrip("_").replace("_", "-")
    return ", ".join(f"{option(name)} {value}" for name, value in entry.settings.chosen().items())


def markdown(entries: Iterable[Entry]) -> str:
    cells = [
        [
            f"`{e.name}`",
            e.label,
            needs(e) or "—",
            e.bias or "none",
            e.exact_moments,
            e.source,
        ]
        for e in entries
    ]
    return markdown_table(HEADERS, cells)


def listing(entries: Sequence[Entry], *, with_settings: bool) -> str:
    """A few lines for each estimator, at most `WIDTH` characters wide."""
    width = max(len(entry.name) for entry in entries)
    lines = []
    for entry in entries:
        lines.append(f"{entry.name:<{width}}  {entry.label}")
        facts = [entry.claim, f"exact moments: {entry.exact_moments}", entry.source]
        facts[1:1] = [f"needs {needs(entry)}"] if needs(entry) else []
        lines += textwrap.wrap(" · ".join(facts), WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4)
        if with_settings and entry.settings.chosen():
            lines += textwrap.wrap(settings(entry), WIDTH, initial_indent=" " * 4, subsequent_indent=" " * 4)
    how = (
        "The option --estimator of experiments.train and experiments.gradient_lab takes each of these names, and "
        "module:function for an estimator of your own. The stated bias belongs to the settings that `python -m "
        "experiments.estimators NAME` shows. Exact moments are the mean and the variance of an estimate on a tabular "
        "problem, computed without sampling."
    )
    return "\n".join([*lines, "", textwrap.fill(how, WIDTH)])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.estimators",
        description=command_line.header(__file__).splitlines()[0],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="Show only these estimators, with their settings.")
    parser.add_argument("--markdown", action="store_true", help="Print the list as a Markdown table.")
    options = parser.parse_args(arguments)
    try:
        entries = [registry.find(name) for name in options.names] or list(registry.ENTRIES.values())
    except ValueError as error:
        parser.exit(2, f"{parser.prog}: error: {error}\n")
    text = markdown(entries) if options.markdown else listing(entries, with_settings=bool(options.names))
    with terminal.robust_output():
        print(text)


if __name__ == "__main__":
    main()
