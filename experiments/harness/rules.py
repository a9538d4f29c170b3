"""Our measured numbers, and the rules that compare them with a printed number or with a bound."""

import dataclasses
import decimal
import math
from typing import Any


@dataclasses.dataclass(frozen=True)
class Measured:
    """Our number, its standard error, and the exact value if the oracle knows it.

    The standard error is 0 if nothing was sampled.
    """

    value: float
    stderr: float = 0.0
    exact: float | None = None

    @classmethod
    def of(cls, runs: Any, exact: float | None = None) -> "Measured":
        """Mean and standard error of `runs [S]`."""
        from pgjax import diagnostics

        return cls(*map(float, diagnostics.mean_and_stderr(runs)), exact)

    @classmethod
    def share(cls, hits: Any, exact: float | None = None, *, percent: bool = False) -> "Measured":
        """The share of `hits` bool `[S]`; its error is above 0 also where none or all of them are hits."""
        count, runs, scale = int(sum(hits)), len(hits), 100.0 if percent else 1.0
        return cls(scale * count / runs, scale * share_error(count, runs), exact)

    def minus(self, other: "Measured") -> "Measured":
        """The difference of two independent numbers."""
        exact = None if self.exact is None or other.exact is None else self.exact - other.exact
        return Measured(self.value - other.value, math.hypot(self.stderr, other.stderr), exact)


def share_error(count: float, runs: int) -> float:
    """√(p (1 − p) / S) with p = (k + 1) / (S + 2), above 0 also for k = 0 and k = S."""
    p = (count + 1.0) / (runs + 2.0)
    return (p * (1.0 - p) / runs) ** 0.5


@dataclasses.dataclass(frozen=True)
class Digits:
    """Equal in every digit that was printed: |ours − published| ≤ half a unit of the last one."""

    def holds(self, ours: Measured, expected: float, printed: str | None) -> bool:
        return abs(ours.value - expected) <= (1e-9 * max(1.0, abs(expected)) if printed is None else half_unit(printed))


@dataclasses.dataclass(frozen=True)
class Within:
    """Equal within `errors` standard errors: |ours − expected| ≤ errors · √(stderr² + published_stderr²).

    Half a unit of the last digit of a printed number is added. `published_stderr=None` gives the published number the
    error of ours: it was sampled as often, and its error was not published.
    """

    errors: float = 3.0
    published_stderr: float | None = 0.0

    def holds(self, ours: Measured, expected: float, printed: str | None) -> bool:
        rounding = 0.0 if printed is None else half_unit(printed)
        theirs = ours.stderr if self.published_stderr is None else self.published_stderr
        return abs(ours.value - expected) <= self.errors * (ours.stderr**2 + theirs**2) ** 0.5 + rounding


@dataclasses.dataclass(frozen=True)
class Near:
    """Equal within `delta`, for slopes and for numbers that were not sampled."""

    delta: float

    def holds(self, ours: Measured, expected: float, printed: str | None) -> bool:
        del printed
        return abs(ours.value - expected) <= self.delta


@dataclasses.dataclass(frozen=True)
class Above:
    """An ordering: ours is a difference (or a ratio) that is above `bound` by `errors` standard errors."""

    bound: float = 0.0
    errors: float = 3.0

    def holds(self, ours: Measured, expected: float | None, printed: str | None) -> bool:
        del expected, printed
        return ours.value - self.errors * ours.stderr > self.bound


Rule = Digits | Within | Near | Above


def number(printed: str) -> float:
    """`"−11.6"` → −11.6; the minus may be typographic."""
    return float(printed.replace("−", "-"))


def half_unit(printed: str) -> float:
    """Half a unit of the last digit of a printed number, and a little more for binary fractions: `"20"` → 0.5."""
    exponent = decimal.Decimal(printed.replace("−", "-")).as_tuple().exponent
    return 0.5 * 10.0**exponent * (1 + 1e-9)
