"""How far two runs with one seed agree: bit for bit, or in their episodes and up to rounding, or in their means only.

1. On one machine, with the same versions and the same devices and threads: bit for bit. This file, the tests of
   resumption, and `tests/soak_kill.py` show it.
2. With other devices or threads: the same episodes, and gradients up to rounding. A run that `lax.map` trains is the
   same bit for bit on any number of devices, also if these share its episodes: `test_devices`, `test_episode_devices`
   and `test_processes` show it. This file shows what another number of threads, and `vmap`, change.
3. With other versions or on another kind of machine: only means, within their intervals. `test_learning` compares them
   with references; a run refuses to go on with other versions, see `test_rotation`.
"""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[3]
# Pieces of 8192 rows, because XLA computes the products of the usual 256 rows on one thread, whatever their number.
PROGRAM = """
import sys
import experiments
import jax, json, numpy as np, optax
from pgjax import baselines, environments, estimators, networks, training
environment = environments.make("CartPole-v1")
policy = networks.make_policy(environment, hidden=(64, 64))
init, apply = networks.make_value(environment, hidden=(64,))
value = baselines.value_function(init, apply, optimizer=optax.adam(0.01))
estimator = estimators.make_estimator(policy, returns=estimators.reward_to_go(), baseline=value, rows_per_piece=8192)
build = lambda _: training.make_trainer(environment, policy, estimator, optax.adam(0.01), num_episodes=512)
keys = jax.random.split(jax.random.key(0), 2)
found = training.train(build, keys, num_updates=3, chunk=int(sys.argv[1]), mapping=sys.argv[2], devices=1)
leaf = lambda x: np.asarray(jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
np.savez(sys.argv[3], *[leaf(x) for x in jax.tree.leaves(found.states)], **found.metrics)
"""


def trained(path, threads=2, chunk=3, mapping="map"):
    environment = os.environ | {"PJRT_NPROC": str(threads), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", PROGRAM, str(chunk), mapping, str(path)]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, capture_output=True)
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


@pytest.mark.slow
def test_one_seed_gives_the_same_bits_in_another_process_and_the_same_episodes_on_other_threads(tmp_path):
    first = trained(tmp_path / "first.npz")
    again = trained(tmp_path / "again.npz", chunk=1)
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name], err_msg=name)
    for other in (trained(tmp_path / "one.npz", threads=1), trained(tmp_path / "vmap.npz", mapping="vmap")):
        # The first updates see the same actions, because the random numbers are the same and rounding is small.
        for name in ("num_steps", "mean_return", "mean_length"):
            np.testing.assert_array_equal(first[name][:, :2], other[name][:, :2], err_msg=name)
        np.testing.assert_allclose(first["gradient_norm"][:, 0], other["gradient_norm"][:, 0], rtol=1e-5)
        assert any((first[name] != other[name]).any() for name in first), "rounding differs somewhere"
