"""The conformance suite: what keeps to the contract passes, and every wrong twin is refused with what is wrong."""

import dataclasses
import itertools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments
from pgjax.environments import ConformanceError, check, make
from pgjax.spaces import Box, Discrete, MultiDiscrete, Slate
from pgjax.types import Environment, Step


def toy_reset(key, params):
    position = (jax.random.key_data(key) % 1000).astype(jnp.float32) / 1000 - 0.5
    return {"position": position, "time": jnp.int32(0), "key": key}, position


def toy_step(key, state, action, params):
    position = jnp.clip(state["position"] + params * (action.astype(jnp.float32) - 1.0), -1.0, 1.0)
    new_state = {"position": position, "time": state["time"] + jnp.int32(1), "key": state["key"]}
    return new_state, Step(obs=position, reward=position[0], terminated=position[0] >= 1.0)


TOY = Environment(
    name="toy",
    reset=toy_reset,
    step=toy_step,
    params=0.25,
    observation_space=Box(low=-1.0, high=1.0, shape=(2,)),
    action_space=Discrete(3),
    horizon=20,
)


def quick_check(env):
    return check(env, num_steps=30, num_lanes=4)


def seen_otherwise(**changes):
    """The toy whose `step` shows something else: each change is a function of (state, Step)."""

    def step(key, state, action, params):
        new_state, seen = toy_step(key, state, action, params)
        return new_state, seen._replace(**{name: change(new_state, seen) for name, change in changes.items()})

    return dataclasses.replace(TOY, step=step)


def state_otherwise(change):
    def step(key, state, action, params):
        new_state, seen = toy_step(key, state, action, params)
        return change(new_state), seen

    return dataclasses.replace(TOY, step=step)


def unpaid_at_once():
    nothing, end = (lambda state, seen: 0.0 * seen.reward), (lambda state, seen: seen.reward < 9.0)
    return seen_otherwise(reward=nothing, terminated=end)


def counted():
    calls = itertools.count()
    return seen_otherwise(reward=lambda state, seen: seen.reward + 0.001 * next(calls))


def called_back():
    calls = itertools.count()
    draw = lambda x: np.float32(next(calls))
    shape = jax.ShapeDtypeStruct((), jnp.float32)
    noise = lambda x: jax.pure_callback(draw, shape, x, vmap_method="sequential")
    return seen_otherwise(reward=lambda state, seen: noise(seen.reward))


def faster_when_traced():
    gain = lambda x: 1.01 if isinstance(x, jax.core.Tracer) else 1.0
    return seen_otherwise(reward=lambda state, seen: gain(seen.reward) * seen.reward)


def wrong_when_batched():
    @jax.custom_batching.custom_vmap
    def reward(x):
        return x

    @reward.def_vmap
    def wrong_rule(axis_size, in_batched, x):
        return x[::-1], in_batched[0]

    return seen_otherwise(reward=lambda state, seen: reward(seen.reward))


def weak_start():
    def reset(key, params):
        state, obs = toy_reset(key, params)
        return state | {"time": 0}, obs

    return dataclasses.replace(TOY, reset=reset)


def hidden_nan():
    def reset(key, params):
        state, obs = toy_reset(key, params)
        return state | {"hidden": jnp.float32(jnp.inf)}, obs

    def step(key, state, action, params):
        new_state, seen = toy_step(key, state, action, params)
        return new_state | {"hidden": state["hidden"] * 0.0}, seen

    return dataclasses.replace(TOY, reset=reset, step=step)


def branching(state, seen):
    return seen.reward if seen.reward > 0 else -seen.reward


class OneTooMany(Discrete):
    def sample(self, key):
        return jax.random.randint(key, (), 0, self.n + 1, self.dtype)


def nan_sometimes(x):
    return jnp.where(x > 0.6, jnp.nan, x)


TWINS = {
    "horizon of zero": (dataclasses.replace(TOY, horizon=0), r"horizon: saw 0, wanted an integer of at least 1"),
    "horizon in floats": (dataclasses.replace(TOY, horizon=20.0), r"horizon: saw 20\.0"),
    "reset of one value": (
        dataclasses.replace(TOY, reset=lambda key, params: toy_reset(key, params)[1]),
        r"reset: saw .*, wanted a pair \(state, obs\)",
    ),
    "weak state": (weak_start(), r"state of reset\['time'\]: saw weak int32 \[\], wanted a strong int32"),
    "state dtype drifts": (
        state_otherwise(lambda state: state | {"time": state["time"] + 1.0}),
        r"state as a scan carry\['time'\]: saw weak float32 \[\] from step, wanted int32 \[\] as from reset",
    ),
    "state grows": (
        state_otherwise(lambda state: state | {"position": jnp.append(state["position"], 0.0)}),
        r"state as a scan carry\['position'\]: saw float32 \[3\]",
    ),
    "state loses a part": (
        state_otherwise(lambda state: {"position": state["position"]}),
        r"state as a scan carry: saw PyTreeDef",
    ),
    "observation dtype drifts": (
        seen_otherwise(obs=lambda state, seen: seen.obs.astype(jnp.float16)),
        r"observation as a scan carry: saw float16 \[2\] from step",
    ),
    "space of another dtype": (
        dataclasses.replace(TOY, observation_space=Box(low=-1, high=1, shape=(2,), dtype=jnp.int32)),
        r"observation space: saw float32 \[2\], wanted int32 \[2\] as declared",
    ),
    "space of another shape": (
        dataclasses.replace(TOY, observation_space=Box(low=-1, high=1, shape=(3,))),
        r"observation space: saw float32 \[2\], wanted float32 \[3\] as declared",
    ),
    "no space": (
        dataclasses.replace(TOY, observation_space="anything"),
        r"observation space: saw 'anything', wanted a Discrete, Box, MultiDiscrete or Slate of pgjax",
    ),
    "step of five values": (
        dataclasses.replace(TOY, step=lambda *a: (*toy_step(*a)[1], 0, 0)),
        r"step: saw tuple, wanted a pair \(state, Step\)",
    ),
    "Python branch": (seen_otherwise(reward=branching), r"step can be traced: saw TracerBoolConversionError"),
    "reward of shape [1]": (
        seen_otherwise(reward=lambda state, seen: seen.reward[None]),
        r"reward: saw float32 \[1\], wanted a floating scalar",
    ),
    "integer reward": (
        seen_otherwise(reward=lambda state, seen: seen.reward.astype(jnp.int32)),
        r"reward: saw int32 \[\], wanted a floating scalar",
    ),
    "terminated as a float": (
        seen_otherwise(terminated=lambda state, seen: seen.terminated.astype(jnp.float32)),
        r"terminated: saw float32 \[\], wanted a boolean scalar",
    ),
    "observation out of bounds": (
        seen_otherwise(obs=lambda state, seen: seen.obs + 1.5),
        r"observation in its space: saw [\d.]+ at step \d+ of lane \d, element \[\d\], wanted from -1",
    ),
    "action out of bounds": (
        dataclasses.replace(TOY, action_space=OneTooMany(3)),
        r"action in its space: saw 3 at step \d+ of lane \d, wanted from 0 to 2",
    ),
    "NaN in the observation": (
        seen_otherwise(obs=lambda state, seen: nan_sometimes(seen.obs)),
        r"finite observation: saw nan at step \d+ of lane \d",
    ),
    "infinite reward": (
        seen_otherwise(reward=lambda state, seen: jnp.where(seen.reward > 0.6, jnp.inf, seen.reward)),
        r"finite reward: saw inf at step \d+ of lane \d",
    ),
    "NaN in the state": (
        hidden_nan(),
        r"finite state\['hidden'\]: saw nan at step 0 of lane 0, wanted no NaN",
    ),
    "over before it starts": (unpaid_at_once(), r"not over before it starts: saw every episode ending"),
    "state kept in Python": (counted(), r"same key, same step\[1\]\.reward: saw"),
    "state kept on the host": (called_back(), r"same key, same trajectory\.seen\.reward: saw"),
    "other under jit": (faster_when_traced(), r"jit = no jit of step\[1\]\.reward: saw"),
    "other under vmap": (wrong_when_batched(), r"vmap = loop of step\[1\]\.reward: saw"),
    "picture in floats": (
        dataclasses.replace(TOY, render=lambda state, obs, params: np.zeros((4, 4, 3))),
        r"render: saw float64 \[4, 4, 3\], wanted a NumPy array uint8 \[H, W, 3\]",
    ),
}


def test_the_toy_conforms():
    report = quick_check(dataclasses.replace(TOY, render=lambda state, obs, params: np.zeros((4, 4, 3), np.uint8)))
    assert report == environments.CheckReport(
        name="toy", transitions=120, terminations=report.terminations, random_reset=True, random_step=False
    )
    assert report.terminations > 0
    assert str(report).startswith("toy passed: ") and "120 random steps" in str(report)
    assert str(report).endswith("(starts: random; what an action leads to: always the same)")


@pytest.mark.parametrize("twin", TWINS)
def test_a_wrong_twin_is_refused_with_what_is_wrong(twin):
    env, message = TWINS[twin]
    with pytest.raises(ConformanceError, match=message) as caught:
        quick_check(env)
    assert str(caught.value).startswith(f"environment toy: {caught.value.property}")


def test_a_state_may_have_a_leaf_without_numbers():
    empty = lambda state: state | {"empty": jnp.zeros((0,))}

    def reset(key, params):
        state, obs = toy_reset(key, params)
        return empty(state), obs

    def step(key, state, action, params):
        new_state, seen = toy_step(key, state, action, params)
        return empty(new_state), seen

    assert quick_check(dataclasses.replace(TOY, reset=reset, step=step)).random_reset


def of_spaces(observation_space, action_space, slate=(2, 0)):
    """An episode of 4 steps that shows a constant element of its observation space and pays 1."""

    def seen_at(time):
        return {"time": time, "slate": jnp.asarray(slate, jnp.int32)}

    def step(key, state, action, params):
        obs = seen_at(jnp.minimum(state + 1, 3))
        return state + 1, Step(obs=obs, reward=jnp.ones(()), terminated=state >= 3)

    zero = jnp.zeros((), jnp.int32)
    return dataclasses.replace(
        TOY,
        reset=lambda key, params: (zero, seen_at(zero)),
        step=step,
        observation_space=observation_space,
        action_space=action_space,
    )


SEEN = {"time": Discrete(4), "slate": Slate(3, 2)}


@pytest.mark.parametrize(
    "action_space", [Slate(4, 2), MultiDiscrete((2, 3)), (Discrete(2), {"a": Box(5.0, np.inf, (2,))})]
)
def test_every_space_conforms(action_space):
    assert quick_check(of_spaces(SEEN, action_space)).transitions == 120


def test_a_slate_that_repeats_an_item_is_reported():
    message = r"observation in its space\['slate'\]: saw \[1 1\] at step 0 of lane 0, wanted different items"
    with pytest.raises(ConformanceError, match=message):
        quick_check(of_spaces(SEEN, Discrete(2), slate=(1, 1)))


def test_a_space_of_another_structure_or_library_is_reported():
    with pytest.raises(ConformanceError, match=r"observation space: saw arrays PyTreeDef.*slate.*wanted PyTreeDef"):
        quick_check(of_spaces({"time": Discrete(4)}, Discrete(2)))
    with pytest.raises(ConformanceError, match=r"action space: saw Discrete\(2, start=1\), wanted .*spaces.as_space"):
        quick_check(of_spaces(SEEN, gymnasium.spaces.Discrete(2, start=1)))


def test_randomness_is_reported():
    def step(key, state, action, params):
        noise = 0.01 * jax.random.normal(key, (), jnp.float32)
        new_state, seen = toy_step(key, state, action, params)
        return new_state, seen._replace(reward=seen.reward + noise)

    start = lambda key, params: toy_reset(jax.random.key(0), params)
    report = quick_check(dataclasses.replace(TOY, reset=start, step=step))
    assert report.random_step and not report.random_reset


def test_parameters_are_those_given():
    def step(key, state, action, params):
        new_state, seen = toy_step(key, state, action, params)
        return new_state, seen._replace(reward=seen.reward / params)

    env = dataclasses.replace(TOY, step=step)
    quick_check(env)
    with pytest.raises(ConformanceError, match="finite reward"):
        check(env, params=0.0, num_steps=30, num_lanes=4)


@pytest.mark.parametrize("name", ["corridor", "maze"])
def test_the_other_native_environments_conform(name):
    assert check(make(name)).name == name
