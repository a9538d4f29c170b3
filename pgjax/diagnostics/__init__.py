"""The quality of gradient estimates and the uncertainty of results: moments, ratios, and their intervals.

*Gradient statistics* (in JAX, to be jitted and vmapped) use N independent estimates g_i ∈ ℝ^P of one gradient,
for example the estimate from each episode of a batch. *Run statistics* (in NumPy, on the host) use S
independent runs of an experiment. Axes: N episodes, P coordinates of the flattened gradient, S runs.
"""

from pgjax.diagnostics.gradients import (
    GradientStatistics,
    batch_cosine,
    flatten_gradients,
    gradient_statistics,
    total_variance,
)
from pgjax.diagnostics.intervals import (
    UNBOUNDED,
    Estimate,
    few_runs,
    mean_and_stderr,
    mean_interval,
    t_interval,
    t_quantile,
    within,
)
from pgjax.diagnostics.meter import BatchNoise, batch_noise
from pgjax.diagnostics.runs import bootstrap_interval, interquartile_mean, paired_variance_ratio

__all__ = [
    "UNBOUNDED",
    "BatchNoise",
    "Estimate",
    "GradientStatistics",
    "batch_cosine",
    "batch_noise",
    "bootstrap_interval",
    "few_runs",
    "flatten_gradients",
    "gradient_statistics",
    "interquartile_mean",
    "mean_and_stderr",
    "mean_interval",
    "paired_variance_ratio",
    "t_interval",
    "t_quantile",
    "total_variance",
    "within",
]
