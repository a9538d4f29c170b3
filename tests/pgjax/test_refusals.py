"""What a user easily gives by mistake is refused at the door in one line that names the argument and the value."""

import dataclasses

import jax
import jax.numpy as jnp
import optax
import pytest

from pgjax import baselines, environments, estimators, evaluation, networks, training
from pgjax.spaces import Box, Discrete
from pgjax.types import Step

CORRIDOR = environments.make("corridor", horizon=3)
POLICY = networks.make_policy(CORRIDOR, hidden=())
PLAIN = estimators.make_estimator(POLICY)
KEY, RATES = jax.random.key(0), jnp.ones(2)


def blind(size):
    """An environment of pictures."""
    seen = jnp.zeros(size, jnp.float32)
    step = lambda key, state, action, params: (
        state,
        Step(obs=seen, reward=jnp.float32(0.0), terminated=jnp.bool_(False)),
    )
    space = Box(low=0.0, high=1.0, shape=size)
    return dataclasses.replace(
        CORRIDOR, reset=lambda key, params: (jnp.zeros(()), seen), step=step, observation_space=space
    )


def trainer(**changes):
    arguments = {"policy": POLICY, "estimator": PLAIN, "optimizer": optax.sgd(0.1)} | changes
    return training.make_trainer(CORRIDOR, num_episodes=2, **arguments)


def train(keys, rates=RATES):
    return training.train(lambda rate: trainer(optimizer=optax.sgd(rate)), keys, rates, num_updates=1)


REFUSED = {
    "no actions": (lambda: Discrete(0), "Discrete: n must be at least 1, got 0"),
    "bounds exchanged": (lambda: Box(1.0, -1.0, (2,)), "Box: low must be at most high"),
    "one width": (lambda: networks.make_policy(CORRIDOR, hidden=64), "hidden must be a sequence of integers"),
    "width 0": (lambda: networks.make_value(CORRIDOR, hidden=(0,)), "hidden must be at least 1, got 0"),
    "small picture": (
        lambda: networks.make_policy(blind((2, 3, 1)), network="conv"),
        "H and W at least 3, got shape (2, 3, 1)",
    ),
    "one key": (lambda: train(KEY), "keys must be typed keys of shape [S]"),
    "old key": (lambda: train(jax.random.PRNGKey(0)), "keys must be typed keys of shape [S]"),
    "rates of other runs": (lambda: train(jax.random.split(KEY, 3)), "hyperparams must have 3 rows"),
    "baseline as a word": (
        lambda: estimators.make_estimator(POLICY, baseline="leave_one_out"),
        "baseline must be of type Baseline (such as baselines.leave_one_out()), got 'leave_one_out'",
    ),
    "baseline not called": (
        lambda: estimators.make_estimator(POLICY, baseline=baselines.none),
        "baseline must be of type Baseline (such as baselines.leave_one_out()), got <function none",
    ),
    "returns as a word": (
        lambda: estimators.make_estimator(POLICY, returns="reward_to_go"),
        "returns must be of type ReturnRule (such as estimators.reward_to_go()), got 'reward_to_go'",
    ),
    "objective as a word": (
        lambda: estimators.make_estimator(POLICY, objective="ppo"),
        "objective must be a function, such as estimators.score_function, got 'ppo'",
    ),
    "baseline of ratios": (
        lambda: estimators.importance_weighted(POLICY, baseline="none"),
        "baseline must be of type Baseline (such as baselines.leave_one_out()), got 'none'",
    ),
    "returns of ratios": (
        lambda: estimators.importance_weighted(POLICY, returns="total_return"),
        "returns must be of type ReturnRule (such as estimators.reward_to_go()), got 'total_return'",
    ),
    "shifted word": (
        lambda: baselines.shifted("none", 1.0),
        "baseline must be of type Baseline (such as baselines.leave_one_out()), got 'none'",
    ),
    "natural of a word": (
        lambda: estimators.natural("plain", POLICY),
        "estimator must be of type Estimator (such as estimators.make_estimator(policy)), got 'plain'",
    ),
    "natural without a policy": (
        lambda: estimators.natural(PLAIN, "table"),
        "policy must be of type Policy (such as networks.make_policy(environment)), got 'table'",
    ),
    "trained word": (lambda: trainer(policy="table"), "policy must be of type Policy (such as networks."),
    "estimator as a word": (
        lambda: trainer(estimator="rloo"),
        "estimator must be of type Estimator (such as estimators.make_estimator(policy)), got 'rloo'",
    ),
    "learning rate for an optimizer": (
        lambda: trainer(optimizer=0.1),
        "optimizer must be of type GradientTransformation (such as optax.adam(0.01)), got 0.1",
    ),
    "rewards as a word": (
        lambda: trainer(rewards="whiten"),
        "rewards must be of type Rewards (such as rewards.transform(rewards.whiten)), got 'whiten'",
    ),
    "no module": (lambda: environments.make(":x"), "environment ':x' must be 'package.module:name'"),
    "no name": (lambda: environments.make("json:"), "environment 'json:' must be 'package.module:name'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_one_line_names_the_argument_and_the_value(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError) as caught:
        call()
    assert message in str(caught.value) and "\n" not in str(caught.value)


def nan_seen():
    def step(key, state, action, params):
        state, shown = CORRIDOR.step(key, state, action, params)
        return state, shown._replace(obs=jnp.full_like(shown.obs, jnp.nan))

    return dataclasses.replace(CORRIDOR, step=step)


def test_nan_observations_are_blamed_on_the_environment():
    """θ and the step size have done nothing wrong."""
    build = lambda rate: training.make_trainer(nan_seen(), POLICY, PLAIN, optax.sgd(rate), num_episodes=4)
    with pytest.raises(training.NonFiniteError, match=r"observations must be finite, .*as the environment shows them"):
        training.train(build, jax.random.split(KEY, 1), jnp.ones(1), num_updates=1)
    params = POLICY.init(KEY, jnp.zeros(1))
    with pytest.raises(ValueError, match="observations of environment corridor must be numbers, got NaN"):
        evaluation.evaluate(nan_seen(), POLICY, params, KEY, num_episodes=2)


def test_a_policy_with_logits_for_other_actions_is_refused():
    other = networks.make_policy(dataclasses.replace(CORRIDOR, action_space=Discrete(5)), hidden=())
    build = trainer(policy=other, estimator=estimators.make_estimator(other))
    with pytest.raises(ValueError, match=r"policy must give 2 logits, one for each action of corridor, got .*\(5,\)"):
        build.init(KEY)
