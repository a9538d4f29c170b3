"""Evaluation: the episodes of a rollout, intervals, the environment's metrics, whose fault NaN is, and pictures."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import diagnostics, environments, evaluation, networks, rollouts
from pgjax.distributions import categorical
from pgjax.types import Box, Discrete, Environment, Memory, Policy, Step

KEY = jax.random.key(4)


def reset(key, params):
    left = jax.random.randint(key, (), 1, 7, jnp.int32)
    return {"left": left, "clicks": jnp.zeros((), jnp.int32)}, jnp.zeros(1)


def step(key, state, action, params):
    """The state counts down to its end; action 1 clicks. Neither is seen; the reward is the number left."""
    new = {"left": state["left"] - 1, "clicks": state["clicks"] + action}
    reward = params * state["left"].astype(jnp.float32)
    return new, Step(obs=jnp.zeros(1), reward=reward, terminated=new["left"] <= 0)


COUNTDOWN = Environment(
    name="countdown",
    reset=reset,
    step=step,
    params=1.0,
    observation_space=Box(low=0.0, high=1.0, shape=(1,)),
    action_space=Discrete(2),
    horizon=4,
    render=lambda state, obs, params: np.full((2, 2, 3), state["left"], np.uint8),
    metrics=lambda state, obs, params: {"success": state["left"] <= 0, "left": state["left"] * params},
)
CONSTANT = Policy(init=lambda key, obs: jnp.zeros(2), apply=lambda params, obs: params, distribution=categorical)


def counting():
    """A policy that remembers how often it acted, and acts 1 at every second time."""
    memory = Memory(
        start=lambda params, obs: jnp.zeros((), jnp.int32),
        step=lambda params, carry, obs: (carry + 1, jnp.where(carry % 2 == 1, params, -params)),
    )
    return Policy(init=CONSTANT.init, apply=None, distribution=categorical, memory=memory)


@pytest.fixture(scope="module")
def found():
    return evaluation.evaluate(COUNTDOWN, CONSTANT, jnp.zeros(2), KEY, num_episodes=40)


def test_the_episodes_are_those_of_a_rollout():
    environment = environments.make("CartPole-v1", horizon=30)
    policy = networks.make_policy(environment, hidden=())
    params = jax.tree.map(lambda x: x + 0.3, policy.init(KEY, jnp.zeros(4)))
    found = evaluation.evaluate(environment, policy, params, KEY, num_episodes=50)
    batch = jax.jit(lambda keys: rollouts.episodes(environment, policy, params, keys))(jax.random.split(KEY, 50))
    np.testing.assert_array_equal(found.returns, batch.rewards.sum(axis=0))
    np.testing.assert_array_equal(found.lengths, batch.alive.sum(axis=0))
    assert len(set(found.lengths.tolist())) > 5 and batch.truncated.any()
    assert found.metrics == {}


def test_the_interval_is_student_s(found):
    few = evaluation.evaluate(COUNTDOWN, CONSTANT, jnp.zeros(2), KEY, num_episodes=4)
    stderr = few.returns.std(ddof=1) / 2.0
    np.testing.assert_allclose([few.mean, few.stderr], [few.returns.mean(), stderr], rtol=1e-6)
    # The 0.975 quantile with three degrees of freedom; the normal one would cover 86 %.
    np.testing.assert_allclose([few.low, few.high], few.mean + np.array([-1, 1]) * 3.18245 * stderr, rtol=1e-5)
    wide = evaluation.evaluate(COUNTDOWN, CONSTANT, jnp.zeros(2), KEY, num_episodes=40, confidence=0.99)
    np.testing.assert_allclose((wide.high - wide.mean) / (found.high - found.mean), 2.70791 / 2.02269, rtol=1e-5)


def test_metrics_are_of_the_states_that_the_steps_led_to(found):
    start = np.array([reset(jax.random.split(key)[0], 1.0)[0]["left"] for key in jax.random.split(KEY, 40)])
    steps = np.minimum(start, 4)
    np.testing.assert_array_equal(found.lengths, steps)
    left = [start[b] - 1.0 - np.arange(steps[b]) for b in range(40)]
    wanted = {
        ("success", "final"): start <= 4,
        ("success", "total"): start <= 4,
        ("success", "mean"): (start <= 4) / steps,
        ("left", "final"): start - steps,
        ("left", "total"): [x.sum() for x in left],
        ("left", "mean"): [x.mean() for x in left],
    }
    for (name, part), values in wanted.items():
        estimate = diagnostics.mean_interval(np.asarray(values, float))
        np.testing.assert_allclose(getattr(found.metrics[name], part), estimate, rtol=1e-5, atol=1e-6)
    assert 0.4 < found.metrics["success"].final.value < 0.95
    # Twin: metrics of the states that were left would begin at the start.
    assert abs(found.metrics["left"].mean.value - np.mean(start - (steps - 1) / 2)) > 0.9


def test_a_policy_that_remembers_is_evaluated_and_drawn():
    """Acts 0, 1, 0, 1: the states count its clicks, and the observations never change."""
    long = dataclasses.replace(
        COUNTDOWN,
        reset=lambda key, params: ({"left": jnp.int32(9), "clicks": jnp.int32(0)}, jnp.zeros(1)),
        render=lambda state, obs, params: np.full((1, 1, 3), state["clicks"], np.uint8),
        metrics=lambda state, obs, params: {"clicks": state["clicks"]},
    )
    sure = jnp.array([-50.0, 50.0])
    found = evaluation.evaluate(long, counting(), sure, KEY, num_episodes=3)
    assert (found.metrics["clicks"].final.value, found.metrics["clicks"].total.value) == (2.0, 0 + 1 + 1 + 2)
    pictures = evaluation.frames(long, counting(), sure, KEY)
    assert [picture.max() for picture in pictures] == [0, 0, 1, 1, 2]


def test_pictures_are_of_every_state_of_the_episode():
    pictures = evaluation.frames(COUNTDOWN, CONSTANT, jnp.zeros(2), KEY)
    start = int(reset(jax.random.split(KEY)[0], 1.0)[0]["left"])
    assert [picture.max() for picture in pictures] == [start - t for t in range(min(start, 4) + 1)]
    with pytest.raises(ValueError, match="environment countdown has no render"):
        evaluation.frames(dataclasses.replace(COUNTDOWN, render=None), CONSTANT, jnp.zeros(2), KEY)


def later(change):
    """The countdown in which a change of the shown step comes with the last one."""

    def other(key, state, action, params):
        new, seen = step(key, state, action, params)
        return new, jax.tree.map(lambda x, y: jnp.where(new["left"] == 1, x, y), change(seen), seen)

    return dataclasses.replace(COUNTDOWN, step=other)


@pytest.mark.parametrize(
    ("environment", "params", "message"),
    [
        (
            later(lambda seen: seen._replace(obs=seen.obs * jnp.nan)),
            jnp.zeros(2),
            r"observations of environment countdown must be numbers, got NaN \(in \d+ of 20 episodes\)",
        ),
        (
            later(lambda seen: seen._replace(reward=seen.reward * jnp.inf)),
            jnp.zeros(2),
            "rewards of environment countdown must be finite, got NaN or infinity",
        ),
        (COUNTDOWN, jnp.array([jnp.nan, 0.0]), r"outputs of the policy .* \(in 20 of 20 episodes\)"),
        (COUNTDOWN, jnp.array([jnp.inf, 0.0]), "outputs of the policy must be numbers below infinity"),
    ],
)
def test_nan_is_blamed_on_where_it_came_from(environment, params, message):
    seeing = CONSTANT._replace(apply=lambda params, obs: params + obs)
    with pytest.raises(ValueError, match=message):
        evaluation.evaluate(environment, seeing, params, KEY, num_episodes=20)


def test_logits_of_minus_infinity_are_those_of_a_mask():
    found = evaluation.evaluate(COUNTDOWN, CONSTANT, jnp.array([-jnp.inf, 0.0]), KEY, num_episodes=5)
    assert found.mean > 0


def test_one_episode_shows_no_error():
    with pytest.raises(ValueError, match="num_episodes must be at least 2, got 1"):
        evaluation.evaluate(COUNTDOWN, CONSTANT, jnp.zeros(2), KEY, num_episodes=1)


MASKED = dataclasses.replace(
    COUNTDOWN,
    action_space=Discrete(4),
    action_mask=lambda obs: jnp.array([False, True, False, True]),
    metrics=lambda state, obs, params: {"clicks": state["clicks"]},
)


def test_the_random_policy_is_uniform_over_the_allowed_actions():
    policy = environments.random_policy(MASKED)
    assert policy.init(KEY, jnp.zeros(1)) == ()
    draw = jax.vmap(lambda key: policy.distribution.sample(key, policy.apply((), jnp.zeros(1))))
    counts = np.bincount(draw(jax.random.split(KEY, 4000)), minlength=4)
    assert counts[0] == counts[2] == 0 and abs(counts[1] - 2000) < 4.5 * 1000**0.5
    with pytest.raises(NotImplementedError, match="random_policy can be sampled"):
        policy.distribution.mode(jnp.zeros(1))


def refusing(mask):
    """The masked countdown whose reward is NaN after an action that is not allowed."""

    def other(key, state, action, params):
        new, seen = step(key, state, action % 2, params)
        return new, seen._replace(reward=jnp.where(action % 2 == 1, seen.reward, jnp.nan))

    return dataclasses.replace(MASKED, step=other, action_mask=mask)


def test_check_obeys_the_mask_and_looks_at_mask_and_metrics():
    quick = lambda environment: environments.check(environment, num_steps=20, num_lanes=4)
    assert quick(refusing(MASKED.action_mask)).transitions == 80
    with pytest.raises(environments.ConformanceError, match="finite reward: saw nan"):
        quick(refusing(None))
    with pytest.raises(environments.ConformanceError, match=r"action_mask: saw False at step .* at least one action"):
        quick(dataclasses.replace(MASKED, action_mask=lambda obs: jnp.zeros(4, bool)))
    empty = lambda state, obs, params: {"per_click": 1.0 / state["clicks"]}
    with pytest.raises(environments.ConformanceError, match=r"metrics\['per_click'\]: saw inf at step"):
        quick(dataclasses.replace(COUNTDOWN, metrics=empty))
