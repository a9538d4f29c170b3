"""What devices exchange in one call of a compiled program, counted from its text."""

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

BYTES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "f16": 2, "bf16": 2, "s32": 4, "u32": 4, "f32": 4}
BYTES |= {"s64": 8, "u64": 8, "f64": 8, "c64": 8}
_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
# `%name = f32[8,64]{1,0} all-gather(...), ...`; the result may be a tuple.
_LINE = re.compile(rf"= (?P<result>\(.*?\)|\S+) (?P<kind>{_KINDS})(?:-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+\d*)\[([\d,]*)\]")


class Exchange(NamedTuple):
    """One operation in which all devices take part.

    Attributes:
        kind: its name, such as all-gather.
        size: the bytes of its result on one device.
        shapes: the shapes of its result.
    """

    kind: str
    size: int
    shapes: tuple[tuple[int, ...], ...]


def exchanges(text: str) -> list[Exchange]:
    """The exchanges in the text of a compiled program (`jax.stages.Compiled.as_text`)."""
    found = []
    for line in text.splitlines():
        if (match := _LINE.search(line)) is None:
            continue
        parts = [(kind, _numbers(sizes)) for kind, sizes in _SHAPE.findall(match["result"])]
        found.append(
            Exchange(
                kind=match["kind"],
                size=sum(BYTES[kind] * math.prod(shape) for kind, shape in parts),
                shapes=tuple(shape for _, shape in parts),
            )
        )
    return found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in text.split(",") if number)


class Groups(NamedTuple):
    """The exchanges of an update by their purpose, each as (number, bytes of the results on one device).

    Attributes:
        statistics: arrays `[T, B]`, of which every device gets the whole: actions, rewards and masks.
        gradients: the blocks of the gradient and of the other sums over episodes.
        metrics: scalars after the update.
    """

    statistics: tuple[int, int]
    gradients: tuple[int, int]
    metrics: tuple[int, int]


def grouped(found: Sequence[Exchange], num_episodes: int) -> Groups:
    """The exchanges by their purpose. None of them is in the loop over steps, whose length each device decides."""
    of: dict[str, list[Exchange]] = {name: [] for name in Groups._fields}
    for one in found:
        if any(len(shape) >= 2 and shape[1] == num_episodes for shape in one.shapes):
            of["statistics"].append(one)
        else:
            of["metrics" if all(shape == () for shape in one.shapes) else "gradients"].append(one)
    return Groups(**{name: (len(ones), sum(one.size for one in ones)) for name, ones in of.items()})
