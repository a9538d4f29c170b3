"""Four rooms: what can be reached from where, in how many steps, and what that is worth."""

from collections import deque

import numpy as np
import pytest

from pgjax import exact
from pgjax.environments import check, make
from pgjax.environments.four_rooms import (
    DOORS,
    EXITS,
    GEOMETRIES,
    crossings,
    four_rooms_mdp,
    make_four_rooms,
    neighbours,
)

UP, RIGHT, DOWN, LEFT = range(4)
cell = lambda row, column: 10 * row + column


def distances(reached, start=0):
    """Fewest steps from `start` to every cell, by breadth-first search; exits are walked through."""
    found, frontier = {start: 0}, deque([start])
    while frontier:
        here = frontier.popleft()
        for there in reached[here]:
            if there not in found:
                found[there] = found[here] + 1
                frontier.append(there)
    return found


def test_walls_as_described_have_doors_at_two_places():
    reached = neighbours("described")
    for place in range(10):
        through = place in DOORS
        assert (reached[cell(4, place), DOWN] == cell(5, place)) == through
        assert (reached[cell(5, place), UP] == cell(4, place)) == through
        assert (reached[cell(place, 4), RIGHT] == cell(place, 5)) == through
        assert (reached[cell(place, 5), LEFT] == cell(place, 4)) == through
    bumps = (reached == np.arange(100)[:, None]).sum()
    assert bumps == 40 + 4 * 8  # the outer wall, and both sides of both lines but for their doors
    assert crossings("described") == 2


def test_walls_as_released_close_no_line_but_steps_along_it():
    reached = neighbours("released")
    for place in range(10):
        down, up = reached[cell(4, place), DOWN] == cell(5, place), reached[cell(5, place), UP] == cell(4, place)
        right, left = reached[cell(place, 4), RIGHT] == cell(place, 5), reached[cell(place, 5), LEFT] == cell(place, 4)
        assert down == right == (place != 4) and up == left == (place != 5)
        if 0 < place < 9:
            along = [reached[cell(4, place), RIGHT] != cell(4, place), reached[cell(5, place), LEFT] != cell(5, place)]
            assert along == [place in DOORS] * 2
            assert reached[cell(4, place), LEFT] == cell(4, place - 1)  # in the other direction nothing is blocked
    assert crossings("released") == 10
    assert (neighbours("described") != reached).any()


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_shortest_ways_have_the_same_length_in_both(geometry):
    found = distances(neighbours(geometry))
    assert len(found) == 100
    assert [found[cell(*place)] for place in EXITS] == [14, 9, 9]


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_the_best_value_is_the_best_exit_discounted(x64, geometry):
    mdp = four_rooms_mdp(geometry)
    best = np.asarray(exact.optimal_action_values(mdp, 0.99))[:, 0].max(axis=-1)
    np.testing.assert_allclose(best[[0, -14]], 0.99**13, rtol=1e-12)
    np.testing.assert_array_equal(np.flatnonzero(mdp.terminal), sorted(cell(*place) for place in EXITS))
    # Twin: with one step less there is no time for the best exit.
    np.testing.assert_allclose(best[-13], 0.6 * 0.99**8, rtol=1e-12)


def test_it_is_drawn_with_what_cannot_be_crossed():
    draw = lambda geometry, cell: make_four_rooms(geometry).render(exact.TabularState(index=cell), None, None)
    pictures = {g: draw(g, 0) for g in GEOMETRIES}
    dark = lambda picture: (picture.sum(axis=-1) < 200).reshape(21, 24, 21, 24).mean(axis=(1, 3)) > 0.9
    outer, both_lines, doors = 80, 2 * 19 - 1, 4
    assert dark(pictures["described"]).sum() == outer + both_lines - doors
    assert dark(pictures["released"]).sum() == outer
    assert (pictures["described"] != draw("described", 1)).any()


def test_make_and_refusals():
    environment = make("four_rooms", geometry="released", horizon=30)
    assert environment.name == "four_rooms" and environment.horizon == 30
    with pytest.raises(ValueError, match="geometry must be"):
        make("four_rooms", geometry="open")
    with pytest.raises(ValueError, match="horizon is 0"):
        four_rooms_mdp(horizon=0)


def test_it_conforms():
    assert check(make_four_rooms(horizon=20)).name == "four_rooms"
