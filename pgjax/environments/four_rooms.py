"""Four rooms with three exits (Chung, Thomas, Machado & Le Roux, 2021): two bad exits are near and the best is far."""

from typing import Literal, get_args

import jax
import numpy as np

from pgjax._checks import require_one_of
from pgjax.environments.maze import MOVES
from pgjax.exact.mdp.tabular import TabularMDP, TabularState, make_tabular_mdp, to_environment
from pgjax.types import Environment

SIZE = 10
START = (0, 0)
EXITS = {(7, 7): 1.0, (2, 7): 0.6, (7, 2): 0.3}  # (row, column) → reward
DOORS = (2, 7)
Geometry = Literal["described", "released"]
GEOMETRIES: tuple[Geometry, ...] = get_args(Geometry)


def neighbours(geometry: Geometry = "described") -> np.ndarray:
    """Where up, right, down and left lead from each cell, int `[100, 4]`; a step into a wall does not move.

    Cell (r, c) has the number 10 r + c. There are two geometries:

    - `"described"`: the paper's description, with walls between rows 4 and 5 and between columns 4 and 5, and doors at
      columns and rows 2 and 7. Both mid-lines can be crossed at two of their ten places.
    - `"released"`: what the published code does, in which the table of moves and the test for walls swap the two axes.
      It blocks steps along rows and columns 4 and 5, each in one direction, except from places 2 and 7. The mid-lines
      can be crossed at nine places in either direction, and at all ten in one direction, so there are no rooms.

    Raises:
        ValueError: for another geometry.
    """
    require_one_of("geometry", geometry, GEOMETRIES)
    cells = np.stack(np.divmod(np.arange(SIZE**2), SIZE), axis=1)
    reached = []
    for move in MOVES:
        axis = int(move[1] != 0)
        along, across = (cells[:, axis], cells[:, 1 - axis])
        before_wall = SIZE // 2 - 1 if sum(move) > 0 else SIZE // 2
        tested, door = (along, across) if geometry == "described" else (across, along)
        target = cells + move
        blocked = (tested == before_wall) & ~np.isin(door, DOORS)
        blocked |= ((target < 0) | (target >= SIZE)).any(axis=1)
        reached.append(np.where(blocked[:, None], cells, target) @ [SIZE, 1])
    return np.stack(reached, axis=1)


def crossings(geometry: Geometry = "described") -> int:
    """The number of places, of ten, at which a step in either direction crosses a mid-line; the smaller of both lines.

    Raises:
        ValueError: for another geometry.
    """
    reached, half = neighbours(geometry), SIZE // 2
    before = np.stack([SIZE * (half - 1) + np.arange(SIZE), SIZE * np.arange(SIZE) + half - 1])  # each line's near side
    behind = before + np.array([[SIZE], [1]])
    leads = lambda sources, targets: (reached[sources] == targets[:, :, None]).any(axis=-1)
    return int((leads(before, behind) | leads(behind, before)).sum(axis=1).min())


def four_rooms_mdp(geometry: Geometry = "described", horizon: int = 100) -> TabularMDP:
    """The four rooms as a deterministic MDP: 100 cells, start (0, 0), actions 0 up, 1 right, 2 down, 3 left.

    The step onto an exit pays 1.0 at (7, 7), 0.6 at (2, 7) or 0.3 at (7, 2) and ends the episode; other steps pay 0.
    Without a discount the return depends only on the exit. The shortest ways to these exits have 14, 9 and 9 steps in
    both geometries.

    Args:
        geometry: `"described"` or `"released"`, see `neighbours`.
        horizon: T.

    Returns:
        An MDP of 100 cells with one-hot observations `[100]`.

    Raises:
        ValueError: for another geometry or a horizon below 1.

    Source: Chung, Thomas, Machado & Le Roux (2021), section 5, and the authors' code.
    """
    successors = neighbours(geometry)
    pays = np.zeros(SIZE**2)
    for (row, column), reward in EXITS.items():
        pays[SIZE * row + column] = reward
    return make_tabular_mdp(
        initial=np.arange(SIZE**2) == SIZE * START[0] + START[1],
        successors=successors[:, :, None],
        probabilities=np.ones((*successors.shape, 1)),
        rewards=pays[successors][:, :, None],
        terminal=pays > 0,
        horizon=horizon,
        name="four_rooms",
    )


def make_four_rooms(geometry: Geometry = "described", horizon: int = 100) -> Environment:
    """`four_rooms_mdp` as a sampled environment that can be drawn: observation one-hot Box `[100]`, four actions."""
    walls = _drawn_walls(neighbours(geometry))
    best = max(EXITS, key=EXITS.__getitem__)

    def render(state: TabularState, obs: jax.Array, params: TabularMDP) -> np.ndarray:
        """Draw the cells with the best exit, and a wall where no step can cross in either direction."""
        from pgjax.environments import rendering

        agent, goal = (tuple(2 * i + 1 for i in cell) for cell in (divmod(int(state.index), SIZE), best))
        return rendering.grid(walls, agent=agent, goal=goal)

    return to_environment(four_rooms_mdp(geometry, horizon), render=render)


def _drawn_walls(reached: np.ndarray) -> np.ndarray:
    """Bool `[21, 21]`: cells at odd places, with a wall between two cells unless a step leads from one to the other."""
    walls = np.ones((2 * SIZE + 1, 2 * SIZE + 1), bool)
    cells = np.stack(np.divmod(np.arange(SIZE**2), SIZE), axis=1)
    walls[1::2, 1::2] = False
    for cell, target in zip(np.repeat(cells, len(MOVES), axis=0), cells[reached.ravel()], strict=True):
        walls[tuple(cell + target + 1)] = False
    # A corner is drawn as wall only if a wall ends there or passes through it.
    sides = walls[1:-3:2, 2:-2:2] | walls[3:-1:2, 2:-2:2] | walls[2:-2:2, 1:-3:2] | walls[2:-2:2, 3:-1:2]
    walls[2:-2:2, 2:-2:2] = sides
    return walls
