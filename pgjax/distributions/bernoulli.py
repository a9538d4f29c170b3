"""The distribution of independent bits."""

import chex
import jax
import jax.numpy as jnp

from pgjax.distributions.categorical import floor
from pgjax.types import Distribution


def _logits(*logits: jax.Array) -> list[jax.Array]:
    """The logits with large finite numbers for ±∞, so that 0 · ln 0 is 0 and not NaN, also in gradients."""
    chex.assert_equal_shape(logits)
    chex.assert_type(list(logits), float)
    return [jnp.clip(x, floor(x.dtype), -floor(x.dtype)) for x in logits]


def _or_invalid(bits: jax.Array, logits: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(logits), -1, bits.astype(jnp.int32))


def _sample(key: jax.Array, logits: jax.Array) -> jax.Array:
    (finite,) = _logits(logits)
    uniform = jax.random.uniform(key, logits.shape, logits.dtype)
    return _or_invalid(uniform < jax.nn.sigmoid(finite), logits)


def _log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    (logits,) = _logits(logits)
    chex.assert_equal_shape([logits, action])
    one, zero = (action.astype(logits.dtype) == bit for bit in (1.0, 0.0))
    log_prob = -jnp.sum(jax.nn.softplus(jnp.where(one, -logits, logits)))
    return jnp.where(jnp.all(one | zero), log_prob, jnp.nan)


def _entropy(logits: jax.Array) -> jax.Array:
    (logits,) = _logits(logits)
    p, not_p = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    return jnp.sum(p * jax.nn.softplus(-logits) + not_p * jax.nn.softplus(logits))


def _kl(p: jax.Array, q: jax.Array) -> jax.Array:
    p, q = _logits(p, q)
    if_one = jax.nn.softplus(-q) - jax.nn.softplus(-p)
    if_zero = jax.nn.softplus(q) - jax.nn.softplus(p)
    return jnp.sum(jax.nn.sigmoid(p) * if_one + jax.nn.sigmoid(-p) * if_zero)


bernoulli = Distribution(
    sample=_sample,
    log_prob=_log_prob,
    entropy=_entropy,
    kl=_kl,
    mode=lambda logits: _or_invalid(logits > 0.0, logits),
)
"""D independent bits: the parameters are logits l `[D]`, and an action is an array `[D]` of 0 and 1 of any number type.

P(a_d = 1) = σ(l_d),   ln p(a) = −Σ_d softplus(∓l_d) (− for 1, + for 0),
H = Σ_d [σ(l_d) softplus(−l_d) + σ(−l_d) softplus(l_d)]

A logit of ±∞ makes a bit certain. Values and gradients stay finite, with 0 · ln 0 = 0; a log-probability or divergence
of about √(largest float) stands for infinity. `mode` is 0 where both values are equally probable. If an entry of an
action is neither 0 nor 1, the log-probability is NaN.
"""
