"""Exact values, gradients and moments of estimators, computed without sampling.

A `TabularMDP` is solved by dynamic programming, its trajectories can be enumerated, and the same object can be sampled
as an `Environment`. So one problem shows what an estimator should give, what it gives on average, and what training
with it reaches. For problems with too many trajectories to enumerate, dynamic programs give the moments of whole
families of estimates (`joint_moments`, `step_sums`), their best baselines and the sources of their variance. The cost
of imitation is exact, too: regret, errors on and off the expert's states, and learners from counted data (`imitation`).
Language models have problems of their own (`text`): all answers to a prompt, and best policies near a reference.
"""

from typing import TYPE_CHECKING

from pgjax._lazy import at_first_use

# The registry and most environments need one record of this package; everything takes longer to import than they do.
if TYPE_CHECKING:
    from pgjax.exact._names import *  # noqa: F403
else:
    __getattr__ = at_first_use(__name__, "pgjax.exact._names")
