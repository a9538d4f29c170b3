"""How good is an estimate of a gradient, and how sure are we: moments, ratios, and their intervals.

*Gradient statistics* (JAX: jit them, vmap them) look at N independent estimates g_i ∈ ℝ^P of one gradient,
for example the summand of each episode in a batch. *Run statistics* (NumPy, on the host) look at S
independent runs of an experiment. Axes: N episodes, P coordinates of the flattened gradient, S runs.
"""

from pgjax.diagnostics.gradients import (
    Estimate,
    GradientStatistics,
    batch_cosine,
    flatten_gradients,
    gradient_statistics,
    total_variance,
)
from pgjax.diagnostics.runs import bootstrap_interval, interquartile_mean, mean_and_stderr, paired_variance_ratio

__all__ = [
    "Estimate",
    "GradientStatistics",
    "batch_cosine",
    "bootstrap_interval",
    "flatten_gradients",
    "gradient_statistics",
    "interquartile_mean",
    "mean_and_stderr",
    "paired_variance_ratio",
    "total_variance",
]
