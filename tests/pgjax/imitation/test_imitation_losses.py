"""Imitation losses against sums over all actions, in float64; a wrong twin for each; DAgger's mixing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from jax.test_util import check_grads

from pgjax import imitation
from pgjax.distributions import GaussianParameters, categorical, diagonal_gaussian

pytestmark = pytest.mark.usefixtures("strict", "x64")

LOGITS, EXPERT_LOGITS = np.random.default_rng(0).normal(size=(2, 3, 4))
DIVERGENCES = ("cross_entropy", "forward_kl", "reverse_kl", "total_variation")


def log_softmax(logits):
    return np.asarray(logits) - np.log(np.exp(logits).sum(axis=-1, keepdims=True))


LOG_F, LOG_EXPERT = log_softmax(LOGITS), log_softmax(EXPERT_LOGITS)
F, EXPERT = np.exp(LOG_F), np.exp(LOG_EXPERT)
ENTROPY = -(EXPERT * LOG_EXPERT).sum(axis=-1)


def of_logits(name, expert=LOG_EXPERT):
    loss = getattr(imitation, name)
    return lambda logits: loss(jax.nn.log_softmax(logits), jnp.asarray(expert))


def gradient(name, logits=LOGITS, expert=LOG_EXPERT):
    return jax.grad(lambda x: jnp.sum(of_logits(name, expert)(x)))(jnp.asarray(logits))


@pytest.fixture(scope="module")
def gradients():
    with jax.enable_x64(True):
        every = jax.jit(lambda logits: {name: gradient(name, logits) for name in DIVERGENCES})(LOGITS)
        return {name: np.asarray(x) for name, x in every.items()}


def test_values_are_the_sums_of_the_definitions():
    every = jax.jit(lambda logits: {name: of_logits(name)(logits) for name in DIVERGENCES})(LOGITS)
    value = {name: np.asarray(x) for name, x in every.items()}
    assert all(x.shape == (3,) for x in value.values())
    close(value["cross_entropy"], -(EXPERT * LOG_F).sum(axis=-1))
    close(value["forward_kl"], value["cross_entropy"] - ENTROPY)
    close(value["reverse_kl"], (F * (LOG_F - LOG_EXPERT)).sum(axis=-1))
    close(value["total_variation"], 0.5 * np.abs(F - EXPERT).sum(axis=-1))
    # Total variation is the largest difference of an event's probability: over all 2⁴ events.
    events = (np.arange(16)[:, None] >> np.arange(4)) & 1
    close(value["total_variation"], ((F - EXPERT) @ events.T).max(axis=-1))
    assert np.all(value["total_variation"] ** 2 <= 0.5 * value["forward_kl"])
    assert np.all(value["total_variation"] ** 2 <= 0.5 * value["reverse_kl"])
    # Twins: without the half Pinsker fails at its own edge, and the two directions differ.
    near = jax.nn.log_softmax(jnp.asarray([[0.0, 0.02]])), jnp.log(jnp.asarray([[0.5, 0.5]]))
    distance, divergence = imitation.total_variation(*near)[0], imitation.forward_kl(*near)[0]
    assert 0.999 < distance**2 / (0.5 * divergence) <= 1.0 < (2 * distance) ** 2 / (0.5 * divergence)
    assert np.all(np.abs(value["forward_kl"] - value["reverse_kl"]) > 1e-4)


def test_gradients_are_those_of_the_definitions(gradients):
    # ∂ ln f_a / ∂ l_b = 1[a = b] − f_b
    close(gradients["cross_entropy"], F - EXPERT)
    close(gradients["forward_kl"], F - EXPERT)
    divergence = (F * (LOG_F - LOG_EXPERT)).sum(axis=-1, keepdims=True)
    close(gradients["reverse_kl"], F * (LOG_F - LOG_EXPERT - divergence))
    sign = np.sign(F - EXPERT)
    close(gradients["total_variation"], 0.5 * F * (sign - (F * sign).sum(axis=-1, keepdims=True)))
    for name in ("forward_kl", "total_variation"):
        check_grads(of_logits(name), (jnp.asarray(LOGITS),), order=1, modes=["rev"])


def test_the_expected_gradient_of_behavioural_cloning_is_that_of_the_divergence(gradients):
    def nll(logits, action):
        return jnp.sum(imitation.negative_log_likelihood(categorical, logits, jnp.broadcast_to(action, (3,))))

    by_action = jax.jit(jax.vmap(jax.grad(nll), (None, 0)))(jnp.asarray(LOGITS), jnp.arange(4, dtype=jnp.int32))
    by_action = np.asarray(by_action)
    close((EXPERT.T[:, :, None] * by_action).sum(axis=0), gradients["forward_kl"])
    # The twin that asks the learner for actions teaches nothing: E_{a ~ f} ∇ ln f = 0.
    close((F.T[:, :, None] * by_action).sum(axis=0), 0.0)
    assert np.abs(gradients["forward_kl"]).max() > 0.1


def test_the_minimiser_of_tabular_cloning_is_the_empirical_frequency():
    actions = jnp.asarray([0, 0, 0, 2, 1, 2, 0, 2], jnp.int32)
    frequencies = np.bincount(actions, minlength=3) / 8
    total = lambda logits: jnp.sum(
        imitation.negative_log_likelihood(categorical, jnp.broadcast_to(logits, (8, 3)), actions)
    )
    slope = jax.jit(jax.grad(total))
    close(slope(jnp.log(jnp.asarray(frequencies))), 0.0)
    add_one = (np.bincount(actions, minlength=3) + 1) / 11
    assert np.abs(slope(jnp.log(jnp.asarray(add_one)))).max() > 0.1
    close(jax.jit(total)(jnp.log(jnp.asarray(frequencies))) / 8, -(frequencies * np.log(frequencies)).sum())


def test_probability_zero_is_minus_infinity():
    expert = np.full((3, 4), -np.inf)
    expert[:, 1] = 0.0
    close(of_logits("cross_entropy", expert)(jnp.asarray(LOGITS)), -LOG_F[:, 1])
    close(of_logits("forward_kl", expert)(jnp.asarray(LOGITS)), -LOG_F[:, 1])
    close(of_logits("total_variation", expert)(jnp.asarray(LOGITS)), 1 - F[:, 1])
    for name in ("cross_entropy", "forward_kl"):
        close(gradient(name, expert=expert), F - np.exp(expert))
    assert np.all(np.isfinite(gradient("total_variation", expert=expert)))
    assert np.all(np.isposinf(of_logits("reverse_kl", expert)(jnp.asarray(LOGITS))))
    # A learner that excludes what the expert excludes is at distance zero, and one that excludes more infinitely far.
    for name in ("forward_kl", "reverse_kl", "total_variation"):
        loss = getattr(imitation, name)
        close(loss(jnp.asarray(expert), jnp.asarray(expert)), 0.0)
        assert np.all(np.isfinite(jax.grad(lambda x: jnp.sum(loss(x, jnp.asarray(expert))))(jnp.asarray(expert))))
    assert np.all(np.isposinf(imitation.forward_kl(jnp.asarray(expert), jnp.asarray(LOG_EXPERT))))


def test_nan_is_not_probability_zero():
    """The twin that leaves out every weight that is not finite would call such a policy perfect."""
    spoilt = jnp.asarray(LOG_F).at[1].set(jnp.nan)
    for name in DIVERGENCES:
        loss = getattr(imitation, name)
        for found in (loss(spoilt, jnp.asarray(LOG_EXPERT)), loss(jnp.asarray(LOG_EXPERT), spoilt)):
            np.testing.assert_array_equal(np.isnan(found), [False, True, False])


def test_the_subgradient_of_total_variation_at_the_expert_is_zero():
    # The very numbers of the learner: rounding alone would decide between the two signs.
    at_expert = jax.nn.log_softmax(jnp.asarray(LOGITS))
    close(jax.grad(lambda x: jnp.sum(imitation.total_variation(x, at_expert)))(at_expert), 0.0)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_the_expert_is_a_constant(name):
    fixed = lambda x, y: jnp.sum(getattr(imitation, name)(jax.nn.log_softmax(x), jax.nn.log_softmax(y)))
    logits = jnp.asarray(LOGITS)
    close(jax.grad(lambda x: fixed(x, 2.0 * x))(logits), jax.grad(fixed)(logits, 2.0 * logits))


class TestGaussians:
    POLICY = GaussianParameters(np.array([[0.3, -1.0]]), np.array([[0.2, -0.4]]))
    EXPERT = GaussianParameters(np.array([[-0.1, 0.5]]), np.array([[-0.3, 0.1]]))

    def test_divergences_by_quadrature(self):
        grid = np.linspace(-12, 12, 4001)
        density = lambda p, d: np.exp(-0.5 * ((grid - p.mean[0, d]) / np.exp(p.log_std[0, d])) ** 2 - p.log_std[0, d])

        def kl(p, q):
            total = 0.0
            for d in range(2):
                a, b = (density(x, d) / np.sqrt(2 * np.pi) for x in (p, q))
                total += ((a * (np.log(a + 1e-300) - np.log(b + 1e-300))).sum()) * (grid[1] - grid[0])
            return total

        policy, expert = (GaussianParameters(*map(jnp.asarray, p)) for p in (self.POLICY, self.EXPERT))
        both = jax.jit(
            lambda p: [
                imitation.distribution_kl(diagonal_gaussian, p, expert, direction=d) for d in ("forward", "reverse")
            ]
        )(policy)
        forward, reverse = kl(self.EXPERT, self.POLICY), kl(self.POLICY, self.EXPERT)
        close(both[0], [forward], 1e-9)
        close(both[1], [reverse], 1e-9)
        assert abs(forward - reverse) > 0.1

    def test_squared_error_is_the_likelihood_of_unit_variance(self):
        mean, action = jnp.asarray(np.arange(6.0).reshape(3, 2)), jnp.asarray([[0.5, 1.0], [2.0, 2.0], [0.0, 9.0]])
        cloning = lambda *parameters: imitation.negative_log_likelihood(
            diagonal_gaussian, GaussianParameters(*parameters), action
        )
        nll = jax.jit(cloning)(mean, jnp.zeros_like(mean))
        close(imitation.squared_error(mean, action), nll - np.log(2 * np.pi))
        close(imitation.squared_error(mean[:, 0], action[:, 0]), 0.5 * (mean - action)[:, 0] ** 2)

    def test_an_unknown_direction(self):
        with pytest.raises(ValueError, match="direction must be one of 'forward', 'reverse', got 'both'"):
            imitation.distribution_kl(diagonal_gaussian, self.POLICY, self.EXPERT, direction="both")


@pytest.mark.parametrize(
    ("schedule", "wanted"),
    [
        (imitation.indicator_schedule, [1, 0, 0, 0]),
        (lambda: imitation.exponential_schedule(0.5), [1, 0.5, 0.25, 0.125]),
        (lambda: imitation.exponential_schedule(0.0), [1, 0, 0, 0]),
        (lambda: imitation.linear_schedule(2), [1, 0.5, 0, 0]),
    ],
)
def test_schedules(schedule, wanted):
    close(jax.jit(jax.vmap(schedule()))(jnp.arange(4)), wanted)


def test_schedules_refuse_what_is_no_share():
    with pytest.raises(ValueError, match=r"decay must be in \[0, 1\], got 1.5"):
        imitation.exponential_schedule(1.5)
    with pytest.raises(ValueError, match="num_rounds must be at least 1, got 0"):
        imitation.linear_schedule(0)
    with pytest.raises(ValueError, match="beta must be"):
        imitation.mix(jax.random.key(0), 1.5, jnp.int32(0), jnp.int32(0))


def test_mixing_chooses_whole_actions_with_probability_beta():
    count = 4000
    expert, own = jnp.ones((count, 3)), jnp.zeros((count, 3))
    mixed = jax.jit(jax.vmap(imitation.mix, (0, None, 0, 0)))
    keys = jax.random.split(jax.random.key(0), count)
    close(mixed(keys, 1.0, expert, own), 1.0)
    close(mixed(keys, 0.0, expert, own), 0.0)
    chosen = np.asarray(mixed(keys, 0.3, expert, own))
    close(chosen, np.broadcast_to(chosen[:, :1], chosen.shape))
    z = lambda beta: (chosen[:, 0].mean() - beta) / np.sqrt(beta * (1 - beta) / count)
    # The mutant that exchanges expert and learner.
    assert abs(z(0.3)) < 4.5 and abs(z(0.7)) > 5.2
