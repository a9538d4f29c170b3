"""Imitation by asking: who acts, who labels, what is aggregated, and what it is worth, by exact regret."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pgjax import environments, evaluation, exact, imitation, networks
from pgjax.distributions import categorical
from pgjax.environments.maze import maze_mdp, shortest_path_lengths
from pgjax.imitation import cloning_losses, experts
from pgjax.types import Policy

SEEDS, ROUNDS, EPISODES = 32, 5, 2


def table_policy(num_states, num_actions):
    init = lambda key, obs: jnp.zeros((num_states, num_actions))
    return Policy(init=init, apply=lambda params, obs: obs @ params, distribution=categorical)


@pytest.fixture(scope="module")
def chain():
    """T = 6; the expert takes action 0 and the learner either one, evenly."""
    mdp = exact.compounding_chain(6, recoverable=True)
    return exact.to_environment(mdp), experts.from_table(mdp, exact.first_action(mdp)), table_policy(2, 2)


@pytest.mark.parametrize("mixing", ["step", pytest.param("episode", marks=pytest.mark.slow)])
def test_the_mixture_acts_and_the_expert_labels(chain, mixing):
    """A coin for each step or each episode decides who acts; the label is the expert's at every state, and not that of
    the noisy copy that acts for it: noise of 0.4 in its action."""
    environment, expert, policy = chain
    number, beta = 4000, 0.3
    noisy = experts.noisy(expert, 0.4, 2)
    collect = lambda key, beta: imitation.collect(
        key, environment, policy, jnp.zeros((2, 2)), expert, number, beta=beta, mixing=mixing, acting_expert=noisy
    )
    labelled = jax.jit(collect)(jax.random.key(0), beta)
    actions = np.asarray(labelled.trajectory.actions)
    # The twins that mix the labels, or take them from who acted, would be wrong in 41 % of the rows.
    assert np.all(np.asarray(labelled.actions) == 0)
    np.testing.assert_array_equal(jnp.exp(labelled.log_probs), np.broadcast_to([1.0, 0.0], (6, number, 2)))
    agreed = np.all(actions == 0, axis=0).mean()
    right = 0.5 * (1 - beta) + 0.8 * beta
    expected = {"step": right**6, "episode": beta * 0.8**6 + (1 - beta) * 0.5**6}
    z = lambda p: abs(agreed - p) / np.sqrt(p * (1 - p) / number)
    assert z(expected[mixing]) < 4.5
    assert z(expected["episode" if mixing == "step" else "step"]) > 7
    assert abs(actions[0].mean() - (1 - right)) < 4.5 * np.sqrt(right * (1 - right) / number)
    assert labelled.trajectory.obs.shape == (6, number, 2)


@pytest.fixture(scope="module")
def maze():
    """A floor that does not slip, a sure expert, and a learner whose hand trembles: one action in ten is at random."""
    mdp = maze_mdp(horizon=60)
    distances = shortest_path_lengths()
    best = np.argmin(distances[mdp.successors[:, :, 0]], axis=1)
    plain = table_policy(mdp.num_states, 4)
    policy = plain._replace(apply=lambda params, obs: jnp.log(tremble(jax.nn.softmax(plain.apply(params, obs)))))
    table = jnp.asarray(np.eye(4, dtype=np.float32)[best])
    return mdp, table, exact.to_environment(mdp), experts.from_table(mdp, table), policy


def tremble(probabilities):
    return 0.9 * probabilities + 0.1 / 4


@pytest.fixture(scope="module")
def runs(maze):
    """Five rounds of two episodes for 32 seeds, by β = 1 throughout (cloning) and by β = 1, 0, 0, …: one program."""
    mdp, table, environment, expert, policy = maze

    @jax.jit
    def run(keys, betas):
        def one(key, betas):
            fit = imitation.table_fit(4)
            options = {"num_rounds": ROUNDS, "num_episodes": EPISODES, "schedule": lambda i: betas[i]}
            result = imitation.dagger(key, environment, expert, policy, fit, **options)
            learners = tremble(jax.nn.softmax(result.round_params))
            return result, jax.vmap(lambda learner: exact.regret(mdp, table, learner))(learners)

        # One axis of 2 S runs: a vmap inside a vmap takes longer to compile.
        both = jax.vmap(one)(jnp.concatenate([keys, keys]), jnp.repeat(betas, SEEDS, axis=0))
        return jax.tree.map(lambda x: x.reshape(2, SEEDS, *x.shape[1:]), both)

    betas = jnp.array([[1.0] * ROUNDS, [1.0] + [0.0] * (ROUNDS - 1)])
    keys = jax.random.split(jax.random.key(0), SEEDS)
    return run, betas, keys, jax.device_get(run(keys, betas))


def test_dagger_is_worth_more_than_cloning(runs):
    """The sure expert never shows what to do off its way, however many episodes; who trembles has to ask there."""
    cloning, asking = runs[3][1]
    assert cloning.shape == asking.shape == (SEEDS, ROUNDS)
    np.testing.assert_allclose(cloning, cloning[0, 0], rtol=1e-5)
    # Round 1 is cloning for both, of the same episodes.
    np.testing.assert_allclose(cloning[:, 0], asking[:, 0], rtol=1e-5)
    means = asking.mean(axis=0)
    assert np.all(np.diff(means) < 0)
    assert means[-1] + 5.2 * asking[:, -1].std(ddof=1) / np.sqrt(SEEDS) < cloning[0, 0]


def test_every_round_is_fitted_to_all_before_it(runs, maze):
    """θ after round r holds the frequencies of rounds 0 … r; the twin that forgets is another table."""
    result = runs[3][0]
    data = jax.tree.map(lambda x: x[1, 0].reshape(ROUNDS, -1, *x.shape[3:]), result.demonstrations)
    answers = data.weights[..., None] * np.eye(4)[data.actions]
    counts = np.einsum("rns,rna->rsa", data.obs, answers)
    forgetful = []
    for r in range(ROUNDS):
        learned = np.asarray(jax.nn.softmax(result.round_params[1, 0, r]))
        total = lambda n: n.sum(-1, keepdims=True)
        frequencies = lambda n: np.where(total(n) > 0, n / np.maximum(total(n), 1), 0.25)
        np.testing.assert_allclose(learned, frequencies(counts[: r + 1].sum(0)), atol=1e-6)
        forgetful.append(frequencies(counts[r]))
    assert np.abs(learned - forgetful[-1]).max() > 0.5
    assert set(data.groups[data.weights > 0]) == set(range(ROUNDS * EPISODES))
    expert = np.asarray(maze[1]).argmax(axis=1)
    named = expert[data.obs.argmax(axis=-1)]
    np.testing.assert_array_equal(data.actions[data.weights > 0], named[data.weights > 0])
    # Padding weighs nothing: an episode has as many rows of weight as steps, which pay −1 each.
    np.testing.assert_allclose(data.weights.sum(axis=1) / EPISODES, -result.mean_returns[1, 0])
    assert data.weights.mean() < 1.0


def test_a_run_is_a_function_of_its_own_key(runs):
    run, betas, keys, (_, gaps) = runs
    np.testing.assert_array_equal(run(keys[::-1], betas)[1], gaps[:, ::-1])


@pytest.mark.slow
def test_dart(maze, runs):
    """Noise in the actions, none in the labels; its level is the learner's error; off the way, cloning is mended."""
    mdp, table, environment, expert, policy = maze

    @jax.jit
    @jax.vmap
    def run(key):
        options = {"num_rounds": ROUNDS, "num_episodes": EPISODES, "level": 0.3}
        result = imitation.dart(key, environment, expert, policy, imitation.table_fit(4), **options)
        return result, exact.regret(mdp, table, tremble(jax.nn.softmax(result.params)))

    number_of_runs = 4 * SEEDS
    result, gaps = jax.device_get(run(jax.random.split(jax.random.key(0), number_of_runs)))
    data = result.demonstrations
    live = data.weights > 0
    expert_actions = np.asarray(table).argmax(axis=1)[data.obs.argmax(axis=-1)]
    np.testing.assert_array_equal(data.actions[live], expert_actions[live])
    np.testing.assert_allclose(result.levels[:, :2], 0.3)
    # The level of round r is 4/3 of how often the learner of round r − 2 misses the labels of round r − 1.
    shape = lambda x: x.reshape(number_of_runs, ROUNDS, -1, *x.shape[2:])[:, 1:-1]
    states, weights, labels = (shape(x) for x in (data.obs.argmax(axis=-1), data.weights, data.actions))
    chances = tremble(np.asarray(jax.nn.softmax(result.round_params)))[:, :-2]
    seeds, rounds = np.arange(number_of_runs)[:, None, None], np.arange(ROUNDS - 2)[None, :, None]
    missed = 1.0 - chances[seeds, rounds, states, labels]
    number = weights.sum(axis=2)
    expected = (weights * missed).sum(axis=2) / number
    variance = (weights * missed * (1 - missed)).sum(axis=2) / number**2
    z = lambda factor: (result.levels[:, 2:] - factor * expected).sum() / (4 / 3 * np.sqrt(variance.sum()))
    assert abs(z(4 / 3)) < 4.0
    assert abs(z(1.0)) > 5.0
    cloned = runs[3][1][0, 0, 0]
    assert gaps.mean() + 5.2 * gaps.std(ddof=1) / np.sqrt(number_of_runs) < cloned


def fixed_fit(mode):
    """Learns nothing: in state 0 its greatest logit is that of action `mode`, in state 1 that of action 1."""
    answers = 1e3 * np.eye(2, dtype=np.float32)[[mode, 1]]
    return lambda key, params, data: params + answers


def test_dart_follows_the_errors_of_the_learner(chain):
    """A learner that errs in state 1 alone: ε of round 3 is A/(A − 1) of that state's share in round 2."""
    options = {"num_rounds": 3, "num_episodes": 20, "level": 0.3}
    result = jax.jit(lambda key: imitation.dart(key, *chain, fixed_fit(0), **options))(jax.random.key(0))
    data = result.demonstrations
    assert np.all(data.actions == 0) and np.all(data.weights == 1)
    off = np.asarray(data.obs).reshape(3, -1, 2)[..., 1].mean(axis=1)
    assert 0 < off[1] < 0.5 and off[0] != off[1]
    np.testing.assert_allclose(result.levels, [0.3, 0.3, 2 * off[1]], rtol=1e-6)
    # Half of the random actions leave the road, from either state: the share of later steps off it is ε / 2.
    for level, share in zip(np.asarray(result.levels), off, strict=True):
        chance = level / 2
        assert abs(share * 6 / 5 - chance) < 4.5 * np.sqrt(chance * (1 - chance) / 100)


@pytest.mark.parametrize(
    ("refit", "mixing", "schedule", "wanted"),
    [
        ("continue", "step", cloning_losses.exponential_schedule(0.5), [1.0, 0.5, 0.25]),
        ("anew", "episode", cloning_losses.linear_schedule(2), [1.0, 0.5, 0.0]),
    ],
    ids=["continue-step-exponential", "anew-episode-linear"],
)
def test_the_words_of_dagger(chain, refit, mixing, schedule, wanted):
    """θ goes on from the last round or starts anew; the shares are the schedule's, of steps or of whole episodes."""
    number, fit = 50, fixed_fit(1)
    options = {"num_rounds": 3, "num_episodes": number, "refit": refit, "mixing": mixing, "schedule": schedule}
    result = jax.jit(lambda key: imitation.dagger(key, *chain, fit, **options))(jax.random.key(0))
    np.testing.assert_allclose(result.levels, wanted, rtol=1e-6)
    times = {"continue": [1, 2, 3], "anew": [1, 1, 1]}[refit]
    np.testing.assert_allclose(result.round_params[:, 0, 1], 1e3 * np.array(times))
    # The expert keeps to state 0 and the learner goes to state 1, from the second round on: X_{t+1} tells who acted.
    by_learner = np.asarray(result.demonstrations.obs).reshape(3, 6, number, 2)[:, 1:, :, 1]
    assert np.all(by_learner[0] == 0)
    whole = (by_learner == by_learner[:, :1]).all(axis=1).mean(axis=1)
    assert np.all(whole == 1.0) if mixing == "episode" else whole[1] < 0.3
    for share, acted in zip(wanted, by_learner, strict=True):
        coins = acted[0] if mixing == "episode" else acted
        assert abs(coins.mean() - (1 - share)) <= 4.5 * np.sqrt(share * (1 - share) / coins.size)


def test_arguments_are_refused(chain):
    environment, expert, policy = chain
    fit, key = imitation.table_fit(2), jax.random.key(0)
    cases = [
        (lambda: imitation.collect(key, environment, policy, None, expert, 2, beta=1.5), r"beta must be in \[0, 1\]"),
        (lambda: imitation.collect(key, environment, policy, None, expert, 2, mixing="x"), "mixing must be one of"),
        (lambda: imitation.behavioural_cloning(key, environment, expert, policy, fit, num_episodes=0), "num_epis"),
        (
            lambda: imitation.dart(key, environment, expert, policy, fit, num_rounds=1, num_episodes=1, level=2.0),
            r"level must be in \[0, 1\]",
        ),
        (
            lambda: imitation.dagger(
                key, environment, expert, policy, fit, num_rounds=1, num_episodes=1, refit="from scratch"
            ),
            "refit must be one of 'anew', 'continue'",
        ),
        (lambda: imitation.gradient_fit(policy, None, num_epochs=1, batch_size=1, loss="x"), "loss must be one of"),
    ]
    for call, words in cases:
        with pytest.raises(ValueError, match=words):
            call()


@pytest.mark.slow
def test_pendulum_by_cloning_dagger_and_dart():
    """A greedy network in place of a table, continuous actions, 40 episodes in 4 rounds; doing nothing has −1200."""
    environment = environments.make("Pendulum-v1")
    policy = evaluation.greedy(networks.make_policy(environment, hidden=(64, 64)))
    expert = experts.pendulum_swing_up()
    fit = imitation.gradient_fit(policy, optax.adam(3e-3), num_epochs=30, batch_size=256, loss="squared_error")
    options = {"num_rounds": 4, "num_episodes": 10}
    asked = lambda key, **more: imitation.dagger(key, environment, expert, policy, fit, **options, **more)
    runs = {
        "cloning": lambda key: asked(key, schedule=lambda i: 1.0),
        "dagger": asked,
        "dart": lambda key: imitation.dart(key, environment, expert, policy, fit, level=0.5, **options),
    }
    found = {}
    for name, run in runs.items():
        result = jax.jit(run)(jax.random.key(0))
        played = evaluation.evaluate(environment, policy, result.params, jax.random.key(1))
        found[name] = played.mean, played.stderr, result.levels
    assert all(mean > -500 for mean, _, _ in found.values())
    levels = found["dart"][2]
    assert levels.shape == (4, 1) and np.all(levels[:2] == 0.5) and np.all((levels[2:] > 0) & (levels[2:] < 0.5))
