"""The log of a run, `metrics.jsonl`, one JSON object on each line, and copies of it for TensorBoard and W&B."""

import hashlib
import importlib.util
import json
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

from experiments.harness import reports
from experiments.harness.directories import UsageError
from pgjax import writing

NAME = "metrics.jsonl"
Destination = Literal["tensorboard", "wandb"]
# Destination → the module that it needs, and the extra that installs it.
NEEDS = {"tensorboard": ("tensorboardX", "tensorboard"), "wandb": ("wandb", "wandb")}
COUNTERS = ("update", "updates", "step", "steps", "episodes")


class Copy(Protocol):
    """Something that receives the numbers of each line."""

    def write(self, step: int, numbers: Mapping[str, float]) -> None: ...

    def close(self) -> None: ...


class MetricLog:
    """The lines of `metrics.jsonl`.

    Attributes:
        log: the file.
    """

    def __init__(self, path: pathlib.Path):
        self.log = writing.Log(path)
        self.copies: list[Copy] = []

    def write(self, record: Mapping[str, Any]) -> None:
        """Append one line. NaN and infinities become null."""
        plain = reports.plain(record)
        self.log.append((json.dumps(plain, allow_nan=False) + "\n").encode())
        if self.copies:
            step = next((plain[name] for name in COUNTERS if isinstance(plain.get(name), int)), 0)
            for copy in self.copies:
                copy.write(step, dict(_numbers(plain)))

    def close(self) -> None:
        self.log.close()
        for copy in self.copies:
            copy.close()


def _numbers(record: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """The numbers of a line: `name`, or `name/0`, `name/1`, … of a list over runs."""
    for name, value in record.items():
        values = {f"{name}/{index}": x for index, x in enumerate(value)} if isinstance(value, list) else {name: value}
        for full, x in values.items():
            if isinstance(x, int | float) and not isinstance(x, bool):
                yield full, float(x)


def require_installed(destinations: Sequence[str], option: str = "--log-to") -> None:
    """Check that the packages of the destinations are installed.

    Raises:
        UsageError: one of them is not.
    """
    for destination in destinations:
        module, extra = NEEDS[destination]
        if importlib.util.find_spec(module) is None:
            raise UsageError(f'{option} {destination}: needs {module}; pip install -e ".[{extra}]" installs it')


def make_copy(destination: str, directory: pathlib.Path, run: str, config: Mapping[str, Any], first: int) -> Copy:
    """The copy of a log for `destination`; `first` is the number of the first line's update, above 1 after a resume."""
    if destination == "tensorboard":
        return TensorBoard(directory / "tensorboard", first)
    return WeightsAndBiases(directory, run, config)


class TensorBoard:
    """Event files in `directory`, which `tensorboard --logdir` shows."""

    def __init__(self, directory: pathlib.Path, first: int):
        import tensorboardX

        # Lines of updates that are made again replace those that were written before the interruption.
        self._writer = tensorboardX.SummaryWriter(str(directory), purge_step=first if first > 1 else None)

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


def _identifier(folder: pathlib.Path, run: str) -> str:
    """An id for W&B, the same for every attempt of a run and another one for a run of its name in another folder."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_-]', '-', run)[:48]}-{digest}"


class WeightsAndBiases:
    """A run of Weights & Biases in `directory`. It is offline unless WANDB_MODE or WANDB_API_KEY says otherwise."""

    def __init__(self, directory: pathlib.Path, run: str, config: Mapping[str, Any]):
        import wandb

        configured = "WANDB_MODE" in os.environ or "WANDB_API_KEY" in os.environ
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "pgjax"),
            name=run,
            id=_identifier(directory.parent, run),
            resume="allow",
            dir=str(directory),
            config=dict(config),
            mode=None if configured else "offline",
        )

    def write(self, step: int, numbers: Mapping[str, float]) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()
