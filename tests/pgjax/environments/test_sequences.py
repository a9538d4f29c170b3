"""Reverse and recall: the problems that need memory, exactly and sampled."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import baselines, environments, estimators, evaluation, exact, networks, rollouts
from pgjax.environments.recall import make_recall, recall_mdp
from pgjax.environments.reverse import TokenBuffer, all_right, make_reverse, reverse_mdp
from pgjax.training.trainer import make_trainer


def gru(environment, memory_size):
    return networks.make_policy(environment, network="gru", hidden=(), network_options={"memory_size": memory_size})


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


def test_a_prompt_that_is_held_out_is_never_drawn_in_training():
    keys, drawn = jax.random.split(jax.random.key(0), 4000), {}
    for part in ("train", "held_out"):
        _, obs = jax.vmap(make_reverse(3, 4, prompts=part).reset, (0, None))(keys, ())
        assert (obs.tokens[:, 3:] == 0).all() and (obs.length == 3).all() and obs.tokens.dtype == "uint8"
        codes = np.asarray(obs.tokens[:, :3], int) @ [16, 4, 1]
        drawn[part] = np.unique(codes, return_counts=True)
    assert len(drawn["held_out"][0]) == 16 and len(drawn["train"][0]) == 48
    assert not set(drawn["held_out"][0]) & set(drawn["train"][0])
    for _, counts in drawn.values():
        mean = 4000 / len(counts)
        assert np.abs(counts - mean).max() < 4.5 * np.sqrt(mean)


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
    policy = networks.make_policy(environment, network="transformer", hidden=(4,), network_options={"heads": 2})
    enumeration = exact.enumerate_trajectories(mdp)
    batch = enumeration.trajectories
    like = jax.eval_shape(policy.init, jax.random.key(0), jax.tree.map(lambda x: x[0], mdp.observations))
    draw = np.random.default_rng(0).standard_normal
    params = jax.tree.map(lambda x: jnp.asarray(0.7 * draw(x.shape)), like)
    estimator = estimators.make_estimator(policy, returns=estimators.total_return())
    by_memory = policy._replace(apply=None)

    @jax.jit
    def measure(params):
        read, unrolled = (exact.trajectory_probabilities(f, params, enumeration) for f in (policy.apply, by_memory))
        summands = estimator.episode_gradients(params, estimator.init(jax.random.key(0), batch), batch)
        estimate = jax.tree.map(lambda x: jnp.tensordot(read, x, 1), summands)
        enumerated = exact.enumerated_gradient(by_memory, params, enumeration)
        return read, unrolled, (estimate, enumerated), exact.exact_gradient(policy.apply, params, mdp)

    read, unrolled, gradients, wanted = measure(params)
    np.testing.assert_allclose(read.sum(), 1.0, atol=1e-14)
    np.testing.assert_allclose(unrolled, read, rtol=0, atol=1e-15)
    for gradient in gradients:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-14), gradient, wanted)
    assert np.abs(wanted["head"]["kernel"]).max() > 1e-2

    # RLOO: two answers to every prompt, each the other's baseline; the mean of both is the wrong twin, at one half.
    def mean_of(baseline):
        pairs = estimators.make_estimator(policy, returns=estimators.total_return(), baseline=baseline(group_size=2))
        gradient_of = lambda episodes: pairs.gradient(params, (), episodes)[0]
        return exact.estimator_moments(gradient_of, enumeration, read, 2, group_size=2).mean

    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)
    jax.tree.map(close, mean_of(baselines.leave_one_out), wanted)
    jax.tree.map(lambda a, b: close(2.0 * a, b), mean_of(baselines.batch_mean), wanted)


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
    enumeration = exact.enumerate_trajectories(recall_mdp(cues=3, delay=2))
    np.testing.assert_allclose(exact.enumerated_objective(policy, params, enumeration), 1.0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make_reverse(length=0), r"length must be at least 1, got 0"),
        (lambda: make_reverse(vocabulary=257), r"vocabulary must be in \[2, 256\], got 257"),
        (lambda: make_reverse(prompts="test"), r"prompts must be one of 'every', 'train', 'held_out', got 'test'"),
        (lambda: make_reverse(reward="right"), r"reward must be one of 'share', 'all', got 'right'"),
        (lambda: reverse_mdp(4, 9), r"length=4 and vocabulary=9 give 48426741 states, must be at most 100000"),
        (lambda: make_recall(cues=1), r"cues must be at least 2, got 1"),
        (lambda: recall_mdp(delay=0), r"delay must be at least 1, got 0"),
    ],
)
def test_what_makes_no_problem_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def greedy_returns(
    environment, policy, seeds, *, num_updates, num_episodes, learning_rate, group_size=None, entropy_coef=0.0
):
    """Returns of 1 024 greedy episodes after training from rewards alone (RLOO and Adam), `[seeds, 1024]`."""
    baseline = baselines.leave_one_out(group_size=group_size)
    estimator = estimators.make_estimator(
        policy, returns=estimators.total_return(), baseline=baseline, entropy_coef=entropy_coef
    )
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
    """The bonus keeps a policy from giving two cues one answer for good, which happens to some seeds without it."""
    environment = make_recall(cues=4, delay=8)
    policy = gru(environment, 32)
    how = {"num_updates": 400, "num_episodes": 256, "learning_rate": 5e-3, "entropy_coef": 0.02}
    assert (greedy_returns(environment, policy, range(10), **how).mean(1) > 0.99).all()


@pytest.mark.slow
@pytest.mark.parametrize("length", [5, 6])
def test_a_transformer_learns_to_reverse(length):
    """All symbols of a string are right in at least 99 % of the greedy answers, with every seed."""
    environment = make_reverse(length)
    policy = networks.make_policy(environment, network="transformer")
    how = {"num_updates": 100, "num_episodes": 256, "learning_rate": 2e-3, "group_size": 4}
    assert ((greedy_returns(environment, policy, range(10), **how) == 1).mean(1) >= 0.99).all()
