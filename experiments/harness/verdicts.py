"""The verdicts of all experiments: the words, their meanings, their colours, and the rules that choose them.

The `verdict` of a row is one of the words, or a word and its subject: `agrees`, `not as expected: aim ≥ 1.5`.
There are two separate questions. Is our number the exact value? Does the publication agree with our number? Only two
results are red: our number is not the exact value, or our results contradict a published number or claim. A deviation
from something that was never published, such as a reference of our own or an expectation, is grey.
"""

import enum
from collections.abc import Iterable
from typing import Any, Literal

Colour = Literal["good", "bad", "neutral"]

# Sources that a reader can look up. A remembered number ("mem") and a reference of our own ("own") are not among them.
PUBLISHED = ("text", "code", "card")
TINY_RUN = "tiny run"
TINY_NOTICE = (
    "This is a tiny run. It shows that everything works, and it claims nothing: "
    "numbers that depend on its size are not judged."
)


class Verdict(enum.StrEnum):
    """A word, the sentence that explains it, and the class of its colour."""

    meaning: str
    colour: Colour

    def __new__(cls, word: str, colour: Colour, meaning: str) -> "Verdict":
        verdict = str.__new__(cls, word)
        verdict._value_, verdict.colour, verdict.meaning = word, colour, meaning
        return verdict

    AGREES = "agrees", "good", "Our number agrees with the number in its row, within the rule of that row."
    DIFFERS = "differs", "bad", "Our results contradict a published number or a published claim."
    WRONG = "wrong", "bad", "Our number is not the exact value, so our code is at fault."
    NOT_AS_EXPECTED = (
        "not as expected",
        "neutral",
        "Our results contradict something that was never published: a reference of our own, a remembered number, an "
        "aim or an expectation.",
    )
    NOT_JUDGED = "not judged", "neutral", "This run shows the number and does not judge it."
    NOT_MEASURED = "not measured", "neutral", "This run did not measure the number."


OTHERWISE = (Verdict.DIFFERS, Verdict.WRONG, Verdict.NOT_AS_EXPECTED)


def say(verdict: Verdict, subject: str = "") -> str:
    """The word and its subject: `agrees: unbiased`."""
    return f"{verdict}: {subject}" if subject else str(verdict)


def word_of(text: str) -> Verdict:
    """The word with which the verdict of a row begins.

    Raises:
        ValueError: the text begins with another word.
    """
    word = text.partition(": ")[0]
    try:
        return Verdict(word)
    except ValueError:
        raise ValueError(f"verdict: must begin with one of {', '.join(Verdict)}, got {text!r}") from None


def colour_of(text: str) -> Colour:
    """The class of the colour of a verdict; "neutral" also for unknown words, which older results contain."""
    try:
        return word_of(text).colour
    except ValueError:
        return "neutral"


def otherwise(text: str) -> bool:
    """Whether a verdict says that a result is not as stated, in red or in grey."""
    return word_of(text) in OTHERWISE


def is_tiny(recorder: Any) -> bool:
    """Whether the recorded run is a tiny one, which claims nothing."""
    return getattr(recorder, "tiny", False)


def against_exact(
    ours: float, stderr: float, exact: float, *, z: float = 4.0, tolerance: float = 0.0, tiny: bool = False
) -> str:
    """Whether our number is the exact value, |ours − exact| ≤ z·stderr + tolerance; a NaN is wrong.

    Args:
        tiny: whether the run is a tiny one, which does not judge sampled numbers, whose `stderr` is above 0.
    """
    if tiny and stderr > 0:
        return say(Verdict.NOT_JUDGED, TINY_RUN)
    return str(Verdict.AGREES if abs(ours - exact) <= z * stderr + tolerance else Verdict.WRONG)


def against_source(holds: bool, provenance: str | None) -> Verdict:
    """The verdict on the statement of a source. It differs only from a published source, see `PUBLISHED`."""
    if holds:
        return Verdict.AGREES
    return Verdict.DIFFERS if provenance in PUBLISHED else Verdict.NOT_AS_EXPECTED


def of_aim(reached: bool, aim: str, spread: str = "", *, tiny: bool = False) -> str:
    """Whether an aim of our own was reached: `agrees: aim ≥ 1; 0.90 to 1.30`. A tiny run does not judge it."""
    verdict = Verdict.NOT_JUDGED if tiny else against_source(reached, None)
    return say(verdict, "; ".join(filter(None, [TINY_RUN * tiny, f"aim {aim}", spread])))


def of_bias(finding: str, *, tiny: bool = False) -> str:
    """The verdict on what the laboratory found of an estimator's bias, beside what the estimator says of itself.

    Args:
        finding: "unbiased", "biased: REASON", "NOT FINITE", "DIFFERS: HOW", "stated bias not resolved", …
        tiny: whether the bias was sampled in a tiny run, which does not judge it.
    """
    if tiny:
        return say(Verdict.NOT_JUDGED, TINY_RUN)
    if finding.startswith(("NOT FINITE", "DIFFERS")):
        return say(Verdict.WRONG, finding.removeprefix("DIFFERS: ").lower())
    undecided = finding.startswith("stated bias not resolved") or finding.split(" (")[0] == "biased"
    return say(Verdict.NOT_JUDGED if undecided else Verdict.AGREES, finding)


def tally(found: Iterable[str]) -> str:
    """Count the verdicts: `28 of 30 agree, 1 differs, 1 not as expected; 4 not judged`."""
    words = [word_of(text) for text in found]
    others = [verdict for verdict in (Verdict.NOT_JUDGED, Verdict.NOT_MEASURED) if verdict in words]
    judged = len(words) - sum(words.count(verdict) for verdict in others)
    plural = {Verdict.DIFFERS: "differ"}
    counted = lambda verdicts: [
        f"{count} {plural.get(verdict, verdict) if count > 1 else verdict}"
        for verdict in verdicts
        if (count := words.count(verdict))
    ]
    first = [f"{words.count(Verdict.AGREES)} of {judged} agree", *counted(OTHERWISE)] if judged else []
    return "; ".join(filter(None, [", ".join(first), ", ".join(counted(others))]))


def colour_of_all(found: Iterable[str]) -> Colour:
    """The colour of many verdicts together: red if one is red, otherwise green if one agrees, otherwise grey."""
    colours = set(map(colour_of, found))
    return next((colour for colour in ("bad", "good") if colour in colours), "neutral")


def legend(found: Iterable[str | None]) -> list[str]:
    """The explanations of all words that occur among the verdicts."""
    begun = [text.partition(": ")[0] for text in found if text]
    return [f"`{verdict}`: {verdict.meaning}" for verdict in Verdict if verdict in begun]
