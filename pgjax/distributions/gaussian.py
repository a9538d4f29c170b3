"""The normal distribution with independent dimensions."""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.types import Distribution

LN_2PI = float(np.log(2.0 * np.pi))


class GaussianParameters(NamedTuple):
    """μ and ln σ of independent normal distributions, both of the shape `[D]` of an action."""

    mean: jax.Array
    log_std: jax.Array


def assert_gaussian(*parameters: GaussianParameters) -> None:
    """Require that all means and ln σ have the same shape and a float type; AssertionError otherwise."""
    arrays = [array for parameter in parameters for array in parameter]
    chex.assert_equal_shape(arrays)
    chex.assert_type(arrays, float)


def gaussian_sample(key: jax.Array, parameters: GaussianParameters) -> jax.Array:
    """μ + σ z with z ~ N(0, I); the result has the shape and the float type of the mean."""
    assert_gaussian(parameters)
    mean, log_std = parameters
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)


def _gaussian_log_prob(parameters: GaussianParameters, action: jax.Array) -> jax.Array:
    assert_gaussian(parameters)
    mean, log_std = parameters
    chex.assert_equal_shape([mean, action])
    standardised = (action - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(standardised) + log_std + 0.5 * LN_2PI)


def _gaussian_entropy(parameters: GaussianParameters) -> jax.Array:
    assert_gaussian(parameters)
    return jnp.sum(parameters.log_std + 0.5 * (1.0 + LN_2PI))


def _gaussian_kl(p: GaussianParameters, q: GaussianParameters) -> jax.Array:
    assert_gaussian(p, q)
    distance = (p.mean - q.mean) * jnp.exp(-q.log_std)
    log_ratio = p.log_std - q.log_std
    return jnp.sum(0.5 * jnp.expm1(2.0 * log_ratio) - log_ratio + 0.5 * jnp.square(distance))


diagonal_gaussian = Distribution(
    sample=gaussian_sample,
    log_prob=_gaussian_log_prob,
    entropy=_gaussian_entropy,
    kl=_gaussian_kl,
    mode=lambda parameters: parameters.mean,
)
"""Independent normal dimensions: the parameters are `GaussianParameters`, and an action `[D]` is unbounded.

ln p(a) = −Σ_d [½ ((a_d − μ_d)/σ_d)² + ln σ_d + ½ ln 2π],   H = Σ_d [ln σ_d + ½ ln 2πe],
KL(p ‖ q) = Σ_d [ln(σ_q/σ_p) + (σ_p² + (μ_p − μ_q)²) / (2 σ_q²) − ½]

If an environment clips actions, call `log_prob` with the action that was drawn, and not with the clipped action.
"""
