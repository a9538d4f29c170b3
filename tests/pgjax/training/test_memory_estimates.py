"""The estimate of memory: what is alive at once in a program, and what a trainer needs for its runs."""

import jax
import jax.numpy as jnp
import optax
import pytest

from pgjax import environments, estimators, networks, training
from pgjax.training.memory import bytes_of, peak_bytes

N = 1000
X = jax.ShapeDtypeStruct((N,), jnp.float32)
OUTER = 4 * N * N


def test_arrays_count_from_where_they_are_made_to_where_they_are_read_last():
    both = lambda x: (x[:, None] * x).sum() + (x[:, None] + x).sum()  # one matrix after the other
    together = lambda x: jnp.vdot(x[:, None] * x, x[:, None] + x)
    assert OUTER <= peak_bytes(both, X) < 1.2 * OUTER
    assert 2 * OUTER <= peak_bytes(together, X) < 2.2 * OUTER


def test_a_loop_writes_its_carry_in_place():
    def fill(x):
        start = jnp.zeros((N, N))
        return jax.lax.fori_loop(0, N, lambda k, m: m.at[k].set(x), start)

    assert OUTER <= peak_bytes(fill, X) < 1.3 * OUTER


def test_what_a_loop_stacks_and_what_its_body_needs_both_count():
    rows = lambda x: jax.lax.scan(lambda c, _: (c, (x[:, None] * x).sum(0)), 0.0, length=N)[1]
    assert 2 * OUTER <= peak_bytes(rows, X) < 2.3 * OUTER


def test_keys_have_the_size_of_their_numbers():
    assert bytes_of(jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 5))) == 5 * 8


@pytest.fixture(scope="module")
def make():
    environment = environments.make("corridor", horizon=20)
    policy = networks.make_policy(environment, hidden=(8,))
    estimator = estimators.make_estimator(policy, returns=estimators.reward_to_go())
    of = lambda episodes: training.make_trainer(environment, policy, estimator, optax.adam(0.1), num_episodes=episodes)
    return of


def test_the_estimate_grows_with_the_batch_and_the_runs(make):
    small, large = (training.estimate_memory(make(n), devices=1) for n in (1024, 4096))
    assert 3 * small.update < large.update < 4.2 * small.update
    assert small.states == large.states
    several = training.estimate_memory(make(1024), 6, devices=1)
    assert several.states == 6 * small.states and several.update == small.update  # one run after another
    at_once = training.estimate_memory(make(1024), 6, devices=1, mapping="vmap")
    assert at_once.update == 6 * small.update


def test_the_estimate_is_near_what_the_compiler_reserves(make):
    trainer = make(4096)
    state = jax.eval_shape(trainer.init, jax.random.key(0))
    reserved = jax.jit(trainer.update).lower(state).compile().memory_analysis().temp_size_in_bytes
    assert 0.5 * reserved < training.estimate_memory(trainer, devices=1).update < 2 * reserved


def test_what_is_no_trainer_is_refused(make):
    with pytest.raises(ValueError, match=r"trainer must be of type Trainer .* got 'rloo'"):
        training.estimate_memory("rloo")
    with pytest.raises(ValueError, match="num_runs must be at least 1, got 0"):
        training.estimate_memory(make(4), 0)
