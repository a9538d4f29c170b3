"""A swimmer of n links in a viscous fluid: it has no legs and no wheels, and moves only by bending its body."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import require_in_range, require_integer
from pgjax.types import Box, Environment, PyTree, Step


class SwimmerParams(NamedTuple):
    """Constants of the swimmer, its fluid and its reward; every leaf may be vmapped.

    Attributes:
        mass: m > 0, the mass of one link, kg.
        length: ℓ > 0, the length of one link, m.
        drag_along: k_t ≥ 0, the drag along a link, for each metre of the link and each m/s, N s/m².
        drag_across: k_n ≥ 0, the same drag across a link. Swimming needs k_n ≠ k_t.
        max_torque: the greatest torque of a joint motor, N m.
        joint_limit: φ_max > 0, the angle of a joint at which its elastic stop begins, rad; 100°, as in Gymnasium.
        joint_stiffness: κ ≥ 0, the stiffness of the stops, N m/rad.
        control_cost: c ≥ 0, the weight of |A|² in the reward.
        time_step: Δt > 0, the time of one step, s.
        reset_noise: all angles and speeds start uniform in ± this number, rad and rad/s, or m/s.
    """

    mass: PyTree = 1.0
    length: PyTree = 1.0
    drag_along: PyTree = 0.2
    drag_across: PyTree = 4.0
    max_torque: PyTree = 2.0
    joint_limit: PyTree = math.radians(100.0)
    joint_stiffness: PyTree = 20.0
    control_cost: PyTree = 1e-4
    time_step: PyTree = 0.05
    reset_noise: PyTree = 0.1


class SwimmerState(NamedTuple):
    """Where the swimmer is and how it moves, float32.

    Attributes:
        position, velocity: r and ṙ, the centre of mass, `[2]`, m and m/s.
        angles, rates: θ and θ̇, the directions of the links, `[n]`, rad and rad/s.
    """

    position: jax.Array
    angles: jax.Array
    velocity: jax.Array
    rates: jax.Array


_LOWEST = {
    "drag_along": 0.0,
    "drag_across": 0.0,
    "joint_stiffness": 0.0,
    "control_cost": 0.0,
    "reset_noise": 0.0,
}


def make_swimmer(
    links: int = 3, horizon: int = 1000, substeps: int = 2, params: SwimmerParams | None = None
) -> Environment:
    """Make a swimmer of n equal links in a plane, which swims along x by turning its n − 1 joints.

    θ_i is the direction of link i, u_i = (cos θ_i, sin θ_i) and n_i = (−sin θ_i, cos θ_i). The coordinates are r, the
    centre of mass, and θ. Link i has its centre at r_i = r + ℓ Σ_j A_ij u_j with constant A, so the kinetic energy has
    no product of ṙ and θ̇. With I = mℓ²/12 and K = AᵀA,

        2 E = n m |ṙ|² + Σ_jk M_jk θ̇_j θ̇_k,          M_jk = mℓ² K_jk cos(θ_j − θ_k) + I δ_jk,
        n m r̈ = Σ_i F_i,                              F_i = −ℓ (k_t (ṙ_i·u_i) u_i + k_n (ṙ_i·n_i) n_i),
        Σ_k M_jk θ̈_k = −mℓ² Σ_k K_jk sin(θ_j − θ_k) θ̇_k² + ℓ Σ_i A_ij F_i·n_j − k_n ℓ³ θ̇_j / 12 + τ_{j−1} − τ_j,

    which are Lagrange's equations. F_i is the drag of the fluid on link i, and its torque is k_n ℓ³ θ̇_i / 12. Joint i
    has the angle φ_i = θ_{i+1} − θ_i and the torque τ_i = τ_max clip(A_i, −1, 1) − κ sign(φ_i) max(|φ_i| − φ_max, 0),
    the motor's and that of an elastic stop (τ_0 = τ_n = 0). Each step integrates them over Δt by `substeps` steps of
    the Runge–Kutta method of order 4. With Δt = 0.05 s and two of them, the error of a step is near the rounding error
    of float32, as a test shows.

    The action is float32 `[n − 1]`, clipped to [−1, 1]. The reward is that of Gymnasium's Swimmer-v5, with the centre
    of mass in place of the tip: R_{t+1} = (x_{t+1} − x_t)/Δt − c |clip(A_t)|². Only the horizon ends an episode. The
    observation is float32 `[2n + 3]`: cos θ_1, sin θ_1, φ_1 … φ_{n−1}, ẋ, ẏ, θ̇_1, φ̇_1 … φ̇_{n−1}; it leaves out where
    the swimmer is. The swimmer starts nearly straight along x and nearly at rest; steps are deterministic.

    The metrics are `distance` (x, m, as the swimmer starts at 0), `sideways` (y, m), `speed` (ẋ, m/s) and `bend` (the
    greatest |φ_i|, rad).

    Args:
        links: n, from 2 to 12.
        horizon: T, the number of steps.
        substeps: the number of integration steps in one step.
        params: the default parameters; None takes `SwimmerParams()`.

    Raises:
        ValueError: for a number out of its range; the error names it.

    Source: Coulom (2002), "Reinforcement learning using neural networks, with applications to motor control", for the
    swimmer; Gymnasium's Swimmer-v5 for the reward and the starts.

    Example:
        >>> from pgjax import environments
        >>> environments.make("swimmer", links=4).action_space
        Box(-1.0, 1.0, shape=(3,))
    """
    require_integer("links", links, 2, 12)
    require_integer("horizon", horizon, 1, None)
    require_integer("substeps", substeps, 1, None)
    params = SwimmerParams() if params is None else params
    for name, value in params._asdict().items():
        require_in_range(name, value, _LOWEST.get(name, 1e-6), None)

    def reset(key: jax.Array, params: SwimmerParams) -> tuple[SwimmerState, jax.Array]:
        noise = jnp.asarray(params.reset_noise, jnp.float32)
        drawn = noise * jax.random.uniform(key, (2 * links + 2,), jnp.float32, -1.0, 1.0)
        angles, velocity, rates = jnp.split(drawn, (links, links + 2))
        state = SwimmerState(position=jnp.zeros(2), angles=angles, velocity=velocity, rates=rates)
        return state, observe(state)

    def step(
        key: jax.Array, state: SwimmerState, action: jax.Array, params: SwimmerParams
    ) -> tuple[SwimmerState, Step]:
        del key
        params = SwimmerParams(*(jnp.asarray(p, jnp.float32) for p in params))
        action = jnp.clip(jnp.asarray(action, jnp.float32), -1.0, 1.0)
        new = advance(state, params.max_torque * action, params, substeps)
        forward = (new.position[0] - state.position[0]) / params.time_step
        reward = forward - params.control_cost * jnp.sum(jnp.square(action))
        return new, Step(obs=observe(new), reward=reward, terminated=jnp.zeros((), jnp.bool_))

    return Environment(
        name="swimmer",
        reset=reset,
        step=step,
        params=params,
        observation_space=Box(low=-math.inf, high=math.inf, shape=(2 * links + 3,)),
        action_space=Box(low=-1.0, high=1.0, shape=(links - 1,)),
        horizon=horizon,
        render=_render,
        metrics=_metrics,
    )


def observe(state: SwimmerState) -> jax.Array:
    """The observation of a state, `[2n + 3]`; see `make_swimmer`."""
    first, rates = state.angles[:1], state.rates
    heading = jnp.concatenate([jnp.cos(first), jnp.sin(first)])
    return jnp.concatenate([heading, jnp.diff(state.angles), state.velocity, rates[:1], jnp.diff(rates)])


def _metrics(state: SwimmerState, obs: jax.Array, params: SwimmerParams) -> dict[str, jax.Array]:
    del obs, params
    return {
        "distance": state.position[0],
        "sideways": state.position[1],
        "speed": state.velocity[0],
        "bend": jnp.max(jnp.abs(jnp.diff(state.angles))),
    }


def _render(state: SwimmerState, obs: jax.Array, params: SwimmerParams) -> np.ndarray:
    from pgjax.environments import robot_pictures

    return robot_pictures.swimmer(link_ends(np.asarray(state.position), np.asarray(state.angles), float(params.length)))


def chain(links: int) -> np.ndarray:
    """A `[n, n]` in r_i = r + ℓ Σ_j A_ij u_j, the centres of the links from their centre of mass."""
    from_tail = np.tril(np.ones((links, links)), -1) + 0.5 * np.eye(links)
    return from_tail - from_tail.mean(axis=0)


def link_ends(position: np.ndarray, angles: np.ndarray, length: float) -> np.ndarray:
    """The ends of the links from tail to head, `[n + 1, 2]`, m."""
    directions = length * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    along = np.concatenate([np.zeros((1, 2)), np.cumsum(directions, axis=0)])
    return position + along - 0.5 * (along[1:] + along[:-1]).mean(axis=0)


def energy(state: SwimmerState, params: SwimmerParams) -> jax.Array:
    """The kinetic energy of the links and the elastic energy of the stops, J."""
    links = len(state.angles)
    inertia = _inertia(jnp.cos(state.angles[:, None] - state.angles), params)
    kinetic = links * params.mass * jnp.sum(jnp.square(state.velocity)) + state.rates @ inertia @ state.rates
    beyond = jnp.maximum(jnp.abs(jnp.diff(state.angles)) - params.joint_limit, 0.0)
    return 0.5 * (kinetic + params.joint_stiffness * jnp.sum(jnp.square(beyond)))


def advance(state: SwimmerState, torques: jax.Array, params: SwimmerParams, substeps: int) -> SwimmerState:
    """The state after Δt with constant motor torques `[n − 1]`, by `substeps` Runge–Kutta steps of order 4."""
    h = jnp.asarray(params.time_step / substeps, state.angles.dtype)
    slope = lambda now: _slope(now, torques, params)
    moved = lambda now, slope, time: jax.tree.map(lambda x, dx: x + time * dx, now, slope)

    # The four stages are a loop, too, so that a program has one copy of `_slope` to compile instead of four.
    shares, weights = jnp.array([0.0, 0.5, 0.5, 1.0], h.dtype), jnp.array([1.0, 2.0, 2.0, 1.0], h.dtype) / 6.0

    def one(_: int, now: SwimmerState) -> SwimmerState:
        def stage(index: jax.Array, sums: tuple[SwimmerState, SwimmerState]) -> tuple[SwimmerState, SwimmerState]:
            last, mean = sums
            new = slope(moved(now, last, shares[index] * h))
            return new, moved(mean, new, weights[index])

        nothing = jax.tree.map(jnp.zeros_like, now)
        return moved(now, jax.lax.fori_loop(0, 4, stage, (nothing, nothing))[1], h)

    return jax.lax.fori_loop(0, substeps, one, state)


def _inertia(cos: jax.Array, params: SwimmerParams) -> jax.Array:
    """M `[n, n]` from cos(θ_j − θ_k)."""
    arms = chain(len(cos))
    own = jnp.eye(len(cos), dtype=cos.dtype) / 12.0
    return params.mass * params.length**2 * (jnp.asarray(arms.T @ arms, cos.dtype) * cos + own)


def _slope(state: SwimmerState, torques: jax.Array, params: SwimmerParams) -> SwimmerState:
    """The time derivative of the state, from the equations of `make_swimmer`."""
    _, angles, velocity, rates = state
    links, length = len(angles), params.length
    arms = jnp.asarray(chain(links), angles.dtype)
    cos, sin = jnp.cos(angles), jnp.sin(angles)
    along, across = jnp.stack([cos, sin], axis=-1), jnp.stack([-sin, cos], axis=-1)

    speeds = velocity + length * arms @ (rates[:, None] * across)
    slip = params.drag_along * jnp.sum(speeds * along, axis=-1, keepdims=True) * along
    slip = slip + params.drag_across * jnp.sum(speeds * across, axis=-1, keepdims=True) * across
    drag = -length * slip

    bend = jnp.diff(angles)
    stops = -params.joint_stiffness * jnp.sign(bend) * jnp.maximum(jnp.abs(bend) - params.joint_limit, 0.0)
    joints = jnp.pad(torques + stops, 1)
    # cos and sin of θ_j − θ_k from those of θ: three pairs of them are cheaper than nine.
    inertia = _inertia(cos[:, None] * cos + sin[:, None] * sin, params)
    swing = params.mass * length**2 * (arms.T @ arms) * (sin[:, None] * cos - cos[:, None] * sin)
    turning = length * jnp.sum((arms.T @ drag) * across, axis=-1) - params.drag_across * length**3 / 12.0 * rates
    moments = turning - swing @ jnp.square(rates) + joints[:-1] - joints[1:]
    return SwimmerState(
        position=velocity,
        angles=rates,
        velocity=jnp.sum(drag, axis=0) / (links * params.mass),
        rates=jnp.stack(_solve(inertia, moments)),
    )


def _solve(matrix: jax.Array, right: jax.Array) -> list[jax.Array]:
    """The numbers of x in M x = b for a symmetric, positive definite M `[n, n]`, by M = L D Lᵀ.

    The elimination is written out in scalars. For n = 3 it makes a step 2.5 times as fast as `jnp.linalg.solve`, which
    calls a library for every matrix of a batch.
    """
    n = len(right)
    lower: list[list[PyTree]] = [[None] * n for _ in range(n)]
    pivots = []
    for j in range(n):
        inner = lambda i: sum((lower[i][k] * lower[j][k] * pivots[k] for k in range(j)), 0.0)
        pivots.append(matrix[j, j] - inner(j))
        for i in range(j + 1, n):
            lower[i][j] = (matrix[i, j] - inner(i)) / pivots[j]
    x: list[jax.Array] = [right[i] for i in range(n)]
    for i in range(n):
        x[i] = x[i] - sum((lower[i][k] * x[k] for k in range(i)), 0.0)
    x = [x[i] / pivots[i] for i in range(n)]
    for i in reversed(range(n)):
        x[i] = x[i] - sum((lower[k][i] * x[k] for k in range(i + 1, n)), 0.0)
    return x
