"""Exact values, gradients and moments of estimators, computed without sampling.

A `TabularMDP` is solved by dynamic programming, its trajectories can be enumerated, and the same object can be sampled
as an `Environment`. So one problem shows what an estimator should give, what it gives on average, and what training
with it reaches. For problems with too many trajectories to enumerate, dynamic programs give the moments of whole
families of estimates (`joint_moments`, `step_sums`), their best baselines and the sources of their variance. The cost
of imitation is exact, too: regret, errors on and off the expert's states, and learners from counted data (`imitation`).
Language models have problems of their own (`text`): all answers to a prompt, and best policies near a reference.
"""

import importlib
from typing import TYPE_CHECKING, Any

# The registry and most environments need one record of this package; everything takes longer to import than they do.
if TYPE_CHECKING:
    from pgjax.exact._names import *  # noqa: F403
else:

    def __getattr__(name: str) -> Any:
        """All names load together when the first one is used (PEP 562)."""
        # The import system asks for other names with two underscores, and they are no reason to load everything.
        if not name.startswith("__") or name == "__all__":
            found = importlib.import_module(f"{__name__}._names")
            globals().update({one: getattr(found, one) for one in (*found.__all__, "__all__")})
            if name in globals():  # one of the names, or a submodule that they have imported
                return globals()[name]
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
