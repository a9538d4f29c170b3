"""The arena of `navigation`, and how its robot moves and what its lidar measures."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_traced, require_in_range
from pgjax.types import PyTree

# The number of cells along a wall of the arena; start, goal and obstacles lie in different cells.
CELLS = 5
# The share of a cell's side that obstacles leave free at each edge of their cell.
_MARGIN = 0.15


class NavigationParams(NamedTuple):
    """Constants of the robot, the arena and the reward; every leaf may be vmapped.

    Attributes:
        side: the length of a wall of the square arena, m.
        robot_radius: m.
        goal_radius: the robot has arrived when its centre is at most this far from the goal, m.
        smallest_obstacle, largest_obstacle: the radii of obstacles are uniform between these, m.
        max_speed: v_max, m/s.
        max_turn: ω_max, rad/s.
        acceleration: the greatest change of v in one second, m/s².
        turn_acceleration: the greatest change of ω in one second, rad/s².
        beam_range: how far the lidar sees, m.
        time_step: Δt, the time of one step, s.
        time_cost: c_time, the cost of a step.
        collision_cost: c_hit, the cost of a collision.
        bonus: the reward for arriving.
    """

    side: PyTree = 10.0
    robot_radius: PyTree = 0.2
    goal_radius: PyTree = 0.3
    smallest_obstacle: PyTree = 0.35
    largest_obstacle: PyTree = 0.7
    max_speed: PyTree = 1.0
    max_turn: PyTree = 2.0
    acceleration: PyTree = 2.0
    turn_acceleration: PyTree = 8.0
    beam_range: PyTree = 3.0
    time_step: PyTree = 0.2
    time_cost: PyTree = 0.01
    collision_cost: PyTree = 5.0
    bonus: PyTree = 5.0


class NavigationState(NamedTuple):
    """The robot and its arena.

    Attributes:
        position, heading: x, y and θ, `[2]` and `[]`, m and rad; the middle of the arena is (0, 0).
        speed, turn: v and ω, m/s and rad/s.
        goal: x and y of the goal, `[2]`, m.
        obstacles: x, y and radius of each obstacle, `[K, 3]`, m.
        start_distance: d_0, the distance from the start to the goal, m.
        way: the length of the way that the robot has driven, m.
        hit: bool, whether the last step ended in a collision.
        arrived: bool, whether the robot is at the goal.
    """

    position: jax.Array
    heading: jax.Array
    speed: jax.Array
    turn: jax.Array
    goal: jax.Array
    obstacles: jax.Array
    start_distance: jax.Array
    way: jax.Array
    hit: jax.Array
    arrived: jax.Array


def require_possible(params: NavigationParams) -> None:
    """Require that every number is in its range, and that the robot fits between the obstacles of every arena.

    Raises:
        ValueError: the name of the number, its range, and the given value. Traced numbers are not checked.
    """
    free = ("time_cost", "collision_cost", "bonus")
    for name, value in params._asdict().items():
        require_in_range(name, value, 0.0 if name in free else 1e-6, None)
    if any(map(is_traced, (params.side, params.smallest_obstacle))):
        return
    cell = params.side / CELLS
    require_in_range("robot_radius", params.robot_radius, None, 0.99 * _MARGIN * cell)
    require_in_range("largest_obstacle", params.largest_obstacle, params.smallest_obstacle, (0.5 - _MARGIN) * cell)


def draw_arena(key: jax.Array, obstacles: int, params: NavigationParams) -> NavigationState:
    """A start, a goal and K obstacles in different cells; see `make_navigation`."""
    cell_key, place_key, size_key, heading_key = jax.random.split(key, 4)
    cell = params.side / CELLS
    centres = jnp.asarray(_centres(), jnp.float32) * cell
    noise, numbers = jax.random.uniform(cell_key, (3, CELLS**2), jnp.float32), jnp.arange(CELLS**2)

    # The cell with the greatest of equal, independent numbers is uniform, among all cells or among those allowed.
    start = jnp.argmax(noise[0])
    away = jnp.sum(jnp.square(centres - centres[start]), axis=-1) >= jnp.square(0.5 * params.side)
    goal = jnp.argmax(jnp.where(away, noise[1], -1.0))
    left = jnp.where((numbers == start) | (numbers == goal), -1.0, noise[2])
    _, chosen = jax.lax.top_k(left, obstacles)

    shift = jax.random.uniform(place_key, (obstacles + 2, 2), jnp.float32, -1.0, 1.0)
    radii = jax.random.uniform(size_key, (obstacles,), jnp.float32)
    radii = params.smallest_obstacle + radii * (params.largest_obstacle - params.smallest_obstacle)
    middles = centres[chosen] + shift[2:] * ((0.5 - _MARGIN) * cell - radii[:, None])
    # The robot stands off the walls and off the edge of its cell, so it touches nothing at the start.
    ends = centres[jnp.stack([start, goal])] + shift[:2] * ((0.5 - _MARGIN) * cell)
    zero = jnp.zeros((), jnp.float32)
    return NavigationState(
        position=ends[0],
        heading=jax.random.uniform(heading_key, (), jnp.float32, -math.pi, math.pi),
        speed=zero,
        turn=zero,
        goal=ends[1],
        obstacles=jnp.concatenate([middles, radii[:, None]], axis=-1),
        start_distance=norm(ends[1] - ends[0]),
        way=zero,
        hit=jnp.zeros((), jnp.bool_),
        arrived=jnp.zeros((), jnp.bool_),
    )


def _centres() -> np.ndarray:
    """The centres of the cells, `[25, 2]`, in units of a cell's side."""
    along = np.arange(CELLS) - (CELLS - 1) / 2
    return np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)


def norm(vector: jax.Array) -> jax.Array:
    """The Euclidean length over the last axis."""
    return jnp.sqrt(jnp.sum(jnp.square(vector), axis=-1))


def distance_to_goal(state: NavigationState) -> jax.Array:
    """d, m."""
    return norm(state.goal - state.position)


def drive(state: NavigationState, action: jax.Array, params: NavigationParams) -> NavigationState:
    """The state after one step with an action in [−1, 1]; see `make_navigation`."""
    time = params.time_step
    change = lambda now, wanted, most: now + jnp.clip(wanted - now, -most * time, most * time)
    speed = change(state.speed, params.max_speed * action[0], params.acceleration)
    turn = change(state.turn, params.max_turn * action[1], params.turn_acceleration)
    half = 0.5 * turn * time
    # jnp.sinc is sin(πz)/(πz).
    chord = speed * time * jnp.sinc(half / jnp.pi)
    middle = state.heading + half
    position = state.position + chord * jnp.stack([jnp.cos(middle), jnp.sin(middle)])

    hit = _touches(state.position, position, state.obstacles, params)
    moved = state._replace(
        position=position,
        heading=_wrapped(middle + half),
        speed=speed,
        turn=turn,
        way=state.way + jnp.abs(speed) * time,
        hit=hit,
        arrived=norm(state.goal - position) <= params.goal_radius,
    )
    stopped = state._replace(speed=jnp.zeros_like(speed), turn=jnp.zeros_like(turn), hit=hit)
    return jax.tree.map(lambda a, b: jnp.where(hit, a, b), stopped, moved)


def _wrapped(angle: jax.Array) -> jax.Array:
    """The angle in [−π, π)."""
    return jnp.mod(angle + jnp.pi, 2.0 * jnp.pi) - jnp.pi


def _touches(start: jax.Array, end: jax.Array, obstacles: jax.Array, params: NavigationParams) -> jax.Array:
    """Whether the robot touches an obstacle on the way from `start` to `end`, or a wall at the end."""
    way, to_middle = end - start, obstacles[:, :2] - start
    # The point of the way that is nearest to the middle of each obstacle.
    share = jnp.clip(to_middle @ way / jnp.maximum(jnp.sum(jnp.square(way)), 1e-12), 0.0, 1.0)
    near = norm(to_middle - share[:, None] * way) < obstacles[:, 2] + params.robot_radius
    return jnp.any(near) | jnp.any(jnp.abs(end) > 0.5 * params.side - params.robot_radius)


def lidar(state: NavigationState, directions: jax.typing.ArrayLike, params: NavigationParams) -> jax.Array:
    """What beams in `directions` from the heading `[n]`, rad, see: the distance to the first wall or obstacle, m."""
    angles = state.heading + jnp.asarray(directions, jnp.float32)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    towards = state.obstacles[:, :2] - state.position
    along = cos[:, None] * towards[:, 0] + sin[:, None] * towards[:, 1]
    root = jnp.square(along) - jnp.sum(jnp.square(towards), axis=-1) + jnp.square(state.obstacles[:, 2])
    to_disc = along - jnp.sqrt(jnp.maximum(root, 0.0))
    discs = jnp.where((root >= 0.0) & (to_disc >= 0.0), to_disc, jnp.inf)

    # The wall ahead in x lies at ± half of the side, and likewise in y.
    walls = [
        (0.5 * params.side - jnp.sign(u) * p) / jnp.maximum(jnp.abs(u), 1e-6)
        for u, p in ((cos, state.position[0]), (sin, state.position[1]))
    ]
    first = jnp.minimum(jnp.min(discs, axis=-1), jnp.minimum(*walls))
    return jnp.clip(first, 0.0, params.beam_range)
