"""Distributions that can only be sampled, such as the actions of an expert or random actions."""

from collections.abc import Callable
from typing import Any

import jax

from pgjax._doors import readable
from pgjax.types import Distribution


@readable
def sampled_only(sample: Callable[[jax.Array, Any], Any], reason: str) -> Distribution:
    """The distribution of a given `sample(key, parameters) → action`; its other functions raise NotImplementedError.

    Args:
        sample: draws one action.
        reason: the message of the error, a sentence that says why the probability is unknown.

    Example:
        >>> from pgjax import distributions
        >>> expert = lambda key, parameters: parameters.argmax()
        >>> distributions.sampled_only(expert, reason="the expert's action has no probability")
        Distribution(sampled_only)
    """

    def unknown(*_: Any) -> jax.Array:
        raise NotImplementedError(reason)

    return Distribution(sample=sample, log_prob=unknown, entropy=unknown, kl=unknown, mode=unknown)
