"""Every estimator against the exact gradient, by enumeration in float64; every wrong twin off by its factor.

The sampled pipeline sees these very objects: what is measured here is what trains.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import close
from policies import TABULAR, tabular

from pgjax import baselines, estimators, exact, returns, rewards

pytestmark = pytest.mark.usefixtures("float64")

HORIZON = 3


class Problem:
    """A random three-state MDP, all its trajectories, and what is exact about it."""

    def __init__(self):
        self.mdp = exact.random_mdp(jax.random.key(3), 3, 2, 2, HORIZON)
        self.params = 0.7 * jax.random.normal(jax.random.key(1), (3, 2))
        self.enumeration = exact.enumerate_trajectories(self.mdp)
        self.batch = self.enumeration.trajectories
        self.probabilities = exact.trajectory_probabilities(tabular, self.params, self.enumeration)
        self.gradient = exact.exact_gradient(tabular, self.params, self.mdp)
        self.objective = float(exact.objective(tabular, self.params, self.mdp))
        table = exact.policy_probabilities(tabular, self.params, self.mdp)
        self.values = exact.state_values(self.mdp, table)

    def discounted_gradient(self, discount):
        return exact.exact_gradient(tabular, self.params, self.mdp, discount)

    def mean(self, estimator, state=None, num_episodes=1):
        """E[∇̂ρ] over all batches of `num_episodes` episodes."""
        state = estimator.init(jax.random.key(0), self.batch) if state is None else state
        function = lambda trajectory: estimator.gradient(self.params, state, trajectory)[0]
        return exact.estimator_moments(function, self.enumeration, self.probabilities, num_episodes).mean


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        yield Problem()


def make(**kwargs):
    return estimators.make_estimator(TABULAR, **kwargs)


def weigh(batch, state=(), **kwargs):
    """Weights and targets of the estimators that `make` makes."""
    return estimators.make_weighting(**kwargs).weigh(state, batch)


def linear_value(obs_size=3):
    return (lambda key, obs: jax.random.normal(key, (obs_size,)), lambda params, obs: obs @ params, optax.sgd(0.1))


UNBIASED = {
    "none": baselines.none,
    "constant": lambda: baselines.constant(1.7),
    "moving average": lambda: baselines.moving_average(0.9, 2.5),
    "first": lambda: baselines.moving_average(0.9, "first"),
    "debiased": lambda: baselines.moving_average(0.9, "debiased"),
    "time-dependent": baselines.time_dependent,
    "any v(x)": lambda: baselines.state_values(lambda obs: obs @ jnp.asarray([2.0, -1.0, 5.0])),
    "value network": lambda: baselines.value_function(*linear_value()),
}


@pytest.mark.parametrize("rule", [estimators.total_return, estimators.reward_to_go], ids=["G_1", "G_t"])
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased(problem, name, rule):
    close(problem.mean(make(returns=rule(), baseline=UNBIASED[name]())), problem.gradient)


@pytest.mark.parametrize("rule", [estimators.total_return, estimators.reward_to_go], ids=["G_1", "G_t"])
@pytest.mark.parametrize("over", ["episodes", "live"])
@pytest.mark.parametrize("size", [2])
def test_leave_one_out_is_unbiased(problem, rule, over, size):
    estimator = make(returns=rule(), baseline=baselines.leave_one_out(over))
    close(problem.mean(estimator, num_episodes=size), problem.gradient)


@pytest.mark.parametrize("rule", [estimators.total_return, estimators.reward_to_go], ids=["G_1", "G_t"])
def test_batch_mean_shrinks_by_one_minus_one_over_b(problem, rule):
    got = problem.mean(make(returns=rule(), baseline=baselines.batch_mean()), num_episodes=2)
    close(got, problem.gradient / 2)


def test_batch_mean_of_three():
    """(B − 1)/B once more at B = 3, where the tiny corridor still enumerates."""
    mdp = exact.random_mdp(jax.random.key(5), 3, 2, 1, 3)
    params = jax.random.normal(jax.random.key(1), (3, 2))
    enumeration = exact.enumerate_trajectories(mdp)
    probabilities = exact.trajectory_probabilities(tabular, params, enumeration)
    estimator = make(returns=estimators.total_return(), baseline=baselines.batch_mean())
    function = lambda trajectory: estimator.gradient(params, (), trajectory)[0]
    got = exact.estimator_moments(function, enumeration, probabilities, 3).mean
    close(got, exact.exact_gradient(tabular, params, mdp) * 2 / 3)


@pytest.mark.parametrize("decay", [0.0, 0.3, 0.9])
def test_refreshing_the_moving_average_before_use_shrinks_by_beta(problem, decay):
    baseline = baselines.moving_average(decay, 1.3)
    estimator = make(returns=estimators.total_return(), baseline=baseline)
    state = estimator.init(jax.random.key(0), problem.batch)

    def refreshed_first(trajectory):
        _, new_state, _ = estimator.gradient(problem.params, state, trajectory)
        return estimator.gradient(problem.params, new_state, trajectory)[0]

    got = exact.estimator_moments(refreshed_first, problem.enumeration, problem.probabilities, 1).mean
    close(got, decay * problem.gradient)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_running_mean_with_the_current_sample_shrinks_by_one_minus_one_over_n(count):
    """ρ̂_n = ρ̂_{n−1} + (G − ρ̂_{n−1}) / n over n episodes weighs the n-th: E = (1 − 1/n) ∇ρ, and ∇ρ with ρ̂_{n−1}."""
    mdp = exact.random_mdp(jax.random.key(5), 3, 2, 1, 3)
    params = jax.random.normal(jax.random.key(1), (3, 2))
    enumeration = exact.enumerate_trajectories(mdp)
    probabilities = exact.trajectory_probabilities(tabular, params, enumeration)

    def of_the_last(episodes):
        state = baselines.moving_average(0.0).init(jax.random.key(0), episodes)
        for n in range(1, count + 1):
            before, episode = state, exact.select_episodes(episodes, jnp.asarray([n - 1]))
            mean = baselines.moving_average(1.0 - 1.0 / n)
            state, _ = mean.update(before, episode, jnp.sum(episode.rewards, axis=0, keepdims=True))
        estimator = make(returns=estimators.total_return(), baseline=mean)
        gradient = lambda state: estimator.gradient(params, state, episode)[0]
        return {"included": gradient(state), "left out": gradient(before)}

    got = exact.estimator_moments(of_the_last, enumeration, probabilities, count).mean
    wanted = exact.exact_gradient(tabular, params, mdp)
    close(got["included"], wanted * (1.0 - 1.0 / count))
    close(got["left out"], wanted)


def test_a_batch_changes_no_expectation(problem):
    estimator = make(baseline=baselines.moving_average(0.9, 2.0))
    close(problem.mean(estimator, num_episodes=2), problem.gradient)


def test_independent_episodes_divide_the_variance(problem):
    estimator = make(baseline=baselines.constant(0.4))
    function = lambda trajectory: estimator.gradient(problem.params, (), trajectory)[0]
    one, two = (
        exact.estimator_moments(function, problem.enumeration, problem.probabilities, size).total_variance
        for size in (1, 2)
    )
    close(two, one / 2)


def test_episode_gradients_average_to_the_gradient(problem):
    for options in (
        {"baseline": baselines.leave_one_out()},
        {"standardise": "population", "entropy_coef": 0.3},
        {"over_time": "mean", "returns": estimators.reward_to_go(0.9), "entropy_coef": 0.3},
        {"time_weights": "discount", "returns": estimators.reward_to_go(0.9), "rows_per_piece": 7},
    ):
        estimator = make(**options)
        each = estimator.episode_gradients(problem.params, (), problem.batch)
        close(each.mean(axis=0), estimator.gradient(problem.params, (), problem.batch)[0])


def test_the_weights_are_constants_of_the_gradient(problem):
    """∇̂ = Σ w ∇ ln f, spelled out."""
    options = {"baseline": baselines.constant(0.4)}
    estimator = make(**options)
    weights, _ = weigh(problem.batch, **options)
    obs, actions = problem.batch.obs, problem.batch.actions
    p = jax.nn.softmax(obs @ problem.params)
    score = obs[..., :, None] * (jax.nn.one_hot(actions, 2) - p)[..., None, :]
    by_hand = jnp.sum(weights[..., None, None] * score, axis=(0, 1)) / actions.shape[1]
    close(estimator.gradient(problem.params, (), problem.batch)[0], by_hand)


def test_discounting_with_and_without_the_power_of_gamma(problem):
    discount = 0.6
    rule = estimators.reward_to_go(discount)
    wanted = problem.discounted_gradient(discount)
    kept = problem.mean(make(returns=rule, time_weights="discount"))
    dropped = problem.mean(make(returns=rule))
    close(kept, wanted)
    close(problem.mean(make(returns=estimators.total_return(discount))), wanted)
    # Dropping the factor is not even parallel to the gradient.
    assert np.abs(dropped - wanted).max() > 0.03
    cosine = jnp.sum(dropped * wanted) / jnp.linalg.norm(dropped) / jnp.linalg.norm(wanted)
    assert cosine < 0.9999


@pytest.mark.parametrize(
    "options",
    [{"standardise": "population"}, {"over_time": "mean"}],
    ids=["standardised", "mean over steps"],
)
def test_named_departures_are_biased(problem, options):
    got = problem.mean(make(baseline=baselines.constant(0.4), **options), num_episodes=2)
    assert np.abs(got - problem.gradient).max() > 0.01


def exact_values(problem):
    """V_1(s): exact for the first step only, since the horizon makes values depend on time."""
    return baselines.state_values(lambda obs: obs @ problem.values[0])


def test_lambda_one_without_a_cut_is_reward_to_go():
    """In an episode that ends by itself λ = 1 telescopes: v drops out of the return."""
    mdp = exact.make_tabular_mdp(
        initial=[1.0, 0.0, 0.0],
        successors=[[[1], [2]], [[2], [2]], [[2], [2]]],
        probabilities=np.ones((3, 2, 1)),
        rewards=np.arange(6.0).reshape(3, 2, 1),
        terminal=[False, False, True],
        horizon=2,
    )
    batch = exact.enumerate_trajectories(mdp).trajectories
    values = baselines.state_values(lambda obs: obs @ jnp.asarray([3.0, -7.0, 11.0]))
    lambda_one = {"returns": estimators.lambda_return(1.0, 0.9), "baseline": values}
    to_go, _ = weigh(batch, returns=estimators.reward_to_go(0.9), baseline=values)
    close(weigh(batch, **lambda_one)[0], to_go)
    # The wrong twin takes a termination for a truncation: off by γ v(terminal) = 0.9 · 11 there.
    leaky = batch._replace(terminated=jnp.zeros_like(batch.terminated), truncated=batch.terminated)
    off = weigh(leaky, **lambda_one)[0] - to_go
    np.testing.assert_allclose(np.asarray(off)[np.asarray(batch.terminated)], 0.9 * 11.0)


def test_a_truncated_episode_bootstraps_from_its_final_observation(problem):
    values = baselines.state_values(lambda obs: obs @ jnp.asarray([3.0, -7.0, 11.0]))
    _, targets = weigh(problem.batch, returns=estimators.lambda_return(1.0), baseline=values)
    to_go = jax.vmap(returns.reward_to_go, 1, 1)(problem.batch.rewards)
    final = problem.batch.final_obs @ jnp.asarray([3.0, -7.0, 11.0])
    cut = problem.batch.truncated.any(axis=0)
    wanted = to_go + jnp.where(cut, final, 0.0)[None]
    alive = np.asarray(problem.batch.alive)
    np.testing.assert_allclose(np.asarray(targets)[alive], np.asarray(wanted)[alive], atol=1e-12)


def test_one_step_returns_are_the_temporal_difference(problem):
    values = exact_values(problem)
    batch = problem.batch
    weights, _ = weigh(batch, returns=estimators.n_step(1, 0.9), baseline=values)
    lambda_zero, _ = weigh(batch, returns=estimators.lambda_return(0.0, 0.9), baseline=values)
    close(weights, lambda_zero)


def test_the_entropy_bonus_is_the_gradient_of_the_entropy(problem):
    def bonus(params):
        log_probs = jax.nn.log_softmax(problem.batch.obs @ params)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return 0.3 * jnp.sum(jnp.where(problem.batch.alive, entropy, 0.0)) / entropy.shape[1]

    with_bonus, without = (make(entropy_coef=c).gradient(problem.params, (), problem.batch)[0] for c in (0.3, 0.0))
    close(with_bonus - without, jax.grad(bonus)(problem.params))


def test_relabelled_rewards_reach_the_gradient(problem):
    doubled = lambda batch: rewards.relabel(batch, 2.0 * batch.rewards)
    function = lambda batch: make().gradient(problem.params, (), doubled(batch))[0]
    got = exact.estimator_moments(function, problem.enumeration, problem.probabilities, 1).mean
    close(got, 2.0 * problem.gradient)


def test_use_then_update(problem):
    """The gradient weighs with the old state; the new state has seen the batch."""
    options = {"returns": estimators.total_return(), "baseline": baselines.moving_average(0.9, 2.0)}
    estimator = make(**options)
    state = estimator.init(jax.random.key(0), problem.batch)
    weights, _ = weigh(problem.batch, state, **options)
    _, new_state, _ = estimator.gradient(problem.params, state, problem.batch)
    total = problem.batch.rewards.sum(axis=0)
    close(weights[0], total - 2.0)
    close(new_state.estimate, 0.9 * 2.0 + 0.1 * total.mean())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: estimators.reward_to_go(-0.5), "discount.*-0.5"),
        (lambda: estimators.lambda_return(1.5), "lambda_.*1.5"),
        (lambda: estimators.n_step(0), "n .*0"),
        (lambda: make(entropy_coef=-1.0), "entropy_coef.*-1"),
        (lambda: make(over_time="median"), "over_time.*median"),
        (lambda: make(standardise="yes"), "standardise.*yes"),
        (lambda: make(returns=estimators.lambda_return(), baseline=baselines.leave_one_out()), "function of the obs"),
        (lambda: make(returns=estimators.lambda_return()), "function of the observation that predicts"),
        (lambda: make(returns=estimators.total_return(0.9), time_weights="discount"), "time_weights must be 'none'"),
        (lambda: make(baseline="leave_one_out"), r"baseline must be of type Baseline.*'leave_one_out'"),
        (lambda: make(returns="reward_to_go"), r"returns must be of type Returns.*'reward_to_go'"),
        (lambda: make(objective="ppo"), "objective must be a function.*'ppo'"),
        (lambda: baselines.moving_average(1.5), "decay.*1.5"),
        (lambda: baselines.moving_average(0.9, "second"), "initial.*second"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_leave_one_out_of_one_episode_is_refused(problem):
    one = exact.select_episodes(problem.batch, jnp.asarray([0]))
    with pytest.raises(ValueError, match="must hold at least 2 episodes, got 1"):
        weigh(one, baseline=baselines.leave_one_out())
