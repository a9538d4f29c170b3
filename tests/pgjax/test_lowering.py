"""Trainings are lowered for a GPU and a TPU, on any machine: no call of the host, and only calls that these know."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from lowered_trainings import BREAKOUT, CARTPOLE, CRITIC, GRU, TOKENS, make

from pgjax import baselines, estimators, rollouts, training
from pgjax._linear import pseudo_inverse
from pgjax.training import _program
from pgjax.training._chunks import Pace
from pgjax.training.sharding import Shares

# A scatter that adds real numbers.
ADDED = r'"stablehlo.scatter"[^\n]*\n[^\n]*\n[^\n]*stablehlo.add[^\n]*f32'
# Marks of the partitioner, which XLA removes on every device.
MARKS = {"Sharding", "SPMDFullToShardShape", "SPMDShardToFullShape"}
# What else a program may call: a Pallas kernel, and decompositions of matrices of NVIDIA's library.
KERNEL = {"__gpu$xla.gpu.triton", "triton_kernel_call"}
DECOMPOSITIONS = {f"cusolver_{name}_ffi" for name in ("syevd", "gesvd", "geqrf", "orgqr")}


def calls_in(text: str) -> set[str]:
    """The names of the functions outside XLA that a lowered program calls, and its exchanges with the host."""
    found = set(re.findall(r'custom_call @"?([^"(]+)"?\(', text))
    return found | set(re.findall(r"\b(?:infeed|outfeed|send|recv)\b", text))


def lowered(function, *arguments, platform="cuda") -> str:
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.fixture(autouse=True)
def accelerator(monkeypatch):
    """Every choice by the kind of device is that of a GPU, also on a machine without one."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")


@pytest.mark.parametrize("kind", [CARTPOLE, CRITIC, BREAKOUT, GRU, TOKENS])
def test_an_update_stays_on_the_device(kind):
    _, _, trainer = make(kind)
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    traced = jax.jit(trainer.update, donate_argnums=0).trace(state)
    for platform in ("cuda", "tpu"):
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        assert "stablehlo.while" in text and calls_in(text) == set(), platform
        assert "f64" not in text
        # A GPU adds numbers that are scattered to one place in an order that changes from run to run.
        assert not re.search(ADDED, text), platform


def test_a_rollout_stays_on_the_device():
    environment, policy, trainer = make(CARTPOLE)
    params = jax.eval_shape(trainer.init, jax.random.key(0)).params
    play = functools.partial(rollouts.episodes, environment, policy)
    assert calls_in(lowered(play, params, jax.random.split(jax.random.key(0), 8))) == set()


def test_the_program_of_a_sweep_stays_on_the_device(monkeypatch):
    """It is the program that `train_together` compiles, with all runs at once, as on a GPU."""
    texts = []
    keep = lambda self, function, *arguments, **options: texts.append(lowered(function, *arguments))
    monkeypatch.setattr(Shares, "compiled", keep)
    environment, policy, _ = make(CARTPOLE)
    make_estimator = functools.partial(estimators.make_estimator, policy)
    of = {"average": make_estimator(baseline=baselines.moving_average()), "plain": make_estimator()}

    def build(estimator, rate):
        return training.make_trainer(environment, policy, estimator, optax.adam(rate), num_episodes=8)

    builds = {name: functools.partial(build, estimator) for name, estimator in of.items()}
    layout, rates = Shares.of(jax.devices()[:1], 3), jnp.asarray([0.1, 0.2, 0.3])
    how = _program.How(
        Pace(4, 3, 2, None), "vmap", layout, on_start=None, on_compiled=None, on_chunk=None, keep_metrics=False
    )
    init = lambda key, rate: {name: build(rate).init(key) for name, build in builds.items()}
    states = jax.eval_shape(jax.vmap(init), jax.random.split(jax.random.key(0), 3), rates)
    _program._compile(builds, states, rates, how)
    assert calls_in(texts[0]) <= MARKS and "tensor<3x64x" not in texts[0]
    assert re.search(r"tensor<3x(\d+x)*8x8xf32>", texts[0]), "the runs are vmapped"


def test_a_natural_gradient_calls_no_more_than_the_decompositions_of_the_device():
    environment, policy, _ = make(CARTPOLE)
    natural = estimators.natural(estimators.make_estimator(policy), policy, damping=0.1)
    trainer = training.make_trainer(environment, policy, natural, optax.sgd(0.1), num_episodes=8)
    found = calls_in(lowered(trainer.update, jax.eval_shape(trainer.init, jax.random.key(0))))
    assert found <= DECOMPOSITIONS, found
    small = calls_in(lowered(pseudo_inverse, jax.ShapeDtypeStruct((8, 8), jnp.float32)))
    assert small and small <= DECOMPOSITIONS, small


def test_one_kernel_is_a_call_of_triton():
    environment, policy, trainer = make(CARTPOLE)
    params = jax.eval_shape(trainer.init, jax.random.key(0)).params
    play = functools.partial(rollouts.fused, environment, policy)  # `interpret` is chosen by the kind of device
    found = calls_in(lowered(play, params, jax.random.split(jax.random.key(0), 128)))
    assert found and found <= KERNEL, found


def test_a_sum_in_any_order_is_found():
    add = lambda x, at: jnp.zeros(3).at[at].add(x)
    text = lowered(add, jnp.ones(2), jnp.zeros(2, jnp.int32))
    assert re.search(ADDED, text)


def test_calls_of_the_host_are_found():
    """What the other tests look for: the wrong twin asks the host for a number."""
    ask = lambda x: jax.pure_callback(np.sin, jax.ShapeDtypeStruct((), jnp.float32), x)
    (found,) = calls_in(jax.jit(ask).lower(jnp.float32(1.0)).as_text())
    assert "callback" in found
