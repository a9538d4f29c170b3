"""Mazes that are drawn at random: a new one for each episode, or one of a pool."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_in_range, require_integer, require_one_of
from pgjax.environments.maze import MOVES
from pgjax.environments.maze_drawing import (
    Ends,
    MazeProblem,
    Observation,
    draw_maze,
    num_free,
    observe,
    require_size,
    steps_to_goal,
)
from pgjax.types import Box, Discrete, Environment, Step


class RandomMazeParams(NamedTuple):
    """The parameters of a random maze; all leaves may be vmapped.

    Attributes:
        slip: the probability that the move is not the chosen one.
        loops: the probability that a wall between two rooms is opened after the maze has been drawn; a pool is drawn
            already and does not use it.
        pool: the mazes of which each episode draws one, leaves `[N, ...]`; None draws a new maze for each episode.
    """

    slip: jax.Array
    loops: jax.Array
    pool: MazeProblem | None


class RandomMazeState(NamedTuple):
    """The maze of the episode, the number of the agent's cell, and the number of steps so far."""

    problem: MazeProblem
    cell: jax.Array
    steps: jax.Array


def make_random_maze(
    size: int = 9,
    pool: int | None = None,
    seed: int = 0,
    observation: Observation = "map",
    ends: Ends = "random",
    loops: float = 0.0,
    slip: float = 0.0,
    horizon: int | None = None,
) -> Environment:
    """Make a maze that each episode draws anew, or takes from a pool; `maze_drawing.draw_maze` describes the drawing.

    The four actions move up, right, down and left; a move into a wall does not move. The chosen move happens with
    probability 1 − slip, and each of the other three with probability slip / 3. Every step pays −1, also the step onto
    the exit, which ends the episode: the return is minus the number of steps, and V* = −d(start, exit) without slip.

    A pool of one maze is a fixed maze; pools of different seeds serve for training and for evaluation on other mazes.
    With n × n rooms there are only so many mazes: 192 for size 7, 100 352 for size 9, 557 568 000 for size 11, each
    with n² (n² − 1) pairs of start and exit: 24 million problems at size 9. An evaluation with other keys asks for
    other problems, but mostly for known walls: 400 000 training episodes of size 9 are four for each maze, and one for
    every sixty problems. Take a larger size to evaluate on walls that are new.

    The metrics are `success` (0 or 1), `steps`, and `excess`, the steps beyond d(start, exit); after an episode that
    did not arrive `excess` counts all steps that it made, so read it beside `success`.

    Args:
        size: H, the odd side of the maze with its walls, at least 5.
        pool: N, the number of mazes in the pool; None draws a new maze for each episode.
        seed: the seed of the pool.
        observation: the full `"map"`, uint8 `[H, H, 3]` of 0 and 1 (walls, agent, exit); or the `"position"` alone,
            one-hot uint8 `[H²]`, which tells neither the walls nor the exit: unless the pool has one maze, a good
            policy then needs memory.
        ends: `"random"` draws start and exit among the rooms; `"corners"` puts them into opposite corners.
        loops: the probability that a wall between two rooms is opened, in [0, 1]; 0 leaves a single way.
        slip: the probability that the move is not the chosen one, in [0, 1].
        horizon: T; None takes 2 (2n² − 1), two steps per free cell of a maze without loops. The longest shortest way
            has one step less than there are free cells.

    Raises:
        ValueError: for an argument out of its range, such as an even size.

    Example:
        >>> from pgjax import environments
        >>> maze = environments.make("random_maze", size=7, pool=100, seed=1)
        >>> maze.observation_space, maze.horizon
        (Box(0, 1, shape=(7, 7, 3), dtype=uint8), 34)
    """
    require_size(size)
    require_one_of("observation", observation, ("map", "position"))
    require_one_of("ends", ends, ("random", "corners"))
    require_in_range("loops", loops, 0.0, 1.0)
    require_in_range("slip", slip, 0.0, 1.0)
    horizon = 2 * num_free(size) if horizon is None else horizon
    require_integer("horizon", horizon, 1, None)
    offsets = np.array([row * size + column for row, column in MOVES], np.int32)

    def reset(key: jax.Array, params: RandomMazeParams) -> tuple[RandomMazeState, jax.Array]:
        problem = draw_maze(key, size, params.loops, ends) if params.pool is None else _one_of(key, params.pool)
        state = RandomMazeState(problem=problem, cell=problem.start, steps=jnp.zeros((), jnp.int32))
        return state, observe(problem, problem.start, observation)

    def step(
        key: jax.Array, state: RandomMazeState, action: jax.Array, params: RandomMazeParams
    ) -> tuple[RandomMazeState, Step]:
        problem = state.problem
        reached = state.cell + jnp.asarray(offsets)[(action + _turn(key, params.slip)) % 4]
        cell = jnp.where(problem.walls.ravel()[reached], state.cell, reached)
        seen = Step(
            obs=observe(problem, cell, observation),
            reward=jnp.full((), -1.0, jnp.float32),
            terminated=cell == problem.goal,
        )
        return RandomMazeState(problem=problem, cell=cell, steps=state.steps + 1), seen

    return Environment(
        name="random_maze",
        reset=reset,
        step=step,
        params=RandomMazeParams(
            slip=jnp.float32(slip), loops=jnp.float32(loops), pool=_draw_pool(size, pool, seed, loops, ends)
        ),
        observation_space=Box(
            low=0, high=1, shape=(size, size, 3) if observation == "map" else (size**2,), dtype=np.uint8
        ),
        action_space=Discrete(4),
        horizon=horizon,
        render=_render,
        metrics=_metrics,
    )


def _draw_pool(size: int, count: int | None, seed: int, loops: float, ends: Ends) -> MazeProblem | None:
    if count is None:
        return None
    require_integer("pool", count, 1, None)
    keys = jax.random.split(jax.random.key(seed), count)
    return jax.jit(jax.vmap(lambda key: draw_maze(key, size, loops, ends)))(keys)


def _one_of(key: jax.Array, pool: MazeProblem) -> MazeProblem:
    index = jax.random.randint(key, (), 0, pool.start.shape[0])
    return jax.tree.map(lambda x: x[index], pool)


def _turn(key: jax.Array, slip: jax.Array) -> jax.Array:
    """0 with probability 1 − slip, and 1, 2 and 3 with probability slip / 3 each, int32."""
    uniform = jax.random.uniform(key, (), jnp.float32)
    other = 1 + jnp.minimum(jnp.floor(3.0 * uniform / jnp.maximum(slip, 1e-30)), 2.0)
    return jnp.where(uniform < slip, other, 0.0).astype(jnp.int32)


def _metrics(state: RandomMazeState, obs: jax.Array, params: RandomMazeParams) -> dict[str, jax.Array]:
    del obs, params
    problem = state.problem
    shortest = steps_to_goal(problem.walls, problem.goal).ravel()[problem.start]
    return {
        "success": (state.cell == problem.goal).astype(jnp.float32),
        "steps": state.steps,
        "excess": state.steps - shortest,
    }


def _render(state: RandomMazeState, obs: jax.Array, params: RandomMazeParams) -> np.ndarray:
    from pgjax.environments import rendering

    walls = np.asarray(state.problem.walls)
    agent, goal = (divmod(int(cell), walls.shape[1]) for cell in (state.cell, state.problem.goal))
    return rendering.grid(walls, agent=agent, goal=goal)
