"""One run whose episodes several devices share is the same bit for bit on however many."""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]

# One process makes all checks, each under a name; it prints the names of those that hold.
CHECKS = """
import jax
jax.config.update("jax_num_cpu_devices", 8)
import dataclasses
import jax.numpy as jnp, numpy as np, optax
from pgjax import baselines, environments, estimators, networks, rollouts, training
from pgjax.training.sharding import SharedEpisodes, Shares, choose_layout

cartpole = dataclasses.replace(environments.make("CartPole-v1"), horizon=40)
recall = environments.make("recall", cues=2, delay=3)
mlp = networks.make_policy(cartpole, hidden=(8,))
gru = networks.make_policy(recall, network="gru", hidden=(8,), network_options={"memory_size": 8})
value = lambda environment: baselines.value_function(*networks.make_value(environment, hidden=(8,)), optax.adam(1e-2))
windowed = {"returns": estimators.lambda_return(0.9, 0.99), "over_time": "mean"}


def trained(
    environment, policy, options, num_episodes, devices, num_runs=1, num_updates=20, num_steps=None, meter=None, **more
):
    estimator = estimators.make_estimator(policy, **options)
    sizes = {"num_episodes": num_episodes, "num_steps": num_steps, "meter": meter}
    build = lambda _: training.make_trainer(environment, policy, estimator, optax.adam(1e-2), **sizes)
    keys = jax.random.split(jax.random.key(0), num_runs)
    return training.train(build, keys, num_updates=num_updates, devices=devices, **more)


def leaves(run):
    lanes = run.states.lanes and run.states.lanes._replace(key=())
    states = run.states._replace(key=jax.random.key_data(run.states.key), lanes=lanes)
    return [np.asarray(x) for x in jax.tree.leaves((states, run.metrics))]


def same(a, b):
    return all(np.array_equal(x, y, equal_nan=x.dtype.kind == "f") for x, y in zip(a, b, strict=True))


def hold(name, condition):
    print(name if condition else f"NOT {name}", flush=True)


cases = {
    "groups": (cartpole, mlp, {"baseline": baselines.leave_one_out(group_size=4)}, 32, (8,)),
    "value": (cartpole, mlp, {"baseline": value(cartpole)}, 32, (2, 4, 8)),
    "memory": (recall, gru, {"baseline": baselines.moving_average()}, 16, (8,)),
    "twelve": (cartpole, mlp, {}, 12, (8,)),
    "six": (cartpole, mlp, {}, 6, (8,)),
}
alone = {}
for name, (*what, counts) in cases.items():
    alone[name] = leaves(trained(*what, 1))
    hold(name, all(same(alone[name], leaves(trained(*what, count))) for count in counts))

# A wrong twin is seen: sums in another order differ in their last bits, and in nothing more after two updates.
a, b = (leaves(trained(*cases["value"][:4], 2, num_updates=2, deterministic=flag)) for flag in (True, False))
near = lambda x, y: np.allclose(x, y, rtol=1e-5, atol=1e-5)
close = all(map(near, a, b))
hold("any order", close and not same(a, b))

# Twelve episodes: at most two devices share them in a fixed order, and six in any order.
twelve = lambda **how: leaves(trained(*cases["value"][:3], 12, 8, num_updates=2, **how))
hold("six devices in any order", all(map(near, twelve(), twelve(deterministic=False))))

# With sums in any order no array [T, B] is exchanged; a trace of the other order is never used again.
trainer = training.make_trainer(cartpole, mlp, estimators.make_estimator(mlp), optax.adam(1e-2), num_episodes=32)
gathers = []
for flag in (True, False, True):
    shares = SharedEpisodes.of(jax.devices()[:4], flag)
    text = shares.compiled(trainer.update, shares.scatter(trainer.init(jax.random.key(0)))).as_text()
    gathers.append("[40,32]" in "".join(line for line in text.splitlines() if " all-gather" in line))
hold("exchanges", gathers == [True, False, True])
meter = lambda **how: leaves(trained(*cases["value"][:3], 6, num_updates=2, meter=1, **how))
hold("a part that devices cannot share", all(map(near, meter(devices=1), meter(devices=6, deterministic=False))))

lanes = (cartpole, mlp, windowed | {"baseline": value(cartpole)}, 16)
alone["windows"] = leaves(trained(*lanes, 1, num_steps=20))
hold("windows", same(alone["windows"], leaves(trained(*lanes, 8, num_steps=20))))

three = [leaves(trained(*cases["value"][:4], count, num_runs=3, num_updates=5)) for count in (1, 8)]
hold("three runs", same(*three) and len(set(three[0][0].ravel())) > 1)

layouts = {
    "groups": choose_layout(jax.devices(), 1, 32, 4, True),
    "twelve": choose_layout(jax.devices(), 1, 12, 1, True),
    "ten": choose_layout(jax.devices(), 1, 10, 1, True),
    "six": choose_layout(jax.devices(), 3, 32, 1, True),
    "runs": choose_layout(jax.devices(), 8, 32, 1, True),
    "any order": choose_layout(jax.devices(), 1, 12, 1, False),
    "groups in any order": choose_layout(jax.devices(), 1, 12, 4, False),
}
counts = {name: (type(layout), layout.mesh.size) for name, layout in layouts.items()}
wanted = [(SharedEpisodes, 8), (SharedEpisodes, 2), (Shares, 1), (SharedEpisodes, 8), (Shares, 8)]
wanted += [(SharedEpisodes, 6), (SharedEpisodes, 3)]
hold("layouts", list(counts.values()) == wanted)

play = lambda params, keys, **how: rollouts.episodes(
    cartpole, mlp, params, keys, group_size=4, record_log_probs=True, **how
)
params = mlp.init(jax.random.key(1), jnp.zeros(4))
arguments = (params, jax.random.split(jax.random.key(2), 32))
played = []
for count in (1, 2, 4, 8):
    shares = SharedEpisodes.of(jax.devices()[:count], True)
    placed = shares.scatter(arguments)
    with jax.set_mesh(shares.mesh):
        trajectory = jax.jit(play)(*placed)
        in_tiles = jax.jit(lambda *given: play(*given, tile=2, chunk=5))(*placed)
    assert len(trajectory.rewards.devices()) == count
    played.append([np.asarray(x) for x in jax.tree.leaves((trajectory, in_tiles))])
hold("trajectories", all(same(played[0], other) for other in played[1:]))
one, tiles = (jax.tree.leaves(x._replace(behaviour_log_probs=())) for x in (trajectory, in_tiles))
hold("tiles", same(one, tiles))
"""


pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def found():
    command = [sys.executable, "-W", "error", "-c", CHECKS]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "name",
    [
        *("groups", "value", "memory", "twelve", "six", "any order", "six devices in any order", "windows"),
        *("three runs", "layouts", "trajectories", "tiles", "exchanges", "a part that devices cannot share"),
    ],
)
def test_devices_that_share_episodes_give_the_numbers_of_one(found, name):
    assert name in found
