"""Quantiles of Student's t distribution, and intervals from them. All t intervals of pgjax are computed here."""

import functools
import math
import statistics
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import require_integer
from pgjax._doors import readable
from pgjax.diagnostics._sample_checks import at_least, require_probability

FEWEST_RUNS = 5
UNBOUNDED = (-math.inf, math.inf)


class Estimate(NamedTuple):
    """An estimated number: `value`, its standard error, and a confidence interval from `low` to `high`."""

    value: jax.Array | np.ndarray | float
    stderr: jax.Array | np.ndarray | float
    low: jax.Array | np.ndarray | float
    high: jax.Array | np.ndarray | float


@functools.cache
def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t distribution with ν degrees of freedom, to ten digits from 10⁻⁴ to 1 − 10⁻⁴.

    With t = √ν tan φ the distribution function is F(t) = ½ + ½ I(φ) / I(π/2), I(φ) = ∫_0^φ cos^{ν−1} x dx. I is concave
    in φ > 0 and the root lies above the normal quantile, so Newton's method from the normal quantile rises to the root
    and cannot overshoot.

    Args:
        probability: F(t), strictly between 0 and 1.
        degrees: ν, an integer of at least 1: S − 1 for the mean of S runs.

    Raises:
        ValueError: for a probability outside (0, 1), or degrees that are not an integer of at least 1.

    Source: Student 1908; Abramowitz & Stegun 1964, section 26.7.

    Example: the factor of a 95 % interval from three runs is far from the normal 1.96.

        >>> from pgjax.diagnostics import intervals
        >>> round(intervals.t_quantile(0.975, degrees=2), 3)
        4.303
    """
    require_probability(probability, "probability")
    require_integer("degrees", degrees, 1, None)
    if probability < 0.5:
        return -t_quantile(1.0 - probability, degrees)
    nodes, weights = np.polynomial.legendre.leggauss(64)
    integral = lambda x: x / 2.0 * float(weights @ np.cos(x * (1.0 + nodes) / 2.0) ** (degrees - 1))
    # For many degrees of freedom the integrand is 0 beyond twelve standard deviations.
    wanted = (2.0 * probability - 1.0) * integral(min(math.pi / 2.0, 12.0 / math.sqrt(degrees)))
    angle = math.atan(statistics.NormalDist().inv_cdf(probability) / math.sqrt(degrees))
    for _ in range(40):
        angle += (wanted - integral(angle)) / math.cos(angle) ** (degrees - 1)
    return math.sqrt(degrees) * math.tan(angle)


@readable
def t_interval(
    value: Any, stderr: Any, degrees: int, confidence: float = 0.95, *, bounds: tuple[float, float] = UNBOUNDED
) -> Estimate:
    """The interval value ± t · stderr, for JAX or NumPy arrays of any shape.

    t is the quantile at ½ + `confidence`/2 for ν = `degrees` degrees of freedom.

    Args:
        bounds: the range in which the estimated number is known to lie; see `within`.

    Raises:
        ValueError: for a confidence outside (0, 1), ν < 1, or bounds that are not in order.
    """
    margin = t_quantile(0.5 + require_probability(confidence) / 2.0, degrees) * stderr
    return within(Estimate(value=value, stderr=stderr, low=value - margin, high=value + margin), bounds)


@readable
def within(estimate: Estimate, bounds: tuple[float, float]) -> Estimate:
    """The estimate with the part of its interval [l, h] that lies in [a, b] = `bounds`.

    The estimated number lies in [a, b], so [l, h] covers it exactly as often as [l, h] ∩ [a, b] does: the shorter
    interval has the same coverage. If [l, h] lies outside [a, b], the interval is the nearer bound, which covers the
    number at least as often. `value` and
    `stderr` stay as they are, so an unbiased estimate may lie outside the bounds, and outside the interval.

    Args:
        bounds: (a, b) with a ≤ b, such as (0, 1) for a probability, (0, ∞) for a variance, or the least and the
            greatest return of an episode.

    Raises:
        ValueError: for bounds that are not in order.

    Source: elementary; Mandelkern 2002 (Setting confidence intervals for bounded parameters) compares other intervals.

    Example: no rate is above 1.

        >>> from pgjax import diagnostics
        >>> found = diagnostics.mean_interval([0.9, 1.0], bounds=(0.0, 1.0))
        >>> round(float(found.low), 2), float(found.high)
        (0.31, 1.0)
    """
    least, most = bounds
    if not least <= most:
        raise ValueError(f"bounds: the first must not be above the second, got {bounds}")
    if tuple(bounds) == UNBOUNDED:
        return estimate
    xp = jnp if isinstance(estimate.low, jax.Array) else np
    cut = lambda x: xp.clip(x, least, most)
    return estimate._replace(low=cut(estimate.low), high=cut(estimate.high))


def positive_t_interval(value: jax.Array, shift: jax.Array, confidence: float = 0.95) -> Estimate:
    """The interval exp(ln T ± t · SE) of a statistic T > 0, with the jackknife's SE of ln T.

    t has N − 1 degrees of freedom.
    A sum of squares is skewed, and its logarithm is less so: this interval is longer above T than below, is never below
    0, and covers better than T ± t · SE. `stderr` is the jackknife's standard error of T itself. If T = 0 the interval
    is 0 to 0.

    Args:
        value: T, `[]`.
        shift: T₍ᵢ₎ − T, the change of T if unit i is left out, `[N]`.
    """
    count = shift.shape[0]
    positive = value > 0
    # If one unit makes up all of T, T₍ᵢ₎ is 0 and has no logarithm, so the rounding of T replaces it.
    left = jnp.maximum(1.0 + shift / jnp.where(positive, value, 1.0), jnp.finfo(shift.dtype).eps)
    spread = jackknife_stderr(jnp.log(left))
    factor = jnp.exp(t_quantile(0.5 + require_probability(confidence) / 2.0, count - 1) * spread)
    return Estimate(value=value, stderr=jackknife_stderr(shift), low=value / factor, high=value * factor)


def jackknife_stderr(shift: jax.Array) -> jax.Array:
    """√((N−1)/N Σ_i (T₍ᵢ₎ − T̄)²) from T₍ᵢ₎ − T, `[N]`."""
    return (shift.shape[0] - 1) ** 0.5 * jnp.std(shift)


@readable
def mean_interval(
    x: ArrayLike, axis: int = 0, *, confidence: float = 0.95, bounds: tuple[float, float] = UNBOUNDED
) -> Estimate:
    """The mean of S independent runs with its standard error and t interval: x̄ ± t s/√S. NumPy, on the host.

    The coverage of the interval equals `confidence` if runs are normal, even for two runs (x̄ ± 1.96 s/√S covers only
    70 % of the time at S = 2 and 81 % at 3). It is smaller if runs are skewed: for exponential runs and 95 % it
    measured 89 % at S = 3, 90 % at 10 and 93 % at 30. Intervals from fewer than five runs say little (`few_runs`).

    Args:
        x: `[S, ...]`, or an array with the runs on `axis`.
        axis: the axis of the runs.
        confidence: the coverage aimed at, in (0, 1).
        bounds: the range in which the mean is known to lie, at which its interval then ends; see `within`.

    Returns:
        `Estimate` of NumPy arrays `[...]`; the error and the interval are NaN for one run, which shows no spread.

    Raises:
        ValueError: if there are no runs, for a confidence outside (0, 1), or for bounds that are not in order.

    Source: Student 1908.

    Example: four runs.

        >>> from pgjax import diagnostics
        >>> found = diagnostics.mean_interval([8.0, 10.0, 12.0, 10.0])
        >>> [round(float(x), 2) for x in (found.value, found.stderr, found.low, found.high)]
        [10.0, 0.82, 7.4, 12.6]
    """
    mean, stderr = mean_and_stderr(x, axis)
    return t_interval(mean, stderr, max(np.asarray(x).shape[axis] - 1, 1), confidence, bounds=bounds)


@readable
def mean_and_stderr(x: ArrayLike, axis: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x̄ = 1/S Σ x_s and its standard error √(1/(S−1) Σ (x_s − x̄)² / S), NaN for one run; `[S, ...] → [...]`.

    x̄ ± one standard error covers 68 % of the time for many normal runs, 58 % for three runs and 50 % for two.

    Raises:
        ValueError: if there are no runs.
    """
    runs = np.moveaxis(np.asarray(x), axis, 0)
    runs = runs if np.issubdtype(runs.dtype, np.floating) else runs.astype(float)
    count = at_least("x", runs, 1)
    # The first run is subtracted, so that runs that are all equal have a spread of exactly 0.
    deviations = runs - runs[:1]
    mean = runs[0] + np.mean(deviations, axis=0)
    spread = np.full_like(mean, np.nan) if count == 1 else np.std(deviations, axis=0, ddof=1)
    return mean, spread / count**0.5


@readable
def few_runs(count: int, unit: str = "runs") -> str:
    """A warning for S < 5 runs that says how wide an interval from so few runs is; an empty text for more runs."""
    if count >= FEWEST_RUNS:
        return ""
    if count < 2:
        return f"One of the {unit} shows no spread, so there is no interval."
    ratio = t_quantile(0.975, count - 1)
    wide = f"Only {count} {unit}: a 95 % interval is {ratio:.1f} standard errors to each side."
    return wide if count > 2 else f"{wide} Two {unit} are too few for an interval that says anything; use five or more."
