"""A training that starts from a saved policy: its θ and its network, and what does not fit."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import train
from experiments.harness import runner
from experiments.shared.training import build, presets
from pgjax import environments, networks, saving

TINY = dataclasses.replace(train.TINY, env=None, num_updates=1, lr=(0.01,))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A policy of the corridor with a network of its own, as a copy of an expert would be saved."""
    folder = tmp_path_factory.mktemp("saved")
    environment = environments.make("corridor")
    arguments = {"hidden": (3,), "activation": "relu"}
    _, obs = environment.reset(jax.random.key(0), environment.params)
    params = networks.make_policy(environment, **arguments).init(jax.random.key(123), obs)
    saving.save_policy(folder / "policy.safetensors", params, environment="corridor", **arguments)
    return folder, params


def test_every_run_starts_at_the_saved_parameters(saved):
    folder, params = saved
    options = train.resolve(dataclasses.replace(TINY, start_from=folder))
    assert (options["env"], options["hidden"], options["activation"]) == ("corridor", (3,), "relu")
    assert options["estimator"] == presets.PRESETS["corridor"]["estimator"]
    trainer = build.make_build(options, *build.make_policy(options))(0.1)
    for seed in (0, 1):
        jax.tree.map(np.testing.assert_array_equal, trainer.init(jax.random.key(seed)).params, params)


def test_a_run_from_a_policy_goes_on_without_its_file(saved, tmp_path):
    """The trained policy has the network of the file, and `--resume` does not need the file."""
    folder, params = saved
    moved = tmp_path / "moved.safetensors"
    moved.write_bytes((folder / "policy.safetensors").read_bytes())
    config = dataclasses.replace(TINY, start_from=moved)
    first = runner.execute("train", config, train.run, output_dir=tmp_path)
    trained = saving.load_policy(first)[2]
    assert jax.tree.structure(trained) == jax.tree.structure(params)
    # One step of Adam moves no number by more than η.
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=0.0101), trained, params)
    moved.unlink()
    again = train.Config(resume=first, num_updates=2)
    assert runner.execute("train", again, train.run) == first


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hidden": (8, 8)}, "--hidden 8 8: must be left out with --start-from"),
        ({"network": "mlp"}, "--network mlp: must be left out"),
        ({"env": "CartPole-v1"}, "--start-from: path .* the environment CartPole-v1 has"),
        ({"start_from": "nowhere.safetensors"}, "nowhere.safetensors"),
        ({"render": "SAVED"}, "--start-from .*: must be used without --render and --resume"),
    ],
)
def test_what_does_not_fit_is_refused(saved, tmp_path, options, words):
    options = {"start_from": saved[0]} | {key: saved[0] if x == "SAVED" else x for key, x in options.items()}
    with pytest.raises(runner.UsageError, match=words):
        runner.execute("train", dataclasses.replace(TINY, **options), train.run, output_dir=tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_argument_without_an_option_is_named(tmp_path):
    path = tmp_path / "policy.safetensors"
    environment = environments.make("Pendulum-v1")
    _, obs = environment.reset(jax.random.key(0), environment.params)
    params = networks.make_policy(environment, hidden=(2,)).init(jax.random.key(0), obs)
    # ln σ at the start of a policy is of no use to one that has been trained.
    saving.save_policy(path, params, environment="Pendulum-v1", hidden=(2,), initial_log_std=-1.0)
    assert train.resolve(train.Config(start_from=path))["hidden"] == (2,)
    saving.save_policy(path, params, environment="Pendulum-v1", hidden=(2,), action_mask=None)
    with pytest.raises(ValueError, match="the arguments action_mask, which"):
        train.resolve(train.Config(start_from=path))
