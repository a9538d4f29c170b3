"""Fixtures that every test module may ask for."""

import warnings

import jax
import pytest

# Recent GPUs multiply matrices in TF32 unless told otherwise, which no exact or statistical test would survive.
jax.config.update("jax_default_matmul_precision", "highest")


@pytest.fixture
def strict():
    """No silent promotion of dtypes or ranks: `[B]` against `[B, 1]` is an error. For the mathematics only."""
    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture
def x64():
    """Float64 on, for exact tests."""
    with jax.enable_x64(True):
        yield


@pytest.fixture(scope="session")
def rlax():
    """An independent reference, whose imports warn."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("rlax")
