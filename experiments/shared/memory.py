"""The memory of parts that several experiments have, estimated before they run; bytes on all devices together."""

import math
from typing import Any

import jax

from pgjax.training.memory import bytes_of
from pgjax.types import Environment


def of_episodes(environment: Environment, num_episodes: int) -> float:
    """The bytes of complete episodes of the longest length: observations, actions, rewards, masks and keys."""
    _, obs = jax.eval_shape(lambda: environment.reset(jax.random.key(0), environment.params))
    beside_obs = 32 + 8 * math.prod(getattr(environment.action_space, "shape", ()) or (1,))
    return float(environment.horizon) * num_episodes * (bytes_of(obs) + beside_obs)


def of_states(copies: float, params: Any) -> float:
    """The bytes of several copies of θ."""
    return copies * bytes_of(params)
