"""Policies that follow a rule: reference controllers and heuristics to compare a trained policy with."""

from collections.abc import Callable

import jax

from pgjax.distributions import sampled_only
from pgjax.types import Policy, PyTree


def rule_policy(act: Callable[[jax.Array, PyTree], PyTree]) -> Policy:
    """The policy that takes the action `act(key, obs)`; pass `()` as its θ.

    Its distribution can only be sampled; the other functions raise NotImplementedError. `imitation.Expert(act=act)` is
    the same rule as an expert.

    Example:
        >>> import jax.numpy as jnp
        >>> from pgjax.environments.rules import rule_policy
        >>> always_right = rule_policy(lambda key, obs: jnp.int32(1))
        >>> int(always_right.distribution.sample(None, always_right.apply((), jnp.zeros(4))))
        1
    """
    return Policy(
        init=lambda key, obs: (),
        apply=lambda params, obs: obs,
        distribution=sampled_only(act, "a rule can be followed, but its distribution has no parameters"),
    )
