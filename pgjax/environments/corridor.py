"""The short corridor with switched actions, whose states all look alike (Sutton & Barto, 2018, example 13.1)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.exact.mdp.tabular import TabularMDP, make_tabular_mdp, to_environment
from pgjax.types import Environment

LEFT, RIGHT = 0, 1
BEST_PROBABILITY = 2.0 - math.sqrt(2.0)
BEST_VALUE = -(6.0 + 4.0 * math.sqrt(2.0))


def corridor_value(probability: jax.Array) -> jax.Array:
    """v(p) = (2p − 4) / (p (1 − p)), the expected return from the start, where p in (0, 1) is P(right).

    There is no horizon. v is greatest at p* = 2 − √2 (`BEST_PROBABILITY`), where v* = −(6 + 4√2) (`BEST_VALUE`). The
    function works on each number of an array.

    Source: Sutton & Barto (2018), example 13.1; p* and v* solve the three Bellman equations.

    Example:
        >>> from pgjax.environments.corridor import corridor_value
        >>> float(corridor_value(0.5))
        -12.0
    """
    probability = jnp.asarray(probability)
    return (2.0 * probability - 4.0) / (probability * (1.0 - probability))


def corridor_mdp(horizon: int = 1000, observe_state: bool = False) -> TabularMDP:
    """States 0, 1, 2 and the goal 3. Action 1 moves right and action 0 left, but in state 1 they are switched.

    Episodes start in state 0, where left does not move. Every step pays −1, the step onto the goal included.

    Args:
        horizon: T. A finite horizon changes v(p). At p = .05, where v = −82.1, 1000 steps leave 7e-7 of the episodes
            unfinished and v 5e-5 too high; at p = .02, where v = −202, they leave 4e-3 unfinished and v 0.6 too high.
            Policies with p closer to 0 or 1 need a longer horizon.
        observe_state: whether the observation is the state, one-hot `[4]`, instead of the constant `[1]`.

    Raises:
        ValueError: for a horizon below 1.

    Source: Sutton & Barto (2018), example 13.1.
    """
    successors = np.array([[0, 1], [2, 0], [1, 3], [3, 3]])[:, :, None]
    return make_tabular_mdp(
        initial=np.array([1.0, 0.0, 0.0, 0.0]),
        successors=successors,
        probabilities=np.ones(successors.shape),
        rewards=np.full(successors.shape, -1.0),
        terminal=np.array([False, False, False, True]),
        observations=np.eye(4) if observe_state else np.ones((4, 1)),
        horizon=horizon,
        name="corridor",
    )


def make_corridor(horizon: int = 1000, observe_state: bool = False) -> Environment:
    """`corridor_mdp` as a sampled environment: observation Box `[1]` (or `[4]`), actions 0 (left) and 1 (right)."""
    return to_environment(corridor_mdp(horizon=horizon, observe_state=observe_state))
