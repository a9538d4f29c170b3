"""A random batch of episodes of many lengths."""

import numpy as np

from pgjax.types import Trajectory


def random_batch(dtype, steps=5, lanes=4):
    """Episodes of 5, 4, 3 and 2 steps on one-hot observations, with recorded log-probabilities of another θ."""
    draw = np.random.default_rng(0)
    shape = (steps, lanes)
    alive = np.arange(steps)[:, None] < steps - np.arange(lanes)
    last = np.arange(steps)[:, None] == steps - 1 - np.arange(lanes)
    observations = np.eye(4)[draw.integers(0, 4, (steps + 1, lanes))].astype(dtype)
    return Trajectory(
        obs=observations[:-1],
        actions=draw.integers(0, 2, shape).astype(np.int32),
        rewards=np.where(alive, draw.normal(size=shape), 0.0).astype(dtype),
        alive=alive,
        terminated=last,
        truncated=np.zeros(shape, bool),
        final_obs=observations[-1],
    )
