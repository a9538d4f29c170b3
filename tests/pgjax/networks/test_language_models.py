"""Language models: all rows at once are one token after another, and no token sees what follows it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from memory_conformance import assert_memory_conforms
from policies import drawn

from pgjax import environments, networks, saving
from pgjax.environments.reverse import TokenBuffer
from pgjax.environments.text import TextBuffer, make_text
from pgjax.networks import GPT2Config, LlamaConfig

T, PLACES, SYMBOLS = 4, 6, 5
GPT2 = GPT2Config(vocabulary=SYMBOLS, width=8, layers=3, heads=2, context=9)
LLAMA = LlamaConfig(vocabulary=SYMBOLS, width=16, layers=3, heads=4, kv_heads=2, inner=12, context=9, rope_theta=50.0)
BOTH = pytest.mark.parametrize("config", [GPT2, LLAMA], ids=["gpt2", "llama"])
ENVIRONMENT = make_text(
    [[0, 1]], score=lambda buffer, params: buffer.length * 1.0, max_new_tokens=T, vocabulary=SYMBOLS, eos=4
)


@functools.cache
def policy_of(config, recompute=False):
    return networks.make_language_policy(ENVIRONMENT, config, recompute=recompute)


def texts():
    """The buffers of one episode, the last row of which is padding."""
    lengths = np.asarray([2, 3, 4, 5, 0])
    symbols = np.random.default_rng(0).integers(0, SYMBOLS, PLACES)
    tokens = np.where(np.arange(PLACES) < lengths[:, None], symbols, 0).astype(np.uint8)
    full = lambda n: jnp.full(len(lengths), n, jnp.int32)
    return TextBuffer(tokens=jnp.asarray(tokens), length=jnp.asarray(lengths, jnp.int32), prompt_length=full(2))


def theta(policy, dtype="float64"):
    return drawn(policy.init, jax.tree.map(lambda x: x[0], texts()), dtype)


@BOTH
def test_a_language_model_unrolls_as_it_steps_and_as_it_reads(config):
    with jax.enable_x64(True):
        policy, obs = policy_of(config), texts()
        params, reached = theta(policy), obs.length > 0
        whole = assert_memory_conforms(policy, params, obs, alive=reached)
        assert whole.dtype == np.float64 and np.ptp(whole, axis=0).min() > 1e-3
        if config is LLAMA:
            return
        # In a window the fourth row begins another episode.
        starts = jnp.asarray([0, 0, 0, 1, 0], bool)
        rows = jnp.asarray([1, 2, 3, 0, 1])
        window = jax.tree.map(lambda x: x[rows], obs)
        assert_memory_conforms(policy, params, window, starts, gradients=False)


@BOTH
def test_the_logits_of_a_text_are_those_of_the_policy_and_never_see_what_follows(config):
    with jax.enable_x64(True):
        policy, obs = policy_of(config), texts()
        params, logits = theta(policy), jax.jit(networks.make_language_model(config).logits)
        tokens = obs.tokens[3:4, :5]
        found = logits(params, tokens)
        assert found.shape == (1, 5, SYMBOLS)
        by_policy = jax.jit(policy.memory.unroll)(params, None, jax.tree.map(lambda x: x[:4], obs), None)
        np.testing.assert_allclose(found[0, 1:5], by_policy, atol=1e-12)
        changed = logits(params, tokens.at[0, 3].set((tokens[0, 3] + 1) % SYMBOLS))
        np.testing.assert_array_equal(found[:, :3], changed[:, :3])
        assert np.abs(found - changed)[0, 3:].min() > 1e-6


def test_computing_a_block_again_changes_no_gradient():
    config = LLAMA
    with jax.enable_x64(True):
        params, tokens = theta(policy_of(config)), texts().tokens[:2]

        def loss(recompute, params):
            logits = networks.make_language_model(config, recompute=recompute).logits(params, tokens)
            return jnp.sum(jax.nn.log_softmax(logits)[..., 0])

        kept, again = (jax.jit(jax.grad(functools.partial(loss, way)))(params) for way in (False, True))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-10), kept, again)


def test_a_large_vocabulary_is_looked_up_as_a_small_one():
    with jax.enable_x64(True):
        table = jnp.asarray(np.random.default_rng(0).standard_normal((1500, 3)))
        indices = jnp.asarray([3, 1499, 3], jnp.uint16)
        from pgjax.networks._layers import look_up, rows

        value = lambda way: jax.value_and_grad(lambda table: jnp.sum(jnp.sin(way(table, indices))))(table)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-12), value(look_up), value(rows))


def test_a_new_model_writes_almost_uniformly_and_a_loaded_one_starts_from_its_parameters():
    obs = jax.tree.map(lambda x: x[0], texts())
    policy = policy_of(LLAMA)
    logits = jax.jit(lambda key: policy.apply(policy.init(key, obs), obs))(jax.random.key(0))
    np.testing.assert_allclose(jax.nn.softmax(logits), 1.0 / SYMBOLS, atol=0.05)
    params = theta(policy, "float32")
    started = networks.make_language_policy(ENVIRONMENT, LLAMA, params)
    assert started.init(jax.random.key(3), obs) is params


def test_a_masked_token_is_never_written():
    allowed = np.arange(SYMBOLS) != 3
    masked = networks.make_language_policy(ENVIRONMENT, GPT2, action_mask=lambda obs: jnp.asarray(allowed))
    logits = jax.jit(masked.apply)(theta(masked, "float32"), jax.tree.map(lambda x: x[0], texts()))
    assert jax.nn.softmax(logits)[3] == 0.0 and np.isfinite(logits).all()


@BOTH
def test_a_saved_policy_is_loaded_with_any_number_of_blocks(config, tmp_path):
    environment = environments.make("reverse", length=2, vocabulary=SYMBOLS)
    many = type(config)(**{field: getattr(config, field) for field in config.__dataclass_fields__} | {"layers": 30})
    arguments = networks.network_arguments(many)
    policy = networks.make_policy(environment, **arguments)
    obs = TokenBuffer(tokens=jnp.zeros(4, jnp.uint8), length=jnp.int32(2))
    params = drawn(policy.init, obs)
    saving.save_policy(tmp_path / "policy.safetensors", params, environment=environment, **arguments)
    _, _, found = saving.load_policy(tmp_path / "policy.safetensors", environment)
    jax.tree.map(np.testing.assert_array_equal, found, params)


def make(network, **kwargs):
    return lambda: networks.make_policy(environments.make("reverse", length=3, vocabulary=4), network=network, **kwargs)


def options(network, **given):
    return make(network, hidden=(8, 8), network_options=given)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (make("gpt2", hidden=(8, 16)), r"hidden must be one width .*'gpt2', got \(8, 16\)"),
        (make("llama", activation="gelu"), r"activation must be None or 'silu' with network='llama', got 'gelu'"),
        (options("gpt2", heads=3), r"heads must divide the width 8 in hidden, got 3"),
        (options("llama", heads=8), r"the width of a head must be even .*8 / 8 = 1"),
        (options("llama", heads=4, kv_heads=3), r"kv_heads must divide the 4 heads, got 3"),
        (options("llama", rope_theta=1.0), r"rope_theta must be a finite number above 1, got 1.0"),
        (options("gpt2", context=4), r"context must be at least the 5 places of the buffer that are read, got 4"),
        (options("gpt2", tied="yes"), r"tied must be True or False, got 'yes'"),
        (lambda: networks.make_policy(environments.make("CartPole-v1"), network="llama"), r"needs observations with"),
        (lambda: networks.make_language_policy(environments.make("reverse"), GPT2), r"must have the 5 tokens of the"),
        (
            lambda: networks.make_value(environments.make("reverse"), network="gpt2", network_options={"tied": True}),
            r"tied must be False or None .*outputs \(1\) .*symbols \(9\)",
        ),
        (
            lambda: networks.make_language_model(GPT2).logits(
                theta(policy_of(GPT2), "float32"), jnp.zeros((1, 10), int)
            ),
            r"at most context=9 tokens",
        ),
        (lambda: networks.make_language_model(GPT2).logits({}, jnp.zeros(3, int)), r"must have the axes \[B, L\]"),
    ],
)
def test_what_does_not_fit_is_refused(wrong, message):
    with pytest.raises(ValueError, match=message):
        wrong()


def test_a_value_of_texts_has_a_head_of_its_own():
    value = networks.make_value(environments.make("reverse", length=3, vocabulary=4), network="llama", hidden=(8,))
    init, apply = value
    obs = TokenBuffer(tokens=jnp.zeros(6, jnp.uint8), length=jnp.int32(3))
    assert jax.eval_shape(lambda key: apply(init(key, obs), obs), jax.random.key(0)).shape == ()
