"""A training of pgjax that was exported to a file solves CartPole-v1, in a process that imports JAX and little more.

The command is `python peers/exported_training.py OPTIONS`, where OPTIONS is a JSON object with `file`, `seed`,
`learning_rate`, `max_updates` and `solved`. It prints one line of JSON when 100 greedy episodes average `solved`.
Of pgjax it imports `pgjax.exported` alone.
"""

import json
import sys
import time
from collections.abc import Mapping
from typing import Any

import cartpole
import jax
import numpy as np

from pgjax import exported


def make_greedy(state: Mapping[str, jax.Array]):
    """The function from observations `[N, 4]` to the actions of the largest logits, `[N]`: the network in NumPy."""
    theta = {name: np.asarray(leaf)[0] for name, leaf in state.items() if name.startswith(".params")}
    layer = lambda number, what: theta[f".params['params']['Dense_{number}']['{what}']"]
    layers = [(layer(number, "kernel"), layer(number, "bias")) for number in range(len(theta) // 2)]

    def greedy(obs: np.ndarray) -> np.ndarray:
        for kernel, bias in layers[:-1]:
            obs = np.tanh(obs @ kernel + bias)
        kernel, bias = layers[-1]
        return np.argmax(obs @ kernel + bias, axis=-1)

    return greedy


def key_of(seed: int) -> jax.Array:
    """`jax.random.key(seed)` as an array `[1]`, for seeds below 2³². It is made of its words, without a program."""
    return jax.random.wrap_key_data(np.asarray([[0, seed]], np.uint32), impl="threefry2x32")


def solve(file: str, seed: int, learning_rate: float, max_updates: int, solved: float) -> dict[str, Any]:
    """Learn until 100 greedy episodes, played after every update, average `solved`. Return the seconds of each part."""
    start = time.perf_counter()
    program = exported.load(file)
    rate = np.asarray([learning_rate], np.float32)
    state = program.init(key_of(seed), rate)
    compile_seconds = time.perf_counter() - start

    learning, evaluating, score, updates, steps = 0.0, 0.0, 0.0, 0, 0
    while score < solved and updates < max_updates:
        start = time.perf_counter()
        state, metrics = program.update(state, rate, 1)
        middle = time.perf_counter()
        updates, steps = updates + 1, steps + int(metrics["num_steps"][0, 0])
        score = cartpole.mean_return(make_greedy(state), seed)
        learning, evaluating = learning + middle - start, evaluating + time.perf_counter() - middle
    return {
        "solved": bool(score >= solved),
        "score": float(score),
        "updates": updates,
        "steps": steps,
        "learning_seconds": learning,
        "evaluation_seconds": evaluating,
        "compile_seconds": compile_seconds,
        "cpu_seconds": time.process_time(),
    }


if __name__ == "__main__":
    print(json.dumps(solve(**json.loads(sys.argv[1]))), flush=True)
