"""The data-centre hall: energy balance, time constants, integration, the table of reference controllers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments
from pgjax.environments import cooling, cooling_plant, cooling_readings
from pgjax.environments import cooling_controllers as controllers
from pgjax.environments.cooling_plant import CoolingParams, integrate, plant
from pgjax.environments.rules import rule_policy

HALL = CoolingParams()
START = jnp.array([22.0, 34.0, 40.0, 22.0])


@pytest.fixture(scope="module")
def settled():
    """Temperatures after 12 hours of constant actions, as a function of the hall, setpoint, fan and utilisation."""
    follow = lambda hall, *controls: integrate(START, 12 * 3600.0, *controls, 20.0, hall)[0]
    return jax.jit(follow)


def test_in_a_steady_state_the_coil_takes_all_heat(settled):
    temperatures = settled(HALL, 24.0, 0.7, 0.6)
    now = plant(temperatures, 24.0, 0.7, 0.6, 20.0, HALL)
    assert np.abs(now.rates).max() < 1e-6
    assert float(now.it + now.server_fans + now.wall) == pytest.approx(float(now.coil), rel=2e-4)
    assert float(temperatures[3]) == pytest.approx(24.0, abs=1e-3)


def test_matched_airflow_without_a_leak_feeds_pure_supply_air(settled):
    tight = HALL._replace(leak=0.0)
    # At T_c = 24 °C the servers take 69 · 0.76 · 0.97 m³/s.
    temperatures = settled(tight, 24.0, 0.69 * 0.76 * 0.97, 0.6)
    assert float(temperatures[0]) == pytest.approx(24.0, abs=1e-3)
    leaky = settled(HALL, 24.0, 0.69 * 0.76 * 0.97, 0.6)
    assert 0.1 < float(leaky[0]) - 24.0 < 0.5


def test_without_a_coil_the_hall_heats_as_fast_as_its_heat_capacity_says():
    idle = HALL._replace(coil_power=1.0, wall_conductance=0.0)
    follow = jax.jit(lambda start, seconds: integrate(start, 60.0, 15.0, 0.7, 0.6, 20.0, idle)[0], static_argnums=1)
    temperatures = START
    for _ in range(60):
        temperatures = follow(temperatures, 60.0)
    later = follow(temperatures, 60.0)
    stored = np.array([HALL.cold_capacity, HALL.hot_capacity, HALL.mass_capacity, 0.0])
    now = plant(temperatures, 15.0, 0.7, 0.6, 20.0, idle)
    heat = float(now.it + now.server_fans)
    assert float(stored @ (later - temperatures)) / 60.0 + float(now.coil) == pytest.approx(heat, rel=0.01)
    # The supply air follows the returning air τ_s later, which delays the heat like a capacity of τ_s ρ c_p V̇_c.
    delayed = HALL.supply_time * HALL.density * HALL.heat_capacity * HALL.airflow * 0.7
    assert float(later[0] - temperatures[0]) / 60.0 == pytest.approx(heat / (stored.sum() + delayed), rel=0.02)


def test_powers(settled):
    fans = [float(plant(START, 20.0, fan, 0.5, 20.0, HALL).fans) for fan in (0.3, 0.6, 1.0)]
    np.testing.assert_allclose(fans, 6e4 * np.array([0.3, 0.6, 1.0]) ** 3, rtol=1e-5)
    cop = [float(cooling_plant.cop(t)) for t in (15.0, 18.0, 20.0, 22.0, 25.0, 27.0)]
    np.testing.assert_allclose(cop, [2.00, 2.68, 3.19, 3.77, 4.73, 5.44], atol=0.005)
    at = lambda setpoint, economiser=False: plant(
        settled(HALL, setpoint, 0.75, 0.6), setpoint, 0.75, 0.6, 20.0, HALL, economiser
    )
    chiller = [float(at(setpoint).chiller) for setpoint in (18.0, 21.0, 24.0, 27.0)]
    assert (np.diff(chiller) < 0).all() and chiller[-1] > 0
    assert float(at(27.0, True).chiller) == 0.0 and float(at(18.0, True).chiller) == chiller[0]


def test_small_disturbances_die_out_with_the_known_time_constants(settled):
    temperatures = settled(HALL, 24.0, 0.7, 0.6)
    linear = jax.jacfwd(lambda x: plant(x, 24.0, 0.7, 0.6, 20.0, HALL).rates)(temperatures)
    eigenvalues = np.linalg.eigvals(np.asarray(linear, np.float64))
    assert (eigenvalues.real < 0).all()
    minutes = np.sort(-1.0 / eigenvalues.real / 60.0)
    np.testing.assert_allclose(minutes[2:], [1.5, 20.0], rtol=0.15)
    assert (minutes[:2] > 0.4).all() and (minutes[:2] < 0.9).all()


def test_sub_steps_are_short_enough():
    def hour(longest):
        def piece(temperatures, controls):
            temperatures, totals, _ = integrate(temperatures, 60.0, *controls, 20.0, HALL, longest=longest)
            return temperatures, (temperatures, totals.chiller)

        rng = np.random.default_rng(0)
        drawn = (rng.uniform(15, 27, 60), rng.uniform(0.3, 1, 60), rng.uniform(0.2, 1, 60))
        return jax.lax.scan(piece, START, tuple(jnp.asarray(x, jnp.float32) for x in drawn))[1]

    (ours, power), (fine, fine_power) = jax.jit(lambda: (hour(15.0), hour(1.0)))()
    assert np.abs(ours - fine).max() < 0.02
    np.testing.assert_allclose(power.sum(), fine_power.sum(), rtol=1e-4)


# One day each with T_set, φ, or the controller; fan kW, PUE, mean and highest T_c and the share of time above 27 °C
# of an independent implementation (Euler, 5 s, its own disturbances).
TABLE = {
    "18 °C, 0.9": (controllers.fixed(18.0, 0.9), 18.0, 1.421, 18.3, 18.4, 0.0),
    "20 °C, 0.8": (controllers.fixed(20.0, 0.8), 20.0, 1.343, 20.3, 20.4, 0.0),
    "24 °C, 0.7": (controllers.fixed(24.0, 0.7), 24.0, 1.246, 24.2, 24.3, 0.0),
    "25 °C, 0.6": (controllers.fixed(25.0, 0.6), 25.0, 1.219, 25.6, 28.2, 0.093),
    "PI 22 °C": (controllers.pi_fan(22.0, 24.0), 22.0, 1.262, 24.0, 27.0, 0.001),
    "PI 24 °C": (controllers.pi_fan(24.0, 25.5), 24.0, 1.226, 25.5, 27.2, 0.001),
    "matching": (controllers.airflow_matching(25.5), 25.5, 1.208, 25.7, 25.8, 0.0),
}


@pytest.fixture(scope="module")
def days():
    """The metrics of 8 days of a minute's control for each controller, from one program: name → metric → `[8]`."""
    env = cooling.make_cooling(1440)
    rules = [rule for rule, *_ in TABLE.values()]

    def day(index, supply, key):
        params = HALL._replace(start_low=supply, start_high=supply)

        def step(carry, key):
            state, obs = carry
            action = jnp.stack([rule(None, obs) for rule in rules])[index]
            state, seen = env.step(key, state, action, params)
            metrics = env.metrics(state, seen.obs, params)
            return (state, seen.obs), (metrics, seen.reward)

        start_key, key = jax.random.split(key)
        _, (metrics, _) = jax.lax.scan(step, env.reset(start_key, params), jax.random.split(key, 1440))
        return {
            name: values[-1] if name in ("pue", "highest_inlet") else values.mean() for name, values in metrics.items()
        }

    supplies = jnp.array([supply for _, supply, *_ in TABLE.values()])
    keys = jax.random.split(jax.random.key(0), 8)
    run = jax.jit(jax.vmap(jax.vmap(day, (None, None, 0)), (0, 0, None)))
    found = run(jnp.arange(len(TABLE)), supplies, keys)
    return {name: {metric: np.asarray(x[i]) for metric, x in found.items()} for i, name in enumerate(TABLE)}


@pytest.mark.parametrize("name", TABLE)
def test_reference_controllers_behave_as_in_the_table(days, name):
    _, _, pue, inlet, highest, share = TABLE[name]
    found = days[name]
    # The days differ in their utilisation, and the highest temperatures of the loops in their gains, which the table
    # does not give; ours are lower.
    assert found["pue"].mean() == pytest.approx(pue, abs=0.0035)
    assert found["inlet"].mean() == pytest.approx(inlet, abs=0.15)
    assert found["violation"].mean() == pytest.approx(share, abs=0.03)
    if not name.startswith("PI"):
        assert found["highest_inlet"].mean() == pytest.approx(highest, abs=0.3)
    else:
        assert found["highest_inlet"].max() < highest
    assert (found["pue"] > 1.0).all()


def test_rewards_are_minus_power_and_violations():
    env = cooling.make_cooling(24)
    state, obs = env.reset(jax.random.key(0), env.params)
    seen = cooling_readings.readings(obs)
    np.testing.assert_allclose(seen.inlet, state.temperatures[0], atol=1e-4)
    np.testing.assert_allclose(
        cooling_readings.controls(cooling_readings.action_of(seen.setpoint, seen.fan)), (seen.setpoint, 0.8), atol=1e-4
    )
    action = cooling_readings.action_of(24.0, 0.9)
    new, step = jax.jit(env.step)(jax.random.key(1), state, action, env.params)
    energy = (new.fan_energy + new.chiller_energy) / 200.0 / 24.0
    assert float(new.fan_energy) == pytest.approx(60.0 * 0.9**3, rel=1e-4)
    assert float(step.reward) == pytest.approx(
        float(-energy - 0.001 * ((action - state.action) ** 2).sum() / 24), rel=1e-4
    )
    hot = HALL._replace(inlet_limit=10.0)
    new, step = jax.jit(env.step)(jax.random.key(1), state, action, hot)
    assert float(new.violation) == pytest.approx(1.0) and float(step.reward) < -30.0


def test_experts_and_policies_are_the_same_rule():
    rule = controllers.fixed(24.0, 0.65)
    policy = rule_policy(rule)
    obs = jnp.zeros(10)
    np.testing.assert_allclose(policy.distribution.sample(None, policy.apply((), obs)), rule(None, obs))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_steps": 100}, "num_steps must be a divisor of 1440 from 24 to 1440, got 100"),
        ({"params": HALL._replace(mass_capacity=-1.0)}, "mass_capacity must be at least 1e-06, got -1"),
        ({"params": HALL._replace(idle=1.5)}, r"idle must be in \[0, 1\], got 1.5"),
        ({"params": HALL._replace(start_high=10.0)}, "start_high must be at least 18, got 10"),
        ({"params": HALL._replace(cold_capacity=1e5)}, "cold_capacity must be at least .*, got 100000"),
    ],
)
def test_impossible_halls_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cooling.make_cooling(**options)


def test_controllers_refuse_what_the_hall_cannot_do():
    with pytest.raises(ValueError, match=r"setpoint must be in \[15, 27\], got 30"):
        controllers.fixed(30.0, 0.5)


def test_the_contract_and_the_picture():
    report = environments.check(environments.make("cooling", num_steps=1440), num_steps=3, num_lanes=2)
    assert report.random_reset and report.random_step
