"""The layout of a trajectory: every field against T and B, one error each, and batch-major fields converted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from misshapen import MISSHAPEN

from pgjax import environments, networks, rollouts
from pgjax.contracts import require_trajectory
from pgjax.types import Trajectory

STEPS, LANES = 5, 3


def trajectory(steps=STEPS, lanes=LANES):
    shape = (steps, lanes)
    alive = np.arange(steps)[:, None] < np.arange(lanes) + 2
    last = np.arange(steps)[:, None] == np.arange(lanes) + 1
    return Trajectory(
        obs=jnp.arange(steps * lanes * 4.0).reshape(*shape, 4),
        actions=jnp.zeros(shape, jnp.int32),
        rewards=jnp.where(alive, 1.0, 0.0),
        alive=jnp.asarray(alive),
        terminated=jnp.asarray(last),
        truncated=jnp.zeros(shape, bool),
        final_obs=jnp.ones((lanes, 4)),
    )


def filled(steps=STEPS, lanes=LANES):
    batch = trajectory(steps, lanes)
    numbers = 1.0 * jnp.arange(steps * lanes).reshape(steps, lanes)
    return batch._replace(
        next_obs=batch.obs + 1.0,
        returns=numbers,
        score_norms=numbers[:1],
        behaviour_log_probs=-numbers,
        greedy_returns=numbers,
        carry={"hidden": jnp.zeros((lanes, 7))},
    )


@pytest.mark.parametrize(("name", "misshape", "words"), MISSHAPEN, ids=[name for name, *_ in MISSHAPEN])
def test_a_misshapen_trajectory_gets_one_error(name, misshape, words):
    for right in (trajectory(), filled()):
        with pytest.raises(ValueError) as caught:
            require_trajectory(misshape(right))
        message = str(caught.value)
        assert message.startswith(f"trajectory.{words}") and ", got " in message and "\n" not in message


def test_the_error_names_what_was_given_and_what_is_right():
    wrong = trajectory()._replace(rewards=jnp.ones((STEPS, 1)))
    wanted = r"^trajectory\.rewards must be float \[T, B\] = \[5, 3\], got float32 \[5, 1\]$"
    with pytest.raises(ValueError, match=wanted):
        require_trajectory(wrong)
    wrong = filled()._replace(carry={"hidden": jnp.zeros((1, 7))})
    wanted = r"^trajectory\.carry\['hidden'\] must be \[B, \.\.\.\] = \[3, \.\.\.\], got float32 \[1, 7\]$"
    with pytest.raises(ValueError, match=wanted):
        require_trajectory(wrong)
    wrong = filled()._replace(score_norms=jnp.ones((2, LANES)))
    wanted = r"score_norms must be float \[T, B\] = \[5, 3\] or \[1, 3\], got float32 \[2, 3\]$"
    with pytest.raises(ValueError, match=wanted):
        require_trajectory(wrong)
    alone = jax.tree.map(lambda x: x[:, 0], trajectory()._replace(final_obs=jnp.ones((1, 1, 4))))
    with pytest.raises(ValueError, match=r"^trajectory\.alive must be bool \[T, B\], got bool \[5\]$"):
        require_trajectory(alone)


def test_right_trajectories_pass_traced_and_vmapped_too():
    for right in (trajectory(), filled(), trajectory(steps=1), filled(lanes=1), filled(steps=3)):
        require_trajectory(right)
        jax.eval_shape(require_trajectory, right)
        jax.eval_shape(jax.vmap(require_trajectory), jax.tree.map(lambda x: jnp.stack([x, x]), right))
    wrong = jax.tree.map(lambda x: jnp.stack([x, x]), trajectory()._replace(rewards=jnp.ones((STEPS, 1))))
    with pytest.raises(ValueError, match=r"rewards must be float \[T, B\] = \[5, 3\], got float32 \[5, 1\]"):
        jax.eval_shape(jax.vmap(require_trajectory), wrong)


def test_rollouts_make_right_trajectories():
    maze = environments.make("maze")
    policy = networks.make_policy(maze, hidden=())
    params = policy.init(jax.random.key(0), jnp.zeros(maze.observation_space.shape))
    keys = jax.random.split(jax.random.key(1), LANES)
    require_trajectory(jax.eval_shape(lambda: rollouts.episodes(maze, policy, params, keys)))
    window = lambda: rollouts.window(maze, policy, params, rollouts.start_lanes(maze, policy, params, keys), STEPS)[1]
    require_trajectory(jax.eval_shape(window))


@pytest.mark.parametrize("lanes", [LANES, STEPS])
def test_batch_major_fields_become_time_major(lanes):
    """Where T = B no shape tells them apart, and the name of the method does."""
    right = filled(lanes=lanes)
    swap = lambda name, tree: tree if name in ("final_obs", "carry") else jax.tree.map(lambda x: x.swapaxes(0, 1), tree)
    fields = {name: swap(name, tree) for name, tree in right._asdict().items()}
    jax.tree.map(np.testing.assert_array_equal, Trajectory.from_batch_major(**fields), right)
    on_the_host = jax.tree.map(np.asarray, fields)
    jax.tree.map(np.testing.assert_array_equal, Trajectory.from_batch_major(**on_the_host), right)
    jax.eval_shape(lambda fields: Trajectory.from_batch_major(**fields), fields)
    if lanes != STEPS:
        wanted = r"final_obs must be \[B, ...\] = \[5, ...\] .* got 3 episodes: .* Trajectory.from_batch_major"
        with pytest.raises(ValueError, match=wanted):
            require_trajectory(Trajectory(**fields))


def test_batch_major_fields_are_checked_as_they_were_given():
    right = trajectory()
    with pytest.raises(ValueError, match=r"final_obs must be \[B, ...\] = \[5, ...\], got float32 \[3, 4\]"):
        Trajectory.from_batch_major(**right._asdict())
    fields = jax.tree.map(lambda x: x.swapaxes(0, 1), right)._replace(final_obs=right.final_obs)
    with pytest.raises(ValueError, match=r"rewards must be float \[B, T\] = \[3, 5\], got float32 \[3, 1\]"):
        Trajectory.from_batch_major(**fields._replace(rewards=jnp.ones((LANES, 1)))._asdict())
    with pytest.raises(TypeError, match="reward"):
        Trajectory.from_batch_major(**(fields._asdict() | {"reward": 1.0}))
