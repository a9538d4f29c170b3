"""What a file of labels says about a pair, and the record that is written for an answer of a person."""

import contextlib
import datetime
import pathlib
import warnings
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from experiments.harness.directories import UsageError
from experiments.preferences import pairs
from experiments.preferences.trials import Trial
from pgjax.preferences import Preference, RecordError, records

Verdict = Literal["first", "second", "equal", "both_bad"]
VERDICTS: tuple[Verdict, ...] = ("first", "second", "equal", "both_bad")
# What the two answers of a pair say of their origin; one entry if they agree, else one for each.
SHARED = ("policy", "seed", "step")


def record_of(trial: Trial, verdict: Verdict, seconds: float, annotator: str) -> Preference:
    """The record of an answer. `first` and `second` are the places on the screen.

    Beside the fields of `Preference`, the record says which answer was shown first, whether the pair was shown again,
    and when it was answered.
    """
    one, other = trial.pair.origins
    origins = (other, one) if trial.exchanged else (one, other)
    picked = 1 if verdict == "second" else 0
    chosen, rejected = origins[picked], origins[1 - picked]
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    extra = {"shown_first": "rejected" if picked else "chosen", "repeat": bool(trial.occurrence), "time": now}
    fields: dict[str, Any] = {}
    for name in SHARED:
        if chosen.get(name) == rejected.get(name):
            fields |= {name: chosen[name]} if name in chosen else {}
        else:
            found = {f"{name}_chosen": chosen.get(name), f"{name}_rejected": rejected.get(name)}
            extra |= {key: value for key, value in found.items() if value is not None}
    return Preference(
        prompt=trial.pair.prompt,
        chosen=trial.shown[picked],
        rejected=trial.shown[1 - picked],
        tie=verdict if verdict in ("equal", "both_bad") else None,
        annotator=annotator,
        time_s=round(seconds, 2),
        logp_chosen=chosen.get("logp"),
        logp_rejected=rejected.get("logp"),
        **fields,
        extra=extra,
    )


def name_of(record: Preference) -> str:
    """The name of the pair that the record compares: see `pairs.Pair.name`."""
    return pairs.name_of(record.prompt, record.chosen, record.rejected)


def category(record: Preference) -> int:
    """0 and 1: the answer that comes first or second in alphabetical order is better; 2: equal; 3: both are bad."""
    if record.tie is not None:
        return 2 if record.tie == "equal" else 3
    return int(record.chosen > record.rejected)


def policies(record: Preference) -> tuple[str | None, str | None]:
    """The names of the policies that wrote the chosen and the rejected answer, where the record tells them."""
    return (
        record.extra.get("policy_chosen", record.policy),
        record.extra.get("policy_rejected", record.policy),
    )


def by_annotator(found: Iterable[Preference]) -> dict[str, dict[str, list[int]]]:
    """Annotator → name of the pair → the categories of all judgements of this pair, in the order of the file."""
    judged: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for record in found:
        judged[record.annotator or "(no name)"][name_of(record)].append(category(record))
    return judged


def twice(judged: Mapping[str, Sequence[int]]) -> tuple[list[int], list[int]]:
    """The first and the second judgement of every pair that one annotator judged more than once."""
    found = [categories for categories in judged.values() if len(categories) > 1]
    return [one[0] for one in found], [one[1] for one in found]


@contextlib.contextmanager
def refused() -> Iterator[None]:
    """Within this block an error of a file of labels becomes a `UsageError`, which ends the command with one line."""
    try:
        yield
    except RecordError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{error.filename}: {error.strerror}") from error


def read(path: pathlib.Path, *, repair: bool = False) -> tuple[list[Preference], list[str]]:
    """The records of a file, and what had to be repaired, in words.

    Raises:
        UsageError: the file cannot be read.
    """
    with refused(), warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", records.CutLineWarning)
        found = records.read(path, repair=repair)
    return found, [str(one.message) for one in told]
