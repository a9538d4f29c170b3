"""Families of action distributions: records of pure functions for one observation; vmap for more.

`log_prob`, `entropy` and `kl` are scalars in nats, the sum over the dimensions of an action. They are written
for the hot path: elementwise arithmetic and sums over the last axis, no gather, because the backward pass of
a gather is a scatter. Axes: A actions, D dimensions of an action.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from pgjax.types import Distribution

_LN_2 = float(np.log(2.0))
_LN_2PI = float(np.log(2.0 * np.pi))


def _floor(dtype: jnp.dtype) -> float:
    """−√(largest number) of a float type: exp of it is an exact 0, and no sum or square of it overflows."""
    return -float(np.sqrt(float(jnp.finfo(dtype).max)))


def masked_logits(logits: jax.Array, mask: jax.Array) -> jax.Array:
    """Logits under which the actions outside the mask have probability exactly 0.

    l_a where mask_a, else −√(largest float): −1.8·10¹⁹ in float32

    Finite rather than −∞: then 0 · ln 0 is 0 and not NaN, in entropies, divergences and their gradients, and
    no gradient reaches the logits of masked actions. The log-probability of a masked action is about that
    number too. It stands for −∞, and so does a divergence of that size.

    A row without any valid action cannot be refused under `jit`: its distribution is uniform over *all*
    actions, finite, so that rows of padding stay harmless. Whether real rows have one is for the
    environment's tests.

    Args:
        logits: l `[A]`, of size far below the floor.
        mask: bool `[A]`, true where the action is allowed.

    Returns:
        Logits `[A]`.
    """
    chex.assert_rank([logits, mask], 1)
    chex.assert_equal_shape([logits, mask])
    chex.assert_type([logits, mask], [float, bool])
    return jnp.where(mask, logits, _floor(logits.dtype))


def _log_softmax(logits: jax.Array) -> jax.Array:
    """ln softmax(l) `[A]`, finite for logits of −∞ too."""
    chex.assert_rank(logits, 1)
    chex.assert_type(logits, float)
    return jax.nn.log_softmax(jnp.maximum(logits, _floor(logits.dtype)))


def categorical_quantile(logits: jax.Array, uniform: jax.Array) -> jax.Array:
    """The action at a level of the cumulative distribution: one uniform number decides the action.

    a = min {a : p_a > 0, p_0 + … + p_a > u}

    The same u under two policies couples their actions (common random numbers). The first action *of positive
    probability* is asked for, and u is measured against the largest cumulative sum, not against 1: so no
    rounding of the sums, in whatever order they are taken, can yield an action of probability 0, for no u in
    [0, 1).

    u is a multiple of 2⁻²³ in float32 (2⁻⁵² in float64), so the frequency of an action differs from its
    probability by up to 2⁻²³, besides rounding of the sums; an action of probability below that may never be
    drawn.

    Args:
        logits: l `[A]`, masked ones included.
        uniform: u `[]` in [0, 1).

    Returns:
        a `[]`, int32.

    Source: inversion, Devroye 1986, section III.2.
    """
    chex.assert_rank([logits, uniform], [1, 0])
    chex.assert_type([logits, uniform], float)
    logits = jnp.maximum(logits.astype(uniform.dtype), _floor(uniform.dtype))
    unnormalised = jnp.exp(logits - jnp.max(logits))
    possible = unnormalised > 0.0
    cumulative = jnp.cumsum(unnormalised)
    level = uniform * jnp.max(jnp.where(possible, cumulative, 0.0))
    return jax.lax.argmax(possible & (cumulative > level), 0, jnp.int32)


def _categorical_sample(key: jax.Array, logits: jax.Array) -> jax.Array:
    # Half-precision uniforms would leave only some hundred levels.
    dtype = logits.dtype if jnp.finfo(logits.dtype).bits >= 32 else jnp.float32
    return categorical_quantile(logits, jax.random.uniform(key, (), dtype))


def _categorical_log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    log_probs, action = _log_softmax(logits), jnp.asarray(action)
    chex.assert_rank(action, 0)
    chex.assert_type(action, int)
    actions = jnp.arange(logits.shape[0], dtype=action.dtype)
    log_prob = jnp.sum(jnp.where(actions == action, log_probs, 0.0))
    # Without this an action that does not exist would have probability 1.
    return jnp.where((action >= 0) & (action < logits.shape[0]), log_prob, jnp.nan)


def _categorical_entropy(logits: jax.Array) -> jax.Array:
    log_probs = _log_softmax(logits)
    return -jnp.sum(jnp.exp(log_probs) * log_probs)


def _categorical_kl(p: jax.Array, q: jax.Array) -> jax.Array:
    log_p, log_q = _log_softmax(p), _log_softmax(q)
    chex.assert_equal_shape([log_p, log_q])
    return jnp.sum(jnp.exp(log_p) * (log_p - log_q))


categorical = Distribution(
    sample=_categorical_sample,
    log_prob=_categorical_log_prob,
    entropy=_categorical_entropy,
    kl=_categorical_kl,
    mode=lambda logits: jax.lax.argmax(logits, 0, jnp.int32),
)
"""One of A actions: parameters are logits l `[A]`, an action is an integer `[]`.

p_a = exp(l_a) / Σ_b exp(l_b),   H = −Σ_a p_a ln p_a,   KL(p ‖ q) = Σ_a p_a (ln p_a − ln q_a)

Logits may be masked (`masked_logits`, or −∞): values and gradients of log_prob, entropy and kl stay finite,
with 0 · ln 0 = 0. The log-probability of an action outside 0, …, A − 1 is NaN. `sample` is
`categorical_quantile` at one uniform number, `mode` the first of the most probable actions.
"""


class GaussianParameters(NamedTuple):
    """μ and ln σ of independent normal distributions, both of the action's shape `[D]`."""

    mean: jax.Array
    log_std: jax.Array


def _assert_gaussian(*parameters: GaussianParameters) -> None:
    arrays = [array for parameter in parameters for array in parameter]
    chex.assert_equal_shape(arrays)
    chex.assert_type(arrays, float)


def _gaussian_sample(key: jax.Array, parameters: GaussianParameters) -> jax.Array:
    _assert_gaussian(parameters)
    mean, log_std = parameters
    return mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape, mean.dtype)


def _gaussian_log_prob(parameters: GaussianParameters, action: jax.Array) -> jax.Array:
    _assert_gaussian(parameters)
    mean, log_std = parameters
    chex.assert_equal_shape([mean, action])
    standardised = (action - mean) * jnp.exp(-log_std)
    return -jnp.sum(0.5 * jnp.square(standardised) + log_std + 0.5 * _LN_2PI)


def _gaussian_entropy(parameters: GaussianParameters) -> jax.Array:
    _assert_gaussian(parameters)
    return jnp.sum(parameters.log_std + 0.5 * (1.0 + _LN_2PI))


def _gaussian_kl(p: GaussianParameters, q: GaussianParameters) -> jax.Array:
    _assert_gaussian(p, q)
    distance = (p.mean - q.mean) * jnp.exp(-q.log_std)
    log_ratio = p.log_std - q.log_std
    return jnp.sum(0.5 * jnp.expm1(2.0 * log_ratio) - log_ratio + 0.5 * jnp.square(distance))


diagonal_gaussian = Distribution(
    sample=_gaussian_sample,
    log_prob=_gaussian_log_prob,
    entropy=_gaussian_entropy,
    kl=_gaussian_kl,
    mode=lambda parameters: parameters.mean,
)
"""Independent normal dimensions: parameters are `GaussianParameters`, an action is unbounded, `[D]`.

ln p(a) = −Σ_d [½ ((a_d − μ_d)/σ_d)² + ln σ_d + ½ ln 2π],   H = Σ_d [ln σ_d + ½ ln 2πe],
KL(p ‖ q) = Σ_d [ln(σ_q/σ_p) + (σ_p² + (μ_p − μ_q)²) / (2 σ_q²) − ½]

An environment that clips actions does so on its side: `log_prob` is to be asked about the action that was
drawn, not about the clipped one.
"""

# Numpy constants, so that a trace holds them in the dtype of its parameters.
_NODES, _NODE_WEIGHTS = np.polynomial.hermite.hermgauss(32)


def _log_tanh_slope(u: jax.Array) -> jax.Array:
    """ln(1 − tanh² u), which would be ln 0 from |u| ≈ 9 on in float32 if it were written so."""
    return 2.0 * (_LN_2 - u - jax.nn.softplus(-2.0 * u))


def squashed_gaussian(low: jax.typing.ArrayLike, high: jax.typing.ArrayLike) -> Distribution:
    """A normal distribution pressed into a box by tanh: parameters `GaussianParameters`, actions `[D]`.

    a = c + h tanh(u),   u ~ N(μ, σ²),   c = (high + low)/2,   h = (high − low)/2
    ln p(a) = ln N(u; μ, σ²) − Σ_d [ln h_d + 2 (ln 2 − u_d − softplus(−2 u_d))],   u = artanh((a − c)/h)

    `log_prob` inverts the action, with (a − c)/h clipped to ±(1 − ε), ε the spacing of floats at 1: |u| ≤ 8.3
    in float32 and 18.4 in float64. Rounding of tanh moves the recovered u by up to about ε e^{2|u|}/2 (float32:
    10⁻³ at |u| = 5), and that of the action by as much again times |c|/h: keep policies away from the walls.
    `entropy` is the Gaussian's plus E Σ_d ln(da_d/du_d) by 32-point Gauss–Hermite quadrature in each
    dimension. Its greatest error per dimension over all μ is 6·10⁻⁸ nats at σ = 1, 2·10⁻⁴ at 2, 0.011 at 4
    and 0.1 at 8. `kl` is the Gaussians', exactly: a one-to-one map changes no divergence. `mode` is the image
    of μ: the median in each dimension. It is the density's own mode only for small σ; a wide Gaussian piles
    up at the walls.

    Args:
        low, high: the box, numbers or arrays that broadcast to `[D]`; constants, not tracers.

    Returns:
        The distribution.

    Raises:
        ValueError: if a bound is not finite, or low is not below high.

    Source: Haarnoja, Zhou, Abbeel & Levine 2018, appendix C.
    """
    low, high = np.asarray(low, np.float64), np.asarray(high, np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all() and (low < high).all()):
        raise ValueError(f"low must be below high and both finite, got low={low} and high={high}")
    centre, half_width, log_half_width = (high + low) / 2, (high - low) / 2, np.log((high - low) / 2)

    def like(constant: np.ndarray, mean: jax.Array) -> jax.Array:
        return jnp.broadcast_to(jnp.asarray(constant, mean.dtype), mean.shape)

    def squash(u: jax.Array) -> jax.Array:
        action = like(centre, u) + like(half_width, u) * jnp.tanh(u)
        # Rounding may step over a bound by one unit in the last place.
        return jnp.clip(action, like(low, u), like(high, u))

    def log_slope(u: jax.Array) -> jax.Array:
        """ln(da/du) `[D]`."""
        return like(log_half_width, u) + _log_tanh_slope(u)

    def log_prob(parameters: GaussianParameters, action: jax.Array) -> jax.Array:
        chex.assert_equal_shape([parameters.mean, action])
        limit = 1.0 - float(jnp.finfo(action.dtype).eps)
        unit = (action - like(centre, action)) / like(half_width, action)
        u = jnp.arctanh(jnp.clip(unit, -limit, limit))
        return _gaussian_log_prob(parameters, u) - jnp.sum(log_slope(u))

    def entropy(parameters: GaussianParameters) -> jax.Array:
        mean, std = parameters.mean, jnp.exp(parameters.log_std)
        nodes = jnp.asarray(np.sqrt(2.0) * _NODES, mean.dtype)
        weights = jnp.asarray(_NODE_WEIGHTS / np.sqrt(np.pi), mean.dtype)
        at_node = lambda node, weight: weight * jnp.sum(log_slope(mean + std * node))
        return _gaussian_entropy(parameters) + jnp.sum(jax.vmap(at_node)(nodes, weights))

    return Distribution(
        sample=lambda key, parameters: squash(_gaussian_sample(key, parameters)),
        log_prob=log_prob,
        entropy=entropy,
        kl=_gaussian_kl,
        mode=lambda parameters: squash(parameters.mean),
    )


def _assert_bernoulli(*logits: jax.Array) -> None:
    chex.assert_equal_shape(logits)
    chex.assert_type(list(logits), float)


def _bernoulli_sample(key: jax.Array, logits: jax.Array) -> jax.Array:
    _assert_bernoulli(logits)
    uniform = jax.random.uniform(key, logits.shape, logits.dtype)
    return (uniform < jax.nn.sigmoid(logits)).astype(jnp.int32)


def _bernoulli_log_prob(logits: jax.Array, action: jax.Array) -> jax.Array:
    _assert_bernoulli(logits)
    chex.assert_equal_shape([logits, action])
    sign = 2.0 * action.astype(logits.dtype) - 1.0
    return -jnp.sum(jax.nn.softplus(-sign * logits))


def _bernoulli_entropy(logits: jax.Array) -> jax.Array:
    _assert_bernoulli(logits)
    p, not_p = jax.nn.sigmoid(logits), jax.nn.sigmoid(-logits)
    return jnp.sum(p * jax.nn.softplus(-logits) + not_p * jax.nn.softplus(logits))


def _bernoulli_kl(p: jax.Array, q: jax.Array) -> jax.Array:
    _assert_bernoulli(p, q)
    if_one = jax.nn.softplus(-q) - jax.nn.softplus(-p)
    if_zero = jax.nn.softplus(q) - jax.nn.softplus(p)
    return jnp.sum(jax.nn.sigmoid(p) * if_one + jax.nn.sigmoid(-p) * if_zero)


bernoulli = Distribution(
    sample=_bernoulli_sample,
    log_prob=_bernoulli_log_prob,
    entropy=_bernoulli_entropy,
    kl=_bernoulli_kl,
    mode=lambda logits: (logits > 0.0).astype(jnp.int32),
)
"""D independent bits: parameters are logits l `[D]`, an action is 0 or 1, of any number type, `[D]`.

P(a_d = 1) = σ(l_d),   ln p(a) = −Σ_d softplus(∓l_d) (− for 1, + for 0),
H = Σ_d [σ(l_d) softplus(−l_d) + σ(−l_d) softplus(l_d)]

`mode` is 0 in a dimension where both are equally probable.
"""
