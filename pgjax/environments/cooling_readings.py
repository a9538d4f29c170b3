"""Observations and actions of the data-centre hall in physical units, and their scales."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from pgjax.types import PyTree

# Middle and scale: an observed number or an action is (value − middle) / scale. The scales of the actions let a
# Gaussian policy of standard deviation 1 begin with moderate noise.
SETPOINT, FAN = (21.0, 2.0), (0.65, 0.35 / 3.0)
LARGEST_ACTION = 3.0
COOL, HOT, MASS, OUTDOOR, UTILISATION = (23.0, 4.0), (36.0, 4.0), (42.0, 6.0), (20.0, 7.0), (0.55, 0.3)


class Readings(NamedTuple):
    """An observation in physical units: temperatures in °C, the rest as in `CoolingParams`."""

    inlet: PyTree
    hot: PyTree
    mass: PyTree
    supply: PyTree
    former_inlet: PyTree
    utilisation: PyTree
    outdoor: PyTree
    falling: PyTree
    setpoint: PyTree
    fan: PyTree


_SCALES = Readings(
    inlet=COOL,
    hot=HOT,
    mass=MASS,
    supply=COOL,
    former_inlet=COOL,
    utilisation=UTILISATION,
    outdoor=OUTDOOR,
    falling=(0.0, 1.0),
    setpoint=SETPOINT,
    fan=FAN,
)


def readings(obs: jax.Array) -> Readings:
    """The observation `[10]` in physical units.

    Example:
        >>> import jax
        >>> from pgjax import environments
        >>> from pgjax.environments.cooling_readings import readings
        >>> environment = environments.make("cooling")
        >>> state, obs = environment.reset(jax.random.key(0), environment.params)
        >>> abs(float(readings(obs).inlet - state.temperatures[0])) < 1e-4
        True
    """
    return Readings(*(middle + scale * obs[i] for i, (middle, scale) in enumerate(_SCALES)))


def action_of(setpoint: jax.typing.ArrayLike, fan: jax.typing.ArrayLike) -> jax.Array:
    """The action `[2]` for a setpoint in °C and a fan ratio; values out of range give the nearest action."""
    parts = ((value - middle) / scale for value, (middle, scale) in ((setpoint, SETPOINT), (fan, FAN)))
    return jnp.clip(jnp.stack([jnp.asarray(part, jnp.float32) for part in parts]), -LARGEST_ACTION, LARGEST_ACTION)


def controls(action: jax.Array) -> tuple[jax.Array, jax.Array]:
    """T_set in °C and φ of an action in [−3, 3]."""
    return SETPOINT[0] + SETPOINT[1] * action[0], FAN[0] + FAN[1] * action[1]


def scaled(seen: Readings) -> jax.Array:
    """The observation `[10]` of readings."""
    return jnp.stack([(value - middle) / scale for value, (middle, scale) in zip(seen, _SCALES)])
