"""Slates: ordered selections of k different items out of n, drawn one after the other without replacement."""

import itertools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax._doors import readable
from pgjax.distributions.categorical import (
    at_least_float32,
    categorical_entropy,
    categorical_kl,
    floor,
    or_invalid,
)
from pgjax.spaces import Slate, all_different
from pgjax.types import Distribution

_MOST_TERMS = 10_000


@readable
def plackett_luce(n: int, k: int) -> Distribution:
    """The Plackett–Luce distribution: the parameters are logits l `[n]`; an action is a slate `[k]` of different items.

    ln p(a) = Σ_{i=1..k} [l_{a_i} − ln Σ_{j not in a_1, …, a_{i−1}} exp(l_j)]

    `sample` gives the k items with the largest l_j + g_j in falling order, where the g_j are independent standard
    Gumbel numbers. This is exact: the first item is j with probability softmax(l)_j, and given the first item, the
    order of the others has the distribution without that item (Yellott 1977). Frequencies are as fine as the uniform
    numbers of the logits' type, 2⁻²³ in float32. `mode` gives the k most probable items in falling order, which is the
    most probable slate.

    The entropy and the divergence have no short closed form. By the chain rule they are exact sums over all items that
    may stand before each place,

        H = Σ_i Σ_{a_1, …, a_{i−1}} p(a_1, …, a_{i−1}) H(A_i | a_1, …, a_{i−1}),

    and likewise for KL. If these sums have more than 10 000 terms (k = 2 from n = 101 on, k = 3 from n = 22 on),
    `entropy` and `kl` are None. Training then runs without the entropy as a metric, and an entropy bonus or a natural
    gradient is an error.

    Logits may be masked (`masked_logits`, or −∞). Under `jit` no error can be raised if the mask allows fewer than k
    items; the slate then also holds masked items. The log-probability is NaN for a slate that repeats an item or holds
    an item outside 0, …, n − 1. If a logit is NaN or +∞, the log-probability of every slate is NaN, and all entries of
    a sample are −1.

    Args:
        n: the number of items.
        k: the length of a slate.

    Returns:
        The distribution over `Slate(n, k)`.

    Raises:
        ValueError: if n is not an integer of at least 1, or k is not an integer in [1, n].

    Source: Plackett 1975; Luce 1959; sampling: Yellott 1977, Kool, van Hoof & Welling 2019.

    Example: the best three of five items, and a slate that is too long for an entropy.

        >>> import jax.numpy as jnp
        >>> from pgjax import distributions
        >>> print(distributions.plackett_luce(n=5, k=3).mode(jnp.array([0.0, 3.0, 1.0, 2.0, -1.0])))
        [1 3 2]
        >>> distributions.plackett_luce(n=200, k=10).entropy is None
        True
    """
    Slate(n, k)

    def finite(logits: jax.Array) -> jax.Array:
        chex.assert_shape(logits, (n,))
        chex.assert_type(logits, float)
        return jnp.maximum(logits, floor(logits.dtype))

    def top(scores: jax.Array, logits: jax.Array) -> jax.Array:
        return or_invalid(jax.lax.top_k(scores, k)[1].astype(jnp.int32), logits)

    def sample(key: jax.Array, logits: jax.Array) -> jax.Array:
        # Half-precision Gumbel numbers would tie too often.
        wide = finite(logits).astype(at_least_float32(logits.dtype))
        return top(wide + jax.random.gumbel(key, (n,), wide.dtype), logits)

    def log_prob(logits: jax.Array, slate: jax.Array) -> jax.Array:
        chex.assert_shape(slate, (k,))
        chex.assert_type(slate, int)
        valid = jnp.all((slate >= 0) & (slate < n)) & all_different(slate)
        return jnp.where(valid, _log_prob(finite(logits), slate), jnp.nan)

    levels = [_prefixes(n, i) for i in range(k)] if _terms(n, k) <= _MOST_TERMS else []

    def over_prefixes(logits: jax.Array, of_rest: Callable[[jax.Array], jax.Array]) -> jax.Array:
        """Σ p(prefix) · of_rest(which items are gone), over the prefixes of every length below k."""
        total = jnp.zeros((), logits.dtype)
        for prefixes in levels:
            gone = (prefixes[:, :, None] == np.arange(n)).any(1)
            weights = jnp.exp(jax.vmap(_log_prob, (None, 0))(logits, prefixes))
            total += jnp.sum(weights * jax.vmap(of_rest)(gone))
        return total

    def without(logits: jax.Array, gone: jax.Array) -> jax.Array:
        return jnp.where(gone, floor(logits.dtype), logits)

    def entropy(logits: jax.Array) -> jax.Array:
        logits = finite(logits)
        return over_prefixes(logits, lambda gone: categorical_entropy(without(logits, gone)))

    def kl(p: jax.Array, q: jax.Array) -> jax.Array:
        p, q = finite(p), finite(q)
        return over_prefixes(p, lambda gone: categorical_kl(without(p, gone), without(q, gone)))

    return Distribution(
        sample=sample,
        log_prob=log_prob,
        entropy=entropy if levels else None,
        kl=kl if levels else None,
        mode=lambda logits: top(finite(logits), logits),
    )


def _log_prob(logits: jax.Array, prefix: jax.Array | np.ndarray) -> jax.Array:
    """ln p of the first places `[i]` of a slate, which hold different items; 0 if there are no places."""
    n, length = logits.shape[0], prefix.shape[0]
    chosen = prefix[:, None] == jnp.arange(n, dtype=prefix.dtype)[None]
    count = chosen.astype(jnp.int32)
    left = jnp.cumsum(count, axis=0) == count
    chosen_logits = jnp.sum(jnp.where(chosen, logits, 0.0), axis=1)
    rest = jax.nn.logsumexp(jnp.broadcast_to(logits[None], (length, n)), axis=1, where=left)
    return jnp.sum(chosen_logits - rest)


def _terms(n: int, k: int) -> int:
    """The number of terms of the sums: n times the number of prefixes, not counting the empty prefix."""
    number, terms = 1, 0
    for i in range(1, k):
        number *= n - i + 1
        terms += number * n
    return terms


def _prefixes(n: int, length: int) -> np.ndarray:
    """All ordered selections of `length` items out of n, int32 `[number of selections, length]`."""
    prefixes = list(itertools.permutations(range(n), length))
    return np.asarray(prefixes, np.int32).reshape(len(prefixes), length)
