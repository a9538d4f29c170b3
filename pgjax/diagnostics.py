"""How good is an estimate of a gradient, and how sure are we: moments, ratios, and their intervals.

*Gradient statistics* (JAX: jit them, vmap them) look at N independent estimates g_i ∈ ℝ^P of one gradient,
for example the summand of each episode in a batch. *Run statistics* (NumPy, on the host) look at S
independent runs of an experiment. Axes: N episodes, P coordinates of the flattened gradient, S runs.
"""

import statistics
from collections.abc import Callable, Iterator
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from pgjax.types import PyTree

_ELEMENTS_AT_ONCE = 4_000_000  # of a bootstrap: larger pieces are no faster


class Estimate(NamedTuple):
    """An estimated number: `value`, its standard error, and a confidence interval from `low` to `high`."""

    value: jax.Array
    stderr: jax.Array
    low: jax.Array
    high: jax.Array


class GradientStatistics(NamedTuple):
    """What N independent estimates g_i of a gradient tell about one of them.

    The mean of B episodes has the same bias, the variance tr Var(g)/B and B times the signal-to-noise ratio.
    The last three fields compare with a reference gradient and are None without one.

    Attributes:
        mean: ḡ = Σ_i g_i / N, `[P]`.
        mean_stderr: the standard error of each coordinate of ḡ, and so of `bias`, `[P]`.
        squared_norm: ‖E g‖².
        variance: tr Var(g) = E‖g − E g‖².
        signal_to_noise: ‖E g‖² / tr Var(g).
        bias: ḡ − ∇ρ, `[P]`.
        squared_bias: ‖E g − ∇ρ‖².
        mean_squared_error: E‖g − ∇ρ‖² = tr Var(g) + ‖E g − ∇ρ‖².
    """

    mean: jax.Array
    mean_stderr: jax.Array
    squared_norm: Estimate
    variance: Estimate
    signal_to_noise: Estimate
    bias: jax.Array | None
    squared_bias: Estimate | None
    mean_squared_error: Estimate | None


def flatten_gradients(gradients: PyTree) -> jax.Array:
    """Lays a pytree of per-episode gradients out as one row per episode.

    Leaves `[N, ...]` of one dtype → `[N, P]`, P the number of parameters. The order of the columns is that of
    `jax.flatten_util.ravel_pytree`, which flattens a reference to match.

    Raises:
        ValueError: no leaves, or leaves that disagree about N.
    """
    leaves = jax.tree.leaves(gradients)
    counts = {leaf.shape[:1] for leaf in leaves}
    if len(counts) != 1 or () in counts:
        shapes = [leaf.shape for leaf in leaves]
        raise ValueError(f"gradients: every leaf needs the same leading axis [N], got the shapes {shapes}")
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=1)


def total_variance(gradients: jax.Array) -> jax.Array:
    """The total variance of one estimate, unbiased: V̂ = 1/(N−1) Σ_i ‖g_i − ḡ‖² of g_i `[N, P]`.

    Raises:
        ValueError: N < 2.
    """
    chex.assert_rank(gradients, 2)
    count = _at_least("gradients", gradients, 2)
    return jnp.sum(jnp.square(gradients - jnp.mean(gradients, axis=0, keepdims=True))) / (count - 1)


def gradient_statistics(
    gradients: jax.Array, reference: jax.Array | None = None, *, confidence: float = 0.95
) -> GradientStatistics:
    """Mean, variance, signal-to-noise ratio, bias and mean squared error of one estimate g, with intervals.

    The plug-in ‖ḡ‖² counts noise as signal, E‖ḡ‖² = ‖E g‖² + tr Var(g)/N, and so does ‖ḡ − ∇ρ‖². Both are
    corrected, which leaves them unbiased and, where the truth is near zero, free to come out negative:

        V̂ = 1/(N−1) Σ_i ‖g_i − ḡ‖²             ŜNR = (‖ḡ‖² − V̂/N) / V̂
        bias² = ‖ḡ − ∇ρ‖² − V̂/N                 MSE = V̂ + bias² = 1/N Σ_i ‖g_i − ∇ρ‖²

    ŜNR is a ratio of unbiased estimates and keeps a bias of order ‖E g‖/N. Standard errors are the
    jackknife's, SE² = (N−1)/N Σ_i (T₍ᵢ₎ − T̄)² with T₍ᵢ₎ the statistic without episode i: on average not too
    small, even where the first-order term vanishes, as for ‖E g‖² near 0. Intervals are T ± z·SE, z normal;
    what does not vary has NaN for its ratio.

    Args:
        gradients: g_i, `[N, P]`, N ≥ 3 independent estimates.
        reference: ∇ρ, `[P]`, the gradient to compare with, taken as exact.
        confidence: the coverage of the intervals, in (0, 1).

    Raises:
        ValueError: N < 3, or a confidence outside (0, 1).

    Source: Efron & Stein 1981 (The jackknife estimate of variance).
    """
    chex.assert_rank(gradients, 2)
    count = _at_least("gradients", gradients, 3)
    target = jnp.zeros_like(gradients[0]) if reference is None else reference
    chex.assert_equal_shape([target, gradients[0]])

    mean = jnp.mean(gradients, axis=0)
    bias = mean - target
    centred = gradients - mean[None]
    squares = jnp.sum(jnp.square(centred), axis=1)
    variance = jnp.sum(squares) / (count - 1)
    squared_norm = jnp.sum(jnp.square(mean)) - variance / count
    squared_bias = jnp.sum(jnp.square(bias)) - variance / count
    signal_to_noise = squared_norm / variance

    # T₍ᵢ₎ − T of each statistic, `[N]`; the difference of the two in float32 would drown for large N.
    variance_shift = (variance - count / (count - 1) * squares) / (count - 2)
    noise_shift = (variance / count + variance_shift) / (count - 1)

    def corrected_square_shift(vector: jax.Array) -> jax.Array:
        """Of ‖v‖² − V̂/N, v = ḡ − constant: without episode i, ḡ moves by −c_i/(N−1)."""
        alignment = jnp.sum(centred * vector[None], axis=1)
        return (squares / (count - 1) - 2 * alignment) / (count - 1) - noise_shift

    def estimate(value: jax.Array, shift: jax.Array) -> Estimate:
        return _normal_estimate(value, (count - 1) ** 0.5 * jnp.std(shift), confidence)

    norm_shift, bias_shift = corrected_square_shift(mean), corrected_square_shift(bias)
    ratio_shift = (norm_shift - signal_to_noise * variance_shift) / (variance + variance_shift)
    error, error_shift = variance + squared_bias, variance_shift + bias_shift
    compared = reference is not None
    return GradientStatistics(
        mean=mean,
        mean_stderr=jnp.sqrt(jnp.mean(jnp.square(centred), axis=0) / (count - 1)),
        squared_norm=estimate(squared_norm, norm_shift),
        variance=estimate(variance, variance_shift),
        signal_to_noise=estimate(signal_to_noise, ratio_shift),
        bias=bias if compared else None,
        squared_bias=estimate(squared_bias, bias_shift) if compared else None,
        mean_squared_error=estimate(error, error_shift) if compared else None,
    )


def _normal_estimate(value: jax.Array, stderr: jax.Array, confidence: float) -> Estimate:
    margin = statistics.NormalDist().inv_cdf(0.5 + _probability(confidence) / 2) * stderr
    return Estimate(value=value, stderr=stderr, low=value - margin, high=value + margin)


def batch_cosine(
    gradients: jax.Array, reference: jax.Array, *, batch_size: int, confidence: float = 0.95
) -> Estimate:
    """The cosine between the reference and the mean of B episodes, averaged over ⌊N/B⌋ disjoint batches.

    E cos(ḡ_B, ∇ρ),  cos(a, b) = ⟨a, b⟩ / (‖a‖ ‖b‖), and 0 where a batch's mean vanishes: it points nowhere.
    SE is the standard deviation of the batches / √⌊N/B⌋, the interval value ± z·SE. Episodes that do not
    fill a batch are left out.

    Args as for `gradient_statistics`, and B = `batch_size` from 1 to N/2.

    Raises:
        ValueError: a batch size or a confidence outside its range.

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
    return _normal_estimate(jnp.mean(cosines), jnp.std(cosines, ddof=1) / batches**0.5, confidence)


def paired_variance_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """tr Var(a) / tr Var(b) of two estimators a and b of a gradient that saw the *same* N episodes.

    A lucky episode is lucky for both, so the ratio is known far better than either variance. The bootstrap
    keeps that: each resample draws episodes and takes row i of both. The interval is the percentile interval,
    the standard error the standard deviation of the resampled ratios. Runs on the host, in float64.

    Args:
        numerator, denominator: a_i and b_i, `[N, P]`, N ≥ 10, row i of both from episode i.
        confidence, resamples, seed: as for `bootstrap_interval`.

    Returns:
        NumPy scalars, infinite where b does not vary; below 1, a is the quieter one.

    Raises:
        ValueError: shapes that differ, or a number outside its range.

    Source: Efron & Tibshirani 1993 (An introduction to the bootstrap), chapters 6 and 13.
    """
    a, b = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"numerator, denominator: both must be [N, P] alike, got {a.shape} and {b.shape}")
    count = _at_least("numerator", a, 10)
    weights = (_counts(rows) for rows in _resamples(count, count, resamples, seed))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = _resampled_variances(a, np.ones(count)) / _resampled_variances(b, np.ones(count))
        ratios = np.concatenate([_resampled_variances(a, k) / _resampled_variances(b, k) for k in weights])
        low, high = _percentile_interval(ratios, confidence)
        return Estimate(value=value, stderr=np.std(ratios, ddof=1), low=low, high=high)


def _resampled_variances(gradients: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """V̂ = (Σ_i k_i ‖c_i‖² − N ‖Σ_i k_i c_i / N‖²) / (N−1) of resamples with counts k, `[..., N] → [...]`."""
    count = gradients.shape[0]
    centred = gradients - gradients.mean(axis=0)
    means = counts @ centred / count
    return (counts @ np.sum(centred**2, axis=1) - count * np.sum(means**2, axis=-1)) / (count - 1)


def bootstrap_interval(
    x: ArrayLike, statistic: Callable, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The percentile bootstrap interval of a statistic of S independent runs.

    Each resample draws S whole runs with replacement. With few runs the interval is too narrow, as every
    percentile bootstrap is: for the mean of normal data and a nominal 95 %, it covers about 83 % at S = 5 and
    90 % at S = 10. More runs, not more resamples, mend that.

    Args:
        x: `[S, ...]`, the runs first.
        statistic: called as `statistic(array, axis=k)`: `np.mean`, `np.median`, `interquartile_mean`, …
        confidence: the coverage aimed at, in (0, 1).
        resamples, seed: how many bootstrap resamples, and from which seed.

    Returns:
        (low, high), each `[...]`; NaN for one run, which shows no spread.

    Raises:
        ValueError: no runs, or a number outside its range.

    Source: Efron & Tibshirani 1993, chapter 13; for runs, Agarwal et al. 2021.
    """
    x = np.asarray(x)
    if x.ndim == 0:
        raise ValueError("x: the first axis holds the runs [S, ...], got a scalar")
    count = _at_least("x", x, 1)
    pieces = _resamples(count, x.size, resamples, seed)
    low, high = _percentile_interval(np.concatenate([statistic(x[i], axis=1) for i in pieces]), confidence)
    return (low, high) if count > 1 else (np.full_like(low, np.nan), np.full_like(high, np.nan))


def interquartile_mean(x: ArrayLike, axis: int = 0) -> np.ndarray:
    """The mean of the middle half: ⌊S/4⌋ values are cut from each end (a 25 % trimmed mean).

    IQM = 1/(S − 2k) Σ_{i=k+1}^{S−k} x_(i),  k = ⌊S/4⌋, x_(i) in increasing order; the mean where S < 4.

    `[S, ...] → [...]`, or with the runs on `axis`. A NaN makes the result NaN: a diverged run is no outlier.

    Raises:
        ValueError: no runs.

    Source: Agarwal et al. 2021 (Deep reinforcement learning at the edge of the statistical precipice).
    """
    ordered = np.sort(np.moveaxis(np.asarray(x), axis, 0), axis=0)
    cut = _at_least("x", ordered, 1) // 4
    trimmed = np.mean(ordered[cut : ordered.shape[0] - cut], axis=0)
    # Sorting puts NaN last, where it would be cut.
    return np.where(np.isnan(ordered[-1]), np.nan, trimmed)[()]


def mean_and_stderr(x: ArrayLike, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x̄ = 1/S Σ x_s and its standard error √(1/(S−1) Σ (x_s − x̄)² / S), NaN for one run; `[S, ...] → [...]`.

    Raises:
        ValueError: no runs.
    """
    runs = np.moveaxis(np.asarray(x), axis, 0)
    count = _at_least("x", runs, 1)
    mean = np.mean(runs, axis=0)
    spread = np.full_like(mean, np.nan) if count == 1 else np.std(runs, axis=0, ddof=1)
    return mean, spread / count**0.5


def _resamples(count: int, size: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers `[r, N]` drawn with replacement, in pieces that keep r·size within the memory budget."""
    if resamples < 2:
        raise ValueError(f"resamples: must be at least 2, got {resamples}")
    generator = np.random.default_rng(seed)
    piece = max(1, _ELEMENTS_AT_ONCE // max(size, 1))
    for start in range(0, resamples, piece):
        yield generator.integers(count, size=(min(piece, resamples - start), count))


def _counts(rows: np.ndarray) -> np.ndarray:
    """How often each of N rows was drawn in each resample, `[r, N]` from `[r, N]`."""
    resamples, count = rows.shape
    numbered = rows + count * np.arange(resamples)[:, None]
    return np.bincount(numbered.ravel(), minlength=rows.size).reshape(rows.shape).astype(np.float64)


def _percentile_interval(resampled: np.ndarray, confidence: float) -> tuple[np.ndarray, np.ndarray]:
    """The central interval of `resampled`, `[R, ...]`, that holds the fraction `confidence`."""
    tail = (1 - _probability(confidence)) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high


def _probability(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence: must lie strictly between 0 and 1, got {confidence}")
    return confidence


def _at_least(name: str, rows: jax.Array | np.ndarray, least: int) -> int:
    if rows.shape[0] < least:
        raise ValueError(f"{name}: needs at least {least} rows on its first axis, got the shape {rows.shape}")
    return rows.shape[0]
