"""Lists the experiments, one line each; `runs` lists what has been run, `compare` shows runs side by side."""

import argparse
import ast
import pathlib
import sys

from experiments.harness import mistyped, records, terminal


def summaries(directory: pathlib.Path) -> dict[str, str]:
    """Name → first docstring line of every question in `directory`, read without importing any.

    A question is a file `NAME.py`, or a folder with a `__main__.py`.
    """
    files = {path.stem: path for path in directory.glob("*.py") if not path.stem.startswith("_")}
    files |= {path.parent.name: path.with_name("__init__.py") for path in directory.glob("*/__main__.py")}
    found = {}
    for name, path in sorted(files.items()):
        try:
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        except SyntaxError as error:
            docstring = f"(line {error.lineno} is not valid Python)"
        found[name] = (docstring or "(no docstring)").splitlines()[0]
    return found


def listing(experiments: dict[str, str]) -> str:
    width = max(map(len, experiments), default=0)
    lines = [f"  {name:<{width}}  {summary}" for name, summary in experiments.items()]
    return "\n".join(
        [
            "Experiments:",
            "",
            *(lines or ["  (none)"]),
            "",
            "Run one:          python -m experiments.NAME",
            "See its options:  python -m experiments.NAME --help",
            "List what ran:    python -m experiments runs",
            "Compare runs:     python -m experiments compare A B",
        ]
    )


def main(arguments: list[str] | None = None, directory: pathlib.Path = pathlib.Path(__file__).parent) -> None:
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments and arguments[0] in records.COMMANDS:
        return records.main(arguments[0], arguments[1:])
    with terminal.robust_output():
        experiments = summaries(directory)
        parser = argparse.ArgumentParser(
            prog="python -m experiments",
            usage="%(prog)s [-h] [runs | compare] ...",
            description=listing(experiments),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        _, unknown = parser.parse_known_args(arguments)
        if unknown and unknown[0] in experiments:
            parser.error(f"to run {unknown[0]}, join the names: python -m experiments.{' '.join(unknown)}")
        if unknown:
            parser.error(f"{unknown[0]}: {mistyped.question(unknown[0], directory, records.COMMANDS)}")
        print(listing(experiments))


if __name__ == "__main__":
    main()
