"""`museum.md`: the exhibits for a visitor who wants to read, not to compute."""

from collections.abc import Mapping

from experiments.harness.runner import format_number
from experiments.wrong_reinforce.measurements import Found
from experiments.wrong_reinforce.museum import Exhibit
from experiments.wrong_reinforce.twins import TWINS

INTRODUCTION = """\
# A museum of wrong REINFORCEs

Every loss below is minimised, so the estimate ĝ is minus its gradient, and a right one has E[ĝ] = ∇ρ(θ), whatever its
noise. *Length* is E[ĝ]·∇ρ / ‖∇ρ‖², *cosine* says whether the direction is right, *bias* is ‖E[ĝ] − ∇ρ‖ / ‖∇ρ‖: right
code has 1, 1, 0. All numbers are exact, at one policy of one small problem; the words hold in general. In the code
`e` is a finished episode, or a batch, with `log_probs`, `rewards`, `length` L, padded with zeros; `to_go(rewards)` is
G_t, t counts from 1, and an arrow marks the line that is accused."""


def write(
    exhibits: Mapping[str, Exhibit],
    found: Mapping[str, Found],
    twins: Mapping[str, Found],
    verdicts: Mapping[str, str],
) -> str:
    """The page, in Markdown: a table of all, then a card for each."""
    wrong = [name for name, exhibit in exhibits.items() if not exhibit.innocent]
    innocent = [name for name in exhibits if name not in wrong]
    parts = [INTRODUCTION]
    for title, names in (("Wrong", wrong), ("Accused, and innocent", innocent)):
        if names:
            cards = [card(name, exhibits[name], found[name], twins[exhibits[name].twin]) for name in names]
            parts += [f"## {title}", table({name: exhibits[name] for name in names}, found, verdicts), *cards]
    return "\n\n".join(parts) + "\n"


def table(exhibits: Mapping[str, Exhibit], found: Mapping[str, Found], verdicts: Mapping[str, str]) -> str:
    lines = [["exhibit", "the line", "what it climbs", "length", "cosine", "bias", "verdict"], ["---"] * 7]
    for name, exhibit in exhibits.items():
        numbers = (found[name].ratio, found[name].cosine, found[name].bias)
        lines.append([name, f"`{exhibit.line}`", exhibit.climbs, *map(_rounded, numbers), verdicts[name]])
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)


def card(name: str, exhibit: Exhibit, found: Found, twin: Found) -> str:
    """One exhibit: the line, why it looks right, what happens, how to mend it, where it was seen."""
    facts = f"length {_rounded(found.ratio)}, cosine {_rounded(found.cosine)}, bias {_rounded(found.bias)}"
    predicted = (
        "no closed form is known to us"
        if found.miss is None
        else f"predicted {format_number(found.predicted_ratio)} along ∇ρ and {_rounded(found.predicted_bias)} off it"
    )
    noise = (
        f"tr Var {format_number(found.variance / twin.variance, digits=3)} times its right twin's"
        if twin.variance > 0
        else ""
    )
    bias = format_number(twin.bias, digits=1)
    accused = "Why it was accused" if exhibit.innocent else "Why it looks right"
    return "\n".join(
        [
            f"### {name}",
            "",
            f"```python\n{exhibit.source}\n```",
            "",
            f"- {accused}: {exhibit.looks_right}",
            f"- What it climbs: {exhibit.climbs}.",
            f"- Measured: {facts}; {predicted}; {noise}.",
            f"- How to mend it: {exhibit.mend}",
            f"- Right twin: `make_estimator` with `{TWINS[exhibit.twin].label}`, bias {bias}.",
            f"- Seen in: {exhibit.seen}.",
        ]
    )


def _rounded(value: float) -> str:
    return format_number(value if abs(value) > 5e-10 else 0.0, digits=4)
