"""The record of one comparison of answers, with its checks."""

import dataclasses
import json
import math
import os
from collections.abc import Mapping
from typing import Any, Literal, get_args

from pgjax._checks import shown

Tie = Literal["equal", "both_bad"]
TIES: tuple[Tie, ...] = get_args(Tie)


class RecordError(ValueError):
    """The error for a wrong record, which may come from a file.

    Attributes:
        key: the name of the wrong entry.
        expected, found: what was expected and what was found, in words.
        file: the file, or None.
        line: the number of the line, counted from 1, or None.
    """

    def __init__(
        self,
        key: str,
        *,
        expected: str,
        found: str,
        file: str | os.PathLike | None = None,
        line: int | None = None,
    ):
        self.key, self.expected, self.found, self.file, self.line = key, expected, found, file, line
        place = "" if line is None else f"line {line}, "
        key, expected, found = shown(key), shown(expected), shown(found)
        super().__init__(f"{'' if file is None else f'{file}: '}{place}{key}: expected {expected}, found {found}")

    def at(self, file: str | os.PathLike, line: int | None) -> "RecordError":
        """The same error with the file and the line."""
        return RecordError(self.key, expected=self.expected, found=self.found, file=file, line=line)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preference:
    """One comparison of answers to a prompt; it is checked when it is made.

    Attributes:
        prompt: the text that was answered; it may be empty.
        chosen, rejected: the better and the worse answer. If `tie` is set, their order has no meaning.
        margin: by how much the chosen answer is better, in units of the reward, or None.
        tie: None if one answer is better; "equal" if both are equally good; "both_bad" if neither is acceptable.
        annotator: who compared, such as a person's pseudonym or the name of a synthetic annotator.
        time_s: how many seconds the annotator needed, at least 0.
        seed, step, policy: the seed of the sampling, the number of updates of the policy, and the name of the policy.
        logp_chosen, logp_rejected: ln π(answer | prompt) of that policy, in nats.
        ranking: two or more answers, the best first. The first must be `chosen`, and another one `rejected`.
        places: how many first places of `ranking` are known; the later answers are in no order. A choice of the best
            of k answers has `places=1`. None means that the whole order is known.
        extra: all entries of the file that have none of these names. They are kept and written again.

    Raises:
        RecordError: if an entry has a wrong type or value.

    Example:
        >>> from pgjax.preferences import Preference
        >>> Preference(prompt="2 + 2 =", chosen=" 4", rejected=" 5", annotator="ada").as_json()
        {'prompt': '2 + 2 =', 'chosen': ' 4', 'rejected': ' 5', 'annotator': 'ada'}
    """

    prompt: str
    chosen: str
    rejected: str
    margin: float | None = None
    tie: Tie | None = None
    annotator: str | None = None
    time_s: float | None = None
    seed: int | None = None
    step: int | None = None
    policy: str | None = None
    logp_chosen: float | None = None
    logp_rejected: float | None = None
    ranking: tuple[str, ...] | None = None
    places: int | None = None
    extra: Mapping[str, Any] = dataclasses.field(default_factory=dict, hash=False)

    def __post_init__(self):
        if isinstance(self.ranking, list):
            object.__setattr__(self, "ranking", tuple(self.ranking))
        for name in ("prompt", "chosen", "rejected"):
            _require_text(name, getattr(self, name))
        for name, check in _OPTIONAL.items():
            if (value := getattr(self, name)) is not None:
                check(name, value)
        _check_ranking(self)
        _check_extra(self.extra)

    def as_json(self) -> dict[str, Any]:
        """The entries of a line of a file: those that are not None, then those of `extra`."""
        found = {name: getattr(self, name) for name in NAMES}
        found = {name: list(value) if name == "ranking" and value else value for name, value in found.items()}
        return {name: value for name, value in found.items() if value is not None} | dict(self.extra)


NAMES = tuple(field.name for field in dataclasses.fields(Preference) if field.name != "extra")


def _require_text(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise RecordError(name, expected="a text", found=_described(value))
    try:
        value.encode()
    except UnicodeEncodeError as error:
        # JSON can hold half of a surrogate pair, which is no character and has no bytes in UTF-8.
        code = ord(value[error.start])
        found = f"half a surrogate pair, \\u{code:04x}, at character {error.start}"
        raise RecordError(name, expected="text that UTF-8 can hold", found=found) from error


def _require_number(name: str, value: Any) -> None:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise RecordError(name, expected="a finite number", found=_described(value))


def _require_seconds(name: str, value: Any) -> None:
    _require_number(name, value)
    if value < 0:
        raise RecordError(name, expected="seconds, at least 0", found=_described(value))


def _require_integer(name: str, value: Any) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise RecordError(name, expected="an integer", found=_described(value))


def _require_tie(name: str, value: Any) -> None:
    if value not in TIES:
        raise RecordError(name, expected=f"one of {', '.join(map(repr, TIES))}, or null", found=_described(value))


def _require_ranking(name: str, value: Any) -> None:
    if not isinstance(value, tuple) or len(value) < 2:
        raise RecordError(name, expected="a list of two or more answers", found=_described(value))
    for place, answer in enumerate(value):
        _require_text(f"{name}[{place}]", answer)


_OPTIONAL = {
    "margin": _require_number,
    "tie": _require_tie,
    "annotator": _require_text,
    "time_s": _require_seconds,
    "seed": _require_integer,
    "step": _require_integer,
    "policy": _require_text,
    "logp_chosen": _require_number,
    "logp_rejected": _require_number,
    "ranking": _require_ranking,
    "places": _require_integer,
}


def _check_ranking(record: Preference) -> None:
    if record.ranking is None:
        if record.places is not None:
            raise RecordError("places", expected="a ranking beside it", found="none")
        return
    if record.ranking[0] != record.chosen:
        raise RecordError("ranking[0]", expected="the chosen answer", found=_described(record.ranking[0]))
    if record.rejected not in record.ranking[1:]:
        raise RecordError("ranking", expected="the rejected answer below the first place", found="no such answer")
    most = len(record.ranking) - 1
    if record.places is not None and not 1 <= record.places <= most:
        raise RecordError("places", expected=f"an integer in [1, {most}]", found=_described(record.places))


def _check_extra(extra: Any) -> None:
    if not isinstance(extra, Mapping):
        raise RecordError("extra", expected="a mapping", found=_described(extra))
    for name in extra:
        _require_text("a name in extra", name)
        if name in NAMES:
            raise RecordError("extra", expected="names that are not those of the record", found=shown(name))
    try:
        json.dumps(dict(extra), allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise RecordError("extra", expected="JSON with finite numbers", found=f"{type(error).__name__}") from error


def _described(value: Any) -> str:
    """A value in words for an error: a container by its type and size, everything else by its text."""
    if isinstance(value, list | tuple | dict):
        return f"a {type(value).__name__} of {len(value)}"
    return f"{type(value).__name__} {shown(value)}"
