"""What a trainer promises: groups that share a start, learning as the half of an update, one pass for two fits."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from policies import TABULAR

from pgjax import baselines, environments, estimators, exact, networks, rollouts, training
from pgjax.types import Estimator, Needs, Trajectory

KEY = jax.random.key(0)
CARTPOLE = environments.make("CartPole-v1")
REVERSE = environments.make("reverse", length=3, vocabulary=9)


def watching(needs, parts=1):
    """Learns nothing; its state is X_1 of the last `parts` batches, leaves `[parts, B, ...]`."""

    def init(key, sample):
        return jax.tree.map(lambda x: jnp.zeros((parts, *x.shape[1:]), x.dtype), sample.obs)

    def gradient(params, state, trajectory):
        seen = jax.tree.map(lambda old, obs: jnp.concatenate([old[1:], obs[:1]]), state, trajectory.obs)
        return jax.tree.map(jnp.zeros_like, params), seen, {}

    return Estimator(init=init, gradient=gradient, episode_gradients=None, fits_windows=False, needs=needs)


def starts(environment, estimator, **options):
    """X_1 of every episode of one update, laid flat, `[B, ...]`."""
    policy = networks.make_policy(environment, hidden=())
    trainer = training.make_trainer(environment, policy, estimator, optax.sgd(0.1), num_episodes=8, **options)
    state, _ = jax.jit(trainer.update)(trainer.init(KEY))
    first = jax.tree.leaves(state.estimator_state)[0]
    return np.asarray(first).reshape(8, -1)


def num_different(rows):
    return len(np.unique(rows, axis=0))


GROUPS = baselines.leave_one_out(group_size=4).needs


@pytest.mark.parametrize(
    ("environment", "options", "parts"),
    [(CARTPOLE, {}, 1), (REVERSE, {}, 1), (CARTPOLE, {"microbatches": 2}, 2), (CARTPOLE, {"group_size": 4}, 1)],
    ids=["CartPole", "reverse", "microbatches", "group_size said again"],
)
def test_a_groups_episodes_share_their_start(environment, options, parts):
    assert Needs(group_size=4) == GROUPS
    found = starts(environment, watching(GROUPS, parts), **options)
    groups = found.reshape(2, 4, -1)
    np.testing.assert_array_equal(groups, np.broadcast_to(groups[:, :1], groups.shape))
    assert num_different(found) == 2


@pytest.mark.parametrize(
    ("needs", "options"), [(GROUPS, {"group_size": 1}), (Needs(), {})], ids=["group_size=1", "no groups needed"]
)
def test_without_groups_every_episode_starts_anew(needs, options):
    assert num_different(starts(CARTPOLE, watching(needs), **options)) == 8


def test_groups_may_be_asked_for_by_the_trainer_alone():
    assert num_different(starts(CARTPOLE, watching(Needs()), group_size=2)) == 4


CORRIDOR = environments.make("corridor", horizon=6, observe_state=True)
OF_FOUR = estimators.make_estimator(TABULAR, baseline=baselines.leave_one_out(group_size=4))
VALUES = {
    "returns": estimators.lambda_return(0.9),
    "baseline": baselines.value_function(lambda key, obs: jnp.zeros(4), lambda phi, obs: obs @ phi, optax.sgd(0.1)),
}


@pytest.mark.parametrize(
    ("estimator", "options", "message"),
    [
        (OF_FOUR, {"num_episodes": 10}, r"group_size must divide num_episodes=10, got 4"),
        (OF_FOUR, {"num_episodes": 8, "group_size": 2}, r"group_size must be the estimator's, 4, or 1 .*got 2"),
        (OF_FOUR, {"num_episodes": 8, "group_size": 0}, r"group_size must be .*got 0"),
        (OF_FOUR, {"num_episodes": 8, "group_size": 4.0}, r"group_size must be .*got 4.0"),
        (OF_FOUR, {"num_episodes": 12, "microbatches": 2}, r"group_size must divide .* of a part, 6, got 4"),
        (OF_FOUR, {"num_episodes": 2}, r"group_size must be .*got 4"),
        (
            estimators.make_estimator(TABULAR, **VALUES),
            {"num_episodes": 8, "num_steps": 3, "group_size": 2},
            r"group_size must be 1 with continuing windows \(num_steps\).*got 2",
        ),
        (
            estimators.make_estimator(TABULAR, **VALUES, standardise="group_population", group_size=4),
            {"num_episodes": 8, "num_steps": 3},
            r"group_size must be 1 with continuing windows \(num_steps\).*got 4",
        ),
        (
            estimators.make_estimator(TABULAR, baseline=baselines.greedy_rollout()),
            {"num_episodes": 8, "num_steps": 3},
            r"num_steps must be None with an estimator that needs greedy episodes",
        ),
        (estimators.make_estimator(TABULAR), {"num_episodes": 8, "num_steps": 3}, r"num_steps must be None"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_by_name(estimator, options, message):
    with pytest.raises(ValueError, match=message):
        training.make_trainer(CORRIDOR, TABULAR, estimator, optax.sgd(0.1), **options)


def test_learning_from_the_episodes_that_an_update_collects_is_that_update():
    trainer = training.make_trainer(CORRIDOR, TABULAR, OF_FOUR, optax.sgd(0.1), num_episodes=8)
    state, metrics = jax.jit(trainer.update)(trainer.init(KEY))

    @jax.jit
    def in_two_halves(state, key):
        keys = jax.random.split(key, trainer.num_episodes)
        trajectory = rollouts.episodes(CORRIDOR, TABULAR, state.params, keys, group_size=trainer.group_size)
        return trainer.learn(state, trajectory)

    start = trainer.init(KEY)
    learnt, more = in_two_halves(start, jax.random.fold_in(start.key, 0))
    plain = lambda state: state._replace(key=jax.random.key_data(state.key))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), plain(learnt), plain(state))
    assert learnt.update == 1 and set(more) < set(metrics)
    np.testing.assert_allclose(more["gradient_norm"], metrics["gradient_norm"], rtol=1e-6)
    # A wrong twin: the episodes of another key.
    other, _ = in_two_halves(start, jax.random.fold_in(start.key, 1))
    assert np.abs(other.params - state.params).max() > 1e-3


def with_dtype(tree, dtype):
    return jax.tree.map(lambda x: x.astype(dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, tree)


def random_batch(dtype, steps=5, lanes=4):
    """Episodes of 5, 4, 3 and 2 steps on one-hot observations, with recorded log-probabilities of another θ."""
    draw = np.random.default_rng(0)
    shape = (steps, lanes)
    alive = np.arange(steps)[:, None] < steps - np.arange(lanes)
    last = np.arange(steps)[:, None] == steps - 1 - np.arange(lanes)
    observations = np.eye(4)[draw.integers(0, 4, (steps + 1, lanes))].astype(dtype)
    return Trajectory(
        obs=observations[:-1],
        actions=draw.integers(0, 2, shape).astype(np.int32),
        rewards=np.where(alive, draw.normal(size=shape), 0.0).astype(dtype),
        alive=alive,
        terminated=last,
        truncated=np.zeros(shape, bool),
        final_obs=observations[-1],
    )


MLP = networks.make_policy(CORRIDOR, hidden=(5,))
GRU = networks.make_policy(CORRIDOR, network="gru", hidden=(4,), network_options={"memory_size": 4})
FUSED_CASES = {
    "plain": (MLP, {}),
    "entropy bonus": (MLP, {"entropy_coef": 0.3}),
    "discounted": (MLP, {"returns": estimators.reward_to_go(0.9), "time_weights": "discount", "entropy_coef": 0.1}),
    "mean over time": (MLP, {"over_time": "mean", "entropy_coef": 0.1}),
    "mean over each episode": (MLP, {"over_time": "episode_mean", "rows_per_piece": 3}),
    "clipped surrogate": (MLP, {"objective": estimators.clipped_surrogate()}),
    "memory": (GRU, {"entropy_coef": 0.3}),
}


def value_baseline():
    return baselines.value_function(*networks.make_value(CORRIDOR, hidden=(5,)), optax.adam(0.05))


def both_passes(dtype):
    """name → (∇̂ρ, state, metrics) of one pass and of two, with a value network that has seen one batch."""
    batch, baseline = random_batch(dtype), value_baseline()

    @jax.jit
    def all_cases():
        trained = with_dtype(baseline.init(jax.random.key(2), batch), dtype)
        fit = lambda state: baseline.update(state, batch, batch.rewards)[0]
        trained, found = fit(trained), {}
        for name, (policy, options) in FUSED_CASES.items():
            params = with_dtype(policy.init(jax.random.key(1), batch.obs[0, 0]), dtype)
            one = estimators.make_estimator(policy, baseline=baseline, **options)
            two = estimators.make_estimator(policy, baseline=baseline._replace(predict_and_update=None), **options)
            found[name] = one.gradient(params, trained, batch), two.gradient(params, trained, batch)
            if name == "plain":
                found["fitted before its use"] = two.gradient(params, fit(trained), batch)
        return found

    return jax.device_get(all_cases())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [pytest.param(np.float32, 1e-6, marks=pytest.mark.slow), (np.float64, 1e-12)]
)
def test_values_used_and_fitted_in_one_pass_are_those_of_two(dtype, tolerance):
    with jax.enable_x64(dtype == np.float64):
        found = both_passes(dtype)
    twin = found.pop("fitted before its use")
    for name, (one, two) in found.items():
        assert set(one[2]) == set(two[2]) == {"entropy", "value_loss", "unexplained_variance"}
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True):
            np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)
    difference = jax.tree.map(lambda a, b: np.abs(a - b).max(), found["plain"][0][0], twin[0])
    assert max(jax.tree.leaves(difference)) > 1e-3


@pytest.mark.slow
def test_microbatches_use_and_fit_values_in_one_pass_too():
    baseline = value_baseline()
    found = []
    for chosen in (baseline, baseline._replace(predict_and_update=None)):
        estimator = estimators.make_estimator(MLP, baseline=chosen)
        trainer = training.make_trainer(CORRIDOR, MLP, estimator, optax.sgd(0.1), num_episodes=8, microbatches=2)
        update = jax.jit(trainer.update)
        state, metrics = update(update(trainer.init(KEY))[0])
        found.append((state._replace(key=jax.random.key_data(state.key)), metrics))
    one, two = (jax.tree.leaves(x) for x in found)
    for a, b in zip(one, two, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class TestOptimalLeaveOneOut:
    """Over all batches of three or four episodes."""

    @pytest.fixture(autouse=True)
    def float64(self, x64):
        pass

    def moments(self, enumeration, params, num_episodes, **named):
        """name → exact moments of the estimate with that baseline, and ∇ρ(θ)."""
        probabilities = exact.trajectory_probabilities(TABULAR, params, enumeration)

        @jax.jit
        def measure(params, probabilities):
            found = {}
            for name, baseline in named.items():
                estimator = estimators.make_estimator(TABULAR, baseline=baseline, returns=estimators.total_return())
                gradient = lambda batch: estimator.gradient(params, (), batch)[0]
                found[name] = exact.estimator_moments(gradient, enumeration, probabilities, num_episodes)
            return found, exact.enumerated_gradient(TABULAR, params, enumeration)

        return jax.device_get(measure(params, probabilities))

    def test_no_episode_is_part_of_its_own_baseline(self):
        mdp = exact.random_mdp(jax.random.key(3), 3, 2, 1, 2)
        enumeration = exact.enumerate_trajectories(mdp)
        params = 0.7 * jax.random.normal(jax.random.key(1), (3, 2))
        optimal = baselines.optimal_leave_one_out()

        def own_included(state, trajectory):
            norms, returns = trajectory.score_norms, trajectory.returns
            value = jnp.sum(norms * returns[:1]) / jnp.sum(norms)
            return jnp.broadcast_to(value, returns.shape)

        twin = optimal._replace(predict=own_included)
        found, gradient = self.moments(enumeration, params, 3, optimal=optimal, twin=twin)
        np.testing.assert_allclose(found["optimal"].mean, gradient, rtol=0, atol=1e-12)
        assert np.abs(found["twin"].mean - gradient).max() > 1e-3

    def test_it_has_less_variance_where_scores_differ(self):
        """The rare arms have the long scores, which tells the constant of least variance from the mean."""
        enumeration = exact.enumerate_trajectories(exact.make_bandit([1.0, 0.0, 0.0]))
        params = jnp.log(jnp.asarray([[0.5, 0.25, 0.25]]))
        named = {"optimal": baselines.optimal_leave_one_out(), "mean": baselines.leave_one_out()}
        found, gradient = self.moments(enumeration, params, 4, **named)
        for moments in found.values():
            np.testing.assert_allclose(moments.mean, gradient, rtol=0, atol=1e-12)
        # Both computed by hand, in NumPy.
        np.testing.assert_allclose(found["optimal"].total_variance, 0.03162718054503384, rtol=1e-9)
        np.testing.assert_allclose(found["mean"].total_variance, 0.0364583333333333, rtol=1e-9)


SHAPES = [(100, 32), (3, 33), (1, 7)]


@pytest.mark.parametrize("standardise", ["population", "group_population"])
def test_equal_returns_weigh_nothing_whatever_they_are(standardise):
    twins = []
    for steps, lanes in SHAPES:
        batch = random_batch(np.float32, steps, lanes)._replace(alive=np.ones((steps, lanes), bool))
        weighting = estimators.make_weighting(returns=estimators.total_return(), standardise=standardise)
        estimator = estimators.make_estimator(TABULAR, returns=estimators.total_return(), standardise=standardise)

        @jax.jit
        def weigh(value):
            rewards = jnp.zeros((steps, lanes)).at[-1].set(value)
            equal = batch._replace(rewards=rewards)
            weights, returns = weighting.weigh((), equal)
            centred = returns - jnp.mean(returns)
            twin = centred / (jnp.std(returns) + 1e-8)
            return weights, estimator.gradient(jnp.zeros((4, 2)), (), equal)[0], twin

        for value in (1.1, -0.1, 0.6):
            weights, gradient, twin = weigh(value)
            assert not np.any(weights) and not np.any(gradient), (steps, lanes, value)
            twins.append(np.abs(twin).max())
    # An absolute ε under the rounding of the mean is the wrong twin.
    assert max(twins) > 0.01


def test_a_long_score_does_not_drown_those_of_the_other_episodes():
    """Twin: the sum of all minus an episode's own term, which float32 rounds to a multiple of 8 beside 1e8."""
    norms, returns = np.array([1e8, 3.0, 5.0, 2.0]), np.array([1.0, 1.1, 1.2, 1.3])
    row = lambda x: jnp.asarray(x, jnp.float32)[None]
    ends = jnp.ones((1, 4), bool)
    batch = Trajectory(
        obs=row(returns),
        actions=row(returns),
        rewards=row(returns),
        alive=ends,
        terminated=ends,
        truncated=~ends,
        final_obs=row(returns)[0],
        returns=row(returns),
        score_norms=row(norms),
    )
    others = [np.delete(norms, i) @ np.delete(returns, i) / np.delete(norms, i).sum() for i in range(4)]
    found = baselines.optimal_leave_one_out().predict((), batch)[0]
    np.testing.assert_allclose(found, others, rtol=1e-6)
    twin = (row(norms * returns).sum() - row(norms * returns)) / (row(norms).sum() - row(norms))
    assert abs(twin[0, 0] - others[0]) > 0.1


def test_scores_of_another_theta_are_refused():
    policy = networks.make_policy(environments.make("CartPole-v1"), hidden=())
    estimator = estimators.make_estimator(policy, baseline=baselines.optimal_constant())
    with pytest.raises(ValueError, match=r"epochs must be 1 with a baseline that needs scores.*got 2"):
        training.make_trainer(environments.make("CartPole-v1"), policy, estimator, optax.sgd(0.1), epochs=2)
