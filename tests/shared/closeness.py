"""How far two trees of numbers may be apart, or must be."""

import jax
import numpy as np


def close(got, wanted, atol=1e-12):
    """Every number of the two trees is equal up to an absolute tolerance, which suits float64."""
    compare = lambda a, b: np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=0, atol=atol)
    jax.tree.map(compare, got, wanted)


def far(got, wanted, tolerance=1e-3):
    """Some number of the two arrays differs by more than the tolerance: a wrong twin is told apart."""
    assert np.max(np.abs(np.asarray(got) - np.asarray(wanted))) > tolerance


def log_slope(x, y):
    """The power of x that y grows with: the slope of the straight line through the logarithms."""
    return np.polyfit(np.log(list(x)), np.log(list(y)), 1)[0]
