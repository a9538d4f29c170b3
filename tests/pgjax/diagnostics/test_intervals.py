"""Statistics of runs and their intervals: by hand where that is possible, and covering as often as they state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import t as student
from scipy.stats import trim_mean

from pgjax import diagnostics


@pytest.fixture(autouse=True)
def strict():
    with (
        jax.numpy_dtype_promotion("strict"),
        jax.numpy_rank_promotion("raise"),
        jax.enable_x64(True),
    ):
        yield


@pytest.mark.parametrize("degrees", [1, 2, 3, 9, 99, 10**4, 10**6])
def test_t_quantiles_are_those_of_scipy(degrees):
    for probability in (0.6, 0.975, 0.9999, 0.025):
        wanted = student.ppf(probability, degrees)
        np.testing.assert_allclose(diagnostics.t_quantile(probability, degrees), wanted, rtol=1e-9)
    assert diagnostics.t_quantile(0.5, degrees) == 0


@pytest.mark.parametrize(("count", "by_normal"), [(2, 0.70), (3, 0.81), (10, 0.92)])
def test_a_mean_interval_covers_from_two_runs_on(count, by_normal):
    """4 000 trials of normal runs: 95 % within three and a half standard errors; x̄ ± 1.96 SE is the wrong twin."""
    runs = np.random.default_rng(8).normal(size=(count, 4000))
    found = diagnostics.mean_interval(runs)
    assert abs(np.mean((found.low <= 0) & (found.high >= 0)) - 0.95) < 0.012
    assert abs(np.mean(np.abs(found.value) <= 1.96 * found.stderr) - by_normal) < 0.03
    np.testing.assert_array_equal(diagnostics.mean_interval(runs.T, axis=1).low, found.low)


@pytest.mark.parametrize(("count", "stated"), [(3, 0.89), (10, 0.90), (30, 0.93)])
def test_a_mean_interval_of_skewed_runs_covers_as_stated(count, stated):
    found = diagnostics.mean_interval(np.random.default_rng(9).exponential(size=(count, 4000)))
    assert abs(np.mean((found.low <= 1) & (found.high >= 1)) - stated) < 0.02


def test_equal_runs_have_no_spread():
    """The mean of 33 numbers 1.1 is another number: variances were 1e-32, and their ratio about 1."""
    equal = np.full((33, 2), 1.1)
    found = diagnostics.mean_interval(equal)
    assert (found.value == 1.1).all() and (found.stderr == 0).all() and (found.high == 1.1).all()
    varying = np.random.default_rng(0).normal(size=(33, 2))
    assert diagnostics.paired_variance_ratio(varying, equal, resamples=20).value == np.inf
    assert diagnostics.paired_variance_ratio(equal, varying, resamples=20).value == 0
    assert diagnostics.mean_and_stderr(np.array([True, False])) == (0.5, 0.5)


def test_bounds_shorten_an_interval_and_keep_its_coverage():
    """Rates of three runs with mean 0.9: intervals reach above 1 without bounds, and cover as often with them."""
    runs = np.random.default_rng(4).binomial(10, 0.9, size=(3, 4000)) / 10
    plain, cut = diagnostics.mean_interval(runs), diagnostics.mean_interval(runs, bounds=(0.0, 1.0))
    covers = lambda found: (found.low <= 0.9) & (found.high >= 0.9)
    assert (plain.high > 1).mean() > 0.3 and cut.high.max() <= 1 and cut.low.min() >= 0
    np.testing.assert_array_equal(covers(plain), covers(cut))
    np.testing.assert_array_equal(plain.value, cut.value)
    outside = diagnostics.within(diagnostics.Estimate(-3.0, 0.1, -3.2, -2.8), (0.0, np.inf))
    assert outside == (-3.0, 0.1, 0.0, 0.0)
    with pytest.raises(ValueError, match="first must not be above the second"):
        diagnostics.mean_interval(runs, bounds=(1.0, 0.0))


def test_one_run_has_no_interval_and_few_are_marked():
    one = diagnostics.mean_interval([[1.0, 2.0]])
    np.testing.assert_array_equal(one.value, [1.0, 2.0])
    assert np.isnan([one.stderr, one.low, one.high]).all()
    assert "no spread" in diagnostics.few_runs(1)
    assert diagnostics.few_runs(2, "seeds").startswith("Only 2 seeds") and "12.7" in diagnostics.few_runs(2)
    assert "too few" in diagnostics.few_runs(2) and "too few" not in diagnostics.few_runs(3)
    assert diagnostics.few_runs(4) and not diagnostics.few_runs(5)


@pytest.fixture(scope="module")
def paired():
    """Heavy-tailed episodes seen by two estimators: b is half of a and a little noise of its own."""
    rng = np.random.default_rng(3)
    a = rng.normal(size=(200, 3)) * rng.gamma(0.5, size=(200, 1))
    return a, 0.5 * a + 0.05 * rng.normal(size=(200, 3))


def test_paired_variance_ratio_of_multiples_is_exact(paired):
    a, _ = paired
    ratio = diagnostics.paired_variance_ratio(2 * a + 7, a, resamples=50)
    np.testing.assert_allclose([ratio.value, ratio.low, ratio.high], 4, rtol=1e-12)
    assert ratio.stderr < 1e-12


def test_pairing_narrows_the_interval(paired):
    a, b = paired
    pairs = diagnostics.paired_variance_ratio(a, b, resamples=500)
    wrong_twin_loses_the_pairs = diagnostics.paired_variance_ratio(a, b[::-1], resamples=500)
    expected = diagnostics.total_variance(jnp.asarray(a)) / diagnostics.total_variance(jnp.asarray(b))
    np.testing.assert_allclose([pairs.value, wrong_twin_loses_the_pairs.value], float(expected), rtol=1e-12)
    assert pairs.low < pairs.value < pairs.high
    assert 5 * pairs.stderr < wrong_twin_loses_the_pairs.stderr
    assert 5 * (pairs.high - pairs.low) < wrong_twin_loses_the_pairs.high - wrong_twin_loses_the_pairs.low


def test_paired_interval_covers():
    """Ratio 4 of correlated normal gradients, 300 trials: a coverage of 95 % fails with probability 1e-5."""
    rng = np.random.default_rng(4)
    shared, own = rng.normal(size=(2, 300, 60, 2))
    hits = 0
    for x, y in zip(shared, own, strict=True):
        ratio = diagnostics.paired_variance_ratio(2 * x, 0.8 * x + 0.6 * y, resamples=300)
        hits += ratio.low <= 4 <= ratio.high
    assert hits / 300 > 0.89


def test_bootstrap_resamples_whole_runs():
    runs = np.random.default_rng(5).normal(size=(9, 1)) + np.linspace(0, 1, 4)
    low, high = diagnostics.bootstrap_interval(runs, np.mean)
    # Runs that differ by a constant have the same width everywhere.
    np.testing.assert_allclose(high - low, (high - low)[0] * np.ones(4), rtol=1e-9)
    again = diagnostics.bootstrap_interval(runs, np.mean)
    other = diagnostics.bootstrap_interval(runs, np.mean, seed=1)
    np.testing.assert_array_equal(low, again[0])
    assert not np.array_equal(low, other[0])
    assert np.isnan(diagnostics.bootstrap_interval(runs[:1], np.mean)).all()


@pytest.mark.parametrize(("count", "stated"), [(2, 0.50), (5, 0.83), (10, 0.90)])
def test_bootstrap_coverage_is_the_stated_one(count, stated):
    """2 000 trials: a coverage within 1.5 % of the stated one fails with probability below 2e-3."""
    trials = np.random.default_rng(6).normal(size=(count, 2000))
    low, high = diagnostics.bootstrap_interval(trials, np.mean, resamples=400)
    assert abs(np.mean((low <= 0) & (high >= 0)) - stated) < 0.015 + 3 * (stated * (1 - stated) / 2000) ** 0.5


def test_interquartile_mean_by_hand():
    assert diagnostics.interquartile_mean([8, 1, 7, 2, 6, 3, 5, 4]) == (3 + 4 + 5 + 6) / 4
    assert diagnostics.interquartile_mean([100.0, 0, 10, 0, 10]) == pytest.approx(20 / 3)
    assert diagnostics.interquartile_mean([1.0, 2.0, 6.0]) == 3
    assert np.isnan(diagnostics.interquartile_mean([1.0, np.nan, 2, 3, 4, 5]))
    x = np.random.default_rng(7).normal(size=(4, 11))
    expected = trim_mean(x, 0.25, axis=1)
    np.testing.assert_allclose(diagnostics.interquartile_mean(x, axis=1), expected, rtol=1e-12)


def test_mean_and_stderr_by_hand():
    mean, stderr = diagnostics.mean_and_stderr([[1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_array_equal(mean, [2, 5])
    np.testing.assert_allclose(stderr, [1, 0])
    wrong_twin_divides_by_n = np.std([1.0, 3.0], ddof=0) / 2**0.5
    assert wrong_twin_divides_by_n < 0.75
    mean, stderr = diagnostics.mean_and_stderr([4])
    assert mean == 4 and np.isnan(stderr)
