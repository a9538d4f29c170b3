"""How many labels a reward model needs: a simulated fit of the Bradley–Terry model, before a person labels anything.

The person judges a pair by Δ = w · x, the difference of two rewards, and chooses the first answer with probability
σ(Δ). The features x of a pair are D independent standard normal numbers and ‖w‖ = τ, so that Δ ~ N(0, τ²). A person
who judges the same pair twice gives the same answer with probability

    s(τ) = E[σ(Δ)² + σ(−Δ)²],

which repeated pairs measure; τ is the number with this s. From N labels the maximum of the posterior

    ŵ = argmax_w Σ_n ln σ(±w · x_n) − ‖w‖² D / (2 τ²)

is found by Newton's method. With ρ, the cosine between ŵ and w, the fitted model picks the answer of the larger reward
with probability 1 − arccos(ρ) / π.

Any D linearly independent features can be turned into independent ones without changing the model, so this plan
depends on the number of features alone. It holds for a linear reward model; a network that must find its features
needs more labels.

Source: Bradley & Terry 1952 (Rank analysis of incomplete block designs).
"""

import functools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

SIZES = (25, 50, 100, 200, 400, 800, 1600, 3200)
ROWS = 25_600  # labels that are simulated at a time; more of them change no digit that is shown
MOST_FITS = 64
NEWTON_STEPS = 30
LEAST_SELF_AGREEMENT, MOST_SELF_AGREEMENT = 0.51, 0.98


class Forecast(NamedTuple):
    """The accuracy of a reward model from N labels, over R simulated fits.

    Attributes:
        labels: N.
        accuracy, stderr: the share of pairs in which the model picks the answer of the larger reward.
        matched: the share of pairs in which the model picks the answer that the person will choose.
        ceiling: the same share for the true rewards, which no model exceeds.
    """

    labels: int
    accuracy: float
    stderr: float
    matched: float
    ceiling: float


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1.0 + np.tanh(0.5 * x))


@functools.cache
def _half_normal() -> tuple[np.ndarray, np.ndarray]:
    """Points z > 0 and weights with E[f(|Z|)] ≈ Σ f(z) · weight for a standard normal Z, by the midpoint rule."""
    step = 9.0 / 1000
    z = step * (np.arange(1000) + 0.5)
    return z, 2.0 * step * np.exp(-0.5 * z**2) / math.sqrt(2.0 * math.pi)


def self_agreement(scale: float) -> float:
    """s(τ) = E[σ(Δ)² + σ(−Δ)²] for Δ ~ N(0, τ²): ½ for τ = 0, and 1 for τ → ∞."""
    z, weights = _half_normal()
    p = _sigmoid(scale * z)
    return float(weights @ (p**2 + (1.0 - p) ** 2))


def scale_of(agreement: float) -> float:
    """The τ with s(τ) = `agreement`, which is first moved into the range 0.51 … 0.98."""
    wanted = min(max(agreement, LEAST_SELF_AGREEMENT), MOST_SELF_AGREEMENT)
    low, high = 0.0, 1000.0
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if self_agreement(middle) < wanted else (low, middle)
    return 0.5 * (low + high)


def fit(x: np.ndarray, first: np.ndarray, scale: float) -> np.ndarray:
    """The maxima of the posterior, by Newton's method.

    Args:
        x: the features of pairs, `[R, N, D]`, for R fits.
        first: whether the first answer was chosen, bool `[R, N]`.
        scale: τ.

    Returns:
        ŵ `[R, D]`.
    """
    fits, _, features = x.shape
    precision = features / scale**2
    w = np.zeros((fits, features))
    for _ in range(NEWTON_STEPS):
        p = _sigmoid(np.einsum("rnd,rd->rn", x, w))
        gradient = np.einsum("rnd,rn->rd", x, first - p) - precision * w
        # einsum, because the threads of a matrix product cost more than products this small.
        curvature = np.einsum("rnd,rne->rde", x * (p * (1.0 - p))[..., None], x) + precision * np.eye(features)
        step = np.linalg.solve(curvature, gradient[..., None])[..., 0]
        # A step longer than ‖w‖ + τ would leave the region in which the quadratic model holds.
        length = np.linalg.norm(step, axis=1, keepdims=True)
        size = np.linalg.norm(w, axis=1, keepdims=True) + scale
        w = w + step * np.minimum(1.0, size / np.maximum(length, 1e-300))
        if np.all(length < 1e-4 * size):
            break
    return w


@functools.lru_cache(maxsize=256)
def forecast(agreement: float, labels: int, features: int, seed: int = 0) -> Forecast:
    """Simulate fits from `labels` labels of a person whose answers to repeated pairs agree with the given share."""
    scale = scale_of(agreement)
    fits = max(8, min(MOST_FITS, ROWS // labels))
    generator = np.random.default_rng([seed, labels, features])
    w = generator.normal(size=(fits, features))
    w *= scale / np.linalg.norm(w, axis=1, keepdims=True)
    x = generator.normal(size=(fits, labels, features))
    first = generator.random((fits, labels)) < _sigmoid(np.einsum("rnd,rd->rn", x, w))
    fitted = fit(x, first, scale)
    cosine = np.sum(fitted * w, axis=1) / (np.linalg.norm(fitted, axis=1) * scale)
    cosine = np.clip(cosine, -1.0, 1.0)
    accuracy = 1.0 - np.arccos(cosine) / math.pi
    return Forecast(
        labels=labels,
        accuracy=float(accuracy.mean()),
        stderr=float(accuracy.std(ddof=1) / math.sqrt(fits)),
        matched=float(np.mean([_matched(c, scale) for c in cosine])),
        ceiling=_matched(1.0, scale),
    )


def _matched(cosine: float, scale: float) -> float:
    """P(the sign of ŵ · x is the person's next answer) = E[σ(|Δ|) P + σ(−|Δ|) (1 − P)],  P = Φ(ρ |z| / √(1 − ρ²))."""
    z, weights = _half_normal()
    slope = cosine / math.sqrt(2.0 * max(1.0 - cosine**2, 1e-12))
    right = 0.5 * (1.0 + np.array([math.erf(slope * one) for one in z]))
    p = _sigmoid(scale * z)
    return float(weights @ (p * right + (1.0 - p) * (1.0 - right)))


def curve(agreement: float, features: int, sizes: Sequence[int] = SIZES) -> list[Forecast]:
    """`forecast` for each number of labels in `sizes`."""
    return [forecast(round(agreement, 3), labels, features) for labels in sizes]


def needed(agreement: float, target: float, features: int, sizes: Sequence[int] = SIZES) -> int | None:
    """The smallest number of labels whose predicted accuracy reaches `target`; None if no number in `sizes` does.

    Between two sizes the accuracy is interpolated over ln N.
    """
    before = None
    for labels in sizes:
        found = forecast(round(agreement, 3), labels, features)
        if found.accuracy >= target:
            if before is None:
                return labels
            part = (target - before.accuracy) / (found.accuracy - before.accuracy)
            return math.ceil(before.labels * (labels / before.labels) ** part)
        before = found
    return None
