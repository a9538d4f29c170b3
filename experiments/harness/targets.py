"""What a paper's module declares: the paper, its targets, and the rule by which each of our numbers is judged.

A whole module, `experiments/corridor_optimum.py`, runs by itself and, once its name is in `MODULES` of
`experiments/papers.py`, among all papers (`full: bool`, for the paper's own sizes, and `plot` may be left out):

    import dataclasses
    from experiments.harness import targets as papers
    from experiments.harness import runner
    from pgjax.environments import corridor

    PAPER = papers.Paper(
        citation="Sutton & Barto 2018, example 13.1",
        claim="The best policy of the short corridor is a random one.",
        targets=(
            papers.Target("best", "v*", papers.Digits(), published="−11.6", provenance="text", headline="v*"),
            papers.Target("order", "v(p*) − v(½)", papers.Above(), provenance="text"),
        ),
    )

    @dataclasses.dataclass(frozen=True)
    class Config:
        seed: int = 0

    TINY = Config()

    def run(config, recorder):
        best, half = corridor.BEST_VALUE, float(corridor.corridor_value(0.5))
        papers.check(recorder, PAPER, {"best": papers.Measured(best), "order": papers.Measured(best - half)})

    if __name__ == "__main__":
        runner.main(__file__, __doc__, Config, run)

Two questions are kept apart: are we right (our number against `exact`), and does the paper agree (against `published`)?
"""

import dataclasses
import decimal
import json
import math
from collections.abc import Mapping
from typing import Any

from experiments.harness import reports
from experiments.harness.runner import Recorder, UsageError, format_number

NOT_MEASURED = "not measured"


@dataclasses.dataclass(frozen=True)
class Measured:
    """Our number, its standard error (0: nothing was sampled), and the exact value where the oracle knows it."""

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
        """The share of `hits` bool `[S]`, with `share_error`, so that none or all of S are not certain."""
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

    A printed number adds half a unit of its last digit. With `published_stderr=None` it is as uncertain as ours: it was
    sampled as often and its error was not given.
    """

    errors: float = 3.0
    published_stderr: float | None = 0.0

    def holds(self, ours: Measured, expected: float, printed: str | None) -> bool:
        rounding = 0.0 if printed is None else half_unit(printed)
        theirs = ours.stderr if self.published_stderr is None else self.published_stderr
        return abs(ours.value - expected) <= self.errors * (ours.stderr**2 + theirs**2) ** 0.5 + rounding


@dataclasses.dataclass(frozen=True)
class Near:
    """Equal within `delta`, for slopes and for numbers that nothing was sampled for."""

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


@dataclasses.dataclass(frozen=True)
class Target:
    """One number or ordering that is to come out.

    Attributes:
        key: the name under which `check` is given ours.
        quantity, variant: what the table says; units belong in `quantity`.
        rule: how ours is judged.
        published: the number as it was printed, "−11.6"; its digits are its precision. None for an ordering.
        provenance: where it was found, one of `reports.PROVENANCE`; "own" is a reference that was computed
            independently and never published.
        exact: what mathematics gives, where it is known beforehand; `Measured.exact` comes before it.
        exact_tolerance: relative; how far from `exact` a number without a standard error may be.
        headline: its short name in the one-line summary of the paper, which shows those that have one.
        why: why ours differs from the published one, to be shown if it does.
    """

    key: str
    quantity: str
    rule: Rule
    published: str | None = None
    provenance: str | None = None
    variant: str | None = None
    exact: float | None = None
    exact_tolerance: float = 1e-9
    headline: str = ""
    why: str = ""


@dataclasses.dataclass(frozen=True)
class Paper:
    """A paper, what it claims in one sentence, what is to come out, and where public code goes wrong."""

    citation: str
    claim: str
    targets: tuple[Target, ...]
    pitfalls: tuple[str, ...] = ()

    def __post_init__(self):
        keys = [target.key for target in self.targets]
        if len(set(keys)) < len(keys):
            raise ValueError(f"targets: keys must differ, got {keys}")


def number(printed: str) -> float:
    """`"−11.6"` → −11.6; the minus may be typographic."""
    return float(printed.replace("−", "-"))


def half_unit(printed: str) -> float:
    """Half a unit of the last digit of a printed number, and a hair for binary fractions: `"20"` → 0.5."""
    exponent = decimal.Decimal(printed.replace("−", "-")).as_tuple().exponent
    return 0.5 * 10.0**exponent * (1 + 1e-9)


def judge(target: Target, ours: Measured) -> str:
    """The verdict: "agrees", "holds" (an ordering), "differs", "fails", or "differs from the exact value"."""
    exact = target.exact if ours.exact is None else ours.exact
    if exact is not None:
        slack = target.exact_tolerance * max(1.0, abs(exact))
        if not abs(ours.value - exact) <= (4.5 * ours.stderr if ours.stderr > 0 else slack):
            return "differs from the exact value"
    if isinstance(target.rule, Above):
        return "holds" if target.rule.holds(ours, None, None) else "fails"
    expected = exact if target.published is None else number(target.published)
    if expected is None:
        raise ValueError(f"{target.key}: neither a published nor an exact value to judge by")
    return "agrees" if target.rule.holds(ours, expected, target.published) else "differs"


def check(recorder: Recorder, paper: Paper, measured: Mapping[str, Measured]) -> dict[str, str]:
    """Adds a row for every target, a note for each that comes out other than published, and `paper.json`.

    Targets that `measured` lacks are recorded as not measured.

    Returns:
        key → verdict.

    Raises:
        ValueError: a measured number that no target asks for.
    """
    unknown = set(measured) - {target.key for target in paper.targets}
    if unknown:
        raise ValueError(f"measured: no target is called {', '.join(sorted(unknown))}")
    verdicts, lines, contradictions = {}, [], []
    for target in paper.targets:
        ours = measured.get(target.key)
        found = NOT_MEASURED if ours is None else judge(target, ours)
        verdicts[target.key] = found
        exact = target.exact if ours is None or ours.exact is None else ours.exact
        recorder.row(
            quantity=target.quantity,
            variant=target.variant,
            ours=None if ours is None else ours.value,
            stderr=ours.stderr if ours is not None and ours.stderr > 0 else None,
            exact=exact,
            paper=None if target.published is None else number(target.published),
            printed=_with_allowance(target),
            provenance=target.provenance,
            verdict=found,
        )
        if bad(found):
            name = target.quantity if target.variant is None else f"{target.quantity}, {target.variant}"
            text = f"{name}: {found}. {target.why or 'We have no explanation.'}"
            contradictions.append({"text": text, "provenance": target.provenance})
            recorder.note(text)
        if target.headline and ours is not None:
            lines.append(
                {
                    "quantity": target.headline,
                    "published": _published(target),
                    "ours": format_number(ours.value, ours.stderr if ours.stderr > 0 else None),
                    "verdict": found,
                }
            )
    for pitfall in paper.pitfalls:
        recorder.note(pitfall)
    described = {"citation": paper.citation, "claim": paper.claim, "pitfalls": paper.pitfalls, "headline": lines}
    described |= {"verdicts": verdicts, "contradictions": contradictions}
    text = json.dumps(described, indent=1, ensure_ascii=False)
    recorder.path("paper.json").write_text(text, encoding="utf-8")
    return verdicts


def bad(verdict: str) -> bool:
    """Whether a verdict says that something came out other than stated."""
    return verdict.startswith("differs") or verdict == "fails"


def full_size(config: Any, sizes: Mapping[str, Any]) -> Any:
    """`config` with the paper's own sizes if it has `full` set, otherwise as it is.

    Raises:
        UsageError: one of `sizes` was chosen too.
    """
    if not config.full:
        return config
    for name in sizes:
        default = next(field.default for field in dataclasses.fields(config) if field.name == name)
        if getattr(config, name) != default:
            option = f"--{name.replace('_', '-')} {getattr(config, name)}"
            raise UsageError(f"{option}: --full sets it; leave one of them out")
    return dataclasses.replace(config, **sizes)


def _with_allowance(target: Target) -> str | None:
    """The number as printed, with the error that it is judged with: `0.412 ± 0.053`, `−1 (± 0.1 allowed)`."""
    rule = target.rule
    if target.published is None:
        return None
    if isinstance(rule, Near):
        return f"{target.published} (± {rule.delta:g} allowed)"
    if isinstance(rule, Within) and rule.published_stderr:
        return f"{target.published} ± {rule.published_stderr:.2g}"
    return target.published


def _published(target: Target) -> str:
    if target.published is None:
        return {None: "", "own": "expected", "mem": "claimed (unverified)"}.get(target.provenance, "claimed")
    return target.published + reports.PROVENANCE_MARKS.get(target.provenance, "")
