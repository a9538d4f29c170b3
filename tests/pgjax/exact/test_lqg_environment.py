"""The linear problem as an environment, and what its makers refuse."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_lqg import SHAPES, draw_problem

from pgjax import environments, rollouts
from pgjax import exact as lqg
from pgjax.environments.linear_gaussian import make_lqg, make_lqg_policy, time_step


def test_environment_conforms_and_shows_the_time():
    env = environments.make("lqg")
    report = environments.check(env, num_steps=20, num_lanes=4)
    assert report.terminations == 0 and report.random_reset and report.random_step
    state, obs = env.reset(jax.random.key(0), env.params)
    step = jax.jit(env.step)
    for t in range(100):
        assert int(time_step(obs, 100)) == t == int(state.time)
        state, seen = step(jax.random.key(t), state, jnp.zeros(2), env.params)
        obs = seen.obs
    assert not bool(seen.terminated)


def test_sampled_episodes_have_the_closed_form_mean():
    with jax.enable_x64(True):
        problem, policy = draw_problem(*SHAPES["one action, three steps"])
        truth = float(lqg.linear_gaussian_objective(problem, policy))
        environment = make_lqg(problem)
        agent = make_lqg_policy(problem, float(policy.covariance[0, 0]) ** 0.5, feedback=True)
        params = {"means": np.asarray(policy.means, np.float32), "gains": np.asarray(policy.gains, np.float32)}
    run = jax.jit(lambda keys: rollouts.episodes(environment, agent, params, keys))
    trajectory = run(jax.random.split(jax.random.key(0), 20_000))
    assert bool(trajectory.truncated[-1].all()) and not bool(trajectory.terminated.any())

    def z_score(rewards):
        returns = (0.9 ** np.arange(3.0)[:, None] * np.asarray(rewards, np.float64)).sum(axis=0)
        return (returns.mean() - truth) / (returns.std() / math.sqrt(len(returns)))

    assert abs(z_score(trajectory.rewards)) < 4.5
    paid_late = jnp.concatenate([trajectory.rewards[1:], trajectory.rewards[:1]])
    assert abs(z_score(paid_late)) > 10


def test_open_loop_policy_starts_at_zero_and_reads_its_step():
    problem, _ = draw_problem(2, 2, 3)
    policy = make_lqg_policy(problem, 0.5)
    params = policy.init(jax.random.key(0), jnp.zeros(3))
    assert params.keys() == {"means"} and params["means"].shape == (3, 2)
    outputs = policy.apply({"means": jnp.arange(6.0).reshape(3, 2)}, jnp.array([9.0, 9.0, 2 / 3]))
    np.testing.assert_allclose(outputs.mean, [4.0, 5.0])
    np.testing.assert_allclose(outputs.log_std, np.log([0.5, 0.5]), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discount": 1.5}, "discount must be in"),
        ({"horizon": 0}, "horizon must be at least 1"),
        ({"state_cost": np.ones((3, 3))}, r"state_cost has shape \(3, 3\), must be \(4, 4\)"),
        ({"noise_covariance": -np.eye(4)}, "noise_covariance has the eigenvalue -1"),
        ({"action_cost": np.array([[1.0, 2.0], [0.0, 1.0]])}, "action_cost must be finite and symmetric"),
        ({"unknown": 1.0}, "missing or unknown: unknown"),
    ],
)
def test_a_wrong_problem_is_refused(change, message):
    fields = {field.name: getattr(lqg.point_mass(), field.name) for field in dataclasses.fields(lqg.LinearGaussian)}
    with pytest.raises(ValueError, match=message):
        lqg.make_linear_gaussian(**fields | change)


def test_wrong_policies_are_refused():
    problem = lqg.point_mass(5)
    with pytest.raises(ValueError, match="covariance has shape"):
        lqg.linear_gaussian_policy(problem, 0.0, 1.0)
    with pytest.raises(ValueError, match="scale must be positive"):
        make_lqg_policy(problem, 0.0)
    with pytest.raises(ValueError, match="lambda_ must be in"):
        lqg.linear_gaussian_values(problem, lqg.linear_gaussian_policy(problem, 0.0, np.eye(2)), 2.0)
