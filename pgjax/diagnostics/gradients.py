"""Moments of N independent estimates g_i ∈ ℝ^P of one gradient, with intervals; JAX functions to jit and vmap.

Axes: N estimates, P coordinates of the flattened gradient.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from pgjax._doors import readable
from pgjax._spread import centre_and_spread
from pgjax.diagnostics._sample_checks import at_least
from pgjax.diagnostics.intervals import Estimate, jackknife_stderr, positive_t_interval, t_interval
from pgjax.types import PyTree


class GradientStatistics(NamedTuple):
    """The mean, variance and bias of one estimate g, estimated from N independent estimates g_i.

    The mean of B episodes has the same bias, the variance tr Var(g)/B and B times the signal-to-noise ratio.
    The last three fields compare g with a reference gradient ∇ρ and are None without one.

    Attributes:
        mean: ḡ = Σ_i g_i / N, `[P]`.
        mean_stderr: the standard error of each coordinate of ḡ, and so of `bias`, `[P]`.
        squared_norm: ‖E g‖².
        variance: tr Var(g) = E‖g − E g‖².
        signal_to_noise: ‖E g‖² / tr Var(g).
        noise_scale: tr Var(g) / ‖E g‖², the batch size at which noise and signal are equal (McCandlish et al. 2018).
        bias: ḡ − ∇ρ, `[P]`.
        squared_bias: ‖E g − ∇ρ‖².
        mean_squared_error: E‖g − ∇ρ‖² = tr Var(g) + ‖E g − ∇ρ‖².
    """

    mean: jax.Array
    mean_stderr: jax.Array
    squared_norm: Estimate
    variance: Estimate
    signal_to_noise: Estimate
    noise_scale: Estimate
    bias: jax.Array | None
    squared_bias: Estimate | None
    mean_squared_error: Estimate | None


@readable
def flatten_gradients(gradients: PyTree) -> jax.Array:
    """Flatten a pytree of gradients, one per episode, to one row per episode.

    Leaves `[N, ...]` of one dtype become `[N, P]`, where P is the number of parameters. The columns have the order of
    `jax.flatten_util.ravel_pytree`, which flattens a reference gradient in the same way.

    Raises:
        ValueError: if there are no leaves, or leaves that differ in N.
    """
    leaves = jax.tree.leaves(gradients)
    counts = {leaf.shape[:1] for leaf in leaves}
    if len(counts) != 1 or () in counts:
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(f"gradients: every leaf needs the same leading axis [N], got the shapes {shapes}")
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


@readable
def total_variance(gradients: jax.Array) -> jax.Array:
    """The total variance of one estimate, unbiased: V̂ = 1/(N−1) Σ_i ‖g_i − ḡ‖² of g_i `[N, P]`.

    Raises:
        ValueError: if N < 2.
    """
    chex.assert_rank(gradients, 2)
    count = at_least("gradients", gradients, 2)
    return jnp.sum(jnp.square(centre_and_spread(gradients, axis=0)[1])) / (count - 1)


@readable
def gradient_statistics(
    gradients: jax.Array, reference: jax.Array | None = None, *, confidence: float = 0.95
) -> GradientStatistics:
    """Mean, variance, signal-to-noise ratio, bias and mean squared error of one estimate g, with intervals.

    ‖ḡ‖² counts noise as signal, E‖ḡ‖² = ‖E g‖² + tr Var(g)/N, and so does ‖ḡ − ∇ρ‖². Both are corrected here. The
    corrected estimates are unbiased, and they may be negative if the true value is near zero:

        V̂ = 1/(N−1) Σ_i ‖g_i − ḡ‖²             ŜNR = (‖ḡ‖² − V̂/N) / V̂
        bias² = ‖ḡ − ∇ρ‖² − V̂/N                 MSE = V̂ + bias² = 1/N Σ_i ‖g_i − ∇ρ‖²

    ŜNR is a ratio of unbiased estimates and has a bias of order ‖E g‖/N. Standard errors are those of the
    jackknife, SE² = (N−1)/N Σ_i (T₍ᵢ₎ − T̄)², where T₍ᵢ₎ is the statistic without episode i. On average they are not too
    small, even if the first-order term is 0, as for ‖E g‖² near 0.

    Intervals are T ± t·SE, where t is the quantile for N − 1 degrees of freedom. V̂ and MSE are positive, so their
    intervals are computed for their logarithms. The interval of the noise scale has the reciprocals of ŜNR's ends, and
    no upper end if the interval of ŜNR contains zero. With few episodes of a skewed gradient the intervals cover less
    often than `confidence`. Their measured coverage for g = w (½ + z), w exponential and z normal in ℝ⁴, at 95 % is:

        N                     3     5     10    30    100   300
        V̂, MSE               .90   .85   .84   .88   .91   .92
        ŜNR, noise scale      .98   .98   .97   .96   .95   .95
        ‖E g‖², bias²         .84   .85   .83   .86   .91   .93

    Estimates that are all equal have V̂ = 0, an infinite ŜNR (NaN if they are all 0), and NaN for its interval.

    Args:
        gradients: g_i, `[N, P]`, N ≥ 3 independent estimates.
        reference: ∇ρ, `[P]`, the exact gradient to compare with, or None.
        confidence: the coverage of the intervals, in (0, 1).

    Raises:
        ValueError: if N < 3, or for a confidence outside (0, 1).

    Source: Efron & Stein 1981 (The jackknife estimate of variance).

    Example: four estimates of a gradient with two coordinates, in NumPy-sized numbers.

        >>> import jax.numpy as jnp
        >>> from pgjax import diagnostics
        >>> estimates = jnp.array([[1.0, 0.0], [3.0, 0.0], [1.0, 2.0], [3.0, 2.0]])
        >>> found = diagnostics.gradient_statistics(estimates)
        >>> found.mean.tolist(), round(float(found.variance.value), 4)
        ([2.0, 1.0], 2.6667)
    """
    chex.assert_rank(gradients, 2)
    count = at_least("gradients", gradients, 3)
    target = jnp.zeros_like(gradients[0]) if reference is None else reference
    chex.assert_equal_shape([target, gradients[0]])

    mean, centred, _ = centre_and_spread(gradients, axis=0)
    mean = mean[0]
    bias = mean - target
    squares = jnp.sum(jnp.square(centred), axis=1)
    variance = jnp.sum(squares) / (count - 1)
    squared_norm = jnp.sum(jnp.square(mean)) - variance / count
    squared_bias = jnp.sum(jnp.square(bias)) - variance / count
    signal_to_noise = squared_norm / variance

    # T₍ᵢ₎ − T of each statistic, `[N]`; subtracting T from T₍ᵢ₎ in float32 would lose all digits for large N.
    variance_shift = (variance - count / (count - 1) * squares) / (count - 2)
    noise_shift = (variance / count + variance_shift) / (count - 1)

    def corrected_square_shift(vector: jax.Array) -> jax.Array:
        """T₍ᵢ₎ − T of T = ‖v‖² − V̂/N, where v = ḡ − constant: without episode i, ḡ changes by −c_i/(N−1)."""
        alignment = jnp.sum(centred * vector[None], axis=1)
        return (squares / (count - 1) - 2 * alignment) / (count - 1) - noise_shift

    def estimate(value: jax.Array, shift: jax.Array) -> Estimate:
        return t_interval(value, jackknife_stderr(shift), count - 1, confidence)

    norm_shift, bias_shift = corrected_square_shift(mean), corrected_square_shift(bias)
    ratio_shift = (norm_shift - signal_to_noise * variance_shift) / (variance + variance_shift)
    scale_shift = (variance_shift - variance / squared_norm * norm_shift) / (squared_norm + norm_shift)
    error, error_shift = variance + squared_bias, variance_shift + bias_shift
    ratio = estimate(signal_to_noise, ratio_shift)
    compared = reference is not None
    return GradientStatistics(
        mean=mean,
        mean_stderr=jnp.sqrt(jnp.mean(jnp.square(centred), axis=0) / (count - 1)),
        squared_norm=estimate(squared_norm, norm_shift),
        variance=positive_t_interval(variance, variance_shift, confidence),
        signal_to_noise=ratio,
        noise_scale=_reciprocal(ratio, variance / squared_norm, jackknife_stderr(scale_shift)),
        bias=bias if compared else None,
        squared_bias=estimate(squared_bias, bias_shift) if compared else None,
        mean_squared_error=positive_t_interval(error, error_shift, confidence) if compared else None,
    )


def _reciprocal(ratio: Estimate, value: jax.Array, stderr: jax.Array) -> Estimate:
    """`value` with the reciprocals of the ends of a ratio's interval, without an upper end if the lower is ≤ 0."""
    of = lambda end: jnp.where(end <= 0, jnp.inf, 1.0 / jnp.where(end == 0, 1.0, end))
    return Estimate(value=value, stderr=stderr, low=of(ratio.high), high=of(ratio.low))


@readable
def batch_cosine(gradients: jax.Array, reference: jax.Array, *, batch_size: int, confidence: float = 0.95) -> Estimate:
    """The cosine between the reference and the mean of B episodes, averaged over ⌊N/B⌋ disjoint batches.

    E cos(ḡ_B, ∇ρ),  cos(a, b) = ⟨a, b⟩ / (‖a‖ ‖b‖), and 0 if the mean of a batch is 0, which has no direction.
    SE is the standard deviation of the batches / √⌊N/B⌋, and the interval is the part of value ± t·SE in [−1, 1] with
    ⌊N/B⌋ − 1 degrees of freedom. Episodes that do not fill a batch are left out. Cosines are bounded and skewed:
    intervals of 95 % covered .92 with 2 batches, .88 with 5, .90 with 10 and .92 with 30 (measured for batches of 8 of
    the gradients in `gradient_statistics`).

    The arguments are those of `gradient_statistics`, and B = `batch_size` from 1 to N/2.

    Raises:
        ValueError: for a batch size or a confidence outside its range.

    Source: Ilyas et al. 2020 (A closer look at deep policy gradients).
    """
    chex.assert_rank([gradients, reference], [2, 1])
    chex.assert_equal_shape([gradients[0], reference])
    count = gradients.shape[0]
    if not 1 <= batch_size <= count // 2:
        raise ValueError(f"batch_size: must be from 1 to N/2 = {count // 2}, got {batch_size}")
    batches = count // batch_size
    means = jnp.mean(gradients[: batches * batch_size].reshape(batches, batch_size, -1), axis=1)
    norms = jnp.linalg.norm(means, axis=1) * jnp.linalg.norm(reference)
    cosines = jnp.sum(means * reference[None], axis=1) / jnp.where(norms > 0, norms, jnp.ones_like(norms))
    mean, _, spread = centre_and_spread(cosines, ddof=1)
    return t_interval(mean[0], spread[0] / batches**0.5, batches - 1, confidence, bounds=(-1.0, 1.0))
