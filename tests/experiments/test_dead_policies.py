"""Runs that diverged quietly: a policy without gradient and without entropy is named, and what may help."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import train
from experiments.harness import runner
from experiments.train import dead
from pgjax import environments
from pgjax.distributions import categorical
from pgjax.types import Policy


def watched(norms, first, cut=None):
    watch = dead.Watch(len(norms), first)
    for part in (norms[:, :cut], norms[:, cut:]) if cut else (norms,):
        watch.see({"gradient_norm": part, "num_steps": np.ones_like(part)})
    return watch


@pytest.mark.parametrize("cut", [None, 1, 4])
def test_a_run_is_dead_from_the_update_after_its_last_gradient(cut):
    norms = np.array([[1.0, 0, 2, 0, 0, 0], [0, 0, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0], [0, 0, 0, 0, 0, np.nan]])
    assert watched(norms, 30, cut).dead() == {0: 33, 1: 30}


def test_a_training_with_too_large_a_step_says_so(tmp_path):
    config = train.Config(env="corridor", lr=(1e6,), num_seeds=1, num_updates=40, num_episodes=8, gif=False)
    folder = runner.execute("train", config, train.run, output_dir=tmp_path, run_name="r")
    assert "No update changes this policy any more" in (folder / "summary.md").read_text(encoding="utf-8")


def test_a_dead_policy_is_named_and_one_that_still_draws_is_not():
    environment = environments.make("corridor")
    table = Policy(init=lambda key, obs: jnp.zeros(2), apply=lambda p, obs: p, distribution=categorical)
    params = jnp.array([[1e6, -1e6], [3.0, 0.0], [1e6, -1e6]])
    notes = []
    options = {"seed": 7, "num_seeds": 3, "lr": (1e6,)}
    recorder = types.SimpleNamespace(note=notes.append)
    rates = np.full(3, 1e6)
    dead.note_dead(
        options, environment, table, params, watched(np.zeros((3, 40)), 1000), rates, {2: "failed"}, recorder
    )
    (note,) = notes
    assert note.startswith("lr 1e+06, seed 7: from update 1000 on, gradient_norm is 0")
    assert "--lr" in note and "--max-grad-norm" in note
