"""PGPE on a problem whose objective has a closed form: x' = x + a, R = −x'², two steps, a = θ x, x² = 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import baselines, estimators, rollouts
from pgjax.distributions import GaussianParameters, diagonal_gaussian
from pgjax.parameter_exploring import gaussian_hyperpolicy, parameter_exploring
from pgjax.types import Box, Environment, Policy, Step

LINE = Box(low=-np.inf, high=np.inf, shape=(1,))
MEAN, LOG_STD = -0.6, -0.7
SAMPLES = 40_000
THETA = {"gain": np.asarray([MEAN], np.float32)}
POLICY = gaussian_hyperpolicy(THETA, LOG_STD)


def regulator():
    """Two steps from x = ±1; `params` is the standard deviation of noise in x', 0 by default."""

    def reset(key, params):
        x = jnp.where(jax.random.bernoulli(key), 1.0, -1.0).astype(jnp.float32)[None]
        return x, x

    def step(key, state, action, params):
        x = state + action + params * jax.random.normal(key, (1,))
        return x, Step(obs=x, reward=-jnp.sum(x**2), terminated=jnp.zeros((), bool))

    return Environment(
        name="regulator",
        reset=reset,
        step=step,
        params=np.float32(0.0),
        observation_space=LINE,
        action_space=LINE,
        horizon=2,
    )


# The acting policy's own spread is wide: acting by anything but the mode would be seen.
LINEAR = Policy(
    init=lambda key, obs: THETA,
    apply=lambda params, obs: GaussianParameters(mean=params["gain"] * obs, log_std=jnp.ones((1,))),
    distribution=diagonal_gaussian,
)


def closed_form():
    """∇ of −E[u² + u⁴], u = 1 + θ ~ N(μ, s²): −(μ² + s² + μ⁴ + 6 μ² s² + 3 s⁴), in (m, ln s)."""
    mu, variance = 1.0 + MEAN, np.exp(2 * LOG_STD)
    return np.array(
        [
            -(2 * mu + 4 * mu**3 + 12 * mu * variance),
            -(2 * variance + 12 * mu**2 * variance + 12 * variance**2),
        ]
    )


@jax.jit
def play(noise, discount):
    problem = parameter_exploring(regulator(), LINEAR, THETA, discount=discount)
    params = POLICY.init(jax.random.key(0), jnp.ones((1,)))
    keys = jax.random.split(jax.random.key(7), SAMPLES)
    return rollouts.episodes(problem, POLICY, params, keys, env_params=noise)


@pytest.fixture(scope="module")
def batch():
    return play(0.0, 1.0)


@pytest.fixture(scope="module")
def summands(batch):
    """Each episode's gradient in (m, ln s), `[B, 2]`, by baseline; and of the twin that pays another draw's return."""
    make = lambda baseline: estimators.make_estimator(POLICY, baseline=baseline)
    ladder = {"0": baselines.none(), "b": baselines.constant(-1.0), "others": baselines.leave_one_out()}

    @jax.jit
    def run(batch):
        params = POLICY.init(jax.random.key(0), jnp.ones((1,)))
        found = {name: make(baseline).episode_gradients(params, (), batch) for name, baseline in ladder.items()}
        shuffled = batch._replace(rewards=jnp.roll(batch.rewards, 1, axis=1))
        return {**found, "twin": make(ladder["b"]).episode_gradients(params, (), shuffled)}

    return {name: np.concatenate(x, axis=1).astype(np.float64) for name, x in jax.device_get(run(batch)).items()}


def z_scores(each, wanted):
    return (each.mean(axis=0) - wanted) / (each.std(axis=0, ddof=1) / np.sqrt(len(each)))


def test_the_reward_is_the_return_of_one_episode_of_the_drawn_parameters(batch):
    drawn = np.asarray(batch.actions[0, :, 0], np.float64)
    u = 1.0 + drawn
    np.testing.assert_allclose(batch.rewards[0], -(u**2 + u**4), rtol=1e-4)
    assert batch.rewards.shape == (1, SAMPLES) and batch.terminated.all() and batch.alive.all()
    assert len(np.unique(drawn)) > 0.99 * SAMPLES


def test_discount_and_the_parameters_of_the_problem_inside():
    """γ where it is asked for; randomness inside the problem with a key of its own for each episode."""
    quiet, noisy = play(0.0, 0.5), play(0.3, 0.5)
    u = 1.0 + np.asarray(quiet.actions[0, :, 0], np.float64)
    np.testing.assert_allclose(quiet.rewards[0], -(u**2 + 0.5 * u**4), rtol=1e-4)
    off = np.asarray(noisy.rewards - quiet.rewards)[0]
    assert len(np.unique(off)) > 0.9 * SAMPLES and off.std() > 0.05


@pytest.mark.parametrize("baseline", ["0", "b", "others"])
def test_unbiased_for_the_closed_form(summands, baseline):
    assert np.abs(z_scores(summands[baseline], closed_form())).max() < 4.5


def test_a_return_of_another_draw_teaches_nothing(summands):
    """The wrong twin: the mean is then exactly 0, and the test above sees that."""
    assert np.abs(z_scores(summands["twin"], 0.0)).max() < 4.5
    assert np.abs(z_scores(summands["twin"], closed_form())).min() > 20


def test_the_hyperpolicy():
    theta = {"bias": jnp.arange(2.0), "weight": jnp.full((2, 3), 5.0)}
    policy = gaussian_hyperpolicy(theta, -1.0)
    params = policy.init(jax.random.key(0), jnp.ones((1,)))
    np.testing.assert_array_equal(params.mean, [0, 1, 5, 5, 5, 5, 5, 5])
    np.testing.assert_array_equal(params.log_std, np.full(8, -1.0))
    for obs in (jnp.zeros((1,)), jnp.ones((1,))):
        assert policy.apply(params, obs) is params
    with pytest.raises(ValueError, match=r"log_std.*wide"):
        gaussian_hyperpolicy(theta, "wide")
    with pytest.raises(ValueError, match=r"discount.*2"):
        parameter_exploring(regulator(), LINEAR, THETA, discount=2.0)
