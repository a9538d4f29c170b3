"""Imitation with an expert who can be asked: cloning, DAgger and DART, each one pure function of a key.

    act with a mixture of expert and learner ─► ask the expert at every state that came ─► fit to all answers so far ─┐
      ▲                                                                                                              │
      └──────────────────────────────────────────────────────────────────────────────────────────────────────────────┘

Labelling is a stage like `rewards`: a transform of a collected trajectory. Buffers have their final size from the first
round on, and rows without data weigh 0, so a whole run jits, and vmaps over seeds.

Axes: T time, B episodes a round, R rounds, N = R T B rows, A actions.
"""

from pgjax.interactive.algorithms import ImitationRun, behavioural_cloning, dagger, dart
from pgjax.interactive.collecting import Demonstrations, Labelled, collect, demonstrations, label
from pgjax.interactive.fitting import Fitter, gradient_fit, table_fit

__all__ = [
    "Demonstrations",
    "Fitter",
    "ImitationRun",
    "Labelled",
    "behavioural_cloning",
    "collect",
    "dagger",
    "dart",
    "demonstrations",
    "gradient_fit",
    "label",
    "table_fit",
]
