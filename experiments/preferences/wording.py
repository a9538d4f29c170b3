"""The sentences that the page and the terminal both show, and texts of answers made safe to show."""

import unicodedata

from experiments.preferences.session import Plan, Progress

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


def visible(text: str) -> str:
    """The text with a sign in the place of every character that would not be seen or would change what is around it.

    Control characters become the pictures of Unicode (ESC → ␛), and characters that only format become `<U+202E>`.
    Line breaks and tabs stay.
    """
    return "".join(map(_visible, text))


def _visible(character: str) -> str:
    if character in "\n\t":
        return character
    if ord(character) < 32:
        return chr(0x2400 + ord(character))
    if character == "\x7f":
        return "␡"
    kind = unicodedata.category(character)
    # Joiners belong to the spelling of some scripts and to emoji.
    if kind in ("Cc", "Cf", "Zl", "Zp", "Co", "Cn") and character not in "\u200c\u200d":
        return f"<U+{ord(character):04X}>"
    return character


def progress(found: Progress) -> str:
    skipped = f", {found.skipped} skipped" if found.skipped else ""
    return f"{found.done} of {found.total} answered{skipped}"


def plan(found: Plan, labels: int, target: float, of: str = "you") -> str:
    """How many labels are still needed, in two or three sentences.

    Args:
        of: who answers: "you", or a noun such as "the annotator".
    """
    whose, have = ("your", "You have") if of == "you" else (f"{of}'s", f"{of.capitalize()} has")
    if found.low is None:
        basis = f"If {whose} answers to {found.share:.0%} of the pairs that are asked twice agree"
        basis += f" (an assumption: {found.repeats} pairs were asked twice until now)"
    else:
        basis = f"{whose.capitalize()} answers to {found.share:.0%} of the {found.repeats} pairs that were asked twice"
        basis += f" agree (95 % interval {found.low:.0%} to {found.high:.0%}). At this rate"
    number = f"more than {found.most}" if found.needed is None else f"about {found.needed}"
    between = "" if found.low is None else f" ({_range(found)})"
    goal = f"a reward model is expected to reach {target:.0%} accuracy with {number} labels{between}"
    missing = None if found.needed is None else found.needed - labels
    rest = "" if missing is None else f": about {missing} more are needed" if missing > 0 else ", which is enough"
    return f"{basis}, {goal}. {have} given {labels}{rest}."


def _range(found: Plan) -> str:
    most = f"more than {found.most}" if found.most_needed is None else str(found.most_needed)
    fewest = f"more than {found.most}" if found.fewest is None else str(found.fewest)
    return f"between {fewest} and {most}" if fewest != most else fewest
