"""Command lines of all experiments, generated from the fields of their `Config`, and what each of them led to.

A command line is run in this process with --dry-run, so that only its options are checked and nothing is trained; a
sample of them is also run as real processes.
"""

import contextlib
import dataclasses
import importlib
import io
import pathlib
import random
import subprocess
import sys
import time
import traceback
import types
import typing
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, NamedTuple

from experiments.__main__ import summaries
from experiments.harness import runner

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Commands that are no experiments and read their words in their own way.
OTHERS = ("estimators", "gallery", "preferences")
HARNESS_OPTIONS = {
    "output_dir": pathlib.Path,
    "run_name": str,
    "figures": tuple[typing.Literal["pdf", "svg"], ...],
    "figure_width": typing.Literal["single", "double"],
    "devices": int,
}
INTEGERS = ("0", "1", "2", "-1", "1073741824", "2147483648", "9223372036854775808", "1" + "0" * 30, "9" * 5000)
INTEGERS += ("1.5", "1e3", "nan", "inf", "0x10", "1_000", "１２", "−1", "True", "+7", " 3")
FLOATS = ("0", "1", "0.5", "-1", "-0.0", "nan", "inf", "-inf", "1e-400", "1e-45", "1e38", "1e39", "1e300", "1e400")
FLOATS += ("0,5", "1/2", "½", "--1", "1e", "0x1p3", "∞")
WORDS = ("", " ", "\n", "a\nb", "nope", "NONE", "None", "é", "😀", "x" * 10_000, "../..", "[1]", "{}", "%s", "$(id)")
WORDS += ("-", "--", "=", "a=b", "\t", "\x7f", "\u202e", "null", "*")
PATHS = (
    "",
    ".",
    "/",
    "/dev/null",
    "/proc/self/mem",
    "nowhere",
    "nowhere/at/all",
    "a\nb",
    "x" * 300,
    "text.txt",
    "folder",
)
NAMES = ("json:dumps", "os:system", ":x", "x:", ":", "json:", "a:b:c", "nowhere.module:f", "broken:f", "mine:raises")
NAMES += (
    "mine:number",
    "mine:returns_none",
    "mine:nothing_there",
    "./mine.py:number",
    "mine:estimator",
    "mine:baseline",
)
ODD = (
    ["--nope"],
    ["--nope", "3"],
    ["--se", "1"],
    ["-x"],
    ["extra"],
    [""],
    ["--"],
    ["--help="],
    ["--no-cache", "--cache"],
)
FILES = {
    "text.txt": "words and words\n",
    "broken.py": "def f(:\n",
    "mine.py": (
        "number = 3\n"
        "def raises(*a, **k):\n    raise KeyError('mine')\n"
        "def returns_none(*a, **k):\n    return None\n"
        "def estimator(policy):\n"
        "    from pgjax import estimators\n"
        "    return estimators.make_estimator(policy, returns=estimators.reward_to_go())\n"
        "def baseline():\n    from pgjax import baselines\n    return baselines.leave_one_out()\n"
    ),
}


class Outcome(NamedTuple):
    """What a command line led to: `fault` is empty if it was accepted, or refused as it should be."""

    experiment: str
    words: tuple[str, ...]
    code: int
    seconds: float
    said: str
    fault: str


def questions() -> dict[str, types.ModuleType]:
    """Name → module, of every experiment with a `Config`."""
    names = [name for name in summaries(ROOT / "experiments") if name not in OTHERS]
    return {name: importlib.import_module(f"experiments.{name}") for name in names}


def generate(draw: random.Random, config_type: type, *, has_tiny: bool) -> list[str]:
    """One command line: one to three options with values of all kinds, and sometimes an odd word."""
    kinds = typing.get_type_hints(config_type, include_extras=True)
    kinds = {f.name: kinds[f.name] for f in dataclasses.fields(config_type) if f.name != "typed"} | HARNESS_OPTIONS
    words: list[str] = ["--tiny"] if has_tiny and draw.random() < 0.5 else []
    for name in draw.sample(sorted(kinds), min(len(kinds), draw.choice((1, 1, 1, 2, 3)))):
        given = _option(draw, name, kinds[name], getattr(config_type(), name, None))
        words += given
        if draw.random() < 0.05:  # twice
            words += given
    if draw.random() < 0.1:
        words += draw.choice(ODD)
    return words


def _option(draw: random.Random, name: str, kind: Any, default: Any) -> list[str]:
    option = f"--{name.rstrip('_').replace('_', '-')}"
    if draw.random() < 0.05:
        return [option]  # its value is missing
    kinds = _simple(kind)
    if bool in kinds and draw.random() < 0.8:
        return [draw.choice((option, "--no-" + option[2:]))]
    count = draw.choice((0, 1, 1, 2, 3)) if tuple in kinds else 1
    values = [_value(draw, kinds, default) for _ in range(count)]
    if count == 1 and draw.random() < 0.2:
        return [f"{option}={values[0]}"]
    return [option, *values]


def _simple(kind: Any) -> set[Any]:
    """The types in an annotation: `tuple[int, ...] | None` → {tuple, int}; words of a Literal as texts."""
    if typing.get_origin(kind) is Annotated:
        return _simple(typing.get_args(kind)[0])
    if typing.get_origin(kind) is typing.Literal:
        return set(map(str, typing.get_args(kind)))
    inside = [part for part in typing.get_args(kind) if part not in (Ellipsis, type(None))]
    own = {tuple} if typing.get_origin(kind) is tuple else set()
    return own.union(*map(_simple, inside)) if inside else {kind}


def _value(draw: random.Random, kinds: set[Any], default: Any) -> str:
    words = [kind for kind in kinds if isinstance(kind, str)]
    of_kind: list[Sequence[str]] = [words] if words else []
    of_kind += [INTEGERS] if int in kinds else []
    of_kind += [FLOATS] if float in kinds else []
    of_kind += [PATHS] if pathlib.Path in kinds else []
    of_kind += [NAMES] if str in kinds else []
    usual = [str(x) for x in (default if isinstance(default, tuple) else (default,)) if x is not None]
    if usual and draw.random() < 0.25:
        return draw.choice(usual)
    return draw.choice(draw.choice(of_kind)) if of_kind and draw.random() < 0.75 else draw.choice(WORDS)


@contextlib.contextmanager
def captured() -> Iterator[tuple[io.StringIO, io.StringIO]]:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
        yield out, err


def run_here(name: str, question: types.ModuleType, words: Sequence[str], folder: pathlib.Path) -> Outcome:
    """The outcome of a command line in this process; `folder` is the current one and must not change."""
    before, start = _contents(folder), time.process_time()
    code, raised = 0, ""
    with captured() as (out, err):
        try:
            runner.start(question, arguments=[*words, "--dry-run"], cache=False)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        except BaseException:
            code, raised = 70, traceback.format_exc()
    seconds, said = time.process_time() - start, err.getvalue() + raised
    return _judged(name, words, code, seconds, out.getvalue(), said, _contents(folder) - before)


def run_process(name: str, words: Sequence[str], folder: pathlib.Path) -> Outcome:
    """The outcome of a command line as a process of its own."""
    before = _contents(folder)
    command = [sys.executable, "-m", f"experiments.{name}", *words, "--dry-run"]
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(ROOT),
        "JAX_PLATFORMS": "cpu",
    }
    start = time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    seconds = time.perf_counter() - start
    return _judged(name, words, done.returncode, seconds, done.stdout, done.stderr, _contents(folder) - before)


def _contents(folder: pathlib.Path) -> set[str]:
    ours = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return {path for path in ours if "__pycache__" not in path and not path.startswith("home/.cache")}


def _judged(name: str, words: Sequence[str], code: int, seconds: float, out: str, said: str, left: set[str]) -> Outcome:
    fault = ""
    options = [word.partition("=") for word in words if word.startswith("-")]  # --name, or --name=VALUE
    given = [part for option in options for part in (option[0], option[2]) if part] + [word for word in words if word]
    if "Traceback" in said:
        fault = "traceback"
    elif code not in (0, 2):
        fault = f"exit code {code}"
    elif code == 2 and not _names(said, given):
        fault = "the refusal names neither option nor value"
    elif code == 2 and len(_lines(said)) > 1:
        fault = "the refusal has several lines"
    elif code == 0 and "memory:" not in out and "usage" not in out:
        fault = "accepted without a word"
    elif left:
        fault = f"left behind: {sorted(left)[:3]}"
    elif code == 2 and seconds > 5:
        fault = f"the refusal took {seconds:.1f} s"
    return Outcome(name, tuple(words), code, seconds, said[-1500:], fault)


def _names(said: str, given: Sequence[str]) -> bool:
    """Whether a refusal names an option or a value; without one, the command line itself is incomplete or empty."""
    plain = " ".join(said.replace("│", " ").split())
    names = [word.lstrip("-").replace("-", "_") for word in given if word.startswith("--") and len(word) > 6]
    return (
        not given
        or any(name in plain for name in names)
        or any(" ".join(word[:30].split()) in plain for word in given)
        or "Unrecognized options:" in said
    )


def _lines(said: str) -> list[str]:
    """The lines of a refusal of ours; that of the parser has a frame and the help of the option."""
    return [] if "For full helptext" in said else [line for line in said.splitlines() if line.strip()]


def prepare(folder: pathlib.Path) -> None:
    """Write the user's files that some command lines name."""
    (folder / "folder").mkdir()
    for file, text in FILES.items():
        (folder / file).write_text(text, encoding="utf-8")
