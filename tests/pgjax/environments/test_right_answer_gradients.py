"""Reverse, addition and spelling backward: the sampled gradient of the estimators that train them, beside all answers.

Axes: Q prompts, N answers, T tokens, B sampled episodes, D directions.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pgjax import baselines, estimators, exact, networks, registry, rollouts
from pgjax.environments.addition import make_addition
from pgjax.environments.reverse import make_reverse, reverse_mdp
from pgjax.environments.spell_backward import EOS, LETTERS, make_spell_backward

EPISODES, DIRECTIONS = 4096, 6
DISCOUNTS = {"each": 0.0, "end": 1.0}  # those of the presets of `experiments.train`
ESTIMATORS = {"each": "gpomdp_time_average", "end": "rloo"}


def small(environment, prompts):
    """The environment with some of its prompts only."""
    params = environment.params
    return params._replace(prompts=params.prompts[prompts], prompt_lengths=params.prompt_lengths[prompts])


def made(name, paid):
    """An environment of a few prompts, its parameters, and all N answers `[N, T]`."""
    if name == "addition":
        environment = make_addition(1, paid=paid)
        answers = exact.enumerate_answers(12, 2, allowed=np.arange(12) < 10)
        return environment, small(environment, np.array([7, 58, 99])), answers
    environment = make_spell_backward(("a", "b", "z"), paid=paid, max_letters=1)
    answers = exact.enumerate_answers(28, 2, eos=EOS, allowed=np.arange(28) != LETTERS.pad)
    return environment, small(environment, np.arange(3)), answers


def random_policy(environment, seed=0):
    """A small transformer far from uniform, and its θ."""
    policy = networks.make_policy(environment, network="transformer", hidden=(4,), network_options={"heads": 2})
    _, obs = environment.reset(jax.random.key(0), environment.params)
    like = jax.eval_shape(policy.init, jax.random.key(0), obs)
    draw = np.random.default_rng(seed).standard_normal
    return policy, jax.tree.map(lambda x: jnp.asarray(0.7 * draw(x.shape), x.dtype), like)


def every_answer(environment, env_params, answers):
    """X_t, R_{t+1} and whether the answer still runs, of every prompt and answer: leaves `[Q, N, T, ...]`."""

    def of_one(prompt, length, tokens):
        params = env_params._replace(prompts=prompt[None], prompt_lengths=length[None])
        state, obs = environment.reset(jax.random.key(0), params)

        def write(carry, token):
            state, obs, alive = carry
            after, step = environment.step(jax.random.key(0), state, token, params)
            seen = (obs, jnp.where(alive, step.reward, 0.0), alive)
            return (after, step.obs, alive & ~step.terminated), seen

        return jax.lax.scan(write, (state, obs, jnp.asarray(True)), tokens.astype(jnp.int32))[1]

    of_prompt = jax.vmap(of_one, (None, None, 0))
    return jax.vmap(of_prompt, (0, 0, None))(env_params.prompts, env_params.prompt_lengths, answers.tokens)


def enumerated(policy, params, seen, answers):
    """∇ρ(θ), and the sum over all answers that an estimator with γ = 0 has as its mean."""
    obs, rewards, alive = seen

    def taken(params):
        outputs = jax.vmap(jax.vmap(jax.vmap(lambda x: policy.apply(params, x))))(obs)
        log_prob = jax.vmap(jax.vmap(jax.vmap(policy.distribution.log_prob)))
        actions = jnp.broadcast_to(answers.tokens.astype(jnp.int32), alive.shape)
        return jnp.where(alive, log_prob(outputs, actions), 0.0)

    def objective(params):
        return jnp.sum(jnp.exp(taken(params).sum(-1)) * rewards.sum(-1)) / alive.shape[0]

    def one_step(params):
        reached = jax.lax.stop_gradient(jnp.exp(taken(params).sum(-1)))
        return jnp.sum(reached[..., None] * rewards * taken(params)) / alive.shape[0]

    total = jnp.sum(jnp.exp(taken(params).sum(-1))) / alive.shape[0]
    return {1.0: jax.grad(objective)(params), 0.0: jax.grad(one_step)(params)}, total


def flat(tree, leading=0):
    return jnp.concatenate([x.reshape(*x.shape[:leading], -1) for x in jax.tree.leaves(tree)], axis=-1)


def z_scores(environment, policy, params, paid, wanted, env_params, twin=False):
    """z of the mean of the sampled gradient against `wanted`, along D directions: its own, and random ones.

    The wrong twin credits every token with the payment of the token before it, or, where one reward comes at the end,
    compares an answer with the mean of its group, itself included.
    """
    group_size = 2 if paid == "end" else 1
    settings = registry.Settings(discount=None if paid == "end" else DISCOUNTS[paid])
    parts = registry.Parts(policy=policy, group_size=group_size, settings=settings)
    estimator = registry.make(registry.find(ESTIMATORS[paid]), parts)
    if twin and paid == "end":
        mean = baselines.batch_mean(group_size=group_size)
        estimator = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=mean)
    others = jax.random.normal(jax.random.key(1), (flat(params).size, DIRECTIONS - 1))
    directions = jnp.concatenate([flat(wanted)[:, None], others], axis=1)

    @jax.jit
    def measure(params):
        keys = jax.random.split(jax.random.key(2), EPISODES)
        batch = rollouts.episodes(environment, policy, params, keys, env_params=env_params, group_size=group_size)
        if twin and paid == "each":
            batch = batch._replace(rewards=jnp.roll(batch.rewards, 1, axis=0))
        each = estimator.episode_gradients(params, estimator.init(jax.random.key(0), batch), batch)
        return flat(each, 1) @ directions, flat(wanted) @ directions

    each, truth = measure(params)
    groups = np.asarray(each, float).reshape(-1, group_size, DIRECTIONS).mean(1)
    return (groups.mean(0) - truth) / (groups.std(0, ddof=1) / np.sqrt(len(groups)))


@pytest.mark.parametrize("paid", ["each", "end"])
@pytest.mark.parametrize("name", ["addition", "spell_backward"])
def test_the_sampled_gradient_of_a_text_task_agrees_with_the_sum_over_all_answers(name, paid):
    environment, env_params, answers = made(name, paid)
    policy, params = random_policy(environment)
    seen = every_answer(environment, env_params, answers)
    gradients, total = jax.jit(lambda params: enumerated(policy, params, seen, answers))(params)
    np.testing.assert_allclose(total, 1.0, atol=1e-4)
    args = (environment, policy, params, paid, gradients[DISCOUNTS[paid]], env_params)
    assert np.abs(z_scores(*args)).max() < 4
    assert np.abs(z_scores(*args, twin=True)).max() > 8


def test_the_sampled_gradient_of_reverse_agrees_with_its_exact_gradient():
    environment, mdp = make_reverse(2, 2), reverse_mdp(2, 2)
    policy, params = random_policy(environment)
    wanted = jax.jit(lambda params: exact.exact_gradient(policy.apply, params, mdp))(params)
    assert np.abs(z_scores(environment, policy, params, "end", wanted, ())).max() < 4
    assert np.abs(z_scores(environment, policy, params, "end", wanted, (), twin=True)).max() > 8
