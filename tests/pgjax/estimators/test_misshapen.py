"""Every estimator refuses a misshapen trajectory by name, whatever it would have made of it; nothing is compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from misshapen import MISSHAPEN

from pgjax import acting, baselines, estimators
from pgjax.baselines import critics
from pgjax.distributions import bernoulli, categorical
from pgjax.estimators.hot_path import batch_gradient, weighted_log_likelihood
from pgjax.types import Policy, Trajectory

STEPS, LANES, SIZE, ACTIONS = 4, 5, 3, 2


def linear(params, obs):
    return obs @ params


POLICY = Policy(init=lambda key, obs: np.ones((SIZE, ACTIONS), np.float32), apply=linear, distribution=categorical)
BITS = POLICY._replace(distribution=bernoulli)


def right(*of_action):
    """A trajectory that all may learn from; actions are `[T, B, *of_action]`."""
    numbers = np.ones((STEPS, LANES), np.float32)
    obs = np.ones((STEPS, LANES, SIZE), np.float32)
    ends = np.arange(STEPS)[:, None] == np.full(LANES, STEPS - 1)
    return Trajectory(
        obs=obs,
        actions=np.zeros((STEPS, LANES, *of_action), np.int32),
        rewards=numbers,
        alive=np.ones((STEPS, LANES), bool),
        terminated=ends,
        truncated=np.zeros_like(ends),
        final_obs=obs[0],
        behaviour_log_probs=-numbers,
        greedy_returns=numbers,
    )


def value_function():
    return baselines.value_function(lambda key, obs: np.ones(SIZE, np.float32), linear, optax.sgd(0.1))


def action_values(**options):
    init = lambda key, obs: np.ones((SIZE, ACTIONS), np.float32)
    return critics.action_value_function(init, linear, optax.sgd(0.1), **options)


def families():
    """name → an estimator of each family, and of each way to weigh."""
    make = lambda **options: estimators.make_estimator(POLICY, **options)
    critic = lambda form: estimators.make_critic_estimator(POLICY, action_values(), form=form)
    total, value = estimators.total_return(), value_function()
    return {
        "no baseline": make(),
        "moving average": make(baseline=baselines.moving_average()),
        "time-dependent": make(baseline=baselines.time_dependent()),
        "leave one out": make(baseline=baselines.leave_one_out(group_size=LANES)),
        "optimal": make(baseline=baselines.optimal_constant(), returns=total),
        "optimal, leaving one out": make(baseline=baselines.optimal_leave_one_out(), returns=total),
        "greedy rollout": make(baseline=baselines.greedy_rollout()),
        "value, one pass": make(baseline=value),
        "value, two passes": make(baseline=value._replace(predict_and_update=None), entropy_coef=0.1),
        "λ-return": make(baseline=value, returns=estimators.lambda_return(0.9), over_time="mean"),
        "standardised groups": make(standardise="group_population", group_size=LANES, returns=total),
        "clipped": make(objective=estimators.clipped_surrogate(), standardise="population"),
        **{form: critic(form) for form in ("all_action", "action_dependent", "uncorrected", "trajectory_wise")},
        "importance per decision": estimators.importance_weighted(POLICY),
        "importance of trajectories": estimators.importance_weighted(POLICY, weighting="trajectory"),
        "natural, by products": estimators.natural(make(), POLICY),
        "natural, dense": estimators.natural(make(), POLICY, fisher=lambda params: jnp.eye(params.size)),
        "per parameter": estimators.per_parameter(POLICY),
    }


def bit_family():
    b = lambda outputs, obs, action: 0.0 * outputs
    return estimators.factorised(BITS, estimators.each_component(bernoulli), b)


def uses():
    """name → (what uses a trajectory, a right trajectory)."""
    found, params = {}, np.ones((SIZE, ACTIONS), np.float32)
    for name, estimator in {**families(), "factorised": bit_family()}.items():
        sample = right(ACTIONS) if name == "factorised" else right()
        state = jax.eval_shape(lambda: estimator.init(jax.random.key(0), sample))
        for part in ("gradient", "episode_gradients"):
            method = getattr(estimator, part)
            found[f"{name}: {part}"] = (lambda state, batch, method=method: method(params, state, batch), state, sample)
    record = lambda state, batch: estimators.record_behaviour(POLICY, params, batch)
    found["record_behaviour"] = (record, (), right())
    for name, baseline in (("no baseline", None), ("value", value_function())):
        weighting = estimators.make_weighting(baseline=baseline)
        state = jax.eval_shape(lambda: weighting.init(jax.random.key(0), right()))
        found[f"make_weighting, {name}"] = (weighting.weigh, state, right())
    return found


USES = uses()


@pytest.mark.parametrize("name", USES)
def test_every_misshapen_field_is_refused_by_name(name):
    use, state, sample = USES[name]
    jax.eval_shape(use, state, sample)
    for what, misshape, words in MISSHAPEN:
        with pytest.raises(ValueError) as caught:
            jax.eval_shape(lambda state, batch: use(state, misshape(batch)), state, sample)
        assert str(caught.value).startswith(f"trajectory.{words}"), what


def test_without_the_check_some_of_them_would_pass_for_a_gradient():
    """A wrong twin: the hot path alone lays rows flat, and asks nothing."""
    params = np.ones((SIZE, ACTIONS), np.float32)

    def unchecked(batch):
        rows = (batch.actions, batch.rewards)
        seen = acting.inputs(POLICY, batch)
        return batch_gradient(POLICY, weighted_log_likelihood(POLICY), params, seen, rows, batch.alive)

    shapes = lambda misshape: jax.eval_shape(lambda batch: unchecked(misshape(batch)), right())[0].shape
    by_name = {what: misshape for what, misshape, _ in MISSHAPEN}
    for what in ("obs batch-major", "actions batch-major", "rewards batch-major"):
        assert shapes(by_name[what]) == params.shape
