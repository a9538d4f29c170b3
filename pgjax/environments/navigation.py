"""A robot that must drive to a goal between round obstacles, which it sees only through its lidar."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_traced, require_in_range, require_integer
from pgjax.types import Box, Environment, Step

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

    side: float = 10.0
    robot_radius: float = 0.2
    goal_radius: float = 0.3
    smallest_obstacle: float = 0.35
    largest_obstacle: float = 0.7
    max_speed: float = 1.0
    max_turn: float = 2.0
    acceleration: float = 2.0
    turn_acceleration: float = 8.0
    beam_range: float = 3.0
    time_step: float = 0.2
    time_cost: float = 0.01
    collision_cost: float = 5.0
    bonus: float = 5.0


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


def make_navigation(
    obstacles: int = 8,
    beams: int = 16,
    horizon: int = 150,
    end_at_collision: bool = True,
    params: NavigationParams | None = None,
) -> Environment:
    """Make a unicycle robot that drives to a goal in an arena with K disc obstacles, drawn anew for each episode.

    The action (a_1, a_2) is float32 `[2]`, clipped to [−1, 1]; it asks for the speed v_max a_1 and the turn ω_max a_2.
    v and ω move there as fast as the accelerations allow, and then hold for Δt, along an arc of a circle:

        θ' = θ + ω Δt,    (x, y)' = (x, y) + v Δt sinc(ω Δt / 2) (cos, sin)(θ + ω Δt / 2),    sinc z = sin z / z.

    A collision is a chord from (x, y) to (x, y)' that touches an obstacle enlarged by the robot's radius, or an end
    beyond a wall. It ends the episode; with `end_at_collision=False` the robot stays where it was, at rest. With d_t
    the distance to the goal,

        R_{t+1} = d_t − d_{t+1} − c_time − c_hit [collision] + bonus [arrival],

    so without costs and bonus the return is d_0 − d_T. Arrival ends the episode. Every episode needs at least
    (d_0 − goal radius)/(v_max Δt) steps.

    The arena is divided into 5 × 5 cells. The goal's cell is drawn among those whose centres are at least half of the
    arena's side away from that of the start, and the obstacles' cells among all others; each obstacle leaves 15 % of
    the side of its cell free at every edge. If the robot is narrower than the lanes that this leaves, every goal can
    be reached; `make_navigation` refuses other parameters. All draws take a fixed number of operations.

    The observation is float32 `[5 + n]`: the distance to the goal in units of the side, cos and sin of its bearing
    from the robot's heading, v / v_max, ω / ω_max, and what n beams in equal steps around the robot see, beginning
    straight ahead and counter-clockwise: the distance from the robot's centre to the first wall or obstacle, at most
    the range and in units of it. A beam from p in direction u meets a disc (c, r) at s = b − √(b² − |c − p|² + r²) with
    b = (c − p)·u, if the root is real and s ≥ 0.

    The metrics are `success` and `collision` (0 or 1), `distance` (to the goal, m), `speed` (|v|, m/s), and `detour`,
    the driven way divided by d_0, which is near 1 for straight ways if the robot has arrived.

    Args:
        obstacles: K, from 1 to 23.
        beams: n, at least 1.
        horizon: T, the greatest number of steps.
        end_at_collision: whether a collision ends the episode.
        params: the default parameters; None takes `NavigationParams()`.

    Raises:
        ValueError: for a number out of its range; the error names it.

    Source: the unicycle and its reward by progress are the common form of mobile-robot navigation, such as in Tai,
    Paolo and Liu (2017), "Virtual-to-real deep reinforcement learning: continuous control of mobile robots for mapless
    navigation". The arenas are this project's own.

    Example:
        >>> from pgjax import environments
        >>> environments.make("navigation", beams=8).observation_space.shape
        (13,)
    """
    require_integer("obstacles", obstacles, 1, CELLS**2 - 2)
    require_integer("beams", beams, 1, None)
    require_integer("horizon", horizon, 1, None)
    params = NavigationParams() if params is None else params
    require_possible(params)
    directions = 2.0 * np.pi * np.arange(beams) / beams

    def reset(key: jax.Array, params: NavigationParams) -> tuple[NavigationState, jax.Array]:
        state = draw_arena(key, obstacles, _float32(params))
        return state, observe(state, directions, _float32(params))

    def step(
        key: jax.Array, state: NavigationState, action: jax.Array, params: NavigationParams
    ) -> tuple[NavigationState, Step]:
        del key
        params = _float32(params)
        new = drive(state, jnp.clip(jnp.asarray(action, jnp.float32), -1.0, 1.0), params)
        before, after = _distance(state), _distance(new)
        event = jnp.where(new.hit, -params.collision_cost, jnp.where(new.arrived, params.bonus, 0.0))
        reward = before - after - params.time_cost + event
        terminated = new.arrived | new.hit if end_at_collision else new.arrived
        return new, Step(obs=observe(new, directions, params), reward=reward, terminated=terminated)

    low = (0.0, -1.0, -1.0, -1.0, -1.0, *(0.0,) * beams)
    return Environment(
        name="navigation",
        reset=reset,
        step=step,
        params=params,
        observation_space=Box(low=low, high=(math.sqrt(2.0), *(1.0,) * (4 + beams)), shape=(5 + beams,)),
        action_space=Box(low=-1.0, high=1.0, shape=(2,)),
        horizon=horizon,
        render=lambda state, obs, params: _render(state, obs, params, directions),
        metrics=_metrics,
    )


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


def _float32(params: NavigationParams) -> NavigationParams:
    return NavigationParams(*(jnp.asarray(p, jnp.float32) for p in params))


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
        start_distance=_norm(ends[1] - ends[0]),
        way=zero,
        hit=jnp.zeros((), jnp.bool_),
        arrived=jnp.zeros((), jnp.bool_),
    )


def _centres() -> np.ndarray:
    """The centres of the cells, `[25, 2]`, in units of a cell's side."""
    along = np.arange(CELLS) - (CELLS - 1) / 2
    return np.stack(np.meshgrid(along, along), axis=-1).reshape(-1, 2)


def _norm(vector: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(jnp.square(vector), axis=-1))


def _distance(state: NavigationState) -> jax.Array:
    return _norm(state.goal - state.position)


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
        arrived=_norm(state.goal - position) <= params.goal_radius,
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
    near = _norm(to_middle - share[:, None] * way) < obstacles[:, 2] + params.robot_radius
    return jnp.any(near) | jnp.any(jnp.abs(end) > 0.5 * params.side - params.robot_radius)


def lidar(state: NavigationState, directions: jax.Array, params: NavigationParams) -> jax.Array:
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


def observe(state: NavigationState, directions: jax.Array, params: NavigationParams) -> jax.Array:
    """The observation of a state, `[5 + n]`; see `make_navigation`."""
    towards, distance = state.goal - state.position, _distance(state)
    cos, sin = jnp.cos(state.heading), jnp.sin(state.heading)
    scale = jnp.maximum(distance, 1e-6)
    seen = [
        distance / params.side,
        (towards[0] * cos + towards[1] * sin) / scale,
        (towards[1] * cos - towards[0] * sin) / scale,
        state.speed / params.max_speed,
        state.turn / params.max_turn,
    ]
    return jnp.concatenate([jnp.stack(seen), lidar(state, directions, params) / params.beam_range])


def _metrics(state: NavigationState, obs: jax.Array, params: NavigationParams) -> dict[str, jax.Array]:
    del obs, params
    return {
        "success": state.arrived,
        "collision": state.hit,
        "distance": _distance(state),
        "speed": jnp.abs(state.speed),
        "detour": state.way / state.start_distance,
    }


def _render(state: NavigationState, obs: jax.Array, params: NavigationParams, directions: np.ndarray) -> np.ndarray:
    from pgjax.environments import robot_pictures

    position, heading = np.asarray(state.position), float(state.heading)
    reach = np.asarray(obs)[5:, None] * float(params.beam_range)
    return robot_pictures.arena(
        side=float(params.side),
        obstacles=state.obstacles,
        goal=state.goal,
        position=position,
        heading=heading,
        beam_ends=position + reach * np.stack([np.cos(heading + directions), np.sin(heading + directions)], axis=-1),
        goal_radius=float(params.goal_radius),
        robot_radius=float(params.robot_radius),
        hit=bool(state.hit),
    )
