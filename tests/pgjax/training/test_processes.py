"""Several processes of one machine train together, over the loopback interface; run it with `-m slow`."""

import json
import os
import socket
import subprocess
import sys

import pytest

# Each process plays its share of 16 episodes. It prints a digest of everything that a run holds, and its own pid.
PROGRAM = """
import hashlib, json, sys
import jax
number, count, port = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
jax.config.update("jax_num_cpu_devices", 1)
if count > 1:
    where = {"coordinator_address": f"127.0.0.1:{port}", "num_processes": count, "process_id": number}
    jax.distributed.initialize(**where, heartbeat_timeout_seconds=10)
import numpy as np, optax
from pgjax import baselines, environments, estimators, networks, training

environment = environments.make("CartPole-v1")
policy = networks.make_policy(environment, hidden=(16,))
estimator = estimators.make_estimator(
    policy, returns=estimators.reward_to_go(), baseline=baselines.moving_average(), standardise="population"
)
build = lambda rate: training.make_trainer(environment, policy, estimator, optax.adam(rate), num_episodes=EPISODES)
keys = jax.random.split(jax.random.key(0), 2)
run = training.train(build, keys, np.float32([0.01, 0.02]), num_updates=4, chunk=3)
state = run.states._replace(key=jax.random.key_data(run.states.key))
digest = hashlib.sha256(b"".join(np.asarray(x).tobytes() for x in jax.tree.leaves(state))).hexdigest()
print(json.dumps({"digest": digest} | {name: run.metrics[name].tolist() for name in ("mean_return", "num_steps")}))
"""

pytestmark = pytest.mark.slow


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def start(count, episodes=16):
    program, port = PROGRAM.replace("EPISODES", str(episodes)), str(free_port())
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "3", "PJRT_NPROC": "1"}
    command = [sys.executable, "-c", program]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    return [
        subprocess.Popen([*command, str(i), str(count), port], start_new_session=True, **pipes) for i in range(count)
    ]


def finished(processes, seconds=240):
    try:
        return [(*one.communicate(timeout=seconds), one.returncode) for one in processes]
    finally:
        for one in processes:
            one.kill()


@pytest.fixture(scope="module")
def alone():
    ((out, err, code),) = finished(start(1))
    assert code == 0, err
    return json.loads(out.splitlines()[-1])


@pytest.mark.parametrize("count", [2, 4])
def test_processes_that_share_episodes_train_as_one_does(alone, count):
    for out, err, code in finished(start(count)):
        assert code == 0, err
        assert json.loads(out.splitlines()[-1]) == alone


def test_episodes_that_the_processes_cannot_share_are_refused():
    for _, err, code in finished(start(2, episodes=5)):
        assert code != 0
        assert "num_episodes must be a multiple of 4, so that the 2 devices of 2 processes can share it" in err
