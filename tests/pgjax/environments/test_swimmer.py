"""The swimmer obeys Lagrange's equations, conserves what it must, and needs unequal drag to move."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.environments import check, make, swimmer, swimmer_gaits
from pgjax.environments.swimmer import SwimmerParams, SwimmerState, make_swimmer

LINKS, LANES, KEY = 3, 8, jax.random.key(0)
FREE = SwimmerParams(drag_along=0.0, drag_across=0.0)


@pytest.fixture(scope="module")
def play():
    """`(states, torques [T, B, n − 1], params) → states [T, B]` in one compiled program, for tests in float64."""
    advance = jax.vmap(lambda state, torque, params: swimmer.advance(state, torque, params, 2), (0, 0, None))

    def run(states, torques, params):
        def one(now, torque):
            later = advance(now, torque, params)
            return later, later

        return jax.lax.scan(one, states, torques)[1]

    return jax.jit(run)


@pytest.fixture(scope="module")
def energy():
    return jax.jit(jax.vmap(swimmer.energy, (0, None)))


def draw_states(seed, spread=1.0, speed=1.0):
    rng = np.random.default_rng(seed)
    return SwimmerState(
        position=rng.normal(size=(LANES, 2)),
        angles=spread * rng.normal(size=(LANES, LINKS)),
        velocity=speed * rng.normal(size=(LANES, 2)),
        rates=speed * rng.normal(size=(LANES, LINKS)),
    )


def gaits(seed, steps, size=2.0):
    """Random smooth torques, `[steps, LANES, LINKS − 1]`."""
    rng = np.random.default_rng(seed)
    phases, rates = rng.uniform(0, 6, (LANES, LINKS - 1)), rng.uniform(0.05, 0.3, (LANES, LINKS - 1))
    return size * np.sin(phases + rates * np.arange(steps)[:, None, None])


def in_float64(params):
    return jax.tree.map(np.float64, params)


def angular_momentum(states, params):
    """Σ_i m r_i × ṙ_i + I Σ θ̇_i from the links alone, by NumPy."""
    arms = swimmer.chain(LINKS)
    unit = np.stack([np.cos(states.angles), np.sin(states.angles)], -1)
    turned = np.stack([-unit[..., 1], unit[..., 0]], -1) * np.asarray(states.rates)[..., None]
    place = np.asarray(states.position)[..., None, :] + params.length * np.einsum("ij,...jd->...id", arms, unit)
    speed = np.asarray(states.velocity)[..., None, :] + params.length * np.einsum("ij,...jd->...id", arms, turned)
    orbit = place[..., 0] * speed[..., 1] - place[..., 1] * speed[..., 0]
    return params.mass * (orbit.sum(-1) + params.length**2 / 12 * np.asarray(states.rates).sum(-1))


def test_obeys_lagranges_equations_by_automatic_differentiation(x64):
    """The reference has other coordinates, the tail and the angles, and gets everything by differentiation."""
    params = SwimmerParams(mass=0.7, length=1.3, drag_along=0.3, drag_across=2.0, joint_limit=0.5, joint_stiffness=3.0)
    params = in_float64(params)
    n, torque = LINKS, jnp.array([0.4, -1.1])

    def centres(q):
        steps = params.length * jnp.stack([jnp.cos(q[2:]), jnp.sin(q[2:])], axis=-1)
        return q[:2] + jnp.cumsum(steps, axis=0) - 0.5 * steps

    def kinetic(q, v):
        speeds = jax.jvp(centres, (q,), (v,))[1]
        own = params.mass * params.length**2 / 12.0
        return 0.5 * params.mass * jnp.sum(speeds**2) + 0.5 * own * jnp.sum(v[2:] ** 2)

    def elastic(q):
        bend = jnp.diff(q[2:])
        return 0.5 * params.joint_stiffness * jnp.sum(jnp.maximum(jnp.abs(bend) - params.joint_limit, 0.0) ** 2)

    def push(q, v):
        """Drag and motors as generalised forces: the work of a small displacement."""
        speeds, back = jax.jvp(centres, (q,), (v,))[1], jax.vjp(centres, q)[1]
        along = jnp.stack([jnp.cos(q[2:]), jnp.sin(q[2:])], axis=-1)
        across = along[:, ::-1] * jnp.array([-1.0, 1.0])
        part = lambda k, unit: k * jnp.sum(speeds * unit, axis=-1, keepdims=True) * unit
        drag = -params.length * (part(params.drag_along, along) + part(params.drag_across, across))
        motors = jax.grad(lambda q: torque @ jnp.diff(q[2:]))(q)
        spin = jnp.concatenate([jnp.zeros(2), params.drag_across * params.length**3 / 12.0 * v[2:]])
        return back(drag)[0] + motors - spin - jax.grad(elastic)(q)

    @jax.jit
    def reference(q, v):
        mass = jax.hessian(kinetic, argnums=1)(q, v)
        turning = jax.jvp(lambda q: jax.grad(kinetic, argnums=1)(q, v), (q,), (v,))[1]
        a = jnp.linalg.solve(mass, push(q, v) + jax.grad(kinetic)(q, v) - turning)
        middle = lambda q: jnp.mean(centres(q), axis=0)
        speed, rate = jax.jvp(lambda q, v: jax.jvp(middle, (q,), (v,))[1], (q, v), (v, a))
        return middle(q), speed, rate, a[2:]

    slope = jax.jit(lambda state: swimmer._slope(state, torque, params))
    rng = np.random.default_rng(0)
    for _ in range(6):
        q, v = rng.normal(size=(2, n + 2))
        place, speed, gain, turning = reference(q, v)
        found = slope(SwimmerState(position=place, angles=q[2:], velocity=speed, rates=v[2:]))
        np.testing.assert_allclose(found.velocity, gain, atol=1e-12)
        np.testing.assert_allclose(found.rates, turning, atol=1e-10)


def test_without_drag_and_torque_energy_and_momentum_are_constant(x64, play, energy):
    start = draw_states(0)
    params = in_float64(FREE._replace(time_step=0.01))
    states = play(start, np.zeros((200, LANES, LINKS - 1)), params)
    before, after = energy(start, params), energy(jax.tree.map(lambda x: x[-1], states), params)
    # The joints hit their stops on the way, so the elastic energy is part of it.
    assert np.abs(np.diff(np.asarray(states.angles), axis=-1)).max() > FREE.joint_limit
    np.testing.assert_allclose(after, before, rtol=1e-4)
    np.testing.assert_allclose(states.velocity[-1], start.velocity, atol=1e-12)
    momentum = angular_momentum(states, FREE)
    np.testing.assert_allclose(momentum[-1], angular_momentum(start, FREE), atol=1e-4)


def test_drag_never_adds_energy(x64, play, energy):
    start = draw_states(1)
    params = in_float64(SwimmerParams())
    states = play(start, np.zeros((200, LANES, LINKS - 1)), params)
    energies = jax.vmap(energy, (0, None))(states, params)
    energies = np.concatenate([energy(start, params)[None], energies])
    assert np.diff(energies, axis=0).max() < 1e-9
    assert energies[-1].max() < 0.2 * energies[0].max()


def test_equal_drag_leaves_the_centre_of_mass_at_rest_under_any_gait(x64, play):
    start = draw_states(2, spread=0.3, speed=0.0)
    torques = gaits(3, 200)
    equal = play(start, torques, in_float64(SwimmerParams(drag_along=2.0, drag_across=2.0)))
    unequal = play(start, torques, in_float64(SwimmerParams()))
    assert np.abs(equal.angles - start.angles).max() > 1.0
    np.testing.assert_allclose(equal.position[-1], start.position, atol=1e-12)
    assert np.abs(unequal.position[-1] - start.position).max() > 0.3


def test_the_mirror_image_of_a_motion_is_a_motion(x64, play):
    start, params = draw_states(4, spread=0.5), in_float64(SwimmerParams())
    torques = np.where(np.arange(200)[:, None, None] < 40, gaits(5, 200), 0.0)
    flip = np.array([1.0, -1.0])
    mirrored = SwimmerState(
        position=start.position * flip, angles=-start.angles, velocity=start.velocity * flip, rates=-start.rates
    )
    one, other = play(start, torques, params), play(mirrored, -torques, params)
    np.testing.assert_allclose(other.position, one.position * flip, atol=1e-9)
    np.testing.assert_allclose(other.angles, -np.asarray(one.angles), atol=1e-9)


def test_two_substeps_are_near_the_rounding_error_of_float32(x64, play):
    start, torques = draw_states(6, spread=0.5), gaits(7, 200)
    whole = in_float64(SwimmerParams())
    coarse = play(start, torques, whole)
    fine_torques = np.repeat(torques[:20], 10, axis=0)
    fine = play(start, fine_torques, whole._replace(time_step=np.float64(0.005)))
    where = lambda states, t: np.concatenate([states.position[t], states.angles[t]], axis=-1)
    after_one_step, after_a_second = (np.abs(where(coarse, t) - where(fine, 10 * t + 9)) for t in (0, 19))
    assert after_one_step.max() < 2e-6
    # A swimmer that meets a stop magnifies small differences.
    assert np.median(after_a_second) < 1e-5 and after_a_second.max() < 1e-2


@pytest.fixture(scope="module")
def env():
    return make("swimmer")


def test_conforms_and_only_its_reset_is_random(env):
    report = check(env, num_steps=32, num_lanes=4)
    assert report.random_reset and not report.random_step and report.terminations == 0


@pytest.fixture(scope="module")
def step(env):
    """`env.step` of three lanes with their own masses, compiled once."""
    of_mass = lambda state, action, mass: env.step(KEY, state, action, SwimmerParams(mass=mass))
    return jax.jit(jax.vmap(of_mass, (None, 0, 0)))


def test_the_reward_is_the_way_forward_minus_the_control_cost(env, step):
    actions = jnp.array([[3.0, -0.5], [1.0, -0.5], [0.0, 0.0]])
    state, obs = env.reset(KEY, env.params)
    assert obs.shape == env.observation_space.shape == (9,)
    new, seen = step(state, actions, jnp.ones(3))
    forward = (np.asarray(new.position[:, 0]) - float(state.position[0])) / 0.05
    np.testing.assert_allclose(seen.reward, forward - 1e-4 * np.array([1.25, 1.25, 0.0]), atol=1e-6)
    np.testing.assert_array_equal(new.angles[0], new.angles[1])
    assert np.abs(new.angles[0] - new.angles[2]).max() > 1e-3
    first = jax.tree.map(lambda x: x[0], new)
    numbers = env.metrics(first, seen.obs[0], env.params)
    assert numbers["distance"] == first.position[0] and numbers["bend"] == np.abs(np.diff(first.angles)).max()


def test_parameters_may_differ_between_lanes(env, step):
    state, _ = env.reset(KEY, env.params)
    actions = jnp.broadcast_to(jnp.array([1.0, -0.5]), (3, 2))
    moved = step(state, actions, jnp.array([0.5, 1.0, 2.0]))[0]
    alike = step(state, actions, jnp.ones(3))[0]
    np.testing.assert_array_equal(moved.rates[1], alike.rates[0])
    # Twice the mass halves what the same torques do, up to the drag.
    assert np.all(np.diff(np.linalg.norm(moved.rates - state.rates, axis=-1)) < 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"links": 1}, r"links must be in \[2, 12\], got 1"),
        ({"substeps": 0}, r"substeps must be at least 1, got 0"),
        ({"horizon": 2.5}, r"horizon must be an integer at least 1, got 2\.5"),
        ({"params": SwimmerParams(mass=-1.0)}, r"mass must be at least 1e-06, got -1\.0"),
        ({"params": SwimmerParams(drag_along=-0.1)}, r"drag_along must be at least 0, got -0\.1"),
        ({"params": SwimmerParams(time_step=math.nan)}, r"time_step must be at least 1e-06, got nan"),
    ],
)
def test_refuses_impossible_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_swimmer(**arguments)


def test_a_wave_of_the_search_is_the_wave_of_the_policy(env, step):
    steps = 10
    waves = swimmer_gaits.grid([0.5, 1.0], [0.5], [-1.6, 1.6])
    assert waves.lag.tolist() == pytest.approx([-1.6, 1.6, -1.6, 1.6])
    short = dataclasses.replace(env, horizon=steps)
    found = swimmer_gaits.mean_returns(short, waves, KEY, num_episodes=1)
    policy = swimmer_gaits.travelling_wave(env)
    state, obs = env.reset(jax.random.split(KEY, 1)[0], env.params)
    memory, total = policy.memory.start((), obs), 0.0
    for time in range(steps):
        memory, action = policy.memory.step(jax.tree.map(lambda x: x[1], waves), memory, obs)
        expected = 0.5 * np.sin(2 * np.pi * 0.5 * 0.05 * time - 1.6 * np.arange(2))
        np.testing.assert_allclose(action, expected, atol=1e-5)
        lanes, seen = step(state, jnp.stack([action] * 3), jnp.ones(3))
        state, total = jax.tree.map(lambda x: x[0], lanes), total + float(seen.reward[0])
    assert total == pytest.approx(float(found[1]), abs=1e-3)


def test_the_picture_follows_the_swimmer(env):
    state, obs = env.reset(KEY, env.params)
    picture = env.render(state, obs, env.params)
    assert picture.shape == (240, 480, 3) and picture.dtype == np.uint8
    metre = state._replace(position=state.position + jnp.array([5.0, 0.0]))
    half = state._replace(position=state.position + jnp.array([0.5, 0.0]))
    body = lambda picture: np.argwhere((picture == (222, 132, 44)).all(-1)).mean(0)
    np.testing.assert_allclose(body(env.render(half, obs, env.params)), body(picture), atol=0.6)
    np.testing.assert_array_equal(env.render(metre, obs, env.params), picture)
    assert np.any(env.render(half, obs, env.params) != picture)
