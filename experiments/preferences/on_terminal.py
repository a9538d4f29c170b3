"""The same questions in a terminal: one letter and Enter, so that it works on every terminal, and also from a pipe."""

import shutil
import textwrap
import time

from experiments.preferences import wording
from experiments.preferences.labels import VERDICTS
from experiments.preferences.session import Session
from experiments.preferences.trials import Trial
from pgjax.preferences import RecordError

LINES = {key: wording.MEANINGS[meaning] for key, meaning in wording.KEYS.items()}


def ask(session: Session, question: str) -> None:
    """Ask until no pair is left, or until `q`, Ctrl-C or the end of the input.

    Every answer is on the disk before the next pair appears, so that the person can leave at any time.
    """
    while (trial := session.current()) is not None:
        try:
            show(session, trial, question)
            key, seconds = _key()
        except (KeyboardInterrupt, EOFError):
            print()
            return
        if key == "q":
            return
        try:
            act(session, trial, key, seconds)
        except (OSError, RecordError) as error:
            print(f"The answer was not saved: {error}. The pair is asked again.")


def act(session: Session, trial: Trial, key: str, seconds: float) -> None:
    """Do what the key means: save an answer, skip, or take the last one back."""
    meaning = wording.KEYS[key]
    if meaning == "undo":
        print("The last answer is undone." if session.undo() is not None else "There is no answer to undo.")
    elif meaning == "skip":
        session.skip(trial.name)
    else:
        assert meaning in VERDICTS
        session.answer(trial.name, meaning, seconds)


def show(session: Session, trial: Trial, question: str) -> None:
    """Print the prompt and both answers, in lines that fit the terminal."""
    width = max(20, min(100, shutil.get_terminal_size().columns))
    print(f"\n{'-' * width}\n{wording.progress(session.progress())}\n")
    print(_block("Prompt", trial.pair.prompt, width))
    for number, answer in enumerate(trial.shown, start=1):
        print(_block(f"[{number}]", answer, width))
    print(textwrap.fill(question, width))
    choices = ", ".join(f"{key} = {meaning.lower()}" for key, meaning in LINES.items())
    print(textwrap.fill(f"{choices}, q = stop", width))


def _block(title: str, text: str, width: int) -> str:
    """A text with its title, broken into lines without losing a blank."""
    lines = wording.visible(text).expandtabs(4).split("\n")
    broken = [line[start : start + width - 4] for line in lines for start in range(0, max(1, len(line)), width - 4)]
    return "\n".join([title, *(f"    {line}" for line in broken), ""])


def _key() -> tuple[str, float]:
    """One of the keys, and the seconds until it was typed."""
    start = time.monotonic()
    while True:
        typed = input("> ").strip().lower()
        if typed in LINES or typed == "q":
            return typed, time.monotonic() - start
        print(f"Type one of {', '.join(LINES)}, q, and then Enter.")
