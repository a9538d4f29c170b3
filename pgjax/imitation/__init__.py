"""Imitation of an expert who can be asked: behavioural cloning, DAgger and DART, each a pure function of a key.

    act with a mixture of expert and learner ─► ask the expert at every visited state ─► fit to all answers so far ───┐
      ▲                                                                                                              │
      └──────────────────────────────────────────────────────────────────────────────────────────────────────────────┘

Labelling is a stage like `rewards`: a transform of a collected trajectory. The buffers have their final size from the
first round on, and rows without data have weight 0, so a whole run can be jitted, and vmapped over seeds.
Next-token learning clones the author of a text: `next_token_loss` is its loss for a policy of token buffers.

Axes: T time, B episodes a round, R rounds, N = R T B rows, A actions.
"""

from pgjax.imitation.algorithms import ImitationRun, behavioural_cloning, dagger, dart
from pgjax.imitation.cloning_losses import (
    cross_entropy,
    distribution_kl,
    exponential_schedule,
    forward_kl,
    indicator_schedule,
    linear_schedule,
    mix,
    negative_log_likelihood,
    reverse_kl,
    squared_error,
    total_variation,
)
from pgjax.imitation.collecting import Demonstrations, Labelled, collect, demonstrations, label
from pgjax.imitation.controllers import potential_field, shortest_way
from pgjax.imitation.experts import (
    Expert,
    as_policy,
    from_log_probs,
    from_policy,
    from_table,
    noisy,
    optimal_expert,
    partial,
    pendulum_swing_up,
    perturbed,
)
from pgjax.imitation.fitting import Fitter, gradient_fit, table_fit
from pgjax.imitation.next_tokens import next_token_loss, token_log_probs

__all__ = [
    "Demonstrations",
    "Expert",
    "Fitter",
    "ImitationRun",
    "Labelled",
    "as_policy",
    "behavioural_cloning",
    "collect",
    "cross_entropy",
    "dagger",
    "dart",
    "demonstrations",
    "distribution_kl",
    "exponential_schedule",
    "forward_kl",
    "from_log_probs",
    "from_policy",
    "from_table",
    "gradient_fit",
    "indicator_schedule",
    "label",
    "linear_schedule",
    "mix",
    "negative_log_likelihood",
    "next_token_loss",
    "noisy",
    "optimal_expert",
    "partial",
    "pendulum_swing_up",
    "perturbed",
    "potential_field",
    "reverse_kl",
    "shortest_way",
    "squared_error",
    "table_fit",
    "token_log_probs",
    "total_variation",
]
