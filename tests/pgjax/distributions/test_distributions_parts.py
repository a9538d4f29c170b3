"""Several choices, slates and joint actions against sums over all their actions, in float64 with strict promotion."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from jax.flatten_util import ravel_pytree

from pgjax import distributions
from pgjax.distributions import (
    GaussianParameters,
    bernoulli,
    categorical,
    diagonal_gaussian,
    joint,
    masked_logits,
    multi_categorical,
    plackett_luce,
)

pytestmark = pytest.mark.usefixtures("strict", "x64")

SIZES = (2, 4, 3)
MASK = np.array([True, False, True, True, True])
COUNT = 60_000


def slates(n, k):
    return np.array(list(itertools.permutations(range(n), k)), np.int32)


def logits(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape))


def of_joint(seed):
    return {"bits": logits(2, seed=seed), "where": (logits(3, seed=seed + 1), logits(4, seed=seed + 2))}


JOINT = joint({"bits": bernoulli, "where": (categorical, plackett_luce(4, 2))})
JOINT_ACTIONS = [
    {"bits": jnp.asarray(bits), "where": (jnp.asarray(a), jnp.asarray(slate))}
    for bits, a, slate in itertools.product(itertools.product((0, 1), repeat=2), range(3), slates(4, 2))
]
# name: (family, parameters of a seed, all actions of positive probability)
FAMILIES = {
    "several choices": (
        multi_categorical(SIZES),
        lambda seed: logits(3, 4, seed=seed),
        jnp.asarray(list(itertools.product(*map(range, SIZES)))),
    ),
    "slate of 1": (plackett_luce(5, 1), lambda seed: logits(5, seed=seed), jnp.asarray(slates(5, 1))),
    "slate of 3": (plackett_luce(5, 3), lambda seed: logits(5, seed=seed), jnp.asarray(slates(5, 3))),
    "every item": (plackett_luce(4, 4), lambda seed: logits(4, seed=seed), jnp.asarray(slates(4, 4))),
    "masked slate": (
        plackett_luce(5, 3),
        lambda seed: masked_logits(logits(5, seed=seed), jnp.asarray(MASK)),
        jnp.asarray([slate for slate in slates(5, 3) if MASK[slate].all()]),
    ),
    "joint": (JOINT, of_joint, jax.tree.map(lambda *x: jnp.stack(x), *JOINT_ACTIONS)),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def test_probability_score_entropy_and_divergence(family):
    """Σp = 1, E ∇ln p = 0, H = −E ln p, KL = E ln(p/q), and Fisher's matrix is the Hessian of KL at equality."""
    distribution, parameters, actions = family
    p, q = parameters(0), parameters(5)
    flat, unflatten = ravel_pytree(p)

    @jax.jit
    def compute(p, q):
        log_prob = lambda x, action: distribution.log_prob(unflatten(x), action)
        log_p, scores = jax.vmap(jax.value_and_grad(log_prob), (None, 0))(flat, actions)
        log_q, weights = jax.vmap(distribution.log_prob, (None, 0))(q, actions), jnp.exp(log_p)
        enumerated = jnp.sum(weights), -weights @ log_p, weights @ (log_p - log_q), weights @ scores
        to = lambda x: distribution.kl(p, unflatten(x))
        at_equality = to(flat), jax.grad(to)(flat), jax.hessian(to)(flat) - (scores.T * weights[None]) @ scores
        return enumerated, distribution.entropy(p), distribution.kl(p, q), at_equality

    (total, minus_log, ratio, score), entropy, kl, at_equality = compute(p, q)
    close(total, 1.0)
    close(score, 0.0)
    close(entropy, minus_log)
    close(kl, ratio)
    for value in at_equality:
        close(value, 0.0)
    assert kl > 0.01


def test_a_slate_without_taking_out_what_was_chosen_is_no_distribution():
    """The twin adds the log-probabilities of independent draws: its sum over slates is below 1."""
    p = logits(5)
    independent = jax.vmap(lambda slate: jnp.sum(jax.nn.log_softmax(p)[slate]))(slates(5, 3))
    assert np.sum(np.exp(independent)) < 0.7


def test_the_definition_of_plackett_and_luce():
    p = np.array([0.3, -1.0, 2.0, 0.5])
    e = np.exp(p)
    wanted = np.log(e[2] / e.sum()) + np.log(e[0] / (e[0] + e[1] + e[3])) + np.log(e[3] / (e[1] + e[3]))
    np.testing.assert_array_equal(plackett_luce(4, 3).mode(jnp.asarray(p)), [2, 3, 0])
    everything = np.asarray(jax.jit(jax.vmap(plackett_luce(4, 3).log_prob, (None, 0)))(p, slates(4, 3)))
    close(everything[np.all(slates(4, 3) == [2, 0, 3], axis=1)], [wanted])
    np.testing.assert_array_equal(slates(4, 3)[np.argmax(everything)], [2, 3, 0])


@pytest.mark.parametrize("name", ["several choices", "slate of 3", "masked slate"])
def test_frequencies_are_the_probabilities(name):
    """Every |z| < 4.5; the twin, in which the second place is drawn by the raw probabilities, is beyond."""
    distribution, parameters, actions = FAMILIES[name]
    p = parameters(0)
    drawn = jax.jit(jax.vmap(distribution.sample, (0, None)))(jax.random.split(jax.random.key(1), COUNT), p)
    code = np.array([25, 5, 1])
    counts = np.bincount(np.asarray(drawn) @ code, minlength=125)[np.asarray(actions) @ code]
    assert counts.sum() == COUNT and drawn.dtype == jnp.int32
    probabilities = np.exp(jax.jit(jax.vmap(distribution.log_prob, (None, 0)))(p, actions))
    z = lambda q: (counts - COUNT * q) / np.sqrt(COUNT * q * (1 - q))
    assert np.abs(z(probabilities)).max() < 4.5
    if name == "slate of 3":
        raw = np.exp(jax.vmap(lambda slate: jnp.sum(jax.nn.log_softmax(p)[slate]))(actions))
        assert np.abs(z(raw / raw.sum())).max() > 4.5


def test_actions_that_do_not_exist_have_no_log_probability():
    bad_slates, bad_choices = [[1, 1, 0], [0, 5, 1], [-1, 0, 1]], [[2, 0, 0], [0, 0, 3], [-1, 0, 0]]
    for family, p, bad in (
        (plackett_luce(5, 3), logits(5), bad_slates),
        (multi_categorical(SIZES), logits(3, 4), bad_choices),
    ):
        log_probs = jax.jit(jax.vmap(family.log_prob, (None, 0)))(p, np.array([*bad, [0, 1, 2]]))
        np.testing.assert_array_equal(np.isnan(log_probs), [True, True, True, False])


def test_padding_of_several_choices_has_no_part():
    """Values and gradients do not see logits beyond the sizes, and a row without valid actions draws none of them."""
    family, p = multi_categorical(SIZES), logits(3, 4)
    padding = np.arange(4) >= np.array(SIZES)[:, None]
    other = jnp.where(padding, 7.0, p)
    action, q = jnp.asarray([1, 2, 0]), logits(3, 4, seed=3)
    every = jax.jit(lambda p: (family.log_prob(p, action), family.entropy(p), family.kl(p, q)))
    assert every(p) == every(other)
    for gradient in map(np.asarray, jax.jit(jax.jacrev(every))(other)):
        assert not gradient[padding].any() and np.isfinite(gradient).all()
    nothing = jax.vmap(masked_logits)(p, jnp.zeros((3, 4), bool))
    keys = jax.random.split(jax.random.key(0), 500)
    drawn = jax.jit(jax.vmap(family.sample, (0, None)))(keys, nothing)
    assert (np.asarray(drawn) < SIZES).all() and set(np.asarray(drawn)[:, 1]) == {0, 1, 2, 3}
    assert jnp.isfinite(family.log_prob(nothing, drawn[0]))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_without_probabilities_are_shown(bad):
    """NaN and +∞ used to draw action 0 with a likelihood that looks healthy."""
    key = jax.random.key(0)
    spoilt = logits(4).at[2].set(bad)
    slate = plackett_luce(4, 2)
    for family, p in ((categorical, spoilt), (slate, spoilt), (multi_categorical((2, 4)), jnp.stack([spoilt, spoilt]))):
        shape = jax.eval_shape(family.mode, p).shape
        p = p.at[0, 0].set(bad) if p.ndim == 2 else p

        @jax.jit
        def compute(key, p):
            actions = family.sample(key, p), family.mode(p)
            return actions, [family.log_prob(p, action) for action in actions]

        for action, log_prob in zip(*compute(key, p)):
            np.testing.assert_array_equal(action, np.full(shape, -1))
            assert np.isnan(log_prob)
    if np.isnan(bad):
        bits = bernoulli.sample(key, spoilt)
        assert bits[2] == -1 and jnp.isnan(bernoulli.log_prob(spoilt, bits)) and bernoulli.mode(spoilt)[2] == -1


@pytest.mark.parametrize("size", [np.inf, 1e300])
def test_bits_that_are_sure(size):
    """Values and gradients at ±∞ are finite; a divergence or log-probability of −√(largest) stands for infinity."""
    p, q = np.array([size, -size, 0.3]), np.array([size, -size, -1.0])
    bits = np.array([1, 0, 1])
    of = lambda p, q, bits: jnp.stack([bernoulli.log_prob(p, bits), bernoulli.entropy(p), bernoulli.kl(p, q)])
    both = jax.jit(lambda *x: (of(*x), jax.jacrev(of)(*x)))
    (values, jacobian), (values_of_last, jacobian_of_last) = both(p, q, bits), both(p[2:], q[2:], bits[2:])
    close(values, values_of_last)
    close(jacobian[:, 2], jacobian_of_last[:, 0])
    assert not np.asarray(jacobian)[:, :2].any()
    assert -1e300 < bernoulli.log_prob(p, jnp.asarray([0, 0, 1])) < -1e100
    assert 1e100 < bernoulli.kl(-p, p) < 1e300
    assert jnp.isnan(bernoulli.log_prob(p, jnp.asarray([2, 0, 1])))


def test_long_slates_have_no_entropy_and_say_so():
    short, long = plackett_luce(21, 3), plackett_luce(22, 3)
    assert short.entropy is not None and long.entropy is None and long.kl is None
    assert plackett_luce(10**6, 1).entropy is not None and plackett_luce(101, 2).kl is None
    assert joint((categorical, long)).entropy is None
    close(plackett_luce(200, 1).entropy(logits(200)), categorical.entropy(logits(200)))
    distributions.require(short, "entropy", "an entropy bonus")
    with pytest.raises(ValueError, match=r"an entropy bonus needs Distribution\.entropy, but it is None"):
        distributions.require(long, "entropy", "an entropy bonus")
    with pytest.raises(ValueError, match=r"the natural gradient needs Distribution\.kl"):
        distributions.require(joint((categorical, long)), "kl", "the natural gradient")


def test_a_joint_distribution_is_the_product_of_its_parts():
    parts = (categorical, diagonal_gaussian)
    pair = joint(parts)
    p = (logits(3), GaussianParameters(mean=logits(2), log_std=logits(2, seed=1)))
    q = (logits(3, seed=2), GaussianParameters(mean=logits(2, seed=3), log_std=logits(2, seed=4)))
    action = pair.sample(jax.random.key(0), p)
    assert action[0].shape == () and action[1].shape == (2,)
    close(pair.log_prob(p, action), parts[0].log_prob(p[0], action[0]) + parts[1].log_prob(p[1], action[1]))
    close(pair.entropy(p), parts[0].entropy(p[0]) + parts[1].entropy(p[1]))
    close(pair.kl(p, q), parts[0].kl(p[0], q[0]) + parts[1].kl(p[1], q[1]))
    mode = pair.mode(p)
    np.testing.assert_array_equal(mode[0], jnp.argmax(p[0]))
    np.testing.assert_array_equal(mode[1], p[1].mean)
    same = joint((categorical, categorical))
    drawn = jax.vmap(same.sample, (0, None))(jax.random.split(jax.random.key(0), 4000), (jnp.zeros(2), jnp.zeros(2)))
    # The parts draw from different keys: |z| of their correlation is below 4.5, where one key would give 63.
    assert abs(np.corrcoef(*map(np.asarray, drawn))[0, 1]) * 4000**0.5 < 4.5


def test_float32_and_batches():
    for distribution, parameters, actions in FAMILIES.values():
        one = jax.tree.map(lambda x: x[0], actions)
        every = lambda p, a: (distribution.log_prob(p, a), distribution.entropy(p), distribution.kl(p, p))
        wanted = jax.jit(every)(parameters(0), one)
        with np.errstate(over="ignore"), jax.enable_x64(False):
            p = jax.tree.map(lambda x: np.maximum(x, -1.8446743e19).astype(np.float32), parameters(0))
            a = jax.tree.map(lambda x: np.asarray(x).astype(np.int32), one)
            for got, want in zip(jax.jit(every)(p, a), wanted):
                assert got.dtype == jnp.float32
                np.testing.assert_allclose(got, want, rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: plackett_luce(3, 4), r"Slate: k must be in \[1, 3\], got 4"),
        (lambda: multi_categorical(()), "sizes must be a sequence of at least one integer"),
        (lambda: joint({}), "families must be a tree of at least one Distribution"),
        (lambda: joint((categorical, "x")), "families must be a tree of at least one Distribution"),
    ],
)
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()
