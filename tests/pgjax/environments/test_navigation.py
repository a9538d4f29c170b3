"""Robot navigation: its arc, its lidar and its reward against closed forms and NumPy; arenas that can be crossed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax.environments import check, make
from pgjax.environments.navigation import NavigationParams, make_navigation
from pgjax.environments.navigation_arena import drive

LANES, STEPS = 64, 60
PARAMS = NavigationParams()


@pytest.fixture(scope="module")
def env():
    return make("navigation")


@pytest.fixture(scope="module")
def run():
    """Episodes with random actions that go on after a collision: states `[T + 1, B]`, and `Step`s `[T, B]`."""
    env = make_navigation(end_at_collision=False)

    @jax.jit
    def play(keys, actions, params):
        start, _ = jax.vmap(env.reset, (0, None))(keys, params)

        def one(state, action):
            state, seen = jax.vmap(env.step, (None, 0, 0, None))(keys[0], state, action, params)
            return state, (state, seen)

        _, (states, seen) = jax.lax.scan(one, start, actions)
        return jax.tree.map(lambda first, rest: jnp.concatenate([first[None], rest]), start, states), seen

    keys = jax.random.split(jax.random.key(0), LANES)
    rng = np.random.default_rng(0)
    actions = np.add(rng.uniform(-1, 1, (STEPS, LANES, 2)), [0.5, 0.0]).astype(np.float32)
    return jax.device_get(play(keys, actions, PARAMS))


def test_conforms(env):
    report = check(env, num_steps=32, num_lanes=4)
    assert report.random_reset and not report.random_step


def test_arenas_leave_lanes_and_differ(run):
    start = jax.tree.map(lambda x: x[0], run[0])
    middles, radii = start.obstacles[..., :2], start.obstacles[..., 2]
    assert PARAMS.smallest_obstacle <= radii.min() and radii.max() <= PARAMS.largest_obstacle
    gaps = np.linalg.norm(middles[:, :, None] - middles[:, None], axis=-1) - radii[:, :, None] - radii[:, None]
    gaps[:, np.arange(8), np.arange(8)] = np.inf
    assert gaps.min() > 2 * PARAMS.robot_radius
    for place in (start.position, start.goal):
        assert (np.linalg.norm(middles - place[:, None], axis=-1) - radii).min() > PARAMS.robot_radius
        assert np.abs(place).max() < PARAMS.side / 2 - PARAMS.robot_radius
    # The edges of the cells are lanes without obstacles.
    edges = np.arange(1, 5) * 2.0 - 5.0
    assert (np.abs(middles[..., None] - edges).min(axis=(2, 3)) - radii).min() > PARAMS.robot_radius
    assert start.start_distance.min() > 2.0
    assert len(np.unique(start.goal[:, 0])) == len(np.unique(radii[:, 0])) == LANES


def test_progress_telescopes_and_every_event_is_paid_once(run):
    states, seen = run
    distance = np.linalg.norm(states.goal - states.position, axis=-1)
    running = np.cumsum(np.concatenate([np.zeros((1, LANES), bool), seen.terminated[:-1]]), axis=0) == 0
    hit, arrived = states.hit[1:], states.arrived[1:]
    event = np.where(hit, -PARAMS.collision_cost, np.where(arrived, PARAMS.bonus, 0.0))
    progress = np.where(running, seen.reward + PARAMS.time_cost - event, 0.0).sum(axis=0)
    last = running.sum(axis=0)
    np.testing.assert_allclose(progress, distance[0] - distance[last, np.arange(LANES)], atol=1e-4)
    assert hit.any(axis=0).sum() > 5
    np.testing.assert_array_equal(seen.terminated, arrived)


def test_a_collision_stops_the_robot_and_no_way_enters_an_obstacle(run):
    states, _ = run
    position, hit = states.position, states.hit[1:]
    np.testing.assert_array_equal(position[1:][hit], position[:-1][hit])
    assert np.all(states.speed[1:][hit] == 0)
    between = np.linspace(0, 1, 9)[:, None, None, None]
    way = (1 - between) * position[:-1] + between * position[1:]
    space = np.linalg.norm(way[:, :, :, None] - states.obstacles[1:, :, :, :2], axis=-1) - states.obstacles[1:, :, :, 2]
    assert space.min() > PARAMS.robot_radius - 1e-4
    assert np.abs(position).max() <= PARAMS.side / 2 - PARAMS.robot_radius + 1e-5


def test_no_step_is_faster_than_the_limits(run):
    states, _ = run
    way = np.linalg.norm(np.diff(states.position, axis=0), axis=-1)
    assert way.max() <= PARAMS.max_speed * PARAMS.time_step + 1e-5
    # So an episode that reaches distance d from d_0 has lasted at least (d_0 − d)/(v_max Δt) steps.
    distance = np.linalg.norm(states.goal - states.position, axis=-1)
    steps = np.arange(STEPS + 1)[:, None]
    assert np.all(steps * PARAMS.max_speed * PARAMS.time_step >= distance[0] - distance - 1e-4)
    assert np.abs(np.diff(states.speed, axis=0))[~states.hit[1:]].max() <= PARAMS.acceleration * PARAMS.time_step + 1e-5


def test_constant_speed_and_turn_drive_a_circle_of_radius_v_over_omega(env):
    state, _ = env.reset(jax.random.key(1), env.params)
    free = state._replace(
        obstacles=state.obstacles.at[:, :2].set(100.0), position=jnp.zeros(2), heading=jnp.float32(0.3),
        speed=jnp.float32(0.8), turn=jnp.float32(1.0), goal=jnp.array([4.0, 4.0]),
    )  # fmt: skip
    forward = jax.jit(lambda state: drive(state, jnp.array([0.8, 0.5]), env.params))
    radius, places = 0.8 / 1.0, [np.zeros(2)]
    for _ in range(40):
        free = forward(free)
        places.append(np.asarray(free.position))
    middle = radius * np.array([-np.sin(0.3), np.cos(0.3)])
    np.testing.assert_allclose(np.linalg.norm(np.array(places) - middle, axis=-1), radius, atol=1e-5)
    assert float(free.heading) == pytest.approx((0.3 + 40 * 0.2 + np.pi) % (2 * np.pi) - np.pi, abs=1e-4)
    assert float(free.way - state.way) == pytest.approx(40 * 0.2 * 0.8, abs=1e-4)


def marched(position, angle, obstacles):
    """The lidar by brute force: small steps along the beam until one is inside something."""
    reach = np.arange(0.0, PARAMS.beam_range, 0.001)
    points = position + reach[:, None] * [np.cos(angle), np.sin(angle)]
    inside = np.linalg.norm(points[:, None] - obstacles[:, :2], axis=-1) <= obstacles[:, 2]
    blocked = inside.any(axis=1) | (np.abs(points) >= PARAMS.side / 2).any(axis=1)
    return reach[blocked][0] if blocked.any() else PARAMS.beam_range


def test_the_lidar_sees_what_a_march_along_its_beams_meets(run):
    states, seen = run
    first = jax.tree.map(lambda x: x[1], states)
    wanted = [
        [marched(first.position[i], first.heading[i] + 2 * np.pi * b / 16, first.obstacles[i]) for b in range(16)]
        for i in range(LANES)
    ]
    beams = seen.obs[0][:, 5:] * PARAMS.beam_range
    # A beam that grazes a disc may pass it in the march.
    near = np.abs(beams - wanted) < 0.002
    assert near.mean() > 0.995
    assert 0.2 < (beams < PARAMS.beam_range).mean() < 0.9


def test_the_observation_points_to_the_goal(run):
    states, seen = run
    later = jax.tree.map(lambda x: x[1:], states)
    cos, sin = seen.obs[..., 1], seen.obs[..., 2]
    angle = later.heading + np.arctan2(sin, cos)
    reach = seen.obs[..., 0] * PARAMS.side
    pointed = later.position + reach[..., None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    np.testing.assert_allclose(pointed, later.goal, atol=1e-4)
    np.testing.assert_allclose(seen.obs[..., 3:5], np.stack([later.speed, later.turn / 2.0], axis=-1), atol=1e-6)


def test_an_episode_ends_at_a_collision_unless_asked_otherwise(env):
    state, _ = env.reset(jax.random.key(2), env.params)
    ahead = state.obstacles.at[0].set(jnp.array([0.95, 0.0, 0.7]))
    state = state._replace(position=jnp.zeros(2), heading=jnp.float32(0.0), speed=jnp.float32(1.0), obstacles=ahead)
    action, goes_on = jnp.array([1.0, 0.0]), make_navigation(end_at_collision=False)
    for environment, ended in ((env, True), (goes_on, False)):
        new, seen = environment.step(jax.random.key(0), state, action, environment.params)
        assert bool(new.hit) and bool(seen.terminated) == ended
        assert float(seen.reward) == pytest.approx(-PARAMS.time_cost - PARAMS.collision_cost)
        assert environment.metrics(new, seen.obs, environment.params)["collision"]
    near = state._replace(goal=jnp.array([0.45, 0.0]), obstacles=state.obstacles.at[0, 0].set(4.0))
    new, seen = env.step(jax.random.key(0), near, action, env.params)
    assert bool(new.arrived) and bool(seen.terminated)
    assert float(seen.reward) == pytest.approx(0.2 - PARAMS.time_cost + PARAMS.bonus, abs=1e-5)


def test_parameters_may_differ_between_lanes(env):
    reset = lambda side: env.reset(jax.random.key(0), PARAMS._replace(side=side))[0].position
    small, large = jax.vmap(reset)(jnp.array([10.0, 20.0]))
    np.testing.assert_allclose(2.0 * small, large, rtol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"obstacles": 24}, r"obstacles must be in \[1, 23\], got 24"),
        ({"beams": 0}, r"beams must be at least 1, got 0"),
        ({"params": PARAMS._replace(max_speed=-1.0)}, r"max_speed must be at least 1e-06, got -1\.0"),
        ({"params": PARAMS._replace(robot_radius=0.4)}, r"robot_radius must be at most 0\.297, got 0\.4"),
        ({"params": PARAMS._replace(largest_obstacle=0.8)}, r"largest_obstacle must be in \[0\.35, 0\.7\], got 0\.8"),
    ],
)
def test_refuses_impossible_numbers(arguments, message):
    with pytest.raises(ValueError, match=message):
        make_navigation(**arguments)


def test_the_picture_shows_the_collision(env):
    state, obs = env.reset(jax.random.key(0), env.params)
    picture = env.render(state, obs, env.params)
    assert picture.shape == (360, 360, 3) and picture.dtype == np.uint8
    has = lambda picture, colour: (picture == colour).all(-1).any()
    assert has(picture, (58, 148, 96)) and has(picture, (46, 94, 170)) and not has(picture, (196, 60, 52))
    assert has(env.render(state._replace(hit=jnp.array(True)), obs, env.params), (196, 60, 52))
