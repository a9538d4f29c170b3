"""The distribution over A actions, with logits as parameters."""

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax._doors import readable
from pgjax.types import Distribution


def floor(dtype: jnp.dtype) -> float:
    """−√(largest number) of a float type. Its exp is exactly 0, and no sum or square of it overflows."""
    return -float(np.sqrt(float(jnp.finfo(dtype).max)))


def at_least_float32(dtype: jnp.dtype) -> jnp.dtype:
    """The float type itself, or float32 for half precision, whose uniform numbers have too few different values."""
    return dtype if jnp.finfo(dtype).bits >= 32 else jnp.dtype(jnp.float32)


@readable
def masked_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Logits for which the actions outside the mask have probability exactly 0.

    l_a where mask_a, else −√(largest float): −1.8·10¹⁹ in float32

    The number is finite and not −∞. So 0 · ln 0 is 0 and not NaN in entropies, divergences and their gradients, and no
    gradient reaches the logits of masked actions. The log-probability of a masked action is about the same number; it
    stands for −∞, and a divergence of this size stands for ∞.

    Under `jit` no error can be raised for a row without any allowed action. Its distribution is uniform over *all*
    actions and finite, so that rows of padding do no harm. `environments.check` tests whether masks allow an action.

    Args:
        logits: l `[A]`, much smaller in size than √(largest float).
        mask: bool `[A]`, true where the action is allowed.

    Returns:
        Logits `[A]`.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax import distributions
        >>> logits = distributions.masked_logits(jnp.zeros(4), jnp.array([True, False, True, False]))
        >>> print(jax.nn.softmax(logits))
        [0.5 0.  0.5 0. ]
    """
    chex.assert_rank([logits, mask], 1)
    chex.assert_equal_shape([logits, mask])
    chex.assert_type([logits, mask], [float, bool])
    return jnp.where(mask, logits, floor(logits.dtype))


def or_invalid(action: jax.Array, logits: jax.Array) -> jax.Array:
    """The action, or −1 if a logit is NaN or +∞, because such logits define no probabilities."""
    return jnp.where(jnp.isfinite(jnp.max(jnp.maximum(logits, floor(logits.dtype)))), action, -1)


def _log_softmax(logits: jax.Array) -> jax.Array:
    """ln softmax(l) `[A]`, finite even for logits of −∞."""
    chex.assert_rank(logits, 1)
    chex.assert_type(logits, float)
    return jax.nn.log_softmax(jnp.maximum(logits, floor(logits.dtype)))


@readable
def categorical_quantile(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """The action at the level u of the cumulative distribution: one uniform number determines the action.

    a = min {a : p_a > 0, p_0 + … + p_a > u}

    Two policies with the same u have coupled actions (common random numbers). The function searches the first action
    *of positive probability* and compares u with the largest cumulative sum instead of 1. So no u in [0, 1) and no
    rounding of the sums can give an action of probability 0.

    u is a multiple of 2⁻²³ in float32 (2⁻⁵² in float64). So the frequency of an action differs from its probability by
    up to 2⁻²³, apart from rounding in the sums; an action with a smaller probability may never be drawn.

    Args:
        logits: l `[A]`, which may be masked.
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
    # Uniform numbers in half precision have only some hundred different values.
    return categorical_quantile(logits, jax.random.uniform(key, (), at_least_float32(logits.dtype)))


def _categorical_log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    log_probs, action = _log_softmax(logits), jnp.asarray(action)
    chex.assert_rank(action, 0)
    chex.assert_type(action, int)
    # The number of actions may not fit the action's own type: 256 bytes are numbered by uint8.
    action = action.astype(jnp.int32) if action.dtype.itemsize < 4 else action
    actions = jnp.arange(logits.shape[0], dtype=action.dtype)
    log_prob = jnp.sum(jnp.where(actions == action, log_probs, 0.0))
    # Without this, an action that does not exist would have probability 1.
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
"""One of A actions: the parameters are logits l `[A]`, and an action is an integer `[]`.

p_a = exp(l_a) / Σ_b exp(l_b),   H = −Σ_a p_a ln p_a,   KL(p ‖ q) = Σ_a p_a (ln p_a − ln q_a)

Logits may be masked (`masked_logits`, or −∞): values and gradients of log_prob, entropy and kl stay finite, with
0 · ln 0 = 0. The log-probability of an action outside 0, …, A − 1 is NaN. `sample` is `categorical_quantile` at one
uniform number, and `mode` is the first of the most probable actions. Both are −1 if a logit is NaN or +∞.
"""
