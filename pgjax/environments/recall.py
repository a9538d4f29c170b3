"""Recall: name a cue that was shown at the beginning. A policy without memory can only guess."""

import numpy as np

from pgjax._checks import require_integer
from pgjax.exact.mdp.tabular import TabularMDP, make_tabular_mdp, to_environment
from pgjax.types import Environment


def recall_mdp(cues: int = 4, delay: int = 8) -> TabularMDP:
    """The policy sees one of K cues at X_1 and nothing afterwards, and its last action must name the cue.

    Each cue has probability 1/K. X_1 is the cue, one-hot, and X_2, …, X_{delay+1} are all the same blank observation.
    The last action, A_{delay+1}, is the answer: its reward is 1 if it names the cue, and every other reward is 0. The
    best value with memory is 1. *Every* policy f(x, θ) without memory has the value 1/K, because it draws its answer
    from f(blank, θ), which does not depend on the cue: ρ = Σ_k (1/K) f(blank, θ)_k = 1/K.

    Args:
        cues: K, at least 2.
        delay: how many blank observations follow the cue, at least 1.

    Returns:
        An MDP of K (delay + 1) + 1 states with observations `[K + 1]`, one-hot: the K cues, then the blank. State
        K d + k is cue k after d steps; the last state is the end. T = delay + 1.

    Raises:
        ValueError: for `cues` below 2 or `delay` below 1.
    """
    require_integer("cues", cues, 2, None)
    require_integer("delay", delay, 1, None)
    end = cues * (delay + 1)
    states = np.arange(end + 1)
    steps, cue = np.divmod(states, cues)
    successors = np.repeat(np.minimum(states + cues, end)[:, None], cues, axis=1)
    named = (steps == delay)[:, None] & (cue[:, None] == np.arange(cues))
    return make_tabular_mdp(
        initial=(steps == 0) / cues,
        successors=successors[:, :, None],
        probabilities=np.ones((*successors.shape, 1)),
        rewards=named[:, :, None],
        terminal=states == end,
        observations=np.eye(cues + 1)[np.where(steps == 0, cue, cues)],
        horizon=delay + 1,
        name="recall",
    )


def make_recall(cues: int = 4, delay: int = 8) -> Environment:
    """`recall_mdp` as a sampled environment: observation Box `[K + 1]`, K actions."""
    return to_environment(recall_mdp(cues, delay))
