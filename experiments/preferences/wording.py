"""The sentences that the page and the terminal both show, and texts of answers made safe to show."""

import unicodedata

from experiments.preferences.plans import LEAST_REPEATS, Plan
from experiments.preferences.session import Progress

QUESTION = "Which continuation is better?"
KEYS = {
    "1": "first",
    "2": "second",
    "t": "equal",
    "b": "both_bad",
    "s": "skip",
    "u": "undo",
}
MEANINGS = {
    "first": "The first is better",
    "second": "The second is better",
    "equal": "Both are equally good",
    "both_bad": "Both are bad",
    "skip": "Skip this pair",
    "undo": "Undo the last answer",
}
UNSEEN = ("Cc", "Cf", "Cn", "Co", "Zl", "Zp")  # categories of Unicode


def visible(text: str) -> str:
    """The text with `<U+001B>` in the place of a character that is not seen or changes how others are shown.

    These are control characters, characters that only format, private and unassigned ones. Line breaks and tabs stay.
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    # Joiners belong to the spelling of some scripts and to emoji.
    if character in "\n\t\u200c\u200d" or unicodedata.category(character) not in UNSEEN:
        return character
    return f"<U+{ord(character):04X}>"


def progress(found: Progress) -> str:
    skipped = f", {found.skipped} skipped" if found.skipped else ""
    return f"{found.done} of {found.total} answered{skipped}"


def plan(found: Plan, choices: int, target: float, who: str = "you") -> str:
    """How many labels are still needed, in three sentences.

    Args:
        choices: the number of labels until now that prefer one answer.
        who: who answers: "you", or a plural noun such as "the annotators".
    """
    if found.low is None:
        basis = f"The forecast assumes that {who} make the same choice in {found.share:.0%} of the pairs that are asked"
        basis += f" twice; {LEAST_REPEATS} such pairs are needed to measure this, and there are {found.repeats}."
    else:
        basis = f"{who.capitalize()} made the same choice in {found.share:.0%} of the {found.repeats} pairs in which"
        basis += f" {who} chose twice (95 % interval {found.low:.0%} to {found.high:.0%})."
    number = f"more than {found.most}" if found.needed is None else f"about {found.needed}"
    between = "" if found.low is None else f" ({_range(found)})"
    goal = f"A reward model is expected to pick the better answer in {target:.0%} of new pairs after {number} choices"
    missing = None if found.needed is None else found.needed - choices
    rest = "" if missing is None else f": about {missing} more are needed" if missing > 0 else ", which is enough"
    return f"{basis} {goal}{between}. {who.capitalize()} have made {choices}{rest}."


def _range(found: Plan) -> str:
    most = f"more than {found.most}" if found.most_needed is None else str(found.most_needed)
    fewest = f"more than {found.most}" if found.fewest is None else str(found.fewest)
    return f"between {fewest} and {most}" if fewest != most else fewest
