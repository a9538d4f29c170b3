"""The robots in MJX are those of Gymnasium in C MuJoCo, step by step. MJX compiles for a minute each, hence slow.

Measured in float64 from the same state: one control step misses C MuJoCo by at most 6e-15 in positions and 5e-13 in
velocities, and 50 steps by 1e-15 (Hopper, Swimmer) and 1e-6 (HalfCheetah, whose contacts are chaotic). Rewards and
observations are float32, and miss by their rounding, at most 1e-6.
"""

import jax
import numpy as np
import pytest

from pgjax.environments import make
from pgjax.environments.foreign.mjx import RobotState

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
KEY = jax.random.key(0)


def reference(name):
    """Gymnasium's own environment, and a function that sets its state."""
    import gymnasium

    env = gymnasium.make(f"{name}-v5").unwrapped
    env.reset(seed=0)

    def put(state):
        env.set_state(np.array(state.qpos), np.array(state.qvel))
        env.data.qacc_warmstart[:] = np.array(state.warmstart)

    return env, put


def state_of(env):
    """A copy: JAX may read the array after MuJoCo has written into it."""
    names = {"qpos": "qpos", "qvel": "qvel", "warmstart": "qacc_warmstart"}
    return RobotState(**{ours: np.array(getattr(env.data, theirs)) for ours, theirs in names.items()})


@pytest.mark.parametrize(("name", "free_tolerance"), [("Swimmer", 1e-12), ("Hopper", 1e-12), ("HalfCheetah", 1e-4)])
def test_a_robot_is_gymnasiums(name, free_tolerance, x64):
    for module in ("mujoco.mjx", "imageio"):  # Gymnasium's own robots import imageio
        pytest.importorskip(module)
    env, rng = make(f"mjx:{name}"), np.random.default_rng(0)
    step = jax.jit(env.step)
    theirs, put = reference(name)
    action = lambda: rng.uniform(-1, 1, env.action_space.shape).astype(np.float32)

    state, _ = jax.jit(env.reset)(KEY, env.params)
    put(state)
    for _ in range(50):
        forces = action()
        state, seen = step(KEY, state, forces, env.params)
        theirs.step(forces)
    np.testing.assert_allclose(state.qpos, theirs.data.qpos, rtol=0, atol=free_tolerance)

    theirs.reset(seed=1)
    ends = 0
    for _ in range(200):
        forces, start = action(), state_of(theirs)
        put(start)
        state, seen = step(KEY, start, forces, env.params)
        obs, reward, terminated, _, _ = theirs.step(forces)
        np.testing.assert_allclose(state.qpos, theirs.data.qpos, rtol=0, atol=1e-12)
        np.testing.assert_allclose(state.qvel, theirs.data.qvel, rtol=0, atol=1e-10)
        np.testing.assert_allclose(seen.obs, obs, rtol=0, atol=5e-6)
        np.testing.assert_allclose(seen.reward, reward, rtol=0, atol=2e-6)
        assert bool(seen.terminated) == terminated
        ends += terminated
        if terminated:
            theirs.reset()
    assert (ends > 0) == (name == "Hopper")
    wrong = env.params._replace(ctrl_weight=env.params.ctrl_weight * 1.1)
    assert abs(step(KEY, start, np.ones_like(forces), wrong)[1].reward - reward) > 2e-6
