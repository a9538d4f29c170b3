"""Environments of other packages: refusals without the package, and their conformance with it."""

import importlib
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments, saving
from pgjax.environments import MissingPackageError, check, foreign, make, make_shipped
from pgjax.environments.foreign import shared
from pgjax.spaces import Box, Discrete
from pgjax.types import Step

NAMES = {
    "brax:ant": ("brax", "brax"),
    "gymnasium:LunarLander-v3": ("gymnasium", "gymnasium"),
    "jumanji:Game2048-v1": ("jumanji", "jumanji"),
    "mjx:Hopper": ("mujoco-mjx", "mujoco"),
    "navix:Navix-Empty-5x5-v0": ("navix", "navix"),
    "pgx:2048": ("pgx", "pgx"),
    "playground:CartpoleBalance": ("mujoco_playground", "playground"),
}


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_package_is_refused_with_the_command_that_installs_it(name, monkeypatch):
    def missing(module):
        raise ModuleNotFoundError(f"No module named {module!r}")

    monkeypatch.setattr(shared.importlib, "import_module", missing)
    package, extra = NAMES[name]
    message = rf"{name} needs the package {package}, .*: pip install -e \"\.\[{extra}\]\" in the folder of pgjax"
    with pytest.raises(MissingPackageError, match=message) as caught:
        make(name)
    assert isinstance(caught.value, ImportError) and isinstance(caught.value, ValueError)


def test_every_adapter_is_tested_and_has_an_extra():
    assert {name.split(":")[0] for name in NAMES} == set(foreign.ADAPTERS)


@pytest.mark.parametrize("name", NAMES)
def test_a_name_from_a_file_never_imports_another_package(name, monkeypatch):
    monkeypatch.setattr(shared, "imported", lambda *arguments, **options: pytest.fail("a package was imported"))
    with pytest.raises(ValueError, match=f"no environment is called '{name}'"):
        make_shipped(name)


def test_models_that_ship_with_gymnasium_are_found():
    assert foreign.mjx.model_path("hopper.xml").is_file()


def test_unknown_robots_are_refused_before_any_import():
    with pytest.raises(ValueError, match="mjx has no environment 'Hoper'; did you mean 'mjx:Hopper'"):
        make("mjx:Hoper")


def counting(change):
    """Raw functions that count in a dict and drift in dtype; `change` alters the state that it is given."""

    def reset(key, params):
        return {"count": 0, "half": jnp.float16(0.0)}, jnp.float16(0.0)

    def step(key, state, action, params):
        change(state)
        state["count"] = state["count"] + 1.0
        return state, Step(obs=state["half"], reward=jnp.sum(action), terminated=state["count"] > 3)

    return shared.Raw(reset=reset, step=step)


def test_dtypes_are_fixed_actions_clipped_and_states_copied():
    change = lambda state: state.update(half=jnp.float32(0.5))
    space = Box(low=-1.0, high=1.0, shape=(2,))
    env = shared.as_environment("toy", counting(change), action_space=space, horizon=8)
    assert check(env, num_steps=10, num_lanes=2).terminations > 0
    state, obs = env.reset(jax.random.key(0), ())
    assert obs.dtype == np.float32 and state["count"].dtype == np.int32
    new_state, seen = env.step(jax.random.key(0), state, jnp.array([5.0, 0.5]), ())
    assert float(seen.reward) == 1.5 and seen.reward.dtype == np.float32
    assert int(state["count"]) == 0 and int(new_state["count"]) == 1 and new_state["half"].dtype == np.float16


@pytest.mark.parametrize("horizon", [0, 2.0])
def test_a_wrong_horizon_is_refused(horizon):
    with pytest.raises(ValueError, match=r"horizon must be (an integer )?at least 1"):
        shared.as_environment("toy", counting(lambda state: None), action_space=Discrete(2), horizon=horizon)


def with_package(module, name, **options):
    """The environment `name`, if its package is installed. Some packages warn when they are imported."""
    pytest.importorskip(module)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(name, **options)


def checked(env, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        report = check(env, **{"num_steps": 48, "num_lanes": 4} | options)
    assert report.name == env.name
    return report


def played(env, key, policy=None, lanes=4):
    from pgjax import rollouts

    policy = environments.random_policy(env) if policy is None else policy
    return jax.device_get(
        jax.jit(lambda keys: rollouts.episodes(env, policy, (), keys))(jax.random.split(jax.random.key(key), lanes))
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Brax System")
def test_brax():
    env = with_package("brax", "brax:inverted_pendulum", backend="generalized", horizon=60)
    assert checked(env).terminations > 0
    with pytest.raises(ValueError, match="brax has no environment 'aunt'; did you mean 'brax:ant'"):
        make("brax:aunt")
    with pytest.raises(ValueError, match="cannot be made with the options"):
        make("brax:ant", no_such_option=1)


@pytest.mark.slow
def test_playground():
    env = with_package("mujoco_playground", "playground:CartpoleBalance", horizon=30)
    assert checked(env, num_steps=8, num_lanes=2).terminations == 0
    assert played(env, 0).truncated[-1].all()
    with pytest.raises(ValueError, match="needs the models of MuJoCo Menagerie"):
        make("playground:Go1JoystickFlatTerrain")


@pytest.mark.slow
def test_jumanji_keeps_masks_and_draws_with_the_key_of_the_step():
    env = with_package("jumanji", "jumanji:Game2048-v1")
    assert checked(env).random_step
    assert env.action_mask is not None and env.action_space == Discrete(4)


@pytest.mark.slow
def test_jumanji_a_time_limit_is_truncation_and_an_end_is_termination():
    env = with_package("jumanji", "jumanji:Maze-v0", horizon=6)
    checked(env, num_steps=16)
    trajectory = played(env, 1)
    assert trajectory.truncated[-1].all() and not trajectory.terminated.any()
    raw = importlib.import_module("jumanji").make("Maze-v0", time_limit=6)
    state, _ = raw.reset(jax.random.key(0))
    for _ in range(6):
        state, seen = raw.step(state, 0)
    # Jumanji itself reports the limit as an end of the problem.
    assert seen.last() and seen.discount == 0


@pytest.mark.slow
def test_navix_takes_the_action_after_the_end_of_another_episode():
    env = with_package("navix", "navix:Navix-Empty-5x5-v0", horizon=100)
    assert checked(env, num_steps=100).terminations > 0
    trajectory = played(env, 0, lanes=16)
    assert trajectory.terminated.any() and (trajectory.rewards.sum(axis=0) == trajectory.terminated.any(axis=0)).all()


@pytest.mark.slow
def test_pgx_of_one_player():
    env = with_package("pgx", "pgx:2048")
    assert checked(env).random_step
    assert env.action_space == Discrete(4) and env.action_mask is not None


@pytest.mark.slow
def test_pgx_against_an_opponent():
    env = with_package("pgx", "pgx:tic_tac_toe", horizon=9)
    report = checked(env)
    assert report.random_reset and report.random_step and report.terminations > 0
    trajectory = played(env, 0, lanes=256)
    assert trajectory.terminated.any(axis=0).all() and not trajectory.truncated.any()
    returns, lengths = trajectory.rewards.sum(axis=0), trajectory.alive.sum(axis=0)
    assert set(np.unique(returns)) == {-1.0, 0.0, 1.0}
    # Two random players: a player who begins wins 58.5 % and loses 28.8 % of the games, and each begins half of them.
    assert abs(np.mean(returns == 1) - (0.585 + 0.288) / 2) < 3.5 * 0.5 / 16
    assert lengths.min() >= 2 and lengths.max() <= 5


def test_a_saved_policy_for_another_package_asks_for_the_environment(tmp_path):
    policy = environments.from_gymnasium("Acrobot-v1")
    from pgjax import networks

    params = networks.make_policy(policy, hidden=(4,)).init(jax.random.key(0), jnp.zeros(6))
    path = tmp_path / "policy.safetensors"
    saving.save_policy(path, params, environment="gymnasium:Acrobot-v1", hidden=(4,))
    with pytest.raises(ValueError, match=r"which pgjax does not ship.*--env NAME"):
        saving.load_policy(path)
    loaded, _, _ = saving.load_policy(path, "gymnasium:Acrobot-v1")
    assert loaded.name == "gymnasium:Acrobot-v1"
