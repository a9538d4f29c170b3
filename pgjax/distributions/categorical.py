"""One of A actions, by logits."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.types import Distribution


def floor(dtype: jnp.dtype) -> float:
    """−√(largest number) of a float type: exp of it is an exact 0, and no sum or square of it overflows."""
    return -float(np.sqrt(float(jnp.finfo(dtype).max)))


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """The float type itself, or float32 for a half-precision one, whose uniform numbers have too few levels."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


def masked_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Logits under which the actions outside the mask have probability exactly 0.

    l_a where mask_a, else −√(largest float): −1.8·10¹⁹ in float32

    Finite rather than −∞: then 0 · ln 0 is 0 and not NaN, in entropies, divergences and their gradients, and
    no gradient reaches the logits of masked actions. The log-probability of a masked action is about that
    number too. It stands for −∞, and so does a divergence of that size.

    A row without any valid action cannot be refused under `jit`: its distribution is uniform over *all*
    actions, finite, so that rows of padding stay harmless. Whether real rows have one is for the
    environment's tests.

    Args:
        logits: l `[A]`, of size far below the floor.
        mask: bool `[A]`, true where the action is allowed.

    Returns:
        Logits `[A]`.
    """
    chex.assert_rank([logits, mask], 1)
    chex.assert_equal_shape([logits, mask])
    chex.assert_type([logits, mask], [float, bool])
    return jnp.where(mask, logits, floor(logits.dtype))


def or_invalid(action: jax.Array, logits: jax.Array) -> jax.Array:
    """The action, or −1 where the logits hold NaN or +∞: no probabilities belong to those."""
    return jnp.where(jnp.isfinite(jnp.max(jnp.maximum(logits, floor(logits.dtype)))), action, -1)


def _log_softmax(logits: jax.Array) -> jax.Array:
    """ln softmax(l) `[A]`, finite for logits of −∞ too."""
    chex.assert_rank(logits, 1)
    chex.assert_type(logits, float)
    return jax.nn.log_softmax(jnp.maximum(logits, floor(logits.dtype)))


def categorical_quantile(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """The action at a level of the cumulative distribution: one uniform number decides the action.

    a = min {a : p_a > 0, p_0 + … + p_a > u}

    The same u under two policies couples their actions (common random numbers). The first action *of positive
    probability* is asked for, and u is measured against the largest cumulative sum, not against 1: so no
    rounding of the sums, in whatever order they are taken, can yield an action of probability 0, for no u in
    [0, 1).

    u is a multiple of 2⁻²³ in float32 (2⁻⁵² in float64), so the frequency of an action differs from its
    probability by up to 2⁻²³, besides rounding of the sums; an action of probability below that may never be
    drawn.

    Args:
        logits: l `[A]`, masked ones included.
        uniform: u `[]` in [0, 1).

    Returns:
        a `[]`, int32; −1 if a logit is NaN or +∞.

    Source: inversion, Devroye 1986, section III.2.
    """
    chex.assert_rank([logits, uniform], [1, 0])
    chex.assert_type([logits, uniform], float)
    logits = jnp.maximum(logits.astype(uniform.dtype), floor(uniform.dtype))
    unnormalised = jnp.exp(logits - jnp.max(logits))
    possible = unnormalised > 0.0
    cumulative = jnp.cumsum(unnormalised)
    level = uniform * jnp.max(jnp.where(possible, cumulative, 0.0))
    return or_invalid(jax.lax.argmax(possible & (cumulative > level), 0, jnp.int32), logits)


def _categorical_sample(key: jax.Array, logits: jax.Array) -> jax.Array:
    # Half-precision uniforms would leave only some hundred levels.
    return categorical_quantile(logits, jax.random.uniform(key, (), at_least_float32(logits.dtype)))


def _categorical_log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    log_probs, action = _log_softmax(logits), jnp.asarray(action)
    chex.assert_rank(action, 0)
    chex.assert_type(action, int)
    actions = jnp.arange(logits.shape[0], dtype=action.dtype)
    log_prob = jnp.sum(jnp.where(actions == action, log_probs, 0.0))
    # Without this an action that does not exist would have probability 1.
    return jnp.where((action >= 0) & (action < logits.shape[0]), log_prob, jnp.nan)


def categorical_entropy(logits: jax.Array) -> jax.Array:
    """H(softmax(l)), a scalar."""
    log_probs = _log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs)


def categorical_kl(p: jax.Array, q: jax.Array) -> jax.Array:
    """KL(softmax(p) ‖ softmax(q)), a scalar."""
    log_p, log_q = _log_softmax(p), _log_softmax(q)
    chex.assert_equal_shape([log_p, log_q])
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q))


categorical = Distribution(
    sample=_categorical_sample,
    log_prob=_categorical_log_prob,
    entropy=categorical_entropy,
    kl=categorical_kl,
    mode=lambda logits: or_invalid(jax.lax.argmax(logits, 0, jnp.int32), logits),
)
"""One of A actions: parameters are logits l `[A]`, an action is an integer `[]`.

p_a = exp(l_a) / Σ_b exp(l_b),   H = −Σ_a p_a ln p_a,   KL(p ‖ q) = Σ_a p_a (ln p_a − ln q_a)

Logits may be masked (`masked_logits`, or −∞): values and gradients of log_prob, entropy and kl stay finite,
with 0 · ln 0 = 0. The log-probability of an action outside 0, …, A − 1 is NaN. `sample` is
`categorical_quantile` at one uniform number, `mode` the first of the most probable actions. Both are −1 if a
logit is NaN or +∞.
"""
