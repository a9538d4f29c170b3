"""Several builds in one program: each run is the run of its build alone, bit for bit, and fails alone."""

import functools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR

from pgjax import baselines, environments, estimators, training

ROOT = pathlib.Path(__file__).resolve().parents[3]
KEYS = jax.random.split(jax.random.key(0), 3)
NAMES = ("rloo", "average", "window")


def rates(**changed):
    """Each build has a learning rate of its own in each run, so that one program serves all tests."""
    return {name: jnp.asarray(changed.get(name, (0.01, 0.1, 0.3))) for name in NAMES}


def make_builds():
    """A build without a state, one that keeps a state, and one on windows, whose lanes go on."""
    corridor = environments.make("corridor", horizon=12)
    value = baselines.value_function(lambda key, obs: jnp.zeros(1), lambda params, obs: obs @ params, optax.sgd(0.1))
    make = functools.partial(estimators.make_estimator, TABULAR)
    of = {
        "rloo": (make(baseline=baselines.leave_one_out()), {}),
        "average": (make(baseline=baselines.moving_average()), {}),
        "window": (make(returns=estimators.lambda_return(0.9, 0.9), baseline=value), {"num_steps": 4}),
    }

    def build(name, of_run):
        estimator, options = of[name]
        return training.make_trainer(corridor, TABULAR, estimator, optax.sgd(of_run[name]), num_episodes=4, **options)

    return {name: functools.partial(build, name) for name in NAMES}


def leaves(trained):
    bits = lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x
    return [np.asarray(bits(x)) for x in jax.tree.leaves((trained.states, trained.metrics))]


def same(one, other):
    for x, y in zip(leaves(one), leaves(other), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


@pytest.fixture(scope="module")
def builds():
    return make_builds()


@pytest.fixture(scope="module")
def together(builds):
    return training.train_together(builds, KEYS, rates(), num_updates=4, chunk=2)


@pytest.mark.parametrize("name", NAMES)
def test_every_run_is_that_of_its_build_alone(builds, together, name):
    same(training.train(builds[name], KEYS, rates(), num_updates=4, chunk=3), together[name])
    # Runs and builds differ from each other, so that a mix-up would be seen.
    assert len(set(together[name].metrics["gradient_norm"][:, -1])) == 3
    assert len({run.metrics["gradient_norm"][0, -1] for run in together.values()}) == 3


def test_the_host_hears_of_all_builds_and_they_go_on(builds, together):
    begun, heard = [], []
    first = training.train_together(
        builds,
        KEYS,
        rates(),
        num_updates=2,
        chunk=2,
        on_start=lambda states: begun.append({name: state.update.tolist() for name, state in states.items()}),
        on_chunk=lambda done, metrics, states: heard.append(
            (done, {name: (metrics[name]["mean_return"].shape, states[name].update.tolist()) for name in metrics})
        ),
        keep_metrics=False,
    )
    assert begun == [{name: [0, 0, 0] for name in builds}]
    assert heard == [(2, {name: ((3, 2), [2, 2, 2]) for name in builds})]
    assert all(run.metrics == {} for run in first.values())
    states = {name: run.states for name, run in first.items()}
    rest = training.train_together(builds, KEYS, rates(), num_updates=2, chunk=2, states=states)
    for name, run in rest.items():
        whole = together[name]
        same(run, whole._replace(metrics={metric: x[:, 2:] for metric, x in whole.metrics.items()}))


def test_a_run_that_fails_ends_no_other(builds, together):
    bad = (0.01, np.inf, 0.3)
    message = r"^rloo: 1 of 3 runs .*run 1 at update 0.*; average: 1 of 3"
    with pytest.raises(training.FailedBuildsError, match=message) as caught:
        training.train_together(builds, KEYS, rates(rloo=bad, average=bad), num_updates=4, chunk=2)
    error = caught.value
    assert isinstance(error, training.NonFiniteError) and set(error.errors) == {"rloo", "average"}
    for name in ("rloo", "average"):
        assert error.errors[name].trained is error.runs[name] and list(error.errors[name].failures) == [1]
        returns = error.runs[name].metrics["mean_return"]
        np.testing.assert_array_equal(returns[[0, 2]], together[name].metrics["mean_return"][[0, 2]])
        assert np.isfinite(returns[1, 0]) and np.isnan(returns[1, 1:]).all()
    same(error.runs["window"], together["window"])


def test_training_ends_only_where_no_run_of_any_build_is_left(builds):
    heard, bad = [], (np.inf,) * 3
    for failing in (("rloo",), NAMES):
        with pytest.raises(training.FailedBuildsError) as caught:
            hear = lambda done, metrics, states, failing=failing: heard.append((len(failing), done))
            given = rates(**dict.fromkeys(failing, bad))
            training.train_together(builds, KEYS, given, num_updates=4, chunk=2, on_chunk=hear)
        assert caught.value.runs["rloo"].metrics["num_steps"].shape == (3, 4 if failing == ("rloo",) else 2)
    assert heard == [(1, 2), (1, 4)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"builds": {}}, "builds must have at least one name → build, got none"),
        ({"states": {"other": ()}}, "states must have the names of the builds, rloo, got other"),
        ({"states": {"rloo": np.ones(2)}}, r"states of rloo must have 3 rows in every leaf.*\[2\]"),
        ({"keys": KEYS[0]}, "keys must be typed keys of shape"),
        ({"hyperparams": jnp.ones(2)}, "hyperparams must have 3 rows"),
        ({"num_updates": 0}, "num_updates"),
        ({"mapping": "both"}, "mapping must be one of"),
        ({"devices": 99}, r"devices must be in \[1, "),
    ],
)
def test_what_does_not_belong_together_is_refused(builds, change, message):
    given = {"builds": {"rloo": builds["rloo"]}, "keys": KEYS, "hyperparams": rates(), "num_updates": 1}
    with pytest.raises(ValueError, match=message):
        training.train_together(**(given | change))


OPTIMISED = """
import jax
jax.config.update("jax_num_cpu_devices", 2)
import sys
sys.path[:0] = ["tests/pgjax/training", "tests/shared"]
from test_training_together import KEYS, make_builds, rates, same
from pgjax import training
builds = make_builds()
for count in (1, 2):
    together = training.train_together(builds, KEYS, rates(), num_updates=20, devices=count)
    for name, build in builds.items():
        same(training.train(build, KEYS, rates(), num_updates=20, devices=1), together[name])
# Fewer runs than devices: two devices share the episodes of one run after another.
one = jax.tree.map(lambda x: x[:1], rates())
shared = training.train_together(builds, KEYS[:1], one, num_updates=4, devices=2)
for name, build in builds.items():
    same(training.train(build, KEYS[:1], one, num_updates=4, devices=2), shared[name])
odd = {"rloo": builds["rloo"], "odd": lambda rate: builds["average"](rate)._replace(num_episodes=3)}
try:
    training.train_together(odd, KEYS[:1], one, num_updates=4, devices=2)
except ValueError as error:
    assert "builds must all share their episodes" in str(error) and "(3, 1) of 'odd'" in str(error), error
else:
    raise AssertionError("builds whose episodes are shared differently were accepted")
"""


@pytest.mark.slow
def test_optimised_programs_give_the_same_runs_on_any_devices():
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "0", "XLA_FLAGS": ""}
    command = [sys.executable, "-W", "error", "-c", OPTIMISED]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]


def test_one_state_goes_on_in_two_builds(builds):
    build = builds[NAMES[0]]
    begun = training.train(build, KEYS, rates(), num_updates=1).states
    copy = jax.tree.map(jnp.copy, begun)
    pair = {"a": build, "b": build}
    both = training.train_together(pair, KEYS, rates(), num_updates=2, states={"a": begun, "b": begun})
    alone = training.train(build, KEYS, rates(), num_updates=2, states=copy)
    same(both["a"], alone)
    same(both["b"], alone)
