"""Runs over devices, the same bit for bit on however many; devices and the compilation cache of experiments."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def python(code: str, **environment: str) -> subprocess.CompletedProcess:
    """Runs `code` in a new process, from the checkout."""
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=300)


def passes(code: str, **environment: str) -> None:
    done = python(code, **environment)
    assert done.returncode == 0, done.stderr[-4000:]


RUNS = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import functools, re
import jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pgjax import baselines, environments, estimators, networks, training
from pgjax.training.sharding import Shares

corridor = environments.make("corridor", horizon=12)
policy = networks.make_policy(corridor, hidden=(8,))
estimator = estimators.make_estimator(policy, baseline=baselines.moving_average())
build = lambda rate: training.make_trainer(corridor, policy, estimator, optax.adam(rate), num_episodes=3)
keys, rates = jax.random.split(jax.random.key(0), 16), jnp.geomspace(1e-3, 1.0, 16)
train = functools.partial(training.train, build, num_updates=4, chunk=2)
alone = train(keys, rates, devices=1)


def leaves(trained, runs=16):
    states = trained.states._replace(key=jax.random.key_data(trained.states.key))
    return [np.asarray(x)[:runs] for x in jax.tree.leaves((states, trained.metrics))]


def same(trained, runs=16):
    for x, y in zip(leaves(alone, runs), leaves(trained), strict=True):
        np.testing.assert_array_equal(x, y, strict=True)


"""


def test_runs_are_the_same_bit_for_bit_on_however_many_devices():
    passes(
        RUNS
        + """
for count in (2, 4, 8):
    same(train(keys, rates, devices=count))
# The updates of one run, one after another, without anything of train's.
init, update = jax.jit(lambda key, rate: build(rate).init(key)), jax.jit(lambda state, rate: build(rate).update(state))
state = init(keys[15], rates[15])
for u in range(4):
    state, metrics = update(state, rates[15])
    assert metrics["mean_return"] == alone.metrics["mean_return"][15, u]
jax.tree.map(np.testing.assert_array_equal, state.params, jax.tree.map(lambda x: x[15], alone.states.params))
# A wrong twin would be seen: no two runs are the same.
assert len(set(alone.metrics["gradient_norm"][:, 0])) == 16
"""
    )


def test_any_number_of_runs_goes_on_on_any_devices():
    passes(
        RUNS
        + """
heard = []
hear = lambda done, metrics, states: heard.append((done, states.update.shape, metrics["mean_return"].shape))
half = train(keys[:5], rates[:5], num_updates=2, devices=2, on_chunk=hear)  # 3 and 3: one of them twice, and dropped
assert heard == [(2, (5,), (5, 2))] and half.states.update.shape == (5,), heard
# Keys and rates may lie on devices already; these are five runs on five of eight.
mesh = Mesh(np.asarray(jax.devices()), ("mine",))
placed = jax.device_put((keys, rates), NamedSharding(mesh, PartitionSpec("mine")))
five = [x[:5] for x in placed]
rest = train(*five, num_updates=2, states=half.states)
whole = {name: np.concatenate([half.metrics[name], x], axis=1) for name, x in rest.metrics.items()}
same(rest._replace(metrics=whole), runs=5)
same(train(*placed))
with jax.default_device(jax.devices()[5]):
    assert train(keys[:1], rates[:1], num_updates=1).states.update.devices() == {jax.devices()[5]}
refused = {0: r"devices must be in \\[1, 8\\], got 0", 9: "got 9", 2.5: "got 2.5", (): "at least one"}
for devices, words in refused.items():
    try:
        train(keys, rates, devices=devices)
    except ValueError as error:
        assert re.search(words, str(error)), error
    else:
        raise AssertionError(devices)
"""
    )


def test_devices_exchange_nothing_and_all_of_them_work():
    passes(
        RUNS
        + """
shares = Shares.of(jax.devices(), 16)
state = jax.jit(shares.each(lambda key, rate: build(rate).init(key), "auto"))(*shares.scatter((keys, rates)))
program = jax.jit(shares.each(lambda state, rate: build(rate).update(state), "auto"))
text = program.lower(state, shares.scatter(rates)).compile().as_text()
assert "f32[2,1,8]" in text and "f32[16,1,8]" not in text, "each device has two runs"
exchanges = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
assert not [word for word in exchanges if word in text]
assert len(state.update.devices()) == 8
# A wrong twin, which the words give away.
mean = jax.shard_map(
    lambda x: jax.lax.pmean(x, "shares"), mesh=shares.mesh, in_specs=PartitionSpec("shares"), out_specs=PartitionSpec()
)
assert "all-reduce" in jax.jit(mean).lower(rates).compile().as_text()
"""
    )
