"""The options of every experiment, beside the fields of its own `Config`, and what --help says of them."""

import ast
import dataclasses
import pathlib
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from experiments.harness import figures, runtime, terminal

TINY_HELP = "Take the sizes of the tests, to see in seconds that everything works; options beside it come before them."
LEFT_OUT = "(may be left out)"


@dataclasses.dataclass(frozen=True)
class Options:
    """What a command line says."""

    config: Any
    output_dir: pathlib.Path
    run_name: str | None
    devices: int | None
    cache: bool
    paper: figures.Paper
    tiny: bool


def parse(
    program: str,
    description: str,
    config_type: type,
    arguments: Sequence[str],
    *,
    cache: bool = True,
    tiny: Any = None,
) -> Options:
    """Reads the command line.

    A `Config` may have a method `default_words() -> Mapping[str, str]`: what stands in --help for a default of None,
    for example `{"lr": "0.01, of the preset"}`. It is asked of the defaults.

    Args:
        cache: the default of --cache.
        tiny: the configuration of --tiny; None if the experiment has none, or has an option of this name itself.

    Raises:
        SystemExit: the command line cannot be read, or asks for help.
    """
    import tyro

    is_tiny = tiny is not None and "--tiny" in arguments
    default = tiny if is_tiny else config_type()
    explained = _explained(config_type, default)
    asked = dataclasses.make_dataclass(
        "Options",
        [("config", tyro.conf.OmitArgPrefixes[explained], _as(explained, default))]
        + [
            (name, Annotated[kind, tyro.conf.arg(help=text, help_behavior_hint=hint)], value)
            for name, (kind, value, text, hint) in _fields(cache, tiny is not None).items()
        ],
    )
    with terminal.help_width():
        read = tyro.cli(asked, prog=program, description=help_text(description), args=arguments)
    config = _as(config_type, read.config)
    return Options(
        config=config,
        output_dir=read.output_dir,
        run_name=read.run_name,
        devices=read.devices,
        cache=read.cache,
        paper=figures.Paper(formats=read.figures, width=read.figure_width),
        tiny=is_tiny,
    )


def _fields(cache: bool, has_tiny: bool) -> Mapping[str, tuple[Any, Any, str, str | None]]:
    """Name → type, default, help, and what --help says of the default where it is None."""
    import tyro

    formats = tuple[figures.Format, ...]
    fields = {
        "output_dir": (pathlib.Path, pathlib.Path("results"), "Results go to OUTPUT_DIR/EXPERIMENT/RUN_NAME.", None),
        "run_name": (str | None, None, "The run's name.", "(default: date, time and a short id)"),
        "figures": (formats, (), "Draw every figure for a paper too, in these formats: pdf, svg.", "(default: none)"),
        "figure_width": (
            figures.Width,
            "single",
            "The width of figures for a paper: single is one column, 3.25 inches; double is two, 6.75 inches.",
            None,
        ),
        "devices": (
            int | None,
            None,
            "The number of devices that are used.",
            "(default: all accelerators, or one CPU device for each core)",
        ),
        "cache": (bool, cache, f"Keep compiled programs on disk, here in {runtime.cache_place()}.", None),
    }
    return fields | ({"tiny": (tyro.conf.FlagCreatePairsOff[bool], False, TINY_HELP, None)} if has_tiny else {})


def _explained(config_type: type, default: Any) -> type:
    """A `config_type` whose defaults of None are put into words by --help."""
    import tyro

    words = default.default_words() if hasattr(default, "default_words") else {}
    kinds = typing.get_type_hints(config_type, include_extras=True)
    hints = {}
    for field in dataclasses.fields(config_type):
        if getattr(default, field.name) is None:
            said = f"(default: {words[field.name]})" if field.name in words else LEFT_OUT
            hints[field.name] = Annotated[kinds[field.name], tyro.conf.arg(help_behavior_hint=said)]
    made = {"__annotations__": hints, "__doc__": config_type.__doc__, "__module__": config_type.__module__}
    return type(config_type.__name__, (config_type,), made)


def _as(kind: type, config: Any) -> Any:
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})


def help_text(description: str) -> str:
    """An experiment's header as tyro prints it line by line: it joins to the line before what begins with a letter."""
    title, _, rest = description.strip().partition("\n")
    return f"{title}\n\n{textwrap.indent(rest.strip(), ' ')}" if rest.strip() else title


def header(file: str) -> str:
    """The docstring of a question's file, read from its source: `python -OO` has none."""
    try:
        return ast.get_docstring(ast.parse(pathlib.Path(file).read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError):
        return ""
