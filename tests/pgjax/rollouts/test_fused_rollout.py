"""The kernel that plays complete episodes, step for step against the scan, and its lowering for a GPU."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import environments, networks, rollouts
from pgjax.environments.cartpole import CartPoleParams
from pgjax.rollouts import _fused_kernel as kernel
from pgjax.types import Box, Discrete, Environment, Step

NARROW = CartPoleParams(theta_threshold_radians=0.06)  # so that episodes end after 1 … 12 steps
NUM_LANES = 19  # a block of 16 does not divide it


def walk(horizon=6):
    """A random walk on seven places that are stored in tables, with a wind; past its end the state overflows."""
    pay, see = jnp.asarray([5.0, 0.0, 0.5, -1.0, 0.25, 0.0, 9.0]), jnp.asarray(np.eye(7, 20), jnp.float32)

    def reset(key, params):
        place = jax.random.randint(key, (), 2, 5)
        return {"place": place, "heat": jnp.zeros(2)}, see[place]

    def step(key, state, action, params):
        wind = jax.random.bernoulli(key, 0.3).astype(jnp.int32)
        moved = jax.lax.switch(action, [lambda x: x - 1, lambda x: x, lambda x: x + 1], state["place"]) + wind
        ended = (state["place"] <= 0) | (state["place"] >= 6)
        heat = jnp.where(ended, jnp.inf, state["heat"] + jnp.stack([params, moved.astype(jnp.float32)]))
        place = jnp.clip(moved, 0, 6)
        done = (place == 0) | (place == 6)
        return {"place": place, "heat": heat}, Step(obs=see[place] + heat[0], reward=pay[place], terminated=done)

    return Environment(
        name="walk",
        reset=reset,
        step=step,
        params=0.125,
        observation_space=Box(low=0.0, high=np.inf, shape=(20,)),
        action_space=Discrete(3),
        horizon=horizon,
    )


def assert_same_episodes(scan, fused):
    """Equal rows while the episodes run, zeros behind their ends, and equal last observations."""
    np.testing.assert_array_equal(scan.alive, fused.alive)
    for name in ("terminated", "truncated", "actions", "rewards", "obs", "behaviour_log_probs"):
        ours, theirs = np.asarray(getattr(scan, name)), np.asarray(getattr(fused, name))
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
        shown = np.where(np.asarray(scan.alive).reshape(scan.alive.shape + (1,) * (ours.ndim - 2)), ours, 0)
        np.testing.assert_allclose(shown, theirs, rtol=2e-6, atol=2e-6, err_msg=name)
    np.testing.assert_allclose(scan.final_obs, fused.final_obs, rtol=2e-6, atol=2e-6)


def play_both(environment, policy, env_params=None):
    """One compiled function of θ and the keys that plays the same episodes twice."""
    how = {"env_params": env_params, "record_log_probs": True}

    def both(params, keys):
        scan = rollouts.episodes(environment, policy, params, keys, **how)
        return scan, rollouts.fused(environment, policy, params, keys, block=16, interpret=True, **how)

    return jax.jit(both)


def far_from_uniform(policy, obs):
    params = policy.init(jax.random.key(0), obs)
    return jax.tree.map(lambda x: x + 0.5 * jax.random.normal(jax.random.key(1), x.shape), params)


def seeds_of(count):
    return [jax.random.split(jax.random.key(seed), NUM_LANES) for seed in range(count)]


def test_cartpole_with_two_layers_is_played_as_by_the_scan():
    environment = environments.make("CartPole-v1", horizon=12)
    policy = networks.make_policy(environment, hidden=(20, 17))
    params, both = far_from_uniform(policy, jnp.zeros(4)), play_both(environment, policy, NARROW)
    for keys in seeds_of(3):
        scan, fused = both(params, keys)
        assert_same_episodes(scan, fused)
        assert len(set(np.asarray(fused.alive).sum(axis=0).tolist())) > 2


@pytest.fixture(scope="module")
def walking():
    environment = walk()
    policy = networks.make_policy(environment, hidden=())
    return environment, policy, far_from_uniform(policy, jnp.zeros(20))


def test_tables_branches_and_drawn_transitions_are_played_as_by_the_scan(walking):
    environment, policy, params = walking
    both = play_both(environment, policy)
    for keys in seeds_of(4):
        scan, fused = both(params, keys)
        assert_same_episodes(scan, fused)
        assert np.isfinite(fused.final_obs).all()
        assert np.asarray(fused.truncated).any() and np.asarray(fused.terminated).any()


@pytest.mark.parametrize("wrong", ["lanes that end are not frozen", "numbers of the step before"])
def test_a_wrong_kernel_is_found(walking, wrong, monkeypatch):
    environment, policy, params = walking
    if wrong == "lanes that end are not frozen":
        monkeypatch.setattr(kernel, "_frozen", lambda alive, after, before: after)
    else:
        right = kernel._drawn_at
        monkeypatch.setattr(kernel, "_drawn_at", lambda refs, t: right(refs, jnp.maximum(t - 1, 0)))
    found = play_both(environment, policy)(params, seeds_of(1)[0])
    with pytest.raises(AssertionError):
        assert_same_episodes(*found)


@pytest.mark.parametrize("precision", [None, "float32", "tfloat32"])
def test_the_kernel_can_be_lowered_for_a_gpu_on_any_machine(precision):
    environment = environments.make("CartPole-v1")
    policy = networks.make_policy(environment, hidden=(64, 64))
    if precision is not None:
        policy = networks.with_precision(policy, precision, emulate=False)
    params = policy.init(jax.random.key(0), jnp.zeros(4))
    play = jax.jit(functools.partial(rollouts.fused, environment, policy, interpret=False))
    lowered = play.trace(params, jax.random.split(jax.random.key(0), 256)).lower(lowering_platforms=("cuda",))
    assert "triton" in lowered.as_text()


def test_the_estimate_counts_the_trajectory_and_the_drawn_numbers(walking):
    environment, policy, params = walking
    keys = jax.random.split(jax.random.key(0), 128)
    played = jax.eval_shape(lambda keys: rollouts.fused(environment, policy, params, keys), keys)
    trajectory = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(played))
    # One number for the action and one for the wind, in each of 6 steps of 128 lanes.
    expected = trajectory + 6 * 128 * (4 + 4)
    assert rollouts.fused_bytes(environment, policy, params, 128) == expected
    assert rollouts.fused_bytes(environment, policy, params, NUM_LANES) == expected  # the last block is filled


def test_arrays_that_the_kernel_would_address_wrongly_are_refused(walking):
    """`alive [6, B]` has one byte for each truth value; 2³¹ / 6 is 357 913 941, and 357 913 856 fills whole blocks."""
    environment, policy, params = walking
    plan = lambda count: rollouts.fused_bytes(environment, policy, params, count)
    assert plan(357_913_856) > 6 * 357_913_856
    with pytest.raises(ValueError, match=r"number of keys must be at most 357913856, .* got 357913984"):
        plan(357_913_857)


def changed(step):
    """The walk with another transition."""
    return dataclasses.replace(walk(), step=step)


def test_what_the_kernel_cannot_do_is_refused_by_name(walking):
    _, policy, params = walking
    keys = seeds_of(1)[0]

    def refusal(environment, **how):
        with pytest.raises(ValueError) as error:
            jax.eval_shape(lambda keys: rollouts.fused(environment, policy, params, keys, **how), keys)
        return str(error.value)

    right = walk().step
    tidy = lambda state: state | {"heat": jnp.sort(state["heat"])}
    sorting = changed(lambda key, state, action, params: right(key, tidy(state), action, params))
    assert "'walk': the kernel has no form of the operation 'sort'" in refusal(sorting)
    folded = lambda key, state: jax.random.fold_in(key, state["place"])
    own = changed(lambda key, state, action, params: right(folded(key, state), state, action, params))
    assert "must depend on keys alone" in refusal(own)
    assert "block must be a power of two, at least 16, got 24" in refusal(walk(), block=24)
    assert "block" in refusal(walk(), block=8)
