"""Random actions: for `check`, and as a policy to compare trained policies with."""

import jax
import jax.numpy as jnp

from pgjax import spaces
from pgjax._doors import readable
from pgjax.distributions import categorical, masked_logits, sampled_only
from pgjax.types import Environment, Policy, PyTree


@readable
def sample_action(environment: Environment, key: jax.Array, obs: PyTree) -> PyTree:
    """One random action: uniform over those that `action_mask` allows, or a sample of the action space if None."""
    space = environment.action_space
    if environment.action_mask is not None:
        logits = masked_logits(jnp.zeros(space.n), environment.action_mask(obs))
        return categorical.sample(key, logits).astype(space.dtype)
    return spaces.sample(space, key)


@readable
def random_policy(environment: Environment) -> Policy:
    """The policy that acts with `sample_action`, to compare a trained policy with; pass `()` as its θ.

    Its distribution can only be sampled; the other functions raise NotImplementedError.

    Example:
        >>> from pgjax import environments
        >>> environments.random_policy(environments.make("CartPole-v1"))
        Policy(random_policy, distribution=Distribution(random_policy, sampled_only))
    """
    return Policy(
        init=lambda key, obs: (),
        apply=lambda params, obs: obs,
        distribution=sampled_only(
            lambda key, obs: sample_action(environment, key, obs),
            "random_policy can be sampled, but its distribution has no parameters",
        ),
    )
