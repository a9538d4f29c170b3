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


def one_step_batch(actions: jax.Array, rewards: jax.Array) -> Trajectory:
    """B episodes X_1 = 1, A_1, R_2 side by side, `[1, B]`; `actions [B, ...]`, `rewards [B]`."""
    end, one = jnp.ones((1, len(rewards)), jnp.bool_), jnp.ones((1, len(rewards), 1), rewards.dtype)
    return Trajectory(
        obs=one,
        actions=actions[None],
        rewards=rewards[None],
        alive=end,
        terminated=end,
        truncated=~end,
        final_obs=jnp.zeros((len(rewards), 1), rewards.dtype),
    )


def trajectory(action: jax.Array, reward: jax.Array) -> Trajectory:
    """The episode X_1 = 1, A_1, R_2 that ends there, `[1, 1]`; `action` and `reward` are scalars."""
    return one_step_batch(action[None], reward[None])
