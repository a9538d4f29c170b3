"""One pull of a bandit as a record that estimators take, and the softmax table that plays it."""

import jax
import jax.numpy as jnp

from pgjax.distributions import categorical
from pgjax.types import Policy, Trajectory


def table(num_arms: int) -> Policy:
    """f(x, θ) = softmax(x θ), θ `[1, A]`, zero at first: one state, whose observation is `[1]`."""
    return Policy(
        init=lambda key, obs: jnp.zeros((obs.shape[0], num_arms), obs.dtype),
        apply=lambda params, obs: obs @ params,
        distribution=categorical,
    )


def trajectory(action: jax.Array, reward: jax.Array) -> Trajectory:
    """The episode X_1 = 1, A_1, R_2 that ends there, `[1, 1]`; `action` and `reward` are scalars."""
    yes, one = jnp.ones((1, 1), jnp.bool_), jnp.ones((1, 1, 1), reward.dtype)
    return Trajectory(
        obs=one,
        actions=action[None, None],
        rewards=reward[None, None],
        alive=yes,
        terminated=yes,
        truncated=~yes,
        final_obs=jnp.zeros((1, 1), reward.dtype),
    )
