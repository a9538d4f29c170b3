"""Pairs of answers that wait for a person: read from a JSONL file, or made from plain text where there is no file.

One JSON object per line:

    {"prompt": "The value", "answers": ["is an integer.", "tnis vlaue "], "policy": "run-3", "seed": 0, "step": 40, "logp": [-31.2, -40.9]}

`answers` lists two or more answers; `answer1` and `answer2`, or `chosen` and `rejected`, may stand in its place. The
other fields say where the answers come from and may be left out: `policy`, `seed` and `step` are one value, or a list
with one value for each answer; `logp` is such a list of log-probabilities.
"""  # noqa: E501

import dataclasses
import hashlib
import itertools
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from experiments.harness.directories import UsageError
from pgjax import _json, writing
from pgjax._limits import read_whole
from pgjax._shown import shown

LONGEST_TEXT = 20_000  # characters of a prompt or of an answer: nobody compares longer ones
LARGEST_FILE = 64 * 2**20  # bytes
MOST_ANSWERS = 100  # to one prompt, which make 4950 pairs
MOST_PAIRS = 1_000_000
PROVENANCE = ("policy", "seed", "step", "logp")
OTHER_NAMES = (("answer1", "answer2"), ("chosen", "rejected"))


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two answers to one prompt.

    Attributes:
        prompt, answers: the texts.
        origins: for each of the two answers, where it comes from: `policy`, `seed`, `step`, `logp`, where known.
    """

    prompt: str
    answers: tuple[str, str]
    origins: tuple[Mapping[str, Any], Mapping[str, Any]] = dataclasses.field(default=({}, {}), hash=False)

    @property
    def name(self) -> str:
        """The same 16 hexadecimal digits wherever these two answers are compared, whichever is listed first."""
        return name_of(self.prompt, *self.answers)


def name_of(prompt: str, one: str, other: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of the prompt and of the two answers in alphabetical order."""
    text = json.dumps([prompt, *sorted((one, other))])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read(path: pathlib.Path) -> list[Pair]:
    """Every pair of different answers in a file; k answers make k (k − 1) / 2 pairs. A pair is listed once.

    Raises:
        UsageError: the file or one of its lines cannot be read, or the file holds no pair. The message names the line.
    """
    try:
        lines = read_whole(path, LARGEST_FILE).decode("utf-8-sig").split("\n")
    except ValueError as error:
        reason = "the file is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else str(error)
        raise UsageError(f"--pairs {path}: {reason}; without --pairs the command makes example pairs itself") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                record = _json.loads(line, digits=20)
                found |= {pair.name: pair for pair in pairs_of(record) if pair.name not in found}
            except ValueError as error:
                raise UsageError(f"--pairs {path}: line {number}: {error}") from error
            if len(found) > MOST_PAIRS:
                raise UsageError(f"--pairs {path}: line {number}: must hold at most {MOST_PAIRS} pairs up to here")
    if not found:
        raise UsageError(f"--pairs {path}: must hold at least one prompt with two different answers")
    return list(found.values())


def pairs_of(record: Any) -> Iterator[Pair]:
    """Every pair of different answers in one record.

    Raises:
        ValueError: the record lacks a field, or a field has the wrong type or size.
    """
    if not isinstance(record, dict):
        raise ValueError(f"must be a JSON object, got {type(record).__name__}")
    prompt, answers = _text("prompt", record.get("prompt")), _answers(record)
    origins = [_origin(record, index, len(answers)) for index in range(len(answers))]
    for i, j in itertools.combinations(range(len(answers)), 2):
        if answers[i] != answers[j]:
            yield Pair(prompt=prompt, answers=(answers[i], answers[j]), origins=(origins[i], origins[j]))


def _answers(record: Mapping[str, Any]) -> list[str]:
    answers = record.get("answers")
    for names in OTHER_NAMES:
        if answers is None and all(name in record for name in names):
            answers = [record[name] for name in names]
    if not isinstance(answers, list) or len(answers) < 2:
        raise ValueError("the field answers must list two or more answers")
    if len(answers) > MOST_ANSWERS:
        raise ValueError(f"the field answers must list at most {MOST_ANSWERS} answers, got {len(answers)}")
    return [_text("answers", answer) for answer in answers]


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"the field {name} must hold text, got {type(value).__name__}")
    if len(value) > LONGEST_TEXT:
        raise ValueError(f"the field {name} must hold at most {LONGEST_TEXT} characters a text, got {len(value)}")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError(f"the field {name} holds half a character (a lone surrogate)")
    return value


def _origin(record: Mapping[str, Any], index: int, count: int) -> dict[str, Any]:
    """Where one of `count` answers comes from."""
    origin = {}
    for name in PROVENANCE:
        value = record.get(name)
        if isinstance(value, list):
            if len(value) != count:
                raise ValueError(f"the field {name} must have one value for each of {count} answers, got {len(value)}")
            value = value[index]
        elif name == "logp" and value is not None:
            raise ValueError("the field logp must be a list with one number for each answer")
        if value is not None:
            origin[name] = _value(name, value)
    return origin


def _value(name: str, value: Any) -> str | int | float:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if name == "policy" and not isinstance(value, str):
        raise ValueError(f"the field policy must hold a name, got {shown(value)}")
    if name != "policy" and not (number and (name == "logp" or value == int(value))):
        kind = "finite numbers" if name == "logp" else "whole numbers"
        raise ValueError(f"the field {name} must hold {kind}, got {shown(value)}")
    return value


def write(path: pathlib.Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write records of the layout above. The file appears under its name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    writing.replace_file(path, "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records))
