"""The squashed Gaussian: its walls, and the accuracies that its docstring states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.distributions import GaussianParameters, squashed_gaussian

pytestmark = pytest.mark.usefixtures("strict", "x64")


unit_entropy = jax.jit(jax.vmap(squashed_gaussian(-1.0, 1.0).entropy))


def test_walls_and_far_means_are_finite():
    """At the walls themselves, and for means whose tanh is 1 in any precision. The twin ln(1 − tanh² u) is not."""
    with jax.enable_x64(False):
        unit = squashed_gaussian(-1.0, 1.0)
        both = lambda p, action: jnp.stack([unit.log_prob(p, action), unit.entropy(p)])
        compute = jax.jit(jax.vmap(lambda p, action: (both(p, action), jax.jacobian(both)(p, action))))
        p = GaussianParameters(mean=np.float32([[0], [0], [40], [-40]]), log_std=np.zeros((4, 1), np.float32))
        for numbers in jax.tree.leaves(compute(p, np.float32([[1], [-1], [1], [-1]]))):
            assert np.isfinite(numbers).all()
        assert np.isinf(jnp.log(1.0 - jnp.square(jnp.tanh(jnp.float32(12.0)))))


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


@pytest.mark.parametrize(("std", "bound"), [(0.5, 1e-10), (1.0, 6e-8), (2.0, 2e-4), (4.0, 0.012), (8.0, 0.1)])
def test_the_entropy_is_as_accurate_as_stated(std, bound):
    """Against a fine sum over u, for means inside and far outside the box."""
    z = np.linspace(-12.0, 12.0, 48_001)
    weights = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    means = np.linspace(0.0, 3.0 * max(std, 1.0), 13)
    u = np.abs(means[:, None] + std * z)
    log_slope = 2 * (np.log(2.0) - u - np.log1p(np.exp(-2 * u)))
    exact = 0.5 * np.log(2 * np.pi * np.e * std**2) + log_slope @ weights
    p = GaussianParameters(mean=means[:, None], log_std=np.full((13, 1), np.log(std)))
    error = np.max(np.abs(unit_entropy(p) - exact))
    assert bound / 10 < error < bound or error < 1e-10


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
