"""`collect`: the options become trials, and the trials are asked on the page or in the terminal."""

import contextlib
import signal
import sys
import webbrowser
from typing import TYPE_CHECKING, Any

from experiments.harness import interruption
from experiments.harness.directories import UsageError
from experiments.preferences import examples, labels, on_terminal, pairs, trials, wording
from experiments.preferences.server import Server
from experiments.preferences.session import Session

if TYPE_CHECKING:
    from experiments.preferences import Collect

EXAMPLES = 200
MOST_FEATURES = 256


def validate(asked: "Collect") -> None:
    """Refuse options outside their ranges.

    Raises:
        UsageError: names the option, its value and what is allowed.
    """
    rules = [
        ("port", 0 <= asked.port <= 65535, "between 0 and 65535"),
        ("repeat-share", 0 <= asked.repeat_share <= 0.5, "between 0 and 0.5"),
        ("limit", asked.limit is None or asked.limit >= 1, "at least 1"),
        ("annotator", bool(asked.annotator.strip()) and asked.annotator.isprintable(), "a name of visible characters"),
        ("question", bool(asked.question.strip()), "a question"),
    ]
    for option, allowed, words in rules:
        if not allowed:
            value = getattr(asked, option.replace("-", "_"))
            raise UsageError(f"--{option} {value}: must be {words}")
    validate_plan(asked.target, asked.features)


def validate_plan(target: float, features: int) -> None:
    """Refuse what the prediction of needed labels cannot take."""
    if not 0.5 < target < 1:
        raise UsageError(f"--target {target}: must lie between 0.5 and 1, both excluded")
    if not 1 <= features <= MOST_FEATURES:
        raise UsageError(f"--features {features}: must be between 1 and {MOST_FEATURES}")


def collect(asked: "Collect") -> None:
    """Ask until all pairs are answered or the person ends it."""
    validate(asked)
    ordered = ordered_trials(asked)
    plan = {"target": asked.target, "features": asked.features}
    with Session(ordered, asked.labels, asked.annotator, **plan) as session, _terminated():
        for repair in session.repaired:
            print(f"repaired: {repair}")
        if asked.terminal:
            on_terminal.ask(session, asked.question)
        else:
            serve(session, asked)
        finish(session)


def ordered_trials(asked: "Collect") -> list[trials.Trial]:
    """The trials of the file of pairs, or of example pairs, which are made and kept in a file beside the labels."""
    path = asked.pairs
    if path is None:
        path = asked.labels.with_name("example-pairs.jsonl")
        if not path.exists():
            with labels.refused():
                pairs.write(path, examples.make(EXAMPLES, seed=0))
        print(f"Without --pairs, the pairs are examples from Python's documentation: {path}")
    found = trials.order(pairs.read(path), asked.seed, 0.0)
    kept = [trial.pair for trial in found[: asked.limit]]
    return trials.order(kept, asked.seed, asked.repeat_share)


def serve(session: Session, asked: "Collect") -> None:
    """Show the page until Ctrl-C or SIGTERM."""
    try:
        server = Server(session, asked.question, asked.port)
    except OSError as error:
        raise UsageError(
            f"--port {asked.port}: the port cannot be used ({error.strerror}); 0 takes a free one"
        ) from error
    with server.running():
        print(f"Open {server.url} in a browser on this computer. End with Ctrl-C.", flush=True)
        if asked.open:
            webbrowser.open(server.url)
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause() if hasattr(signal, "pause") else _wait()


def _wait() -> None:
    import time

    while True:
        time.sleep(0.2)


def finish(session: Session) -> None:
    """Say what is saved, and what can be done with it."""
    progress = session.progress()
    print(f"\n{wording.progress(progress)}; {progress.labels} labels of {session.annotator} in {session.path}")
    if progress.labels:
        print(wording.plan(session.plan(), progress.choices, session.target))
        print(f"Summary: python -m experiments.preferences inspect {session.path}")
    sys.stdout.flush()


@contextlib.contextmanager
def _terminated():
    """SIGTERM, which a cluster sends before it kills, closes the session like Ctrl-C."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(interruption.EX_TEMPFAIL)

    previous = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
