"""`--precision` of a training: it reaches the products of policy and value, and it is part of the run's identity."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from trainings import newest_arrays

from experiments import train
from experiments.harness import runner
from experiments.shared.training import build
from experiments.train import resume
from experiments.train.options import resolve
from pgjax.types import Trajectory

SAMPLE = Trajectory(
    obs=jnp.zeros((2, 3, 4)),
    actions=jnp.zeros((2, 3), jnp.int32),
    rewards=jnp.ones((2, 3)),
    alive=jnp.ones((2, 3), bool),
    terminated=jnp.zeros((2, 3), bool),
    truncated=jnp.zeros((2, 3), bool),
    final_obs=jnp.zeros((3, 4)),
    returns=jnp.ones((2, 3)),
)
SMALL = dataclasses.replace(train.TINY, num_seeds=1, lr=(0.1,), num_updates=2)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("results")
    train_with = lambda **more: runner.execute(
        "train",
        dataclasses.replace(SMALL, **more),
        train.run,
        output_dir=folder,
        run_name=more.get("precision", "left"),
    )
    return train_with(), train_with(precision="bfloat16")


def test_the_option_changes_the_parameters(runs):
    """Twin: the option is ignored, and all parameters are equal."""
    plain, low = (newest_arrays(run) for run in runs)
    params = [name for name in plain if "].params" in name]
    moved = [float(np.abs(plain[name] - low[name]).max()) for name in params]
    assert params and 0.0 < max(moved) < 0.2, moved


def test_the_option_is_part_of_the_identity(runs):
    plain, low = runs
    assert json.loads((low / "options.json").read_text())["precision"] == "bfloat16"
    with pytest.raises(ValueError, match="--precision float32: a resumed run keeps its own value, bfloat16"):
        resolve(train.Config(resume=low, precision="float32", typed=("precision",)))
    # A run of a former version has no such option, and its products were float32.
    options = resolve(train.Config(resume=plain))
    assert options["precision"] == "float32" and "precision" not in resume.results_options(options)
    assert resume.results_options(resolve(train.Config(resume=low)))["precision"] == "bfloat16"


def test_policy_and_values_compute_in_the_precision():
    options = resolve(train.Config(env="CartPole-v1", precision="tfloat32", hidden=(8,)))
    environment, policy = build.make_policy(options)
    _, obs = environment.reset(jax.random.key(0), environment.params)
    counted = lambda function, *args: str(jax.make_jaxpr(function)(*args)).count("bits=10")
    assert counted(policy.apply, policy.init(jax.random.key(1), obs), obs) == 6
    critic = build.critic(options, environment)
    assert critic is not None
    for baseline in (build.value_baseline(options, environment), critic):
        assert counted(baseline.predict, baseline.init(jax.random.key(0), SAMPLE), SAMPLE) == 6
