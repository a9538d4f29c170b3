"""Actions at random, as `check` takes them and as a policy to compare with."""

import jax
import jax.numpy as jnp

from pgjax import spaces
from pgjax.distributions import categorical, masked_logits, sampled_only
from pgjax.types import Environment, Policy, PyTree


def sample_action(environment: Environment, key: jax.Array, obs: PyTree) -> PyTree:
    """One action at random: uniform over those that `action_mask` allows at X_t, or as the action space samples."""
    space = environment.action_space
    if environment.action_mask is not None:
        logits = masked_logits(jnp.zeros(space.n), environment.action_mask(obs))
        return categorical.sample(key, logits).astype(space.dtype)
    return spaces.sample(space, key)


def random_policy(environment: Environment) -> Policy:
    """The policy of `sample_action`, without parameters, `()`; what a trained one is compared with.

    Its distribution can only be sampled; the other functions raise NotImplementedError.
    """
    return Policy(
        init=lambda key, obs: (),
        apply=lambda params, obs: obs,
        distribution=sampled_only(
            lambda key, obs: sample_action(environment, key, obs),
            "random_policy can be sampled, but its distribution has no parameters",
        ),
    )
