"""The ladder on several problems: the ratios and the three numbers about the returns are what their names say."""

import numpy as np
import pytest

from experiments.which_baseline import drawing, measuring
from experiments.which_baseline.measuring import LADDER


@pytest.fixture(scope="module")
def measured():
    """Two starts that pay 1 and 3 at the last of two steps; v knows half of each return."""
    noise = np.random.default_rng(0).standard_normal((50, 3))
    estimates = {name: noise / (1 + number) for number, name in enumerate(LADDER)}
    to_go = np.array([1.0, 1.0, 3.0, 3.0])
    totals = measuring._Sums(
        steps=4.0,
        first=4.0,
        first_squared=10.0,
        to_go=to_go.sum(),
        to_go_squared=(to_go**2).sum(),
        error_squared=((to_go - np.array([1.5, 1.5, 2.5, 2.5])) ** 2).sum(),
    )
    return measuring._summary(estimates, totals, num_episodes=2)


def test_the_ratios_are_those_of_the_variances(measured):
    for number, name in enumerate(LADDER):
        np.testing.assert_allclose(measured.ratios[name].value, 1 / (1 + number) ** 2, rtol=1e-9)
    assert drawing.best_of(measured) == [LADDER[-1]]
    alike = measured._replace(ratios=measured.ratios | {LADDER[0]: measured.ratios[LADDER[-1]]})
    assert drawing.best_of(alike) == [LADDER[0], LADDER[-1]]
    assert drawing.title_of({"one": measured}).endswith("Gₜ − v(Xₜ) on one")
    assert drawing.title_of({"one": alike}).endswith("several alike on one")


def test_the_numbers_about_the_returns(measured):
    assert measured.length == 2.0
    np.testing.assert_allclose(measured.constant_share, 2.0**2 / 5.0)
    np.testing.assert_allclose(measured.explained, 1 - 0.25 / 1.0)


def test_returns_that_are_all_zero_give_no_number():
    estimates = dict.fromkeys(LADDER, np.random.default_rng(0).standard_normal((10, 2)))
    found = measuring._summary(estimates, measuring._Sums(4.0, 0.0, 0.0, 0.0, 0.0, 0.0), num_episodes=2)
    assert np.isnan(found.constant_share) and np.isnan(found.explained)


def test_a_maze_without_luck_is_measured_whole():
    """Without training nearly every episode lasts to the horizon, so returns hardly differ and ρ̂ takes nearly all."""
    sizes = measuring.Sizes(batch=2, estimates=12, updates=0, hidden=(4,))
    found = measuring.measure_problem("maze", sizes, seed=0)
    assert found.ratios["reinforce"].value == 1.0 and 0 < found.length <= 132
    assert found.constant_share > 0.9 and found.ratios["reinforce_moving_average"].value < 0.2
