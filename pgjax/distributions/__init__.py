"""Families of action distributions: records of pure functions for one observation; vmap for more.

`log_prob`, `entropy` and `kl` are scalars in nats, the sum over the dimensions of an action. They are written
for the hot path: elementwise arithmetic and sums over the last axis, no gather, because the backward pass of
a gather is a scatter. Axes: A actions, D dimensions of an action, n items, k places of a slate.

Parameters that are NaN, and logits of +∞, cannot be refused under `jit`. They are shown instead: a continuous
action is NaN, every integer of a discrete one is −1, and `log_prob` of either is NaN.
"""

from pgjax.distributions.bernoulli import bernoulli
from pgjax.distributions.categorical import categorical, categorical_quantile, masked_logits
from pgjax.distributions.gaussian import GaussianParameters, diagonal_gaussian
from pgjax.distributions.joint import joint, require
from pgjax.distributions.multi_categorical import multi_categorical
from pgjax.distributions.plackett_luce import plackett_luce
from pgjax.distributions.sampled_only import sampled_only
from pgjax.distributions.squashed import squashed_gaussian

__all__ = [
    "GaussianParameters",
    "bernoulli",
    "categorical",
    "categorical_quantile",
    "diagonal_gaussian",
    "joint",
    "masked_logits",
    "multi_categorical",
    "plackett_luce",
    "require",
    "sampled_only",
    "squashed_gaussian",
]
