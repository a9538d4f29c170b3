"""Every estimator against the exact gradient, by enumeration in float64; every wrong twin off by its factor.

The sampled pipeline sees these very objects: what is measured here is what trains.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from closeness import close, far
from enumerated import Problem
from policies import TABULAR

from pgjax import baselines, estimators, exact, rewards

pytestmark = pytest.mark.usefixtures("exact_arithmetic")

RULES = {"G_1": estimators.total_return, "G_t": estimators.reward_to_go}
DISCOUNT = 0.6


@pytest.fixture(scope="module")
def problem():
    return Problem()


@pytest.fixture(scope="module")
def small():
    """Few enough trajectories for all batches of three."""
    return Problem(num_outcomes=1, seed=5)


def make(**kwargs):
    return estimators.make_estimator(TABULAR, **kwargs)


def weigh(batch, state=(), **kwargs):
    """Weights and targets of the estimators that `make` makes."""
    return jax.jit(estimators.make_weighting(**kwargs).weigh)(state, batch)


def gradient_of(problem, estimator):
    """Of a trajectory, with the state at the start."""
    state = estimator.init(jax.random.key(0), problem.batch)
    return lambda trajectory: estimator.gradient(problem.params, state, trajectory)[0]


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
DECAYS = (0.0, 0.3, 0.9)


@pytest.fixture(scope="module")
def of_one(problem):
    """Moments of ∇̂ρ over all batches of one episode, by name."""
    to_go = estimators.reward_to_go(DISCOUNT)
    found = {
        f"{name}, {rule}": make(returns=RULES[rule](), baseline=baseline())
        for name, baseline in UNBIASED.items()
        for rule in RULES
    } | {
        "constant": make(baseline=baselines.constant(0.4)),
        "discount kept": make(returns=to_go, time_weights="discount"),
        "discount dropped": make(returns=to_go),
        "discounted from the start": make(returns=estimators.total_return(DISCOUNT)),
    }

    def refreshed_first(decay):
        estimator = make(returns=estimators.total_return(), baseline=baselines.moving_average(decay, 1.3))

        def gradient(trajectory):
            _, state, _ = estimator.gradient(problem.params, start, trajectory)
            return estimator.gradient(problem.params, state, trajectory)[0]

        start = estimator.init(jax.random.key(0), problem.batch)
        return gradient

    functions = {name: gradient_of(problem, estimator) for name, estimator in found.items()}
    functions |= {f"refreshed, {decay}": refreshed_first(decay) for decay in DECAYS}
    doubled = lambda batch: rewards.relabel(batch, 2.0 * batch.rewards)
    functions["relabelled"] = lambda batch: gradient_of(problem, make())(doubled(batch))
    return problem.moments(1, functions)


@pytest.fixture(scope="module")
def of_two(problem):
    """Moments of ∇̂ρ over all batches of two episodes, by name."""
    constant = baselines.constant(0.4)
    found = {
        f"leave one out, {over}, {rule}": make(returns=RULES[rule](), baseline=baselines.leave_one_out(over))
        for over in ("episodes", "live")
        for rule in RULES
    } | {
        **{f"batch mean, {rule}": make(returns=RULES[rule](), baseline=baselines.batch_mean()) for rule in RULES},
        "moving average": make(baseline=baselines.moving_average(0.9, 2.0)),
        "constant": make(baseline=constant),
        "standardised": make(baseline=constant, standardise="population"),
        "mean over steps": make(baseline=constant, over_time="mean"),
    }
    return problem.moments(2, {name: gradient_of(problem, estimator) for name, estimator in found.items()})


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", UNBIASED)
def test_unbiased(problem, of_one, name, rule):
    close(of_one.mean[f"{name}, {rule}"], problem.gradient)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("over", ["episodes", "live"])
def test_leave_one_out_is_unbiased(problem, of_two, rule, over):
    close(of_two.mean[f"leave one out, {over}, {rule}"], problem.gradient)


@pytest.mark.parametrize("rule", RULES)
def test_batch_mean_shrinks_by_one_minus_one_over_b(problem, of_two, rule):
    close(of_two.mean[f"batch mean, {rule}"], problem.gradient / 2)


@pytest.mark.parametrize("decay", DECAYS)
def test_refreshing_the_moving_average_before_use_shrinks_by_beta(problem, of_one, decay):
    close(of_one.mean[f"refreshed, {decay}"], decay * problem.gradient)


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_running_mean_with_the_current_sample_shrinks_by_one_minus_one_over_n(small, count):
    """ρ̂_n = ρ̂_{n−1} + (G − ρ̂_{n−1}) / n over n episodes weighs the n-th: E = (1 − 1/n) ∇ρ, and ∇ρ with ρ̂_{n−1}.

    The mean of the batch does the same to all its episodes.
    """

    def of_the_last(episodes):
        state = baselines.moving_average(0.0).init(jax.random.key(0), episodes)
        for n in range(1, count + 1):
            before, episode = state, exact.select_episodes(episodes, jnp.asarray([n - 1]))
            mean = baselines.moving_average(1.0 - 1.0 / n)
            state, _ = mean.update(before, episode, jnp.sum(episode.rewards, axis=0, keepdims=True))
        estimator = make(returns=estimators.total_return(), baseline=mean)
        gradient = lambda state: estimator.gradient(small.params, state, episode)[0]
        return {"included": gradient(state), "left out": gradient(before)}

    batch_mean = make(returns=estimators.total_return(), baseline=baselines.batch_mean())
    functions = {"last": of_the_last, "batch mean": gradient_of(small, batch_mean)}
    got = small.moments(count, functions).mean
    close(got["last"]["included"], small.gradient * (1.0 - 1.0 / count))
    close(got["last"]["left out"], small.gradient)
    close(got["batch mean"], small.gradient * (1.0 - 1.0 / count))


def test_a_batch_changes_no_expectation(problem, of_two):
    close(of_two.mean["moving average"], problem.gradient)


def test_independent_episodes_divide_the_variance(of_one, of_two):
    close(of_two.variance["constant"], of_one.variance["constant"] / 2)


def test_episode_gradients_average_to_the_gradient(problem):
    options = (
        {"baseline": baselines.leave_one_out()},
        {"standardise": "population", "entropy_coef": 0.3},
        {"over_time": "mean", "returns": estimators.reward_to_go(0.9), "entropy_coef": 0.3},
        {"time_weights": "discount", "returns": estimators.reward_to_go(0.9), "rows_per_piece": 7},
    )
    problem.each({position: make(**option) for position, option in enumerate(options)})


def test_the_weights_are_constants_of_the_gradient(problem):
    """∇̂ = Σ w ∇ ln f, spelled out."""
    options = {"baseline": baselines.constant(0.4)}
    weights, _ = weigh(problem.batch, **options)
    rows = np.asarray(weights)[..., None, None] * problem.scores(problem.params)
    gradient = jax.jit(gradient_of(problem, make(**options)))(problem.batch)
    close(gradient, rows.sum(axis=(0, 1)) / rows.shape[1])


def test_discounting_with_and_without_the_power_of_gamma(problem, of_one):
    wanted = problem.gradient_at(DISCOUNT)
    close(of_one.mean["discount kept"], wanted)
    close(of_one.mean["discounted from the start"], wanted)
    # Dropping the factor is not even parallel to the gradient.
    dropped = np.asarray(of_one.mean["discount dropped"])
    assert np.abs(dropped - wanted).max() > 0.03
    assert np.sum(dropped * wanted) / np.linalg.norm(dropped) / np.linalg.norm(wanted) < 0.9999


@pytest.mark.parametrize("name", ["standardised", "mean over steps"])
def test_named_departures_are_biased(problem, of_two, name):
    far(of_two.mean[name], problem.gradient, 0.01)


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
    batch = jax.device_get(exact.enumerate_trajectories(mdp).trajectories)
    values = baselines.state_values(lambda obs: obs @ jnp.asarray([3.0, -7.0, 11.0]))
    lambda_one = jax.jit(estimators.make_weighting(returns=estimators.lambda_return(1.0, 0.9), baseline=values).weigh)
    to_go = np.asarray(weigh(batch, returns=estimators.reward_to_go(0.9), baseline=values)[0])
    close(lambda_one((), batch)[0], to_go, 1e-10)
    # The wrong twin takes a termination for a truncation: off by γ v(terminal) = 0.9 · 11 there.
    leaky = batch._replace(terminated=np.zeros_like(batch.terminated), truncated=batch.terminated)
    off = np.asarray(lambda_one((), leaky)[0]) - to_go
    np.testing.assert_allclose(off[batch.terminated], 0.9 * 11.0)


def test_a_truncated_episode_bootstraps_from_its_final_observation(problem):
    v = np.array([3.0, -7.0, 11.0])
    values = baselines.state_values(lambda obs: obs @ v)
    _, targets = weigh(problem.batch, returns=estimators.lambda_return(1.0), baseline=values)
    batch = jax.device_get(problem.batch)
    to_go = batch.rewards[::-1].cumsum(axis=0)[::-1]
    wanted = to_go + np.where(batch.truncated.any(axis=0), batch.final_obs @ v, 0.0)
    close(np.asarray(targets)[batch.alive], wanted[batch.alive])


def test_one_step_returns_are_the_temporal_difference(problem):
    """V_1(s) is exact for the first step only, since the horizon makes values depend on time."""
    first = exact.state_values(problem.mdp, problem.table)[0]
    values = baselines.state_values(lambda obs: obs @ first)
    weights, _ = weigh(problem.batch, returns=estimators.n_step(1, 0.9), baseline=values)
    lambda_zero, _ = weigh(problem.batch, returns=estimators.lambda_return(0.0, 0.9), baseline=values)
    close(weights, lambda_zero)


def test_the_entropy_bonus_is_the_gradient_of_the_entropy(problem):
    def bonus(params):
        log_probs = jax.nn.log_softmax(problem.batch.obs @ params)
        entropy = -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)
        return 0.3 * jnp.sum(jnp.where(problem.batch.alive, entropy, 0.0)) / entropy.shape[1]

    @jax.jit
    def gradients(params):
        with_bonus, without = (make(entropy_coef=c).gradient(params, (), problem.batch)[0] for c in (0.3, 0.0))
        return with_bonus - without, jax.grad(bonus)(params)

    close(*gradients(problem.params))


def test_relabelled_rewards_reach_the_gradient(problem, of_one):
    close(of_one.mean["relabelled"], 2.0 * problem.gradient)


def test_use_then_update(problem):
    """The gradient weighs with the old state; the new state has seen the batch."""
    options = {"returns": estimators.total_return(), "baseline": baselines.moving_average(0.9, 2.0)}
    estimator = make(**options)
    state = estimator.init(jax.random.key(0), problem.batch)
    weights, _ = weigh(problem.batch, state, **options)
    _, new_state, _ = jax.jit(estimator.gradient)(problem.params, state, problem.batch)
    total = np.asarray(problem.batch.rewards).sum(axis=0)
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
        (lambda: make(returns="reward_to_go"), r"returns must be of type ReturnRule.*'reward_to_go'"),
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
