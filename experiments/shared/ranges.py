"""The ranges in which returns and metrics must lie, so that no interval leaves them.

An interval of Student's t around the mean of a bounded number can reach beyond the bound, above all with two or three
seeds. `diagnostics.within` cuts it there without loss of coverage.
"""

import math

from pgjax.diagnostics import UNBOUNDED

Bounds = tuple[float, float]

SHARE: Bounds = (0.0, 1.0)
NOT_NEGATIVE: Bounds = (0.0, math.inf)
# The least and the greatest reward of one step, by the rules of the environment.
_STEPS: dict[str, Bounds] = {
    **dict.fromkeys(("CartPole-v1", "cartpole"), (1.0, 1.0)),
    "corridor": (-1.0, -1.0),
    "maze": (-1.0, -1.0),
    "random_maze": (-1.0, -1.0),
    "Acrobot-v1": (-1.0, 0.0),
    "MountainCar-v0": (-1.0, -1.0),
    "Pendulum-v1": (-(math.pi**2) - 0.1 * 8.0**2 - 0.001 * 2.0**2, 0.0),
    "ads": (0.0, 1.0),
    "slates": (0.0, math.inf),
    **dict.fromkeys(("Asterix-MinAtar", "Breakout-MinAtar", "SpaceInvaders-MinAtar"), (0.0, math.inf)),
}
# The range of the return of environments that pay for the whole episode.
_EPISODES: dict[str, Bounds] = dict.fromkeys(("four_rooms", "recall", "reverse", "addition", "spell_backward"), SHARE)
# Metrics that are 0 or 1, or a share, after each step.
_SHARES = ("success", "collision", "violation", "impression", "click", "ended", "share_right", "all_right")


def returns(name: str, horizon: int) -> Bounds:
    """The least and the greatest undiscounted return of an episode of at most `horizon` steps, and at least one.

    Args:
        name: the name of an environment that pgjax or gymnax ships. Of other environments nothing is known.
    """
    name = name.removeprefix("gymnax:")
    if name in _EPISODES:
        return _EPISODES[name]
    if name not in _STEPS:
        return UNBOUNDED
    least, most = _STEPS[name]
    return min(least, least * horizon), max(most, most * horizon)


def differences(bounds: Bounds) -> Bounds:
    """The range of the difference of two numbers that lie in `bounds`."""
    least, most = bounds
    return least - most, most - least


def metric(name: str, kind: str) -> Bounds:
    """The range of a metric of an environment: `final`, `total` or `mean`, as in `evaluation.MetricSummary`."""
    if name not in _SHARES:
        return UNBOUNDED
    return NOT_NEGATIVE if kind == "total" else SHARE
