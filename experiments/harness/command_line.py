"""The options that every experiment has beside the fields of its own `Config`, and the help texts of all of them."""

import ast
import contextlib
import dataclasses
import inspect
import io
import pathlib
import shutil
import sys
import textwrap
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from experiments.harness import distributed, figures, mistyped, option_groups, runtime, terminal
from experiments.harness.option_groups import Field

TINY_HELP = "Use the small sizes of the tests, which show in seconds that everything works. Other options still apply."
DRY_RUN_HELP = "Print the resolved options and the memory that the run will need, and start nothing."
DEBUG_NANS_HELP = (
    "Stop at the first operation of JAX that gives NaN, and name it. Every program runs slower then. Where NaN would "
    "mark a missing number, such as the mean of no episode, the program holds 0 until the host reads it."
)
LEFT_OUT = "(may be left out)"


@dataclasses.dataclass(frozen=True)
class Options:
    """The options that a command line gives."""

    config: Any
    output_dir: pathlib.Path
    run_name: str | None
    devices: int | None
    cache: bool
    paper: figures.Paper
    tiny: bool
    dry_run: bool
    debug_nans: bool
    distributed: str | None
    distributed_timeout: float
    distributed_watchdog: float | None


def parse(
    program: str,
    description: str,
    config_type: type,
    arguments: Sequence[str],
    *,
    cache: bool = True,
    tiny: Any = None,
    shares: bool = False,
) -> Options:
    """Reads the command line.

    A `Config` may have `GROUPS`, heading → names of options (see `option_groups.grouped`). --help then shows them in
    this order, and the header after them. It may have `HINTS`, see `mistyped.sentence`. It may have a method
    `default_words(arguments) -> Mapping[str, str]`. It says what --help shows for a field whose default is None, for
    example `{"lr": "0.01, preset of CartPole-v1"}`. It is called on the defaults, with the words of the command line,
    so that its answer may depend on another option. A field `typed` of a `Config` becomes the names of the fields that
    the command line gives beside `resume`.

    Args:
        cache: the default of --cache.
        tiny: the configuration of --tiny. None if the experiment has no such configuration, or has a field `tiny`.
        shares: whether several processes can share the experiment, so that it has --distributed.

    Raises:
        SystemExit: the command line cannot be read, or it asks for help.
    """
    import tyro

    is_tiny = tiny is not None and "--tiny" in arguments
    default = tiny if is_tiny else config_type()
    explained = _explained(config_type, default, arguments)
    general = {
        name: Field(Annotated[kind, tyro.conf.arg(help=text, help_behavior_hint=hint)], value)
        for name, (kind, value, text, hint) in _fields(cache, tiny is not None, shares).items()
    }
    own = {name: Field(hint, getattr(default, name)) for name, hint in explained.__annotations__.items()}
    hints = getattr(config_type, "HINTS", {})
    if groups := getattr(config_type, "GROUPS", None):
        asked = option_groups.grouped(own | general, groups)
        title, _, rest = description.strip().partition("\n")
        with terminal.help_width():
            width = min(shutil.get_terminal_size().columns, 100) - 1
        about = help_text(f"{title}\n{textwrap.fill(inspect.getdoc(config_type) or '', width)}")
        read = _cli(asked, own | general, program, about, arguments, hints, after=rest)
        values = option_groups.values(read)
    else:
        whole = ("config", tyro.conf.OmitArgPrefixes[explained], _as(explained, default))
        asked = dataclasses.make_dataclass("Options", [whole, *((name, *field) for name, field in general.items())])
        read = _cli(asked, own | general, program, help_text(description), arguments, hints)
        values = option_groups.values(read)
    config = config_type(**{field.name: values[field.name] for field in dataclasses.fields(config_type)})
    if hasattr(config, "typed"):
        config = dataclasses.replace(config, typed=_typed(config_type, arguments))
    return Options(
        config=config,
        paper=figures.Paper(formats=values["figures"], width=values["figure_width"]),
        tiny=is_tiny,
        distributed=values.get("distributed"),
        distributed_timeout=values.get("distributed_timeout", distributed.TIMEOUT),
        distributed_watchdog=values.get("distributed_watchdog"),
        **{name: values[name] for name in ("output_dir", "run_name", "devices", "cache", "dry_run", "debug_nans")},
    )


def _cli(
    kind: Any,
    fields: Mapping[str, Any],
    program: str,
    description: str,
    arguments: Sequence[str],
    hints: Mapping[str, str],
    after: str = "",
) -> Any:
    """Read the words as the dataclass `kind`. A mistyped one is refused with one sentence, if one is known.

    Args:
        fields: the name of each option's field → its type, or a `Field`.
        after: what --help shows after the options.
    """
    import tyro

    said = io.StringIO()
    try:
        with terminal.help_width(), contextlib.redirect_stderr(said):
            return tyro.cli(kind, prog=program, description=description, args=arguments)
    except SystemExit as stop:
        if not stop.code:
            print(f"\n{after.strip()}\n" if after else "", end="")
        elif meant := mistyped.sentence(arguments, _forms(fields), hints):
            said = io.StringIO(f"{program}: error: {meant}\n")
        raise
    finally:
        sys.stderr.write(said.getvalue())


def _forms(fields: Mapping[str, Any]) -> dict[str, mistyped.Form]:
    """Option → its form, for the fields that are options."""
    return {
        name.rstrip("_").replace("_", "-"): mistyped.form(getattr(field, "hint", field))
        for name, field in fields.items()
        if name != "typed"
    }


def parse_command(program: str, kind: type, arguments: Sequence[str], *, positional: str | None = None) -> Any:
    """Read the words of a command that is no experiment: each field of the dataclass `kind` is an option.

    Args:
        program: what the user types before `arguments`.
        positional: the field, a tuple, that takes the words without an option.

    Raises:
        SystemExit: the words cannot be read, or they ask for help.
    """
    import tyro

    # The fields get the help texts of `parse`, on one line each.
    explained = _explained(kind, kind(), arguments)
    if positional is not None:
        hints = explained.__annotations__
        explained.__annotations__ = hints | {positional: Annotated[hints[positional], tyro.conf.Positional]}
    about = help_text(inspect.getdoc(kind) or "")
    fields = {"" if name == positional else name: hint for name, hint in explained.__annotations__.items()}
    return _as(kind, _cli(explained, fields, program, about, arguments, {}))


def _fields(cache: bool, has_tiny: bool, shares: bool) -> Mapping[str, tuple[Any, Any, str, str | None]]:
    """Name → type, default, help text, and what --help shows instead of a default of None."""
    import tyro

    formats = tuple[figures.Format, ...]
    fields = {
        "output_dir": (
            pathlib.Path,
            pathlib.Path("results"),
            "The folder for results. The files of this run go to OUTPUT_DIR/EXPERIMENT/RUN_NAME.",
            None,
        ),
        "run_name": (str | None, None, "The name of the run.", "(default: the date, the time and a short id)"),
        "figures": (
            formats,
            (),
            "Also draw every figure for a paper, in one or both of these formats: pdf, svg.",
            "(default: none)",
        ),
        "figure_width": (
            figures.Width,
            "single",
            "The width of figures for a paper: single is one column (3.25 inches), double two columns (6.75 inches).",
            None,
        ),
        "devices": (
            int | None,
            None,
            "The number of devices that the experiment uses.",
            "(default: all accelerators, or one CPU device for each core)",
        ),
        "cache": (
            bool,
            cache,
            f"Whether compiled programs are kept on disk, so that the next run starts faster. The folder is "
            f"{runtime.cache_place()}.",
            None,
        ),
        "dry_run": (tyro.conf.FlagCreatePairsOff[bool], False, DRY_RUN_HELP, None),
        "debug_nans": (tyro.conf.FlagCreatePairsOff[bool], False, DEBUG_NANS_HELP, None),
    }
    if shares:
        fields["distributed"] = (str | None, None, distributed.HELP, "(default: one process)")
        fields["distributed_timeout"] = (float, distributed.TIMEOUT, distributed.TIMEOUT_HELP, None)
        fields["distributed_watchdog"] = (float | None, None, distributed.WATCHDOG_HELP, "(default: no limit)")
    return fields | ({"tiny": (tyro.conf.FlagCreatePairsOff[bool], False, TINY_HELP, None)} if has_tiny else {})


def _explained(config_type: type, default: Any, arguments: Sequence[str]) -> type:
    """A `config_type` whose help texts are one paragraph each, and whose defaults of None are put into words."""
    import tyro

    words = default.default_words(arguments) if hasattr(default, "default_words") else {}
    kinds, texts = typing.get_type_hints(config_type, include_extras=True), _field_docstrings(config_type)
    hints = {}
    for field in dataclasses.fields(config_type):
        said = None
        if getattr(default, field.name) is None:
            said = f"(default: {words[field.name]})" if field.name in words else LEFT_OUT
        shown = tyro.conf.arg(help=texts.get(field.name), help_behavior_hint=said)
        hints[field.name] = Annotated[kinds[field.name], shown]
    made = {"__annotations__": hints, "__doc__": config_type.__doc__, "__module__": config_type.__module__}
    return type(config_type.__name__, (config_type,), made)


def _field_docstrings(config_type: type) -> dict[str, str]:
    """Field → the string below it in the source, on one line. tyro would keep the line breaks of the source."""
    found: dict[str, str] = {}
    for base in reversed(config_type.__mro__[:-1]):  # a class comes after those from which it has fields
        found |= _own_docstrings(base)
    return found


def _own_docstrings(config_type: type) -> dict[str, str]:
    try:
        (made,) = ast.parse(textwrap.dedent(inspect.getsource(config_type))).body
    except (OSError, TypeError, SyntaxError, ValueError):
        return {}
    found = {}
    for field, below in zip(made.body, made.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            found[field.target.id] = " ".join(str(below.value.value).split())
    return found


def _as(kind: type, config: Any) -> Any:
    return kind(**{field.name: getattr(config, field.name) for field in dataclasses.fields(config)})


def _typed(config_type: type, arguments: Sequence[str]) -> tuple[str, ...]:
    """The fields of `config_type` that `arguments` give, as `--name`, `--no-name` or `--name=VALUE`."""
    words = {word.partition("=")[0].replace("_", "-") for word in arguments}
    names = {field.name: field.name.rstrip("_").replace("_", "-") for field in dataclasses.fields(config_type)}
    return tuple(name for name, option in names.items() if words & {f"--{option}", f"--no-{option}"})


def help_text(description: str) -> str:
    """An experiment's header, indented so that tyro keeps its lines: tyro joins lines that begin with a letter."""
    title, _, rest = description.strip().partition("\n")
    return f"{title}\n\n{textwrap.indent(rest.strip(), ' ')}" if rest.strip() else title


def header(file: str) -> str:
    """The docstring of a question's file, read from its source: `python -OO` has none."""
    try:
        return ast.get_docstring(ast.parse(pathlib.Path(file).read_text(encoding="utf-8"))) or ""
    except (OSError, SyntaxError):
        return ""
