"""Hopper, HalfCheetah and Swimmer in MJX, MuJoCo's engine in JAX, with the rewards and ends of Gymnasium's v5.

The models are the XML files that ship with Gymnasium. The equations are those of Gymnasium's `Hopper-v5`,
`HalfCheetah-v5` and `Swimmer-v5`, and a test compares every quantity with them, step by step:

    R_{t+1} = w_f (x_{t+1} − x_t) / Δt − w_c |A_t|² + w_h · healthy(S_{t+1})

Here x is the position of the root in m, Δt the time of one control step in s, and A_t the torques in [−1, 1] before
the gears. Only the hopper has w_h > 0, and only it terminates, when it is not healthy: when its height is at most
0.7 m, its angle leaves (−0.2, 0.2) rad, or a coordinate of its state leaves (−100, 100). The horizon is 1000 steps.

Source: Todorov, Erez & Tassa (2012) for MuJoCo; the documentation of Gymnasium for the tasks.
"""

import importlib.util
import pathlib
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from pgjax.environments.foreign import shared
from pgjax.spaces import Box
from pgjax.types import Environment, PyTree, Step


class RobotParams(NamedTuple):
    """The parameters of a robot's reward and start; they may be vmapped.

    Attributes:
        forward_weight, ctrl_weight, healthy_reward: w_f in s/m, w_c and w_h.
        reset_noise: the size of the noise of the start: coordinates in [−noise, noise] around the model's own.
        least_height: in m; below it the robot is not healthy.
        greatest_angle: in rad; beyond it the robot is not healthy.
        greatest_coordinate: the bound of all other coordinates of a healthy robot.
    """

    forward_weight: float = 1.0
    ctrl_weight: float = 1e-3
    healthy_reward: float = 0.0
    reset_noise: float = 0.1
    least_height: float = 0.7
    greatest_angle: float = 0.2
    greatest_coordinate: float = 100.0


class _Robot(NamedTuple):
    """What is fixed about a robot.

    Attributes:
        model: the name of its XML file in Gymnasium.
        frame_skip: the number of steps of the physics in a control step.
        hidden: the number of first coordinates of the position that the observation leaves out.
        falls: whether the robot terminates when it is not healthy.
        clips: whether the observation clips velocities to [−10, 10].
        normal: whether the start draws velocities from a normal distribution instead of a uniform one.
        params: the default parameters.
    """

    model: str
    frame_skip: int
    hidden: int
    falls: bool
    clips: bool
    normal: bool
    params: RobotParams


ROBOTS = {
    "Hopper": _Robot(
        model="hopper.xml",
        frame_skip=4,
        hidden=1,
        falls=True,
        clips=True,
        normal=False,
        params=RobotParams(ctrl_weight=1e-3, healthy_reward=1.0, reset_noise=5e-3),
    ),
    "HalfCheetah": _Robot(
        model="half_cheetah.xml",
        frame_skip=5,
        hidden=1,
        falls=False,
        clips=False,
        normal=True,
        params=RobotParams(ctrl_weight=0.1),
    ),
    "Swimmer": _Robot(
        model="swimmer.xml",
        frame_skip=4,
        hidden=2,
        falls=False,
        clips=False,
        normal=False,
        params=RobotParams(ctrl_weight=1e-4),
    ),
}


class RobotState(NamedTuple):
    """The state of the physics.

    Attributes:
        qpos, qvel: the coordinates and velocities of the joints, `[nq]` and `[nv]`, in m, rad, m/s and rad/s.
        warmstart: the accelerations `[nv]` with which the solver of contacts starts its search.
    """

    qpos: jax.Array
    qvel: jax.Array
    warmstart: jax.Array


def make_robot(name: str, *, horizon: int = 1000, **params: float) -> Environment:
    """Make one of the robots in MJX.

    Args:
        name: "Hopper", "HalfCheetah" or "Swimmer".
        horizon: T.
        **params: fields of `RobotParams` that differ from the robot's own.

    Raises:
        MissingPackageError: if `mujoco` or `mujoco-mjx` is not installed; Gymnasium comes with gymnax.
        ValueError: for an unknown name or parameter, or a `horizon` below 1.

    Example:
        >>> from pgjax import environments
        >>> environments.make("mjx:Swimmer")  # doctest: +SKIP
        Environment(name='mjx:Swimmer', horizon=1000, observation_space=Box(...), action_space=Box(...))
    """
    shared.require_known(name, ROBOTS, "mjx")
    how = {"package": "mujoco-mjx", "extra": "mujoco", "wanted_by": f"mjx:{name}"}
    mujoco, mjx = (shared.imported(module, **how) for module in ("mujoco", "mujoco.mjx"))
    robot = ROBOTS[name]
    model = mujoco.MjModel.from_xml_path(str(model_path(robot.model)))
    low, high = model.actuator_ctrlrange.T
    return shared.as_environment(
        f"mjx:{name}",
        _raw(mjx, model, robot),
        action_space=Box(low=low, high=high, shape=(model.nu,)),
        params=shared.constructed(f"mjx:{name}", robot.params._replace, params),
        metrics=lambda state, obs, params: {"x position in m": state.qpos[0]},
        horizon=horizon,
    )


def model_path(name: str) -> pathlib.Path:
    """The path of an XML file that ships with Gymnasium. Gymnasium itself is not imported."""
    found = importlib.util.find_spec("gymnasium")
    if found is None or found.origin is None:
        raise shared.MissingPackageError(
            f"the model {name} ships with the package gymnasium, which is not installed: {shared.install('mujoco')}"
        )
    return pathlib.Path(found.origin).parent / "envs" / "mujoco" / "assets" / name


def _raw(mjx: Any, model: Any, robot: _Robot) -> shared.Raw:
    physics, blank = mjx.put_model(model, impl="jax"), mjx.make_data(model, impl="jax")
    seconds = model.opt.timestep * robot.frame_skip

    def seen(state: RobotState) -> jax.Array:
        velocities = jnp.clip(state.qvel, -10.0, 10.0) if robot.clips else state.qvel
        return jnp.concatenate([state.qpos[robot.hidden :], velocities])

    def reset(key: jax.Array, params: RobotParams) -> tuple[RobotState, jax.Array]:
        position_key, velocity_key = jax.random.split(key)
        noise = params.reset_noise
        uniform = lambda key, size: jax.random.uniform(key, (size,), minval=-noise, maxval=noise)
        normal = lambda key, size: noise * jax.random.normal(key, (size,))
        state = RobotState(
            qpos=jnp.asarray(model.qpos0) + uniform(position_key, model.nq),
            qvel=(normal if robot.normal else uniform)(velocity_key, model.nv),
            warmstart=jnp.zeros(model.nv),
        )
        return state, seen(state)

    def advanced(state: RobotState, action: jax.Array) -> RobotState:
        data = blank.replace(qpos=state.qpos, qvel=state.qvel, qacc_warmstart=state.warmstart, ctrl=action)
        data, _ = jax.lax.scan(lambda data, _: (mjx.step(physics, data), None), data, length=robot.frame_skip)
        return RobotState(qpos=data.qpos, qvel=data.qvel, warmstart=data.qacc_warmstart)

    def step(key: jax.Array, state: RobotState, action: jax.Array, params: RobotParams) -> tuple[PyTree, Step]:
        new = advanced(state, action)
        healthy = _is_healthy(new, params) if robot.falls else jnp.ones((), bool)
        reward = (
            params.forward_weight * (new.qpos[0] - state.qpos[0]) / seconds
            - params.ctrl_weight * jnp.sum(action**2)
            + params.healthy_reward * healthy
        )
        return new, Step(obs=seen(new), reward=reward, terminated=~healthy)

    return shared.Raw(reset=reset, step=step)


def _is_healthy(state: RobotState, params: RobotParams) -> jax.Array:
    coordinates = jnp.concatenate([state.qpos[2:], state.qvel])
    inside = jnp.all(jnp.abs(coordinates) < params.greatest_coordinate)
    upright = jnp.abs(state.qpos[2]) < params.greatest_angle
    return inside & upright & (state.qpos[1] > params.least_height)
