"""Reverse and recall: the problems that need memory, exactly and sampled."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import acting, baselines, environments, estimators, evaluation, exact, rollouts
from pgjax.environments.recall import make_recall, recall_mdp
from pgjax.environments.reverse import TokenBuffer, all_right, make_reverse, reverse_mdp
from pgjax.networks import make_policy
from pgjax.training.trainer import make_trainer


def gru(environment, memory_size):
    return make_policy(environment, network="gru", hidden=(), network_options={"memory_size": memory_size})


@pytest.mark.parametrize("name", ["reverse", "recall"])
def test_they_conform(name):
    report = environments.check(environments.make(name), num_steps=40, num_lanes=8)
    assert report.random_reset and not report.random_step and report.terminations > 0


def written(environment, prompt, answer):
    """The buffers, rewards and ends of one episode of `reverse`."""
    tokens = jnp.asarray([*prompt, *([0] * len(prompt))], jnp.uint8)
    state, seen = TokenBuffer(tokens=tokens, length=jnp.asarray(len(prompt), jnp.int32)), []
    for action in answer:
        state, step = environment.step(jax.random.key(0), state, jnp.asarray(action), ())
        seen.append(step)
    return jax.tree.map(lambda *x: np.stack(x), *seen)


def test_reverse_pays_at_the_end_and_by_the_convention_that_was_asked_for():
    share, whole = make_reverse(3, 4), make_reverse(3, 4, reward="all")
    for answer, right in (((1, 3, 2), 1.0), ((1, 3, 0), 2 / 3), ((0, 0, 0), 0.0)):
        for environment, paid in ((share, right), (whole, float(right == 1))):
            steps = written(environment, (2, 3, 1), answer)
            np.testing.assert_allclose(steps.reward, [0, 0, paid], rtol=1e-6)
            np.testing.assert_array_equal(steps.terminated, [False, False, True])
            np.testing.assert_array_equal(steps.obs.tokens[-1], [2, 3, 1, *answer])
            np.testing.assert_array_equal(steps.obs.tokens[0], [2, 3, 1, answer[0], 0, 0])
            np.testing.assert_array_equal(steps.obs.length, [4, 5, 6])
            np.testing.assert_array_equal(all_right(steps.obs), [False, False, right == 1])


def test_a_prompt_is_uniform():
    environment = make_reverse(2, 3)
    _, obs = jax.vmap(environment.reset, (0, None))(jax.random.split(jax.random.key(0), 3000), ())
    counts = np.bincount(np.asarray(obs.tokens[:, 0]) * 3 + np.asarray(obs.tokens[:, 1]), minlength=9)
    assert np.abs(counts - 3000 / 9).max() < 4.5 * np.sqrt(3000 / 9)


@pytest.mark.parametrize("reward", ["share", "all"])
def test_the_mdp_of_reverse_is_the_environment(reward):
    mdp, environment = reverse_mdp(2, 3, reward), make_reverse(2, 3, reward)
    assert mdp.num_states == 9 * (1 + 3 + 9) and mdp.horizon == environment.horizon
    running = ~np.asarray(mdp.terminal)
    step = lambda obs, action: environment.step(jax.random.key(0), obs, action, ())[1]
    steps = jax.vmap(jax.vmap(step, (None, 0)), (0, None))(mdp.observations, jnp.arange(3))
    after = np.asarray(mdp.successors)[running, :, 0]
    for got, rows in zip(steps.obs, mdp.observations):
        np.testing.assert_array_equal(np.asarray(got)[running], np.asarray(rows)[after])
    np.testing.assert_allclose(np.asarray(steps.reward)[running], np.asarray(mdp.rewards)[running, :, 0])
    np.testing.assert_array_equal(np.asarray(steps.terminated)[running], np.asarray(mdp.terminal)[after])
    np.testing.assert_array_equal(np.asarray(mdp.initial) > 0, np.asarray(mdp.observations.length) == 2)


def test_reverse_has_the_values_that_counting_gives():
    for reward, uniform in (("share", 1 / 3), ("all", 1 / 27)):
        mdp = reverse_mdp(3, 3, reward)
        table = jnp.full((mdp.num_states, 3), 1 / 3)
        np.testing.assert_allclose(mdp.initial @ exact.state_values(mdp, table)[0], uniform, rtol=1e-5)
        np.testing.assert_allclose(mdp.initial @ exact.optimal_action_values(mdp)[0].max(-1), 1.0, rtol=1e-6)


def test_a_transformer_is_exact_on_every_string_and_so_is_the_estimator_that_trains_it(x64):
    mdp = reverse_mdp(2, 2)
    environment = exact.to_environment(mdp)
    policy = make_policy(environment, network="transformer", hidden=(4,), network_options={"heads": 2})
    like = jax.eval_shape(policy.init, jax.random.key(0), jax.tree.map(lambda x: x[0], mdp.observations))
    draw = np.random.default_rng(0).standard_normal
    params = jax.tree.map(lambda x: jnp.asarray(0.7 * draw(x.shape)), like)
    enumeration = exact.enumerate_trajectories(mdp)
    batch = enumeration.trajectories
    estimator = estimators.make_estimator(policy, returns=estimators.total_return())

    def log_probs(params):
        rows = jax.vmap(policy.distribution.log_prob)(
            acting.outputs(policy, params, acting.inputs(policy, batch)), acting.rows_of(policy, batch.actions)
        )
        return jnp.sum(rows.reshape(batch.actions.shape), axis=0)

    @jax.jit
    def measure(params):
        probabilities = exact.trajectory_probabilities(policy.apply, params, enumeration)
        weigh = lambda params: jnp.sum(probabilities * jnp.sum(batch.rewards, axis=0) * log_probs(params))
        state = estimator.init(jax.random.key(0), batch)
        summands = estimator.episode_gradients(params, state, batch)
        mean = jax.tree.map(lambda x: jnp.tensordot(probabilities, x, 1), summands)
        by_memory = enumeration.environment_probabilities * jnp.exp(log_probs(params))
        gradients = mean, jax.grad(weigh)(params), exact.exact_gradient(policy.apply, params, mdp)
        return probabilities, by_memory, gradients

    probabilities, by_memory, (mean, score, gradient) = measure(params)
    np.testing.assert_allclose(by_memory, probabilities, atol=1e-15)
    np.testing.assert_allclose(probabilities.sum(), 1.0, atol=1e-14)
    for estimate in (mean, score):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-14), estimate, gradient)
    assert np.abs(gradient["head"]["kernel"]).max() > 1e-2


def test_no_policy_without_memory_recalls_better_than_by_chance(x64):
    """Every table f(x)_a, deterministic (all of them) or not, has the value 1/K and the gradient zero."""
    mdp = recall_mdp(cues=3, delay=2)
    apply = lambda logits, obs: obs @ logits
    value = jax.jit(jax.vmap(lambda logits: exact.objective(apply, logits, mdp)))
    corners = 1e3 * np.eye(3)[np.array(list(itertools.product(range(3), repeat=4)))]
    inside = np.random.default_rng(0).standard_normal((50, 4, 3)) * 2
    np.testing.assert_allclose(value(jnp.asarray(np.concatenate([corners, inside]))), 1 / 3, rtol=0, atol=1e-14)
    gradient = jax.jit(lambda logits: exact.exact_gradient(apply, logits, mdp))(jnp.asarray(inside[0]))
    np.testing.assert_allclose(gradient, 0.0, atol=1e-15)


def test_memory_is_worth_all_the_rest_of_recall():
    mdp = recall_mdp(cues=3, delay=2)
    np.testing.assert_allclose(mdp.initial @ exact.optimal_action_values(mdp)[0].max(-1), 1.0)
    observations = np.asarray(mdp.observations)
    assert observations.shape == (3 * 3 + 1, 4) and len(np.unique(observations, axis=0)) == 4
    np.testing.assert_array_equal(observations[:3], np.eye(4)[:3])


def test_a_gru_that_remembers_the_cue_recalls_it():
    """A memory written by hand: the gate keeps it, except where a cue is seen."""
    environment = make_recall(cues=3, delay=2)
    policy = gru(environment, 3)
    kernel = np.zeros((4, 9), np.float32)
    kernel[3, 3:6] = 50.0
    kernel[:3, 6:] = 50.0 * np.eye(3)
    like = jax.eval_shape(policy.init, jax.random.key(0), jnp.zeros(4))
    params = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    params["input"]["kernel"], params["head"]["kernel"] = jnp.asarray(kernel), 50.0 * jnp.eye(3)
    params["input"]["bias"] = jnp.asarray([0.0] * 3 + [-25.0] * 3 + [0.0] * 3)
    for cue in range(3):
        shown = jnp.eye(4)[np.array([cue, 3, 3])]
        np.testing.assert_array_equal(jnp.argmax(policy.memory.unroll(params, None, shown, None), axis=1), [cue] * 3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_reverse(length=0), r"length must be at least 1, got 0"),
        (lambda: make_reverse(vocabulary=257), r"vocabulary must be in \[2, 256\], got 257"),
        (lambda: make_reverse(reward="right"), r"reward must be one of 'share', 'all', got 'right'"),
        (lambda: reverse_mdp(4, 9), r"length=4 and vocabulary=9 give 48426741 states, must be at most 100000"),
        (lambda: make_recall(cues=1), r"cues must be at least 2, got 1"),
        (lambda: recall_mdp(delay=0), r"delay must be at least 1, got 0"),
    ],
)
def test_what_makes_no_problem_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def greedy_returns(environment, policy, seeds, *, num_updates, num_episodes, learning_rate, group_size=None):
    """Returns of 1 024 greedy episodes after training from rewards alone (RLOO and Adam), `[seeds, 1024]`."""
    baseline = baselines.leave_one_out(group_size=group_size)
    estimator = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=baseline)
    trainer = make_trainer(environment, policy, estimator, optax.adam(learning_rate), num_episodes=num_episodes)

    @jax.jit
    def run(key):
        state, _ = jax.lax.scan(lambda state, _: trainer.update(state), trainer.init(key), length=num_updates)
        keys = jax.random.split(jax.random.fold_in(key, 1), 1024)
        return jnp.sum(rollouts.episodes(environment, evaluation.greedy(policy), state.params, keys).rewards, axis=0)

    return np.stack([run(jax.random.key(seed)) for seed in seeds])


def test_a_gru_learns_to_recall():
    environment = make_recall(cues=3, delay=3)
    policy = gru(environment, 16)
    returns = greedy_returns(environment, policy, [0], num_updates=200, num_episodes=64, learning_rate=1e-2)
    assert returns.mean() > 0.99


@pytest.mark.slow
def test_a_gru_learns_to_recall_over_a_long_delay():
    environment = make_recall(cues=4, delay=8)
    policy = gru(environment, 32)
    returns = greedy_returns(environment, policy, range(10), num_updates=500, num_episodes=256, learning_rate=5e-3)
    assert (returns.mean(1) > 0.99).all()


@pytest.mark.slow
@pytest.mark.parametrize("length", [5, 6])
def test_a_transformer_learns_to_reverse(length):
    """All symbols of a string are right in at least 99 % of the greedy answers, with every seed."""
    environment = make_reverse(length)
    policy = make_policy(environment, network="transformer")
    how = {"num_updates": 100, "num_episodes": 256, "learning_rate": 2e-3, "group_size": 4}
    assert ((greedy_returns(environment, policy, range(10), **how) == 1).mean(1) >= 0.99).all()
