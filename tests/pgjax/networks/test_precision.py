"""The precision of products: the rounding of all operands in both directions, on every network, against NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import acting, environments, networks
from pgjax.networks.precision import MANTISSA_BITS
from pgjax.spaces import Box, Discrete
from pgjax.types import Policy

LOW = ("tfloat32", "bfloat16")
KEYS = jax.random.split(jax.random.key(0), 4)
X, W, G = (jax.random.normal(key, shape) for key, shape in zip(KEYS, ((5, 7), (7, 3), (5, 3)), strict=False))


def rounded(x, bits):
    """The nearest number with this many bits of mantissa, ties to even, by integers; independent of JAX."""
    dropped = 23 - bits
    integers = np.asarray(x, np.float32).view(np.uint32).astype(np.uint64)
    even = (integers >> np.uint64(dropped)) & np.uint64(1)
    integers = (integers + np.uint64(2 ** (dropped - 1) - 1) + even) >> np.uint64(dropped) << np.uint64(dropped)
    return integers.astype(np.uint32).view(np.float32).astype(np.float64)


def product_and_gradients(function):
    return jax.jit(lambda x, w, g: (function(x, w), *jax.vjp(function, x, w)[1](g)))(X, W, G)


@pytest.mark.parametrize("precision", LOW)
def test_all_three_products_round_their_operands(precision):
    """Twins: the option ignored; the cotangent not rounded, as `reduce_precision` alone would give."""
    bits = MANTISSA_BITS[precision]
    low = networks.with_precision(jnp.matmul, precision, emulate=True)
    x, w, g = (rounded(array, bits) for array in (X, W, G))
    expected = x @ w, g @ w.T, x.T @ g
    errors = lambda found: [
        np.abs(np.asarray(ours, np.float64) - known).max() for ours, known in zip(found, expected, strict=True)
    ]
    plain = lambda x: jax.lax.reduce_precision(x, 8, bits)
    assert max(errors(product_and_gradients(low))) < 3e-6
    assert min(errors(product_and_gradients(jnp.matmul))) > 1e-4
    assert max(errors(product_and_gradients(lambda x, w: plain(x) @ plain(w)))[1:]) > 1e-4


@pytest.mark.parametrize("precision", LOW)
def test_forward_mode_and_the_second_derivative(precision):
    bits = MANTISSA_BITS[precision]
    low = networks.with_precision(jnp.matmul, precision, emulate=True)
    tangent = jax.jvp(lambda w: low(X, w), (W,), (W[::-1],))[1]
    np.testing.assert_allclose(tangent, rounded(X, bits) @ rounded(W[::-1], bits), atol=3e-6)
    square = lambda w: jnp.sum(low(X, w) ** 2) / 2
    second = jax.jvp(jax.grad(square), (W,), (W[::-1],))[1]
    np.testing.assert_allclose(second, rounded(X, bits).T @ rounded(tangent, bits), atol=3e-5)


def test_rows_that_are_vmapped_give_one_product():
    """The gradient of the weights of N rows is one product over all rows, not N outer products."""
    low = networks.with_precision(lambda x, w: x @ w, "tfloat32", emulate=True)
    loss = lambda w: jnp.sum(jnp.sin(jax.vmap(low, (0, None))(X, w)))
    text = jax.jit(jax.grad(loss)).lower(W).as_text()
    results = [line.rsplit("->", 1)[1] for line in text.splitlines() if "dot_general" in line]
    assert len(results) == 2 and not any("5x7x3" in shape or "5x3x7" in shape for shape in results), results


def test_float32_asks_for_the_highest_precision_everywhere():
    asked = networks.with_precision(jnp.matmul, "float32")
    with jax.default_matmul_precision("bfloat16"):
        text = jax.jit(jax.grad(lambda w: jnp.sum(jnp.sin(asked(X, w))))).lower(W).as_text()
    lines = [line for line in text.splitlines() if "dot_general" in line]
    assert len(lines) == 2 and all(line.count("HIGHEST") == 2 for line in lines)


def test_on_a_gpu_the_units_of_the_device_are_asked_for_in_both_directions():
    low = networks.with_precision(jnp.matmul, "tfloat32", emulate=False)
    program = str(jax.make_jaxpr(jax.grad(lambda w: jnp.sum(jnp.sin(low(X, w)))))(W))
    assert program.count("dot_general[") == program.count("TF32_TF32_F32") == 2
    assert "rounding" not in program


def test_a_product_keeps_the_precision_that_it_asks_for():
    own = lambda x, w: jnp.matmul(x, w, precision="highest")
    for setting in (None, "highest"):
        with jax.default_matmul_precision(setting):
            np.testing.assert_array_equal(networks.with_precision(own, "bfloat16", emulate=True)(X, W), own(X, W))
            low = networks.with_precision(jnp.matmul, "bfloat16", emulate=True)(X, W)
            assert np.abs(low - own(X, W)).max() > 1e-4


def test_float64_operands_are_rounded_to_the_same_bits():
    with jax.enable_x64(True):
        x, w = (jnp.asarray(np.asarray(array, np.float64)) for array in (X, W))
        found = networks.with_precision(jnp.matmul, "bfloat16")(x, w)
    assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, rounded(X, 7) @ rounded(W, 7), rtol=1e-13)


BOX = Box(low=-1.0, high=1.0, shape=(3,))
IMAGE = Box(low=0.0, high=1.0, shape=(6, 6, 2))


@functools.cache
def both(network):
    """The outputs of a small policy over three rows, plainly and in bfloat16, and those of float32."""
    space = {"conv": IMAGE, "centred": IMAGE}.get(network, BOX)
    if network == "transformer":
        environment = environments.make("reverse")
        policy = networks.make_policy(environment, network=network, hidden=(8,), network_options={"heads": 2})
        _, first = environment.reset(jax.random.key(0), environment.params)
    else:
        policy = networks.policy_for_spaces(space, Discrete(3), network=network, hidden=(8,))
        first = jax.random.uniform(jax.random.key(1), space.shape)
    obs = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), first)
    params = policy.init(jax.random.key(2), first)
    params = jax.tree.map(lambda x: x + 0.3 * jax.random.normal(jax.random.key(3), x.shape), params)
    outputs = lambda policy: acting.unroll(policy, params, obs) if policy.memory else policy.apply(params, first)
    made = [policy, *(networks.with_precision(policy, word, emulate=True) for word in ("bfloat16", "float32"))]
    return [np.asarray(jax.jit(outputs, static_argnums=0)(each)) for each in made]


@pytest.mark.parametrize("network", ["mlp", "conv", "centred", "gru", "transformer"])
def test_every_network_takes_a_precision(network):
    """Convolutions, scans and attention are reached; float32 changes nothing on a CPU."""
    plain, low, full = both(network)
    np.testing.assert_array_equal(full, plain)
    assert 1e-5 < np.abs(low - plain).max() < 0.1 * np.abs(plain).max()


def test_conditions_are_reached_and_other_loops_are_refused():
    chosen = lambda x, w: jax.lax.cond(x[0, 0] > -9.0, jnp.matmul, lambda x, w: 0.0 * (x @ w), x, w)
    direct = networks.with_precision(jnp.matmul, "bfloat16", emulate=True)(X, W)
    np.testing.assert_array_equal(networks.with_precision(chosen, "bfloat16", emulate=True)(X, W), direct)
    again = networks.with_precision(jax.checkpoint(jnp.matmul), "bfloat16", emulate=True)(X, W)
    np.testing.assert_array_equal(again, direct)
    loop = lambda x: jax.lax.while_loop(lambda y: y[0, 0] < 9.0, lambda y: y @ y.T + 1.0, x)
    with pytest.raises(NotImplementedError, match="inside of 'while'"):
        networks.with_precision(loop, "bfloat16")(jnp.ones((2, 2)))


def test_an_unknown_precision_is_refused():
    policy = networks.policy_for_spaces(BOX, Discrete(2))
    assert isinstance(networks.with_precision(policy, "tfloat32"), Policy)
    with pytest.raises(ValueError, match=r"precision.*'half'"):
        networks.with_precision(policy, "half")
