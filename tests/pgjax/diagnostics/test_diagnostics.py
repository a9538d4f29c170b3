"""Gradient and run statistics: exact by enumeration where that is possible, calibrated where it is not."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from pgjax import diagnostics

# A gradient estimate with three equally likely values, its moments, and a reference it is biased against.
SUPPORT = np.array([[1.0, -2.0], [0.5, 3.0], [-4.0, 0.25]])

MEAN = SUPPORT.mean(axis=0)

VARIANCE = np.sum((SUPPORT - MEAN) ** 2) / len(SUPPORT)

REFERENCE = np.array([-1.0, 1.0])

T_OF_FOUR = 2.776445105  # the 97.5 % quantile of Student's t with 4 degrees of freedom

SCALARS = ("squared_norm", "variance", "signal_to_noise", "noise_scale", "squared_bias", "mean_squared_error")


@pytest.fixture(autouse=True)
def strict():
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.enable_x64(True),
    ):
        yield


@pytest.fixture(scope="module")
def statistics():
    """`gradient_statistics` of many batches [K, N, P] in one compiled call."""
    return jax.jit(jax.vmap(diagnostics.gradient_statistics, in_axes=(0, None)))


def every_batch(count: int) -> np.ndarray:
    """All equally likely batches of `count` draws from SUPPORT, [3^count, count, 2]."""
    return SUPPORT[np.array(list(itertools.product(range(3), repeat=count)))]


def test_flatten_gradients_has_the_order_of_ravel_pytree():
    tree = {"b": jnp.arange(12.0).reshape(3, 2, 2), "a": -jnp.arange(3.0)}
    rows = diagnostics.flatten_gradients(tree)
    assert rows.shape == (3, 5)
    for episode in range(3):
        expected, _ = ravel_pytree(jax.tree.map(lambda leaf, i=episode: leaf[i], tree))
        np.testing.assert_array_equal(rows[episode], expected)


@pytest.mark.parametrize("tree", [{}, {"a": jnp.zeros((2, 3)), "b": jnp.zeros((3, 3))}, {"a": jnp.zeros(())}])
def test_flatten_gradients_refuses_leaves_without_a_common_axis(tree):
    with pytest.raises(ValueError, match="same leading axis"):
        diagnostics.flatten_gradients(tree)


def test_total_variance_is_unbiased_from_two_episodes_on():
    pairs = every_batch(2)
    unbiased = np.mean(jax.vmap(diagnostics.total_variance)(pairs))
    wrong_twin_divides_by_n = np.mean([pair.var(axis=0, ddof=0).sum() for pair in pairs])
    np.testing.assert_allclose(unbiased, VARIANCE, rtol=1e-12)
    np.testing.assert_allclose(wrong_twin_divides_by_n, VARIANCE / 2, rtol=1e-12)


def test_moments_are_unbiased_over_all_batches(statistics):
    batches = every_batch(3)
    result = statistics(batches, REFERENCE)
    expected = {
        "squared_norm": MEAN @ MEAN,
        "variance": VARIANCE,
        "squared_bias": np.sum((MEAN - REFERENCE) ** 2),
        "mean_squared_error": np.mean(np.sum((SUPPORT - REFERENCE) ** 2, axis=1)),
    }
    for name, value in expected.items():
        np.testing.assert_allclose(np.mean(getattr(result, name).value), value, rtol=1e-12, err_msg=name)
    np.testing.assert_allclose(np.mean(result.bias, axis=0), MEAN - REFERENCE, rtol=1e-12)

    wrong_twin_plugs_in = np.mean(np.sum(batches.mean(axis=1) ** 2, axis=1))
    np.testing.assert_allclose(wrong_twin_plugs_in - MEAN @ MEAN, VARIANCE / 3, rtol=1e-12)


def test_jackknife_is_the_one_that_leaves_each_episode_out(statistics):
    batch = np.random.default_rng(0).normal(size=(5, 4)) + 0.5
    reference = np.arange(4.0)
    shipped = jax.tree.map(lambda x: x[0], statistics(batch[None], reference))
    without = statistics(np.stack([np.delete(batch, i, axis=0) for i in range(5)]), reference)
    for name in SCALARS:
        replicates = np.asarray(getattr(without, name).value)
        brute_force = np.sqrt(4 / 5 * np.sum((replicates - replicates.mean()) ** 2))
        estimate = getattr(shipped, name)
        np.testing.assert_allclose(estimate.stderr, brute_force, rtol=1e-10, err_msg=name)
        if name in ("squared_norm", "signal_to_noise", "squared_bias"):
            np.testing.assert_allclose(estimate.high - estimate.low, 2 * T_OF_FOUR * brute_force, rtol=1e-8)
        elif name != "noise_scale":
            of_logarithm = np.sqrt(4 / 5 * np.sum((np.log(replicates) - np.log(replicates).mean()) ** 2))
            np.testing.assert_allclose(np.log(estimate.high / estimate.value), T_OF_FOUR * of_logarithm, rtol=1e-8)
            np.testing.assert_allclose(np.log(estimate.value / estimate.low), T_OF_FOUR * of_logarithm, rtol=1e-8)
    ratio, scale = shipped.signal_to_noise, shipped.noise_scale
    np.testing.assert_allclose([scale.low, scale.high], [1 / ratio.high, np.inf if ratio.low <= 0 else 1 / ratio.low])
    distances = np.sum((batch - reference) ** 2, axis=1)
    np.testing.assert_allclose(shipped.mean_squared_error.value, distances.mean(), rtol=1e-12)
    np.testing.assert_allclose(shipped.mean_squared_error.stderr, distances.std(ddof=1) / 5**0.5, rtol=1e-10)
    np.testing.assert_allclose(shipped.mean_stderr, batch.std(axis=0, ddof=1) / 5**0.5, rtol=1e-12)


@pytest.mark.parametrize("shift", [np.zeros(2), -MEAN], ids=["signal", "no signal"])
def test_standard_errors_are_not_too_small_on_average(statistics, shift):
    """Efron & Stein's inequality, exactly: E SE² ≥ Var T over all 81 batches of four."""
    result = statistics(every_batch(4) + shift, REFERENCE)
    for name in ("squared_norm", "variance", "squared_bias", "mean_squared_error"):
        estimate = getattr(result, name)
        assert np.mean(estimate.stderr**2) >= np.var(estimate.value) * (1 - 1e-12), name


def test_intervals_cover(statistics):
    """400 batches of 64 normal gradients in ℝ^32: 95 % intervals miss less than 10 %.

    A coverage of exactly 95 % fails with probability 1e-5, one of 85 % passes with probability 1e-3.
    """
    mean = np.full(32, 0.1)
    draws = mean + np.random.default_rng(1).normal(size=(400, 64, 32))
    result = jax.tree.map(np.asarray, statistics(draws, np.zeros(32)))
    truth = {"squared_norm": mean @ mean, "variance": 32.0, "signal_to_noise": mean @ mean / 32}
    truth |= {"squared_bias": mean @ mean, "mean_squared_error": 32 + mean @ mean}
    for name, value in truth.items():
        estimate = getattr(result, name)
        assert np.mean((estimate.low <= value) & (value <= estimate.high)) > 0.9, name

    # The wrong twin counts noise as signal: ‖ḡ‖² uncorrected.
    plug_in = result.squared_norm.value + result.variance.value / 64
    margin = result.squared_norm.high - result.squared_norm.value
    assert np.mean(np.abs(plug_in - truth["squared_norm"]) <= margin) < 0.8


# Of nominal 95 % intervals, as the docstring of `gradient_statistics` states it: N → V̂ and MSE, ŜNR, ‖E g‖².
STATED = {3: (0.90, 0.98, 0.84), 10: (0.84, 0.97, 0.83), 30: (0.88, 0.96, 0.86)}


@pytest.mark.parametrize("count", STATED)
def test_coverage_is_the_stated_one(statistics, count):
    """2 000 batches of g = w (½ + z) in ℝ⁴, w exponential, as REINFORCE's gradients are: skewed, with heavy tails.

    A coverage within 1.5 % of the stated one fails with probability below 2e-3. V̂ ± 1.96 SE, the wrong twin, covers
    52 % at N = 3 and 79 % at 30.
    """
    rng = np.random.default_rng(7)
    draws = rng.exponential(size=(2000, count, 1)) * (0.5 + rng.normal(size=(2000, count, 4)))
    result = jax.tree.map(np.asarray, statistics(draws, np.zeros(4)))
    # E w² = 2: tr Var g = 4 (2 (1 + ¼) − ¼), ‖E g‖² = 1.
    truth = {"variance": 9.0, "mean_squared_error": 10.0, "signal_to_noise": 1 / 9, "noise_scale": 9.0}
    truth["squared_norm"] = 1.0
    stated = dict(zip(truth, (STATED[count][i] for i in (0, 0, 1, 1, 2)), strict=True))
    covers = lambda low, high, name: np.mean((low <= truth[name]) & (truth[name] <= high))
    for name, wanted in stated.items():
        found = covers(getattr(result, name).low, getattr(result, name).high, name)
        assert abs(found - wanted) < 0.015 + 3 * (wanted * (1 - wanted) / 2000) ** 0.5, (name, found)
    value, margin = result.variance.value, 1.96 * result.variance.stderr
    assert covers(value - margin, value + margin, "variance") < stated["variance"] - 0.05


@pytest.mark.parametrize("value", [1.1, 0.3, 1e-6])
def test_equal_gradients_have_no_variance(value):
    """In float32 a mean of 33 rows of 1.1 is another number: the variance was 1e-13 and the ratio 1e13."""
    with jax.enable_x64(False):
        equal = jnp.full((33, 4), value, jnp.float32)
        result = jax.jit(diagnostics.gradient_statistics)(equal)
        assert result.variance.value == 0 and result.variance.high == 0
        assert jax.jit(diagnostics.total_variance)(equal) == 0
        assert result.signal_to_noise.value == np.inf and result.noise_scale.value == 0
        assert np.isnan(result.signal_to_noise.low) and np.isnan(result.noise_scale.high)
        nothing = jax.jit(diagnostics.gradient_statistics)(jnp.zeros((5, 2)))
        assert np.isnan(nothing.signal_to_noise.value)


def test_float32_agrees_with_float64_for_many_episodes():
    gradients = 3 + np.random.default_rng(2).normal(size=(1_000_000, 2))
    compiled = jax.jit(diagnostics.gradient_statistics)
    double = compiled(gradients)
    with jax.enable_x64(False):
        single = compiled(gradients.astype(np.float32))
    assert single.mean.dtype == jnp.float32
    for name in ("squared_norm", "variance", "signal_to_noise"):
        np.testing.assert_allclose(getattr(single, name).value, getattr(double, name).value, rtol=1e-4)
        np.testing.assert_allclose(getattr(single, name).stderr, getattr(double, name).stderr, rtol=1e-3)
    assert double.bias is None and double.squared_bias is None and double.mean_squared_error is None


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: diagnostics.total_variance(np.ones((1, 2))), "at least 2"),
        (lambda: diagnostics.gradient_statistics(np.ones((2, 2))), "at least 3"),
        (lambda: diagnostics.gradient_statistics(np.ones((3, 2)), confidence=95.0), "confidence.*95.0"),
        (lambda: diagnostics.batch_cosine(np.ones((7, 2)), np.ones(2), batch_size=4), "batch_size.*3, got 4"),
        (lambda: diagnostics.paired_variance_ratio(np.ones((12, 2)), np.ones((11, 2))), "alike.*12.*11"),
        (lambda: diagnostics.paired_variance_ratio(np.ones((9, 2)), np.ones((9, 2))), "at least 10"),
        (lambda: diagnostics.bootstrap_interval(np.ones(3), np.mean, resamples=1), "resamples.*1"),
        (lambda: diagnostics.bootstrap_interval(1.0, np.mean), "scalar"),
        (lambda: diagnostics.interquartile_mean(np.ones((0, 2))), "at least 1"),
        (lambda: diagnostics.mean_interval(np.ones((0, 2))), "at least 1"),
        (lambda: diagnostics.mean_interval(np.ones(3), confidence=95.0), "confidence.*95.0"),
        (lambda: diagnostics.t_quantile(1.0, 3), "probability.*1.0"),
        (lambda: diagnostics.t_quantile(0.9, 0), "degrees.*0"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("batches", "stated"), [(2, 0.92), (5, 0.88), (10, 0.90), (30, 0.92)])
def test_cosines_cover_as_stated(batches, stated):
    """2 000 trials of batches of 8; with z in the place of t two batches cover 64 %."""
    rng = np.random.default_rng(10)
    size = (2000, batches * 8)
    draws = rng.exponential(size=(*size, 1)) * (0.5 + rng.normal(size=(*size, 4)))
    cosine = jax.vmap(lambda g: diagnostics.batch_cosine(g, jnp.ones(4), batch_size=8))
    found = jax.tree.map(np.asarray, cosine(jnp.asarray(draws)))
    truth = 0.7406  # of 400 000 batches
    assert abs(np.mean((found.low <= truth) & (truth <= found.high)) - stated) < 0.03


def test_batch_cosine_by_hand():
    gradients = jnp.array([[1.0, 0.0], [0.0, 1.0], [3.0, 4.0], [0.0, 0.0], [9.0, 9.0]])
    reference = jnp.array([2.0, 0.0])
    batch_cosine = jax.jit(diagnostics.batch_cosine, static_argnames="batch_size")
    one = batch_cosine(gradients[:4], reference, batch_size=1)
    np.testing.assert_allclose(one.value, (1 + 0 + 0.6 + 0) / 4, rtol=1e-12)
    np.testing.assert_allclose(one.stderr, np.std([1, 0, 0.6, 0], ddof=1) / 2, rtol=1e-12)
    # Batches of two: means (½, ½) and (1.5, 2); the fifth episode fills no batch.
    two = batch_cosine(gradients, reference, batch_size=2)
    np.testing.assert_allclose(two.value, (0.5**0.5 + 0.6) / 2, rtol=1e-12)
