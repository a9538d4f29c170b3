"""The reward stage: pure functions that replace the rewards of a collected trajectory, and stages that may learn.

A learned reward model, a KL penalty towards a reference policy and a running scale are such stages. With them, learning
from preferences uses the same pipeline as CartPole. Axes: T time, B episodes.
"""

from pgjax.rewards.stages import (
    KLPenaltyState,
    RewardModelState,
    RunningScaleState,
    as_paid,
    in_turn,
    kl_penalty,
    reward_model,
    running_scale,
    transform,
)
from pgjax.rewards.transforms import centre, kl_regularised, relabel, scale, whiten

__all__ = [
    "KLPenaltyState",
    "RewardModelState",
    "RunningScaleState",
    "as_paid",
    "centre",
    "in_turn",
    "kl_penalty",
    "kl_regularised",
    "relabel",
    "reward_model",
    "running_scale",
    "scale",
    "transform",
    "whiten",
]
