"""`museum.md`: a page that shows and explains the exhibits."""

from collections.abc import Mapping

from experiments.harness.runner import format_number
from experiments.wrong_reinforce.measurements import Found
from experiments.wrong_reinforce.museum import Exhibit
from experiments.wrong_reinforce.twins import TWINS

INTRODUCTION = """\
# A museum of wrong REINFORCEs

Every loss below is minimised, so the estimate ĝ is minus its gradient. A right estimate has E[ĝ] = ∇ρ(θ), however noisy
it is. *Length* is E[ĝ]·∇ρ / ‖∇ρ‖², *cosine* is that of E[ĝ] and ∇ρ, *bias* is ‖E[ĝ] − ∇ρ‖ / ‖∇ρ‖; right code has 1, 1
and 0. All numbers are exact, for one policy of one small problem; the explanations hold in general. In the code `e` is
a finished episode, or a batch, with `log_probs`, `rewards` and `length` L, padded with zeros. `to_go(rewards)` is G_t,
t counts from 1, and an arrow marks the line in question."""


def write(
    exhibits: Mapping[str, Exhibit],
    found: Mapping[str, Found],
    twins: Mapping[str, Found],
    verdicts: Mapping[str, str],
) -> str:
    """The page in Markdown: for wrong and for innocent exhibits a table, then a card for each."""
    wrong = [name for name, exhibit in exhibits.items() if not exhibit.innocent]
    innocent = [name for name in exhibits if name not in wrong]
    parts = [INTRODUCTION]
    for title, names in (("Wrong", wrong), ("Called wrong, but right on average", innocent)):
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
    """The card of one exhibit: the line, why it looks right, what happens, how to mend it, where it was seen."""
    facts = f"length {_rounded(found.ratio)}, cosine {_rounded(found.cosine)}, bias {_rounded(found.bias)}"
    predicted = (
        "we know no closed form"
        if found.miss is None
        else f"predicted {format_number(found.predicted_ratio)} along ∇ρ and {_rounded(found.predicted_bias)} off it"
    )
    noise = (
        f"tr Var {format_number(found.variance / twin.variance, digits=3)} times its right twin's"
        if twin.variance > 0
        else ""
    )
    bias = format_number(twin.bias, digits=1)
    accused = "Why it was called wrong" if exhibit.innocent else "Why it looks right"
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
