"""The GRU and the transformer: all rows at once are one step after another, and what does not fit is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_conformance import assert_memory_conforms
from policies import drawn

from pgjax import environments
from pgjax.environments.reverse import TokenBuffer
from pgjax.networks import make_policy, make_value, policy_for_spaces
from pgjax.types import Box, Discrete

T = 7
REVERSE = environments.make("reverse", length=3, vocabulary=4)


THREE = Discrete(3)


def gru_for(observations, actions, **kwargs):
    options = {"hidden": (6,), "network_options": {"memory_size": 5}} | kwargs
    return policy_for_spaces(observations, actions, network="gru", **options)


@functools.cache
def gru(actions=THREE):
    return gru_for(Box(low=-1.0, high=1.0, shape=(2, 2)), actions)


@functools.cache
def transformer():
    return make_policy(REVERSE, network="transformer", hidden=(8, 8), network_options={"heads": 2})


def theta(policy, obs, dtype="float32"):
    return drawn(policy.init, jax.tree.map(lambda x: x[0], obs), dtype)


def images():
    return jnp.asarray(np.random.default_rng(2).standard_normal((T, 2, 2)), jnp.float32)


def writing(lengths, episodes):
    """The buffers of a lane, by the length and the number of the episode of each row."""
    strings = np.random.default_rng(0).integers(0, 4, (max(episodes) + 1, 6))
    written = np.arange(6) < np.asarray(lengths)[:, None]
    tokens = np.where(written, strings[list(episodes)], 0).astype(np.uint8)
    return TokenBuffer(tokens=jnp.asarray(tokens), length=jnp.asarray(lengths, jnp.int32))


WHOLE = writing([3, 4, 5, 6, 6, 6, 6], [0] * T)
WRITING = WHOLE.length < 6
STARTS = jnp.asarray([0, 0, 1, 0, 0, 1, 0], bool)
WINDOW = writing([4, 5, 3, 4, 5, 3, 4], [0, 0, 1, 1, 1, 2, 2])


@pytest.fixture(params=[pytest.param("float32", marks=pytest.mark.slow), "float64"])
def dtype(request):
    with jax.enable_x64(request.param == "float64"):
        yield request.param


def test_a_gru_unrolls_as_it_steps(dtype):
    policy, obs = gru(), images()
    params, remembered = theta(policy, obs, dtype), 0.5 * jnp.ones(5, dtype)
    whole = assert_memory_conforms(policy, params, obs)
    window = assert_memory_conforms(policy, params, obs, STARTS, remembered)
    assert whole.dtype == dtype and np.abs(whole[-1] - window[-1]).max() > 1e-3


def test_a_transformer_unrolls_as_it_steps_and_as_it_reads(dtype):
    policy = transformer()
    params = theta(policy, WHOLE, dtype)
    whole = assert_memory_conforms(policy, params, WHOLE, alive=WRITING)
    assert_memory_conforms(policy, params, WINDOW, STARTS)
    assert whole.dtype == dtype and np.ptp(whole, axis=0).min() > 1e-3
    # Rows that a rollout never reached hold zeros, so that the last row is not the longest buffer.
    reached = jnp.arange(T) < 3
    cut = jax.tree.map(lambda x: jnp.where(reached.reshape(-1, *(1 for _ in x.shape[1:])), x, 0), WHOLE)
    assert_memory_conforms(policy, params, cut, alive=reached)


def test_a_cache_of_older_parameters_does_not_enter_what_is_unrolled():
    policy = transformer()
    params, stale = theta(policy, WINDOW), [(np.ones((2, 5, 4), np.float32),) * 2] * 2
    logits = assert_memory_conforms(policy, params, WINDOW, STARTS, gradients=False)
    np.testing.assert_array_equal(jax.jit(policy.memory.unroll)(params, stale, WINDOW, STARTS), logits)


def wrong(policy, **changes):
    """The policy with other functions of its memory: each change takes the right one's arguments after itself."""
    right = policy.memory
    bound = {name: functools.partial(change, getattr(right, name)) for name, change in changes.items()}
    return policy._replace(memory=right._replace(**bound))


def shorter(obs):
    return obs._replace(length=obs.length - 1)


FORGETFUL = {"start": lambda right, p, x: jax.tree.map(jnp.zeros_like, right(p, x))}
ONES = np.ones(5, np.float32)
TWINS = {
    "no starts": (gru, {"unroll": lambda right, p, c, x, s: right(p, c, x, None)}, STARTS, ONES),
    "no carry": (gru, {"unroll": lambda right, p, c, x, s: right(p, None, x, s)}, STARTS, ONES),
    "one row late": (transformer, {"unroll": lambda right, p, c, x, s: right(p, c, shorter(x), s)}, None, None),
    "one episode for all": (transformer, {"unroll": lambda right, p, c, x, s: right(p, c, x, None)}, STARTS, None),
    "nothing written": (transformer, {"step": lambda right, p, c, x: (c, right(p, c, x)[1])}, None, None),
    "prompt not read": (transformer, FORGETFUL, None, None),
}


@pytest.mark.parametrize("twin", TWINS)
def test_a_wrong_twin_is_found(twin):
    make, changes, starts, carry = TWINS[twin]
    policy = make()
    obs = images() if make is gru else WHOLE if starts is None else WINDOW
    params, alive = theta(policy, obs), None if make is gru or obs is WINDOW else WRITING
    with pytest.raises(AssertionError, match="unroll and"):
        assert_memory_conforms(wrong(policy, **changes), params, obs, starts, carry, alive, gradients=False)


def test_a_wrong_gradient_is_found():
    stopped = lambda right, p, c, x, s: right({**p, "recurrent": jax.lax.stop_gradient(p["recurrent"])}, c, x, s)
    policy, obs = gru(), images()
    with pytest.raises(AssertionError, match="unroll and step"):
        assert_memory_conforms(wrong(policy, unroll=stopped), theta(policy, obs), obs)


def test_a_new_policy_is_near_uniform_and_writes_what_its_actions_say():
    for policy, obs in ((gru(), images()), (transformer(), WHOLE)):
        params = jax.jit(policy.init)(jax.random.key(0), jax.tree.map(lambda x: x[0], obs))
        probabilities = jax.nn.softmax(jax.jit(policy.memory.unroll)(params, None, obs, None))
        np.testing.assert_allclose(probabilities, 1.0 / probabilities.shape[1], atol=0.02)


def test_a_gru_of_continuous_actions_has_one_mean_and_spread_per_dimension():
    box = Box(low=-2.0, high=2.0, shape=(2,))
    policy, obs = gru(box), images()
    params = theta(policy, obs)
    parameters = assert_memory_conforms(policy, params, obs, gradients=False)
    assert parameters.mean.shape == parameters.log_std.shape == (T, 2)
    squashed = gru_for(Box(-1.0, 1.0, (2, 2)), box, distribution="squashed_gaussian", initial_log_std=-0.5)
    params = jax.jit(squashed.init)(jax.random.key(0), obs[0])
    _, parameters = jax.jit(squashed.memory.step)(params, squashed.memory.start(params, obs[0]), obs[0])
    np.testing.assert_allclose(parameters.log_std, -0.5)
    assert jnp.abs(squashed.distribution.sample(jax.random.key(3), parameters)).max() <= 2.0


def test_what_is_not_yet_written_does_not_matter():
    policy = transformer()
    params = theta(policy, WHOLE)
    garbled = WHOLE._replace(tokens=jnp.where(jnp.arange(6) < WHOLE.length[:, None], WHOLE.tokens, 3))
    wanted = assert_memory_conforms(policy, params, WHOLE, alive=WRITING, gradients=False)
    first = jax.tree.map(lambda x: x[0], garbled)
    step = jax.jit(lambda params, obs: policy.memory.step(params, policy.memory.start(params, obs), obs)[1])
    np.testing.assert_allclose(step(params, first), wanted[0], atol=1e-6)


CARTPOLE = environments.make("CartPole-v1")


def transformer_on(environment, **kwargs):
    return make_policy(environment, network="transformer", **kwargs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: transformer_on(CARTPOLE), r"needs observations with the fields tokens.*got .*Box"),
        (lambda: transformer_on(REVERSE, network_options={"heads": 3}), r"heads must divide the width 64.*got 3"),
        (lambda: transformer_on(REVERSE, hidden=()), r"hidden must be one width for every block.*got \(\)"),
        (lambda: transformer_on(REVERSE, hidden=(8, 16)), r"hidden must be one width for every block.*got \(8, 16\)"),
        (lambda: transformer_on(REVERSE, activation="tanh"), r"activation must be None or 'gelu'.*got 'tanh'"),
        (lambda: transformer_on(REVERSE, distribution="gaussian"), r"does not fit the action space"),
        (lambda: make_policy(CARTPOLE, network="gru", network_options={"memory_size": 0}), r"memory_size .*got 0"),
        (lambda: make_policy(CARTPOLE, network="gru", network_options={"size": 3}), r"'memory_size'\], got 'size'"),
        (lambda: make_value(CARTPOLE, network="gru"), r"a value must be a function of one observation.*'gru'"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_an_observation_of_the_wrong_shape_is_named():
    policy = gru()
    with pytest.raises(ValueError, match=r"obs must have the shape \(2, 2\)"):
        policy.memory.step(theta(policy, images()), jnp.zeros(5), images())
    policy = transformer()
    with pytest.raises(ValueError, match=r"obs.tokens must have the shape \(6,\)"):
        policy.apply(theta(policy, WHOLE), WHOLE)
