"""Reference controllers of the data-centre hall, as rules `(key, obs) → action` for policies and for experts.

`rules.rule_policy(controller)` is a policy for `evaluation`, and `imitation.Expert(act=controller)` an expert. All
temperatures are in °C.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from pgjax._checks import require_in_range
from pgjax.environments.cooling_plant import CoolingParams, server_flow
from pgjax.environments.cooling_readings import action_of, readings

Controller = Callable[[jax.Array, jax.Array], jax.Array]


def fixed(setpoint: ArrayLike, fan: ArrayLike) -> Controller:
    """The controller that never changes its setpoint and its fan ratio.

    Args:
        setpoint: T_set in [15, 27] °C.
        fan: φ in [0.3, 1].

    Example:
        >>> import jax, jax.numpy as jnp
        >>> from pgjax.environments.cooling_controllers import fixed
        >>> fixed(setpoint=24.0, fan=0.65)(jax.random.key(0), jnp.zeros(10)).tolist()
        [1.5, 0.0]
    """
    require_in_range("setpoint", setpoint, 15.0, 27.0)
    require_in_range("fan", fan, 0.3, 1.0)
    return lambda key, obs: action_of(setpoint, fan)


def pi_fan(
    setpoint: ArrayLike,
    target: ArrayLike,
    *,
    gain: ArrayLike = 0.02,
    integral_gain: ArrayLike = 0.02,
) -> Controller:
    """A proportional-integral loop on the fans that holds the inlet temperature: with e = T_c − target,

        φ_t = φ_{t−1} + K_p (e_t − e_{t−1}) + K_i e_t.

    In this incremental form the integral is part of the last action, which the observation holds, and it stops where
    the fans reach a bound.

    Args:
        setpoint: T_set in [15, 27] °C, constant.
        target: the wanted T_c, °C.
        gain, integral_gain: K_p and K_i in 1/K.
    """
    require_in_range("setpoint", setpoint, 15.0, 27.0)
    require_in_range("gain", gain, 0.0, None)
    require_in_range("integral_gain", integral_gain, 0.0, None)

    def act(key: jax.Array, obs: jax.Array) -> jax.Array:
        del key
        seen = readings(obs)
        change = gain * (seen.inlet - seen.former_inlet) + integral_gain * (seen.inlet - target)
        return action_of(jnp.asarray(setpoint), seen.fan + change)

    return act


def airflow_matching(
    setpoint: ArrayLike = 25.5, margin: ArrayLike = 1.02, params: CoolingParams | None = None
) -> Controller:
    """The controller that blows a little more air than the servers take, V̇_c = margin · V̇_s, at a constant setpoint.

    V̇_s is computed from the observed T_c and u with the hall's constants, which a real hall does not know exactly.

    Args:
        setpoint: T_set in [15, 27] °C.
        margin: V̇_c / V̇_s, above 0.
        params: the hall's constants; None takes `CoolingParams()`.
    """
    require_in_range("setpoint", setpoint, 15.0, 27.0)
    require_in_range("margin", margin, 0.0, None)
    known = CoolingParams() if params is None else params

    def act(key: jax.Array, obs: jax.Array) -> jax.Array:
        del key
        seen = readings(obs)
        needed, _ = server_flow(seen.inlet, seen.utilisation, known)
        return action_of(jnp.asarray(setpoint), margin * needed / known.airflow)

    return act
