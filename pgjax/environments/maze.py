"""A maze drawn in characters: find the exit in the fewest steps, on a floor that may be slippery."""

from collections import deque
from typing import NamedTuple

import jax
import numpy as np

from pgjax.exact.mdp.tabular import TabularMDP, TabularState, make_tabular_mdp, to_environment
from pgjax.types import Environment

UP, RIGHT, DOWN, LEFT = range(4)
MOVES = ((-1, 0), (0, 1), (1, 0), (0, -1))

# From the start, down is 12 steps from the exit and right 16; a dead end and a loop lie beside the short way.
LAYOUT = """\
#########
#S..#...#
#.#.#.#.#
#.#...#.#
#.#####.#
#.......#
#.#.#.#.#
#.#...#G#
#########"""

# Small enough to enumerate: two shortest ways of two steps, at most 4^T trajectories.
TINY_LAYOUT = """\
####
#S.#
#.G#
####"""


class Maze(NamedTuple):
    """A parsed layout with C free cells, numbered row by row.

    Attributes:
        walls: bool `[H, W]`.
        cells: (row, column) of each free cell, int `[C, 2]`; the number of a cell is its state.
        start, goal: the numbers of the cells S and G.
        neighbours: where up, right, down and left lead from each free cell, int `[C, 4]`; a step into a wall does not
            move.
    """

    walls: np.ndarray
    cells: np.ndarray
    start: int
    goal: int
    neighbours: np.ndarray


def parse_layout(layout: str) -> Maze:
    """Read a drawing: '#' is a wall, 'S' the start, 'G' the exit, '.' or ' ' a free cell; all outside is wall.

    Raises:
        ValueError: for rows of unequal length, an unknown character, not exactly one S and one G, or an exit
            that cannot be reached.
    """
    rows = layout.strip("\n").split("\n")
    for number, row in enumerate(rows):
        if len(row) != len(rows[0]):
            raise ValueError(f"layout row {number} has {len(row)} characters, row 0 has {len(rows[0])}")
        for column, character in enumerate(row):
            if character not in "#SG. ":
                where = f"row {number}, column {column}"
                raise ValueError(f"layout has {character!r} at {where}, must be '#', 'S', 'G', '.' or ' '")
    grid = np.array([list(row) for row in rows])
    for mark in "SG":
        if (found := int((grid == mark).sum())) != 1:
            raise ValueError(f"layout has {found} cells {mark!r}, must have exactly one")

    walls = grid == "#"
    cells = np.argwhere(~walls)
    number = np.full(np.add(walls.shape, 2), -1)
    number[1:-1, 1:-1][~walls] = np.arange(len(cells))
    reached = number[tuple((cells[:, None] + np.array(MOVES) + 1).T)].T
    maze = Maze(
        walls=walls,
        cells=cells,
        start=int(np.flatnonzero(grid[~walls] == "S")[0]),
        goal=int(np.flatnonzero(grid[~walls] == "G")[0]),
        neighbours=np.where(reached < 0, np.arange(len(cells))[:, None], reached),
    )
    if not np.isfinite(_distances(maze)[maze.start]):
        raise ValueError("layout has no way from 'S' to 'G'")
    return maze


def shortest_path_lengths(layout: str = LAYOUT) -> np.ndarray:
    """d(c), the fewest steps from each free cell to the exit without slipping, `[C]`; ∞ if no way leads there.

    It is found by breadth-first search from the exit. V*(c) = −d(c) if there is no slip and the horizon is long enough.

    Raises:
        ValueError: for a layout that `parse_layout` refuses.

    Example:
        >>> from pgjax.environments.maze import shortest_path_lengths
        >>> shortest_path_lengths("S.\\n.G").tolist()
        [2.0, 1.0, 1.0, 0.0]
    """
    return _distances(parse_layout(layout))


def _distances(maze: Maze) -> np.ndarray:
    distances = np.full(len(maze.cells), np.inf)
    distances[maze.goal] = 0
    frontier = deque([maze.goal])
    while frontier:
        cell = frontier.popleft()
        for neighbour in maze.neighbours[cell]:  # moves are reversible: who is reached from here reaches here
            if np.isinf(distances[neighbour]):
                distances[neighbour] = distances[cell] + 1
                frontier.append(neighbour)
    return distances


def maze_mdp(layout: str = LAYOUT, slip: float = 0.0, horizon: int | None = None) -> TabularMDP:
    """The maze as an MDP: the states are the free cells, the actions are 0 up, 1 right, 2 down, 3 left.

    The chosen move happens with probability 1 − slip, and each of the other three moves with probability slip / 3; a
    move into a wall does not move. Every step pays −1, also the step onto the exit, which ends the episode:
    ρ = −E[steps].

    Args:
        layout: see `parse_layout`.
        slip: the probability that the move is not the chosen one, in [0, 1].
        horizon: T; None takes four steps per free cell.

    Returns:
        An MDP of C free cells with one-hot observations `[C]` and four outcomes per action (one if slip is 0).

    Raises:
        ValueError: for a layout that `parse_layout` refuses, a slip outside [0, 1], or a horizon below 1.
    """
    if not 0.0 <= slip <= 1.0:
        raise ValueError(f"slip is {slip}, must be in [0, 1]")
    maze = parse_layout(layout)
    num_cells = len(maze.cells)
    turns = np.arange(4 if slip > 0 else 1)
    successors = maze.neighbours[:, (np.arange(4)[:, None] + turns) % 4]
    return make_tabular_mdp(
        initial=np.arange(num_cells) == maze.start,
        successors=successors,
        probabilities=np.broadcast_to(np.where(turns == 0, 1.0 - slip, slip / 3.0), successors.shape),
        rewards=np.full(successors.shape, -1.0),
        terminal=np.arange(num_cells) == maze.goal,
        horizon=4 * num_cells if horizon is None else horizon,
        name="maze",
    )


def make_maze(layout: str = LAYOUT, slip: float = 0.0, horizon: int | None = None) -> Environment:
    """`maze_mdp` as a sampled environment that can be drawn: observation one-hot Box `[C]`, four actions."""
    maze = parse_layout(layout)

    def render(state: TabularState, obs: jax.Array, params: TabularMDP) -> np.ndarray:
        from pgjax.environments import rendering

        agent, goal = (tuple(maze.cells[cell].tolist()) for cell in (int(state.index), maze.goal))
        return rendering.grid(maze.walls, agent=agent, goal=goal)

    return to_environment(maze_mdp(layout, slip, horizon), render=render)
