"""Families of action distributions: records of pure functions for one observation; use `jax.vmap` for many.

`log_prob`, `entropy` and `kl` are scalars in nats: sums over the dimensions of an action. They use elementwise
arithmetic and sums over the last axis, and no gather, because the backward pass of a gather is a slow scatter. Axes:
A actions, D dimensions of an action, n items, k places of a slate.

Under `jit` no error can be raised for parameters that are NaN or logits that are +∞. Instead the results show them: a
continuous action is NaN, all integers of a discrete action are −1, and the `log_prob` of both is NaN.
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
