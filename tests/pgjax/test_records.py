"""Records print what they are, in one line."""

import functools

import jax
import jax.numpy as jnp
import optax
import pytest

from pgjax import (
    Needs,
    Policy,
    Trajectory,
    baselines,
    distributions,
    environments,
    estimators,
    imitation,
    networks,
    training,
)
from pgjax._records import brief, one_line
from pgjax.exact import make_bandit, to_environment

ENVIRONMENT = to_environment(make_bandit(jnp.array([1.0, 0.0])))
POLICY = networks.make_policy(ENVIRONMENT)


def a_trajectory(num_steps: int, num_episodes: int) -> Trajectory:
    zeros, no = jnp.zeros((num_steps, num_episodes)), jnp.zeros((num_steps, num_episodes), bool)
    return Trajectory(
        obs=zeros[..., None], actions=zeros, rewards=zeros, alive=~no, terminated=no, truncated=no, final_obs=zeros[0]
    )


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        (distributions.categorical, "Distribution(categorical)"),
        (distributions.squashed_gaussian(-1.0, 1.0), "Distribution(squashed_gaussian)"),
        (POLICY, "Policy(policy_for_spaces, distribution=Distribution(categorical))"),
        (baselines.leave_one_out(group_size=4), "Baseline(leave_one_out, needs=Needs(group_size=4))"),
        (baselines.moving_average(), "Baseline(moving_average)"),
        (baselines.state_values(jnp.sum), "Baseline(state_values, of_observation=True)"),
        (
            estimators.make_estimator(POLICY, baseline=baselines.leave_one_out()),
            "Estimator(make_estimator, leave_one_out, fits_windows=False)",
        ),
        (
            estimators.natural(estimators.make_estimator(POLICY), POLICY),
            "Estimator(natural, constant, fits_windows=False)",
        ),
        (estimators.reward_to_go(0.9), "ReturnRule(reward_to_go, bootstraps=False, discount=0.9)"),
        (imitation.from_log_probs(jnp.log), "Expert(from_log_probs, numpy.log)"),
        (Needs(), "Needs()"),
        (Needs(scores="natural"), "Needs(scores='natural')"),
        (
            training.make_trainer(
                ENVIRONMENT, POLICY, estimators.make_estimator(POLICY), optax.sgd(0.1), num_episodes=8
            ),
            "Trainer(make_trainer, num_episodes=8)",
        ),
        (
            a_trajectory(5, 3),
            "Trajectory(T=5, B=3, obs=float32[5, 3, 1], actions=float32[5, 3], rewards=float32[5, 3], "
            "alive=bool[5, 3], terminated=bool[5, 3], truncated=bool[5, 3], final_obs=float32[3])",
        ),
    ],
    ids=lambda value: value.split("(")[0] if isinstance(value, str) else "",
)
def test_a_record_prints_in_one_line(record, shown):
    assert repr(record) == shown


def test_an_environment_prints_its_name_horizon_and_spaces():
    assert repr(environments.make("CartPole-v1")).startswith("Environment(name='CartPole-v1', horizon=500, ")
    assert repr(environments.make("CartPole-v1")).endswith(", action_space=Discrete(2))")


def test_functions_of_the_user_print_by_their_names():
    def apply(params, obs):
        return obs @ params

    policy = Policy(init=jax.nn.initializers.zeros, apply=jax.jit(apply), distribution=distributions.categorical)
    assert repr(policy).startswith("Policy(test_functions_of_the_user_print_by_their_names, initializers.zeros, ")
    assert brief(functools.partial(a_trajectory, 3)) == "test_records.a_trajectory"


def test_traced_and_abstract_records_print_too():
    shown = []
    jax.eval_shape(lambda batch: shown.append(repr(batch)), a_trajectory(5, 3))
    assert shown == [repr(a_trajectory(5, 3))]
    assert repr(jax.eval_shape(lambda: a_trajectory(5, 3))) == repr(a_trajectory(5, 3))
    # A tree of axes has numbers in place of arrays.
    assert repr(Trajectory(*range(7))).startswith("Trajectory(obs=0, actions=1, ")


def test_large_trees_are_counted_and_long_values_cut():
    state = training.make_trainer(
        ENVIRONMENT, POLICY, estimators.make_estimator(POLICY), optax.sgd(0.1), num_episodes=2
    ).init(jax.random.key(0))
    numbers = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert f"params=<6 arrays of {numbers} numbers>" in one_line(state)
    assert len(brief("x" * 1000)) < 200
    assert brief({"a": jnp.zeros(2), "b": (1,)}) == "{'a': float32[2], 'b': (1,)}"
