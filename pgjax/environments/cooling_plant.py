"""The air, the servers and the powers of a data-centre hall: differential equations and their integration.

Temperatures are in °C, airflows in m³/s, powers in W, times in s. T_c is the cold aisle, whose air enters the servers,
T_h the hot aisle, T_m the mass of the servers, and T_s the supply air behind the cooling coil.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from pgjax._checks import is_traced, require_in_range

# The greatest sub-step of the integration, s. `make_cooling` gives the error that it causes.
LONGEST_SUBSTEP = 15.0


class CoolingParams(NamedTuple):
    """Constants of the hall, its disturbances and the reward; every leaf may be vmapped.

    Attributes:
        it_power: P_full, the power of the servers at full utilisation, W.
        idle: the share of P_full and of the servers' airflow that is left at utilisation 0.
        server_airflow: m³/s at full utilisation and T_c = 25 °C.
        server_fan_power: of the fans inside the servers, under the same conditions, W.
        airflow: that of the cooling units at fan ratio 1, m³/s.
        fan_power: that of the cooling units at fan ratio 1, W.
        conductance: UA between the servers and their air, W/K.
        mass_capacity, cold_capacity, hot_capacity: C_m, C_c and C_h, J/K.
        wall_conductance: U_w between the hot aisle and outdoors, W/K.
        supply_time: τ_s, the time constant of the supply air, s.
        coil_power: Q_max, the greatest heat that the coil takes, W.
        leak: the share of the servers' airflow that recirculates and bypasses even if the airflows match.
        density, heat_capacity: ρ in kg/m³ and c_p in J/(kg K) of air.
        utilisation_mean, utilisation_swing: the mean and the amplitude of the daily wave of u.
        utilisation_memory, utilisation_noise: w ← memory · w + noise · ε once a minute.
        outdoor_mean, outdoor_swing: the mean and the amplitude of the outdoor temperature, °C and K.
        economiser_approach: with an economiser, the chiller is off if T_o + approach < T_s, K.
        start_low, start_high: the supply temperature at midnight is uniform between these, °C.
        inlet_limit: the highest T_c that is no violation, °C.
        power_unit: P_ref, the power that costs 1 if it is used for a day, W.
        margin: the cost of violations begins this far below the limit, K.
        violation_cost: λ, the cost of a day at 1 K above the limit minus the margin.
        change_cost: λ₂, the cost of moving an action by 1 at every step of a day.
    """

    it_power: float = 1e6
    idle: float = 0.4
    server_airflow: float = 69.0
    server_fan_power: float = 3e4
    airflow: float = 100.0
    fan_power: float = 6e4
    conductance: float = 4e4
    mass_capacity: float = 4.5e7
    cold_capacity: float = 2.4e6
    hot_capacity: float = 2.4e6
    wall_conductance: float = 2e3
    supply_time: float = 90.0
    coil_power: float = 1.4e6
    leak: float = 0.02
    density: float = 1.2
    heat_capacity: float = 1005.0
    utilisation_mean: float = 0.55
    utilisation_swing: float = 0.3
    utilisation_memory: float = 0.98
    utilisation_noise: float = 0.03
    outdoor_mean: float = 20.0
    outdoor_swing: float = 7.0
    economiser_approach: float = 4.0
    start_low: float = 18.0
    start_high: float = 24.0
    inlet_limit: float = 27.0
    power_unit: float = 2e5
    margin: float = 0.5
    violation_cost: float = 10.0
    change_cost: float = 0.001


class Outputs(NamedTuple):
    """What the plant does at one moment.

    Attributes:
        rates: the time derivatives of (T_c, T_h, T_m, T_s), `[4]`, K/s.
        it, server_fans, fans, chiller: powers, W. The servers' energy in a PUE is `it` and `server_fans` together.
        coil: Q_coil, the heat that the coil takes from the air, W.
        wall: U_w (T_o − T_h), the heat that comes in through the wall, W.
    """

    rates: jax.Array
    it: jax.Array
    server_fans: jax.Array
    fans: jax.Array
    chiller: jax.Array
    coil: jax.Array
    wall: jax.Array


class Totals(NamedTuple):
    """Integrals over time.

    Attributes:
        servers, fans, chiller: energies, J; those of the servers include their own fans.
        excess: ∫ max(0, T_c − limit + margin)² dt, K² s.
        violation: ∫ [T_c > limit] dt, s.
    """

    servers: jax.Array
    fans: jax.Array
    chiller: jax.Array
    excess: jax.Array
    violation: jax.Array


def cop(supply: jax.Array) -> jax.Array:
    """COP(T_s) = 0.0068 T_s² + 0.0008 T_s + 0.458, the heat that the chiller moves for each joule of work.

    Source: Moore, Chase, Ranganathan and Sharma (2005), "Making scheduling 'cool'", the chilled water of HP's Utility
    Data Center.
    """
    return 0.0068 * supply**2 + 0.0008 * supply + 0.458


def server_flow(inlet: jax.Array, utilisation: jax.Array, params: CoolingParams) -> tuple[jax.Array, jax.Array]:
    """V̇_s in m³/s and the speed s of the servers' fans, which turn faster in warm air."""
    speed = jnp.clip(1.0 + 0.03 * (inlet - 25.0), 0.8, 1.6)
    return params.server_airflow * load(utilisation, params) * speed, speed


def load(utilisation: jax.Array, params: CoolingParams) -> jax.Array:
    """idle + (1 − idle) u, the servers' power as a share of P_full."""
    return params.idle + (1.0 - params.idle) * utilisation


def plant(
    temperatures: jax.Array,
    setpoint: jax.Array,
    fan: jax.Array,
    utilisation: jax.Array,
    outdoor: jax.Array,
    params: CoolingParams,
    economiser: bool = False,
) -> Outputs:
    """The rates of the temperatures (T_c, T_h, T_m, T_s) `[4]` and all powers; `make_cooling` has the equations."""
    cold, hot, mass, supply = (temperatures[i] for i in range(4))
    per_kelvin = params.density * params.heat_capacity
    needed, speed = server_flow(cold, utilisation, params)
    blown = params.airflow * fan
    leak = params.leak * needed
    recirculation = jnp.maximum(needed - blown, 0.0) + leak
    bypass = jnp.maximum(blown - needed, 0.0) + leak

    share = load(utilisation, params)
    it, server_fans = params.it_power * share, params.server_fan_power * share * speed**3
    heat = params.conductance * speed**0.8 * (mass - cold)
    wall = params.wall_conductance * (outdoor - hot)
    returned = ((blown - bypass) * hot + bypass * supply) / blown
    coil = per_kelvin * blown * jnp.maximum(returned - supply, 0.0)
    chiller = coil / cop(supply)
    if economiser:
        chiller = jnp.where(outdoor + params.economiser_approach < supply, 0.0, chiller)
    reachable = jnp.maximum(setpoint, returned - params.coil_power / (per_kelvin * blown))
    into_cold = per_kelvin * ((blown - bypass) * (supply - cold) + recirculation * (hot - cold))
    rates = (
        into_cold / params.cold_capacity,
        (per_kelvin * needed * (cold - hot) + heat + wall) / params.hot_capacity,
        (it + server_fans - heat) / params.mass_capacity,
        (reachable - supply) / params.supply_time,
    )
    return Outputs(
        rates=jnp.stack(rates),
        it=it,
        server_fans=server_fans,
        fans=params.fan_power * fan**3,
        chiller=chiller,
        coil=coil,
        wall=wall,
    )


def integrate(
    temperatures: jax.Array,
    seconds: float,
    setpoint: jax.Array,
    fan: jax.Array,
    utilisation: jax.Array,
    outdoor: jax.Array,
    params: CoolingParams,
    *,
    economiser: bool = False,
    longest: float = LONGEST_SUBSTEP,
) -> tuple[jax.Array, Totals, jax.Array]:
    """Follow the plant for `seconds` with constant actions and disturbances, by Runge and Kutta's fourth-order rule.

    The integrals of the powers and of the violations belong to the same system of equations.

    Args:
        temperatures: (T_c, T_h, T_m, T_s), `[4]`.
        longest: the sub-steps are equal and at most this long, s.

    Returns:
        The temperatures at the end `[4]`, the integrals, and the highest T_c at the end of a sub-step.
    """
    substeps = max(1, math.ceil(seconds / longest - 1e-9))
    dt = seconds / substeps

    def rates(values: jax.Array) -> jax.Array:
        now = plant(values[:4], setpoint, fan, utilisation, outdoor, params, economiser)
        above = values[0] - params.inlet_limit
        sums = (
            now.it + now.server_fans,
            now.fans,
            now.chiller,
            jnp.maximum(above + params.margin, 0.0) ** 2,
            (above > 0.0).astype(values.dtype),
        )
        return jnp.concatenate([now.rates, jnp.stack(sums)])

    # The four stages are a loop, so that the equations are compiled once: where a stage is evaluated, and its weight.
    stages = dt * jnp.asarray([[0.0, 1 / 6], [0.5, 1 / 3], [0.5, 1 / 3], [1.0, 1 / 6]], temperatures.dtype)

    def substep(_: jax.Array, carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values, highest = carry

        def stage(carry: tuple[jax.Array, jax.Array], weights: jax.Array):
            slope, total = carry
            slope = rates(values + weights[0] * slope)
            return (slope, total + weights[1] * slope), None

        (_slope, values), _stages = jax.lax.scan(stage, (jnp.zeros_like(values), values), stages)
        return values, jnp.maximum(highest, values[0])

    start = jnp.concatenate([temperatures, jnp.zeros(5, temperatures.dtype)])
    values, highest = jax.lax.fori_loop(0, substeps, substep, (start, temperatures[0]))
    return values[:4], Totals(*(values[4 + i] for i in range(5))), highest


def require_possible(params: CoolingParams) -> None:
    """Require that every number is in its range.

    Raises:
        ValueError: the name of the number, its range, and the given value. Traced numbers are not checked.
    """
    positive = ("it_power", "server_airflow", "airflow", "coil_power", "density", "heat_capacity", "power_unit")
    for name in (*positive, "conductance", "mass_capacity"):
        require_in_range(name, getattr(params, name), 1e-6, None)
    for name in ("server_fan_power", "fan_power", "wall_conductance", "margin", "violation_cost", "change_cost"):
        require_in_range(name, getattr(params, name), 0.0, None)
    for name in ("idle", "leak", "utilisation_mean", "utilisation_swing", "utilisation_memory", "utilisation_noise"):
        require_in_range(name, getattr(params, name), 0.0, 1.0)
    for name in ("start_low", "start_high"):
        require_in_range(name, getattr(params, name), 0.0, 40.0)
    if not is_traced(params.start_low):
        require_in_range("start_high", params.start_high, float(np.max(params.start_low)), None)
    # The rule of fourth order is stable while a sub-step is shorter than about 2.5 time constants.
    slowest = LONGEST_SUBSTEP / 2.5
    require_in_range("supply_time", params.supply_time, slowest, None)
    flow = ("density", "heat_capacity", "server_airflow", "airflow", "conductance", "wall_conductance")
    if any(is_traced(getattr(params, name)) for name in flow):
        return
    moved = params.density * params.heat_capacity * np.maximum(params.airflow, 1.6 * np.asarray(params.server_airflow))
    least = float(np.max(slowest * (moved + params.conductance + params.wall_conductance)))
    for name in ("cold_capacity", "hot_capacity"):
        require_in_range(name, getattr(params, name), least, None)
