"""What an accelerator would choose gives the episodes and gradients of what a CPU chooses; and who is asked for it."""

import contextlib
import os
import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lowered_trainings import BREAKOUT, CARTPOLE, CRITIC, GRU, make
from oracle import random_mdp
from policies import draw_params, tabular

from pgjax import _pieces, _platform, estimators, exact, networks, rollouts, rows, training
from pgjax.networks import precision
from pgjax.rollouts import _tiles
from pgjax.training import sharding
from pgjax.training.sharding import choose_mapping


def pretend(monkeypatch, kind):
    """JAX's first devices are said to be of this kind; programs are compiled for the real ones all the same."""
    monkeypatch.setattr(jax, "default_backend", lambda: kind)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)


@pytest.fixture
def small(monkeypatch):
    """Tiles and packing of an accelerator for batches of tests: tiles of 16 lanes, and rows that are always packed."""
    monkeypatch.setattr(_tiles, "_ACCELERATOR_LANES", 16)
    monkeypatch.setattr(_pieces, "_PACKED_ROWS", 1)


@pytest.mark.parametrize("kind", [CRITIC, *(pytest.param(kind, marks=pytest.mark.slow) for kind in (GRU, BREAKOUT))])
def test_an_update_is_that_of_a_cpu(kind, small, monkeypatch):
    found = {}
    for device in ("cpu", "gpu"):
        pretend(monkeypatch, device)
        _, _, trainer = make(kind)
        two = lambda key, of=trainer: jax.lax.scan(lambda state, _: of.update(state), of.init(key), length=2)
        found[device] = jax.jit(two)(jax.random.key(3))
        width = _tiles.tile_width(64)
        assert (width, rows.default_rows()) == {"cpu": (None, 256), "gpu": (16, 1 << 20)}[device]
    (one, its), (other, others) = found["cpu"], found["gpu"]
    np.testing.assert_array_equal(its["num_steps"], others["num_steps"])
    np.testing.assert_allclose(its["mean_return"], others["mean_return"], rtol=1e-6)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-5), one.params, other.params)
    start = make(kind)[2].init(jax.random.key(3)).params
    moved = jax.tree.map(lambda x, y: float(np.abs(x - y).max()), start, one.params)
    assert max(jax.tree.leaves(moved)) > 1e-3, "the updates change θ"


def test_episodes_are_those_of_a_cpu(small, monkeypatch):
    environment, policy, _ = make(CARTPOLE)
    params = policy.init(jax.random.key(0), jnp.zeros(4))
    keys = jax.random.split(jax.random.key(1), 64)
    played = {}
    for device in ("cpu", "gpu"):
        pretend(monkeypatch, device)
        play = lambda params, keys: rollouts.episodes(environment, policy, params, keys)
        played[device] = jax.jit(play)(params, keys)
    for name in ("alive", "actions", "rewards", "terminated"):
        np.testing.assert_array_equal(getattr(played["cpu"], name), getattr(played["gpu"], name))
    assert len(set(np.asarray(played["cpu"].alive).sum(axis=0).tolist())) > 1


def test_a_large_row_has_fewer_rows_in_a_piece_on_an_accelerator(monkeypatch):
    pretend(monkeypatch, "gpu")
    assert [rows.default_rows(size) for size in (1, 16, 400, 10**6)] == [1 << 20, 1 << 20, (1 << 24) // 400, 1024]
    pretend(monkeypatch, "tpu")
    assert rows.default_rows() == 1 << 20


def test_runs_are_vmapped_on_an_accelerator_alone():
    device = lambda kind: types.SimpleNamespace(platform=kind)
    assert [choose_mapping("auto", device(kind)) for kind in ("cpu", "gpu", "tpu")] == ["map", "vmap", "vmap"]
    assert choose_mapping("map", device("gpu")) == "map" and choose_mapping("vmap", device("cpu")) == "vmap"


def test_runs_all_at_once_are_those_one_after_another(small, monkeypatch):
    """The branches of a GPU together: vmap over the runs, its tiles, and its pieces."""
    environment, policy, _ = make(CARTPOLE)
    estimator = estimators.make_estimator(policy)
    build = lambda rate: training.make_trainer(environment, policy, estimator, optax.sgd(rate), num_episodes=64)
    keys, rates = jax.random.split(jax.random.key(0), 3), jnp.asarray([1e-3, 2e-3, 3e-3])
    alone = training.train(build, keys, rates, num_updates=2, devices=1, mapping="map")
    monkeypatch.setattr(sharding, "traced_for", lambda device: contextlib.nullcontext())  # the devices are CPUs
    pretend(monkeypatch, "gpu")
    together = training.train(build, keys, rates, num_updates=2, devices=1, mapping="vmap")
    np.testing.assert_array_equal(alone.metrics["num_steps"], together.metrics["num_steps"])
    for x, y in zip(*(jax.tree.leaves(run.states.params) for run in (alone, together)), strict=True):
        np.testing.assert_allclose(x, y, rtol=1e-4, atol=1e-6)


def test_the_default_device_says_for_what_a_program_is_traced(monkeypatch):
    pretend(monkeypatch, "gpu")
    assert _platform.platform() == "gpu"
    with jax.default_device(jax.devices("cpu")[0]):
        assert _platform.platform() == "cpu"
    for name, kind in {"cuda": "gpu", "rocm": "gpu", "tpu": "tpu"}.items():
        pretend(monkeypatch, name)
        assert _platform.platform() == kind


def test_a_training_on_the_cpus_of_a_machine_with_a_gpu_is_that_of_a_cpu(monkeypatch):
    """The wrong twin asks JAX for its first devices, and not for those that train."""
    environment, policy, _ = make(CARTPOLE)
    seen = []

    def apply(params, obs):
        seen.append((_platform.platform(), rows.default_rows()))
        return policy.apply(params, obs)

    watched = policy._replace(apply=apply)
    estimator = estimators.make_estimator(watched)
    build = lambda rate: training.make_trainer(environment, watched, estimator, optax.sgd(rate), num_episodes=4)
    pretend(monkeypatch, "gpu")
    keys = jax.random.split(jax.random.key(0), 1)
    training.train(build, keys, jnp.ones(1), num_updates=1, devices=jax.devices("cpu")[:1])
    assert seen and set(seen) == {("cpu", 256)}, set(seen)


def test_the_kernel_and_the_units_of_a_gpu_are_chosen_on_a_gpu_alone(monkeypatch):
    product = networks.with_precision(lambda x: x @ x, "tfloat32")
    asks = lambda: "TF32" in str(jax.make_jaxpr(lambda x: product(x))(jnp.eye(2)))
    for kind, expected in {"cpu": False, "gpu": True, "tpu": False}.items():
        pretend(monkeypatch, kind)
        assert asks() == expected


def test_exact_numbers_are_computed_in_float32_on_a_gpu():
    """JAX multiplies in TF32 there unless a product asks for more: the wrong twin, an ordinary product, does not."""
    mdp, params = random_mdp(0), draw_params(tabular, seed=1)
    program = lambda function: jax.make_jaxpr(function)(params).jaxpr
    theorem = lambda params: exact.policy_gradient_theorem(tabular, params, mdp)
    with jax.default_matmul_precision(None):
        assert not precision._has_product(program(theorem))
        assert precision._has_product(program(lambda params: tabular(params, mdp.observations)))
    with jax.default_matmul_precision("bfloat16"):  # the user's own choice
        assert "HIGHEST" not in str(program(theorem))
