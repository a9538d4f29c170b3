"""Fitting a policy to labels by gradient descent: every divergence falls, and the frequencies are found."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import exact, imitation
from pgjax.distributions import categorical
from pgjax.imitation import experts
from pgjax.training import NonFiniteError
from pgjax.types import Policy


def table_policy(num_states, num_actions):
    init = lambda key, obs: jnp.zeros((num_states, num_actions))
    return Policy(init=init, apply=lambda params, obs: obs @ params, distribution=categorical)


@pytest.fixture(scope="module")
def chain():
    """T = 6; the expert takes action 0 and the learner either one, evenly."""
    mdp = exact.compounding_chain(6, recoverable=True)
    return exact.to_environment(mdp), experts.from_table(mdp, exact.first_action(mdp)), table_policy(2, 2)


def probability_data(table):
    """Both states of the chain, three and one times."""
    states = np.array([0, 0, 0, 1])
    return imitation.Demonstrations(
        obs=jnp.eye(2)[states],
        actions=jnp.zeros(4, jnp.int32),
        weights=jnp.ones(4),
        groups=jnp.arange(4),
        log_probs=jnp.log(jnp.asarray(table, jnp.float32))[states],
    )


@pytest.mark.parametrize("loss", ["cross_entropy", "forward_kl", "reverse_kl", "total_variation"])
def test_gradient_fit_descends_every_divergence(chain, loss):
    """One full step of size 1 is the gradient of that very loss, and lowers it; an expert may exclude an action."""
    fallible, sure = [[0.7, 0.3], [0.4, 0.6]], [[0.7, 0.3], [1.0, 0.0]]
    data = probability_data(fallible if loss == "reverse_kl" else sure)
    start = jnp.asarray([[0.1, -0.4], [0.3, 0.8]])
    mean = lambda params: jnp.mean(getattr(imitation, loss)(jax.nn.log_softmax(data.obs @ params), data.log_probs))
    fit = imitation.gradient_fit(chain[2], optax.sgd(1.0), num_epochs=1, batch_size=4, loss=loss)
    learned = fit(jax.random.key(0), start, data)
    before, gradient = jax.value_and_grad(mean)(start)
    np.testing.assert_allclose(learned, start - gradient, atol=1e-6)
    assert mean(learned) < before - 1e-3
    with pytest.raises(ValueError, match=f"loss must not be '{loss}': the expert's log-probabilities are not known"):
        fit(jax.random.key(0), start, data._replace(log_probs=None))
    with pytest.raises(NonFiniteError, match="train_loss must be finite, got nan"):
        fit(jax.random.key(0), start * jnp.nan, data)
    if loss == "reverse_kl":
        with pytest.raises(NonFiniteError, match="train_loss must be finite, got inf"):
            fit(jax.random.key(0), start, probability_data(sure))


LOSSES = ["negative_log_likelihood", pytest.param("cross_entropy", marks=pytest.mark.slow)]


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_fit_finds_the_frequencies(chain, loss):
    """The maximum-likelihood table of a fallible expert, and with cross-entropy its probabilities themselves."""
    environment, _, policy = chain
    probabilities = np.array([[0.8, 0.2], [0.4, 0.6]])
    expert = experts.from_table(environment.params, probabilities)

    @jax.jit
    def run(key):
        options = {"num_epochs": 150, "batch_size": 300, "loss": loss}
        fit = imitation.gradient_fit(policy, optax.adam(0.1), **options)
        result = imitation.behavioural_cloning(key, environment, expert, policy, fit, num_episodes=50)
        counted = imitation.table_fit(2)(key, result.params, result.demonstrations)
        return jax.nn.softmax(result.params), jax.nn.softmax(counted)

    learned, frequencies = run(jax.random.key(1))
    np.testing.assert_allclose(learned, probabilities if loss == "cross_entropy" else frequencies, atol=2e-3)
    assert np.abs(frequencies - probabilities).max() > 5e-3
