"""Rollouts: complete episodes, one per lane, and continuing windows with auto-reset.

`host_episodes` plays environments of Gymnasium, which run on the host, and returns the same `Trajectory`.

The gradient never differentiates through a rollout: it stores observations, actions and masks, and the estimator
recomputes the log-probabilities. Keys are per episode, so the trajectories do not depend on the number of devices.
Axes: T time, B lanes.
"""

from pgjax.rollouts.complete import chunk_length, episodes
from pgjax.rollouts.fusing import fused, fused_bytes
from pgjax.rollouts.host import HostReturns, host_episodes, host_returns
from pgjax.rollouts.windows import FinishedEpisodes, Lanes, start_lanes, window

__all__ = [
    "FinishedEpisodes",
    "HostReturns",
    "Lanes",
    "chunk_length",
    "episodes",
    "fused",
    "fused_bytes",
    "host_episodes",
    "host_returns",
    "start_lanes",
    "window",
]
