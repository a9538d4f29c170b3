"""The distribution of actions that can be drawn and nothing else: an expert's, or that of actions at random."""

from collections.abc import Callable
from typing import Any

import jax

from pgjax.types import Distribution


def sampled_only(sample: Callable[[jax.Array, Any], Any], reason: str) -> Distribution:
    """The distribution with `sample(key, params) → action`; its other functions raise NotImplementedError.

    Args:
        sample: draws one action.
        reason: the sentence of the error, which says why there is no probability to give.
    """

    def unknown(*_: Any) -> jax.Array:
        raise NotImplementedError(reason)

    return Distribution(sample=sample, log_prob=unknown, entropy=unknown, kl=unknown, mode=unknown)
