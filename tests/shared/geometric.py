"""A problem whose mean length is known: every step ends the episode with one probability."""

import jax
import jax.numpy as jnp

from pgjax.types import Box, Discrete, Environment, Step

P_END, HORIZON = 0.05, 60
# E[L] = Σ_{t=0}^{T-1} (1 − p)ᵗ
MEAN_LENGTH = (1 - (1 - P_END) ** HORIZON) / P_END


def geometric(horizon=HORIZON):
    """Every step ends the episode with the probability `params`, and the observations are noise."""

    def reset(key, params):
        return jnp.zeros(()), jax.random.normal(key, (3,), jnp.float32)

    def step(key, state, action, params):
        end_key, obs_key = jax.random.split(key)
        ended = jax.random.uniform(end_key) < params
        return state + 1, Step(obs=jax.random.normal(obs_key, (3,), jnp.float32), reward=1.0 + action, terminated=ended)

    return Environment(
        name="geometric",
        reset=reset,
        step=step,
        params=jnp.asarray(P_END),
        observation_space=Box(low=-10.0, high=10.0, shape=(3,)),
        action_space=Discrete(2),
        horizon=horizon,
    )
