"""Best-of-n: draw n answers from the reference and keep the one of the highest reward; its exact distribution.

With F(y) = P(r(Y) ≤ r(y)) and F⁻(y) = P(r(Y) < r(y)) under the reference, the best of n has a reward equal to r(y) with
probability F(y)ⁿ − F⁻(y)ⁿ. Answers of equal reward share it in proportion to π_ref, because a fair draw breaks the tie.
Axis: N answers.
"""

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer
from pgjax._doors import readable


@readable
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
    ordered, probabilities = rewards[order], jnp.exp(log_probs)
    first, behind = (jnp.searchsorted(ordered, rewards, side=side) for side in ("left", "right"))
    cumulative = jnp.cumsum(probabilities[order])
    up_to = cumulative[behind - 1]
    # F − F⁻, added up by itself: in float32 a rare answer would vanish in a difference of cumulative sums.
    equal = jnp.zeros_like(probabilities).at[first].add(probabilities)[first]
    # With d = 1 − F⁻/F: (Fⁿ − F⁻ⁿ) / (F − F⁻) = Fⁿ⁻¹ (1 − (1 − d)ⁿ) / d, which is n Fⁿ⁻¹ for d → 0.
    reached = up_to > 0
    d = jnp.where(reached, equal / jnp.where(reached, up_to, 1.0), 1.0)
    n, between = jnp.asarray(num_draws, log_probs.dtype), (d > 0) & (d < 1)
    safe = jnp.where(between, d, 0.5)
    factor = jnp.where(between, -jnp.expm1(n * jnp.log1p(-safe)) / safe, jnp.where(d > 0, 1.0, n))
    level = jnp.where(reached, up_to / cumulative[-1], 1.0)
    return log_probs + (n - 1.0) * jnp.log(level) + jnp.log(factor)


@readable
def best_of_n_kl_bound(num_draws: int) -> float:
    """ln n − (n − 1)/n in nats: a bound of the KL of best-of-n to its reference, which draws without ties reach.

    Raises:
        ValueError: for n below 1.

    Source: Stiennon et al. 2020, who print it as the KL itself; Beirami et al. 2024 for the inequality.
    """
    require_integer("num_draws", num_draws, 1, None)
    return float(np.log(num_draws) - (num_draws - 1) / num_draws)
