"""CartPole, a cart that balances a pole, with Gymnasium's constants."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments import rendering
from pgjax.types import Box, Discrete, Environment, Step


class CartPoleParams(NamedTuple):
    """Constants of the cart and its pole; every leaf may be vmapped.

    Attributes:
        gravity: g, m/s².
        masscart, masspole: the masses of the cart and of the pole, kg.
        length: ℓ, half of the pole's length, m.
        force_mag: F, the size of the push, N.
        tau: τ, the time of one Euler step, s.
        theta_threshold_radians: the greatest angle that still counts as balanced, rad.
        x_threshold: the greatest distance from the middle of the track, m.
    """

    gravity: float = 9.8
    masscart: float = 1.0
    masspole: float = 0.1
    length: float = 0.5
    force_mag: float = 10.0
    tau: float = 0.02
    theta_threshold_radians: float = 12.0 * math.pi / 180.0
    x_threshold: float = 2.4


def make_cartpole(horizon: int = 500) -> Environment:
    """Make CartPole-v1: push a cart left or right so that the pole on it stays up.

    With m the mass of the pole, M the mass of cart and pole together, f = ±F and s = (f + mℓ θ̇² sin θ) / M,

        θ̈ = (g sin θ − s cos θ) / (ℓ (4/3 − m cos² θ / M)),    ẍ = s − mℓ θ̈ cos θ / M,

    integrated by one Euler step: x ← x + τ ẋ, ẋ ← ẋ + τ ẍ, θ ← θ + τ θ̇, θ̇ ← θ̇ + τ θ̈. The state is the
    observation X = (x, ẋ, θ, θ̇), float32 `[4]` in m, m/s, rad, rad/s; each number starts uniform in ±0.05. Action 0
    pushes to the left and action 1 to the right. Every step pays 1, and the episode ends when |θ| or |x| exceeds its
    threshold. The transition is deterministic, so `step` does not use its key.

    Args:
        horizon: T, the greatest number of steps. 500 is CartPole-v1, 200 is CartPole-v0.

    Raises:
        ValueError: if `horizon` is not a positive integer.

    Source: Barto, Sutton and Anderson (1983), appendix, without friction; Gymnasium's CartPole-v1.
    """
    if not isinstance(horizon, int) or horizon < 1:
        raise ValueError(f"horizon must be a positive integer, got {horizon!r}")
    bounds = (4.8, math.inf, 24.0 * math.pi / 180.0, math.inf)
    return Environment(
        name="CartPole-v1",
        reset=_reset,
        step=_step,
        params=CartPoleParams(),
        observation_space=Box(low=tuple(-b for b in bounds), high=bounds, shape=(4,)),
        action_space=Discrete(2),
        horizon=horizon,
        render=rendering.cartpole_of,
    )


def _reset(key: jax.Array, params: CartPoleParams) -> tuple[jax.Array, jax.Array]:
    del params
    obs = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
    return obs, obs


def _step(key: jax.Array, state: jax.Array, action: jax.Array, params: CartPoleParams) -> tuple[jax.Array, Step]:
    del key
    g, cart, m, length, force_mag, tau, theta_limit, x_limit = (jnp.asarray(p, jnp.float32) for p in params)
    x, x_dot, theta, theta_dot = (state[i] for i in range(4))
    total = cart + m
    cos, sin = jnp.cos(theta), jnp.sin(theta)

    force = jnp.where(action == 1, force_mag, -force_mag)
    s = (force + m * length * theta_dot**2 * sin) / total
    theta_acc = (g * sin - s * cos) / (length * (4.0 / 3.0 - m * cos**2 / total))
    x_acc = s - m * length * theta_acc * cos / total

    x, x_dot = x + tau * x_dot, x_dot + tau * x_acc
    theta, theta_dot = theta + tau * theta_dot, theta_dot + tau * theta_acc
    obs = jnp.stack([x, x_dot, theta, theta_dot])
    terminated = (jnp.abs(x) > x_limit) | (jnp.abs(theta) > theta_limit)
    return obs, Step(obs=obs, reward=jnp.ones((), jnp.float32), terminated=terminated)
