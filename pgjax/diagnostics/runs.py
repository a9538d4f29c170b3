"""Statistics of runs and of paired estimates, by resampling: NumPy, on the host.

Axes: S runs, N episodes, P coordinates.
"""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import ArrayLike

from pgjax._doors import readable
from pgjax.diagnostics._sample_checks import at_least, require_probability
from pgjax.diagnostics.intervals import Estimate

_ELEMENTS_AT_ONCE = 4_000_000  # numbers that a bootstrap holds at the same time; larger pieces are not faster


@readable
def paired_variance_ratio(
    numerator: ArrayLike,
    denominator: ArrayLike,
    *,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """tr Var(a) / tr Var(b) of two estimators a and b of a gradient that saw the *same* N episodes.

    An unusual episode changes both estimates in a similar way, so the ratio is known more precisely than either
    variance. The bootstrap preserves this: each resample draws episodes and takes row i of both. The interval is the
    percentile interval, and the standard error is the standard deviation of the resampled ratios. The function runs on
    the host, in float64.

    Args:
        numerator, denominator: a_i and b_i, `[N, P]`, N ≥ 10, row i of both from episode i.
        confidence, resamples, seed: as for `bootstrap_interval`.

    Returns:
        NumPy scalars, infinite if b does not vary; a value below 1 means that a has the smaller variance.

    Raises:
        ValueError: for shapes that differ, or a number outside its range.

    Source: Efron & Tibshirani 1993 (An introduction to the bootstrap), chapters 6 and 13.
    """
    a, b = np.asarray(numerator, np.float64), np.asarray(denominator, np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"numerator, denominator: both must be [N, P] alike, got {a.shape} and {b.shape}")
    count = at_least("numerator", a, 10)
    weights = (_counts(rows) for rows in _resamples(count, count, resamples, seed))
    with np.errstate(divide="ignore", invalid="ignore"):
        value = _resampled_variances(a, np.ones(count)) / _resampled_variances(b, np.ones(count))
        ratios = np.concatenate([_resampled_variances(a, k) / _resampled_variances(b, k) for k in weights])
        low, high = _percentile_interval(ratios, confidence)
        return Estimate(value=value, stderr=ratios.std(ddof=1), low=low, high=high)


def _resampled_variances(gradients: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """V̂ = (Σ_i k_i ‖c_i‖² − N ‖Σ_i k_i c_i / N‖²) / (N−1) of resamples with counts k, `[..., N] → [...]`."""
    count = gradients.shape[0]
    # The first row is subtracted, so that rows that are all equal have a variance of exactly 0.
    centred = gradients - gradients[:1]
    centred = centred - centred.mean(axis=0)
    means = counts @ centred / count
    return (counts @ np.sum(centred**2, axis=1) - count * np.sum(means**2, axis=-1)) / (count - 1)


@readable
def bootstrap_interval(
    x: ArrayLike, statistic: Callable, *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """The percentile bootstrap interval of a statistic of S independent runs.

    Each resample draws S whole runs with replacement. With few runs the interval is too narrow, as for every percentile
    bootstrap: for the mean of normal data, intervals of 95 % cover about 50 % at S = 2, 83 % at S = 5 and 90 % at
    S = 10. More runs help, and more resamples do not. For a mean use `mean_interval`, which covers.

    Args:
        x: `[S, ...]`; the first axis counts the runs.
        statistic: called as `statistic(array, axis=k)`, such as `np.mean`, `np.median` or `interquartile_mean`.
        confidence: the coverage aimed at, in (0, 1).
        resamples: the number of bootstrap resamples.
        seed: the seed of the resamples.

    Returns:
        (low, high), each `[...]`; NaN for one run, which shows no spread.

    Raises:
        ValueError: if there are no runs, or for a number outside its range.

    Source: Efron & Tibshirani 1993, chapter 13; for runs, Agarwal et al. 2021.
    """
    x = np.asarray(x)
    if x.ndim == 0:
        raise ValueError("x: the first axis holds the runs [S, ...], got a scalar")
    count = at_least("x", x, 1)
    pieces = _resamples(count, x.size, resamples, seed)
    low, high = _percentile_interval(np.concatenate([statistic(x[i], axis=1) for i in pieces]), confidence)
    return (low, high) if count > 1 else (np.full_like(low, np.nan), np.full_like(high, np.nan))


@readable
def interquartile_mean(x: ArrayLike, axis: int = 0) -> np.ndarray:
    """The mean of the middle half: ⌊S/4⌋ values are cut from each end (a 25 % trimmed mean).

    IQM = 1/(S − 2k) Σ_{i=k+1}^{S−k} x_(i),  k = ⌊S/4⌋, x_(i) in increasing order; the mean where S < 4.

    `[S, ...] → [...]`, or with the runs on `axis`. A NaN makes the result NaN, because a diverged run must not be cut.

    Raises:
        ValueError: if there are no runs.

    Source: Agarwal et al. 2021 (Deep reinforcement learning at the edge of the statistical precipice).

    Example:
        >>> from pgjax import diagnostics
        >>> float(diagnostics.interquartile_mean([0.0, 4.0, 6.0, 100.0]))
        5.0
    """
    ordered = np.sort(np.moveaxis(np.asarray(x), axis, 0), axis=0)
    cut = at_least("x", ordered, 1) // 4
    trimmed = np.mean(ordered[cut : ordered.shape[0] - cut], axis=0)
    # Sorting puts NaN last, where it would be cut.
    return np.where(np.isnan(ordered[-1]), np.nan, trimmed)[()]


def _resamples(count: int, size: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers `[r, N]` drawn with replacement, in pieces in which r·size is at most `_ELEMENTS_AT_ONCE`."""
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
    tail = (1 - require_probability(confidence)) / 2
    low, high = np.quantile(resampled, [tail, 1 - tail], axis=0)
    return low, high
