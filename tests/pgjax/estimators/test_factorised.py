"""Baselines of action components: a cooperative game of three bits by enumeration, target matching by quadrature."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import baselines, estimators, exact, training
from pgjax.distributions import GaussianParameters, bernoulli, diagonal_gaussian
from pgjax.spaces import MultiDiscrete
from pgjax.types import Box, Environment, Policy, Step, Trajectory

BITS = np.array(list(np.ndindex(2, 2, 2)), np.int32)
# Paid to all three agents together for (a_1, a_2, a_3), in the two situations that each sees.
GAME = np.random.default_rng(0).normal(size=(2, 2, 2, 2)) + np.indices((2, 2, 2, 2))[1:].sum(axis=0)
AGENTS = Policy(init=lambda key, obs: jnp.zeros((3, 2)), apply=lambda params, obs: params @ obs, distribution=bernoulli)
COMPONENTS = estimators.each_component(bernoulli)


def one_step(obs, actions, rewards):
    end = jnp.ones((1, len(rewards)), bool)
    return Trajectory(
        obs=jnp.asarray(obs)[None],
        actions=jnp.asarray(actions)[None],
        rewards=jnp.asarray(rewards)[None],
        alive=end,
        terminated=end,
        truncated=~end,
        final_obs=jnp.asarray(obs),
    )


def payoff(obs, action):
    """q(x, a), for actions that are data or tracers."""
    bits = jax.nn.one_hot(action, 2, dtype=obs.dtype)
    return jnp.einsum("x,xijk,i,j,k->", obs, jnp.asarray(GAME, obs.dtype), *bits)


class Game:
    def __init__(self):
        situations = np.repeat(np.eye(2), 8, axis=0)
        actions = np.tile(BITS, (2, 1))
        rewards = np.concatenate([GAME[x][tuple(BITS.T)] for x in range(2)])
        self.batch = one_step(situations, actions, rewards)
        self.params = np.random.default_rng(1).normal(size=(3, 2))
        self.probabilities = np.asarray(jax.jit(self.distribution)(self.params))
        self.gradient = np.asarray(jax.jit(jax.grad(self.objective))(self.params))
        # v(x), each situation coming up half of the time, and P(a_i = 1 | x), [3, 2].
        self.values = 2 * (self.probabilities * rewards).reshape(2, 8).sum(axis=1)
        self.on = 1 / (1 + np.exp(-self.params))

    def distribution(self, params):
        log_probs = jax.vmap(lambda obs, a: bernoulli.log_prob(AGENTS.apply(params, obs), a))
        return 0.5 * jnp.exp(log_probs(self.batch.obs[0], self.batch.actions[0]))

    def objective(self, params):
        return jnp.sum(self.distribution(params) * self.batch.rewards[0])

    def moments(self, baseline):
        estimator = estimators.factorised(AGENTS, COMPONENTS, baseline)
        each = np.asarray(jax.jit(estimator.episode_gradients)(self.params, (), self.batch))
        return self.of_each(each)

    def of_each(self, each):
        """Mean and total variance of what each outcome gives."""
        mean = np.tensordot(self.probabilities, each, 1)
        return mean, np.tensordot(self.probabilities, (each - mean) ** 2, 1).sum()


@pytest.fixture(scope="module")
def game():
    with jax.enable_x64(True):
        yield Game()


def test_a_cooperative_game(float64, game):
    """Unbiased every one; the noise that the others make is what only b_i(x, a_−i) takes out."""
    zero = lambda outputs, obs, action: jnp.zeros(3)
    state = lambda outputs, obs, action: jnp.full(3, obs @ game.values)
    counterfactual = estimators.counterfactual(COMPONENTS, payoff)
    rung = {"none": zero, "state": state, "factorised": counterfactual}
    got = {name: game.moments(baseline) for name, baseline in rung.items()}
    for mean, _ in got.values():
        np.testing.assert_allclose(mean, game.gradient, atol=1e-10)
    none, of_state, factorised = (got[name][1] for name in rung)
    assert none > 1.3 * of_state > 1.3 * 1.3 * factorised
    # Any q will do for the mean.
    wrong_q = estimators.counterfactual(COMPONENTS, lambda obs, action: 3.0 - payoff(obs, action) ** 2)
    np.testing.assert_allclose(game.moments(wrong_q)[0], game.gradient, atol=1e-10)
    at_mode = estimators.at_component_mode(bernoulli, payoff)
    np.testing.assert_allclose(game.moments(at_mode)[0], game.gradient, atol=1e-10)
    # The first two rungs are the estimators of the ladder.
    plain = estimators.make_estimator(AGENTS, baseline=baselines.state_values(lambda obs: obs @ game.values))
    each = jax.jit(plain.episode_gradients)(game.params, (), game.batch)
    np.testing.assert_allclose(game.of_each(np.asarray(each))[1], of_state, rtol=1e-12)


def test_a_baseline_that_sees_its_own_component(float64, game):
    """Off by −Σ_i ∇_i E[b_i]: −c p(1−p) for b_i = c a_i, all of the gradient for b_i = q(x, a)."""
    own = lambda outputs, obs, action: 0.7 * action.astype(outputs.dtype)
    bias = game.moments(own)[0] - game.gradient
    # ∂p_i/∂θ_{i,x} = p(1−p), and each situation comes up half of the time.
    np.testing.assert_allclose(bias, -0.7 * 0.5 * game.on * (1 - game.on), atol=1e-10)
    everything = lambda outputs, obs, action: jnp.full(3, payoff(obs, action))
    np.testing.assert_allclose(game.moments(everything)[0], np.zeros((3, 2)), atol=1e-10)
    assert np.abs(game.gradient).max() > 0.1


def test_the_counterfactual_by_hand(float64, game):
    """b_2(x, a_1, ·, a_3) = (1 − p_2) q(a_1, 0, a_3) + p_2 q(a_1, 1, a_3), whatever a_2 is."""
    baseline = estimators.counterfactual(COMPONENTS, payoff)
    logits, p = jnp.asarray(game.params[:, 1]), game.on[1, 1]
    for second in (0, 1):
        b = jax.jit(baseline)(logits, jnp.asarray([0.0, 1.0]), jnp.asarray([1, second, 0], jnp.int32))
        np.testing.assert_allclose(b[1], (1 - p) * GAME[1, 1, 0, 0] + p * GAME[1, 1, 1, 0], atol=1e-12)
    np.testing.assert_allclose(jnp.sum(COMPONENTS(logits, BITS[5])), bernoulli.log_prob(logits, BITS[5]), atol=1e-12)


NODES, NODE_WEIGHTS = np.polynomial.hermite_e.hermegauss(9)
TARGET, MEAN, STD = np.array([0.5, -1.0]), np.array([1.5, -0.4]), 0.6


def test_target_matching(float64):
    """One step, r = −‖a − c‖², Gaussian policy (the task of Wu et al. 2018): variances in closed form.

    With δ = μ − c: no cross terms are left by a factorised baseline, 8 δ_i² + 10 σ² each (exact q, averaged) or
    8 δ_i² + 15 σ² (q at the mean); the state baseline adds Σ_{j≠i} (4 δ_j² + 2 σ²).
    """
    policy = Policy(
        init=lambda key, obs: jnp.zeros(2),
        apply=lambda params, obs: GaussianParameters(mean=params, log_std=jnp.full(2, np.log(STD))),
        distribution=diagonal_gaussian,
    )
    # Gauss's quadrature is exact for these polynomials of the noise, of degree 6.
    noise = np.stack(np.meshgrid(NODES, NODES, indexing="ij"), axis=-1).reshape(-1, 2)
    probabilities = jnp.asarray(np.outer(NODE_WEIGHTS, NODE_WEIGHTS).ravel() / (2 * np.pi))
    actions = MEAN + STD * noise
    batch = one_step(np.ones((81, 1)), actions, -((actions - TARGET) ** 2).sum(axis=1))
    q = lambda obs, action: -jnp.sum((action - TARGET) ** 2)
    square = (MEAN - TARGET) ** 2
    others = square[::-1]
    rungs = {
        "state": (lambda outputs, obs, a: jnp.full(2, -square.sum() - 2 * STD**2), 4 * others + 2 * STD**2, 10),
        "mode": (estimators.at_component_mode(diagonal_gaussian, q), 0.0, 15),
        "averaged": (lambda outputs, obs, a: -square - STD**2 - ((a - TARGET) ** 2)[::-1], 0.0, 10),
    }
    for baseline, cross, own in rungs.values():
        estimator = estimators.factorised(policy, estimators.each_component(diagonal_gaussian), baseline)
        each = jax.jit(estimator.episode_gradients)(jnp.asarray(MEAN), (), batch)
        got = exact.moments_of(each, probabilities)
        np.testing.assert_allclose(got.mean, -2 * (MEAN - TARGET), atol=1e-10)
        np.testing.assert_allclose(got.variance, 8 * square + own * STD**2 + cross, atol=1e-9)


@pytest.mark.slow
def test_it_trains():
    """Three agents learn the best joint action of situation 0 through the sampled pipeline."""
    best = np.unravel_index(GAME[0].argmax(), (2, 2, 2))
    obs = jnp.asarray([1.0, 0.0])
    environment = Environment(
        name="game",
        reset=lambda key, params: ((), obs),
        step=lambda key, state, action, params: (
            (),
            Step(obs=obs, reward=payoff(obs, action), terminated=jnp.ones((), bool)),
        ),
        params=(),
        observation_space=Box(low=0.0, high=1.0, shape=(2,)),
        action_space=MultiDiscrete((2, 2, 2)),
        horizon=1,
    )
    estimator = estimators.factorised(AGENTS, COMPONENTS, estimators.counterfactual(COMPONENTS, payoff))
    trainer = training.make_trainer(environment, AGENTS, estimator, optax.sgd(0.5), num_episodes=32)
    state, metrics = jax.jit(lambda key: jax.lax.scan(lambda s, _: trainer.update(s), trainer.init(key), length=100))(
        jax.random.key(0)
    )
    np.testing.assert_array_equal(state.params[:, 0] > 0, best)
    assert metrics["mean_return"][-10:].mean() > GAME[0].max() - 0.3


def test_refusals(game):
    zero = lambda outputs, obs, action: jnp.zeros(2)
    with pytest.raises(ValueError, match="reward_to_go in factorised, got ReturnRule"):
        estimators.factorised(AGENTS, COMPONENTS, zero, returns=estimators.n_step(1))
    with pytest.raises(ValueError, match=r"for each component, shape \(3,\), got shape \(2,\)"), jax.enable_x64(True):
        jax.eval_shape(estimators.factorised(AGENTS, COMPONENTS, zero).gradient, game.params, (), game.batch)
