"""Random mazes, drawn inside `jit` with a fixed number of operations, and their exact description.

A maze of odd side H is a grid of H × H cells. Its rooms are the n × n cells with odd row and odd column, n = (H − 1)/2;
the cell between two adjacent rooms is a passage or a wall, and all other cells are walls. Cells are numbered row by
row, and the number of a cell is its state. All functions can be vmapped over mazes.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from pgjax._checks import require_in_range, require_one_of
from pgjax.environments.maze import MOVES
from pgjax.exact.mdp.tabular import TabularMDP, make_tabular_mdp

Ends = Literal["random", "corners"]
Observation = Literal["map", "position"]


class MazeProblem(NamedTuple):
    """One maze with a start and an exit.

    Attributes:
        walls: bool `[H, H]`; the border is always wall.
        start, goal: the numbers of two different free cells, int32 scalars.
    """

    walls: jax.Array
    start: jax.Array
    goal: jax.Array


def require_size(size: int) -> None:
    """Raise a ValueError if no maze has H = `size`."""
    if isinstance(size, bool) or not isinstance(size, int) or size < 5 or size % 2 == 0:
        raise ValueError(f"size must be an odd integer of at least 5 (5, 7, 9, …), got {size!r}")


def num_free(size: int) -> int:
    """2n² − 1, the number of free cells of a maze without loops."""
    return 2 * ((size - 1) // 2) ** 2 - 1


def _grid(size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The cells of the rooms `[n²]`, the two rooms that each edge joins `[E, 2]`, and the cell between them `[E]`."""
    side = (size - 1) // 2
    rooms = np.arange(side**2).reshape(side, side)
    pairs = [
        np.stack([rooms[:, :-1].ravel(), rooms[:, 1:].ravel()], 1),
        np.stack([rooms[:-1].ravel(), rooms[1:].ravel()], 1),
    ]
    ends = np.concatenate(pairs)
    row, column = np.divmod(np.arange(side**2), side)
    cells = (2 * row + 1) * size + 2 * column + 1
    return cells, ends, cells[ends].sum(1) // 2


def draw_maze(key: jax.Array, size: int, loops: ArrayLike = 0.0, ends: Ends = "random") -> MazeProblem:
    """Draw a maze: the minimum spanning tree of the grid of rooms whose edges have independent random weights.

    Prim's algorithm needs exactly n² − 1 steps: each joins the unvisited room that the lightest edge connects to the
    visited ones. Every spanning tree has a positive probability; the tree is not uniform among them. Afterwards every
    remaining wall between two rooms becomes a passage with probability `loops`.

    Args:
        size: H, odd and at least 5.
        loops: a probability in [0, 1]; at 0 exactly one way leads from any free cell to any other.
        ends: `"random"` draws two different rooms as start and exit; `"corners"` takes the room at the top left and the
            room at the bottom right.

    Raises:
        ValueError: for an argument out of its range.

    Source: Prim (1957); as a generator of mazes, Buck (2015), "Mazes for programmers".
    """
    require_size(size)
    require_in_range("loops", loops, 0.0, 1.0)
    require_one_of("ends", ends, ("random", "corners"))
    cells, joins, between = _grid(size)
    weight_key, loop_key, end_key = jax.random.split(key, 3)
    weights = jax.random.uniform(weight_key, (len(joins),), jnp.float32)

    def join(_: int, tree: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        visited, passages = tree
        leads_out = visited[joins[:, 0]] != visited[joins[:, 1]]
        lightest = jnp.argmin(jnp.where(leads_out, weights, 2.0))
        room = jnp.arange(len(cells))
        joined = (room == jnp.asarray(joins)[lightest, 0]) | (room == jnp.asarray(joins)[lightest, 1])
        return visited | joined, passages | (jnp.arange(len(joins)) == lightest)

    first = jnp.arange(len(cells)) == 0
    _, passages = jax.lax.fori_loop(0, len(cells) - 1, join, (first, jnp.zeros(len(joins), bool)))
    passages |= jax.random.uniform(loop_key, passages.shape, jnp.float32) < loops
    walls = jnp.ones(size * size, bool).at[cells].set(False).at[between].set(~passages)
    if ends == "corners":
        start, goal = jnp.asarray(0), jnp.asarray(len(cells) - 1)
    else:
        start = jax.random.randint(end_key, (), 0, len(cells) * (len(cells) - 1))
        start, away = start // (len(cells) - 1), 1 + start % (len(cells) - 1)
        goal = (start + away) % len(cells)
    number = jnp.asarray(cells, jnp.int32)
    return MazeProblem(walls=walls.reshape(size, size), start=number[start], goal=number[goal])


def neighbours_of(walls: jax.Array) -> jax.Array:
    """Where up, right, down and left lead from every cell, int32 `[H², 4]`; walls stop every move."""
    size = walls.shape[0]
    cells = jnp.arange(size * size, dtype=jnp.int32)
    offsets = jnp.asarray([row * size + column for row, column in MOVES], jnp.int32)
    reached = jnp.clip(cells[:, None] + offsets, 0, size * size - 1)
    blocked = walls.ravel()[reached] | walls.ravel()[:, None]
    return jnp.where(blocked, cells[:, None], reached)


def steps_to_goal(walls: jax.Array, goal: jax.Array) -> jax.Array:
    """d(c), the fewest steps from every cell to the exit, float32 `[H, H]`; ∞ in walls. V* = −d without slip.

    It is a breadth-first search with fixed work: iteration k finds all cells at distance k. The 2n² − 2 iterations are
    enough, because a shortest way visits no room twice.
    """
    size = walls.shape[0]
    # No way leaves the border, so the rows and columns that a roll moves across the edge are walls.
    around = lambda d: jnp.minimum(
        jnp.minimum(jnp.roll(d, 1, 0), jnp.roll(d, -1, 0)), jnp.minimum(jnp.roll(d, 1, 1), jnp.roll(d, -1, 1))
    )
    start = jnp.where(jnp.arange(size * size).reshape(size, size) == goal, 0.0, jnp.inf).astype(jnp.float32)
    nearer = lambda _, d: jnp.where(walls, jnp.inf, jnp.minimum(d, around(d) + 1.0))
    return jax.lax.fori_loop(0, num_free(size) - 1, nearer, start)


def planes(walls: jax.Array, cell: jax.Array, goal: jax.Array) -> jax.Array:
    """The full map, uint8 `[H, H, 3]` of 0 and 1: the walls, the agent, the exit."""
    at = lambda place: jnp.arange(walls.size).reshape(walls.shape) == place
    return jnp.stack([walls, at(cell), at(goal)], axis=-1).astype(jnp.uint8)


def observe(problem: MazeProblem, cell: jax.Array, observation: Observation) -> jax.Array:
    """What the policy sees in a cell: the full map, or the cell one-hot, uint8 `[H²]`."""
    if observation == "map":
        return planes(problem.walls, cell, problem.goal)
    return (jnp.arange(problem.walls.size) == cell).astype(jnp.uint8)


def problem_mdp(
    problem: MazeProblem,
    slip: ArrayLike = 0.0,
    horizon: int | None = None,
    observation: Observation = "map",
) -> TabularMDP:
    """The exact MDP of one maze, inside `jit` and `vmap` too: −1 per step, ended by the step onto the exit.

    The states are all H² cells, so that mazes of one size have arrays of one shape; a wall leads to itself and is never
    reached. Moves, slip and rewards are those of `maze.maze_mdp`.

    Args:
        problem: the maze.
        slip: the probability that the move is not the chosen one, in [0, 1].
        horizon: T; None takes 2 (2n² − 1), two steps per free cell, as `make_random_maze`.
        observation: the full `"map"`, uint8 `[H, H, 3]`, or the `"position"`, one-hot uint8 `[H²]`.

    Returns:
        An MDP with S = H² states, four actions and four outcomes of each.

    Example: the exact ρ of the uniform policy in three mazes at once.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import exact
        >>> from pgjax.environments import maze_drawing
        >>> uniform = lambda params, obs: params  # logits that do not depend on the observation
        >>> def objective(key):
        ...     mdp = maze_drawing.problem_mdp(maze_drawing.draw_maze(key, size=5))
        ...     return exact.objective(uniform, jnp.zeros(4), mdp)
        >>> jax.vmap(objective)(jax.random.split(jax.random.key(0), 3)).shape
        (3,)
    """
    require_in_range("slip", slip, 0.0, 1.0)
    require_one_of("observation", observation, ("map", "position"))
    size = problem.walls.shape[0]
    cells = jnp.arange(size * size)
    turns = np.arange(4)
    successors = neighbours_of(problem.walls)[:, (turns[:, None] + turns) % 4]
    return make_tabular_mdp(
        initial=cells == problem.start,
        successors=successors,
        probabilities=jnp.broadcast_to(jnp.where(turns == 0, 1.0 - slip, slip / 3.0), successors.shape),
        rewards=jnp.full(successors.shape, -1.0),
        terminal=cells == problem.goal,
        horizon=2 * num_free(size) if horizon is None else horizon,
        observations=jax.vmap(lambda cell: observe(problem, cell, observation))(cells),
        name="random_maze",
    )


def to_layout(problem: MazeProblem) -> str:
    """The drawing of one maze that `maze.make_maze` and `maze.parse_layout` read."""
    walls = np.asarray(problem.walls)
    characters = np.where(walls, "#", ".").ravel()
    characters[int(problem.start)], characters[int(problem.goal)] = "S", "G"
    return "\n".join("".join(row) for row in characters.reshape(walls.shape))
