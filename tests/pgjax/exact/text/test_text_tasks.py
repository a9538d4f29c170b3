"""Small text tasks as MDPs: the same objective as the sum over answers, and moments over groups that share a prompt."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close, far

from pgjax import acting, baselines, estimators, exact, rewards
from pgjax.distributions import categorical
from pgjax.types import Policy

VOCABULARY, LIMIT, EOS = 2, 2, 1
# The observation is a number of the prompt, the first token and the length.
SEES = [lambda tokens, length, q=q: jnp.stack([jnp.int32(q), tokens[0].astype(jnp.int32), length]) for q in range(2)]


def logits_of(params, obs):
    return params[obs[0], obs[1], obs[2]]


POLICY = Policy(init=lambda key, obs: None, apply=logits_of, distribution=categorical)


@pytest.fixture(scope="module")
def task(exact_arithmetic):
    draw = np.random.default_rng(0).normal
    answers = exact.enumerate_answers(VOCABULARY, LIMIT, eos=EOS)
    paid = draw(size=(2, answers.num_answers))
    mdp = exact.text_mdp(answers, SEES, paid)
    return answers, paid, mdp, jnp.asarray(draw(size=(2, 2, LIMIT, VOCABULARY)))


def test_the_objective_is_the_mean_over_prompts_and_answers(task):
    answers, paid, mdp, params = task
    assert mdp.num_states == 2 * (answers.num_prefixes + answers.num_answers)
    tables = lambda theta: jnp.stack([exact.prefix_log_probs(logits_of, theta, answers, see) for see in SEES])
    by_answers = lambda theta: jnp.mean(exact.expected(exact.answer_log_probs(answers, tables(theta)), paid))
    value, gradient = jax.jit(jax.value_and_grad(by_answers))(params)
    close(exact.objective(logits_of, params, mdp), value)
    close(exact.exact_gradient(logits_of, params, mdp), gradient)
    every = exact.enumerate_trajectories(mdp)
    assert every.environment_probabilities.size == 2 * answers.num_answers


@pytest.mark.parametrize("eos", [None, 0])
def test_final_observations_and_rewards_are_those_of_the_answers(eos):
    answers = exact.enumerate_answers(3, 2, eos=eos)
    see = lambda tokens, length: jnp.append(tokens.astype(jnp.int32), length)
    every = exact.enumerate_trajectories(exact.text_mdp(answers, see, np.arange(answers.num_answers))).trajectories
    rows = np.concatenate([answers.tokens, np.asarray(answers.lengths)[:, None]], axis=1).tolist()
    number = [rows.index(row) for row in every.final_obs.tolist()]
    assert sorted(number) == list(range(answers.num_answers))
    np.testing.assert_array_equal(every.rewards.sum(0), number)
    np.testing.assert_array_equal(every.alive.sum(0), answers.lengths[np.array(number)])
    assert every.terminated.any(0).all()


def test_groups_that_share_a_prompt_have_exact_moments(task):
    """RLOO over two answers of one prompt is unbiased; the mean over the group with the own sample loses one half."""
    _, _, mdp, params = task
    every = exact.enumerate_trajectories(mdp)
    probabilities = exact.trajectory_probabilities(POLICY, params, every)
    wanted = exact.exact_gradient(logits_of, params, mdp)

    def moments(baseline):
        estimator = estimators.make_estimator(POLICY, returns=estimators.total_return(), baseline=baseline)
        state = estimator.init(jax.random.key(0), every.trajectories)
        gradient = lambda batch: estimator.gradient(params, state, batch)[0]
        return exact.estimator_moments(gradient, every, probabilities, 2, group_size=2, covariance=True)

    right = moments(baselines.leave_one_out(group_size=2))
    close(right.mean, wanted, atol=1e-10)
    close(jnp.trace(right.covariance), right.total_variance)
    assert right.total_variance > 1e-3
    wrong = moments(baselines.batch_mean(group_size=2))
    close(wrong.mean, 0.5 * wanted, atol=1e-10)
    far(wrong.mean, wanted)


def test_a_kl_term_in_the_reward_gives_the_gradient_of_the_regularised_objective(task):
    """RLOO with r − β ln(π/π_ref) has the mean ∇J; with + β ln(π/π_ref) it climbs another objective."""
    answers, paid, mdp, params = task
    beta, of_reference = 0.5, jnp.zeros_like(params)
    tables = lambda theta: jnp.stack([exact.prefix_log_probs(logits_of, theta, answers, see) for see in SEES])
    of = lambda theta: exact.answer_log_probs(answers, tables(theta))
    objective = lambda theta: jnp.mean(exact.regularised_objective(of(theta), of(of_reference), paid, beta))
    wanted = jax.jit(jax.grad(objective))(params)
    every = exact.enumerate_trajectories(mdp)
    probabilities = exact.trajectory_probabilities(POLICY, params, every)
    leave_one_out = baselines.leave_one_out(group_size=2)
    estimator = estimators.make_estimator(POLICY, returns=estimators.total_return(), baseline=leave_one_out)
    state = estimator.init(jax.random.key(0), every.trajectories)

    def gradients(batch):
        own, other = (acting.log_probs(POLICY, theta, batch) for theta in (params, of_reference))
        right = rewards.kl_regularised(batch, own, other, kl_coef=beta)
        wrong = rewards.kl_regularised(batch, other, own, kl_coef=beta)
        return [estimator.gradient(params, state, one)[0] for one in (right, wrong)]

    right, wrong = exact.estimator_moments(gradients, every, probabilities, 2, group_size=2).mean
    close(right, wanted, atol=1e-10)
    far(wrong, wanted, 1e-2)


def test_tasks_with_forbidden_tokens_or_wrong_rewards_are_refused():
    with pytest.raises(ValueError, match="every token must be allowed in a text_mdp, got 1 of 2"):
        exact.text_mdp(exact.enumerate_answers(2, 2, allowed=[True, False]), SEES[0], np.zeros(1))
    with pytest.raises(ValueError, match=r"rewards must have shape \(4,\) or \(2, 4\), got \(3,\)"):
        exact.text_mdp(exact.enumerate_answers(2, 2), SEES, np.zeros(3))
