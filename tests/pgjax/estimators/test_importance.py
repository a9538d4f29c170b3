"""Episodes of another policy: which ratios make an estimate unbiased, by enumeration in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import close
from enumerated import Problem
from policies import TABULAR, tabular

from pgjax import baselines, estimators, exact, losses
from pgjax.estimators.importance import log_ratios, weighted_reward_to_go

pytestmark = pytest.mark.usefixtures("float64")

DISCOUNT = 0.6
B_OF_STATE = np.array([2.0, -1.0, 5.0])
VALUES = baselines.state_values(lambda obs: obs @ jnp.asarray(B_OF_STATE))
record = jax.jit(partial(estimators.record_behaviour, TABULAR))
OLD = np.array([[0.4, -0.3], [-0.6, 0.2], [0.0, 0.0]])


def make(**options):
    return estimators.importance_weighted(TABULAR, **options)


class OffPolicy(Problem):
    """The same problem, played by θ_old."""

    def __init__(self):
        super().__init__()
        self.old_probabilities, self.old_table, self.old_visits = self.facts_at(jnp.asarray(OLD))
        self.recorded = self.record(jnp.asarray(OLD))
        self.log_ratios = np.asarray(jax.jit(partial(log_ratios, TABULAR))(self.params, self.recorded))

    def record(self, params):
        return record(params, self.batch)

    def old_mean(self, summands):
        return self.mean(summands, self.old_probabilities)


@pytest.fixture(scope="module")
def problem():
    with jax.enable_x64(True):
        yield OffPolicy()


@pytest.fixture(scope="module")
def found(problem):
    surrogate = lambda objective: estimators.make_estimator(TABULAR, baseline=VALUES, objective=objective)
    with jax.enable_x64(True):
        yield problem.each(
            {
                "per decision": make(),
                "per decision, b": make(baseline=VALUES, rows_per_piece=7),
                "per decision, γ": make(
                    baseline=VALUES, returns=estimators.reward_to_go(DISCOUNT), time_weights="discount"
                ),
                "trajectory": make(weighting="trajectory"),
                "trajectory, b": make(weighting="trajectory", baseline=VALUES),
                "trajectory, G_t": make(weighting="trajectory", returns=estimators.reward_to_go(), baseline=VALUES),
                "trajectory, γ": make(weighting="trajectory", returns=estimators.total_return(DISCOUNT)),
                "own ratio": surrogate(losses.importance_weighted_objective),
                "clipped": surrogate(estimators.clipped_surrogate(0.2)),
                "no ratio": surrogate(estimators.score_function),
            },
            problem.recorded,
            checked=("per decision, γ",),
        )


@pytest.mark.parametrize("name", ["per decision", "per decision, b", "trajectory", "trajectory, b", "trajectory, G_t"])
def test_unbiased_off_policy(problem, found, name):
    close(problem.old_mean(found[name]), problem.gradient)


@pytest.mark.parametrize("name", ["per decision, γ", "trajectory, γ"])
def test_unbiased_for_the_discounted_objective(problem, found, name):
    close(problem.old_mean(found[name]), problem.gradient_at(DISCOUNT))


def test_a_batch_may_be_its_own_baseline(problem):
    estimator = make(baseline=baselines.leave_one_out())

    def gradient(trajectory):
        return jnp.mean(estimator.episode_gradients(problem.params, (), trajectory), axis=0)

    enumeration = problem.enumeration._replace(trajectories=problem.recorded)
    got = exact.estimator_moments(gradient, enumeration, problem.old_probabilities, 2, batch_size=47**2)
    close(got.mean, problem.gradient)


@pytest.mark.parametrize("name", ["own ratio", "clipped", "no ratio"])
def test_one_ratio_is_not_enough(problem, found, name):
    """PPO's surrogate leaves the states and the later actions θ_old's; on-policy none of this matters."""
    assert np.abs(problem.old_mean(found[name]) - problem.gradient).max() > 0.03


def test_at_the_policy_that_acted_all_are_the_score_function(problem):
    recorded = problem.record(problem.params)
    plain = lambda **options: estimators.make_estimator(TABULAR, baseline=VALUES, **options)
    found = problem.each(
        {
            "score": plain(),
            "G_1": plain(returns=estimators.total_return()),
            "per decision": make(baseline=VALUES),
            "trajectory": make(baseline=VALUES, weighting="trajectory"),
            "own ratio": plain(objective=losses.importance_weighted_objective),
            "clipped": plain(objective=estimators.clipped_surrogate(0.2)),
        },
        recorded,
        checked=(),
    )
    for name in ("per decision", "own ratio", "clipped"):
        close(found[name], found["score"])
    close(found["trajectory"], found["G_1"])
    close(problem.mean(found["clipped"]), problem.gradient)


def test_which_ratios_a_baseline_needs(problem, found):
    """Up to and including the own: otherwise it is biased by −Σ_t Σ_s d_t(s) b(s) Σ_a f(a|s, θ_old) ψ(s, a)."""
    up_to = np.cumsum(problem.log_ratios, axis=0)
    values = np.asarray(problem.batch.obs) @ B_OF_STATE
    scores = problem.scores(problem.params)
    part = lambda ratios: ((ratios * values)[..., None, None] * scores).sum(axis=0)
    close(found["per decision"] - part(np.exp(up_to)), found["per decision, b"])

    def bias(visits):
        return -(visits.sum(axis=0) * B_OF_STATE)[:, None] * (problem.old_table - problem.table)

    without_own = found["per decision"] - part(np.exp(up_to - problem.log_ratios))
    close(problem.old_mean(without_own) - problem.gradient, bias(problem.visits))
    without_any = found["per decision"] - part(np.ones_like(up_to))
    close(problem.old_mean(without_any) - problem.gradient, bias(problem.old_visits))
    assert min(np.abs(bias(visits)).max() for visits in (problem.visits, problem.old_visits)) > 0.1


def test_the_weighted_return_estimates_the_value(problem):
    ratios = np.exp(problem.log_ratios)
    to_go = lambda rewards, ratios: weighted_reward_to_go(rewards, ratios, DISCOUNT)
    got = np.asarray(jax.vmap(to_go, 1, 1)(problem.batch.rewards, jnp.asarray(ratios)))
    first = problem.old_mean(got[0])
    close(first, exact.objective(tabular, problem.params, problem.mdp, DISCOUNT))
    by_hand = sum(DISCOUNT**k * ratios[: k + 1].prod(axis=0) * np.asarray(problem.batch.rewards[k]) for k in range(3))
    close(got[0], by_hand)


def test_effective_sample_size(problem):
    effective = jax.jit(lambda batch: make().gradient(problem.params, (), batch)[2]["effective_sample_size"])
    weights = np.exp(problem.log_ratios.sum(axis=0))
    close(effective(problem.recorded), weights.mean() ** 2 / (weights**2).mean())
    close(effective(problem.record(problem.params)), 1.0)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: make(weighting="step"), "weighting.*step"),
        (lambda: make(returns=estimators.total_return()), "returns must be reward_to_go in this estimator"),
        (lambda: make(returns=estimators.n_step(1), weighting="trajectory"), "total_return or reward_to_go"),
    ],
)
def test_bad_arguments_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
