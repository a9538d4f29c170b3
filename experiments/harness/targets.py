"""The declarations of a paper's module: the paper, its targets, and the rule that judges each of our numbers.

The module below, `experiments/corridor_optimum.py`, is complete and runs by itself. With its name in `MODULES` of
`experiments/papers` it also runs with all papers. It may have an option `full: bool` for the paper's own sizes, and a
function `plot`:

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

There are two separate questions. Is our number right, compared with `exact`? Does the paper agree with it, compared
with `published`? The answers use the words of `verdicts.py`.
"""

import dataclasses
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from experiments.harness import reports, verdicts
from experiments.harness.rules import Above, Digits, Measured, Near, Rule, Within, half_unit, number, share_error
from experiments.harness.runner import Recorder, UsageError, format_number
from experiments.harness.verdicts import Verdict

__all__ = [
    "Above",
    "Digits",
    "Judgement",
    "Measured",
    "Near",
    "Paper",
    "Target",
    "Within",
    "check",
    "full_size",
    "half_unit",
    "judge",
    "number",
    "share_error",
]


@dataclasses.dataclass(frozen=True)
class Target:
    """One number, or one ordering of numbers, that a paper's module reproduces.

    Attributes:
        key: the name of our number in the argument `measured` of `check`.
        quantity, variant: the words in the table; units belong in `quantity`.
        rule: the rule that judges our number.
        published: the number as it was printed, "−11.6"; its digits are its precision. None for an ordering.
        provenance: where the number or the claim was found, one of `reports.PROVENANCE`. None means an expectation of
            our own, or a mathematical fact.
        exact: the exact value, if it is known beforehand; `Measured.exact` takes precedence.
        exact_tolerance: the largest relative distance from `exact` of a number without a standard error.
        headline: a short name. The table of all papers shows the targets that have one.
        why: the reason that is shown if our number differs.
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
    """A paper: its citation, its claim in one sentence, its targets, and common mistakes of public code."""

    citation: str
    claim: str
    targets: tuple[Target, ...]
    pitfalls: tuple[str, ...] = ()

    def __post_init__(self):
        keys = [target.key for target in self.targets]
        if len(set(keys)) < len(keys):
            raise ValueError(f"targets: each key must stand once, got {keys}")


class Judgement(NamedTuple):
    """Two verdicts: our number against the exact value, and the source against our number; None if there is none."""

    exact: str | None
    source: str | None

    @property
    def overall(self) -> str:
        """The verdict of a row. If our number is wrong, the verdict on the source does not matter."""
        return self.exact if self.source is None or self.exact == Verdict.WRONG else self.source


def judge(target: Target, ours: Measured, *, tiny: bool = False) -> Judgement:
    """Judge whether our number is right, and whether the source of the target agrees with it.

    Args:
        tiny: whether the run is a tiny one. It judges only numbers that are not sampled and have an exact value,
            because all others depend on its size.

    Raises:
        ValueError: the target has neither a published nor an exact value.
    """
    exact = target.exact if ours.exact is None else ours.exact
    has_source = target.published is not None or isinstance(target.rule, Above)
    if not has_source and exact is None:
        raise ValueError(f"{target.key}: needs a published or an exact value, and has neither")
    if tiny and (ours.stderr > 0 or exact is None):
        unjudged = verdicts.say(Verdict.NOT_JUDGED, verdicts.TINY_RUN)
        return Judgement(exact=None if exact is None else unjudged, source=unjudged if has_source else None)
    right = None
    if exact is not None:
        slack = target.exact_tolerance * max(1.0, abs(exact))
        right = verdicts.against_exact(ours.value, ours.stderr, exact, z=4.5, tolerance=slack * (ours.stderr == 0))
    if has_source:
        expected = None if target.published is None else number(target.published)
        holds = target.rule.holds(ours, expected, target.published)
        return Judgement(exact=right, source=verdicts.against_source(holds, target.provenance))
    if right == Verdict.AGREES and not target.rule.holds(ours, exact, None):
        # If a sample misses the rule by a little, that does not prove an error.
        right = Verdict.NOT_AS_EXPECTED if ours.stderr > 0 else Verdict.WRONG
    return Judgement(exact=right, source=None)


def in_order(targets: Iterable[Target]) -> list[Target]:
    """Sort targets: published numbers, remembered numbers, mathematical facts, references of our own."""
    behind = ("mem", None, "own")
    place = lambda source: -1 if source in verdicts.PUBLISHED else behind.index(source)
    return sorted(targets, key=lambda target: place(target.provenance))


def check(
    recorder: Recorder, paper: Paper, measured: Mapping[str, Measured], *, left_out: Collection[str] = ()
) -> dict[str, str]:
    """Add a row for every target, a note for each target that differs, and the file `paper.json`.

    Targets that are missing in `measured` are recorded as not measured.

    Args:
        left_out: keys of the targets that this run does not cover; they get no row.

    Returns:
        key → verdict, in the order of the rows.

    Raises:
        ValueError: a measured number belongs to no target.
    """
    unknown = set(measured) - {target.key for target in paper.targets}
    if unknown:
        raise ValueError(f"measured: no target is called {', '.join(sorted(unknown))}")
    tiny, found, lines, contradictions = verdicts.is_tiny(recorder), {}, [], []
    for target in in_order(target for target in paper.targets if target.key not in left_out):
        ours = measured.get(target.key)
        judged = Judgement(None, str(Verdict.NOT_MEASURED)) if ours is None else judge(target, ours, tiny=tiny)
        found[target.key] = judged
        _add_row(recorder, target, ours, judged)
        if verdicts.otherwise(judged.overall):
            name = target.quantity if target.variant is None else f"{target.quantity}, {target.variant}"
            text = f"{name}: {judged.overall}. {target.why or 'We do not know why.'}"
            contradictions.append({"text": text, "provenance": target.provenance, "verdict": judged.overall})
            recorder.note(text)
        if target.headline and ours is not None:
            lines.append(_headline(target, ours, judged))
    for pitfall in paper.pitfalls:
        recorder.note(pitfall)
    overall = {key: judged.overall for key, judged in found.items()}
    described = {"citation": paper.citation, "claim": paper.claim, "pitfalls": paper.pitfalls, "headline": lines}
    described |= {"verdicts": overall, "contradictions": contradictions, "tiny": tiny}
    described["judgements"] = {key: judged._asdict() for key, judged in found.items()}
    text = json.dumps(described, indent=1, ensure_ascii=False)
    recorder.write("paper.json", text)
    return overall


def _add_row(recorder: Recorder, target: Target, ours: Measured | None, judged: Judgement) -> None:
    recorder.row(
        quantity=target.quantity,
        variant=target.variant,
        ours=None if ours is None else ours.value,
        stderr=ours.stderr if ours is not None and ours.stderr > 0 else None,
        exact=_exact(target, ours),
        paper=None if target.published is None else number(target.published),
        printed=_with_allowance(target),
        provenance=target.provenance,
        verdict=judged.source if judged.source is not None else judged.exact,
        against_exact=judged.exact,
    )


def _headline(target: Target, ours: Measured, judged: Judgement) -> dict[str, str | None]:
    return {
        "quantity": target.headline,
        "published": _published(target, _exact(target, ours)),
        "ours": format_number(ours.value, ours.stderr if ours.stderr > 0 else None),
        "verdict": judged.overall,
        "provenance": target.provenance,
    }


def full_size(config: Any, sizes: Mapping[str, Any]) -> Any:
    """`config` with the paper's own sizes if `full` is set, otherwise `config` unchanged.

    Raises:
        UsageError: one of `sizes` was given as an option too.
    """
    if not config.full:
        return config
    for name in sizes:
        default = next(field.default for field in dataclasses.fields(config) if field.name == name)
        if getattr(config, name) != default:
            option = f"--{name.replace('_', '-')}"
            chosen = f"{option} {getattr(config, name)}"
            raise UsageError(f"{chosen} and --full exclude each other, because --full sets {option}; leave one out.")
    return dataclasses.replace(config, **sizes)


def _with_allowance(target: Target) -> str | None:
    """The number as printed, with the error that its rule allows: `0.412 ± 0.053`, `−1 (± 0.1 allowed)`."""
    rule = target.rule
    if target.published is None:
        return None
    if isinstance(rule, Near):
        return f"{target.published} (± {rule.delta:g} allowed)"
    if isinstance(rule, Within) and rule.published_stderr:
        return f"{target.published} ± {rule.published_stderr:.2g}"
    return target.published


def _exact(target: Target, ours: Measured | None) -> float | None:
    return target.exact if ours is None or ours.exact is None else ours.exact


def _published(target: Target, exact: float | None) -> str:
    if target.published is not None:
        return target.published + reports.PROVENANCE_MARKS.get(target.provenance, "")
    if isinstance(target.rule, Above):
        return {None: "expected", "own": "expected", "mem": "claimed (unverified)"}.get(target.provenance, "claimed")
    return f"{format_number(exact)} (exact)"
