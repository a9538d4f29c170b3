"""A robot that must drive to a goal between round obstacles, which it sees only through its lidar."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_integer
from pgjax.environments.navigation_arena import (
    CELLS,
    NavigationParams,
    NavigationState,
    distance_to_goal,
    draw_arena,
    drive,
    lidar,
    require_possible,
)
from pgjax.types import Box, Environment, Step


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
        before, after = distance_to_goal(state), distance_to_goal(new)
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


def _float32(params: NavigationParams) -> NavigationParams:
    return NavigationParams(*(jnp.asarray(p, jnp.float32) for p in params))


def observe(state: NavigationState, directions: jax.typing.ArrayLike, params: NavigationParams) -> jax.Array:
    """The observation of a state, `[5 + n]`; see `make_navigation`."""
    towards, distance = state.goal - state.position, distance_to_goal(state)
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
        "distance": distance_to_goal(state),
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
