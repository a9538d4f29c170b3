"""A policy's file brings back environment, policy and θ, runs nothing, and what cannot be trusted is refused."""

import dataclasses
import json
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import _sealed, environments, networks
from pgjax.environments.corridor import make_corridor
from pgjax.environments.linear_gaussian import make_lqg
from pgjax.saving import checkpoints, policies
from pgjax.spaces import Box, Discrete, Slate

HIDDEN = (3,)
# A user's own environment, in a module that leaves a mark when it is imported.
OWN = """
import pathlib
from pgjax.environments.corridor import make_corridor
mark = pathlib.Path(__file__).with_name("imported")
mark.write_text(mark.read_text() + "x" if mark.exists() else "x")
def make():
    return make_corridor()
"""


@pytest.fixture(scope="module")
def params():
    policy = networks.make_policy(make_corridor(), hidden=HIDDEN)
    return jax.tree.map(lambda x: x + 0.5, policy.init(jax.random.key(0), jnp.zeros(1)))


@pytest.fixture
def own(tmp_path, monkeypatch):
    """`own_saving:make` can be imported; the file that tells whether it was."""
    (tmp_path / "module").mkdir()
    (tmp_path / "module" / "own_saving.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path / "module")
    yield tmp_path / "module" / "imported"
    sys.modules.pop("own_saving", None)


class Foreign:
    """A space of another library, which numbers its actions from 1."""

    n, start, dtype, shape = 2, 1, np.dtype(np.int64), ()


def header(**changes):
    return policies.policy_header("corridor", hidden=HIDDEN) | changes


def assert_equal(found, params):
    jax.tree.map(np.testing.assert_array_equal, found, params)


def test_all_three_come_back_by_the_name_of_the_environment(tmp_path, params):
    policies.save_policy(tmp_path / "it", params, environment="corridor", hidden=HIDDEN, activation="relu")
    environment, policy, found = policies.load_policy(tmp_path / "it")
    assert environment.name == "corridor"
    original = networks.make_policy(make_corridor(), hidden=HIDDEN, activation="relu")
    np.testing.assert_array_equal(policy.apply(found, jnp.ones(1)), original.apply(params, jnp.ones(1)))
    assert_equal(found, params)


def test_the_header_says_what_the_policy_is(tmp_path, params):
    policies.save_policy(tmp_path / "it", params, environment="corridor", hidden=HIDDEN)
    assert checkpoints.metadata(tmp_path / "it") == {
        "version": 2,
        "env": "corridor",
        "observation_space": {"type": "Box", "low": 1.0, "high": 1.0, "shape": [1], "dtype": "float32"},
        "action_space": {"type": "Discrete", "n": 2, "dtype": "int32"},
        "arguments": {"hidden": [3]},
    }


def test_a_record_is_not_found_by_its_name(tmp_path, params):
    environment = make_corridor()
    policies.save_policy(tmp_path / "it", params, environment=environment, hidden=HIDDEN)
    with pytest.raises(ValueError, match="it names no environment: give load_policy the environment"):
        policies.load_policy(tmp_path / "it")
    found, _, theta = policies.load_policy(tmp_path / "it", environment)
    assert found is environment
    assert_equal(theta, params)


def test_every_argument_of_the_network_comes_back(tmp_path):
    lqg = make_lqg()
    environment = dataclasses.replace(lqg, action_space=Box(-1.0, 1.0, lqg.action_space.shape))
    arguments = {"distribution": "squashed_gaussian", "network": "mlp", "hidden": [4, 5], "initial_log_std": -0.5}
    policy = networks.make_policy(environment, **arguments)
    _, obs = environment.reset(jax.random.key(0), environment.params)
    params = policy.init(jax.random.key(1), obs)
    policies.save_policy(tmp_path / "it", params, environment=environment, **arguments)
    _, found, theta = policies.load_policy(tmp_path / "it", environment)
    assert_equal(found.apply(theta, obs), policy.apply(params, obs))
    again = found.init(jax.random.key(1), obs)
    assert_equal(again, params)


def test_the_folder_of_a_run_will_do(tmp_path, params):
    policies.save_policy(tmp_path / "policy.safetensors", params, environment="corridor", hidden=HIDDEN)
    assert_equal(policies.load_policy(tmp_path)[2], params)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"empty/policy\.safetensors is not a file"):
        policies.load_policy(tmp_path / "empty")


ATTACKS = ["own_saving:make", "http.server:test", "os:getcwd", "gymnax:own_saving:make", "own_saving", "../maze", ""]


@pytest.mark.parametrize("env", ATTACKS)
@pytest.mark.parametrize("version", [1, 2])
def test_a_file_makes_nothing_run(tmp_path, params, own, monkeypatch, version, env):
    old = {"env": env, "distribution": "auto", "hidden": [3]}
    checkpoints.save(tmp_path / "it", params, old if version == 1 else header(env=env))
    modules = set(sys.modules)
    monkeypatch.setattr(environments, "_imported", lambda *_: pytest.fail("a module of the file was asked for"))
    with pytest.raises(ValueError, match=r"it names the environment .*, which pgjax does not ship.* --env package"):
        policies.load_policy(tmp_path / "it")
    assert not own.exists() and not {"own_saving", "http.server"} & (set(sys.modules) - modules)


def test_what_the_caller_names_is_imported(tmp_path, params, own):
    checkpoints.save(tmp_path / "it", params, header(env="http.server:test"))
    environment, _, _ = policies.load_policy(tmp_path / "it", "own_saving:make")
    assert environment.name == "corridor" and own.read_text() == "x"


def test_the_name_of_a_users_module_is_kept_and_not_followed(tmp_path, params, own):
    policies.save_policy(tmp_path / "it", params, environment="own_saving:make", hidden=HIDDEN)
    assert checkpoints.metadata(tmp_path / "it")["env"] == "own_saving:make" and own.exists()
    with pytest.raises(ValueError, match="names the environment own_saving:make, which pgjax does not ship"):
        policies.load_policy(tmp_path / "it")


def test_a_file_of_version_1_is_read(tmp_path, params):
    checkpoints.save(tmp_path / "it", params, {"env": "corridor", "distribution": "auto", "hidden": [3]})
    environment, _, found = policies.load_policy(tmp_path / "it")
    assert environment.name == "corridor"
    assert_equal(found, params)
    assert policies.load_policy(tmp_path / "it", make_corridor())[0].name == "corridor"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"observation_space": Box(0.0, 2.0, (1,))}, ['the observation_space {"type": "Box", "low": 1.0', "2.0"]),
        ({"observation_space": {"x": Box(1.0, 1.0, (1,))}}, ['observation_space {"type": "B', 'has {"type": "dict"']),
        ({"action_space": Discrete(3)}, ['the action_space {"type": "Discrete", "n": 2', '"Discrete", "n": 3']),
        ({"action_space": Slate(2, 1)}, ['the action_space {"type": "Discrete"', 'other has {"type": "Slate", "n": 2']),
    ],
)
def test_an_environment_of_other_spaces_is_refused_with_both(tmp_path, params, change, words):
    policies.save_policy(tmp_path / "it", params, environment="corridor", hidden=HIDDEN)
    other = dataclasses.replace(make_corridor(), name="other", **change)
    with pytest.raises(ValueError) as caught:
        policies.load_policy(tmp_path / "it", other)
    assert all(word in str(caught.value) for word in [str(tmp_path / "it"), *words]), caught.value


def test_an_environment_of_unknown_spaces_is_refused(tmp_path, params):
    policies.save_policy(tmp_path / "it", params, environment="corridor", hidden=HIDDEN)
    other = dataclasses.replace(make_corridor(), name="other", action_space=Foreign())
    with pytest.raises(ValueError, match="other: action_space must be a space of"):
        policies.load_policy(tmp_path / "it", other)


def test_numbers_of_64_bits_in_the_environment_are_only_a_setting(tmp_path, params):
    policies.save_policy(tmp_path / "it", params, environment="corridor", hidden=HIDDEN)
    wide = dataclasses.replace(make_corridor(), action_space=Discrete(2, dtype=jnp.int64))
    assert_equal(policies.load_policy(tmp_path / "it", wide)[2], params)


@pytest.mark.parametrize("number", [np.nan, np.inf, -np.inf])
def test_a_policy_that_is_not_finite_is_neither_saved_nor_loaded(tmp_path, params, number):
    bad = jax.tree.map(lambda x: x, params)
    bad["params"]["Dense_0"]["bias"] = bad["params"]["Dense_0"]["bias"].at[1].set(number)
    words = r"must be finite, got 1 NaN or infinite numbers of 3 in \['params'\]\['Dense_0'\]\['bias'\]"
    with pytest.raises(ValueError, match=f"params {words}"):
        policies.save_policy(tmp_path / "it", bad, environment="corridor", hidden=HIDDEN)
    assert not (tmp_path / "it").exists()
    checkpoints.save(tmp_path / "it", bad, header())
    with pytest.raises(ValueError, match=f"path .*it: θ {words}"):
        policies.load_policy(tmp_path / "it")


def test_another_dtype_is_neither_saved_nor_loaded(tmp_path, params):
    wide = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
    words = r"holds \['params'\].* of float64\[3\], wanted float32\[3\]"
    with pytest.raises(ValueError, match=f"params {words}"):
        policies.save_policy(tmp_path / "it", wide, environment="corridor", hidden=HIDDEN)
    checkpoints.save(tmp_path / "it", wide, header())
    with pytest.raises(ValueError, match=f"it {words}"):
        policies.load_policy(tmp_path / "it")


def test_what_would_not_load_is_not_saved(tmp_path, params):
    save = lambda params, **rest: policies.save_policy(tmp_path / "it", params, **{"environment": "corridor"} | rest)
    with pytest.raises(ValueError, match=r"params holds .* of float32\[3\], wanted float32\[4\]"):
        save(params, hidden=(4,))
    with pytest.raises(ValueError, match="params holds another structure: it lacks"):
        save(params, hidden=(3, 3))
    with pytest.raises(ValueError, match="action_mask must be left out"):
        save(params, hidden=HIDDEN, action_mask=lambda obs: jnp.ones(2, bool))
    with pytest.raises(ValueError, match=r"environment must be a name or a pgjax\.types\.Environment, got 5"):
        save(params, environment=5)
    strange = dataclasses.replace(make_corridor(), action_space=Foreign())
    with pytest.raises(ValueError, match=r"action space: saw .*Foreign"):
        save(params, environment=strange, hidden=HIDDEN)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 3}, "a policy of version 3; this pgjax reads versions 1 and 2"),
        ({"version": None}, "a policy of version None"),
        ({"env": 5}, "'env' in its header must be a name or null, got 5"),
        ({"env": ["maze"]}, r"'env' in its header must be a name or null, got \['maze'\]"),
        ({"env": None}, "names no environment"),
        ({"arguments": [1]}, "'arguments' in its header must be an object"),
        ({"arguments": None}, "'arguments' in its header must be an object"),
        ({"arguments": {"hidden": [-1]}}, ""),
        ({"arguments": {"hidden": [2**70]}}, ""),
        ({"arguments": {"hidden": 64}}, "'arguments' of its header"),
        ({"arguments": {"hidden": "abc"}}, ""),
        ({"arguments": {"hidden": [None]}}, "'arguments' of its header"),
        ({"arguments": {"hidden": [[3]]}}, "'arguments' of its header"),
        ({"arguments": {"hidden": [3], "activation": []}}, "'arguments' of its header.*activation must be one of"),
        ({"arguments": {"hidden": [3], "distribution": "gaussian"}}, "make no policy: distribution='gaussian'"),
        ({"arguments": {"hidden": [3], "network": "conv"}}, "make no policy"),
        ({"arguments": {"hidden": [3], "distribution": "\u001b[31m"}}, "make no policy: distribution must be one of"),
        ({"arguments": {"hidden": [3], "action_mask": "os:getcwd"}}, "action_mask must be left out"),
        ({"arguments": {"hidden": [3], "environment": "maze"}}, "make no policy"),
        ({"arguments": {"hidden": [3], "nothing": 1}}, "make no policy: .*nothing"),
        ({"action_space": 5}, "the action_space 5, but the environment corridor has"),
        ({"action_space": {"type": "Discrete", "n": 1e400, "dtype": "int32"}}, "finite numbers, found Infinity"),
        ({"action_space": {"type": "Discrete", "n": 2}}, "the action_space"),
        ({"action_space": json.loads("[" * 900 + "]" * 900)}, "at most 64 nested lists and objects"),
        ({"observation_space": [None]}, r"the observation_space \[null\], but"),
        ({"observation_space": {"type": "Box", "low": 1, "high": 1, "shape": [2**40], "dtype": "float32"}}, "but the"),
    ],
    ids=lambda value: str(value)[:60],
)
def test_a_bad_header_is_one_error_that_names_the_file(tmp_path, params, monkeypatch, changes, message):
    # Python's own JSON writes 1e400 as Infinity, which a hostile file may hold.
    monkeypatch.setattr(_sealed, "as_json", lambda metadata: metadata)
    checkpoints.save(tmp_path / "it", params, header(**changes))
    with pytest.raises(ValueError, match=f"path .*it.*{message}") as caught:
        policies.load_policy(tmp_path / "it")
    assert str(caught.value).isprintable()


def test_thousands_of_layers_are_refused_before_they_are_traced(tmp_path, params):
    checkpoints.save(tmp_path / "it", params, header(arguments={"hidden": [3] * 3000}))
    start = time.perf_counter()
    with pytest.raises(ValueError, match="hidden in its header has 3000 entries, more than the file's 4 arrays"):
        policies.load_policy(tmp_path / "it")
    assert time.perf_counter() - start < 2.0


def test_what_is_no_policy_is_refused(tmp_path, params):
    checkpoints.save(tmp_path / "arrays", params, {"env": "corridor"})
    with pytest.raises(ValueError, match=r"arrays holds no saved policy: its header lacks distribution, hidden"):
        policies.load_policy(tmp_path / "arrays")
    checkpoints.save(tmp_path / "half", params, {"version": 2, "env": "corridor"})
    with pytest.raises(ValueError, match="half holds no saved policy: its header lacks observation_space"):
        policies.load_policy(tmp_path / "half")
    checkpoints.save(tmp_path / "other", params, header(arguments={"hidden": [4]}))
    with pytest.raises(ValueError, match=r"other holds .* of float32\[3\], wanted float32\[4\]"):
        policies.load_policy(tmp_path / "other")
    with pytest.raises(ValueError, match="is not a file"):
        policies.load_policy(tmp_path / "nothing")
