"""The normal distribution squashed into a box, with probabilities for the walls, where floats cannot resolve it."""

import functools
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jax.typing import ArrayLike

from pgjax._doors import readable
from pgjax.distributions.categorical import floor
from pgjax.distributions.gaussian import LN_2PI, GaussianParameters, assert_gaussian, gaussian_sample
from pgjax.types import Distribution

_LN_2 = float(np.log(2.0))
# The smallest distance of an action from a wall, in units of the rounding error at the wall.
_UNITS = 64


@functools.cache
def _quadrature() -> tuple[np.ndarray, np.ndarray]:
    """32 nodes and weights of Gauss and Hermite. NumPy imports its polynomials when they are first used."""
    return np.polynomial.hermite.hermgauss(32)


def _log_tanh_slope(u: jax.Array) -> jax.Array:
    """ln(1 − tanh² u) in a stable form; the plain form would be ln 0 for |u| above about 9 in float32."""
    return 2.0 * (_LN_2 - u - jax.nn.softplus(-2.0 * u))


class _Box(NamedTuple):
    """The box as constants in the float type of the parameters, each `[D]`.

    Attributes:
        low, high: the walls.
        centre, half: c and h.
        step: 1 − tanh L, the width of the region that counts as the wall, in units of h.
        limit: L.
    """

    low: jax.Array
    high: jax.Array
    centre: jax.Array
    half: jax.Array
    step: jax.Array
    limit: jax.Array

    def log_slope(self, u: jax.Array) -> jax.Array:
        """ln(da/du) `[D]`."""
        return jnp.log(self.half) + _log_tanh_slope(u)

    def squash(self, u: jax.Array) -> jax.Array:
        inside = self.centre + self.half * jnp.tanh(u)
        return jnp.where(u > self.limit, self.high, jnp.where(u < -self.limit, self.low, inside))

    def log_wall(self, parameters: GaussianParameters, side: ArrayLike) -> jax.Array:
        """ln P(U > L) for side 1, ln P(U < −L) for side −1, `[D]`."""
        mean, log_std = parameters
        # ln P ≈ −z²/2 stops at about −√(largest float), which stands for −∞; beyond it the derivative would overflow.
        least = -float(np.sqrt(-2.0 * floor(mean.dtype)))
        return log_ndtr(jnp.maximum((side * mean - self.limit) * jnp.exp(-log_std), least))


@readable
def squashed_gaussian(low: ArrayLike, high: ArrayLike) -> Distribution:
    """A normal distribution squashed into a box by tanh: parameters `GaussianParameters`, actions `[D]`.

    a = c + h tanh(u),   u ~ N(μ, σ²),   c = (high + low)/2,   h = (high − low)/2
    ln p(a) = Σ_d [ln N(u_d; μ_d, σ_d²) − ln h_d − 2 (ln 2 − u_d − softplus(−2 u_d))],   u = artanh((a − c)/h)

    Near a wall, many u are rounded to the same action, so the action does not determine u. Therefore every u beyond ±L
    gives the wall itself, whose likelihood is the probability of all these u. This makes E ∇ ln p exactly 0:

        a_d = high_d where u_d > L,   ln p(a)_d = ln P(U_d > L) − ln(h_d ε_d),   ε = 1 − tanh L

    The formula at low is the same with −L. h ε is the length that the wall stands for; it turns the probability into a
    density and does not affect gradients. ε is 64 (1 + |c|/h) times the spacing of floats at 1. For a box around 0 this
    gives L = 6.2 in float32 and L = 16.3 in float64. Inside the box, rounding changes the recovered u by less than
    0.01. An action beyond a wall counts as the wall.

    `entropy` is −E ln p. Its part E Σ_d ln(da_d/du_d) is computed by 32-point Gauss–Hermite quadrature in each
    dimension. The greatest error per dimension over all μ is 7·10⁻⁸ nats at σ = 1, 2·10⁻⁴ at 2, 0.011 at 4 and 0.1 at
    8, and 2·10⁻⁵ at the walls in float32. `kl` is exact: it adds the divergence of the Gaussians inside the box and
    the divergence of the probabilities at the walls. `mode` is the image of μ, the median in each dimension. It is near
    the maximum of the density only for small σ; with a large σ the density is greatest near the walls.

    Args:
        low, high: the box, as numbers or arrays that broadcast to `[D]`. They are constants and cannot be tracers.

    Returns:
        The distribution.

    Raises:
        ValueError: if a bound is not finite, or low is not below high; when the distribution is used, if the box is so
            narrow and so far from 0 that the float type of the parameters has only few numbers inside it.

    Source: Haarnoja, Zhou, Abbeel & Levine 2018, appendix C; the walls: Fujita & Maeda 2018 (their clipped action
    policy gradient, here for a squashed Gaussian).

    Example: actions between −2 and 2, as for the torque of Pendulum.

        >>> import jax.numpy as jnp
        >>> from pgjax import distributions
        >>> torque = distributions.squashed_gaussian(low=-2.0, high=2.0)
        >>> print(torque.mode(distributions.GaussianParameters(mean=jnp.array([9.0]), log_std=jnp.zeros(1))))
        [2.]
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"low must be below high and both finite, got low={low} and high={high}")

    def box_of(*parameters: GaussianParameters) -> _Box:
        assert_gaussian(*parameters)
        mean = parameters[0].mean
        centre, half = high / 2 + low / 2, high / 2 - low / 2
        step = _UNITS * float(jnp.finfo(mean.dtype).eps) * (1.0 + np.abs(centre) / half)
        if (step > 0.5).any():
            raise ValueError(f"the box from low={low} to high={high} is too narrow for actions in {mean.dtype}")
        limit = np.log((2.0 - step) / step) / 2
        constants = (low, high, centre, half, step, limit)
        return _Box(*(jnp.broadcast_to(jnp.asarray(x, mean.dtype), mean.shape) for x in constants))

    def log_prob(parameters: GaussianParameters, action: jax.Array) -> jax.Array:
        box, (mean, log_std) = box_of(parameters), parameters
        chex.assert_equal_shape([mean, action])
        unit = (action - box.centre) / box.half
        side = jnp.sign(unit)
        at_wall = jnp.log(box.half * box.step)
        wall = box.log_wall(parameters, side) - at_wall
        u = jnp.arctanh(jnp.clip(unit, box.step - 1.0, 1.0 - box.step))
        standardised = (u - mean) * jnp.exp(-log_std)
        inside = -0.5 * jnp.square(standardised) - log_std - 0.5 * LN_2PI - box.log_slope(u)
        return jnp.sum(jnp.where(jnp.abs(unit) > 1.0 - 0.5 * box.step, wall, inside))

    return Distribution(
        sample=lambda key, parameters: box_of(parameters).squash(gaussian_sample(key, parameters)),
        log_prob=log_prob,
        entropy=lambda parameters: _entropy(box_of(parameters), parameters),
        kl=lambda p, q: _kl(box_of(p, q), p, q),
        mode=lambda parameters: box_of(parameters).squash(parameters.mean),
    )


def _moments_inside(box: _Box, parameters: GaussianParameters) -> tuple[jax.Array, jax.Array, jax.Array]:
    """E 1, E z and E z² over |U| ≤ L, for z = (U − μ)/σ; each `[D]`."""
    mean, log_std = parameters
    ends = [(end - mean) * jnp.exp(-log_std) for end in (-box.limit, box.limit)]
    densities = [jnp.exp(-0.5 * jnp.square(end) - 0.5 * LN_2PI) for end in ends]
    mass = 1.0 - jnp.exp(box.log_wall(parameters, 1.0)) - jnp.exp(box.log_wall(parameters, -1.0))
    return mass, densities[0] - densities[1], mass + ends[0] * densities[0] - ends[1] * densities[1]


def _entropy(box: _Box, parameters: GaussianParameters) -> jax.Array:
    mean, log_std = parameters
    nodes, weights = _quadrature()
    nodes = jnp.asarray(np.sqrt(2.0) * nodes, mean.dtype)
    weights = jnp.asarray(weights / np.sqrt(np.pi), mean.dtype)
    at_node = lambda node, weight: weight * box.log_slope(mean + jnp.exp(log_std) * node)
    slope = jnp.sum(jax.vmap(at_node)(nodes, weights), axis=0)
    mass, _, second = _moments_inside(box, parameters)
    return jnp.sum(mass * (log_std + 0.5 * LN_2PI) + 0.5 * second + slope + _entropy_of_walls(box, parameters))


def _entropy_of_walls(box: _Box, parameters: GaussianParameters) -> jax.Array:
    """−Σ P (ln P − ln(h ε)) minus E ln(da/du) beyond ±L, where ln(da/du) falls by 2 for each unit of u; `[D]`."""
    mean, log_std = parameters
    log_length, at_limit = jnp.log(box.half * box.step), box.log_slope(box.limit)
    total = jnp.zeros_like(mean)
    for side in (1.0, -1.0):
        log_p, over = box.log_wall(parameters, side), side * mean - box.limit
        p, density = jnp.exp(log_p), jnp.exp(-0.5 * jnp.square(over * jnp.exp(-log_std)) - 0.5 * LN_2PI)
        mean_excess = jnp.exp(log_std) * density + over * p
        total += 2.0 * mean_excess - p * (log_p - log_length + at_limit)
    return total


def _kl(box: _Box, p: GaussianParameters, q: GaussianParameters) -> jax.Array:
    mass, first, second = _moments_inside(box, p)
    distance, log_ratio = (p.mean - q.mean) * jnp.exp(-q.log_std), p.log_std - q.log_std
    inside = 0.5 * (jnp.square(distance) * mass + jnp.expm1(2.0 * log_ratio) * second) - log_ratio * mass
    cross = distance * jnp.exp(log_ratio) * first
    log_walls = [(box.log_wall(p, side), box.log_wall(q, side)) for side in (1.0, -1.0)]
    at_walls = sum(jnp.exp(log_p) * (log_p - log_q) for log_p, log_q in log_walls)
    return jnp.sum(inside + cross + at_walls)
