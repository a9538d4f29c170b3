"""Printing that works in any encoding, at any width, and after the reader has closed the pipe."""

import codecs
import contextlib
import errno
import os
import shutil
import sys
import unicodedata
from collections.abc import Iterator, Sequence
from typing import Any

# The errors of a reader that has gone: a closed pipe, a closed terminal, a stream without a file.
GONE = {errno.EPIPE, errno.EIO, errno.EBADF}
READABLE = {"−": "-", "–": "-", "—": "-", "±": "+-", "×": "x", "·": "*", "→": "->", "←": "<-"}
READABLE |= {"≥": ">=", "≤": "<=", "≈": "~", "√": "sqrt", "∇": "grad ", "‖": "|", "∞": "inf", "Σ": "Sum", "∈": "in"}
READABLE |= {"“": '"', "”": '"', "‘": "'", "’": "'", "≠": "!=", "½": "1/2", "─": "-", "│": "|", "━": "-", "█": "#"}
LEAST_TEXT = 16  # the least width of a column of words, in characters
HELP_WIDTH = 60
WIDE = 200  # the width if there is no terminal


def readable(character: str) -> str:
    """An ASCII spelling of one character: `±` → `+-`, `θ` → `theta`, `₁` → `1`; `?` where there is none."""
    if character in READABLE:
        return READABLE[character]
    plain = unicodedata.normalize("NFKD", character).encode("ascii", "ignore").decode()
    if plain:
        return plain
    name = unicodedata.name(character, "")
    if name.startswith("GREEK"):
        return name.rpartition(" ")[2].lower()
    if unicodedata.combining(character):
        return ""
    return "+" if name.startswith("BOX DRAWINGS") else "?"


def _encode(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(map(readable, error.object[error.start : error.end])), error.end


codecs.register_error("readable", _encode)


class Output:
    """A stream that writes ASCII for characters which its encoding lacks, and is silent after its reader has gone."""

    def __init__(self, stream: Any):
        self._stream, self._errors, self._silent = stream, getattr(stream, "errors", None), False
        self._reconfigure("readable")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        self._try(self._stream.write, text)
        return len(text)

    def writelines(self, lines: Sequence[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._try(self._stream.flush)

    def release(self) -> Any:
        """Return the stream with its former settings."""
        self.flush()
        self._reconfigure(self._errors)
        return self._stream

    def _reconfigure(self, errors: str | None) -> None:
        if hasattr(self._stream, "reconfigure") and not self._silent:
            with contextlib.suppress(OSError, ValueError):
                self._stream.reconfigure(errors=errors)

    def _try(self, act: Any, *arguments: Any) -> None:
        if self._silent:
            return
        try:
            act(*arguments)
        except OSError as error:
            if error.errno not in GONE:
                raise
            self._silence()
        except ValueError as error:  # of a closed stream
            if "closed" not in str(error):
                raise
            self._silent = True

    def _silence(self) -> None:
        """Send what is still in the buffer to the null device, so that Python's last flush does not fail."""
        self._silent = True
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


@contextlib.contextmanager
def robust_output() -> Iterator[None]:
    """Within this block printing does not fail because of an encoding, a closed pipe or a closed stream."""
    before = sys.stdout, sys.stderr
    with contextlib.ExitStack() as opened:

        def robust(stream: Any) -> Output:
            # The file takes the closed stream's place among the descriptors, so that no file of the run gets it.
            return Output(stream or opened.enter_context(open(os.devnull, "w", encoding="utf-8")))

        made = sys.stdout, sys.stderr = robust(before[0]), robust(before[1])
        try:
            yield
        finally:
            for output in made:
                output.release()
            sys.stdout, sys.stderr = before


@contextlib.contextmanager
def help_width() -> Iterator[None]:
    """Within this block --help is at least `HELP_WIDTH` wide. On narrower terminals it could not be read."""
    given = os.environ.get("COLUMNS")
    if shutil.get_terminal_size().columns < HELP_WIDTH:
        os.environ["COLUMNS"] = str(HELP_WIDTH)
    try:
        yield
    finally:
        os.environ.pop("COLUMNS", None)
        if given is not None:
            os.environ["COLUMNS"] = given


def make_console() -> Any:
    """A rich console as wide as the terminal, or `WIDE` where there is none."""
    from rich.console import Console

    console = Console(highlight=False)
    return console if console.is_terminal else Console(highlight=False, width=WIDE)


def show_table(
    console: Any,
    title: str,
    headers: Sequence[str],
    cells: Sequence[Sequence[str]],
    *,
    right: Sequence[str],
    whole: Sequence[str] = (),
) -> None:
    """Print a table. If the console is too narrow, print each row as a record with one cell on a line.

    Args:
        right: headers of the columns of numbers. They are aligned to the right and never broken into lines.
        whole: headers of other columns that are never broken.
    """
    from rich.table import Table
    from rich.text import Text

    if title:
        console.print(Text(title, style="bold"))
    if _least_width(headers, cells, {*right, *whole}) > console.width:
        for line in cells:
            console.print(Text(line[0].strip() or "—", style="bold"))
            for header, cell in list(zip(headers, line, strict=True))[1:]:
                if cell.strip():
                    console.print(Text(f"  {header}: {' '.join(cell.split())}"))
        console.print()
        return
    shown = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        numeric = header in right
        shown.add_column(header, justify="right" if numeric else "left", no_wrap=numeric or header in whole)
    for line in cells:
        shown.add_row(*map(Text, line))
    console.print(shown, "", sep="\n")


def _least_width(headers: Sequence[str], cells: Sequence[Sequence[str]], whole: set[str]) -> int:
    """The width, in characters, that a table needs to show its numbers whole and its words readably."""
    from rich.cells import cell_len

    needed = 2 * (len(headers) - 1)
    for index, header in enumerate(headers):
        longest = max(map(cell_len, [header, *(line[index] for line in cells)]))
        needed += longest if header in whole else min(longest, LEAST_TEXT)
    return needed
