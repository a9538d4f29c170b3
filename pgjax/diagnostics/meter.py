"""The noise of the gradient that trains, measured from the gradients of the parts of its batch; JAX functions to jit.

Axes: M parts, B episodes, P coordinates of the flattened gradient.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax._doors import readable
from pgjax._spread import centre_and_spread
from pgjax.diagnostics._sample_checks import at_least
from pgjax.diagnostics.gradients import flatten_gradients
from pgjax.types import PyTree


class BatchNoise(NamedTuple):
    """The signal and the noise of one batch gradient ḡ, each a scalar.

    The estimates of one batch are noisy. Average `variance` and `squared_norm` over several updates, and then take
    their ratio: the mean of ratios would be biased.

    Attributes:
        variance: tr Var(ḡ), unbiased.
        squared_norm: ‖E ḡ‖², unbiased; it may be negative.
        half_cosine: the cosine between the mean gradients of the first and the second half of the parts; 0 if one of
            them is 0.
    """

    variance: jax.Array
    squared_norm: jax.Array
    half_cosine: jax.Array

    @property
    def signal_to_noise(self) -> jax.Array:
        """‖E ḡ‖² / tr Var(ḡ)."""
        return self.squared_norm / self.variance

    def noise_scale(self, num_episodes: int) -> jax.Array:
        """B tr Var(ḡ) / ‖E ḡ‖², the number of episodes at which noise and signal are equal (McCandlish et al. 2018)."""
        return num_episodes * self.variance / self.squared_norm


@readable
def batch_noise(parts: PyTree) -> BatchNoise:
    """The noise of ḡ = (1/M) Σ_m g_m, from the gradients g_m of M equal parts of its batch.

        tr V̂ar(ḡ) = 1/(M (M−1)) Σ_m ‖g_m − ḡ‖²,    ‖Ê ḡ‖² = ‖ḡ‖² − tr V̂ar(ḡ)

    Both are unbiased if the parts are independent. They are independent if the weights do not depend on the batch
    (no baseline, a moving average, a predicted return). Weights that compare the episodes of a batch (leave-one-out,
    standardised weights) make the parts depend on each other, and the formula then misses that covariance. If whole
    groups are inside the parts, comparisons within groups do no harm.

    Args:
        parts: g_m, leaves `[M, ...]`, M ≥ 2, for example of `estimators.part_gradients`.

    Raises:
        ValueError: if M < 2, or if the leaves differ in M.

    Example: two parts that agree in one coordinate and differ in the other.

        >>> import jax.numpy as jnp
        >>> from pgjax import diagnostics
        >>> noise = diagnostics.batch_noise(jnp.array([[3.0, 1.0], [3.0, -1.0]]))
        >>> float(noise.variance), float(noise.squared_norm), round(float(noise.half_cosine), 3)
        (1.0, 8.0, 0.8)
    """
    rows = flatten_gradients(parts)
    count = at_least("parts", rows, 2)
    mean, deviations, _ = centre_and_spread(rows, axis=0)
    variance = jnp.sum(jnp.square(deviations)) / (count * (count - 1))
    first, second = jnp.mean(rows[: count // 2], axis=0), jnp.mean(rows[count // 2 :], axis=0)
    lengths = jnp.linalg.norm(first) * jnp.linalg.norm(second)
    cosine = jnp.sum(first * second) / jnp.where(lengths > 0, lengths, jnp.ones_like(lengths))
    return BatchNoise(variance=variance, squared_norm=jnp.sum(jnp.square(mean)) - variance, half_cosine=cosine)
