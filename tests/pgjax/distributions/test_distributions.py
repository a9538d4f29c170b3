"""Action distributions against their definitions: sums over all actions, or quadrature over a grid of them.

E f(A) = Σ_i f(a_i) p(a_i) m_i, where the nodes a_i are all actions with m_i = 1, or a grid with its quadrature
weights. Everything exact is in float64 with strict promotion.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from closeness import close, far
from jax.flatten_util import ravel_pytree
from jax.test_util import check_grads

from pgjax.distributions import (
    GaussianParameters,
    bernoulli,
    categorical,
    diagonal_gaussian,
    masked_logits,
    squashed_gaussian,
)

pytestmark = pytest.mark.usefixtures("strict", "x64")

LOW, HIGH = (-2.0, 0.5), (1.0, 4.5)
FAMILIES = {
    "categorical": categorical,
    "masked": categorical,
    "gaussian": diagonal_gaussian,
    "squashed": squashed_gaussian(LOW, HIGH),
    "bernoulli": bernoulli,
}
MASK = np.array([False, True, True, False, True, False])


def parameters_of(name, seed=0):
    numbers = jnp.asarray(np.random.default_rng(seed).normal(size=(2, 6)))
    if name == "categorical":
        return numbers[0]
    if name == "masked":
        return masked_logits(numbers[0], jnp.asarray(MASK))
    if name == "bernoulli":
        return numbers[0, :3]
    return GaussianParameters(mean=0.5 * numbers[0, :2], log_std=0.2 * numbers[1, :2] - 0.6)


def nodes_of(name):
    """The actions `[N, ...]` and their measure `[N]`."""
    if name in ("categorical", "masked"):
        return jnp.arange(6), jnp.ones(6)
    if name == "bernoulli":
        return jnp.asarray(list(itertools.product((0, 1), repeat=3))), jnp.ones(8)
    if name == "gaussian":
        axis = np.linspace(-9.0, 9.0, 91)
        axes, measures = (axis, axis), (np.full(91, 0.2),) * 2
    else:
        x, w = np.polynomial.legendre.leggauss(140)
        axes = [low + (high - low) * (1 + x) / 2 for low, high in zip(LOW, HIGH)]
        measures = [w * (high - low) / 2 for low, high in zip(LOW, HIGH)]
    actions = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    return jnp.asarray(actions), jnp.asarray(np.outer(*measures).ravel())


def some_actions(name):
    """Three actions of positive probability, far from walls."""
    if name in ("categorical", "masked"):
        return jnp.asarray([1, 2, 4])
    return nodes_of(name)[0][1:4] if name == "bernoulli" else jnp.asarray([[-0.4, 3.0], [0.3, 1.2], [-1.5, 2.0]])


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


def moments(name):
    """By sums over the nodes: Σp, −E ln p, E ln(p/q), E ∇ln p, E ∇ln p ∇ln pᵀ."""
    distribution, (actions, measure) = FAMILIES[name], nodes_of(name)

    @jax.jit
    def compute(p, q):
        flat, unflatten = ravel_pytree(p)
        log_prob = lambda x, action: distribution.log_prob(unflatten(x), action)
        log_p, scores = jax.vmap(jax.value_and_grad(log_prob), (None, 0))(flat, actions)
        log_q = jax.vmap(distribution.log_prob, (None, 0))(q, actions)
        weights = jnp.exp(log_p) * measure
        return (
            jnp.sum(weights),
            -jnp.sum(weights * log_p),
            jnp.sum(weights * (log_p - log_q)),
            weights @ scores,
            (scores.T * weights[None]) @ scores,
        )

    return compute(parameters_of(name), parameters_of(name, seed=1))


def test_probability_score_entropy_and_divergence(family):
    """Σp = 1, E ∇ln p = 0, H = −E ln p, KL = E ln(p/q), and Fisher's matrix is the Hessian of KL at equality."""
    distribution, p, q = FAMILIES[family], parameters_of(family), parameters_of(family, seed=1)
    total, entropy, kl, score, fisher = moments(family)
    # Densities in a box are flat to all orders at the walls, which polynomials follow slowly.
    tolerance = 1e-6 if family == "squashed" else 1e-12
    close(total, 1.0, tolerance)
    close(score, 0.0 * score, tolerance)
    close(distribution.entropy(p), entropy, tolerance)
    close(distribution.kl(p, q), kl, tolerance)
    flat, unflatten = ravel_pytree(p)
    to = lambda x: distribution.kl(p, unflatten(x))
    close(jax.jit(jax.hessian(to))(flat), fisher, tolerance)
    close(to(flat), 0.0)
    close(jax.grad(to)(flat), 0.0 * flat)
    assert distribution.kl(p, q) > 0.01


def test_wrong_densities_fail_these_sums():
    """Twins: no Jacobian, no normaliser, the entropy of all actions, the log-probability of the clipped action."""
    p = parameters_of("squashed")
    actions, measure = nodes_of("squashed")
    centre, half = (jnp.asarray(HIGH) + jnp.asarray(LOW)) / 2, (jnp.asarray(HIGH) - jnp.asarray(LOW)) / 2
    no_jacobian = lambda action: diagonal_gaussian.log_prob(p, jnp.arctanh((action - centre) / half))
    far(jnp.sum(jnp.exp(jax.vmap(no_jacobian)(actions)) * measure), 1.0, 0.3)

    logits = parameters_of("categorical")
    far(jnp.sum(jnp.exp(jax.vmap(lambda action: logits[action])(jnp.arange(6)))), 1.0, 0.3)
    far(categorical.entropy(logits), moments("masked")[1], 0.3)

    p = parameters_of("gaussian")
    actions, measure = nodes_of("gaussian")
    weights = jnp.exp(jax.vmap(diagonal_gaussian.log_prob, (None, 0))(p, actions)) * measure
    scores = jax.vmap(jax.grad(diagonal_gaussian.log_prob), (None, 0))(p, jnp.clip(actions, -0.5, 0.5))
    far(weights @ scores.mean, 0.0, 0.05)


def test_values_are_those_of_the_definition():
    p, q = parameters_of("categorical"), parameters_of("categorical", seed=1)
    log_probs = jax.vmap(categorical.log_prob, (None, 0))(p, jnp.arange(6))
    close(log_probs, [references.categorical_log_prob(p.tolist(), a) for a in range(6)])
    close(categorical.entropy(p), references.categorical_entropy(p.tolist()))
    close(categorical.kl(p, q), references.categorical_kl(p.tolist(), q.tolist()))

    p, q = parameters_of("gaussian"), parameters_of("gaussian", seed=1)
    action = jnp.asarray([0.3, 1.2])
    lists = [x.tolist() for x in (*p, *q)]
    close(diagonal_gaussian.log_prob(p, action), references.gaussian_log_prob(*lists[:2], action.tolist()))
    close(diagonal_gaussian.entropy(p), references.gaussian_entropy(*lists[:2]))
    close(diagonal_gaussian.kl(p, q), references.gaussian_kl(*lists))
    squashed = FAMILIES["squashed"]
    close(squashed.log_prob(p, action), references.squashed_log_prob(*lists[:2], LOW, HIGH, action.tolist()))
    close(squashed.kl(p, q), diagonal_gaussian.kl(p, q))
    close(squashed.mode(p), [-0.5, 2.5] + np.array([1.5, 2.0]) * np.tanh(np.asarray(p.mean)))
    close(diagonal_gaussian.mode(p), p.mean)

    p, q = parameters_of("bernoulli"), parameters_of("bernoulli", seed=1)
    close(bernoulli.log_prob(p, jnp.asarray([1, 0, 1])), references.bernoulli_log_prob(p.tolist(), [1, 0, 1]))
    close(bernoulli.entropy(p), references.bernoulli_entropy(p.tolist()))
    close(bernoulli.kl(p, q), references.bernoulli_kl(p.tolist(), q.tolist()))
    np.testing.assert_array_equal(bernoulli.mode(jnp.asarray([-1.0, 0.0, 2.0])), [0, 0, 1])
    for dtype in (jnp.bool_, jnp.int32, jnp.float64):
        bits = jnp.asarray([1, 0, 1]).astype(dtype)
        close(bernoulli.log_prob(p, bits), references.bernoulli_log_prob(p.tolist(), [1, 0, 1]))


@pytest.mark.parametrize("family", ["categorical", "squashed", "bernoulli"])
def test_first_and_second_derivatives(family):
    distribution, p, q = FAMILIES[family], parameters_of(family), parameters_of(family, seed=1)
    action = some_actions(family)[0]
    every = lambda p: (distribution.log_prob(p, action), distribution.entropy(p), distribution.kl(p, q))
    check_grads(jax.jit(every), (p,), order=2, modes=["rev"], atol=1e-4, rtol=1e-4)


def test_jit_is_eager_vmap_is_a_loop_and_float32_stays(family):
    distribution = FAMILIES[family]
    every = lambda key, p, q, action: (
        distribution.sample(key, p),
        distribution.log_prob(p, action),
        distribution.entropy(p),
        distribution.kl(p, q),
        distribution.mode(p),
    )
    rows = [
        (jax.random.key(i), parameters_of(family, i), parameters_of(family, i + 1), some_actions(family)[i])
        for i in range(3)
    ]
    batched = jax.jit(jax.vmap(every))(*jax.tree.map(lambda *x: jnp.stack(x), *rows))
    eager = [every(*row) for row in rows]
    close(batched, jax.tree.map(lambda *x: jnp.stack(x), *eager))
    shorter = {np.dtype(np.float64): np.float32, np.dtype(np.int64): np.int32}
    with np.errstate(over="ignore"):
        single = jax.tree.map(lambda x: np.asarray(x).astype(shorter[x.dtype]), rows[0][1:])
    with jax.enable_x64(False):
        sample, *numbers, mode = jax.jit(every)(jax.random.key(0), *single)
        assert sample.dtype == mode.dtype and sample.dtype in (jnp.float32, jnp.int32)
        for got, wanted in zip(numbers, eager[0][1:4]):
            assert got.dtype == jnp.float32
            np.testing.assert_allclose(got, wanted, rtol=1e-5)


def chi_square(counts, probabilities):
    expected = counts.sum() * probabilities[probabilities > 0]
    return np.sum((counts[probabilities > 0] - expected) ** 2 / expected)


class TestSamples:
    """Fixed seeds; each bound would fail a right sampler once in ten thousand seeds or less often."""

    COUNT = 100_000

    def draw(self, name, p, seed=0):
        keys = jax.random.split(jax.random.key(seed), self.COUNT)
        return np.asarray(jax.jit(jax.vmap(FAMILIES[name].sample, (0, None)))(keys, p))

    def test_categorical(self):
        logits = parameters_of("masked")
        probabilities = np.asarray(jax.nn.softmax(logits))
        counts = np.bincount(self.draw("categorical", logits), minlength=6)
        assert counts[~MASK].sum() == 0
        # χ² with 2 degrees of freedom exceeds 18.4 with probability 10⁻⁴.
        assert chi_square(counts, probabilities) < 18.4
        # Twin: a sampler that is off by one and a half percentage points in two valid actions.
        off = probabilities + 0.015 * np.eye(6)[1] - 0.015 * np.eye(6)[2]
        assert chi_square(counts, off) > 18.4

    def test_bernoulli(self):
        logits = parameters_of("bernoulli")
        p = np.asarray(jax.nn.sigmoid(logits))
        bits = self.draw("bernoulli", logits)
        z = (bits.mean(axis=0) - p) / np.sqrt(p * (1 - p) / self.COUNT)
        assert np.all(np.abs(z) < 4.2)
        assert bits.dtype == np.int32 and set(np.unique(bits)) == {0, 1}
        together = np.mean(bits[:, 0] & bits[:, 1])
        joint = p[0] * p[1]
        assert abs(together - joint) < 4.2 * np.sqrt(joint * (1 - joint) / self.COUNT)

    @pytest.mark.parametrize("name", ["gaussian", "squashed"])
    def test_normal(self, name):
        """Mean, variance and independence of (u − μ)/σ; a squashed sample is inverted by hand."""
        p = parameters_of(name)
        actions = self.draw(name, p)
        if name == "squashed":
            assert np.all((actions > LOW) & (actions < HIGH))
            low, high = np.array(LOW), np.array(HIGH)
            actions = np.arctanh((actions - (high + low) / 2) / ((high - low) / 2))
        x = (actions - np.asarray(p.mean)) / np.exp(np.asarray(p.log_std))
        root = np.sqrt(self.COUNT)
        scores = [x.mean(axis=0), (x.var(axis=0) - 1) / np.sqrt(2), (x[:, 0] * x[:, 1]).mean(keepdims=True)]
        assert np.max(np.abs(np.concatenate(scores))) * root < 4.3
        # Twin: σ where σ² belongs, or the other way round.
        wrong = (actions - np.asarray(p.mean)) / np.exp(2 * np.asarray(p.log_std))
        assert np.max(np.abs(wrong.var(axis=0) - 1) / np.sqrt(2) * root) > 4.3


@pytest.mark.filterwarnings("ignore:Rlax:PendingDeprecationWarning")
def test_agrees_with_rlax(rlax):
    logits, other = parameters_of("categorical"), parameters_of("categorical", seed=1)
    gaussian, action = parameters_of("gaussian"), jnp.asarray([0.3, -0.7])
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        softmax = rlax.softmax()
        log_probs = [softmax.logprob(jnp.asarray(a), logits) for a in range(6)]
        entropy, kl = softmax.entropy(logits), softmax.kl(logits, other)
        normal = rlax.gaussian_diagonal().logprob(action, gaussian.mean, jnp.exp(gaussian.log_std))
    close([categorical.log_prob(logits, a) for a in range(6)], log_probs)
    close(categorical.entropy(logits), entropy)
    close(categorical.kl(logits, other), kl)
    close(diagonal_gaussian.log_prob(gaussian, action), normal)


@pytest.mark.parametrize(
    "call",
    [
        lambda: categorical.log_prob(jnp.zeros((2, 3)), jnp.asarray(0)),
        lambda: categorical.log_prob(jnp.zeros(3), jnp.asarray([0])),
        lambda: categorical.log_prob(jnp.zeros(3), jnp.asarray(0.0)),
        lambda: categorical.kl(jnp.zeros(3), jnp.zeros(2)),
        lambda: masked_logits(jnp.zeros(3), jnp.zeros(3)),
        lambda: diagonal_gaussian.log_prob(GaussianParameters(mean=jnp.zeros(2), log_std=jnp.zeros(2)), jnp.zeros(1)),
        lambda: diagonal_gaussian.entropy(GaussianParameters(mean=jnp.zeros(2), log_std=jnp.zeros(()))),
        lambda: bernoulli.log_prob(jnp.zeros(3), jnp.zeros((3, 1))),
    ],
)
def test_shapes_and_types_are_contracts(call):
    with pytest.raises(AssertionError):
        call()
