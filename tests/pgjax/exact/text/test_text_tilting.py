"""The best policy near a reference: J* − J(π) = β KL(π ‖ π*), and the gradient of J."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close, far

from pgjax import exact

BETA = 0.3


@pytest.fixture(scope="module")
def drawn(exact_arithmetic):
    """ln π and ln π_ref of the answers of at most three tokens, rewards, and the table θ of π."""
    answers = exact.enumerate_answers(3, 3, eos=2)
    draw = np.random.default_rng(0).normal
    theta, of_reference = (jnp.asarray(draw(size=(answers.num_prefixes, 3))) for _ in range(2))
    of_table = lambda theta: exact.answer_log_probs(answers, jax.nn.log_softmax(theta))
    return of_table, theta, of_table(of_reference), jnp.asarray(draw(size=answers.num_answers))


def test_the_regret_is_the_divergence_from_the_optimum(drawn):
    of_table, theta, reference, rewards = drawn
    found = exact.regularised(of_table(theta), reference, rewards, BETA)
    close(found.regret, BETA * found.kl_to_optimum, atol=1e-10)
    close(found.regret, found.optimum - found.objective)
    assert found.regret > 0.1
    far(found.regret, BETA * found.reverse_kl_to_optimum)
    best = exact.tilted_log_probs(reference, rewards, BETA)
    at_best = exact.regularised(best, reference, rewards, BETA)
    close((at_best.regret, at_best.kl_to_optimum), (0.0, 0.0))
    close(at_best.optimum, BETA * np.log(np.sum(np.exp(reference) * np.exp(rewards / BETA))))
    p = np.exp(of_table(theta))
    close(found.expected_reward, p @ rewards)
    close(found.entropy, -np.sum(p * np.log(p)))
    close(found.effective_answers, np.exp(-np.sum(p * np.log(p))))
    close(found.reverse_kl, np.sum(np.exp(reference) * (reference - np.log(p))))


def test_beta_interpolates_between_the_best_answer_and_the_reference(drawn):
    _, _, reference, rewards = drawn
    close(exact.tilted_log_probs(reference, rewards, 1e9), reference, atol=1e-7)
    close(jnp.exp(exact.tilted_log_probs(reference, rewards, 1e-3))[jnp.argmax(rewards)], 1.0, atol=1e-7)
    of_beta = lambda beta: exact.kl_divergence(exact.tilted_log_probs(reference, rewards, beta), reference)
    assert np.all(np.diff([of_beta(beta) for beta in (0.1, 0.3, 1.0, 3.0)]) < 0)


def test_the_gradient_is_the_score_function_of_the_penalised_reward(drawn):
    """E[(r − β ln π/π_ref) ∇ ln π] is ∇J: the derivative of the log-ratio itself adds nothing."""
    of_table, theta, reference, rewards = drawn
    objective = lambda theta, beta: exact.regularised_objective(of_table(theta), reference, rewards, beta)
    gradient = jax.jit(jax.grad(objective))(theta, BETA)
    scores = jax.jit(jax.jacobian(of_table))(theta)
    log_probs = of_table(theta)
    penalised = lambda sign: jnp.exp(log_probs) * (rewards - sign * BETA * (log_probs - reference))
    close(gradient, jnp.einsum("n,nmv->mv", penalised(1.0), scores))
    far(gradient, jnp.einsum("n,nmv->mv", penalised(-1.0), scores))


def test_answers_of_probability_zero_give_no_nan(drawn):
    *_, reference, rewards = drawn
    never = jnp.where(jnp.arange(reference.size) < 2, -jnp.inf, reference)
    objective = lambda logits: exact.regularised_objective(jax.nn.log_softmax(logits), never, rewards, BETA)
    value, gradient = jax.value_and_grad(objective)(jnp.where(jnp.isfinite(never), 0.0, -jnp.inf))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
    assert exact.kl_divergence(reference, never) == np.inf
    close(exact.entropy(jnp.array([0.0, -jnp.inf])), 0.0)


def test_beta_must_be_positive(drawn):
    *_, reference, rewards = drawn
    with pytest.raises(ValueError, match="kl_coef must be above 0"):
        exact.log_partition(reference, rewards, 0.0)
    with pytest.raises(ValueError, match="kl_coef must be at least 0, got -1"):
        exact.regularised_objective(reference, reference, rewards, -1.0)
