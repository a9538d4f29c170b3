"""Experts that compute their action from the observation: controllers of robots, and the shortest way in a maze."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_in_range, require_integer
from pgjax._doors import readable
from pgjax.environments.maze_drawing import neighbours_of, steps_to_goal
from pgjax.environments.navigation_arena import NavigationParams
from pgjax.imitation.experts import Expert, from_log_probs


@readable
def potential_field(
    *,
    beams: int = 16,
    repulsion: float = 0.1,
    influence: float = 1.0,
    turn_gain: float = 2.0,
    params: NavigationParams | None = None,
) -> Expert:
    """A controller of `navigation` that follows a potential field: the goal attracts, and what the lidar sees repels.

    In the robot's frame g is the unit vector to the goal, u_i the direction of beam i, and s_i the length of the beam
    minus the robot's radius. The force and the action are

        F = g − k_r (2π/n) Σ_{i: s_i < s_0} (1/s_i − 1/s_0) / s_i² · u_i,      α = the angle of F from straight ahead,
        ω = clip(k_ω α, ±ω_max),      v = v_max max(cos α, 0).

    A field has places where F vanishes or turns back and forth; there the robot waits until the horizon. So it does
    not always arrive.

    Args:
        beams: n, the number of beams of the environment.
        repulsion: k_r ≥ 0, m².
        influence: s_0 > 0, the distance below which the field repels, m.
        turn_gain: k_ω > 0, 1/s.
        params: the parameters of the environment; None takes `NavigationParams()`.

    Returns:
        A deterministic expert whose action is `[2]`, float32.

    Raises:
        ValueError: for a number out of its range.

    Source: Khatib (1986), "Real-time obstacle avoidance for manipulators and mobile robots".

    Example: the goal is straight ahead and nothing is near, so the robot drives as fast as it can.

        >>> import jax, jax.numpy as jnp
        >>> from pgjax import imitation
        >>> expert = imitation.potential_field(beams=4)
        >>> obs = jnp.array([0.5, 1.0, 0.0, 1.0, 0.0, 1.0, 1.0, 1.0, 1.0])
        >>> expert.act(jax.random.key(0), obs).tolist()
        [1.0, 0.0]
    """
    require_integer("beams", beams, 1, None)
    require_in_range("repulsion", repulsion, 0.0, None)
    require_in_range("influence", influence, 1e-6, None)
    require_in_range("turn_gain", turn_gain, 1e-6, None)
    params = NavigationParams() if params is None else params
    angles = 2.0 * math.pi * np.arange(beams) / beams
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1).astype(np.float32)

    def act(key: jax.Array, obs: jax.Array) -> jax.Array:
        del key
        space = jnp.maximum(obs[5:] * params.beam_range - params.robot_radius, 0.02)
        push = jnp.where(space < influence, (1.0 / space - 1.0 / influence) / jnp.square(space), 0.0)
        force = obs[1:3] - repulsion * 2.0 * math.pi / beams * (push @ directions)
        angle = jnp.arctan2(force[1], force[0])
        turn = jnp.clip(turn_gain * angle / params.max_turn, -1.0, 1.0)
        return jnp.stack([jnp.maximum(jnp.cos(angle), 0.0), turn]).astype(jnp.float32)

    return Expert(act=act)


@readable
def shortest_way() -> Expert:
    """The expert of `random_maze` with the full map, for any maze of any size: it takes a shortest way to the exit.

    It searches the observed walls breadth first from the exit and draws uniformly among the moves that come nearer. It
    is optimal without slip. On the exit, and where no way leads to it, all four moves are equally likely.

    Returns:
        An expert whose `log_probs` are known.

    Example: the return is minus the length of the shortest way.

        >>> import jax
        >>> from pgjax import environments, evaluation, imitation
        >>> maze = environments.make("random_maze", size=5, ends="corners")
        >>> policy = imitation.as_policy(imitation.shortest_way())
        >>> evaluation.evaluate(maze, policy, (), jax.random.key(0), num_episodes=10).mean
        -4.0
    """

    def log_probs(obs: jax.Array) -> jax.Array:
        walls, agent, goal = (obs[..., plane] > 0 for plane in range(3))
        distances = steps_to_goal(walls, jnp.argmax(goal)).ravel()
        reached = neighbours_of(walls)[jnp.argmax(agent)]
        nearer = distances[reached] < distances[jnp.argmax(agent)]
        return jnp.where(
            nearer.any(), jnp.where(nearer, -jnp.log(jnp.maximum(nearer.sum(), 1)), -jnp.inf), -math.log(4)
        )

    return from_log_probs(log_probs)
