"""The record of a network, which policies and values share."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from pgjax._records import one_line
from pgjax.types import Memory, PyTree


class Network(NamedTuple):
    """A function from one observation to O outputs; use `jax.vmap` for many observations.

    Attributes:
        init: `(key, obs) → params`.
        apply: `(params, obs) → outputs [O]`; None for a network that cannot work without memory.
        memory: the functions of a network with memory, whose outputs are `[O]`; None for a network without memory.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    apply: Callable[[PyTree, PyTree], jax.Array] | None
    memory: Memory | None = None

    def __repr__(self) -> str:
        return one_line(self)
