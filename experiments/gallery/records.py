"""The records of what the page shows: runs, the questions that they answer, and groups of questions."""

import dataclasses
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class Record:
    """One run that the page shows.

    Attributes:
        name: of its file, `experiments/figures/NAME.json`.
        question: `experiments.QUESTION` makes it.
        options: the options of the command that are not the default.
        figures: name of the figure on the page → its name in the run's directory; both without an ending.
        frames: name of a picture on the page → the animation in the run's directory of which it is a frame.
    """

    name: str
    question: str
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    figures: Mapping[str, str] = dataclasses.field(default_factory=dict)
    frames: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def command(self) -> str:
        """What repeats the run, as it is typed."""
        words = ["python", "-m", f"experiments.{self.question}"]
        for option, value in self.options.items():
            words += [f"--{option.replace('_', '-')}", *map(str, value if isinstance(value, tuple) else (value,))]
        return " ".join(words)


@dataclasses.dataclass(frozen=True)
class Section:
    """A question; its title and its claim are those of the experiment's header.

    Attributes:
        records: the runs that answer it.
        reading: what to look for, without any measured number, which would go stale here.
    """

    records: tuple[Record, ...]
    reading: str

    @property
    def question(self) -> str:
        return self.records[0].question


@dataclasses.dataclass(frozen=True)
class Group:
    """Questions that belong together, under one heading."""

    title: str
    sections: tuple[Section, ...]
