"""What every network is, whichever policy or value uses it."""

from collections.abc import Callable
from typing import NamedTuple

import jax

from pgjax._records import one_line
from pgjax.types import Memory, PyTree


class Network(NamedTuple):
    """A function of observations with O outputs, for one observation; vmap outside.

    Attributes:
        init: `(key, obs) → params`.
        apply: `(params, obs) → outputs [O]`; None for a network that has to remember.
        memory: how the network remembers, its outputs `[O]`; None for one that does not.
    """

    init: Callable[[jax.Array, PyTree], PyTree]
    apply: Callable[[PyTree, PyTree], jax.Array] | None
    memory: Memory | None = None

    def __repr__(self) -> str:
        return one_line(self)
