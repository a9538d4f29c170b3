"""Several choices at once, each one of its own number of actions."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.distributions.categorical import categorical, categorical_entropy, categorical_kl, floor
from pgjax.spaces import MultiDiscrete
from pgjax.types import Distribution


def multi_categorical(sizes: Sequence[int]) -> Distribution:
    """D independent categorical choices: parameters are logits l `[D, A]`, an action is an integer array `[D]`.

    p(a) = Π_i softmax(l_i)_{a_i},   H = Σ_i H_i,   KL = Σ_i KL_i,   0 ≤ a_i < sizes[i]

    A is the largest of the sizes. Row i uses its first sizes[i] logits; the others have probability exactly 0 and no
    gradient reaches them, whatever they are. Masks and logits of NaN or +∞ act row by row as in `categorical`. The
    log-probability of an action outside the sizes is NaN.

    Args:
        sizes: how many actions each of the D choices has.

    Returns:
        The distribution over `MultiDiscrete(sizes)`.

    Raises:
        ValueError: if `sizes` is no sequence of at least one integer, each at least 1.
    """
    counts = np.asarray(MultiDiscrete(tuple(sizes)).sizes)
    exists = np.arange(counts.max()) < counts[:, None]

    def rows(logits: jax.Array) -> jax.Array:
        chex.assert_shape(logits, exists.shape)
        chex.assert_type(logits, float)
        low = floor(logits.dtype)
        # Masked actions stand above those that do not exist, which a row without any valid action could draw otherwise.
        return jnp.where(exists, jnp.maximum(logits, low / 2), low)

    def sample(key: jax.Array, logits: jax.Array) -> jax.Array:
        return jax.vmap(categorical.sample)(jax.random.split(key, len(counts)), rows(logits))

    def log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
        each = jax.vmap(categorical.log_prob)(rows(logits), action)
        return jnp.where(jnp.all(action < counts.astype(action.dtype)), jnp.sum(each), jnp.nan)

    return Distribution(
        sample=sample,
        log_prob=log_prob,
        entropy=lambda logits: jnp.sum(jax.vmap(categorical_entropy)(rows(logits))),
        kl=lambda p, q: jnp.sum(jax.vmap(categorical_kl)(rows(p), rows(q))),
        mode=lambda logits: jax.vmap(categorical.mode)(rows(logits)),
    )
