"""Best-of-n: draw n answers from the reference and keep the one of the highest reward; its exact distribution.

With F(y) = P(r(Y) ≤ r(y)) and F⁻(y) = P(r(Y) < r(y)) under the reference, the best of n has a reward equal to r(y) with
probability F(y)ⁿ − F⁻(y)ⁿ. Answers of equal reward share it in proportion to π_ref, because a fair draw breaks the tie.
Axis: N answers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer


def best_of_n_log_probs(reference_log_probs: jax.Array, rewards: jax.Array, num_draws: int | jax.Array) -> jax.Array:
    """ln P(y is the best of n) = ln π_ref(y) + ln [(Fⁿ − F⁻ⁿ) / (F − F⁻)], `[..., N]`.

    Its KL to the reference is below `best_of_n_kl_bound(n)` on every finite set, because equal draws win nothing. The
    expected reward is `expected(this, rewards)`; with another score it shows what the choice by a proxy is worth.

    Args:
        reference_log_probs: ln π_ref `[..., N]`, whose probabilities sum to 1.
        rewards: r `[..., N]`, by which the best answer is chosen.
        num_draws: n ≥ 1; may be traced.

    Raises:
        ValueError: for n below 1.

    Source: Beirami et al. 2024 for distinct rewards; the ties are ours.

    Example: of two draws of a fair coin the better side is kept with probability 3/4.

        >>> import jax.numpy as jnp
        >>> from pgjax import exact
        >>> best = exact.best_of_n_log_probs(jnp.log(jnp.array([0.5, 0.5])), jnp.array([0.0, 1.0]), num_draws=2)
        >>> jnp.exp(best).round(4).tolist()
        [0.25, 0.75]
    """
    require_integer("num_draws", num_draws, 1, None)
    shape = jnp.broadcast_shapes(reference_log_probs.shape, rewards.shape)
    reference, paid = (jnp.broadcast_to(x, shape) for x in (reference_log_probs, rewards))
    return jnp.vectorize(lambda p, r: _of_one(p, r, num_draws), signature="(n),(n)->(n)")(reference, paid)


def _of_one(log_probs: jax.Array, rewards: jax.Array, num_draws: int | jax.Array) -> jax.Array:
    order = jnp.argsort(rewards)
    ordered = rewards[order]
    cumulative = jnp.concatenate([jnp.zeros(1, log_probs.dtype), jnp.cumsum(jnp.exp(log_probs[order]))])
    below = cumulative[jnp.searchsorted(ordered, rewards, side="left")]
    up_to = cumulative[jnp.searchsorted(ordered, rewards, side="right")] / cumulative[-1]
    below = below / cumulative[-1]
    # With d = 1 − F⁻/F: (Fⁿ − F⁻ⁿ) / (F − F⁻) = Fⁿ⁻¹ (1 − (1 − d)ⁿ) / d, without a difference of close numbers.
    possible = up_to > below
    d = jnp.where(possible, (up_to - below) / jnp.where(possible, up_to, 1.0), 1.0)
    lowest = d >= 1.0
    n = jnp.asarray(num_draws, log_probs.dtype)
    factor = jnp.where(lowest, 1.0, -jnp.expm1(n * jnp.log1p(-jnp.where(lowest, 0.5, d))) / d)
    level = jnp.where(possible, up_to, 1.0)
    return log_probs + (n - 1.0) * jnp.log(level) + jnp.log(factor)


def best_of_n_kl_bound(num_draws: int) -> float:
    """ln n − (n − 1)/n in nats: a bound of the KL of best-of-n to its reference, which draws without ties reach.

    Raises:
        ValueError: for n below 1.

    Source: Stiennon et al. 2020, who print it as the KL itself; Beirami et al. 2024 for the inequality.
    """
    require_integer("num_draws", num_draws, 1, None)
    return float(np.log(num_draws) - (num_draws - 1) / num_draws)
