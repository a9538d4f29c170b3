"""The distribution of several simultaneous choices, which may have different numbers of actions."""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax._doors import readable
from pgjax.distributions.categorical import categorical, categorical_entropy, categorical_kl, floor
from pgjax.spaces import MultiDiscrete
from pgjax.types import Distribution


@readable
def multi_categorical(sizes: Sequence[int]) -> Distribution:
    """D independent categorical choices: the parameters are logits l `[D, A]`, and an action is an integer array `[D]`.

    p(a) = Π_i softmax(l_i)_{a_i},   H = Σ_i H_i,   KL = Σ_i KL_i,   0 ≤ a_i < sizes[i]

    A is the largest size. Row i uses its first sizes[i] logits. The other logits of the row are ignored: their actions
    have probability exactly 0, and no gradient reaches them. Masks and logits of NaN or +∞ work row by row, as in
    `categorical`. The log-probability of an action outside the sizes is NaN.

    Args:
        sizes: the number of actions of each of the D choices.

    Returns:
        The distribution over `MultiDiscrete(sizes)`.

    Raises:
        ValueError: if `sizes` is not a sequence of at least one integer, or an integer is below 1.

    Example: a choice among two actions and a choice among three.

        >>> import jax.numpy as jnp
        >>> from pgjax import distributions
        >>> both = distributions.multi_categorical([2, 3])
        >>> both
        Distribution(multi_categorical)
        >>> print(both.mode(jnp.array([[0.0, 1.0, 9.0], [0.0, 1.0, 9.0]])))  # the first row uses two logits
        [1 2]
    """
    counts = np.asarray(MultiDiscrete(tuple(sizes)).sizes)
    exists = np.arange(counts.max()) < counts[:, None]

    def rows(logits: jax.Array) -> jax.Array:
        chex.assert_shape(logits, exists.shape)
        chex.assert_type(logits, float)
        low = floor(logits.dtype)
        # Masked logits stay above those of actions that do not exist, so that no row can draw such an action.
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
