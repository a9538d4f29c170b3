"""Training: one update, the scan of updates, and the loop that talks to the host between chunks.

    collect episodes with θ → rewards → ∇̂ρ from the estimator → θ ← optimiser(θ, ∇̂ρ) → then the baseline sees the batch

Whole runs are `jit(scan(update))` in chunks with donated state. Seeds and float hyper-parameters are one more axis of
the same program, shared out over the devices: vmapped on an accelerator, mapped in turn on a CPU, where that measured
2–4 times faster.
"""

from pgjax.training.fit import Fit, fit
from pgjax.training.loop import NonFiniteError, TrainingRun, train
from pgjax.training.textbook import reinforce
from pgjax.training.trainer import Metrics, Trainer, make_trainer

__all__ = ["Fit", "Metrics", "NonFiniteError", "Trainer", "TrainingRun", "fit", "make_trainer", "reinforce", "train"]
