"""What a run reports: the rows of its table, tables of finished cells, and notes."""

from collections.abc import Sequence
from typing import Any

from experiments.harness import reports, terminal, verdicts


class Tables:
    """Rows, tables and notes, in the order in which they are added."""

    def __init__(self) -> None:
        self._rows: list[reports.Row] = []
        self._notes: list[str] = []
        self._tables: list[dict[str, Any]] = []
        self._numeric: list[Sequence[str]] = []

    @property
    def rows(self) -> tuple[reports.Row, ...]:
        """The rows that were added so far."""
        return tuple(self._rows)

    def row(
        self,
        *,
        quantity: str,
        variant: str | None = None,
        ours: float | None = None,
        stderr: float | None = None,
        exact: float | None = None,
        paper: float | None = None,
        printed: str | None = None,
        provenance: str | None = None,
        verdict: str | None = None,
        against_exact: str | None = None,
        seconds: float | None = None,
    ) -> None:
        """Add a row to the table: our number ± its standard error beside the exact and the published number.

        `printed` is the published number with its digits as they were printed. `verdict` and `against_exact` begin
        with a word of `verdicts.Verdict`.

        Raises:
            ValueError: a number is a text, a verdict begins with another word, or a published number lacks its
                provenance: "text" (read in the publication), "code" (in the authors' code), "card" (quoted
                elsewhere), "mem" (remembered) or "own" (a reference, computed independently and never published).
        """
        for text in filter(None, (verdict, against_exact)):
            verdicts.word_of(text)
        if (paper is not None or provenance is not None) and provenance not in reports.PROVENANCE:
            known = ", ".join(reports.PROVENANCE)
            raise ValueError(f"provenance: a published number needs one of {known}, got {provenance!r}")
        numbers = {"ours": ours, "stderr": stderr, "exact": exact, "paper": paper, "seconds": seconds}
        words = {"quantity": quantity, "variant": variant, "provenance": provenance, "verdict": verdict}
        words |= {"printed": printed, "against_exact": against_exact}
        row = {name: None if value is None else float(value) for name, value in numbers.items()} | words
        self._rows.append({name: row[name] for name in reports.COLUMNS})

    def table(
        self,
        title: str,
        headers: Sequence[str],
        lines: Sequence[Sequence[str]],
        numeric: Sequence[str] | None = None,
    ) -> None:
        """Add a table of finished cells. A run with such a table prints it instead of its rows; the files keep both.

        Args:
            numeric: headers of the columns of numbers, which are never broken into lines; if None, all but the first.
        """
        if any(len(line) != len(headers) for line in lines):
            raise ValueError(f"lines: each needs {len(headers)} cells, as headers")
        self._tables.append({"title": title, "headers": list(headers), "lines": [list(line) for line in lines]})
        self._numeric.append(headers[1:] if numeric is None else numeric)

    def note(self, text: str) -> None:
        """Add a sentence that is shown under the table, for example the reason why a published value differs."""
        self._notes.append(text)

    def show_tables(self, console: Any) -> None:
        """Print the tables, or the rows if there are no tables."""
        for table, numeric in zip(self._tables, self._numeric, strict=True):
            terminal.show_table(console, table["title"], table["headers"], table["lines"], right=numeric)
        if self._rows and not self._tables:
            headers, cells = reports.table(self._rows)
            terminal.show_table(console, "", headers, cells, right=reports.NUMERIC)
