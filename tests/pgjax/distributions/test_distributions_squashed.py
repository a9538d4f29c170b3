"""The squashed Gaussian: its walls, and the accuracies that its docstring states."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import log_ndtr

from pgjax.distributions import GaussianParameters, diagonal_gaussian, squashed_gaussian

pytestmark = pytest.mark.usefixtures("strict", "x64")


UNIT = squashed_gaussian(-1.0, 1.0)
unit_entropy = jax.jit(jax.vmap(UNIT.entropy))
unit_kl = jax.jit(jax.value_and_grad(UNIT.kl, 1))
NODES, WEIGHTS = np.polynomial.legendre.leggauss(100)


@jax.jit
@functools.partial(jax.vmap, in_axes=(None, 0))
def values_and_jacobians(p, action):
    """ln p(action), the entropy, KL(p, p), and the derivatives of all three with respect to p."""
    every = lambda p: jnp.stack([UNIT.log_prob(p, action), UNIT.entropy(p), UNIT.kl(p, p)])
    return every(p), jax.jacobian(every)(p)


def gaussian(mean, log_std, dtype=np.float64):
    return GaussianParameters(mean=np.full(1, mean, dtype), log_std=np.full(1, log_std, dtype))


def of_definition(mean, std, other=(0.0, 1.0), dtype=np.float64):
    """Σp, −E ln p and E ln(p/q) over (−1, 1): a fine sum over u inside ±L, and the probabilities of the walls."""
    step = 64 * float(np.finfo(dtype).eps)
    limit = np.log((2 - step) / step) / 2
    u = limit * np.ravel((np.arange(-99, 100, 2)[:, None] + NODES) / 100)
    measure = limit * np.tile(WEIGHTS, 100) / 100
    log_density = lambda mean, std: -0.5 * ((u - mean) / std) ** 2 - np.log(std * np.sqrt(2 * np.pi))
    log_slope = 2 * (np.log(2.0) - np.abs(u) - np.log1p(np.exp(-2 * np.abs(u))))
    log_wall = lambda mean, std: np.asarray([log_ndtr((side * mean - limit) / std) for side in (1.0, -1.0)])
    log_p, log_q, wall_p, wall_q = (f(*x) for f in (log_density, log_wall) for x in ((mean, std), other))
    p, at_wall = np.exp(log_p) * measure, np.exp(wall_p)
    entropy = -p @ (log_p - log_slope) - at_wall @ (wall_p - np.log(step))
    return p.sum() + at_wall.sum(), entropy, p @ (log_p - log_q) + at_wall @ (wall_p - wall_q)


@pytest.mark.parametrize(("mean", "std"), [(0.3, 0.5), (8.0, np.e), (-15.0, 4.0), (30.0, 2.0)])
def test_walls_are_part_of_the_divergence(mean, std):
    total, _, kl = of_definition(mean, std, (mean + 1.0, 1.3 * std))
    np.testing.assert_allclose(total, 1.0, rtol=0, atol=1e-8)
    p, q = gaussian(mean, np.log(std)), gaussian(mean + 1.0, np.log(1.3 * std))
    (found, _), (at_equality, gradient) = unit_kl(p, q), unit_kl(p, p)
    np.testing.assert_allclose(found, kl, rtol=0, atol=1e-8)
    assert at_equality == 0.0
    np.testing.assert_allclose(gradient, np.zeros((2, 1)), atol=1e-12)
    if mean == 30.0:
        assert found < 0.1 * diagonal_gaussian.kl(p, q)


@pytest.mark.parametrize("bounds", [(-1.0, 1.0), (99.0, 101.0)])
def test_the_score_has_mean_zero_at_a_wall(bounds):
    """μ = 8, ln σ = 1 in float32, where most actions are the wall: |z| < 4.5 for the score, and −ln p against H.

    The twin recovers u from the clipped action and takes it for the one that was drawn: its score of μ has mean −0.124.
    """
    box = squashed_gaussian(*bounds)
    with jax.enable_x64(False):
        p = gaussian(8.0, 1.0, np.float32)

        def one(key):
            action = box.sample(key, p)
            log_prob, score = jax.value_and_grad(box.log_prob)(p, action)
            unit = jnp.clip((action - sum(bounds) / 2) / ((bounds[1] - bounds[0]) / 2), -1 + 1e-7, 1 - 1e-7)
            return action, log_prob, score, (jnp.arctanh(unit) - p.mean) * jnp.exp(-2 * p.log_std)

        drawn = jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(0), 50_000))
        action, log_prob, score, twin = jax.tree.map(lambda x: np.asarray(x, np.float64), drawn)
        z = lambda x: x.mean() / x.std() * 50_000**0.5
        assert abs(z(score.mean)) < 4.5 and abs(z(score.log_std)) < 4.5 < abs(z(twin))
        assert np.mean(action == bounds[1]) > 0.7
        assert abs(z(log_prob + float(box.entropy(p)))) < 4.5


@pytest.mark.parametrize("mean", [0.0, 40.0, -1e4, 1e6])
@pytest.mark.parametrize("log_std", [-15.0, -5.0, 3.0, 20.0])
def test_extreme_parameters_are_finite(mean, log_std):
    with jax.enable_x64(False):
        p = gaussian(mean, log_std, np.float32)
        for numbers in jax.tree.leaves(values_and_jacobians(p, np.float32([[1.0], [-1.0], [0.3]]))):
            assert np.isfinite(numbers).all()


def test_a_box_that_floats_do_not_resolve_is_refused():
    with jax.enable_x64(False), pytest.raises(ValueError, match=r"from low=1000000.0 to high=1000001.0 is too narrow"):
        squashed_gaussian(1e6, 1e6 + 1).mode(gaussian(0.0, 0.0, np.float32))
    assert squashed_gaussian(1e6, 1e6 + 1).mode(gaussian(0.0, 0.0)) == 1e6 + 0.5


def test_walls_and_far_means_are_finite():
    """At the walls themselves, and for means whose tanh is 1 in any precision. The twin ln(1 − tanh² u) is not."""
    with jax.enable_x64(False):
        unit = squashed_gaussian(-1.0, 1.0)
        both = lambda p, action: jnp.stack([unit.log_prob(p, action), unit.entropy(p)])
        compute = jax.jit(jax.vmap(lambda p, action: (both(p, action), jax.jacobian(both)(p, action))))
        p = GaussianParameters(mean=np.float32([[0], [0], [40], [-40]]), log_std=np.zeros((4, 1), np.float32))
        for numbers in jax.tree.leaves(compute(p, np.float32([[1], [-1], [1], [-1]]))):
            assert np.isfinite(numbers).all()
        assert np.isinf(jnp.log(1.0 - jnp.square(jnp.tanh(jnp.float32(40.0)))))


def test_a_sample_never_leaves_the_box():
    with jax.enable_x64(False):
        box = squashed_gaussian(0.1, 0.7)
        p = GaussianParameters(mean=np.zeros(1, np.float32), log_std=np.full(1, 3.0, np.float32))

        def draw(key):
            action = box.sample(key, p)
            return action, box.log_prob(p, action)

        actions, log_probs = map(np.asarray, jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 4000)))
        assert np.all((actions >= np.float32(0.1)) & (actions <= np.float32(0.7)))
        assert np.isfinite(log_probs).all()


def test_the_inverse_is_as_accurate_as_stated():
    """Float32: u comes back from tanh(u) to within ε e^{2|u|}/2, and the gradient ∂ ln p/∂μ = u − μ with it."""
    with jax.enable_x64(False):
        u = np.linspace(-5.0, 5.0, 201, dtype=np.float32)[:, None]
        gradient = jax.grad(squashed_gaussian(-1.0, 1.0).log_prob)
        p = GaussianParameters(mean=np.zeros(1, np.float32), log_std=np.zeros(1, np.float32))
        error = np.abs(jax.jit(jax.vmap(lambda u: gradient(p, jnp.tanh(u)).mean))(u) - u)
        assert np.all(error < 1e-6 + 1.2e-7 * np.exp(2 * np.abs(u)) / 2)


@pytest.mark.parametrize(("std", "bound"), [(0.5, 1e-10), (1.0, 7e-8), (2.0, 2e-4), (4.0, 0.012), (8.0, 0.1)])
def test_the_entropy_is_as_accurate_as_stated(std, bound):
    """Against a fine sum over u, for means inside and far outside the box."""
    means = np.linspace(0.0, max(3.0 * std, 20.0), 25)
    exact = np.asarray([of_definition(mean, std)[1] for mean in means])
    p = GaussianParameters(mean=means[:, None], log_std=np.full((25, 1), np.log(std)))
    error = np.max(np.abs(unit_entropy(p) - exact))
    assert bound / 10 < error < bound or error < 1e-10
    with jax.enable_x64(False):
        exact = np.asarray([of_definition(mean, std, dtype=np.float32)[1] for mean in means])
        assert np.max(np.abs(unit_entropy(jax.tree.map(np.float32, p)) - exact)) < bound + 2e-5


def test_the_mode_is_the_median():
    p = GaussianParameters(mean=np.array([0.7]), log_std=np.array([-0.5]))
    box = squashed_gaussian(-2.0, 3.0)
    x, w = np.polynomial.legendre.leggauss(300)
    mode = np.asarray(box.mode(p))
    below = -2.0 + (mode + 2.0) * (1 + x[:, None]) / 2
    log_density = np.asarray(jax.jit(jax.vmap(box.log_prob, (None, 0)))(p, below))
    np.testing.assert_allclose(np.sum(np.exp(log_density) * w) * (mode[0] + 2.0) / 2, 0.5, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), ((0.0, 2.0), (1.0, 1.0)), (-np.inf, 1.0), (0.0, np.nan)])
def test_a_bad_box_is_refused(low, high):
    with pytest.raises(ValueError, match=r"low must be below high and both finite, got low=.* and high="):
        squashed_gaussian(low, high)
