"""The cooling of a data centre for a day: save power without overheating the servers."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax.environments.cooling_plant import (
    CoolingParams,
    integrate,
    load,
    plant,
    require_possible,
)
from pgjax.environments.cooling_readings import LARGEST_ACTION, Readings, action_of, controls, scaled
from pgjax.types import Box, Environment, Step

MINUTES = 1440
_JOULES_PER_KWH = 3.6e6


class CoolingState(NamedTuple):
    """The hall and what has happened since midnight.

    Attributes:
        temperatures: (T_c, T_h, T_m, T_s), `[4]`, °C.
        former_inlet: T_c one step ago, °C.
        noise: w, the part of the utilisation that is not the daily wave.
        time: the number of steps since midnight, int32.
        action: the last action, clipped to [−3, 3], `[2]`.
        server_energy, fan_energy, chiller_energy: since midnight, kWh.
        violation: the share of the last step in which T_c was above the limit.
        highest_inlet: the highest T_c since midnight, °C.
    """

    temperatures: jax.Array
    former_inlet: jax.Array
    noise: jax.Array
    time: jax.Array
    action: jax.Array
    server_energy: jax.Array
    fan_energy: jax.Array
    chiller_energy: jax.Array
    violation: jax.Array
    highest_inlet: jax.Array


def make_cooling(num_steps: int = 288, economiser: bool = False, params: CoolingParams | None = None) -> Environment:
    """Make a 1 MW data-centre hall whose supply temperature and fans are set for a day, from midnight to midnight.

    The hall has four temperatures (`cooling_plant`): T_c of the cold aisle, which the servers take in, T_h of the hot
    aisle, T_m of the servers and T_s of the supply air. The action (a_1, a_2) is float32 `[2]`, clipped to [−3, 3]:
    the setpoint T_set = 21 + 2 a_1 in [15, 27] °C and the fan ratio φ = 0.65 + 0.35 a_2 / 3 in [0.3, 1]. The
    disturbances are constant within a minute: with h the hour of the day,

        u = clip(0.55 + 0.3 sin(2π(h − 9)/24) + w, 0.05, 1),    w ← 0.98 w + 0.03 ε,    ε ~ N(0, 1),
        T_o = 20 + 7 sin(2π(h − 9)/24).

    The servers need the power P_IT = 1 MW · L with L = 0.4 + 0.6 u, and the airflow V̇_s = 69 m³/s · L · s, where
    s = clip(1 + 0.03 (T_c − 25), 0.8, 1.6); their own fans add the heat P_sfan = 30 kW · L · s³. The cooling units blow
    V̇_c = 100 m³/s · φ. What is missing recirculates from the hot aisle, r = max(V̇_s − V̇_c, 0) + 0.02 V̇_s, and what is
    too much bypasses the servers, b = max(V̇_c − V̇_s, 0) + 0.02 V̇_s. With Q = UA s^0.8 (T_m − T_c), where UA = 40 kW/K,

        C_m Ṫ_m = P_IT + P_sfan − Q,                                        C_m = 45 MJ/K,
        C_c Ṫ_c = ρ c_p [(V̇_c − b)(T_s − T_c) + r (T_h − T_c)],              C_c = 2.4 MJ/K,
        C_h Ṫ_h = ρ c_p V̇_s (T_c − T_h) + Q + U_w (T_o − T_h),               C_h = 2.4 MJ/K, U_w = 2 kW/K,
        τ_s Ṫ_s = max(T_set, T_ret − Q_max / (ρ c_p V̇_c)) − T_s,             τ_s = 90 s, Q_max = 1.4 MW,

    where T_ret = ((V̇_c − b) T_h + b T_s) / V̇_c is the temperature of the air that returns to the coil. The powers are
    P_fan = 60 kW · φ³ and P_chiller = Q_coil / COP(T_s) with Q_coil = ρ c_p V̇_c max(T_ret − T_s, 0). Warm supply air
    raises the COP, and slow fans save their cubic power; but too little air recirculates heat into the servers.

    Each step pays, with averages over the step and Δa the change of the clipped action,

        R_{t+1} = −((P_fan + P_chiller) / P_ref + λ max(0, T_c − 26.5 °C)² + λ₂ |Δa|²) / T,

    so that a return is minus the mean of a day, in units of P_ref = 200 kW. λ = 10/K² and λ₂ = 0.001. T_c above 27 °C
    is a violation; the cost begins 0.5 K below, because the best policy for a cost that began at 27 °C would live
    there. An episode is a day of T steps; nothing ends it early.

    The equations are integrated by Runge and Kutta's rule of fourth order with steps of 15 s. Over 16 days under random
    actions this differed from steps of 1 s by at most 0.008 K in T_c and 1e-6 in the day's PUE. Euler's rule with steps
    of 2.5 s, which evaluates the equations 1.5 times as often, differed by 0.16 K and 9e-5.

    The observation is float32 `[10]`, the numbers of `cooling_readings.Readings` minus fixed middles and divided by
    fixed scales, so that all are about 1: T_c, T_h, T_m, T_s, T_c one step ago, u, T_o, cos(2π(h − 9)/24), and the last
    T_set and φ. `cooling_readings.readings` inverts it. `cooling_controllers` holds reference controllers.

    The metrics are `pue`, the energy of servers, fans and chiller since midnight divided by that of the servers with
    their own fans (at the end of the day the day's PUE), `violation` (the share of the step
    with T_c above 27 °C; its mean is the day's share), `inlet` (T_c, °C) and `highest_inlet` (since midnight, °C).

    Args:
        num_steps: T, a divisor of 1440: 288 steps of five minutes, or 1440 of a minute.
        economiser: whether cold outdoor air replaces the chiller: P_chiller = 0 while T_o + 4 K < T_s.
        params: the default parameters; None takes `CoolingParams()`.

    Raises:
        ValueError: for a number out of its range; the error names it.

    Source: this project's own model of a hall, built from public parts: COP from Moore et al. (2005), "Making
    scheduling 'cool'"; inlet limit from ASHRAE's thermal guidelines (18 to 27 °C); the problem from Lazic et al.
    (2018), "Data center cooling using model-predictive control".

    Example:
        >>> from pgjax import environments
        >>> environments.make("cooling").horizon
        288
    """
    divisors = [n for n in range(1, MINUTES + 1) if MINUTES % n == 0 and MINUTES // n <= 60]
    if isinstance(num_steps, bool) or num_steps not in divisors:
        raise ValueError(f"num_steps must be a divisor of {MINUTES} from 24 to {MINUTES}, got {num_steps!r}")
    if not isinstance(economiser, bool):
        raise ValueError(f"economiser must be False or True, got {economiser!r}")
    params = CoolingParams() if params is None else params
    require_possible(params)

    def reset(key: jax.Array, params: CoolingParams) -> tuple[CoolingState, jax.Array]:
        params = _float32(params)
        state = _midnight(key, params)
        return state, observe(state, num_steps, params)

    def step(
        key: jax.Array, state: CoolingState, action: jax.Array, params: CoolingParams
    ) -> tuple[CoolingState, Step]:
        params, action = _float32(params), jnp.clip(action, -LARGEST_ACTION, LARGEST_ACTION).astype(jnp.float32)
        new, cost = _work(key, state, action, params, num_steps, economiser)
        change = params.change_cost * jnp.sum((action - state.action) ** 2)
        reward = -(cost + change) / num_steps
        return new, Step(obs=observe(new, num_steps, params), reward=reward, terminated=jnp.zeros((), jnp.bool_))

    return Environment(
        name="cooling",
        reset=reset,
        step=step,
        params=params,
        observation_space=Box(low=-math.inf, high=math.inf, shape=(len(Readings._fields),)),
        action_space=Box(low=-LARGEST_ACTION, high=LARGEST_ACTION, shape=(2,)),
        horizon=num_steps,
        render=lambda state, obs, params: _render(state, num_steps, params),
        metrics=_metrics,
    )


def observe(state: CoolingState, num_steps: int, params: CoolingParams) -> jax.Array:
    """The observation `[10]` of a state."""
    utilisation, outdoor, falling = _disturbances(state.noise, state.time * (MINUTES // num_steps), params)
    setpoint, fan = controls(state.action)
    cold, hot, mass, supply = (state.temperatures[i] for i in range(4))
    seen = Readings(
        inlet=cold,
        hot=hot,
        mass=mass,
        supply=supply,
        former_inlet=state.former_inlet,
        utilisation=utilisation,
        outdoor=outdoor,
        falling=falling,
        setpoint=setpoint,
        fan=fan,
    )
    return scaled(seen)


def _midnight(key: jax.Array, params: CoolingParams) -> CoolingState:
    """The start of a day: w has its stationary distribution, and the aisles fit the drawn supply temperature."""
    noise_key, supply_key = jax.random.split(key)
    # With memory 1 there is no stationary distribution, and w starts at 0.
    spread = params.utilisation_noise / jnp.sqrt(jnp.maximum(1.0 - params.utilisation_memory**2, 1e-6))
    spread = jnp.where(params.utilisation_memory < 1.0, spread, 0.0)
    noise = spread * jax.random.normal(noise_key, (), jnp.float32)
    low, high = params.start_low, params.start_high
    supply = low + (high - low) * jax.random.uniform(supply_key, (), jnp.float32)
    utilisation, _, _ = _disturbances(noise, jnp.int32(0), params)
    power = params.it_power * load(utilisation, params)
    hot = supply + params.it_power / (params.density * params.heat_capacity * params.server_airflow)
    zero = jnp.zeros((), jnp.float32)
    return CoolingState(
        temperatures=jnp.stack([supply, hot, supply + power / params.conductance, supply]),
        former_inlet=supply,
        noise=noise,
        time=jnp.zeros((), jnp.int32),
        action=action_of(supply, jnp.float32(0.8)),
        server_energy=zero,
        fan_energy=zero,
        chiller_energy=zero,
        violation=zero,
        highest_inlet=supply,
    )


def _disturbances(noise: jax.Array, minute: jax.Array, params: CoolingParams) -> tuple[jax.Array, jax.Array, jax.Array]:
    """u, T_o and cos(2π(h − 9)/24) in a minute of the day."""
    angle = 2.0 * jnp.pi * (minute.astype(jnp.float32) / MINUTES - 9.0 / 24.0)
    wave = params.utilisation_mean + params.utilisation_swing * jnp.sin(angle)
    outdoor = params.outdoor_mean + params.outdoor_swing * jnp.sin(angle)
    return jnp.clip(wave + noise, 0.05, 1.0), outdoor, jnp.cos(angle)


def _work(
    key: jax.Array, state: CoolingState, action: jax.Array, params: CoolingParams, num_steps: int, economiser: bool
) -> tuple[CoolingState, jax.Array]:
    """The state after a step, and the mean cost of power and violations, minute by minute."""
    minutes = MINUTES // num_steps
    setpoint, fan = controls(action)
    first = state.time * minutes

    def minute(carry: tuple, inputs: tuple) -> tuple[tuple, tuple]:
        temperatures, noise, highest = carry
        offset, draw = inputs
        utilisation, outdoor, _ = _disturbances(noise, first + offset, params)
        temperatures, totals, peak = integrate(
            temperatures, 60.0, setpoint, fan, utilisation, outdoor, params, economiser=economiser
        )
        noise = params.utilisation_memory * noise + params.utilisation_noise * draw
        return (temperatures, noise, jnp.maximum(highest, peak)), totals

    draws = jax.random.normal(key, (minutes,), jnp.float32)
    carry = (state.temperatures, state.noise, state.highest_inlet)
    carry, totals = jax.lax.scan(minute, carry, (jnp.arange(minutes), draws))
    totals = jax.tree.map(jnp.sum, totals)
    seconds = 60.0 * minutes
    power = (totals.fans + totals.chiller) / (seconds * params.power_unit)
    new = CoolingState(
        temperatures=carry[0],
        former_inlet=state.temperatures[0],
        noise=carry[1],
        time=state.time + 1,
        action=action,
        server_energy=state.server_energy + totals.servers / _JOULES_PER_KWH,
        fan_energy=state.fan_energy + totals.fans / _JOULES_PER_KWH,
        chiller_energy=state.chiller_energy + totals.chiller / _JOULES_PER_KWH,
        violation=totals.violation / seconds,
        highest_inlet=carry[2],
    )
    return new, power + params.violation_cost * totals.excess / seconds


def _metrics(state: CoolingState, obs: jax.Array, params: CoolingParams) -> dict[str, jax.Array]:
    del obs, params
    used = state.fan_energy + state.chiller_energy
    return {
        "pue": 1.0 + used / jnp.maximum(state.server_energy, 1e-6),
        "violation": state.violation,
        "inlet": state.temperatures[0],
        "highest_inlet": state.highest_inlet,
    }


def _float32(params: CoolingParams) -> CoolingParams:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)


def _render(state: CoolingState, num_steps: int, params: CoolingParams) -> np.ndarray:
    from pgjax.environments import hall_pictures

    state = jax.tree.map(np.asarray, state)
    params = _float32(params)
    minute = jnp.int32(state.time * (MINUTES // num_steps))
    utilisation, outdoor, _ = _disturbances(state.noise, minute, params)
    setpoint, fan = controls(state.action)
    now = plant(jnp.asarray(state.temperatures), setpoint, fan, utilisation, outdoor, params)
    return hall_pictures.hall(
        state.temperatures,
        hour=float(minute) / 60.0,
        setpoint=float(setpoint),
        fan=float(fan),
        utilisation=float(utilisation),
        outdoor=float(outdoor),
        chiller_kw=float(now.chiller) / 1e3,
        fan_kw=float(now.fans) / 1e3,
        limit=float(params.inlet_limit),
    )
