"""The contract of an environment at the door: one error for what is wrong, and nothing is compiled before it."""

import dataclasses
import gc
import weakref

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments, evaluation
from pgjax.contracts import ConformanceError, require_environment
from pgjax.types import Box, Discrete, Environment, Step

LOWERED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **_: LOWERED.append(name) if name.endswith("jaxpr_to_mlir_module_duration") else None
)


def reset(key, params):
    position = jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0)
    return {"position": position, "time": jnp.zeros((), jnp.int32)}, position


def step(key, state, action, params):
    position = state["position"] * params + 0.1 * (action.astype(jnp.float32) - 1.0)
    new = {"position": position, "time": state["time"] + 1}
    return new, Step(obs=position, reward=position[0], terminated=position[0] > 2.0)


GOOD = Environment(
    name="toy",
    reset=reset,
    step=step,
    params=0.9,
    observation_space=Box(low=-3.0, high=3.0, shape=(2,)),
    action_space=Discrete(3),
    horizon=6,
    action_mask=lambda obs: jnp.array([True, True, False]) | (obs[0] > 0.0),
    metrics=lambda state, obs, params: {"time": state["time"], "far": jnp.abs(obs[0]) > 1.0, "x": obs[0] * params},
)


def but(**changes):
    return dataclasses.replace(GOOD, **changes)


def shows(**changes):
    """`step` shows something else: each change is a function of the field."""

    def other(key, state, action, params):
        new, seen = step(key, state, action, params)
        return new, seen._replace(**{name: change(getattr(seen, name)) for name, change in changes.items()})

    return but(step=other)


def becomes(change):
    return but(step=lambda *arguments: (change(step(*arguments)[0]), step(*arguments)[1]))


def starts(change):
    return but(reset=lambda key, params: change(*reset(key, params)))


def broken(key, params):
    raise KeyError("no such level")


class ForeignBox:
    shape, low, high = (2,), -1.0, 1.0


TWO = Box(low=-3.0, high=3.0, shape=(2,))
BAD = {
    "reward 1": (shows(reward=lambda x: 1), "reward: saw weak int32 [], wanted a floating scalar"),
    "reward True": (shows(reward=lambda x: x > 0), "reward: saw bool [], wanted a floating scalar"),
    "reward [1]": (shows(reward=lambda x: x[None]), "reward: saw float32 [1], wanted a floating scalar"),
    "reward None": (shows(reward=lambda x: None), "reward: saw NoneType, wanted a floating scalar"),
    "terminated int": (shows(terminated=lambda x: x.astype(int)), "terminated: saw int32 [], wanted a boolean scalar"),
    "terminated [1]": (shows(terminated=lambda x: x[None]), "terminated: saw bool [1], wanted a boolean scalar"),
    "Python's False": (shows(terminated=lambda x: False), "terminated: saw Python's False, wanted a boolean scalar"),
    "horizon 5.0": (but(horizon=5.0), "horizon: saw 5.0, wanted an integer of at least 1"),
    "horizon 0": (but(horizon=0), "horizon: saw 0, wanted an integer of at least 1"),
    "horizon True": (but(horizon=True), "horizon: saw True, wanted an integer of at least 1"),
    "obs shrinks": (shows(obs=lambda x: x[:1]), "observation as a scan carry: saw float32 [1] from step, "),
    "obs changes dtype": (shows(obs=lambda x: x.astype(jnp.float16)), "observation as a scan carry: saw float16 [2]"),
    "obs becomes a dict": (shows(obs=lambda x: {"x": x}), "observation as a scan carry: saw PyTreeDef"),
    "weak obs": (
        starts(lambda state, obs: (state, jnp.where(obs > 0, 1.0, 0.0))),
        "observation of reset: saw weak float32 [2], wanted a strong float32",
    ),
    "weak state": (
        starts(lambda state, obs: (state | {"time": 0}, obs)),
        "state of reset['time']: saw weak int32 [], wanted a strong int32",
    ),
    "state grows": (
        becomes(lambda state: state | {"position": jnp.append(state["position"], 0.0)}),
        "state as a scan carry['position']: saw float32 [3] from step, wanted float32 [2] as from reset",
    ),
    "state loses a part": (becomes(lambda state: {"time": state["time"]}), "state as a scan carry: saw PyTreeDef"),
    "obs of another shape than its space": (
        but(observation_space=Box(low=-1.0, high=1.0, shape=(3,))),
        "observation space: saw float32 [2], wanted float32 [3] as declared",
    ),
    "obs of another dtype than its space": (
        but(observation_space=Box(low=-1, high=1, shape=(2,), dtype=jnp.int32)),
        "observation space: saw float32 [2], wanted int32 [2] as declared",
    ),
    "dict of spaces for one array": (
        but(observation_space={"x": TWO}),
        "observation space: saw arrays PyTreeDef(*), wanted PyTreeDef({'x': *}) as declared",
    ),
    "space that is none": (but(observation_space="numbers"), "observation space: saw 'numbers', wanted a Discrete"),
    "space without a dtype": (but(observation_space=ForeignBox()), "observation space: saw <test_contracts.ForeignBox"),
    "foreign space": (but(action_space=gymnasium.spaces.MultiBinary(2)), "action space: saw MultiBinary(2), wanted "),
    "no action space": (but(action_space=None), "action space: saw None, wanted a Discrete, Box, "),
    "reset of one value": (but(reset=lambda key, params: reset(key, params)[1]), "reset: saw array, wanted a pair"),
    "step of five values": (but(step=lambda *a: (*step(*a)[1], 0, {})), "step: saw tuple, wanted a pair (state, Step)"),
    "step without a Step": (
        but(step=lambda *a: (step(*a)[0], tuple(step(*a)[1]))),
        "step: saw tuple, wanted a pair (state, Step)",
    ),
    "Python branch": (
        shows(reward=lambda x: x if x > 0 else -x),
        "step can be traced: saw TracerBoolConversionError (Attempted boolean conversion of traced array with shape "
        "bool[].), wanted no Python branch on the value of an array",
    ),
    "array as a Python number": (
        shows(reward=lambda x: jnp.float32(float(x))),
        "step can be traced: saw ConcretizationTypeError",
    ),
    "error of its own": (but(reset=broken), "reset can be traced: saw KeyError ('no such level'), wanted a function"),
    "reset with other arguments": (but(reset=lambda key: reset(key, 0.9)), "reset can be traced: saw TypeError ("),
    "no reset": (but(reset=None), "reset can be traced: saw TypeError"),
    "words in the state": (starts(lambda state, obs: ({"name": "a"}, obs)), "reset can be traced: saw TypeError"),
    "words in params": (but(params={"level": "easy"}), "params['level']: saw str, wanted a number or an array"),
    "mask of floats": (but(action_mask=lambda obs: jnp.ones(3)), "action_mask: saw float32 [3], wanted bool [A] = [3]"),
    "mask of another size": (
        but(action_mask=lambda obs: jnp.ones(2, bool)),
        "action_mask: saw bool [2], wanted bool [A] = [3]",
    ),
    "mask of continuous actions": (
        but(action_space=Box(low=-1.0, high=1.0, shape=())),
        "action_mask: saw actions in Box(-1.0, 1.0, shape=()), wanted a Discrete action space",
    ),
    "metrics as one number": (but(metrics=lambda *a: a[1][0]), "metrics: saw array, wanted a dict of scalars"),
    "metric [2]": (but(metrics=lambda *a: {"x": a[1]}), "metrics['x']: saw float32 [2], wanted a scalar"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_environment_gets_one_error_before_anything_is_compiled(name):
    environment, message = BAD[name]
    policy, key = environments.random_policy(environment), jax.random.key(0)
    before = len(LOWERED)
    for enter in (
        lambda: require_environment(environment),
        lambda: evaluation.evaluate(environment, policy, (), key),
        lambda: environments.check(environment, key=key),
    ):
        with pytest.raises(ConformanceError) as caught:
            enter()
        assert f"environment toy: {message}" in str(caught.value)
        assert "\n" not in str(caught.value)
    assert len(LOWERED) == before


def test_a_compilation_would_be_seen():
    before = len(LOWERED)
    evaluation.evaluate(GOOD, environments.random_policy(GOOD), (), jax.random.key(0), num_episodes=2)
    assert len(LOWERED) > before


@pytest.mark.parametrize("name", ["CartPole-v1", "corridor", "four_rooms", "maze", "lqg"])
def test_what_is_shipped_keeps_the_contract(name):
    require_environment(environments.make(name))


def test_structures_of_spaces_and_weak_rewards_are_allowed():
    def start(key, params):
        state, obs = reset(key, params)
        return state, {"x": obs, "at": jnp.zeros((), jnp.int32)}

    def go_on(key, state, action, params):
        new, seen = step(key, state, action["push"] + action["turn"], params)
        return new, Step(obs={"x": seen.obs, "at": new["time"]}, reward=1.0, terminated=seen.terminated)

    structured = but(
        reset=start,
        step=go_on,
        observation_space={"x": TWO, "at": Discrete(7)},
        action_space={"push": Discrete(3), "turn": Discrete(2)},
        action_mask=None,
        metrics=None,
    )
    require_environment(structured)
    found = evaluation.evaluate(structured, environments.random_policy(structured), (), jax.random.key(0))
    np.testing.assert_array_equal(found.returns, 6.0)


def test_an_environment_is_traced_once_and_not_kept_alive():
    calls = []
    environment = but(reset=lambda *arguments: calls.append(0) or reset(*arguments))
    for _ in range(3):
        require_environment(environment)
    assert len(calls) == 1
    for params in (jnp.float32(0.5), jnp.float32(0.25)):
        require_environment(environment, params)
    require_environment(environment, jnp.ones(7), params_axis=0)
    assert len(calls) == 2
    gone = weakref.ref(environment)
    del environment
    gc.collect()
    assert gone() is None


def test_an_environment_that_failed_fails_again_and_types_of_x64_are_its_own():
    environment = starts(lambda state, obs: (state, jnp.asarray(np.asarray([0.5, 0.5]))))
    require_environment(environment)
    with jax.enable_x64(True), pytest.raises(ConformanceError, match=r"saw float64 \[2\], wanted float32 \[2\]"):
        require_environment(environment)
    bad = but(horizon=0)
    for _ in range(2):
        with pytest.raises(ConformanceError, match="horizon"):
            require_environment(bad)


def test_parameters_that_are_given_are_those_that_are_looked_at():
    """An environment may have no defaults, and `[B]` parameters are those of one episode each."""
    without = but(params=None)
    with pytest.raises(ConformanceError, match="step can be traced: saw TypeError"):
        require_environment(without)
    require_environment(without, 0.5)
    with pytest.raises(ConformanceError, match=r"state as a scan carry.*: saw float32 \[7, 2\]"):
        require_environment(GOOD, jnp.ones((7, 1)))
    require_environment(GOOD, jnp.ones(7), params_axis=0)
    with pytest.raises(ConformanceError, match=r"params: saw a single number, wanted a first axis \[B\]"):
        require_environment(GOOD, 0.5, params_axis=0)
    with pytest.raises(ValueError, match=r"^params_axis must be 0 .* or None .*, got 1$"):
        require_environment(GOOD, jnp.ones((1, 7)), params_axis=1)


def test_the_door_is_open_inside_a_traced_function():
    jax.eval_shape(lambda factor: require_environment(but(params=factor)), jnp.float32(0.5))


def test_another_library_s_environment_is_told_how_to_become_one():
    with pytest.raises(ValueError, match=r"must be a pgjax.Environment .*environments.from_gymnax.*, got CartPoleEnv"):
        require_environment(gymnasium.make("CartPole-v1").unwrapped)
