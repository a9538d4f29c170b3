"""The gradient bandit of Sutton & Barto: its numbers, and the running mean that knows the reward."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import gradient_bandit as module
from experiments.harness import runner
from experiments.harness.verdicts import Verdict, otherwise
from experiments.shared import one_step
from pgjax import baselines, estimators, exact


def execute(tmp_path_factory, config):
    directory = runner.execute(
        "gradient_bandit", config, module.run, module.plot, output_dir=tmp_path_factory.mktemp("results")
    )
    return directory, json.loads((directory / "paper.json").read_text())["verdicts"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return execute(tmp_path_factory, module.TINY)


def test_what_the_paper_says_comes_out(tiny):
    directory, verdicts = tiny
    assert Verdict.NOT_MEASURED not in verdicts.values()
    assert verdicts["identity"] == "agrees"
    # A difference of 6 points needs more runs than the tiny size has.
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == {"first step"}
    assert (directory / "gradient_bandit.png").stat().st_size > 10_000
    assert np.load(directory / "curves.npz")[f"{module.NONE}, α = 0.4"].shape == (module.STEPS,)


@pytest.mark.slow
def test_all_orderings_hold_at_full_size(tmp_path_factory):
    verdicts = execute(tmp_path_factory, module.Config())[1]
    assert {key for key, verdict in verdicts.items() if otherwise(verdict)} == set()


def test_the_mean_that_contains_its_own_reward_shrinks_the_gradient_by_1_minus_1_over_n(x64):
    rewards = jnp.array([4.0, 3.0, 5.5])
    policy, mdp = one_step.table(3), exact.make_bandit(rewards)
    params = jnp.array([[0.3, -0.2, 0.5]])
    probabilities = exact.policy_probabilities(policy.apply, params, mdp)[0]
    right = exact.exact_gradient(policy.apply, params, mdp)

    @jax.jit
    def expected_with(decay, contains_own):
        baseline = module.running_mean(decay, contains_own)
        estimator = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=baseline)
        state = baselines.MovingAverageState(estimate=jnp.float64(3.7), num_updates=jnp.int32(1))
        each = lambda a: estimator.gradient(params, state, one_step.trajectory(a, rewards[a]))[0]
        return jnp.tensordot(probabilities, jax.vmap(each)(jnp.arange(3)), 1)

    # E ĝ in step n, after n − 1 rewards with mean 3.7.
    expected = lambda name, n: expected_with(*module.VARIANTS[name].at(n))

    for n in (2.0, 5.0):
        np.testing.assert_allclose(expected(module.FOOTNOTE, n), (1 - 1 / n) * right, atol=1e-12)
        for name in (module.TEXT, module.ZERO):
            np.testing.assert_allclose(expected(name, n), right, atol=1e-12)
    np.testing.assert_allclose(expected(module.TEXT, 1.0), 0.0, atol=1e-12)


def test_the_running_mean_is_the_mean_and_without_one_b_is_0(x64):
    rewards = jnp.array([2.0, -1.0, 4.0, 7.0])

    def used(name):
        """b of every step."""
        state, found = baselines.moving_average(1.0).init(None, one_step.trajectory(jnp.int32(0), rewards[0])), []
        for n, reward in enumerate(rewards, start=1):
            trajectory = one_step.trajectory(jnp.int32(0), reward)._replace(returns=reward[None, None])
            baseline = module.running_mean(*module.VARIANTS[name].at(float(n)))
            found.append(float(baseline.predict(state, trajectory)[0, 0]))
            state, _ = baseline.update(state, trajectory, trajectory.returns)
        return found

    means = np.cumsum(rewards) / np.arange(1, 5)
    np.testing.assert_allclose(used(module.FOOTNOTE), means)
    np.testing.assert_allclose(used(module.TEXT), [rewards[0], *means[:-1]])
    np.testing.assert_allclose(used(module.ZERO), [0.0, *means[:-1]])
    assert used(module.NONE) == [0.0] * 4


def test_too_few_runs_are_refused():
    with pytest.raises(runner.UsageError, match="--runs 99: must be at least 100"):
        module.Config(runs=99).validate()
