"""Runs that diverged quietly: a policy without gradient and without entropy is named, and what may help."""

import types

import jax
import jax.numpy as jnp
import numpy as np

from experiments.train import dead
from pgjax import environments
from pgjax.distributions import categorical
from pgjax.types import Policy, TrainState


def test_a_run_is_dead_from_the_update_after_its_last_gradient():
    norms = np.array([[1.0, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, np.nan]])
    assert dead.first_dead_updates(norms, 30) == {0: 33, 1: 30}


def test_a_dead_policy_is_named_and_one_that_still_draws_is_not():
    environment = environments.make("corridor")
    table = Policy(init=lambda key, obs: jnp.zeros(2), apply=lambda p, obs: p, distribution=categorical)
    params = jnp.array([[1e6, -1e6], [3.0, 0.0], [1e6, -1e6]])
    states = TrainState(
        params=params, optimizer_state=(), estimator_state=(), lanes=(), key=jax.random.split(jax.random.key(0), 3),
        update=jnp.full(3, 1040), reward_state=(),
    )  # fmt: skip
    notes = []
    options = {"seed": 7, "num_seeds": 3, "lr": (1e6,)}
    metrics = {"gradient_norm": np.zeros((3, 40))}
    recorder = types.SimpleNamespace(note=notes.append)
    rates = np.full(3, 1e6)
    dead.note_dead(options, environment, table, states, metrics, rates, {2: "failed"}, recorder)
    (note,) = notes
    assert note.startswith("lr 1e+06, seed 7: from update 1000 on, gradient_norm is 0")
    assert "--lr" in note and "--max-grad-norm" in note
