"""The reset cliff: what few demonstrations cost, along the horizon and along the data."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import log_slope

from pgjax import exact

# N, H → the gap over 200 data sets and its standard error as stated; of the last three it is not, and so our own.
RUNS = 200
CLIFF = {
    (100, 8): (0.393, 0.007),
    (100, 16): (1.41, 0.02),
    (100, 32): (5.10, 0.04),
    (100, 64): (18.19, 0.10),
    (50, 32): (9.17, 0.067),
    (200, 32): (2.70, 0.026),
    (400, 32): (1.39, 0.012),
}


@jax.jit
def regrets(mdp, tables):
    return jax.vmap(lambda table: exact.regret(mdp, exact.first_action(mdp), table))(tables)


def cliff_regrets(mdp, counts):
    return np.asarray(regrets(mdp, exact.cloned_probabilities(counts[:, : mdp.horizon])))


def cliff_counts(num_demonstrations, horizon):
    """`[runs, T, S, A]`."""
    mdp = exact.reset_cliff(num_demonstrations, horizon)
    expert = exact.first_action(mdp)
    count = jax.vmap(lambda key: exact.label_counts(key, mdp, expert, expert, num_demonstrations))
    return count(jax.random.split(jax.random.key(num_demonstrations), RUNS))


@pytest.fixture(scope="module")
def long_counts():
    """200 data sets of N = 100 at H = 64; their first steps are the data sets of a shorter horizon."""
    with jax.enable_x64(True):
        return cliff_counts(100, 64)


def check_cliff(case, counts):
    """200 regrets, each exact given its data, against the closed form, and a twin that they exclude."""
    gaps, closed = cliff_regrets(exact.reset_cliff(*case), counts), float(exact.reset_cliff_regret(*case))
    stderr = gaps.std(ddof=1) / np.sqrt(RUNS)
    assert abs(gaps.mean() - closed) < 4.5 * stderr
    # A uniform guess that is never right where nothing was seen: 4/3 of the error.
    rho = exact.reset_cliff(*case).initial
    twin = exact.compounding_cost(jnp.sum(rho * (1 - rho) ** case[0]), case[1])
    assert abs(gaps.mean() - twin) > 5.2 * stderr
    return gaps.mean()


def test_reset_cliff_along_the_horizon(x64, long_counts):
    """Set-up 2; the slope of the regret in H is on its way to 2."""
    horizons = (8, 32, 64)
    gaps = [check_cliff((100, h), long_counts) for h in horizons]
    assert log_slope(horizons, gaps) == pytest.approx(1.85, abs=0.04)


@pytest.mark.slow
def test_reset_cliff_along_the_data(x64):
    """The slope in N is on its way to −1."""
    numbers = (50, 100, 200, 400)
    gaps = [check_cliff((n, 32), cliff_counts(n, 32)) for n in numbers]
    assert log_slope(numbers, gaps) == pytest.approx(-0.91, abs=0.03)


def test_stated_numbers_of_the_cliff(x64):
    """The stated means over other 200 data sets lie within three of their standard errors of the closed form."""
    closed = {case: float(exact.reset_cliff_regret(*case)) for case in CLIFF}
    for case, (stated, stderr) in CLIFF.items():
        assert abs(stated - closed[case]) < 3.0 * stderr, case
    numbers = (50, 100, 200, 400)
    assert log_slope(numbers, [closed[n, 32] for n in numbers]) == pytest.approx(-0.91, abs=0.01)


def test_shared_parameters_have_no_square(x64, long_counts):
    """One table for all times has seen every state: on the same data no regret is left (Foster et al. 2024)."""
    mdp, counts = exact.reset_cliff(100, 32), long_counts[:, :32]
    pooled = exact.cloned_probabilities(counts, pooled=True)[:, None]
    assert np.all(regrets(mdp, jnp.broadcast_to(pooled, counts.shape)) < 1e-2 * cliff_regrets(mdp, counts))


@pytest.mark.slow
def test_asking_does_not_help_on_the_cliff(x64):
    """DAgger with as many episodes as BC is the worse there: who falls learns nothing more."""
    mdp = exact.reset_cliff(100, 32)
    expert = exact.first_action(mdp)
    betas = np.array([1.0, 0.0, 0.0, 0.0])
    run = jax.jit(jax.vmap(lambda key: exact.tabular_dagger(key, mdp, expert, betas, 25)[-1]))
    gaps = np.asarray(regrets(mdp, run(jax.random.split(jax.random.key(0), RUNS))))
    closed = float(exact.reset_cliff_regret(100, 32))
    # Not merely no better: an episode that falls early leaves its later times unseen.
    assert gaps.mean() > closed + 5.2 * gaps.std(ddof=1) / np.sqrt(RUNS)
