"""Masked actions, actions that do not exist, and sampling by inversion at the edges of [0, 1)."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from closeness import close

from pgjax.distributions import categorical, categorical_quantile, masked_logits

pytestmark = pytest.mark.usefixtures("strict", "x64")

LOGITS = np.random.default_rng(0).normal(size=6)


def masks(size):
    return np.array([bits for bits in itertools.product((False, True), repeat=size) if any(bits)])


class TestMasks:
    @pytest.mark.parametrize("infinite", [False, True])
    def test_every_mask_gives_finite_values_and_gradients(self, infinite):
        """All 15 masks of four actions, by −∞ too: as if the masked actions did not exist, and no gradient to them."""
        logits, other = jnp.asarray([0.3, -1.2, 0.8, 2.0]), jnp.asarray([0.1, 0.4, -0.6, 0.0])
        all_masks = jnp.asarray(masks(4))
        apply = lambda x, mask: jnp.where(mask, x, -jnp.inf) if infinite else masked_logits(x, mask)

        def every(x, mask, action):
            p, q = apply(x, mask), apply(other, mask)
            return jnp.stack([categorical.log_prob(p, action), categorical.entropy(p), categorical.kl(p, q)])

        best = jnp.argmax(jnp.where(all_masks, logits, -jnp.inf), axis=1)
        values = jax.jit(jax.vmap(every, (None, 0, 0)))(logits, all_masks, best)
        jacobians = jax.jit(jax.vmap(jax.jacobian(every), (None, 0, 0)))(logits, all_masks, best)
        for mask, action, value in zip(np.asarray(all_masks), best.tolist(), values):
            short, short_other = np.asarray(logits)[mask].tolist(), np.asarray(other)[mask].tolist()
            close(
                value,
                [
                    references.categorical_log_prob(short, mask[:action].sum()),
                    references.categorical_entropy(short),
                    references.categorical_kl(short, short_other),
                ],
            )
        assert np.isfinite(jacobians).all()
        np.testing.assert_array_equal(np.asarray(jacobians).swapaxes(1, 2)[~np.asarray(all_masks)], 0.0)

    def test_minus_infinity_without_care_is_nan(self):
        """The twin −Σ p ln p of −∞ logits: NaN in the value, and in the gradient even when the value is mended."""
        logits = jnp.asarray([0.3, -jnp.inf, 0.8])
        log_probs = jax.nn.log_softmax
        plain = lambda x: -jnp.sum(jnp.exp(log_probs(x)) * log_probs(x))
        mended = lambda x: -jnp.sum(jnp.where(jnp.isfinite(x), jnp.exp(log_probs(x)) * log_probs(x), 0.0))
        assert np.isnan(plain(logits)) and np.isfinite(mended(logits))
        assert np.isnan(jax.grad(mended)(logits)).any()
        assert np.isfinite(jax.grad(categorical.entropy)(logits)).all()

    @pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32, jnp.float64])
    def test_masked_actions_have_probability_zero_in_every_float_type(self, dtype):
        logits = masked_logits(jnp.asarray([4.0, 0.0, -9.0], dtype), jnp.asarray([False, True, True]))
        assert logits.dtype == dtype
        assert jax.nn.softmax(logits)[0] == 0.0
        log_prob = categorical.log_prob(logits, jnp.asarray(0))
        # Small enough to stand for −∞, finite so that a weight of 0 makes it 0; its square is finite too.
        assert log_prob < -200.0 and np.isfinite(log_prob) and np.isfinite(jnp.square(0.9 * log_prob))

    def test_a_row_without_a_valid_action_is_uniform(self):
        logits = masked_logits(jnp.asarray([4.0, 0.0, -9.0]), jnp.zeros(3, bool))
        close(categorical.log_prob(logits, jnp.asarray(1)), -np.log(3.0))
        close(categorical.entropy(logits), np.log(3.0))

    def test_support_mismatch_stands_for_infinity(self):
        p = jnp.zeros(3)
        assert categorical.kl(p, masked_logits(p, jnp.asarray([True, True, False]))) > 1e9
        close(categorical.kl(masked_logits(p, jnp.asarray([True, True, False])), p), np.log(1.5))


def test_bytes_number_256_actions():
    """The number of actions, 256, does not fit the type of the actions."""
    logits = np.linspace(-1.0, 1.0, 256, dtype=np.float32)
    found = categorical.log_prob(logits, np.uint8(255))
    np.testing.assert_allclose(found, logits[255] - np.log(np.sum(np.exp(logits))), rtol=1e-5)


def test_actions_that_do_not_exist_have_no_log_probability():
    """NaN, which is seen; the twin, a bare one-hot sum, would call them certain. Masked out, no gradient is NaN."""
    logits = jnp.asarray(LOGITS)
    for action in (-1, 6, 100):
        assert np.isnan(categorical.log_prob(logits, jnp.asarray(action)))
        gradient = jax.grad(lambda x, a=action: jnp.where(False, categorical.log_prob(x, jnp.asarray(a)), 0.0))
        assert np.isfinite(gradient(logits)).all()


def test_the_hot_path_neither_gathers_nor_scatters():
    jaxpr = lambda function: str(jax.make_jaxpr(jax.grad(function))(jnp.zeros(4)))
    twin = jaxpr(lambda x: jax.nn.log_softmax(x)[jnp.asarray(2)])
    shipped = jaxpr(lambda x: categorical.log_prob(x, jnp.asarray(2)))
    assert "scatter" in twin or "dynamic_update_slice" in twin
    assert not any(word in shipped for word in ("gather", "scatter", "dynamic"))


class TestQuantile:
    EDGES = (0.0, 1e-45, 2.0**-23, 0.5, 1 - 2.0**-23, 1 - 2.0**-24)

    @pytest.mark.parametrize("size", [7, 300])
    def test_no_uniform_number_draws_an_impossible_action(self, size):
        """float32, every mask or many, at the edges of [0, 1)."""
        rng = np.random.default_rng(size)
        possible = masks(7) if size == 7 else rng.uniform(size=(40, size)) < np.linspace(0.01, 0.99, 40)[:, None]
        possible[:, size // 2] |= ~possible.any(axis=1)
        with jax.enable_x64(False):
            logits = jnp.asarray(4.0 * rng.normal(size=possible.shape), jnp.float32)
            logits = jax.vmap(masked_logits)(logits, jnp.asarray(possible))
            uniforms = jnp.asarray(np.append(rng.uniform(size=20), self.EDGES), jnp.float32)
            draw = lambda rule: np.asarray(jax.jit(jax.vmap(jax.vmap(rule, (None, 0)), (0, None)))(logits, uniforms))
            rows = np.arange(len(possible))[:, None]
            assert possible[rows, draw(categorical_quantile)].all()

            def at_least(logits, uniform):
                """Twin: the first action whose cumulative probability is at least u, which u = 0 always finds."""
                return jnp.argmax(jnp.cumsum(jax.nn.softmax(logits)) >= uniform)

            def count(logits, uniform):
                """Twin: the number of cumulative probabilities up to u, which may be all of them."""
                return jnp.minimum(jnp.sum(jnp.cumsum(jax.nn.softmax(logits)) <= uniform), size - 1)

            assert not possible[rows, draw(at_least)].all()
            assert not possible[rows, draw(count)].all()

    def test_it_is_the_inverse_of_the_cumulative_distribution(self):
        uniforms = np.linspace(0.0, 1.0, 200, endpoint=False) + 1e-4
        for logits in (jnp.asarray(LOGITS), masked_logits(jnp.asarray(LOGITS), jnp.asarray(LOGITS < 0.5))):
            got = jax.jit(jax.vmap(categorical_quantile, (None, 0)))(logits, jnp.asarray(uniforms))
            assert got.dtype == jnp.int32
            np.testing.assert_array_equal(got, [references.categorical_quantile(logits.tolist(), u) for u in uniforms])

    def test_frequencies_over_a_grid_are_the_probabilities(self):
        logits, levels = np.log([0.25, 0.5, 0.125, 0.125]), (np.arange(64) + 0.5) / 64
        actions = jax.vmap(categorical_quantile, (None, 0))(jnp.asarray(logits), jnp.asarray(levels))
        np.testing.assert_array_equal(np.bincount(actions, minlength=4), [16, 32, 8, 8])
