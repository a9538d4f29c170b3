"""The grid of a sweep: which options vary, their values, and the settings, which are all combinations of the values."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.harness import runner
from experiments.shared.training import build, options
from pgjax import registry


class Grid(NamedTuple):
    """The options that vary.

    Attributes:
        values: the name of an option's field → its values, in the order of the command line.
        num_seeds: the number of runs of each setting.
    """

    values: dict[str, tuple[float, ...]]
    num_seeds: int

    @property
    def settings(self) -> list[dict[str, float]]:
        """Each combination of the values as name → value; the last option changes fastest."""
        return [dict(zip(self.values, chosen, strict=True)) for chosen in itertools.product(*self.values.values())]

    @property
    def num_runs(self) -> int:
        """S, the number of runs of one estimator; those of one setting follow each other, with rising seeds."""
        return len(self.settings) * self.num_seeds

    def hyperparams(self) -> dict[str, np.ndarray]:
        """Name → the value of each run, float32 `[S]`."""
        columns = {name: [setting[name] for setting in self.settings] for name in self.values}
        return {name: np.repeat(np.asarray(column, np.float32), self.num_seeds) for name, column in columns.items()}

    def keys(self, seed: int) -> jax.Array:
        """The key of each run, `[S]`: the runs of one setting have the seeds `seed`, `seed` + 1, …"""
        return jax.vmap(jax.random.key)(seed + jnp.tile(jnp.arange(self.num_seeds), len(self.settings)))


def word(name: str) -> str:
    """A field's name as it is typed after --vary: `lambda`, `entropy-coef`."""
    return options.option(name).removeprefix("--")


def described(setting: dict[str, float]) -> str:
    """A setting in words: `lr 0.01, lambda 0.9`."""
    return ", ".join(f"{word(name)} {value:g}" for name, value in setting.items())


def parsed(given: Sequence[str], num_seeds: int) -> Grid:
    """The grid of the words NAME=VALUE,VALUE,….

    Raises:
        UsageError: a word has another form, an option is named twice, it cannot vary, or it does not allow a value.
    """
    values: dict[str, tuple[float, ...]] = {}
    for text in given:
        typed, equals, numbers = text.partition("=")
        if not typed or not equals:
            raise runner.UsageError(f"--vary {text}: must be NAME=VALUE,VALUE,..., such as lr=0.003,0.01,0.03")
        name = _field(typed)
        if name in values:
            raise runner.UsageError(f"--vary {text}: {typed} is named twice; name it once, with all of its values")
        values[name] = tuple(_number(name, text, number) for number in numbers.split(","))
        if len({float(np.float32(value)) for value in values[name]}) < len(values[name]):
            raise runner.UsageError(f"--vary {text}: each value must be given once, and differ in float32")
    return Grid(values=values, num_seeds=num_seeds)


def _field(typed: str) -> str:
    """The field of an option that may vary, from its name as typed."""
    plain = typed.removeprefix("--").replace("-", "_")
    found = next((name for name in build.VARIED if plain in (name, name.rstrip("_"))), None)
    if found is not None:
        return found
    reason = "is no option of a training"
    if plain in {*options.TrainingOptions.__dataclass_fields__, *options.EnvironmentOption.__dataclass_fields__}:
        reason = "cannot vary inside one compiled program, because it is no real number"
    raise runner.UsageError(f"--vary {typed}: {typed} {reason}; these can vary: {', '.join(map(word, build.VARIED))}")


def _number(name: str, text: str, number: str) -> float:
    try:
        value = float(number)
    except ValueError as error:
        raise runner.UsageError(f"--vary {text}: must hold numbers separated by commas, got {number!r}") from error
    try:
        options.require_number(name, value)
    except runner.UsageError as error:
        raise runner.UsageError(f"--vary {text}: {str(error).removeprefix('--')}") from error
    return value


def require_fitting(grid: Grid, entry: registry.Entry) -> None:
    """Refuse an option that has no meaning for an estimator.

    Raises:
        UsageError: the message names the option and the estimator.
    """
    for name, values in grid.values.items():
        if name in registry.SETTINGS and (refusal := entry.refusal(name, values[0])):
            raise runner.UsageError(f"--vary {word(name)}: {refusal}")
        if name == "value_lr" and not {"value", "critic"} & set(entry.needs):
            raise runner.UsageError(
                f"--vary {word(name)}: must be left out with the estimator {entry.name}, which fits no value network"
            )
