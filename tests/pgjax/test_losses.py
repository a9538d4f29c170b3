"""Elementwise losses: values, gradients, what is constant, and the estimators of the divergence, in float64."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from closeness import close

from pgjax import losses
from pgjax.distributions import GaussianParameters, categorical, diagonal_gaussian

pytestmark = pytest.mark.usefixtures("strict", "x64")

LOG_PROBS, BEHAVIOUR, WEIGHTS = np.random.default_rng(0).normal(size=(3, 4, 5)) * [[[0.4]], [[0.4]], [[2.0]]]


@pytest.mark.parametrize(
    ("name", "count", "options"),
    [
        ("score_function_loss", 2, {}),
        ("importance_weighted_loss", 3, {}),
        ("clipped_surrogate_loss", 3, {"clip": 0.2}),
        ("value_loss", 2, {}),
        ("kl_k1", 2, {}),
        ("kl_k2", 2, {}),
        ("kl_k3", 2, {}),
    ],
)
def test_values_are_those_of_the_definition(name, count, options):
    arrays = (LOG_PROBS, WEIGHTS)[:count] if count == 2 else (LOG_PROBS, BEHAVIOUR, WEIGHTS)
    got = jax.jit(lambda *xs: getattr(losses, name)(*xs, **options))(*map(jnp.asarray, arrays))
    reference = getattr(references, name)
    wanted = [[reference(*numbers, **options) for numbers in zip(*rows)] for rows in zip(*arrays)]
    assert got.shape == LOG_PROBS.shape
    close(got, wanted)


def gradient(loss, *arrays):
    """∂ Σ loss / ∂ first array."""
    return jax.grad(lambda *xs: jnp.sum(loss(*xs)))(*map(jnp.asarray, arrays))


def test_at_the_parameters_that_acted_the_three_gradients_coincide():
    clipped = lambda *xs: losses.clipped_surrogate_loss(*xs, clip=0.2)
    close(gradient(losses.score_function_loss, LOG_PROBS, WEIGHTS), -WEIGHTS)
    close(gradient(losses.importance_weighted_loss, LOG_PROBS, LOG_PROBS, WEIGHTS), -WEIGHTS)
    close(gradient(clipped, LOG_PROBS, LOG_PROBS, WEIGHTS), -WEIGHTS)


def test_the_clip_stops_only_the_moves_that_would_be_rewarded():
    ratio = np.array([1.5, 1.5, 0.5, 0.5, 1.1, 0.9])
    weight = np.array([2.0, -2.0, 2.0, -2.0, 2.0, -2.0])
    # ratio 1.5, w > 0: already moved far enough, no gradient; w < 0: has to come back, −w ratio = 3. Likewise below.
    wanted = np.array([0.0, 3.0, -1.0, 0.0, -2.2, 1.8])
    arrays = (np.log(ratio), np.zeros(6), weight)
    close(gradient(lambda *xs: losses.clipped_surrogate_loss(*xs, clip=0.2), *arrays), wanted)
    # The twin without the minimum never comes back.
    twin = lambda log_probs, _, w: -jnp.clip(jnp.exp(log_probs), 0.8, 1.2) * w
    close(gradient(twin, *arrays)[1], 0.0)
    lower_bound = losses.clipped_surrogate_loss(*map(jnp.asarray, arrays), clip=0.2)
    assert np.all(np.asarray(lower_bound) >= np.asarray(losses.importance_weighted_loss(*map(jnp.asarray, arrays))))


@pytest.mark.parametrize("clip", [0.0, 0.25])
def test_at_the_edge_of_the_clip_the_gradient_is_whole(clip):
    """|ratio − 1| = ε is inside. A minimum of two equal numbers, the wrong twin, has half of each gradient there."""
    edge = jnp.asarray([1.0 + clip, 1.0 - clip, 1.0])
    for sign in (1.0, -1.0):
        loss = lambda ratio: losses.clipped_surrogate_loss(jnp.log(ratio), jnp.zeros(3), jnp.full(3, sign), clip=clip)
        close(jax.grad(lambda ratio: jnp.sum(loss(ratio)))(edge), np.full(3, -sign))


def test_the_clip_may_be_traced():
    arrays = [jnp.asarray(x) for x in (LOG_PROBS, BEHAVIOUR, WEIGHTS)]
    clips = jnp.asarray([0.0, 0.1, 0.3])
    got = jax.jit(jax.vmap(lambda clip: losses.clipped_surrogate_loss(*arrays, clip=clip)))(clips)
    close(got, jnp.stack([losses.clipped_surrogate_loss(*arrays, clip=clip) for clip in (0.0, 0.1, 0.3)]))


class TestConstantsOfTheGradient:
    """Weights, behaviour and targets that depend on the same θ: stop_gradient is load-bearing in each."""

    log_probs = staticmethod(lambda theta: jax.nn.log_softmax(theta))
    weights = staticmethod(lambda theta: jnp.sin(theta) + 2.0)
    theta = np.array([0.3, -0.2, 0.5])

    def gradients(self, loss):
        """Of the loss with both arguments made from θ, and with the second frozen beforehand."""
        theta = jnp.asarray(self.theta)
        frozen = self.weights(theta)
        both = jax.grad(lambda x: jnp.sum(loss(self.log_probs(x), self.weights(x))))(theta)
        first = jax.grad(lambda x: jnp.sum(loss(self.log_probs(x), frozen)))(theta)
        return both, first

    @pytest.mark.parametrize(
        ("loss", "twin"),
        [
            (losses.score_function_loss, lambda p, w: -(w * p)),
            (lambda p, w: losses.importance_weighted_loss(p, jnp.zeros(3), w), lambda p, w: -(w * jnp.exp(p))),
            (lambda p, w: losses.clipped_surrogate_loss(p, p, w, clip=0.2), lambda p, w: -(w * jnp.exp(p - 1.0))),
            (losses.value_loss, lambda v, g: 0.5 * (v - g) ** 2),
            (losses.kl_k2, lambda p, q: 0.5 * (p - q) ** 2),
            (losses.kl_k3, lambda p, q: jnp.expm1(q - p) + p - q),
        ],
    )
    def test_weights(self, loss, twin):
        both, first = self.gradients(loss)
        close(both, first)
        leaking, constant = self.gradients(twin)
        assert np.max(np.abs(np.asarray(leaking - constant))) > 0.05

    def test_behaviour(self):
        """Data from θ itself: the ratio is 1 for every θ, and without stop_gradient nothing would be learnt."""
        theta, weights = jnp.asarray(self.theta), jnp.asarray([1.0, 2.0, -1.0])
        loss = lambda x: jnp.sum(losses.importance_weighted_loss(self.log_probs(x), self.log_probs(x), weights))
        twin = lambda x: jnp.sum(-jnp.exp(self.log_probs(x) - self.log_probs(x)) * weights)
        close(jax.grad(loss)(theta), -jax.jacobian(self.log_probs)(theta).T @ weights)
        close(jax.grad(twin)(theta), 0.0)


class TestDivergenceEstimates:
    """Facts of k1, k2, k3 by enumeration of all actions."""

    logits = np.array([0.2, -0.5, 0.9, 0.0])
    reference = np.array([-0.3, 0.4, 0.1, 0.6])

    def expectation(self, estimate):
        """E and E∇ over a ~ π, actions held fixed while the estimate is differentiated."""
        logits, q = jnp.asarray(self.logits), jax.nn.log_softmax(jnp.asarray(self.reference))
        probabilities = jax.nn.softmax(logits)
        elementwise = lambda x: estimate(jax.nn.log_softmax(x), q)
        return probabilities @ elementwise(logits), probabilities @ jax.jacobian(elementwise)(logits)

    def exact(self):
        p, q = jnp.asarray(self.logits), jnp.asarray(self.reference)
        forward = jax.value_and_grad(categorical.kl)(p, q)
        return *forward, jax.grad(lambda x: categorical.kl(q, x))(p)

    def test_values_and_gradients(self):
        kl, kl_gradient, other_gradient = self.exact()
        k1, k1_gradient = self.expectation(losses.kl_k1)
        k2, k2_gradient = self.expectation(losses.kl_k2)
        k3, k3_gradient = self.expectation(losses.kl_k3)
        close(k1, kl)
        close(k3, kl)
        assert abs(k2 - kl) > 0.005
        close(k1_gradient, 0.0)
        close(k2_gradient, kl_gradient)
        close(k3_gradient, other_gradient)
        assert np.max(np.abs(np.asarray(k3_gradient - kl_gradient))) > 0.01

    def test_the_penalty_has_the_gradient_of_the_divergence(self):
        _, kl_gradient, _ = self.exact()
        _, got = self.expectation(lambda p, q: losses.kl_penalty_loss(p, q, kl_coef=0.3))
        close(got, 0.3 * kl_gradient)

    def test_k3_is_never_negative_and_accurate_near_equality(self):
        gaps = jnp.asarray([-3.0, -1e-3, -1e-9, 0.0, 1e-9, 1e-3, 3.0])
        k3 = np.asarray(losses.kl_k3(gaps, jnp.zeros(7)))
        assert np.all(k3 >= 0.0)
        # d²/2 − d³/6 + …; the twin exp(−d) − 1 + d is all rounding at 10⁻⁹.
        np.testing.assert_allclose(k3[[1, 2, 4, 5]], [5.001667e-7, 5e-19, 5e-19, 4.998334e-7], rtol=1e-6)

    @pytest.mark.parametrize(
        ("mean", "bias", "spread"),
        # Schulman's table for q = N(0, 1), p = N(μ, 1): bias and standard deviation of k1, k2, k3 over KL = μ²/2.
        [(0.1, (0.0, 0.0025, 0.0), (20.0, 1.4177, 1.4166)), (1.0, (0.0, 0.25, 0.0), (2.0, 1.7321, 1.6950))],
    )
    def test_the_published_table(self, mean, bias, spread):
        x = jnp.linspace(-12.0, 12.0, 481)
        unit = GaussianParameters(mean=jnp.zeros(1), log_std=jnp.zeros(1))
        log_density = jax.vmap(diagonal_gaussian.log_prob, (None, 0))
        log_q, log_p = log_density(unit, x[:, None]), log_density(unit._replace(mean=jnp.full(1, mean)), x[:, None])
        weights = jnp.exp(log_q) * 0.05
        kl = mean**2 / 2
        for estimate, wanted_bias, wanted_spread in zip((losses.kl_k1, losses.kl_k2, losses.kl_k3), bias, spread):
            values = estimate(log_q, log_p)
            expected = weights @ values
            close(expected / kl - 1, wanted_bias, 1e-9)
            deviation = math.sqrt(weights @ jnp.square(values - expected))
            close(deviation / kl, wanted_spread, 6e-5)


def test_entropy_loss_is_minus_the_entropy_and_differentiable():
    logits = jnp.asarray([[0.5, -1.0, 0.2], [0.0, 0.0, 0.0]])
    entropies = jax.vmap(categorical.entropy)
    close(losses.entropy_loss(entropies(logits)), [-references.categorical_entropy(row) for row in logits.tolist()])
    descent = -jax.grad(lambda x: jnp.sum(losses.entropy_loss(entropies(x))))(logits)
    assert jnp.sum(entropies(logits + 0.1 * descent)) > jnp.sum(entropies(logits))


@pytest.mark.filterwarnings("ignore:Rlax softmax:PendingDeprecationWarning")
def test_agrees_with_rlax(rlax):
    logits = jnp.asarray(np.random.default_rng(1).normal(size=(6, 3)))
    actions, weights = jnp.asarray([0, 2, 1, 1, 0, 2]), jnp.asarray(WEIGHTS.ravel()[:6])
    log_probs = jax.vmap(categorical.log_prob)(logits, actions)
    behaviour = jnp.asarray(BEHAVIOUR.ravel()[:6]) - 1.0
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        plain = rlax.policy_gradient_loss(logits, actions, weights, jnp.ones(6))
        clipped = rlax.clipped_surrogate_pg_loss(jnp.exp(log_probs - behaviour), weights, 0.2)
        entropy = rlax.entropy_loss(logits, jnp.ones(6))
    close(jnp.mean(losses.score_function_loss(log_probs, weights)), plain)
    close(jnp.mean(losses.clipped_surrogate_loss(log_probs, behaviour, weights, clip=0.2)), clipped)
    close(jnp.mean(losses.entropy_loss(jax.vmap(categorical.entropy)(logits))), entropy)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: losses.score_function_loss(x, x[:, None]),
        lambda x: losses.importance_weighted_loss(x, x, x[:, None]),
        lambda x: losses.clipped_surrogate_loss(x, x[:, None], x, clip=0.1),
        lambda x: losses.value_loss(x, x[:, None]),
        lambda x: losses.kl_k3(x, x[:1]),
    ],
)
def test_nothing_is_broadcast(call):
    with pytest.raises(AssertionError):
        call(jnp.ones(3))


def test_bad_coefficients_are_named():
    x = jnp.ones(3)
    with pytest.raises(ValueError, match=r"clip must be at least 0, got -0\.1"):
        losses.clipped_surrogate_loss(x, x, x, clip=-0.1)
    with pytest.raises(ValueError, match=r"kl_coef must be at least 0, got -1\.0"):
        losses.kl_penalty_loss(x, x, kl_coef=-1.0)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x: losses.score_function_loss(x, x), "log_probs"),
        (lambda x: losses.importance_weighted_loss(x, x, x), "log_probs"),
        (lambda x: losses.importance_weighted_loss(x.astype(float), x, x), "behaviour_log_probs"),
        (lambda x: losses.clipped_surrogate_loss(x, x, x, clip=0.2), "log_probs"),
        (lambda x: losses.value_loss(x, x), "values"),
        (lambda x: losses.entropy_loss(x), "entropies"),
        (lambda x: losses.kl_k1(x, x), "log_probs"),
        (lambda x: losses.kl_k3(x.astype(float), x), "reference_log_probs"),
        (lambda x: losses.kl_penalty_loss(x, x, kl_coef=0.5), "log_probs"),
    ],
)
def test_integers_are_refused_because_coefficients_would_be_cut_to_zero(call, name):
    """The twin: 0.2 in the type of integer log-probabilities is 0."""
    integers = jnp.asarray([0, -1, -2])
    assert jnp.asarray(0.2, integers.dtype) == 0
    for run in (call, jax.jit(call)):
        with pytest.raises(ValueError, match=rf"^{name} must have a float type, got int64"):
            run(integers)
